// When sent files are removed that another process may still be writing to.
//
// Covers: client/send-event.ts

import { describe, expect, test } from "bun:test";
import type { RemovalEvent } from "../../src/client/send-event.ts";
import { SentFileRemover } from "../../src/client/sent-file-remover.ts";
import { FramesError } from "../../src/errors.ts";
import type { Frame, FrameSource, Postponed } from "../../src/frame.ts";
import { until, within } from "../helper/time.ts";

type Removal = "removed" | "superseded" | Postponed;

const postponed: Postponed = { delayMs: 1, error: new FramesError("changed", "it is written to") };

/** A source of frames whose removals end as told, the last of them again and again. */
function sourceOf(results: Record<string, readonly Removal[]>): FrameSource {
  const tries = new Map<string, number>();
  return {
    name: "cam",
    next: () => undefined,
    retry: () => {
      throw new Error("it is not asked");
    },
    remove: async ({ name }) => {
      const tried = tries.get(name) ?? 0;
      tries.set(name, tried + 1);
      return results[name]!.at(Math.min(tried, results[name]!.length - 1))!;
    },
    close: () => {},
  };
}

function frameOf(name: string): Frame {
  return {
    name,
    sequence: 1,
    captured: 0n,
    size: 0,
    metadata: "",
    read: () => {},
    pieces: async function* () {
      return undefined;
    },
  };
}

function removerOf(results: Record<string, readonly Removal[]>) {
  const events: RemovalEvent[] = [];
  const remover = new SentFileRemover(
    (event) => events.push(event),
    () => {},
  );
  const source = sourceOf(results);
  for (const name of Object.keys(results)) remover.add({ source, frame: frameOf(name), crc: 0 });
  const names = () =>
    events.flatMap((event) => (event.type === "kept" ? [] : [event.notRemoved.frame.name]));
  return { remover, names };
}

describe("files that a process may still be writing to", () => {
  test("a postponed frame is tried again, and delays no other", async () => {
    const { remover, names } = removerOf({
      a: [postponed, postponed, postponed, "removed"],
      b: ["removed"],
    });
    await until("the other", () => remover.removed === 1);
    await until("the postponed one", () => remover.removed === 2);
    await remover.finish();
    expect(names()).toEqual([]);
  });

  test("a timer that fires before the frame is due does not end the removals", async () => {
    // Timers count whole milliseconds, so about half of these fire early.
    const again: Postponed = { ...postponed, delayMs: 250.9 };
    const { remover } = removerOf({ a: [...Array<Postponed>(8).fill(again), "removed"] });
    await until("the removal", () => remover.removed === 1);
  });

  test("a frame that is still postponed at the end is reported", async () => {
    const { remover, names } = removerOf({ a: [postponed], b: ["removed"], c: [postponed] });
    await within(remover.finish(), () => "the end did not come");
    expect([remover.removed, names()]).toEqual([1, ["a", "c"]]);
  });

  test("a frame that is sent again is neither removed nor reported", async () => {
    const { remover, names } = removerOf({ a: ["superseded"], b: [postponed, "superseded"] });
    await remover.finish();
    expect([remover.removed, names()]).toEqual([0, []]);
  });

  test("a stopped remover leaves postponed frames", async () => {
    const { remover, names } = removerOf({
      a: [{ ...postponed, delayMs: 3_600_000 }],
      b: ["removed"],
    });
    await until("the other", () => remover.removed === 1);
    remover.stop();
    await within(remover.finish(), () => "it waited for the postponed frame");
    expect(names()).toEqual([]);
  });
});
