// Totals of a journal that is written while it is summed.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { runAtOnce } from "../../../src/common/work-queue.ts";
import type { RunSlice } from "../../../src/frame.ts";
import { Journal } from "../../../src/store/journal/journal.ts";
import { JournalReader } from "../../../src/store/journal/journal-reader.ts";
import type { FrameRow } from "../../../src/store/journal/schema.ts";
import { SourceTotals } from "../../../src/store/journal/source-totals.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { session } from "../contract.ts";

function rowOf(name: string, bytes: number): FrameRow {
  const path = { stream: "run7", source: "visible", name };
  const facts = { session, seq: Number(name), bytes, crc32: 0, captured: 0n, received: 0n };
  return { ...path, ...facts, key: null, meta: null, format: null, is_key: null };
}

/** Runs `act` with a journal and its totals. */
async function withTotals(
  act: (journal: Journal, counted: () => Promise<[frames: number, bytes: number]>) => Promise<void>,
  run: (journal: Journal) => RunSlice = () => runAtOnce,
): Promise<void> {
  const path = join(temporaryFolder(), "journal.sqlite");
  const journal = new Journal(path);
  const reader = new JournalReader(path);
  const totals = new SourceTotals(reader, run(journal));
  journal.listener = totals.onFrameRemoved;
  const counted = async (): Promise<[number, number]> => {
    await totals.refresh();
    return [totals.frames, totals.bytes];
  };
  try {
    await act(journal, counted);
  } finally {
    reader.close();
    journal.close();
  }
}

test("a frame whose replacement is not committed yet when it is first summed is counted once", async () => {
  await withTotals(async (journal, counted) => {
    journal.addFrame(rowOf("1", 100));
    journal.flush();
    journal.endReplacement({ row: rowOf("1", 30), partial: "" }, true);
    expect(await counted()).toEqual([1, 100]);
    journal.flush();
    expect(await counted()).toEqual([1, 30]);
  });
});

test("a frame that was replaced after it was summed is counted once", async () => {
  await withTotals(async (journal, counted) => {
    for (const name of ["1", "2"]) journal.addFrame(rowOf(name, 100));
    journal.flush();
    expect(await counted()).toEqual([2, 200]);
    journal.endReplacement({ row: rowOf("1", 30), partial: "" }, true);
    journal.flush();
    expect(await counted()).toEqual([2, 130]);
  });
});

test("a removal that was rolled back does not change the totals", async () => {
  await withTotals(async (journal, counted) => {
    for (const name of ["1", "2"]) journal.addFrame(rowOf(name, 100));
    journal.flush();
    expect(await counted()).toEqual([2, 200]);
    journal.endReplacement({ row: rowOf("1", 30), partial: "" }, true);
    const broken = { ...rowOf("3", 100), session: null as unknown as string };
    expect(() => journal.addFrame(broken)).toThrow("Cannot write the journal");
    expect(() => journal.flush()).toThrow("Cannot write the journal");
    journal.addFrame(rowOf("3", 100));
    journal.flush();
    expect(await counted()).toEqual([3, 300]);
  });
});

test("totals are complete although a sender adds a frame before each slice", async () => {
  let next = 1;
  const addFrames = (journal: Journal, count: number) => {
    for (const end = next + count; next < end; next++) journal.addFrame(rowOf(String(next), 1));
    journal.flush();
  };
  const run = (journal: Journal): RunSlice => {
    return async (slice) => {
      if (next > 6000) throw new Error("the totals do not end");
      addFrames(journal, 1);
      return slice();
    };
  };
  await withTotals(async (journal, counted) => {
    addFrames(journal, 5000);
    const [frames] = await counted();
    expect(frames).toBeGreaterThanOrEqual(5000);
  }, run);
});
