/**
 * New sequence numbers for the frames and losses of a source that goes on under a new session. Its
 * own numbers would leave a gap there for every frame that was settled before.
 */
import type { Frame, FramePieces, Loss, RawShape } from "../../frame.ts";

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
    return new RenumberedFrame(original, number);
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

/** Returns the frame as its source knows it. */
export function originalOf(frame: Frame): Frame {
  return frame instanceof RenumberedFrame ? frame.original : frame;
}

class RenumberedFrame implements Frame {
  readonly original: Frame;
  readonly sequence: number;

  constructor(original: Frame, sequence: number) {
    this.original = original;
    this.sequence = sequence;
  }

  get name(): string {
    return this.original.name;
  }

  get captured(): bigint {
    return this.original.captured;
  }

  get size(): number {
    return this.original.size;
  }

  get metadata(): string {
    return this.original.metadata;
  }

  get isKey(): boolean | undefined {
    return this.original.isKey;
  }

  get revises(): boolean | undefined {
    return this.original.revises;
  }

  get raw(): RawShape | undefined {
    return this.original.raw;
  }

  get needsPieces(): boolean {
    return this.original.needsPieces === true;
  }

  read(into: Uint8Array): void {
    this.original.read(into);
  }

  pieces(): FramePieces {
    return this.original.pieces();
  }
}
