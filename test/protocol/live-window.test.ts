// Limits frames in flight of a live source to what was confirmed in the last quarter of a second.

import { describe, expect, test } from "bun:test";
import { LiveWindow, recentPeriodMs } from "../../src/protocol/live-window.ts";

/**
 * Returns the most frames in flight of a source that always has another frame, on a link that takes
 * `each` milliseconds for a frame.
 */
function mostUnderWay(each: number, milliseconds: number): number {
  const freshness = new LiveWindow();
  let [underWay, most, busyUntil] = [0, 0, 0];
  for (let now = 0; now < milliseconds; now++) {
    if (underWay > 0 && now >= busyUntil) {
      freshness.ack(now);
      underWay--;
      busyUntil = now + each;
    }
    for (; underWay < 1000 && freshness.canBegin(now); underWay++) {
      if (underWay === 0) busyUntil = now + each;
      freshness.begin();
    }
    most = Math.max(most, underWay);
  }
  return most;
}

describe("LiveWindow with batched receipts", () => {
  test("the recent period grows with the interval between receipts, up to 5,250 ms", () => {
    const apart = [undefined, 0, 1000, 1e9];
    expect(apart.map(recentPeriodMs)).toEqual([250, 250, 1250, 5250]);
  });

  test("as many frames may be in flight as the last batch of receipts confirmed", () => {
    const freshness = new LiveWindow();
    for (let frame = 0; frame < 30; frame++) freshness.begin();
    for (let frame = 0; frame < 30; frame++) freshness.ack(1000);
    for (let frame = 0; frame < 30; frame++) {
      expect(freshness.canBegin(1900, recentPeriodMs(1000))).toBe(true);
      freshness.begin();
    }
    expect(freshness.canBegin(1900, recentPeriodMs(1000))).toBe(false);
    expect(freshness.canBegin(1900)).toBe(false);
  });
});

describe("LiveWindow", () => {
  test("a live source has one frame in flight before its first receipt", () => {
    const freshness = new LiveWindow();
    expect(freshness.canBegin(0)).toBe(true);
    freshness.begin();
    expect(freshness.canBegin(0)).toBe(false);
    expect(freshness.canBegin(1e9)).toBe(false);
  });

  test("a live source has as many frames in flight as were confirmed in the last 250 ms", () => {
    const room = (now: number) => {
      const freshness = new LiveWindow();
      for (const at of [0, 100, 200]) {
        freshness.begin();
        freshness.ack(at);
      }
      let frames = 0;
      for (; freshness.canBegin(now); frames++) freshness.begin();
      return frames;
    };
    expect(room(200)).toBe(3);
    expect(room(250)).toBe(3);
    expect(room(251)).toBe(2);
    expect(room(351)).toBe(1);
    // One frame is always allowed, because otherwise no confirmation could ever arrive.
    expect(room(10_000)).toBe(1);
  });

  test("a live source has at most 250 ms of frames in flight, and always at least one", () => {
    expect(mostUnderWay(251, 10_000)).toBe(1);
    expect(mostUnderWay(3000, 20_000)).toBe(1);
    // Frames in the buffers of the link are at most a quarter of a second old.
    for (const each of [2, 5, 10, 50, 100]) {
      const most = mostUnderWay(each, 20_000);
      expect(most).toBeGreaterThan(1);
      expect(most).toBeLessThanOrEqual(250 / each + 1);
    }
  });

  test("a live source starts with one frame in flight on a new connection", () => {
    const freshness = new LiveWindow();
    for (let frame = 0; frame < 10; frame++) {
      freshness.begin();
      freshness.ack(frame);
    }
    for (let frame = 0; frame < 10; frame++) freshness.begin();
    freshness.reset();
    expect(freshness.canBegin(10)).toBe(true);
    freshness.begin();
    expect(freshness.canBegin(10)).toBe(false);
  });
});
