/**
 * Receive target without a journal. It recognizes the frames that a server sends again after a
 * reconnect (SPEC section 9).
 */
import { FramesError } from "../errors.ts";
import type {
  FrameDescription,
  FrameWriter,
  ReceiveTarget,
  SourceInfo,
  SourceStore,
} from "../frame.ts";
import { checkPathPart, sourceFolderPath } from "../store/name-rules.ts";

/**
 * Frames remembered at most. Exceeding this is a `protocol` error, because the server sends a
 * CURSOR at least every 256 frames (SPEC section 9).
 */
const maxRecentFrames = 10_000;

/** Takes the bytes of a frame that was received before. */
const repeatedFrame: FrameWriter = {
  write() {},
  finish: () => "present",
  discard() {},
};

/** Keeps the cursor in memory, and the frames since that cursor. */
export abstract class UnjournaledTarget implements ReceiveTarget {
  abstract readonly location: string;
  abstract readonly isFull: boolean;
  readonly isDurable = false;
  readonly isPersistent = false;
  /** Identity of the server's store (WELCOME); frames of another store must not be mixed in. */
  #identity: string | undefined;
  /**
   * Frames received since the last saved cursor; the server may resend them after a reconnect.
   * The value counts the cursors received before the frame. A reconnect sets it to infinity,
   * because cursors of the new connection cover the frame only after it was resent.
   */
  readonly #recent = new Map<string, number>();
  #cursorCount = 0;
  #cursor: string | undefined;

  get cursor(): string | undefined {
    return this.#cursor;
  }

  /** @throws {FramesError} `other-store` if the server has another store than before */
  onConnected(identity: string | undefined, location: string): void {
    this.#identity ??= identity;
    if (identity !== this.#identity) {
      throw new FramesError(
        "other-store",
        `Cannot continue: the frames so far came from another store than ${location}; run the command again`,
      );
    }
    for (const key of this.#recent.keys()) this.#recent.set(key, Infinity);
  }

  /** Returns a function that saves the cursor. */
  onCursor(cursor: string): () => void {
    const ordinal = ++this.#cursorCount;
    return () => {
      this.#cursor = cursor;
      for (const [key, cursorsBefore] of this.#recent) {
        if (cursorsBefore < ordinal) this.#recent.delete(key);
      }
    };
  }

  isStreamEmpty(): boolean {
    return false;
  }

  /** The names of a hostile server are refused as a directory refuses them. */
  checkNames(stream: string, source: string): void {
    sourceFolderPath(stream, source, false);
  }

  flush(): void {}

  open(source: SourceInfo): SourceStore {
    return {
      begin: (frame) => {
        checkPathPart(frame.name, false);
        return this.#isRepeat(source, frame) ? repeatedFrame : this.begin(source, frame);
      },
      compare: (offered) => offered.map(() => "wanted"),
      recordLoss: () => {},
    };
  }

  /** Begins a frame that was not received since the saved cursor. */
  protected abstract begin(source: SourceInfo, frame: FrameDescription): FrameWriter;

  /** Returns whether the frame was received since the saved cursor. */
  #isRepeat(source: SourceInfo, frame: FrameDescription): boolean {
    const key = keyOf(source, frame);
    if (!this.#recent.has(key)) return false;
    this.#recent.set(key, this.#cursorCount);
    return true;
  }

  /**
   * Remembers a complete frame.
   *
   * @throws {FramesError} `protocol` if the server sends no CURSOR
   */
  protected remember(source: SourceInfo, frame: FrameDescription): void {
    if (this.#recent.size === maxRecentFrames) {
      throw new FramesError("protocol", "The server sends no CURSOR");
    }
    this.#recent.set(keyOf(source, frame), this.#cursorCount);
  }
}

function keyOf({ source, session }: SourceInfo, { sequence, name }: FrameDescription): string {
  return `${source} ${session} ${sequence} ${name}`;
}
