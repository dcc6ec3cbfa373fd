// Statistics of one live source with a fake clock: numbers, ranges and problems.
//
// Covers: http/live/gap-counter.ts, http/live/problem-log.ts

import { describe, expect, test } from "bun:test";
import { RangeSet } from "../../../src/store/journal/range-set.ts";
import { delayBucketsSeconds, SourceStats } from "../../../src/http/live/source-stats.ts";
import { GapCounter } from "../../../src/http/live/gap-counter.ts";
import { ProblemLog } from "../../../src/http/live/problem-log.ts";

const origin = { stream: "s", source: "x", session: "one" };

function frame(sequence: number, captured: number, size = 1000) {
  const name = `${sequence}.jpg`;
  return { name, sequence, captured: BigInt(captured) * 1_000_000n, size, metadata: "" };
}

describe("SourceStats", () => {
  test("a source has the rate of the last seconds, the median of its delays and a history", () => {
    const began = 1_800_000_000_000;
    const feed = new SourceStats("s", "x", began);
    for (let tick = 1; tick <= 400; tick++) {
      for (let shot = 0; shot < 50; shot++) {
        const now = began + (tick - 1) * 1000 + shot * 20;
        // One frame in ten is late.
        const delay = shot % 10 === 0 ? 500 : 8;
        feed.recordStored(origin, frame((tick - 1) * 50 + shot + 1, now - delay), 7, now);
      }
      feed.updateRates(began + tick * 1000, tick % 2 === 0);
      if (tick >= 2) expect(feed.rate).toBeCloseTo(50, 5);
    }
    const now = began + 400_000;
    const state = feed.snapshot(now)!;
    expect(state).toMatchObject({ rate: 50, bandwidth: 50_000, delay: 8, number: 20_000, gaps: 0 });
    expect(feed.history.length).toBe(150);
    expect(feed.history.every((entry) => Bun.deepEquals(entry, [50, 50_000, 0]))).toBe(true);
    const late = feed.delayCounts[delayBucketsSeconds.indexOf(0.5)]!;
    expect([late, feed.delayCounts[delayBucketsSeconds.indexOf(0.01)]]).toEqual([2000, 18_000]);
    // No more frames arrive.
    for (let tick = 401; tick <= 420; tick++) feed.updateRates(began + tick * 1000, tick % 2 === 0);
    expect(feed.rate).toBe(0);
    expect(feed.medianDelay(began + 420_000)).toBeUndefined();
    expect(feed.history.at(-1)).toEqual([0, 0, 0]);
  });

  test("the newest frame of a source has the highest number of the current session", () => {
    const feed = new SourceStats("s", "x", 0);
    feed.recordStored(origin, frame(5, 0), 1, 10);
    feed.recordStored(origin, frame(3, 0), 2, 20);
    expect(feed.newest).toMatchObject({ frame: { sequence: 5 }, crc32: 1, received: 20 });
    feed.recordStored({ ...origin, session: "two" }, frame(1, 0), 3, 30);
    expect(feed.newest).toMatchObject({ frame: { sequence: 1 }, session: "two", crc32: 3 });
  });

  test("a source notifies its listeners once for new frames, and only then", () => {
    const feed = new SourceStats("s", "x", 0);
    feed.recordStored(origin, frame(1, 0), 1, 10);
    let woken = 0;
    const end = feed.subscribe(() => woken++);
    feed.notify();
    expect(woken).toBe(0);
    feed.recordStored(origin, frame(2, 0), 1, 10);
    feed.recordStored(origin, frame(3, 0), 1, 10);
    feed.notify();
    feed.notify();
    expect(woken).toBe(1);
    end();
    expect(feed.hasListeners).toBe(false);
  });
});

describe("missing numbers", () => {
  test("missing numbers are gaps and lost frames, but not frames that came later or were present", () => {
    const numbers = new GapCounter();
    numbers.add("a", 1);
    numbers.add("a", 2);
    expect(numbers.missing).toBe(0);
    numbers.add("a", 6);
    expect(numbers.missing).toBe(3);
    numbers.addLost("a", 3, 4);
    expect(numbers.missing).toBe(3);
    numbers.add("a", 5);
    expect(numbers.missing).toBe(2);
    numbers.addLost("a", 7, 9);
    expect(numbers.missing).toBe(5);
    numbers.addPresent("a", 10, 20);
    numbers.add("a", 21);
    expect(numbers.missing).toBe(5);
    numbers.addPresent("a", 3, 3);
    expect(numbers.missing).toBe(4);
    // Numbers before the first frame of a session are unknown and do not count as missing.
    numbers.add("b", 100);
    expect(numbers.missing).toBe(0);
    numbers.add("b", 102);
    expect(numbers.missing).toBe(1);
  });

  test("missing numbers are the gaps between ranges, in whichever order the ranges are added", () => {
    for (let round = 0; round < 200; round++) {
      const known = new Set<number>();
      const ranges = new RangeSet();
      for (let added = 0; added < 30; added++) {
        const first = 1 + Math.floor(Math.random() * 100);
        const last = first + Math.floor(Math.random() * 4);
        for (let number = first; number <= last; number++) known.add(number);
        ranges.add(first, last, BigInt(added));
        const missing: number[] = [];
        for (let number = 1; number < Math.max(...known); number++) {
          if (!known.has(number)) missing.push(number);
        }
        const found = [...ranges.gaps()].flatMap(({ first: from, last: to }) => {
          return Array.from({ length: to - from + 1 }, (_, index) => from + index);
        });
        expect(found).toEqual(missing);
      }
    }
  });
});

test("repeated problems of one kind are reported once, with their number", () => {
  let now = 1_000_000;
  const problems = new ProblemLog(() => now);
  const told: string[] = [];
  const end = problems.subscribe(({ message }) => told.push(message));
  for (let index = 0; index < 50; index++) problems.add("dropped", "lost", "s", "x");
  problems.add("dropped", "lost", "s", "y");
  now += 10_001;
  problems.add("dropped", "lost", "s", "x");
  expect(told).toEqual(["lost", "lost", "lost (and 49 more before that)"]);
  end();
  for (let index = 0; index < 2000; index++) problems.add("dropped", `${index}`, "s", `${index}`);
  expect(told.length).toBe(3);
  expect(problems.recent.length).toBe(100);
  expect(problems.recent[0]!.message).toBe("1999");
});
