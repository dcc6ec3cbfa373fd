// What a spool notes in the names of empty files.

import { expect, test } from "bun:test";
import { readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SpoolNotes } from "../../../src/source/live/spool-notes.ts";
import { temporaryFolder } from "../../helper/program.ts";

const session = "a".repeat(32);

function notesIn(folder: string): SpoolNotes {
  return new SpoolNotes(folder, session);
}

test("notes are there for the next process, until they are forgotten", () => {
  const folder = temporaryFolder();
  const notes = notesIn(folder);
  notes.noteLastNumber(7);
  notes.noteLastNumber(9);
  expect([notes.noteLost({ first: 2, last: 3 }), notes.noteLost({ first: 6, last: 6 })]).toEqual([
    true,
    true,
  ]);
  const next = notesIn(folder);
  expect(next.lastNumber).toBe(9);
  expect(next.lost.toSorted((a, b) => a.first - b.first)).toEqual([
    { first: 2, last: 3 },
    { first: 6, last: 6 },
  ]);
  next.forgetLastNumber();
  next.forgetLost();
  expect([next.lastNumber, next.lost, readdirSync(folder)]).toEqual([0, [], []]);
});

test("lost numbers that follow each other take one file, however many there are", () => {
  const folder = temporaryFolder();
  const notes = notesIn(folder);
  for (let number = 1; number <= 100; number++) {
    notes.noteLost({ first: Math.max(1, number - (number % 3)), last: number });
  }
  notes.noteLost({ first: 40, last: 41 });
  expect(readdirSync(folder)).toEqual([`${session}-1-100.lost`]);
  expect(notesIn(folder).lost).toEqual([{ first: 1, last: 100 }]);
});

test("notes of another session are removed, and other files stay", () => {
  const folder = temporaryFolder();
  const others = ["7", "7.settled", "x.lost", `${session}-0-3.lost`, `${session}-5-4.lost`];
  const stale = [`${"b".repeat(32)}-8.last`, `${"b".repeat(32)}-1-8.lost`];
  for (const name of [...others, ...stale]) writeFileSync(join(folder, name), "");
  const notes = notesIn(folder);
  expect([notes.lastNumber, notes.lost]).toEqual([0, []]);
  expect(readdirSync(folder).sort()).toEqual([...others].sort());
});

test("a note that cannot be written is not counted", () => {
  const notes = notesIn(join(temporaryFolder(), "missing"));
  notes.noteLastNumber(3);
  expect([notes.noteLost({ first: 1, last: 2 }), notes.lastNumber, notes.lost]).toEqual([
    false,
    0,
    [],
  ]);
});

test.skipIf(process.platform === "win32")("a link in place of a note is not followed", () => {
  const folder = temporaryFolder();
  const target = join(temporaryFolder(), "target");
  writeFileSync(target, "precious");
  const notes = notesIn(folder);
  symlinkSync(target, join(folder, `${session}-1-2.lost`));
  expect(notes.noteLost({ first: 1, last: 2 })).toBe(false);
  expect(readFileSync(target, "utf8")).toBe("precious");
});
