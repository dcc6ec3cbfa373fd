/**
 * Decides whether the wall clock can be believed. A clock without a battery, or one set by hand, can
 * jump by days, and retention by age would then remove frames that are not old.
 */

/** Time for which a clock must have run evenly, in milliseconds. */
const trustMs = 3_600_000;

/** Largest difference between two readings of a clock that runs evenly, in milliseconds. */
const maxStepMs = 600_000;

export class ClockTrust {
  readonly #neededMs: number;
  #lastReading: number | undefined;
  /** Time for which the clock has run evenly, in milliseconds. */
  #evenMs = 0;

  /**
   * @param limitMs age of the frames that are removed. A clock that has run evenly for so long is
   * believed, because every frame from before is older by now.
   */
  constructor(limitMs: number, neededMs: number = trustMs) {
    this.#neededMs = Math.min(limitMs, neededMs);
  }

  /**
   * Returns whether the clock has run evenly for long enough. Call it at least every few minutes.
   *
   * @param now reading of the clock, in milliseconds since 1970
   */
  isBelieved(now: number): boolean {
    const elapsed = now - (this.#lastReading ?? -Infinity);
    this.#lastReading = now;
    this.#evenMs = Math.abs(elapsed) <= maxStepMs ? this.#evenMs + elapsed : 0;
    return this.#evenMs >= this.#neededMs;
  }
}
