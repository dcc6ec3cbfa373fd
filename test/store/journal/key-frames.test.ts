// Key frames of encoded video in the journal, and the pictures that a decoder needs.

import { expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Journal } from "../../../src/store/journal/journal.ts";
import { JournalReader, maxGroupFrames } from "../../../src/store/journal/journal-reader.ts";
import { type FrameRow, journalPath } from "../../../src/store/journal/schema.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { bytesOf, session } from "../contract.ts";
import { alter, openVisible, otherSession, putAll, rows, withStore } from "../fixture.ts";

const visible = { stream: "run7", source: "visible", session };

/** Stores pictures with numbers from 1: `K` is a key frame, `d` another picture, a dot a hole. */
async function storePictures(directory: string, pictures: string, of = session): Promise<void> {
  await withStore(directory, async (store) => {
    const source = openVisible(store, { session: of });
    const frames = [...pictures].flatMap((letter, index) => {
      const sequence = index + 1;
      const name = `${of.slice(0, 2)}-${sequence}.h264`;
      const facts = { sequence, captured: BigInt(sequence), isKey: letter === "K" };
      return letter === "." ? [] : [[name, bytesOf(10), facts] as const];
    });
    await putAll(store, source, frames);
  });
}

function withReader<T>(directory: string, act: (reader: JournalReader) => T): T {
  const reader = new JournalReader(journalPath(directory));
  try {
    return act(reader);
  } finally {
    reader.close();
  }
}

/** Returns the numbers of the key frame and of the group up to a picture. */
function groupOf(directory: string, sequence: number, of = session) {
  const picture = { ...visible, session: of, sequence };
  return withReader(directory, (reader) => [
    reader.keyFrameBefore(picture)?.sequence,
    reader.groupUpTo(picture).map((frame) => frame.sequence),
  ]);
}

test("the group of a picture begins with the key frame before it, in its session", async () => {
  const directory = temporaryFolder();
  await storePictures(directory, "ddKdd.dKdK");
  await storePictures(directory, "dKdddddddd", otherSession);
  expect(groupOf(directory, 7)).toEqual([3, [3, 4, 5, 7]]);
  expect(groupOf(directory, 8)).toEqual([8, [8]]);
  expect(groupOf(directory, 2)).toEqual([undefined, []]);
  expect(groupOf(directory, 9, otherSession)).toEqual([2, [2, 3, 4, 5, 6, 7, 8, 9]]);
});

test("frames that are no encoded video have no key frame", async () => {
  const directory = temporaryFolder();
  await withStore(directory, (store) => putAll(store, openVisible(store), [["a.png", bytesOf(9)]]));
  expect(groupOf(directory, 1)).toEqual([undefined, []]);
  withReader(directory, (reader) => {
    expect(reader.newest("run7", "visible")).toMatchObject({ name: "a.png", isKey: undefined });
  });
});

test("a group of too many pictures is refused with the distance, and one of the limit is not", () => {
  const directory = temporaryFolder();
  withJournal(directory, (journal) => {
    for (let seq = 1; seq <= maxGroupFrames + 1; seq++) journal.addFrame(pictureRow(seq));
  });
  expect(groupOf(directory, maxGroupFrames)[1]).toHaveLength(maxGroupFrames);
  expect(() => groupOf(directory, maxGroupFrames + 1)).toThrow(
    `Cannot decode frame ${maxGroupFrames + 1} of visible: the key frame before it is ${maxGroupFrames} frames away; let the camera send key frames more often`,
  );
});

test("key frames are found without reading the pictures of a stream", () => {
  const directory = temporaryFolder();
  withJournal(directory, (journal) => journal.addFrame(pictureRow(1)));
  const plan = rows(
    directory,
    `EXPLAIN QUERY PLAN SELECT * FROM frames WHERE +stream = 'run7' AND source = 'visible'
      AND session = '${session}' AND is_key = 1 AND seq <= 5 ORDER BY seq DESC LIMIT 1`,
  );
  expect(JSON.stringify(plan, ["detail"])).toBe(
    '[{"detail":"SEARCH frames USING INDEX video_frames (session=? AND source=? AND is_key=? AND seq<?)"}]',
  );
});

test("a journal of an earlier version has no key frames until a server opens it", async () => {
  const directory = temporaryFolder();
  await storePictures(directory, "Kd");
  alter(directory, "DROP INDEX video_frames");
  for (const table of ["frames", "replacements"]) {
    alter(directory, `ALTER TABLE ${table} DROP COLUMN is_key`);
  }
  expect(groupOf(directory, 2)).toEqual([undefined, []]);
  withReader(directory, (reader) => {
    const isKeys = reader.allAfter(0, 10).map(({ isKey }) => isKey);
    expect(isKeys).toEqual([undefined, undefined]);
    // A server adds the column while this reader is open.
    withJournal(directory, (journal) => journal.addFrame(pictureRow(3, 1)));
    expect(reader.keyFrameBefore({ ...visible, sequence: 9 })?.sequence).toBe(3);
  });
});

test("a row with another value than yes or no is damaged", async () => {
  const directory = temporaryFolder();
  await storePictures(directory, "Kd");
  alter(directory, "UPDATE frames SET is_key = 7 WHERE seq = 2");
  withReader(directory, (reader) => {
    expect(reader.allAfter(0, 10).map(({ isDamaged = false }) => isDamaged)).toEqual([false, true]);
  });
});

test("an unfinished replacement keeps whether its picture is a key frame", async () => {
  const directory = temporaryFolder();
  withJournal(directory, (journal) => {
    journal.addReplacement({ row: pictureRow(1, 1), partial: "1" });
    journal.endReplacement(journal.unfinishedReplacements()[0]!, true);
  });
  expect(rows(directory, "SELECT is_key FROM frames")).toEqual([{ is_key: 1n }]);
});

function withJournal(directory: string, act: (journal: Journal) => void): void {
  mkdirSync(join(directory, ".frames"), { recursive: true });
  const journal = new Journal(journalPath(directory));
  act(journal);
  journal.close();
}

/** Returns the row of a picture of the stream. The first one is a key frame by default. */
function pictureRow(seq: number, is_key = Number(seq === 1)): FrameRow {
  return {
    ...{ ...visible, name: `${seq}.h264`, seq, bytes: 1, crc32: 2, captured: BigInt(seq) },
    ...{ received: 1n, key: null, meta: null, format: null, is_key },
  };
}
