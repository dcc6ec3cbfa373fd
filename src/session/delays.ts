/** How long frames took from their capture to their receipt: a histogram, however many there are. */

/** Each class is so much wider than the one before, which is also how exact what is read off it is. */
const growth = 1.05;

/** Milliseconds that the first class ends at; the last one ends beyond a day. */
const first = 0.1;
const classes = 430;

export class Delays {
  readonly #counts = new Uint32Array(classes);
  #total = 0;

  /** @param milliseconds from capture to receipt; clocks that disagree may make it negative */
  add(milliseconds: number): void {
    const index = Math.ceil(Math.log(Math.max(milliseconds, first) / first) / Math.log(growth));
    this.#counts[Math.min(index, classes - 1)]!++;
    this.#total++;
  }

  /** Frames counted. */
  get total(): number {
    return this.#total;
  }

  /**
   * Milliseconds within which a share of the frames arrived, to within 5 %; nothing if there were none.
   *
   * @param share 0.5 is the median
   */
  within(share: number): number | undefined {
    if (this.#total === 0) return undefined;
    let below = 0;
    const index = this.#counts.findIndex((count) => (below += count) >= share * this.#total);
    return first * growth ** index;
  }

  /** Frames that took longer than so many milliseconds, to within 5 % of these. */
  beyond(milliseconds: number): number {
    const index = Math.ceil(Math.log(milliseconds / first) / Math.log(growth));
    return this.#counts.subarray(index + 1).reduce((sum, count) => sum + count, 0);
  }
}
