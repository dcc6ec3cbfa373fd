// Random damage to the journal of a store, as broken disks leave it: after `--repair` and one
// delivery the store is right, and no verification calls a damaged frame right.
//
// FRAMES_DAMAGES=1000 sets the number of damages, FRAMES_SEED the first seed.
//
// Covers: store/verify/check-journal.ts, store/verify/damaged-journal.ts,
//   store/verify/rebuild-journal.ts, store/journal/row-check.ts, store/journal/identity-file.ts

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import type { DirectoryStore } from "../../../src/store/directory/directory-store.ts";
import {
  checkedColumns,
  rowChecks,
  type UncheckedRow,
} from "../../../src/store/journal/row-check.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { framePath } from "../../../src/store/paths.ts";
import type { Verification } from "../../../src/store/verify/store-verifier.ts";
import { verify } from "../../../src/store/verify/verify-directory.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { session } from "../contract.ts";
import { now, openStore, otherSession } from "../fixture.ts";

interface Sent {
  readonly source: string;
  readonly name: string;
  readonly sequence: number;
  readonly bytes: Uint8Array;
  readonly captured: bigint;
  readonly metadata: string;
}

/** Numbers from 0 to 1 that are the same for the same seed. */
function random(seed: number): () => number {
  let state = seed * 2654435761;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const capture: Sent[] = ["visible", "infrared/left", "run7"].flatMap((source, index) =>
  Array.from({ length: 60 }, (_, number) => ({
    source,
    name: `shot-${index}-${String(number + 1).padStart(4, "0")}.bin`,
    sequence: number + 1,
    bytes: Uint8Array.from({ length: 40 + number }, (_, at) => at * 7 + number + index),
    captured: BigInt(Math.round(now)) * 1_000_000n + BigInt(number) * 1_000_000n,
    metadata: number % 5 === 0 ? `{"exposure":${number}}` : "",
  })),
);

function offerOf({ name, sequence, bytes, captured }: Sent, withChecksum: boolean) {
  const crc = withChecksum ? crc32(bytes) : undefined;
  return { name, sequence, captured, size: bytes.length, crc32: crc };
}

/** Sends the capture as a sender does. Returns the names that were conflicts. */
async function send(store: DirectoryStore, sender: string): Promise<string[]> {
  const conflicts: string[] = [];
  for (const source of new Set(capture.map((frame) => frame.source))) {
    const opened = store.open({ stream: "run7", source, session: sender });
    for (const frame of capture.filter((one) => one.source === source)) {
      let [status] = opened.compare([offerOf(frame, false)]);
      if (status === "needsChecksum") [status] = opened.compare([offerOf(frame, true)]);
      if (status === "conflict") conflicts.push(frame.name);
      if (status !== "wanted") continue;
      const { sequence, captured, metadata } = frame;
      const { name, bytes } = frame;
      const writer = opened.begin({ name, sequence, captured, metadata, size: bytes.length });
      writer.write(frame.bytes.slice());
      expect(await writer.finish(crc32(frame.bytes))).not.toBeInstanceOf(Error);
    }
  }
  await store.flush();
  return conflicts;
}

interface Template {
  readonly folder: string;
  readonly identity: string;
}

/** Makes a store whose journal has everything in it, or much of it still in its WAL. */
async function makeTemplate(hasWal: boolean): Promise<Template> {
  const folder = join(temporaryFolder(), "store");
  const store = openStore(folder);
  expect(await send(store, session)).toEqual([]);
  const opened = store.open({ stream: "run7", source: "visible", session: otherSession });
  opened.recordLoss(3, 5, new FramesError("unreadable"));
  await store.flush();
  const identity = store.journal.property("identity")!;
  if (!hasWal) store.close();
  const copy = join(dirname(folder), "template");
  cpSync(folder, copy, { recursive: true });
  for (const name of ["lock.json", "lock.sqlite", "journal.sqlite-shm"]) {
    rmSync(join(copy, ".frames", name), { force: true });
  }
  if (hasWal) store.close();
  // Two frames were moved away by a consumer.
  for (const name of ["shot-0-0010.bin", "shot-0-0011.bin"])
    rmSync(join(copy, "run7/visible", name));
  return { folder: copy, identity };
}

/** Damages a file with some bits, sectors or a truncation. Returns what was done. */
function damage(path: string, next: () => number): string {
  const bytes = readFileSync(path);
  const at = (limit: number) => Math.floor(next() * limit);
  const kind = at(3);
  if (kind === 0) {
    const bits = Array.from({ length: 1 + at(8) }, () => [at(bytes.length), at(8)] as const);
    for (const [byte, bit] of bits) bytes[byte]! ^= 1 << bit;
    writeFileSync(path, bytes);
    return `bits ${bits.map(([byte, bit]) => `${byte}.${bit}`)}`;
  }
  if (kind === 1) {
    const size = next() < 0.5 ? 512 : 4096;
    const sectors = Array.from({ length: 1 + at(3) }, () => at(bytes.length / size) * size);
    for (const start of sectors) {
      for (let byte = start; byte < Math.min(start + size, bytes.length); byte++) {
        bytes[byte] = start % 1024 === 0 ? 0 : at(256);
      }
    }
    writeFileSync(path, bytes);
    return `sectors of ${size} at ${sectors}`;
  }
  const length = at(bytes.length);
  writeFileSync(path, bytes.subarray(0, length));
  return `cut to ${length} of ${bytes.length}`;
}

function isClean({ missing, damaged, unknown, unchecked }: Verification): boolean {
  return missing + damaged + unknown + unchecked === 0;
}

/** Returns frames with more or less than one row, and rows that do not describe their frame. */
function wrongRows(folder: string): string[] {
  const database = new Database(journalPath(folder), { readonly: true });
  const rows = database
    .query<UncheckedRow, []>(`SELECT ${checkedColumns.frames} FROM frames NOT INDEXED`)
    .safeIntegers(true)
    .all();
  const check = database.query<{ integrity_check: string }, []>("PRAGMA integrity_check").get();
  database.close();
  const wrong = check?.integrity_check === "ok" ? [] : ["integrity"];
  const left = new Map(capture.map((frame) => [`${frame.source} ${frame.name}`, frame]));
  for (const row of rows) {
    const frame = left.get(`${row.source as string} ${row.name as string}`);
    left.delete(`${row.source as string} ${row.name as string}`);
    const isRight =
      frame !== undefined &&
      rowChecks.frames(row) &&
      row.bytes === BigInt(frame.bytes.length) &&
      row.crc32 === BigInt(crc32(frame.bytes));
    if (!isRight) wrong.push(`row ${row.id} ${row.source as string} ${row.name as string}`);
  }
  return [...wrong, ...[...left.keys()].map((name) => `no row of ${name}`)];
}

/** Returns the frames whose files do not have the bytes that were sent. */
function wrongFiles(folder: string): string[] {
  return capture.flatMap(({ source, name, bytes }) => {
    const path = join(folder, framePath("run7", source, name));
    const isMoved = !existsSync(path);
    return isMoved || Buffer.compare(readFileSync(path), bytes) === 0 ? [] : [name];
  });
}

async function tryDamage(template: Template, seed: number): Promise<void> {
  const next = random(seed);
  const folder = join(temporaryFolder(), "store");
  mkdirSync(dirname(folder), { recursive: true });
  cpSync(template.folder, folder, { recursive: true });
  const path = journalPath(folder);
  const targets = [path, `${path}-wal`].filter((file) => existsSync(file) && next() < 0.7);
  if (targets.length === 0) targets.push(path);
  const done = targets.map((file) => `${file.slice(path.length)} ${damage(file, next)}`);
  // In some cases a frame is damaged as well.
  const victim = next() < 0.3 ? capture[Math.floor(next() * capture.length)]! : undefined;
  if (victim !== undefined) {
    const file = join(folder, framePath("run7", victim.source, victim.name));
    if (existsSync(file)) {
      const { atime, mtime } = statSync(file);
      writeFileSync(file, victim.bytes.toReversed());
      utimesSync(file, atime, mtime);
    }
  }
  const context = `seed ${seed}: ${done.join("; ")}; frame ${victim?.name}`;
  const isFaulty = () => wrongFiles(folder).length > 0;
  try {
    const looked = await verify(folder, { ignoreMissing: true }).catch((error: FramesError) => {
      expect(error.code).toBe("store");
    });
    if (looked && isClean(looked) && isFaulty()) throw new Error("verify called it right");
    await verify(folder, { repair: true, ignoreMissing: true });
    const repaired = await verify(folder, { ignoreMissing: true });
    if (isClean(repaired) && isFaulty()) throw new Error("verify called it right after --repair");
    const store = openStore(folder);
    expect(store.journal.property("identity")).toBe(template.identity);
    const conflicts = await send(store, otherSession.replaceAll("f", "e"));
    store.close();
    // A frame whose row and file were both damaged is not replaced, and never called right.
    const faulty = wrongFiles(folder);
    expect(faulty).toEqual(conflicts);
    const sent = await verify(folder, { ignoreMissing: true });
    if (faulty.length === 0) {
      expect(wrongRows(folder)).toEqual([]);
      expect({ ...sent, clean: isClean(sent) }).toMatchObject({ clean: true });
    } else if (isClean(sent)) throw new Error("verify called a conflict right");
  } catch (error) {
    throw new Error(`${context}: ${(error as Error).stack}`, { cause: error });
  } finally {
    rmSync(dirname(folder), { recursive: true, force: true });
  }
}

const damages = Number(process.env["FRAMES_DAMAGES"] ?? 40);
const firstSeed = Number(process.env["FRAMES_SEED"] ?? 1);

test(`after ${damages} random damages of a journal, repair and one delivery make the store right`, async () => {
  const templates = [await makeTemplate(false), await makeTemplate(true)];
  const failures: string[] = [];
  for (let seed = firstSeed; seed < firstSeed + damages; seed++) {
    await tryDamage(templates[seed % 2]!, seed).catch((error: Error) => {
      failures.push(error.message);
    });
  }
  expect(failures).toEqual([]);
});
