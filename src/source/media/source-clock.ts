/** Capture times of a live source by its own times, which begin anywhere. */

/** How much of the time that goes by an estimate may give way to a source whose clock is slow. */
const maxDrift = { numerator: 1n, denominator: 1000n };

/**
 * Joins the times of a source to the clock of this machine. A frame is never dated after it came; how
 * frames lie to each other is the source's word, not that of the link, which brings them late and in
 * heaps. What came fastest shows how the clocks lie to each other; that is forgotten slowly, since no two
 * clocks run alike.
 */
export class SourceClock {
  #offset: bigint | undefined;
  #lastTime = 0n;
  #lastArrivedAt = 0n;

  /**
   * The capture time of a frame in nanoseconds since 1970.
   *
   * @param time of the source, in nanoseconds
   * @param arrivedAt when the frame came, in nanoseconds since 1970
   */
  toCaptureTime(time: bigint, arrivedAt: bigint): bigint {
    const offset = arrivedAt - time;
    // A source whose time goes back has begun anew, and so has a machine whose clock was put back.
    if (this.#offset === undefined || time < this.#lastTime || arrivedAt < this.#lastArrivedAt) {
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
