/** Removes frames at the sender once the server has them for good (`--move`). */
import { asFramesError, type FramesError } from "../errors.ts";
import type { Frame, FrameSource } from "../frame.ts";

/** Frames that may wait to be removed before nothing more is sent. */
const maxPending = 1000;

/** A delivered frame that stays, and why. */
export interface NotRemoved {
  readonly source: string;
  readonly frame: Frame;
  readonly error: FramesError;
}

export class SentFileRemover {
  readonly #onNotRemoved: (kept: NotRemoved) => void;
  readonly #onReady: () => void;
  readonly #pending: { source: FrameSource; frame: Frame; crc: number }[] = [];
  #running: Promise<void> | undefined;
  #removedCount = 0;
  #isStopped = false;

  /** @param onReady is called when `isBehind` is false again */
  constructor(onNotRemoved: (kept: NotRemoved) => void, onReady: () => void) {
    this.#onNotRemoved = onNotRemoved;
    this.#onReady = onReady;
  }

  /** Frames removed so far. */
  get removed(): number {
    return this.#removedCount;
  }

  /** Whether so much waits that nothing more should be sent for now. */
  get isBehind(): boolean {
    return this.#pending.length >= maxPending;
  }

  /** @param crc CRC-32 of what the server has */
  add(source: FrameSource, frame: Frame, crc: number): void {
    if (this.#isStopped) return;
    this.#pending.push({ source, frame, crc });
    if (this.#running !== undefined) return;
    this.#running = this.#removePending();
    // What whoever is told of kept frames throws is told by `finish`, when that is called.
    this.#running.catch(() => {});
  }

  /** What waits stays: that does no harm. */
  stop(): void {
    this.#pending.length = 0;
    this.#isStopped = true;
  }

  /** Resolves when nothing waits any more. */
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
