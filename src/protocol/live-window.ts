/**
 * How much of a live source may be under way (SPEC section 6): as many frames as were confirmed in the last
 * quarter of a second, at least one. A link with deep buffers would take minutes of them, and show the past.
 */
const recentMs = 250;

/** A receiver whose receipts are further apart would have a link fill up. */
const maxReceiptIntervalMs = 5000;

/** What counts as recent where receipts are so many milliseconds apart, as WELCOME says. */
export function recentPeriodMs(receiptIntervalMs: number | undefined): number {
  return recentMs + Math.min(receiptIntervalMs ?? 0, maxReceiptIntervalMs);
}

export class LiveWindow {
  #inFlight = 0;
  /** When frames were confirmed, in milliseconds; older ones are cut off. */
  #confirmedAt: number[] = [];

  /** Whether another frame may begin. */
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

  /** A frame was settled. */
  ack(now: number): void {
    this.#inFlight--;
    this.#confirmedAt.push(now);
  }

  /** The connection broke: nothing is under way any more. */
  reset(): void {
    this.#inFlight = 0;
    this.#confirmedAt = [];
  }
}
