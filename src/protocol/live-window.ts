/**
 * Limits the frames in flight of a live source (SPEC section 6). Allows as many as were confirmed
 * in the last 250 ms, at least one. Without the limit a link with deep buffers would queue minutes
 * of frames.
 */
const recentMs = 250;

/**
 * Upper bound of the receipt interval that widens the window, in ms. A larger one would let the
 * link's buffers fill.
 */
const maxReceiptIntervalMs = 5000;

/**
 * Returns the period in ms in which confirmed frames count.
 *
 * @param receiptIntervalMs `receipts` from WELCOME: how long the server may delay receipts, in ms
 */
export function recentPeriodMs(receiptIntervalMs: number | undefined): number {
  return recentMs + Math.min(receiptIntervalMs ?? 0, maxReceiptIntervalMs);
}

export class LiveWindow {
  #inFlight = 0;
  /** Times at which frames were confirmed, in ms; older ones are dropped. */
  #confirmedAt: number[] = [];

  /** Returns whether another frame may begin. Drops confirmations older than `periodMs`. */
  canBegin(now: number, periodMs = recentMs): boolean {
    const firstRecent = this.#confirmedAt.findIndex((at) => now - at <= periodMs);
    this.#confirmedAt =
      firstRecent < 0
        ? []
        : firstRecent === 0
          ? this.#confirmedAt
          : this.#confirmedAt.slice(firstRecent);
    return this.#inFlight < Math.max(1, this.#confirmedAt.length);
  }

  begin(): void {
    this.#inFlight++;
  }

  /** Counts a frame as confirmed. */
  ack(now: number): void {
    this.#inFlight--;
    this.#confirmedAt.push(now);
  }

  /** Clears the window after the connection broke, because no frame is in flight any more. */
  reset(): void {
    this.#inFlight = 0;
    this.#confirmedAt = [];
  }
}
