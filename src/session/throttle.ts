/**
 * How many control messages are read of a peer in a second (SPEC section 12): what comes beyond that waits
 * in its own system. Frames are held back by the window and by the disk, these by nothing else.
 */
const mostControls = 10_000;

export class Throttle {
  #messages = 0;
  #since: number;

  /** @param now milliseconds, as everywhere here */
  constructor(now: number) {
    this.#since = now;
  }

  /** Whether nothing more is to be read for now. */
  get isClosed(): boolean {
    return this.#messages >= mostControls;
  }

  /** A control message came. */
  count(): void {
    this.#messages++;
  }

  /** Begins anew with each second; whether what waits can be read now. */
  opens(now: number): boolean {
    if (now - this.#since < 1000) return false;
    const wasClosed = this.isClosed;
    this.#since = now;
    this.#messages = 0;
    return wasClosed;
  }
}
