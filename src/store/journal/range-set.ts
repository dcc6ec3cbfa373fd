/** Numbers that are known, as ranges: few, since most numbers come one after the other. */

/** A hole between them. */
export interface RangeGap {
  readonly first: number;
  readonly last: number;
  /** Of what came behind it. */
  readonly at: bigint;
}

interface NumberRange {
  first: number;
  last: number;
  /** When the first number came. */
  at: bigint;
}

export class RangeSet {
  /** In order, and neither touching nor overlapping. */
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
    if (newestRange === undefined || first > newestRange.last) {
      this.#ranges.push({ first, last, at });
      return;
    }
    this.#insert(first, last, at);
  }

  #insert(first: number, last: number, at: bigint): void {
    const ranges = this.#ranges;
    // The first range that ends behind, or right before, what is added.
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

  /** What is missing from 1 on, in order. */
  *gaps(): Generator<RangeGap> {
    let next = 1;
    for (const { first, last, at } of this.#ranges) {
      if (first > next) yield { first: next, last: first - 1, at };
      next = last + 1;
    }
  }
}
