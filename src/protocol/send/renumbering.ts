/**
 * New sequence numbers for the frames and losses of a source that goes on under a new session. Its
 * own numbers would leave a gap there for every frame that was settled before.
 */
import type { Frame, Loss } from "../../frame.ts";

/** Consecutive sequence numbers. */
type Range = Pick<Loss, "first" | "last">;

export class Renumbering {
  #last = 0;
  /** New numbers of frames that are not settled, by the source's own. */
  readonly #numbers = new Map<number, number>();

  /** Returns a frame or loss with new numbers. A frame that comes again keeps its new number. */
  renumber(item: Frame | Loss): Frame | Loss {
    return "error" in item ? { ...item, ...this.nextRange(item) } : this.renumberFrame(item);
  }

  renumberFrame(frame: Frame): Frame {
    const original = originalOf(frame);
    const number = this.#numbers.get(original.sequence) ?? ++this.#last;
    this.#numbers.set(original.sequence, number);
    return renumbered(original, number);
  }

  /** Returns as many new numbers as a range has. */
  nextRange({ first, last }: Range): Range {
    const next = this.#last + 1;
    this.#last += last - first + 1;
    return { first: next, last: this.#last };
  }

  /** Called when a frame is settled or lost. */
  forget(frame: Frame): void {
    this.#numbers.delete(originalOf(frame).sequence);
  }
}

interface RenumberedFrame extends Frame {
  /** The frame as its source knows it. */
  readonly original: Frame;
}

/** Returns the frame as its source knows it. */
export function originalOf(frame: Frame | RenumberedFrame): Frame {
  return "original" in frame ? frame.original : frame;
}

function renumbered(original: Frame, sequence: number): RenumberedFrame {
  const { name, captured, size, metadata, isKey, revises, raw } = original;
  return {
    ...{ original, sequence, name, captured, size, metadata, isKey, revises, raw },
    get needsPieces() {
      return original.needsPieces === true;
    },
    read: (into) => original.read(into),
    pieces: () => original.pieces(),
  };
}
