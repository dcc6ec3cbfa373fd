/** Removes frames at the sender once the server has stored them durably (`--move`). */
import { asFramesError, type FramesError } from "../errors.ts";
import type { Frame, FrameSource } from "../frame.ts";

/** Frames waiting to be removed above which sending pauses. */
const maxPending = 1000;

/** A delivered frame that was not removed, and why. */
export interface NotRemoved {
  readonly source: string;
  readonly frame: Frame;
  readonly error: FramesError;
}

export class SentFileRemover {
  readonly #onNotRemoved: (notRemoved: NotRemoved) => void;
  readonly #onReady: () => void;
  readonly #pending: { source: FrameSource; frame: Frame; crc: number }[] = [];
  #running: Promise<void> | undefined;
  #removedCount = 0;
  #isStopped = false;

  /** @param onReady called when `isBehind` becomes false again */
  constructor(onNotRemoved: (notRemoved: NotRemoved) => void, onReady: () => void) {
    this.#onNotRemoved = onNotRemoved;
    this.#onReady = onReady;
  }

  /** Frames removed so far. */
  get removed(): number {
    return this.#removedCount;
  }

  /** Whether the sender should pause until `onReady`. */
  get isBehind(): boolean {
    return this.#pending.length >= maxPending;
  }

  /** @param crc CRC-32 of the bytes that the server stored */
  add(source: FrameSource, frame: Frame, crc: number): void {
    if (this.#isStopped) return;
    this.#pending.push({ source, frame, crc });
    if (this.#running !== undefined) return;
    this.#running = this.#removePending();
    // `onNotRemoved` may throw; `finish` rejects with that error.
    this.#running.catch(() => {});
  }

  /** Discards the queue: the frames stay here, and a later run removes them. */
  stop(): void {
    this.#pending.length = 0;
    this.#isStopped = true;
  }

  /** Resolves when the queue is empty. */
  async finish(): Promise<void> {
    await this.#running;
  }

  async #removePending(): Promise<void> {
    let next: { source: FrameSource; frame: Frame; crc: number } | undefined;
    while ((next = this.#pending.shift()) !== undefined) {
      const { source, frame, crc } = next;
      try {
        await source.remove!(frame, crc);
        this.#removedCount++;
      } catch (error) {
        this.#onNotRemoved({
          source: source.name,
          frame,
          error: asFramesError(error, "unreadable"),
        });
      }
      if (this.#pending.length === maxPending - 1) this.#onReady();
    }
    this.#running = undefined;
  }
}
