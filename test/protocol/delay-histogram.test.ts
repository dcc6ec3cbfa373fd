// Statistics of delays from capture to receipt: median and tail must be accurate for any number of
// frames.

import { describe, expect, test } from "bun:test";
import { DelayHistogram } from "../../src/protocol/delay-histogram.ts";

function delaysOf(values: Iterable<number>): DelayHistogram {
  const delays = new DelayHistogram();
  for (const value of values) delays.add(value);
  return delays;
}

/** Returns the exact quantile: the smallest value that at least this share does not exceed. */
function exactly(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

function* series(count: number, seed: number): Generator<number> {
  let state = seed;
  for (let index = 0; index < count; index++) {
    state = (state * 48_271) % 2_147_483_647;
    // From a tenth of a millisecond to a hundred seconds.
    yield 0.1 * 10 ** ((state / 2_147_483_647) * 6);
  }
}

describe("DelayHistogram", () => {
  test("a histogram of no frames has no quantiles", () => {
    const delays = new DelayHistogram();
    expect([delays.count, delays.quantileMs(0.5), delays.countAbove(0.1)]).toEqual([
      0,
      undefined,
      0,
    ]);
  });

  test("the quantiles of one delay are that delay within 5 %", () => {
    for (const value of [0.2, 1, 17, 250, 1000, 60_000, 86_400_000]) {
      const delays = delaysOf([value]);
      for (const share of [0.01, 0.5, 0.99, 1]) {
        const found = delays.quantileMs(share)!;
        expect(found).toBeGreaterThanOrEqual(value * 0.999);
        expect(found).toBeLessThanOrEqual(value * 1.051);
      }
    }
  });

  test("the median and the tail of many delays are exact within 5 %", () => {
    for (const seed of [1, 77, 4711]) {
      const values = [...series(5000, seed)];
      const delays = delaysOf(values);
      expect(delays.count).toBe(5000);
      for (const share of [0.1, 0.5, 0.9, 0.99, 1]) {
        const found = delays.quantileMs(share)! / exactly(values, share);
        expect(found).toBeGreaterThanOrEqual(0.999);
        expect(found).toBeLessThanOrEqual(1.051);
      }
    }
  });

  test("delays above a limit are counted, exact within 5 % of the limit", () => {
    const delays = delaysOf([10, 900, 940, 1060, 2000, 100_000]);
    expect(delays.countAbove(1000)).toBe(3);
    expect(delays.countAbove(1)).toBe(6);
    expect(delays.countAbove(1e9)).toBe(0);
  });

  test("delays of zero or below, from clocks that disagree, count as the shortest", () => {
    const delays = delaysOf([0, -5, -1e12, 0.05]);
    expect(delays.count).toBe(4);
    expect(delays.quantileMs(0.99)).toBeCloseTo(0.1);
    expect(delays.countAbove(1000)).toBe(0);
  });

  test("delays beyond the range of the histogram count as the longest", () => {
    const delays = delaysOf([1e15, Infinity, 1e300]);
    expect(delays.count).toBe(3);
    expect(delays.quantileMs(0.5)).toBeGreaterThan(86_400_000);
    expect(delays.countAbove(1000)).toBe(3);
  });
});
