/** How long frames took from their capture to their receipt: a histogram, however many there are. */

/** Each class is so much wider than the one before, which is also how exact what is read off it is. */
const bucketGrowth = 1.05;

/** Milliseconds that the first class ends at; the last one ends beyond a day. */
const firstBucketMs = 0.1;
const bucketCount = 430;

export class DelayHistogram {
  readonly #counts = new Uint32Array(bucketCount);
  #count = 0;

  /** @param delayMs from capture to receipt; clocks that disagree may make it negative */
  add(delayMs: number): void {
    const index = Math.ceil(
      Math.log(Math.max(delayMs, firstBucketMs) / firstBucketMs) / Math.log(bucketGrowth),
    );
    this.#counts[Math.min(index, bucketCount - 1)]!++;
    this.#count++;
  }

  /** Frames counted. */
  get count(): number {
    return this.#count;
  }

  /**
   * Milliseconds within which a share of the frames arrived, to within 5 %; nothing if there were none.
   *
   * @param share 0.5 is the median
   */
  quantileMs(share: number): number | undefined {
    if (this.#count === 0) return undefined;
    let below = 0;
    const index = this.#counts.findIndex((count) => (below += count) >= share * this.#count);
    return firstBucketMs * bucketGrowth ** index;
  }

  /** Frames that took longer than so many milliseconds, to within 5 % of these. */
  countAbove(delayMs: number): number {
    const index = Math.ceil(Math.log(delayMs / firstBucketMs) / Math.log(bucketGrowth));
    return this.#counts.subarray(index + 1).reduce((sum, count) => sum + count, 0);
  }
}
