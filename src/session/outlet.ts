/** One source of a sender: the frame it has at hand, and how far it is. */
import { FramesError } from "../errors.ts";
import type { Frame, FrameDescription, FrameSource, Loss } from "../frame.ts";
import { encodeControl } from "../wire/encode.ts";
import { Type } from "../wire/messages.ts";
import type { LargeFrame } from "./large.ts";

/** How far the delivery of one source is. */
export interface SourceProgress {
  readonly name: string;
  /** Frames to come in all, if that is known. */
  readonly total: number | undefined;
  /** Frames sent whole, and bytes of payload sent. */
  sent: number;
  bytes: number;
  /** Frames settled, refused ones included, and their bytes. */
  settled: number;
  settledBytes: number;
  refused: number;
  /** Numbers that were never sent. */
  lost: number;
  /** The large frame that is under way, until its receipt: bytes sent, and in all. */
  part: number;
  partOf: number;
}

/** Frames that were not delivered, and why. */
export interface Undelivered {
  readonly source: string;
  readonly first: number;
  readonly last: number;
  /** Name or path of the frame. */
  readonly what: string;
  readonly error: FramesError;
}

export class Outlet {
  readonly id: number;
  readonly source: FrameSource;
  readonly progress: SourceProgress;
  /** Whether SOURCE was sent. */
  declared = false;
  /** Taken from the source, and not begun. */
  frame: Frame | undefined;
  large: LargeFrame | undefined;
  /** What the sender had begun in all when `frame` first found no room in the window. */
  waitsSince: number | undefined;
  /** The source was asked for a frame and has not answered. */
  #asked = false;
  #ended = false;

  constructor(id: number, source: FrameSource) {
    this.id = id;
    this.source = source;
    const { name, total } = source;
    this.progress = {
      name,
      total,
      sent: 0,
      bytes: 0,
      settled: 0,
      settledBytes: 0,
      refused: 0,
      lost: 0,
      part: 0,
      partOf: 0,
    };
  }

  /** Whether nothing more will come of it. */
  get isExhausted(): boolean {
    return this.#ended && this.frame === undefined && this.large === undefined;
  }

  /** Whether the source may have more frames. */
  get mayHaveMore(): boolean {
    return !this.#ended;
  }

  /** Takes nothing more from the source, even if it was asked already. */
  end(): void {
    this.#ended = true;
  }

  /**
   * Asks the source for its next frame or loss, unless one is at hand or on its way. `take` gets it,
   * now or later; `later` is called when an answer came that was waited for.
   */
  ask(
    take: (item: Frame | Loss) => void,
    later: (failure: { error: unknown } | undefined) => void,
  ): void {
    while (!this.#asked && !this.#ended && this.frame === undefined) {
      const next = this.source.next();
      if (!(next instanceof Promise)) {
        if (next === undefined) this.#ended = true;
        else take(next);
        continue;
      }
      this.#asked = true;
      next.then(
        (item) => {
          this.#asked = false;
          if (item === undefined) this.#ended = true;
          else if (!this.#ended) take(item);
          later(undefined);
        },
        (error: unknown) => {
          this.#asked = false;
          this.#ended = true;
          later({ error });
        },
      );
    }
  }

  /** Keeps a frame at hand; what will never be sent, a frame over `limit` bytes included, is a loss. */
  accept(item: Frame | Loss, limit: number): Loss | undefined {
    if (!("error" in item) && item.size <= limit) {
      this.frame = item;
      return undefined;
    }
    const loss = "error" in item ? item : tooLarge(item, limit);
    this.progress.lost += loss.last - loss.first + 1;
    return loss;
  }

  /** No large frame is under way. */
  noPart(): void {
    this.progress.part = 0;
    this.progress.partOf = 0;
  }

  /** The SOURCE message that must go before everything else of this source. */
  declaration(): Uint8Array {
    const { name, type, raw } = this.source;
    return encodeControl(Type.source, this.id, {
      name,
      ...(type === undefined ? {} : { type }),
      ...(raw === undefined ? {} : { raw }),
    });
  }
}

/** Why a frame is over the server's limit, as both ends say it. */
export function tooLargeError(size: number, limit: number): FramesError {
  const message = `the frame has ${size} bytes, the server takes ${limit} (frames serve --max-frame)`;
  return new FramesError("too-large", message);
}

function tooLarge({ name, sequence, size }: FrameDescription, limit: number): Loss {
  return { first: sequence, last: sequence, what: name, error: tooLargeError(size, limit) };
}
