// The next time without frames of a source.
//
// Covers: http/routes/frame-json.ts

import { expect, test } from "bun:test";
import { send } from "frames";
import { startViewed, type Viewed } from "../../helper/viewing.ts";

const picture = new Uint8Array([1, 2, 3]);

/** Sends frames captured at these times in seconds. */
async function record(viewed: Viewed, source: string, times: readonly number[]): Promise<void> {
  const frames = times.map((time, index) => ({
    ...{ bytes: picture, name: `${index + 1}.jpg` },
    captured: BigInt(Math.round(time * 1000)) * 1_000_000n,
  }));
  await send(frames, { to: viewed.server.address, stream: "run7", source });
}

/** Returns the pauses of a source one after the other, as the numbers of frames before and after. */
async function pauses(viewed: Viewed, source: string, direction: "after" | "before") {
  const list = `/api/streams/run7/frames?source=${source}&limit=500`;
  const { frames } = await viewed.json(list);
  const found: number[] = [];
  let cursor: string | null = direction === "after" ? frames[0].cursor : frames.at(-1).cursor;
  while (cursor !== null) {
    const path = `/api/streams/run7/pause?source=${source}&${direction}=${cursor}`;
    const { pause, next } = await viewed.json(path);
    if (pause === null) cursor = next;
    else {
      const before = frames.findLast(({ captured }: any) => captured === pause.since);
      expect(before.number).toBe(pause.frame.number - 1);
      found.push(pause.frame.number);
      cursor = pause.frame.cursor as string;
    }
  }
  return found;
}

test("a pause is longer than 2 s and five usual intervals, and is found from both sides", async () => {
  await using viewed = await startViewed();
  const steady = Array.from({ length: 100 }, (_, index) => index / 10);
  // Of ten frames a second: exactly 2 s are no pause, a minute and 2.1 s are. Two have one time.
  const later = [70, 70, 70.1, 72.1, 74.2, 74.3].map((time) => time + 0.001);
  await record(viewed, "fast", [...steady, ...later]);
  expect(await pauses(viewed, "fast", "after")).toEqual([101, 105]);
  expect(await pauses(viewed, "fast", "before")).toEqual([105, 101]);
  // Of a frame a minute, five minutes are no pause.
  const slow = Array.from({ length: 20 }, (_, index) => index * 60);
  await record(viewed, "slow", [...slow, 1140 + 300, 1440 + 301, 1801]);
  expect(await pauses(viewed, "slow", "after")).toEqual([22]);
  expect(await pauses(viewed, "slow", "before")).toEqual([22]);
});

test("a long search goes on with the next request, and ends at the last frame", async () => {
  await using viewed = await startViewed();
  // Behind a hundred fast frames each look-up goes on by one frame, more than one request does.
  const fast = Array.from({ length: 100 }, (_, index) => index / 100);
  const slow = Array.from({ length: 10_300 }, (_, index) => 1 + index * 1.5);
  await record(viewed, "x", [...fast, ...slow, 30_000]);
  const { frames } = await viewed.json("/api/streams/run7/frames?source=x&limit=1");
  const search = (cursor: string) =>
    viewed.json(`/api/streams/run7/pause?source=x&after=${cursor}`);
  const first = await search(frames[0].cursor);
  expect(first.pause).toBeNull();
  const { pause } = await search(first.next);
  expect(pause.frame.number).toBe(10_401);
  expect(await search(pause.frame.cursor)).toEqual({ pause: null, next: null });
});

test("a pause needs a source and a cursor", async () => {
  await using viewed = await startViewed();
  await record(viewed, "x", [0, 1]);
  for (const query of ["", "source=x", "after=0_0_0", "source=x&after=1"]) {
    const answer = await viewed.get(`/api/streams/run7/pause?${query}`);
    expect([query, answer.status]).toEqual([query, 400]);
  }
  const extremes = [`before=${-(2n ** 63n)}_0_0`, `after=${2n ** 63n - 1n}_0_0`];
  for (const query of extremes) {
    const path = `/api/streams/run7/pause?source=x&${query}`;
    expect(await viewed.json(path)).toEqual({ pause: null, next: null });
  }
});
