import { expect, test } from "bun:test";
import { RejectedPeers } from "../../src/common/rejected-peers.ts";

const times = (count: number, act: (index: number) => boolean) =>
  Array.from({ length: count }, (_, index) => act(index)).filter(Boolean).length;

test("the first 30 rejections of an address in a minute are logged, and the others are summed up", () => {
  const turnedAway = new RejectedPeers();
  expect(times(100, () => turnedAway.add("10.0.0.7", 1000))).toBe(30);
  expect(turnedAway.add("10.0.0.8", 1000)).toBe(true);
  expect(turnedAway.isOverLimit("10.0.0.7")).toBe(true);
  expect(turnedAway.isOverLimit("10.0.0.8")).toBe(false);
  expect(turnedAway.takeSummaries(60_999)).toEqual([]);
  expect(turnedAway.takeSummaries(61_000)).toEqual([{ host: "10.0.0.7", count: 70 }]);
  // A summary resets the count.
  expect(turnedAway.isOverLimit("10.0.0.7")).toBe(false);
  expect(turnedAway.add("10.0.0.7", 61_001)).toBe(true);
});

test("all sums are reported at the end, even before their minute has passed", () => {
  const turnedAway = new RejectedPeers();
  times(31, () => turnedAway.add("10.0.0.7", 1000));
  expect(turnedAway.takeSummaries(1001, true)).toEqual([{ host: "10.0.0.7", count: 1 }]);
  expect(turnedAway.takeSummaries(1001, true)).toEqual([]);
});

test("addresses beyond a thousand are summed up as one, so memory and log stay bounded", () => {
  const turnedAway = new RejectedPeers();
  expect(times(5000, (index) => turnedAway.add(`10.0.${index >> 8}.${index & 255}`, 0))).toBe(1030);
  expect(turnedAway.takeSummaries(0, true)).toEqual([{ host: "other addresses", count: 3970 }]);
});
