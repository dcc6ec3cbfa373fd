// Retention by age and a clock that jumps: nothing is removed before the clock has run evenly for
// an hour.

import { describe, expect, test } from "bun:test";
import { ClockTrust } from "../../../src/store/directory/clock-trust.ts";
import type { DirectoryStore } from "../../../src/store/directory/directory-store.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { bytesOf } from "../contract.ts";
import { names, now, openVisible, putAll, withStore } from "../fixture.ts";

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

describe("trust in a clock", () => {
  /** Returns whether the clock is believed after these steps. */
  function isBelievedAfter(steps: readonly number[], limitMs = 7 * day): boolean {
    const trust = new ClockTrust(limitMs);
    let time = now;
    let isBelieved = trust.isBelieved(time);
    for (const step of steps) isBelieved = trust.isBelieved((time += step));
    return isBelieved;
  }
  const evenly = (milliseconds: number) => Array<number>(milliseconds / minute).fill(minute);

  test("a clock is believed after an hour without a jump, and not before", () => {
    expect(isBelievedAfter([])).toBe(false);
    expect(isBelievedAfter(evenly(hour - minute))).toBe(false);
    expect(isBelievedAfter(evenly(hour))).toBe(true);
  });

  test("a clock that jumps forwards or backwards is believed an hour later", () => {
    for (const jump of [day, -day, 400 * day, -now, hour, Infinity, NaN]) {
      expect(isBelievedAfter([...evenly(2 * hour), jump])).toBe(false);
    }
    for (const jump of [day, -day, 400 * day, -now, hour]) {
      expect(isBelievedAfter([...evenly(2 * hour), jump, ...evenly(hour - minute)])).toBe(false);
      expect(isBelievedAfter([...evenly(2 * hour), jump, ...evenly(hour)])).toBe(true);
    }
  });

  test("a clock that is set by seconds stays believed", () => {
    expect(isBelievedAfter([...evenly(hour), -2000, 5000])).toBe(true);
  });

  test("a clock is believed sooner if frames are kept for less than an hour", () => {
    expect(isBelievedAfter(evenly(minute), minute)).toBe(true);
    expect(isBelievedAfter([...evenly(minute), day], minute)).toBe(false);
  });
});

/** Sets the clock forward by `milliseconds` in even steps, and lets retention work meanwhile. */
async function run(store: DirectoryStore, clock: { time: number }, milliseconds: number) {
  for (const end = clock.time + milliseconds; clock.time < end;) {
    clock.time += Math.min(minute, end - clock.time);
    while (await store.retention!.step());
  }
}

test("retention by age removes nothing while a clock that jumps ahead by days is not believed", async () => {
  const directory = temporaryFolder();
  const clock = { time: now };
  const options = { keep: { milliseconds: 7 * day }, clock: () => clock.time };
  const frames = ["1", "2", "3"].map((name) => [name, bytesOf(100)] as const);
  await withStore(
    directory,
    async (store) => {
      await putAll(store, openVisible(store), frames);
      await run(store, clock, 2 * hour);
      // The clock is ahead for half an hour, and is then right again.
      clock.time += 30 * day;
      await run(store, clock, hour / 2);
      clock.time -= 30 * day;
      await run(store, clock, 2 * hour);
      expect(names(directory)).toEqual(["1", "2", "3"]);
    },
    options,
  );
  // A server that starts with a clock that is ahead waits as well.
  clock.time += 30 * day;
  await withStore(
    directory,
    async (store) => {
      await run(store, clock, hour - minute);
      expect(names(directory)).toEqual(["1", "2", "3"]);
      await run(store, clock, 2 * minute);
      expect(names(directory)).toEqual(["3"]);
    },
    options,
  );
});

test("retention by size needs no clock", async () => {
  const directory = temporaryFolder();
  const frames = ["1", "2", "3"].map((name) => [name, bytesOf(100)] as const);
  await withStore(
    directory,
    async (store) => {
      await putAll(store, openVisible(store), frames);
      while (await store.retention!.step());
      expect(names(directory)).toEqual(["3"]);
    },
    { keep: { bytes: 100 } },
  );
});
