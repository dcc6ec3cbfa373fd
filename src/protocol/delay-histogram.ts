/**
 * Histogram of the delay from capture to receipt. Its memory is fixed, however many frames it
 * counts.
 */

/** Ratio of the widths of two neighbouring buckets. It bounds the error of a quantile to 5 %. */
const bucketGrowth = 1.05;

/** Upper bound of the first bucket, in ms. The last bucket ends beyond one day. */
const firstBucketMs = 0.1;
const bucketCount = 430;

export class DelayHistogram {
  readonly #counts = new Uint32Array(bucketCount);
  #count = 0;

  /** @param delayMs from capture to receipt; negative if the two clocks disagree */
  add(delayMs: number): void {
    const index = Math.ceil(
      Math.log(Math.max(delayMs, firstBucketMs) / firstBucketMs) / Math.log(bucketGrowth),
    );
    this.#counts[Math.min(index, bucketCount - 1)]!++;
    this.#count++;
  }

  /** Frames counted so far. */
  get count(): number {
    return this.#count;
  }

  /**
   * Returns the delay in ms within which a share of the frames arrived, to within 5 %. Returns
   * `undefined` if no frame was counted.
   *
   * @param share from 0 to 1; 0.5 is the median
   */
  quantileMs(share: number): number | undefined {
    if (this.#count === 0) return undefined;
    let below = 0;
    const index = this.#counts.findIndex((count) => (below += count) >= share * this.#count);
    return firstBucketMs * bucketGrowth ** index;
  }

  /** Returns how many frames took longer than `delayMs`, to within 5 % of that delay. */
  countAbove(delayMs: number): number {
    const index = Math.ceil(Math.log(delayMs / firstBucketMs) / Math.log(bucketGrowth));
    return this.#counts.subarray(index + 1).reduce((sum, count) => sum + count, 0);
  }
}
