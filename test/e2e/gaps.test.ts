// Undelivered numbers as ranges: all are counted, and the first thousand ranges listed.
//
// Covers: cli/gaps.ts

import { describe, expect, test } from "bun:test";
import { type ErrorName, FramesError } from "../../src/errors.ts";
import { type UndeliveredRange, UndeliveredRanges } from "../../src/client/undelivered.ts";

function add(
  gaps: UndeliveredRanges,
  first: number,
  last = first,
  code: ErrorName = "dropped",
  source = "visible",
): void {
  gaps.add({ source, first, last, what: `frame ${first}`, error: new FramesError(code) });
}

function textOf({ first, last, error }: UndeliveredRange): string {
  return `${first}-${last} ${error}`;
}

describe("UndeliveredRanges", () => {
  test("a source that lost nothing has no undelivered ranges", () => {
    expect(new UndeliveredRanges().forSource("visible")).toEqual({ gaps: [], more: 0 });
  });

  test("adjoining undelivered ranges merge if their reason is the same", () => {
    const gaps = new UndeliveredRanges();
    for (const first of [3, 4, 5, 7]) add(gaps, first);
    add(gaps, 8, 20);
    add(gaps, 21, 21, "vanished");
    add(gaps, 22, 23, "vanished");
    add(gaps, 24);
    expect(gaps.forSource("visible").gaps.map(textOf)).toEqual([
      "3-5 dropped",
      "7-20 dropped",
      "21-23 vanished",
      "24-24 dropped",
    ]);
  });

  test("undelivered ranges of one source do not include those of another", () => {
    const gaps = new UndeliveredRanges();
    add(gaps, 1);
    add(gaps, 2, 2, "dropped", "infrared");
    add(gaps, 2);
    expect(gaps.forSource("visible").gaps.map(textOf)).toEqual(["1-2 dropped"]);
    expect(gaps.forSource("infrared").gaps.map(textOf)).toEqual(["2-2 dropped"]);
  });

  test("undelivered ranges beyond a thousand are only counted", () => {
    const gaps = new UndeliveredRanges();
    for (let number = 1; number <= 3000; number++) add(gaps, 2 * number);
    const { gaps: kept, more } = gaps.forSource("visible");
    expect([kept.length, more]).toEqual([1000, 2000]);
    expect(textOf(kept[999]!)).toBe("2000-2000 dropped");
    // Adjoins the last listed range, but was added after unlisted ones, so it does not extend it.
    add(gaps, 2001);
    expect(gaps.forSource("visible").gaps.at(-1)).toEqual({
      first: 2000,
      last: 2000,
      error: "dropped",
    });
  });

  test("an undelivered range that was reported still grows and keeps its first number", () => {
    const gaps = new UndeliveredRanges();
    add(gaps, 5);
    expect(gaps.forSource("visible").gaps.map(textOf)).toEqual(["5-5 dropped"]);
    add(gaps, 6);
    expect(gaps.forSource("visible").gaps.map(textOf)).toEqual(["5-6 dropped"]);
  });
});
