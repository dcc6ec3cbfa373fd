// The next gap of either kind: lost numbers, or a time without frames.

import { expect, test } from "bun:test";
import type { ApiClient, FrameJson, GapJson } from "../../../src/http/page/api.ts";
import { GapFinder, nearestGap } from "../../../src/http/page/gap-finder.ts";
import { GapList } from "../../../src/http/page/gap-list.ts";

const frame = (number: number, second: number): FrameJson =>
  ({
    ...{ stream: "yard", source: "gate", session: "s", number, cursor: `${number}` },
    captured: `${second}000000000`,
  }) as FrameJson;

/** A server with these frames, the numbers lost between them, and one pause before a frame. */
async function finderOf(frames: readonly FrameJson[], lost: [number, number], pause?: number) {
  const requests: string[] = [];
  const gap = { source: "gate", session: "s", first: lost[0], last: lost[1], at: "0" };
  const gaps: GapJson[] = [{ ...gap, reason: "queue full" }];
  const api = {
    get: (path: string) => {
      requests.push(path);
      if (path.includes("/gaps")) return Promise.resolve({ gaps, next: null });
      // The search needs two requests.
      if (!path.endsWith("more")) return Promise.resolve({ pause: null, next: "more" });
      const index = frames.findIndex(({ number }) => number === pause);
      if (index < 0) return Promise.resolve({ pause: null, next: null });
      const found = { since: frames[index - 1]!.captured, frame: frames[index] };
      return Promise.resolve({ pause: found, next: null });
    },
    frames: (_stream: string, _source: string, query: string) => {
      const number = Number(query.replace("number=", ""));
      return Promise.resolve({ frames: frames.filter((one) => one.number === number) });
    },
  };
  const list = new GapList(api as unknown as ApiClient);
  await list.load("yard");
  return { finder: new GapFinder(api as unknown as ApiClient, list), requests };
}

test("the nearer of lost numbers and a time without frames is found, and says which it is", async () => {
  const frames = [frame(1, 0), frame(2, 60), frame(10, 61), frame(11, 62)];
  const { finder } = await finderOf(frames, [3, 9], 2);
  const next = await finder.find(frames[0]!, 1, () => false);
  expect([next?.frame.number, next?.text]).toEqual([2, "1 min without frames"]);
  const last = await finder.find(frames[3]!, -1, () => false);
  expect([last?.frame.number, last?.text]).toEqual([10, "frames 3 to 9 are missing: queue full"]);
});

test("numbers that were lost in a time without frames are one gap, which says both", async () => {
  const frames = [frame(1, 0), frame(3, 30)];
  const { finder } = await finderOf(frames, [2, 2], 3);
  const found = await finder.find(frames[0]!, 1, () => false);
  expect(found?.text).toBe("30.0 s without frames; frame 2 is missing: queue full");
});

test("numbers lost at the end of a session are not found again from the frame before them", async () => {
  const frames = [frame(1, 0), frame(2, 1)];
  const { finder } = await finderOf(frames, [3, 4]);
  expect((await finder.find(frames[0]!, 1, () => false))?.frame.number).toBe(2);
  expect(await finder.find(frames[1]!, 1, () => false)).toBeUndefined();
});

test("a long search ends when the user goes elsewhere", async () => {
  const { finder, requests } = await finderOf([frame(1, 0)], [5, 6]);
  let isCancelled = false;
  const found = finder.find(frame(1, 0), 1, () => isCancelled);
  isCancelled = true;
  await found;
  expect(requests.filter((path) => path.endsWith("more"))).toEqual([]);
});

test("of gaps of several sources the nearest in the direction is taken", () => {
  const gaps = [frame(1, 10), frame(2, 5), frame(3, 7)].map((one) => ({ frame: one, text: "" }));
  expect(nearestGap(gaps, 1)?.frame.number).toBe(2);
  expect(nearestGap(gaps, -1)?.frame.number).toBe(1);
  expect(nearestGap([], 1)).toBeUndefined();
});
