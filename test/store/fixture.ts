// Stores in directories as the tests here open them, and what can be seen of them from outside.

import { Database } from "bun:sqlite";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError } from "../../src/errors.ts";
import type {
  FrameDescription,
  SourceInfo,
  FrameStore,
  OfferedFrame,
  Outcome,
  SourceStore,
} from "../../src/frame.ts";
import {
  DirectoryStore,
  type DirectoryStoreOptions,
} from "../../src/store/directory/directory-store.ts";
import { journalPath } from "../../src/store/journal/schema.ts";
import { describeFrame, session } from "./contract.ts";

/** What the wall clock says in these tests, in milliseconds since 1970. */
export const now = 1_795_331_523_123.456;

/** Another session than most have. */
export const otherSession: string = "f".repeat(32);

/** Opens a store; how full the disk of this machine is decides nothing, unless `options` say so. */
export function openStore(
  directory: string,
  options: Partial<DirectoryStoreOptions> = {},
): DirectoryStore {
  const usual = { portableNames: false, reserve: 0, clock: () => now };
  return new DirectoryStore(directory, { ...usual, ...options });
}

/** Runs `act` with a store that is closed afterwards. */
export async function withStore<T>(
  directory: string,
  act: (store: DirectoryStore) => T | Promise<T>,
  options: Partial<DirectoryStoreOptions> = {},
): Promise<T> {
  const store = openStore(directory, options);
  try {
    return await act(store);
  } finally {
    store.close();
  }
}

/** Opens the source `visible` of `run7`. */
export function openVisible(store: FrameStore, more: Partial<SourceInfo> = {}): SourceStore {
  return store.open({ stream: "run7", source: "visible", session, ...more });
}

/** Path of a frame of `run7/visible`. */
export function pathOf(directory: string, name: string): string {
  return join(directory, "run7/visible", name);
}

/** Hands a frame over, and waits for nothing. */
export function put(
  source: SourceStore,
  name: string,
  bytes: Uint8Array,
  more: Partial<FrameDescription> = {},
): Outcome | Promise<Outcome> {
  const writer = source.begin(describeFrame(name, bytes.length, more));
  writer.write(bytes.slice());
  const outcome = writer.finish(crc32(bytes));
  // Whoever gets it hears of it, but perhaps only after other things were looked at.
  if (outcome instanceof Promise) outcome.catch(() => {});
  return outcome;
}

/** Hands frames over and flushes: what became of each, or the code of what it failed with. */
export async function putAll(
  store: FrameStore,
  source: SourceStore,
  frames: Iterable<readonly [name: string, bytes: Uint8Array, more?: Partial<FrameDescription>]>,
): Promise<string[]> {
  const outcomes = [...frames].map(([name, bytes, more]) => put(source, name, bytes, more));
  await store.flush();
  return Promise.all(outcomes.map(codeOf));
}

/** What became of a frame, as one word; `rejected CODE` if all of its batch failed. */
export async function codeOf(outcome: Outcome | Promise<Outcome>): Promise<string> {
  try {
    const settled = await outcome;
    return settled instanceof FramesError ? settled.code : settled;
  } catch (error) {
    return `rejected ${(error as FramesError).code}`;
  }
}

/** The code with which a flush fails. */
export async function flushCode(store: FrameStore): Promise<string | undefined> {
  try {
    await store.flush();
    return undefined;
  } catch (error) {
    if (error instanceof FramesError) return error.code;
    throw error;
  }
}

/** A frame as a sender offers it; with its CRC-32, unless `more` says that it is not known. */
export function offered(
  name: string,
  bytes: Uint8Array,
  more: Partial<OfferedFrame> = {},
): OfferedFrame {
  const { sequence, captured } = describeFrame(name, bytes.length);
  return { name, size: bytes.length, sequence, captured, crc32: crc32(bytes), ...more };
}

/** The same without its CRC-32. */
export function offeredByTime(name: string, bytes: Uint8Array, captured: bigint): OfferedFrame {
  return offered(name, bytes, { captured, crc32: undefined });
}

/** Every file below `directory` that is not hidden or a link, by its path. */
export function filesIn(directory: string): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  const visit = (below: string): void => {
    for (const entry of readdirSync(join(directory, below), { withFileTypes: true })) {
      if (entry.name.startsWith(".")) continue;
      const path = below === "" ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory()) visit(path);
      else if (!entry.isSymbolicLink())
        found.set(path, new Uint8Array(readFileSync(join(directory, path))));
    }
  };
  visit("");
  return found;
}

/** What lies in the folder of unfinished frames. */
export function partials(directory: string): string[] {
  return readdirSync(join(directory, ".frames/partial"));
}

/** Rows of the journal; every integer a bigint. */
export function rows<T>(directory: string, sql: string): T[] {
  const options = { readonly: true, safeIntegers: true };
  const database = new Database(journalPath(directory), options);
  try {
    return database.query<T, []>(sql).all();
  } finally {
    database.close();
  }
}

/** Changes the journal through a connection of its own. */
export function alter(directory: string, sql: string): void {
  const database = new Database(journalPath(directory));
  database.run(sql);
  database.close();
}

/** Names of the frames in the journal, in the order in which they came. */
export function names(directory: string): string[] {
  const found = rows<{ name: string }>(directory, "SELECT name FROM frames ORDER BY id");
  return found.map(({ name }) => name);
}

/** Frames whose row is not that of their file, as text; a file that is gone is no fault. */
export function mismatches(directory: string): string[] {
  type Row = { stream: string; source: string; name: string; bytes: bigint; crc32: bigint };
  const files = filesIn(directory);
  const wrong: string[] = [];
  for (const row of rows<Row>(directory, "SELECT * FROM frames")) {
    const folder = row.source === row.stream ? row.stream : `${row.stream}/${row.source}`;
    const bytes = files.get(`${folder}/${row.name}`);
    if (bytes === undefined) continue;
    if (BigInt(bytes.length) === row.bytes && BigInt(crc32(bytes)) === row.crc32) continue;
    wrong.push(`${folder}/${row.name} has not the bytes of its row`);
  }
  return wrong;
}
