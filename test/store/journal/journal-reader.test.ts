// Look-ups in a journal with more rows than one slice of work reads.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { JournalReader } from "../../../src/store/journal/journal-reader.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import type { RunSlice } from "../../../src/frame.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { session } from "../contract.ts";
import { withStore } from "../fixture.ts";

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
  const found = await reader.scanByNumber("run7", "visible", 7, run);
  expect(found.map(({ id }) => id)).toEqual(
    Array.from({ length: 25 }, (_, i) => 25_000 - 1000 * i),
  );
  expect(await reader.scanByNumber("run7", "visible", 8, run)).toEqual([]);
  expect(await reader.scanByNumber("run7", "visible", 12_345, run)).toHaveLength(1);
  expect(slices).toBeGreaterThan(6);
  reader.close();
});
