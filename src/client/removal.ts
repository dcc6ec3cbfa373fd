/** Removes frames at the sender once the server has them for good (`--move`). */
import { asFramesError, type FramesError } from "../errors.ts";
import type { Frame, FrameSource } from "../frame.ts";

/** Frames that may wait to be removed before nothing more is sent. */
const mostWaiting = 1000;

/** A delivered frame that stays, and why. */
export interface Kept {
  readonly source: string;
  readonly frame: Frame;
  readonly error: FramesError;
}

export class Removal {
  readonly #kept: (kept: Kept) => void;
  readonly #freed: () => void;
  readonly #waiting: { source: FrameSource; frame: Frame; crc: number }[] = [];
  #working: Promise<void> | undefined;
  #removed = 0;
  #stopped = false;

  /** @param freed is called when `isBehind` is false again */
  constructor(kept: (kept: Kept) => void, freed: () => void) {
    this.#kept = kept;
    this.#freed = freed;
  }

  /** Frames removed so far. */
  get removed(): number {
    return this.#removed;
  }

  /** Whether so much waits that nothing more should be sent for now. */
  get isBehind(): boolean {
    return this.#waiting.length >= mostWaiting;
  }

  /** @param crc CRC-32 of what the server has */
  add(source: FrameSource, frame: Frame, crc: number): void {
    if (this.#stopped) return;
    this.#waiting.push({ source, frame, crc });
    if (this.#working !== undefined) return;
    this.#working = this.#work();
    // What whoever is told of kept frames throws is told by `finish`, when that is called.
    this.#working.catch(() => {});
  }

  /** What waits stays: that does no harm. */
  stop(): void {
    this.#waiting.length = 0;
    this.#stopped = true;
  }

  /** Resolves when nothing waits any more. */
  async finish(): Promise<void> {
    await this.#working;
  }

  async #work(): Promise<void> {
    let next: { source: FrameSource; frame: Frame; crc: number } | undefined;
    while ((next = this.#waiting.shift()) !== undefined) {
      const { source, frame, crc } = next;
      try {
        await source.remove!(frame, crc);
        this.#removed++;
      } catch (error) {
        this.#kept({ source: source.name, frame, error: asFramesError(error, "unreadable") });
      }
      if (this.#waiting.length === mostWaiting - 1) this.#freed();
    }
    this.#working = undefined;
  }
}
