// What a rebuilt journal keeps, and what it says about frames whose rows could not be read.

import { expect, test } from "bun:test";
import {
  lstatSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { DirectoryStore } from "../../../src/store/directory/directory-store.ts";
import { StreamCopy } from "../../../src/store/directory/stream-copy.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { isJournalReadable } from "../../../src/store/verify/check-journal.ts";
import type { Finding } from "../../../src/store/verify/store-verifier.ts";
import { verify } from "../../../src/store/verify/verify-directory.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { SystemFaults } from "../../helper/system-faults.ts";
import { bytesOf, describeFrame, outcomeCode, session, storeFrame } from "../contract.ts";
import {
  alter,
  names,
  offered,
  offeredByTime,
  openVisible,
  otherSession,
  pathOf,
  putAll,
  rows,
  withStore,
} from "../fixture.ts";

const captured = 1_795_331_523_123_456_789n;
const bytes = bytesOf(300);

/** Stores `count` frames `1.png` and so on. */
async function storeFrames(store: DirectoryStore, count: number): Promise<void> {
  const frames = Array.from({ length: count }, (_, index) => {
    return [`${index + 1}.png`, bytes, { sequence: index + 1, captured }] as const;
  });
  await putAll(store, openVisible(store), frames);
}

async function storeOf(count: number): Promise<string> {
  const directory = temporaryFolder();
  await withStore(directory, (store) => storeFrames(store, count));
  return directory;
}

/** Overwrites the header of the journal, so that no row can be read. */
function destroyJournal(directory: string): void {
  const path = journalPath(directory);
  const journal = readFileSync(path);
  journal.fill(0x5a, 0, 100);
  writeFileSync(path, journal);
}

/** Changes the bytes of a file, and neither its size nor its time. */
function damageFrame(path: string): void {
  const { atime, mtime } = statSync(path);
  writeFileSync(path, readFileSync(path).reverse());
  utimesSync(path, atime, mtime);
}

function identityOf(directory: string): string {
  const query = "SELECT value FROM properties WHERE name = 'identity'";
  return rows<{ value: string }>(directory, query)[0]!.value;
}

test("a frame that was damaged before its journal was rebuilt is not called right, and conflicts when it is sent", async () => {
  const directory = await storeOf(3);
  damageFrame(pathOf(directory, "2.png"));
  destroyJournal(directory);
  await verify(directory, { repair: true });
  expect(await verify(directory)).toMatchObject({ unchecked: 3, damaged: 0 });
  await withStore(directory, async (store) => {
    const source = openVisible(store, { session: otherSession });
    const byTime = ["1.png", "2.png"].map((name) => offeredByTime(name, bytes, captured));
    expect(source.compare(byTime)).toEqual(["needsChecksum", "needsChecksum"]);
    const bySum = ["1.png", "2.png"].map((name) => offered(name, bytes, { captured }));
    expect(source.compare(bySum)).toEqual(["stored", "conflict"]);
    // A frame that is sent without an offer is compared too.
    expect(outcomeCode(await storeFrame(source, "3.png", bytes, { captured }))).toBe("present");
    expect(outcomeCode(await storeFrame(source, "2.png", bytes, { captured }))).toBe("conflict");
    await store.flush();
  });
  expect(await verify(directory)).toMatchObject({ unchecked: 1, damaged: 0 });
  const sessions = rows<{ session: string }>(directory, "SELECT session FROM frames ORDER BY name");
  expect(sessions.map((row) => row.session)).toEqual([otherSession, "0".repeat(32), otherSession]);
});

test("a journal on a part of the disk that cannot be read is not readable", async () => {
  const directory = await storeOf(3);
  const path = journalPath(directory);
  using faults = new SystemFaults();
  faults.decide = (call) => (call === "readSync" ? "EIO" : undefined);
  expect(faults.within(() => isJournalReadable(path))).toBe(false);
  faults.decide = undefined;
  expect(isJournalReadable(path)).toBe(true);
});

test.skipIf(process.platform === "win32")(
  "a journal that was replaced by a link is rebuilt from the files",
  async () => {
    const directory = await storeOf(3);
    const path = journalPath(directory);
    rmSync(path);
    symlinkSync("/proc/self/mem", path);
    await expect(verify(directory)).rejects.toThrow("damaged or missing");
    expect(await verify(directory, { repair: true })).toMatchObject({ rebuilt: 3, unchecked: 3 });
    expect(lstatSync(path).isFile()).toBe(true);
  },
);

test("an unchecked frame that is replaced on purpose is checked", async () => {
  const directory = await storeOf(1);
  damageFrame(pathOf(directory, "1.png"));
  destroyJournal(directory);
  await verify(directory, { repair: true });
  await withStore(directory, async (store) => {
    const source = openVisible(store, { session: otherSession, conflict: "replace" });
    expect(await putAll(store, source, [["1.png", bytes, { captured }]])).toEqual(["stored"]);
  });
  expect(await verify(directory)).toMatchObject({ unchecked: 0, damaged: 0, missing: 0 });
});

test("a store whose journal is rebuilt keeps its identity, also if no row can be read", async () => {
  const directory = await storeOf(2);
  const identity = identityOf(directory);
  destroyJournal(directory);
  await verify(directory, { repair: true });
  expect(identityOf(directory)).toBe(identity);
  // One bit in the identity itself is noticed, and undone.
  const flipped = identity.replace(/[0-9]/, (digit) => String(Number(digit) ^ 1));
  alter(directory, `UPDATE properties SET value = '${flipped}' WHERE name = 'identity'`);
  await expect(verify(directory)).rejects.toThrow("damaged or missing");
  await verify(directory, { repair: true });
  expect(identityOf(directory)).toBe(identity);
});

test("a copy whose journal is rebuilt stays a copy of the same stream", async () => {
  const directory = temporaryFolder();
  const copy = new StreamCopy(directory, { stream: "run7" }, true);
  copy.onConnected("original", "a store", true);
  const source = copy.open({ stream: "run7", source: "visible", session, isCopy: true });
  expect(await storeFrame(source, "1.png", bytes, { captured })).toBe("stored");
  await copy.flush();
  copy.close();
  destroyJournal(directory);
  await verify(directory, { repair: true });
  const sources = rows<{ stream: string; source: string }>(
    directory,
    "SELECT stream, source FROM frames",
  );
  expect(sources).toEqual([{ stream: "run7", source: "visible" }]);
  const again = new StreamCopy(directory, { stream: "run7" }, true);
  expect(() => again.onConnected("original", "a store", true)).not.toThrow();
  expect(() => again.onConnected("another", "a store", true)).toThrow("from another store");
  again.close();
});

test("rows on both sides of a damaged page are kept, also of frames that were moved away", async () => {
  const directory = await storeOf(400);
  for (const name of ["1.png", "400.png"]) rmSync(pathOf(directory, name));
  const path = journalPath(directory);
  const journal = readFileSync(path);
  const pageSize = journal.readUInt16BE(16);
  // Two leaf pages of the table `frames`, which hold names without an order of the index.
  const leaves = Array.from({ length: journal.length / pageSize }, (_, page) => page).filter(
    (page) => page > 0 && journal[page * pageSize] === 0x0d && holds(journal, page, pageSize),
  );
  expect(leaves.length).toBeGreaterThan(6);
  for (const page of [leaves[2]!, leaves[4]!])
    journal.fill(0, page * pageSize, (page + 1) * pageSize);
  writeFileSync(path, journal);
  await verify(directory, { repair: true });
  const kept = rows<{ name: string; session: string }>(directory, "SELECT * FROM frames");
  expect(kept).toHaveLength(400);
  const fromFiles = kept.filter((row) => row.session !== session);
  expect(fromFiles.length).toBeGreaterThan(10);
  expect(fromFiles.length).toBeLessThan(150);
  expect(await verify(directory)).toMatchObject({ missing: 2, unchecked: fromFiles.length });
});

function holds(journal: Buffer, page: number, pageSize: number): boolean {
  return journal.subarray(page * pageSize, (page + 1) * pageSize).includes("visible");
}

/** Damage inside rows that SQLite reads without an error, and that no index notices. */
const damagedValues: [column: string, value: string][] = [
  ["session", "'not hexadecimal'"],
  ["meta", `'{"exposure":'`],
  ["meta", "'[1]'"],
  ["format", "'640y512.gray16le'"],
  ["crc32", "4294967296"],
  ["bytes", "-1"],
  ["bytes", "x'00'"],
  ["received", "'yesterday'"],
];
for (const [column, value] of damagedValues) {
  test(`a row with ${value} as ${column} is noticed, and repaired without doubt about the frame`, async () => {
    const directory = await storeOf(3);
    alter(directory, `UPDATE frames SET ${column} = ${value} WHERE name = '2.png'`);
    const findings: Finding[] = [];
    const found = await verify(directory, { onFinding: (finding) => findings.push(finding) });
    // The other frames are verified all the same.
    expect(found).toMatchObject({ frames: 2, damaged: 1, missing: 0, unknown: 0 });
    expect(findings).toMatchObject([{ kind: "damaged", what: "row 2 of the table frames" }]);
    await verify(directory, { repair: true });
    const isSumKept = column !== "crc32" && column !== "bytes";
    expect(await verify(directory)).toMatchObject({ frames: 3, unchecked: isSumKept ? 0 : 1 });
  });
}

for (const [table, change] of [
  ["losses", "INSERT INTO losses VALUES ('run7', 'visible', '', 9, 3, 'dropped', 0, NULL, NULL)"],
  ["losses", "INSERT INTO losses VALUES ('..', 'visible', '', 3, 9, 'dropped', 0, NULL, NULL)"],
  ["accounted", "INSERT INTO accounted VALUES ('run7', 'visible', 'x', 1, 2, 0)"],
  ["removed", "INSERT INTO removed VALUES (1, 5, -1, 0, 0)"],
  ["removing", "INSERT INTO removing VALUES (-5)"],
  ["properties", "UPDATE properties SET value = '7' WHERE name = 'numbering'"],
  ["properties", "INSERT INTO properties VALUES ('cursor', '{')"],
] as const) {
  test(`a damaged row of the table ${table} is noticed and left out: ${change.slice(0, 60)}`, async () => {
    const directory = await storeOf(2);
    alter(directory, change);
    const findings: string[] = [];
    const found = await verify(directory, { onFinding: ({ what }) => findings.push(what) });
    expect(found).toMatchObject({ frames: 2, damaged: 1 });
    expect(findings).toEqual([
      expect.stringMatching(new RegExp(`^row -?\\d+ of the table ${table}$`)),
    ]);
    expect(await verify(directory, { repair: true })).toMatchObject({ rebuilt: 2, lost: 0 });
    expect(await verify(directory)).toMatchObject({ frames: 2, unchecked: 0 });
  });
}

test("a name that a damaged row takes from another frame stays with the frame that fits it", async () => {
  const directory = await storeOf(3);
  const other = bytesOf(200, 5);
  await withStore(directory, (store) => putAll(store, openVisible(store), [["4.png", other]]));
  // As one bit in the table does, while the index keeps the right name.
  const path = journalPath(directory);
  const journal = readFileSync(path);
  const at = journal.indexOf("run7visible1.png");
  journal.write("4", at + "run7visible".length);
  writeFileSync(path, journal);
  await verify(directory, { repair: true });
  expect(names(directory).sort()).toEqual(["1.png", "2.png", "3.png", "4.png"]);
  expect(await verify(directory)).toMatchObject({ damaged: 0, unchecked: 0, missing: 0 });
});

test("a frame that was being replaced when the server was killed is not damaged", async () => {
  const directory = await storeOf(2);
  const next = bytesOf(200, 9);
  await withStore(directory, async (store) => {
    const row = { ...rows<object>(directory, "SELECT * FROM frames WHERE name = '2.png'")[0] };
    const frame = describeFrame("2.png", next.length, { captured });
    const sum = Bun.hash.crc32(next);
    const replaced = { ...row, bytes: next.length, crc32: sum, seq: 9, captured: frame.captured };
    store.journal.addReplacement({ row: replaced as never, partial: "1" });
    store.journal.flush();
  });
  writeFileSync(join(directory, "new"), next);
  renameSync(join(directory, "new"), pathOf(directory, "2.png"));
  expect(await verify(directory)).toMatchObject({ damaged: 0 });
  expect(await verify(directory, { repair: true })).toMatchObject({ damaged: 0 });
  // Rebuilding ends the replacement.
  alter(directory, "UPDATE frames SET meta = '{' WHERE name = '1.png'");
  await verify(directory, { repair: true });
  expect(await verify(directory)).toMatchObject({ damaged: 0, unchecked: 0 });
  expect(rows(directory, "SELECT seq FROM frames WHERE name = '2.png'")).toEqual([{ seq: 9n }]);
});

test("a frame whose removal was begun does not come back when the journal is rebuilt", async () => {
  const directory = await storeOf(3);
  alter(directory, "INSERT INTO removing SELECT id FROM frames WHERE name IN ('1.png', '2.png')");
  rmSync(pathOf(directory, "1.png"));
  alter(directory, "UPDATE frames SET meta = '{' WHERE name = '3.png'");
  await verify(directory, { repair: true });
  expect(names(directory).sort()).toEqual(["2.png", "3.png"]);
  await withStore(directory, (store) => {
    const source = openVisible(store, { session: otherSession });
    expect(source.compare([offered("1.png", bytes, { captured })])).toEqual(["removed"]);
  });
});

test("a folder that cannot be read is a finding of its own, and the others are verified", async () => {
  using faults = new SystemFaults();
  const directory = await storeOf(1);
  await withStore(directory, async (store) => {
    await putAll(store, openVisible(store, { source: "infrared" }), [["1.png", bytes]]);
  });
  for (const source of ["visible", "infrared"]) {
    writeFileSync(join(directory, "run7", source, "strange.png"), "x");
  }
  faults.decide = (call, args) =>
    call === "readdirSync" && String(args[0]).endsWith("run7/visible") ? "EACCES" : undefined;
  const found: string[] = [];
  const options = { onFinding: ({ what, why }: Finding) => found.push(`${what}: ${why}`) };
  const result = await faults.within(() => verify(directory, options));
  expect(found.sort()).toEqual([
    "run7/infrared/strange.png: it is not in the journal",
    "run7/visible: the folder cannot be read: permission denied",
  ]);
  expect(result).toMatchObject({ frames: 2, damaged: 0, unknown: 2 });
});

test("pictures of encoded video keep whether they are key frames, and files tell it where rows cannot be read", async () => {
  const directory = temporaryFolder();
  const pictures = { "1.h264": "0000000165", "2.h264": "0000000141", "3.h265": "000000012601" };
  await withStore(directory, async (store) => {
    const frames = Object.entries(pictures).map(([name, hex], index) => {
      const facts = { sequence: index + 1, isKey: name !== "2.h264" };
      return [name, Uint8Array.fromHex(hex), facts] as const;
    });
    await putAll(store, openVisible(store), [...frames, ["4.png", bytes, { sequence: 4 }]]);
  });
  const isKeys = () => rows(directory, "SELECT name, is_key FROM frames ORDER BY name");
  const expected = [
    { name: "1.h264", is_key: 1n },
    { name: "2.h264", is_key: 0n },
    { name: "3.h265", is_key: 1n },
    { name: "4.png", is_key: null },
  ];
  expect(isKeys()).toEqual(expected);
  // The rows can be read, and another table is missing.
  alter(directory, "DROP TABLE losses");
  expect(isJournalReadable(journalPath(directory))).toBe(false);
  await verify(directory, { repair: true });
  expect(isKeys()).toEqual(expected);
  destroyJournal(directory);
  await verify(directory, { repair: true });
  expect(isKeys()).toEqual(expected);
  // A sender that offers its files does not know it.
  await withStore(directory, async (store) => {
    const offers = Object.entries(pictures).map(([name, hex]) => {
      return offered(name, Uint8Array.fromHex(hex));
    });
    const source = openVisible(store, { session: otherSession });
    expect(source.compare(offers)).toEqual(["stored", "stored", "stored"]);
  });
  const confirmed = rows(directory, `SELECT 1 FROM frames WHERE session = '${otherSession}'`);
  expect(confirmed).toHaveLength(3);
  expect(isKeys()).toEqual(expected);
});
