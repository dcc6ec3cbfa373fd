// How the page formats numbers and times, and parses its URL.
//
// Covers: http/page/route.ts

import { describe, expect, test } from "bun:test";
import {
  displayBytes,
  displayTimeOfDay,
  displayPlural,
  displayDelay,
  displayNumber,
  displayDuration,
  displayExactTime,
  toMilliseconds,
  parseNanoseconds,
} from "../../../src/http/page/format.ts";
import { formatHash, parseHash } from "../../../src/http/page/route.ts";

test("displayed numbers have three significant digits and a fitting unit", () => {
  expect([0, 0.534, 29.94, 120.4, 12_345].map(displayNumber)).toEqual([
    "0",
    "0.53",
    "29.9",
    "120",
    "12,345",
  ]);
  expect([0, 999, 1000, 999_499, 999_500, 1.24e9].map(displayBytes)).toEqual([
    "0 B",
    "999 B",
    "1.00 kB",
    "999 kB",
    "1.00 MB",
    "1.24 GB",
  ]);
  expect([1, 2, 1200].map((value) => displayPlural(value, "frame"))).toEqual([
    "1 frame",
    "2 frames",
    "1,200 frames",
  ]);
});

test("displayed delays and durations have a fitting unit and keep their sign", () => {
  expect([null, 3.14, -6.7, 42.4, 4920].map(displayDelay)).toEqual([
    "–",
    "3.1 ms",
    "−6.7 ms",
    "42 ms",
    "4.92 s",
  ]);
  expect([900, 61_000, 3_600_000, 5_460_000, 200_000_000].map(displayDuration)).toEqual([
    "900 ms",
    "1 min",
    "1 h",
    "1 h 31 min",
    "2 days",
  ]);
});

test("displayed exact times keep all digits of the nanoseconds", () => {
  const time = 1_795_627_753_774_333_021n;
  expect(displayExactTime(time)).toBe("2026-11-25 17:29:13.774 333 021 UTC");
  expect(displayTimeOfDay(time)).toBe("17:29:13.774");
  expect(toMilliseconds(time)).toBeCloseTo(1_795_627_753_774.333, 2);
  expect(displayExactTime(-1n)).toBe("1969-12-31 23:59:59.999 999 999 UTC");
});

test("text that is not a whole number of nanoseconds is not read as a time", () => {
  expect(parseNanoseconds("1795627753774333021")).toBe(1_795_627_753_774_333_021n);
  for (const text of ["", "1.5", "0x10", "12345678901234567890", "now", null, undefined]) {
    expect(parseNanoseconds(text)).toBeUndefined();
  }
});

describe("page addresses", () => {
  test("a page address keeps stream, source and moment, whatever characters their names have", () => {
    for (const place of [
      { stream: "run7" },
      { stream: "a b?c#d/é", source: "site/cam 3&x=1", at: 1_795_627_753_774_333_021n },
    ]) {
      expect(parseHash(formatHash(place))).toEqual({ source: undefined, at: undefined, ...place });
    }
  });

  test("an empty or malformed page address is that of the live view", () => {
    for (const hash of ["", "#", "#/", "#senders", "#/%E0%A4%A"]) {
      expect(parseHash(hash)).toBeUndefined();
    }
    expect(parseHash("#/run7?at=soon")).toEqual({
      stream: "run7",
      source: undefined,
      at: undefined,
    });
  });
});
