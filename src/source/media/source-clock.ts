/** Maps timestamps of a live source, which have an arbitrary origin, to capture times. */

/** Rate at which the estimated offset may grow, to follow a source whose clock is slow. */
const maxDrift = { numerator: 1n, denominator: 1000n };

/** How much earlier than the one before it a reordered picture may be, in nanoseconds. */
const maxReorder = 1_000_000_000n;

/**
 * Maps the timestamps of a source to the clock of this machine. A capture time is never later than
 * the arrival. Intervals between frames come from the source, because the network delivers frames
 * late and in bursts. The frame with the least delay determines the offset between the clocks. Old
 * estimates fade slowly, because clocks drift.
 */
export class SourceClock {
  #offset: bigint | undefined;
  #lastTime = 0n;
  #lastArrivedAt = 0n;
  readonly #tolerance: bigint;

  /** @param isReordered whether pictures may come in another order than they were captured */
  constructor(isReordered = false) {
    this.#tolerance = isReordered ? maxReorder : 0n;
  }

  /**
   * Returns the capture time of a frame in nanoseconds since 1970.
   *
   * @param time timestamp of the source, in nanoseconds
   * @param arrivedAt arrival time of the frame, in nanoseconds since 1970
   */
  toCaptureTime(time: bigint, arrivedAt: bigint): bigint {
    const offset = arrivedAt - time;
    // Time went backwards: the source restarted, or the clock of this machine was set back.
    const hasRestarted = time < this.#lastTime - this.#tolerance;
    if (this.#offset === undefined || hasRestarted || arrivedAt < this.#lastArrivedAt) {
      this.#offset = offset;
    } else {
      const elapsed = arrivedAt - this.#lastArrivedAt;
      const driftedOffset = this.#offset + (elapsed * maxDrift.numerator) / maxDrift.denominator;
      this.#offset = offset < driftedOffset ? offset : driftedOffset;
    }
    this.#lastTime = time;
    this.#lastArrivedAt = arrivedAt;
    return time + this.#offset;
  }
}
