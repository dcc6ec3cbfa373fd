/** Gives received frames to whoever takes them, one after the other, each of them once. */
import { FramesError } from "../errors.ts";
import type {
  FrameDescription,
  FrameKeeper,
  FrameOrigin,
  FrameWriter,
  Outcome,
  RawShape,
  SourceStore,
} from "../frame.ts";

/** A frame that was received: whole, and its checksum verified. */
export interface ReceivedFrame {
  readonly bytes: Uint8Array;
  readonly source: string;
  /** Unique within session and source. */
  readonly sequence: number;
  /** Of the sender that it came from. */
  readonly session: string;
  /** Capture time in nanoseconds since 1970. */
  readonly captured: bigint;
  readonly name: string;
  /** A JSON object as text, or nothing. */
  readonly metadata: string;
  readonly crc32: number;
  /** Shape of a raw frame. */
  readonly raw?: RawShape;
}

/** Bytes that wait to be taken, after which nothing more is read. */
const mostWaiting = 8 << 20;

/** Frames since the last cursor that are remembered: the server tells one sooner. */
const mostRecent = 10_000;

interface Waiting {
  readonly frame: ReceivedFrame;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

export class Output implements FrameKeeper {
  readonly place = "the output";
  readonly isDurable = false;
  readonly isLasting = false;
  readonly #take: (frame: ReceivedFrame) => Promise<void> | void;
  /** Whether frames of several sources could not be told apart. */
  readonly #isSingle: boolean;
  #source: string | undefined;
  /** Tells the store that it comes from. */
  #identity: string | undefined;
  readonly #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #isTaking = false;
  /**
   * What has come since the cursor and may come again, and behind how many cursors it came: those of a connection
   * that broke say nothing of it any more until it has come again.
   */
  readonly #recent = new Map<string, number>();
  #cursors = 0;
  #cursor: string | undefined;

  /** @param take is given the next frame when it has taken the one before */
  constructor(take: (frame: ReceivedFrame) => Promise<void> | void, isSingle: boolean) {
    this.#take = take;
    this.#isSingle = isSingle;
  }

  get cursor(): string | undefined {
    return this.#cursor;
  }

  get isFull(): boolean {
    return this.#waitingBytes > mostWaiting;
  }

  welcomed(identity: string | undefined, place: string): void {
    this.#identity ??= identity;
    if (identity !== this.#identity) {
      throw new FramesError(
        "other-store",
        `Cannot go on: what came so far is of another store than ${place}; begin anew`,
      );
    }
    for (const key of this.#recent.keys()) this.#recent.set(key, Infinity);
  }

  mark(cursor: string): () => void {
    const number = ++this.#cursors;
    return () => {
      this.#cursor = cursor;
      for (const [key, before] of this.#recent) {
        if (before < number) this.#recent.delete(key);
      }
    };
  }

  isFresh(): boolean {
    return false;
  }

  check(_stream: string, source: string): void {
    this.#source ??= source;
    if (!this.#isSingle || source === this.#source) return;
    throw new FramesError(
      "usage",
      `Cannot write ${this.#source} and ${source} as one: --source NAME takes one source, --multipart tells them apart`,
    );
  }

  flush(): void {}

  open(origin: FrameOrigin): SourceStore {
    return {
      begin: (description) => this.#begin(origin, description),
      compare: (offered) => offered.map(() => "wanted"),
      lost: () => {},
    };
  }

  #begin(origin: FrameOrigin, description: FrameDescription): FrameWriter {
    const { source, session, raw } = origin;
    const { name, sequence, captured, metadata, size } = description;
    const key = `${source} ${session} ${sequence} ${name}`;
    if (this.#recent.has(key)) {
      this.#recent.set(key, this.#cursors);
      return { write() {}, finish: () => "present", discard() {} };
    }
    const bytes = new Uint8Array(size);
    let length = 0;
    return {
      write: (part) => {
        bytes.set(part, length);
        length += part.length;
      },
      finish: (crc32) => {
        if (this.#recent.size === mostRecent) {
          throw new FramesError("protocol", "The server tells no CURSOR");
        }
        this.#recent.set(key, this.#cursors);
        const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
        const shape = raw === undefined ? {} : { raw };
        const frame = { bytes, source, sequence, session, captured, name, metadata, crc32 };
        this.#waiting.push({ frame: { ...frame, ...shape }, resolve, reject });
        this.#waitingBytes += size;
        void this.#giveOut();
        return promise;
      },
      discard: () => {},
    };
  }

  async #giveOut(): Promise<void> {
    if (this.#isTaking) return;
    this.#isTaking = true;
    let next: Waiting | undefined;
    while ((next = this.#waiting[0]) !== undefined) {
      try {
        await this.#take(next.frame);
        next.resolve("stored");
      } catch (error) {
        next.reject(error);
      }
      this.#waiting.shift();
      this.#waitingBytes -= next.frame.bytes.length;
    }
    this.#isTaking = false;
  }
}
