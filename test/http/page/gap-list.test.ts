// The next gap from a frame.

import { expect, test } from "bun:test";
import type { ApiClient, FrameJson, GapJson } from "../../../src/http/page/api.ts";
import { GapList } from "../../../src/http/page/gap-list.ts";

const gap = (session: string, first: number, last: number, at: number, source = "x"): GapJson => ({
  ...{ source, session, first, last, at: `${at}` },
  reason: null,
});
const frame = (number: number, captured: number): FrameJson =>
  ({ source: "x", session: "b", number, captured: `${captured}` }) as FrameJson;

/** A server that lists two gaps a page. */
function serverOf(gaps: readonly GapJson[]): { api: ApiClient; requests: string[] } {
  const requests: string[] = [];
  const get = (path: string) => {
    requests.push(path);
    const start = Number(new URL(path, "http://x").searchParams.get("after") ?? 0);
    const next = start + 2 < gaps.length ? `${start + 2}` : null;
    return Promise.resolve({ gaps: gaps.slice(start, start + 2), next });
  };
  return { api: { get } as unknown as ApiClient, requests };
}

test("the next gap is the nearest of the session, then of the sessions after it", async () => {
  const { api } = serverOf([
    gap("b", 40, 50, 900),
    gap("b", 10, 12, 800),
    gap("b", 20, 20, 850, "other"),
    gap("a", 5, 5, 100),
    gap("a", 7, 9, 200),
    gap("c", 3, 3, 2000),
    gap("c", 30, 31, 3000),
  ]);
  const list = new GapList(api);
  await list.load("run 7");
  expect(list.all.length).toBe(7);
  const at = (number: number, direction: -1 | 1) => {
    const found = list.adjacent(frame(number, 1000), direction);
    return found === undefined ? undefined : [found.session, found.first];
  };
  expect(at(1, 1)).toEqual(["b", 10]);
  // The frame after a gap is shown, so that the same gap is not the one before it.
  expect(at(13, 1)).toEqual(["b", 40]);
  expect(at(13, -1)).toEqual(["a", 7]);
  expect(at(14, -1)).toEqual(["b", 10]);
  expect(at(51, -1)).toEqual(["b", 10]);
  expect(at(51, 1)).toEqual(["c", 3]);
  list.clear();
  expect(at(1, 1)).toBeUndefined();
});

test("gaps of a stream that is no longer shown are not kept, and at most 2,000 are requested", async () => {
  const many = Array.from({ length: 5000 }, (_, index) =>
    gap("a", index * 2 + 1, index * 2 + 1, 1),
  );
  const { api, requests } = serverOf(many);
  const list = new GapList(api);
  const first = list.load("one");
  list.clear();
  await first;
  expect(list.all).toEqual([]);
  expect(requests.length).toBeLessThanOrEqual(1000);
});
