/** Set of known numbers, kept as ranges. It stays small, because most numbers arrive in order. */

/** A gap between two ranges. */
export interface RangeGap {
  readonly first: number;
  readonly last: number;
  /** Time of the range after the gap, in nanoseconds since 1970. */
  readonly at: bigint;
}

interface NumberRange {
  first: number;
  last: number;
  /** Time of the first number, in nanoseconds since 1970. */
  at: bigint;
}

export class RangeSet {
  /** Sorted ranges that neither touch nor overlap. */
  readonly #ranges: NumberRange[] = [];

  get size(): number {
    return this.#ranges.length;
  }

  add(first: number, last: number, at: bigint): void {
    const newestRange = this.#ranges.at(-1);
    if (newestRange !== undefined && first === newestRange.last + 1) {
      newestRange.last = last;
      return;
    }
    const ranges = this.#ranges;
    // Binary search for the first range that ends at `first - 1` or later.
    let low = 0;
    for (let high = ranges.length; low < high;) {
      const middle = (low + high) >> 1;
      if (ranges[middle]!.last < first - 1) low = middle + 1;
      else high = middle;
    }
    let end = low;
    const merged: NumberRange = { first, last, at };
    for (; end < ranges.length && ranges[end]!.first <= last + 1; end++) {
      const range = ranges[end]!;
      if (range.first <= merged.first) {
        merged.first = range.first;
        merged.at = range.at;
      }
      merged.last = Math.max(merged.last, range.last);
    }
    ranges.splice(low, end - low, merged);
  }

  /** Yields the missing numbers from 1 on, in order. */
  *gaps(): Generator<RangeGap> {
    let next = 1;
    for (const { first, last, at } of this.#ranges) {
      if (first > next) yield { first: next, last: first - 1, at };
      next = last + 1;
    }
  }
}
