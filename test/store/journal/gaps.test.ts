// Gaps found in a journal alone, without the sender.
//
// Covers: store/journal/accounted-ranges.ts, store/journal/byte-total.ts,
//   store/journal/commit-signal.ts, store/journal/deletion-log.ts, store/journal/gap-index.ts,
//   store/journal/range-set.ts, store/journal/schema.ts, store/journal/source-totals.ts

import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { rmSync, truncateSync } from "node:fs";
import { FramesError } from "../../../src/errors.ts";
import type { SourceInfo, FrameStore } from "../../../src/frame.ts";
import { readGaps } from "../../../src/store/journal/gaps.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { verify } from "../../../src/store/verify/verify-directory.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { bytesOf, session, storeFrame } from "../contract.ts";
import {
  alter,
  now,
  offered,
  openVisible,
  otherSession,
  pathOf,
  putAll,
  rows,
  withStore,
} from "../fixture.ts";

const bytes = bytesOf(100);
/** Clock of these stores in nanoseconds. */
const at = BigInt(Math.round(now * 1e3)) * 1000n;

/** Stores frames with these numbers. */
async function storeNumbers(
  store: FrameStore,
  numbers: readonly number[],
  origin: Partial<SourceInfo> = {},
): Promise<void> {
  const source = openVisible(store, origin);
  const frames = numbers.map((sequence) => [`${sequence}.png`, bytes, { sequence }] as const);
  expect(await putAll(store, source, frames)).toEqual(numbers.map(() => "stored"));
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

/** Returns the gaps of run7 as `FIRST-LAST REASON`, with source and session if not the default. */
function gaps(directory: string): string[] {
  return [...readGaps(directory, "run7")].map((gap) => {
    const source = gap.source === "visible" ? "" : `${gap.source} `;
    const whose = gap.session === session ? "" : `${gap.session.slice(0, 2)} `;
    return `${source}${whose}${gap.first}-${gap.last} ${gap.reason ?? "never came"}`;
  });
}

/** Returns the gaps of a store after `act`. */
async function gapsAfter(act: (store: FrameStore) => Promise<void> | void): Promise<string[]> {
  const directory = temporaryFolder();
  await withStore(directory, async (store) => {
    await act(store);
    await store.flush();
  });
  return gaps(directory);
}

describe("streams without gaps", () => {
  test("a stream has no gap if all numbers up to the last one are stored", async () => {
    expect(await gapsAfter((store) => storeNumbers(store, range(1, 50)))).toEqual([]);
    expect(await gapsAfter((store) => storeNumbers(store, [3, 1, 2]))).toEqual([]);
    expect(await gapsAfter(() => {})).toEqual([]);
  });

  test("frames that were already stored leave no gap when they are offered or sent again", async () => {
    const found = await gapsAfter(async (store) => {
      await storeNumbers(store, range(1, 60), { session: otherSession });
      const again = openVisible(store);
      const offers = range(1, 50).map((sequence) =>
        offered(`${sequence}.png`, bytes, { sequence }),
      );
      expect(new Set(again.compare(offers))).toEqual(new Set(["stored"]));
      for (const sequence of range(51, 60)) {
        expect(await storeFrame(again, `${sequence}.png`, bytes, { sequence })).toBe("present");
      }
      await storeNumbers(store, range(61, 70));
    });
    expect(found).toEqual([]);
  });

  test("frames that were moved away leave no gap when they are offered again", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await storeNumbers(store, range(1, 3), { session: otherSession });
      for (const sequence of range(1, 3)) rmSync(pathOf(directory, `${sequence}.png`));
      const offers = range(1, 3).map((sequence) => offered(`${sequence}.png`, bytes, { sequence }));
      expect(openVisible(store).compare(offers)).toEqual(["removed", "removed", "removed"]);
      await storeNumbers(store, [4]);
    });
    expect(gaps(directory)).toEqual([]);
  });

  test("a conflict leaves no gap, because a frame of that name is stored", async () => {
    const found = await gapsAfter(async (store) => {
      await storeNumbers(store, [1, 2, 3], { session: otherSession });
      const source = openVisible(store);
      const others = bytesOf(100, 2);
      const offer = offered("1.png", others, { sequence: 1 });
      expect(source.compare([offer])).toEqual(["conflict"]);
      const outcomes = await putAll(store, source, [
        ["2.png", others, { sequence: 2 }],
        ["3.png", bytesOf(99), { sequence: 3 }],
        ["4.png", others, { sequence: 4 }],
      ]);
      expect(outcomes).toEqual(["conflict", "conflict", "stored"]);
    });
    expect(found).toEqual([]);
  });

  test("a watched file that is written again and again leaves no gap", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const source = openVisible(store, { replacesOwn: true });
      for (const sequence of range(1, 100)) {
        const frames = [["latest.png", bytesOf(100, sequence), { sequence }] as const];
        expect(await putAll(store, source, frames)).toEqual(["stored"]);
      }
      await storeNumbers(store, [101]);
    });
    expect(gaps(directory)).toEqual([]);
    // All replacements merge into one range.
    expect(rows(directory, "SELECT first, last FROM accounted")).toEqual([
      { first: 1n, last: 99n },
    ]);
  });

  test("a frame replaced by another session leaves no gap in either session", async () => {
    const found = await gapsAfter(async (store) => {
      await storeNumbers(store, range(1, 5));
      const source = openVisible(store, { session: otherSession, conflict: "replace" });
      const frames = [2, 3].map(
        (number) => [`${number}.png`, bytesOf(100, 7), { sequence: number - 1 }] as const,
      );
      expect(await putAll(store, source, frames)).toEqual(["stored", "stored"]);
    });
    expect(found).toEqual([]);
  });

  test("frames deleted by retention leave no gap, and older gaps are forgotten", async () => {
    const directory = temporaryFolder();
    await withStore(
      directory,
      async (store) => {
        await storeNumbers(store, [1, 2, 5, 6, 7, 10, 11, 12]);
        while (await store.retention!.step());
      },
      { keep: { bytes: 200 } },
    );
    expect(gaps(directory)).toEqual([]);
    await withStore(directory, (store) => storeNumbers(store, [14]));
    expect(gaps(directory)).toEqual(["13-13 never came"]);
  });

  test("a damaged frame that verify moved away leaves no gap", async () => {
    const directory = temporaryFolder();
    await withStore(directory, (store) => storeNumbers(store, range(1, 3)));
    truncateSync(pathOf(directory, "2.png"), 10);
    expect(await verify(directory, { repair: true })).toMatchObject({ damaged: 1 });
    expect(gaps(directory)).toEqual([]);
  });
});

describe("gaps", () => {
  test("a gap reported as lost has its reason", async () => {
    const found = await gapsAfter(async (store) => {
      await storeNumbers(store, [1, 2, 6, 8]);
      const source = openVisible(store);
      source.recordLoss(3, 5, new FramesError("dropped"));
      source.recordLoss(7, 7, new FramesError("vanished"));
      source.recordLoss(9, 12, new FramesError("stopped"));
    });
    expect(found).toEqual(["3-5 dropped", "7-7 vanished", "9-12 stopped"]);
  });

  test("numbers that never came are gaps, except after the last number", async () => {
    expect(await gapsAfter((store) => storeNumbers(store, [3, 4, 7, 9]))).toEqual([
      "1-2 never came",
      "5-6 never came",
      "8-8 never came",
    ]);
  });

  test("a loss inside a range of missing numbers splits it into three gaps", async () => {
    const found = await gapsAfter(async (store) => {
      await storeNumbers(store, [1, 20]);
      openVisible(store).recordLoss(5, 9, new FramesError("dropped"));
    });
    expect(found).toEqual(["2-4 never came", "5-9 dropped", "10-19 never came"]);
  });

  test("numbers in overlapping losses are not also reported as never received", async () => {
    const found = await gapsAfter(async (store) => {
      const source = openVisible(store);
      source.recordLoss(2, 10, new FramesError("dropped"));
      source.recordLoss(3, 4, new FramesError("vanished"));
      await storeNumbers(store, [1, 12]);
    });
    expect(found).toEqual(["2-10 dropped", "3-4 vanished", "11-11 never came"]);
  });

  test("a gap has the time of its loss report, or else of the next stored number", async () => {
    const directory = temporaryFolder();
    let time = now;
    await withStore(
      directory,
      async (store) => {
        await storeNumbers(store, [1]);
        time = now + 1000;
        openVisible(store).recordLoss(2, 3, new FramesError("dropped"));
        time = now + 2000;
        await storeNumbers(store, [4, 7]);
      },
      { clock: () => time },
    );
    const times = [...readGaps(directory, "run7")].map((gap) => gap.at - at);
    expect(times).toEqual([1_000_000_000n, 2_000_000_000n]);
  });

  test("gaps are found for each session and source separately", async () => {
    const directory = temporaryFolder();
    let time = now;
    await withStore(
      directory,
      async (store) => {
        await storeNumbers(store, [2], { session: otherSession });
        time += 1000;
        await storeNumbers(store, [1, 4]);
        await storeNumbers(store, [3], { source: "infrared" });
        await storeNumbers(store, [99], { stream: "run8" });
      },
      { clock: () => time },
    );
    // Sources by name, sessions by the time of their first gap.
    expect(gaps(directory)).toEqual([
      "infrared 1-2 never came",
      "ff 1-1 never came",
      "2-3 never came",
    ]);
  });

  test("gaps can be read while a server writes the journal", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await storeNumbers(store, [2]);
      expect(gaps(directory)).toEqual(["1-1 never came"]);
      await storeNumbers(store, [4]);
      expect(gaps(directory)).toEqual(["1-1 never came", "3-3 never came"]);
    });
  });
});

describe("journal of a version without accounted ranges", () => {
  async function earlier(): Promise<string> {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      await storeNumbers(store, [3, 4]);
      openVisible(store).recordLoss(7, 8, new FramesError("dropped"));
      await store.flush();
    });
    for (const table of ["accounted", "removing", "removed"]) {
      alter(directory, `DROP TABLE ${table}`);
    }
    return directory;
  }

  test("a journal without accounted ranges gives only reported losses until a server opens it", async () => {
    const directory = await earlier();
    expect(gaps(directory)).toEqual(["7-8 dropped"]);
    expect(await verify(directory)).toMatchObject({ missing: 0, lost: 1 });
  });

  test("a journal without accounted ranges gives missing numbers that come after a server opened it", async () => {
    const directory = await earlier();
    await withStore(directory, (store) => storeNumbers(store, [10, 12]));
    expect(gaps(directory)).toEqual(["7-8 dropped", "9-9 never came", "11-11 never came"]);
  });
});

test("gaps among 500,000 frames are found in little memory", async () => {
  const directory = temporaryFolder();
  await withStore(directory, () => {});
  const database = new Database(journalPath(directory));
  // Every tenth number is missing.
  database.run(`INSERT INTO frames (stream, source, name, session, seq, bytes, crc32, captured, received)
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 500000)
    SELECT 'run7', 'visible', n, '${session}', n, 10, 0, 0, n FROM numbers WHERE n % 10 <> 5`);
  database.close();
  const before = process.memoryUsage.rss();
  let found = 0;
  let most = 0;
  for (const { first, last } of readGaps(directory, "run7")) {
    if (first !== last || first % 10 !== 5) throw new Error(`${first}-${last} is no gap`);
    if (++found % 10_000 === 0) most = Math.max(most, process.memoryUsage.rss());
  }
  expect(found).toBe(50_000);
  expect(most - before).toBeLessThan(150e6);
});
