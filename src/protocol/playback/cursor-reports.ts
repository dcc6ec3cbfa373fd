/** Decides when to send CURSOR to a receiving client (SPEC section 9). */
import type { PlaybackItem } from "./playback.ts";

/**
 * CURSOR is sent after this many bytes or items; when nothing more is to be sent, after this many
 * ms.
 */
const cursorLimits = { intervalMs: 100, bytes: 16 << 20, items: 256 } as const;

export class CursorReports {
  #lastItem: PlaybackItem | undefined;
  #items = 0;
  #bytes = 0;
  #lastReportAt: number;

  /** @param now in ms of a monotonic clock, as in all methods */
  constructor(now: number) {
    this.#lastReportAt = now;
  }

  /** Whether anything was sent after the last CURSOR. */
  get hasUnreported(): boolean {
    return this.#items > 0;
  }

  /** Counts an item of which `bytes` payload bytes were sent. Returns whether CURSOR is due now. */
  onItemSent(item: PlaybackItem, bytes: number): boolean {
    this.#lastItem = item;
    this.#items++;
    this.#bytes += bytes;
    return this.#items >= cursorLimits.items || this.#bytes >= cursorLimits.bytes;
  }

  /** Returns whether CURSOR is due when nothing more is to be sent. */
  isDue(now: number): boolean {
    return this.hasUnreported && now - this.#lastReportAt >= cursorLimits.intervalMs;
  }

  /**
   * Returns the cursor to send and starts a new interval; `undefined` if nothing was sent since the
   * last CURSOR.
   */
  next(now: number): string | undefined {
    const cursor = this.hasUnreported ? this.#lastItem?.cursor : undefined;
    this.#items = this.#bytes = 0;
    this.#lastReportAt = now;
    return cursor;
  }
}
