// The gaps that a server lists page by page, beside those of `frames ls --gaps`.
//
// Covers: store/journal/gaps.ts, store/journal/range-set.ts

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { runAtOnce } from "../../../src/common/work-queue.ts";
import { GapIndex, type GapPosition } from "../../../src/store/journal/gap-index.ts";
import { readGaps } from "../../../src/store/journal/gaps.ts";
import { JournalReader } from "../../../src/store/journal/journal-reader.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { otherSession, withStore } from "../fixture.ts";
import { session } from "../contract.ts";

/** Adds rows with random numbers to a journal. */
function addRows(database: Database, count: number): void {
  const pick = (most: number) => Math.floor(Math.random() * most);
  for (let added = 0; added < count; added++) {
    const source = ["infrared", "visible"][pick(2)]!;
    const owner = [session, otherSession][pick(2)]!;
    const first = 1 + pick(300);
    const kind = ["frame", "frame", "loss", "accounted"][pick(4)];
    const range = [source, owner, first, first + pick(4), 1000 + pick(1000)] as const;
    if (kind === "frame") {
      database.run(
        `INSERT OR IGNORE INTO frames
          (stream, source, name, session, seq, bytes, crc32, captured, received)
          VALUES ('run7', ?1, ?2 || ?3, ?2, ?3, 10, 0, 0, ?5 + 0 * ?4)`,
        [...range],
      );
    } else if (kind === "loss") {
      database.run(
        `INSERT INTO losses (stream, source, session, first, last, reason, at, state)
          SELECT 'run7', ?1, ?2, ?3, ?4, 'dropped', ?5, ?6 WHERE NOT EXISTS (SELECT 1 FROM losses
            WHERE source = ?1 AND session = ?2 AND first = ?3 AND last = ?4)`,
        [...range, pick(3) === 0 ? "came" : null],
      );
    } else {
      database.run("INSERT OR IGNORE INTO accounted VALUES ('run7', ?, ?, ?, ?, ?)", [...range]);
    }
  }
}

/** Returns what is the same in both lists. */
function textOf(gaps: Iterable<{ source: string; session: string; first: number; last: number }>) {
  return Array.from(gaps, ({ source, session: owner, first, last }) => {
    return `${source} ${owner} ${first}-${last}`;
  });
}

test("pages of gaps, taken together, are what frames ls lists, also when rows were added in any order", async () => {
  for (let round = 0; round < 20; round++) {
    const directory = temporaryFolder();
    await withStore(directory, () => {});
    const database = new Database(journalPath(directory));
    const reader = new JournalReader(journalPath(directory));
    const index = new GapIndex(reader, runAtOnce);
    for (const count of [0, 60, 30, 1]) {
      addRows(database, count);
      const found: string[] = [];
      for (let after: GapPosition | undefined, isMore = true; isMore;) {
        const page = await index.gaps("run7", () => true, after, 7);
        found.push(...textOf(page));
        after = page.at(-1)?.position;
        isMore = page.length === 7;
      }
      expect(found.toSorted()).toEqual(textOf(readGaps(directory, "run7")).toSorted());
      const sources = found.map((gap) => gap.split(" ")[0]!);
      expect(sources).toEqual(sources.toSorted());
    }
    reader.close();
    database.close();
  }
});

test("gaps between more accounted ranges and losses than one slice reads are all listed", async () => {
  const directory = temporaryFolder();
  await withStore(directory, () => {});
  const database = new Database(journalPath(directory));
  const numbers = `WITH RECURSIVE numbers (n) AS
    (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 5000)`;
  database.run(`INSERT INTO accounted
    ${numbers} SELECT 'run7', 'visible', '${session}', 3 * n, 3 * n + 1, 0 FROM numbers`);
  database.run(`INSERT INTO losses (stream, source, session, first, last, reason, at)
    ${numbers} SELECT 'run7', 'infrared', '${session}', n, n, 'dropped', 0 FROM numbers`);
  database.close();
  const reader = new JournalReader(journalPath(directory));
  const gaps = await new GapIndex(reader, runAtOnce).gaps("run7", () => true, undefined, 20_000);
  expect(gaps).toHaveLength(10_000);
  expect(textOf(gaps)).toEqual(textOf(readGaps(directory, "run7")));
  reader.close();
});
