/**
 * How many control messages are read of a peer in a second (SPEC section 12): what comes beyond that waits
 * in its own system. Frames are held back by the window and by the disk, these by nothing else.
 */
const maxControlsPerSecond = 10_000;

export class RateLimiter {
  #messages = 0;
  #windowStart: number;

  /** @param now milliseconds, as everywhere here */
  constructor(now: number) {
    this.#windowStart = now;
  }

  /** Whether nothing more is to be read for now. */
  get isOverLimit(): boolean {
    return this.#messages >= maxControlsPerSecond;
  }

  /** A control message came. */
  count(): void {
    this.#messages++;
  }

  /** Begins anew with each second; whether what waits can be read now. */
  refill(now: number): boolean {
    if (now - this.#windowStart < 1000) return false;
    const wasOverLimit = this.isOverLimit;
    this.#windowStart = now;
    this.#messages = 0;
    return wasOverLimit;
  }
}
