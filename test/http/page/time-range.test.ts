// The visible part of a timeline, and its ticks.
//
// Covers: http/page/time-axis.ts

import { expect, test } from "bun:test";
import { axisTicks } from "../../../src/http/page/time-axis.ts";
import { TimeRange } from "../../../src/http/page/time-range.ts";

const second = 1_000_000_000n;

test("a range that shows the whole keeps showing it while it grows", () => {
  const range = new TimeRange();
  range.setWhole(0n, 10n * second);
  range.setWhole(0n, 20n * second);
  expect([range.from, range.to]).toEqual([0n, 20n * second]);
  range.zoom(0.5, 15n * second);
  expect([range.from, range.to]).toEqual([(75n * second) / 10n, (175n * second) / 10n]);
  range.setWhole(0n, 40n * second);
  expect([range.from, range.to]).toEqual([(75n * second) / 10n, (175n * second) / 10n]);
  range.showAll();
  expect(range.shareOf(10n * second)).toBe(0.25);
  expect(range.timeAt(0.25)).toBe(10n * second);
  expect([range.timeAt(-1), range.timeAt(7)]).toEqual([0n, 40n * second]);
});

test("zooming and moving never leave the whole, nor show less than ten milliseconds", () => {
  const range = new TimeRange();
  range.setWhole(0n, 100n * second);
  for (let turn = 0; turn < 100; turn++) range.zoom(0.5, 100n * second);
  expect([range.from, range.to]).toEqual([100n * second - 10_000_000n, 100n * second]);
  range.shift(5);
  expect(range.to).toBe(100n * second);
  expect(range.centreIfOutside(0n)).toBe(true);
  expect(range.from).toBe(0n);
  expect(range.centreIfOutside(1n)).toBe(false);
  range.zoom(1e12, 0n);
  expect([range.from, range.to]).toEqual([0n, 100n * second]);
});

test("ticks are at whole intervals and as many as have room", () => {
  const range = new TimeRange();
  const start = BigInt(Date.parse("2026-11-25T17:14:06.300Z")) * 1_000_000n;
  range.setWhole(start, start + 3600n * second);
  const ticks = axisTicks(range, 1000);
  expect(ticks.map(({ text }) => text)).toEqual([
    ...["17:15", "17:20", "17:25", "17:30", "17:35", "17:40"],
    ...["17:45", "17:50", "17:55", "18:00", "18:05", "18:10"],
  ]);
  expect(axisTicks(range, 200).length).toBeLessThan(4);
  range.zoom(0.0005, start);
  expect(axisTicks(range, 1000)[0]!.text).toMatch(/^14:06\.[3-9]00$/);
});
