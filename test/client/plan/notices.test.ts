// The same notice about a source is passed once a minute.

import { expect, test } from "bun:test";
import { limitNotices } from "../../../src/client/plan/notices.ts";

test("the same notice of a source is passed once a minute", () => {
  let now = 0;
  const passed: string[] = [];
  const notify = limitNotices(
    (source, message) => passed.push(`${now} ${source}: ${message}`),
    () => now,
  );
  for (const time of [0, 1, 59_999, 60_000, 61_000]) {
    now = time;
    notify("gate", "it jumps");
    if (time === 1) notify("gate", "it stops");
    if (time === 1) notify("roof", "it jumps");
  }
  expect(passed).toEqual([
    "0 gate: it jumps",
    "1 gate: it stops",
    "1 roof: it jumps",
    "60000 gate: it jumps",
  ]);
});
