// The same notice about a source is passed once a minute.
//
// Covers: source/source-event.ts

import { expect, test } from "bun:test";
import { limitNotices } from "../../../src/client/plan/notices.ts";

test("the same notice of a source is passed once a minute, and other events always", () => {
  let now = 0;
  const passed: string[] = [];
  const onEvent = limitNotices(
    (event) =>
      passed.push(
        event.type === "notice" ? `${now} ${event.source}: ${event.message}` : event.type,
      ),
    () => now,
  );
  const notify = (source: string, message: string) => onEvent({ type: "notice", source, message });
  for (const time of [0, 1, 59_999, 60_000, 61_000]) {
    now = time;
    notify("gate", "it jumps");
    if (time === 1) notify("gate", "it stops");
    if (time === 1) notify("roof", "it jumps");
  }
  for (let times = 0; times < 2; times++) onEvent({ type: "time-clamped", path: "a" });
  expect(passed).toEqual([
    "0 gate: it jumps",
    "1 gate: it stops",
    "1 roof: it jumps",
    "60000 gate: it jumps",
    "time-clamped",
    "time-clamped",
  ]);
});
