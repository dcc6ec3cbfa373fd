/**
 * Control messages read from one peer per second (SPEC section 12). More wait in the peer's TCP
 * buffers. The window and the disk slow down frames, but they do not slow down control messages.
 */
const maxControlsPerSecond = 10_000;

export class RateLimiter {
  #messages = 0;
  #windowStart: number;

  /** @param now in ms of a monotonic clock, as in all methods */
  constructor(now: number) {
    this.#windowStart = now;
  }

  /** Whether the caller must stop reading from the peer until `refill` returns `true`. */
  get isOverLimit(): boolean {
    return this.#messages >= maxControlsPerSecond;
  }

  /** Counts a control message. */
  count(): void {
    this.#messages++;
  }

  /** Starts a new count every second. Returns whether reading can resume. */
  refill(now: number): boolean {
    if (now - this.#windowStart < 1000) return false;
    const wasOverLimit = this.isOverLimit;
    this.#windowStart = now;
    this.#messages = 0;
    return wasOverLimit;
  }
}
