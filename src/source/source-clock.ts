/** Capture times of a live source by its own times, which begin anywhere. */

/** How much of the time that goes by an estimate may give way to a source whose clock is slow. */
const drift = { parts: 1n, of: 1000n };

/**
 * Joins the times of a source to the clock of this machine. A frame is never dated after it came; how
 * frames lie to each other is the source's word, not that of the link, which brings them late and in
 * heaps. What came fastest shows how the clocks lie to each other; that is forgotten slowly, since no two
 * clocks run alike.
 */
export class SourceClock {
  #offset: bigint | undefined;
  #time = 0n;
  #arrived = 0n;

  /**
   * The capture time of a frame in nanoseconds since 1970.
   *
   * @param time of the source, in nanoseconds
   * @param arrived when the frame came, in nanoseconds since 1970
   */
  date(time: bigint, arrived: bigint): bigint {
    const offset = arrived - time;
    // A source whose time goes back has begun anew, and so has a machine whose clock was put back.
    if (this.#offset === undefined || time < this.#time || arrived < this.#arrived) {
      this.#offset = offset;
    } else {
      const since = arrived - this.#arrived;
      const lenient = this.#offset + (since * drift.parts) / drift.of;
      this.#offset = offset < lenient ? offset : lenient;
    }
    this.#time = time;
    this.#arrived = arrived;
    return time + this.#offset;
  }
}
