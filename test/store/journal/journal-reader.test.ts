// Look-ups in a journal with more rows than one slice of work reads.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { JournalReader } from "../../../src/store/journal/journal-reader.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import type { RunSlice } from "../../../src/frame.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { session } from "../contract.ts";
import { otherSession, withStore } from "../fixture.ts";

test("frames with a number are found among 25,000 in slices, the newest first, and each once", async () => {
  const directory = temporaryFolder();
  await withStore(directory, () => {});
  const database = new Database(journalPath(directory));
  // Every thousandth frame has the number 7, so some are the last of a slice. Many have the same time.
  database.run(`INSERT INTO frames (stream, source, name, session, seq, bytes, crc32, captured, received)
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 25000)
    SELECT 'run7', 'visible', n, '${session}', iif(n % 1000 = 0, 7, n + 10), 10, 0, n / 5000, 0
      FROM numbers`);
  database.close();
  const reader = new JournalReader(journalPath(directory));
  let slices = 0;
  const run: RunSlice = async (slice) => {
    slices++;
    return slice();
  };
  const scan = (lookup: { number: number; session?: string }, limit = 100) =>
    reader.scanByNumber({ stream: "run7", source: "visible", ...lookup }, limit, run);
  const ids = Array.from({ length: 25 }, (_, index) => 25_000 - 1000 * index);
  expect((await scan({ number: 7 })).map(({ id }) => id)).toEqual(ids);
  expect((await scan({ number: 7 }, 3)).map(({ id }) => id)).toEqual(ids.slice(0, 3));
  expect(await scan({ number: 7, session: otherSession })).toEqual([]);
  expect(await scan({ number: 7, session })).toHaveLength(25);
  expect(await scan({ number: 8 })).toEqual([]);
  expect(await scan({ number: 12_345 })).toHaveLength(1);
  expect(slices).toBeGreaterThan(6);
  reader.close();
});

test("a number that each of 12,000 sessions has is found in the newest sessions, and in the one that is named", async () => {
  const directory = temporaryFolder();
  await withStore(directory, () => {});
  const database = new Database(journalPath(directory));
  database.run(`INSERT INTO frames (stream, source, name, session, seq, bytes, crc32, captured, received)
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 12000)
    SELECT 'run7', 'visible', n, printf('%032d', n), 1, 10, 0, -n, 0 FROM numbers`);
  database.close();
  const reader = new JournalReader(journalPath(directory));
  const scan = async (more: { session?: string }, limit: number) => {
    const lookup = { stream: "run7", source: "visible", number: 1, ...more };
    const found = await reader.scanByNumber(lookup, limit, async (slice) => slice());
    return found.map(({ id }) => id);
  };
  expect(await scan({}, 2)).toEqual([12_000, 11_999]);
  expect(await scan({ session: "2500".padStart(32, "0") }, 2)).toEqual([2500]);
  reader.close();
});
