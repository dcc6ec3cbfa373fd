// What a user types to go to a frame.

import { afterEach, expect, test } from "bun:test";
import { parseDestination } from "../../../src/http/page/destination.ts";
import { setTimeZone, zoneName } from "../../../src/http/page/format.ts";

const ns = (text: string): bigint => BigInt(Date.parse(text)) * 1_000_000n;
const shownAt = ns("2026-11-25T17:14:06Z");
const now = ns("2026-11-30T02:00:00Z");
const parse = (text: string) => parseDestination(text, shownAt, now);

afterEach(() => setTimeZone("UTC"));

test("a number is that of a frame, with separators as the page shows it", () => {
  expect(parse("12")).toEqual({ number: 12 });
  expect(parse(" 1,234,567 ")).toEqual({ number: 1_234_567 });
  for (const text of ["0", "", "1e5", "-3", "12 or so", "9".repeat(20)]) {
    expect(parse(text)).toBeUndefined();
  }
});

test("a time is of the day shown, unless a day precedes it", () => {
  expect(parse("14:03")).toEqual({ at: ns("2026-11-25T14:03:00Z") });
  expect(parse("9:03:05.25 UTC")).toEqual({ at: ns("2026-11-25T09:03:05.250Z") });
  expect(parse("14:03:05.123456789")).toEqual({ at: ns("2026-11-25T14:03:05Z") + 123_456_789n });
  expect(parse("yesterday 14:03")).toEqual({ at: ns("2026-11-29T14:03:00Z") });
  expect(parse("Today 14:03")).toEqual({ at: ns("2026-11-30T14:03:00Z") });
  expect(parse("2026-11-01T14:03")).toEqual({ at: ns("2026-11-01T14:03:00Z") });
  expect(parse("2026-11-01")).toEqual({ at: ns("2026-11-01T00:00:00Z") });
  for (const text of ["25:00", "14:60", "2026-13-01 14:03", "tomorrow 14:03", "14:034", "14h03"]) {
    expect([text, parse(text)]).toEqual([text, undefined]);
  }
});

test("hours may be of half a day, minutes of one digit, and days as where dots part them", () => {
  expect(parse("2:03 pm")).toEqual({ at: ns("2026-11-25T14:03:00Z") });
  expect(parse("12:03:05.5AM")).toEqual({ at: ns("2026-11-25T00:03:05.500Z") });
  expect(parse("yesterday 12 pm")).toEqual({ at: ns("2026-11-29T12:00:00Z") });
  expect(parse("14:3")).toEqual({ at: ns("2026-11-25T14:03:00Z") });
  expect(parse("1.9.2026 14:03")).toEqual({ at: ns("2026-09-01T14:03:00Z") });
  expect(parse("29.11.2026")).toEqual({ at: ns("2026-11-29T00:00:00Z") });
  // Four digits are a number, and with dots in threes too.
  expect(parse("1403")).toEqual({ number: 1403 });
  expect(parse("1.234.567")).toEqual({ number: 1_234_567 });
  for (const text of ["14:03 pm", "0:30 am", "13.13.2026", "29/11/2026", "pm", "29.11. 14:03"]) {
    expect([text, parse(text)]).toEqual([text, undefined]);
  }
});

test("times are of the zone that the page shows", () => {
  setTimeZone("local");
  const local = new Date("2026-11-25T14:03:00").getTime();
  expect(parse("2026-11-25 14:03")).toEqual({ at: BigInt(local) * 1_000_000n });
  const minutes = -new Date(local).getTimezoneOffset();
  const name = zoneName(BigInt(local) * 1_000_000n);
  expect(name === "UTC").toBe(minutes === 0);
});
