/** When a client that receives is told the position behind what it was sent (SPEC section 9, CURSOR). */
import type { PlaybackItem } from "./playback.ts";

/** It is told although frames go on; when they do not, after so many milliseconds. */
const cursorLimits = { intervalMs: 100, bytes: 16 << 20, items: 256 } as const;

export class CursorReports {
  #lastItem: PlaybackItem | undefined;
  #items = 0;
  #bytes = 0;
  #lastReportAt: number;

  /** @param now milliseconds, as everywhere here */
  constructor(now: number) {
    this.#lastReportAt = now;
  }

  /** Whether anything was sent behind the position that was told last. */
  get hasUnreported(): boolean {
    return this.#items > 0;
  }

  /** So many bytes of this were sent, and it ended: whether the position is to be told now. */
  onItemSent(item: PlaybackItem, bytes: number): boolean {
    this.#lastItem = item;
    this.#items++;
    this.#bytes += bytes;
    return this.#items >= cursorLimits.items || this.#bytes >= cursorLimits.bytes;
  }

  /** Whether the position is to be told, now that nothing more is to be sent. */
  isDue(now: number): boolean {
    return this.hasUnreported && now - this.#lastReportAt >= cursorLimits.intervalMs;
  }

  /** The position to be told, if it is another one. */
  next(now: number): string | undefined {
    const cursor = this.hasUnreported ? this.#lastItem?.cursor : undefined;
    this.#items = this.#bytes = 0;
    this.#lastReportAt = now;
    return cursor;
  }
}
