// Opens stores in directories for tests, and inspects them from outside.

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

/** Wall clock of these tests, in milliseconds since 1970. */
export const now = 1_795_331_523_123.456;

/** A session other than the default. */
export const otherSession: string = "f".repeat(32);

/** Opens a store. Ignores the free space of the real disk unless `options` include it. */
export function openStore(
  directory: string,
  options: Partial<DirectoryStoreOptions> = {},
): DirectoryStore {
  const usual = { portableNames: false, reserve: 0, clock: () => now };
  return new DirectoryStore(directory, { ...usual, ...options });
}

/** Runs `act` with a store and closes it afterwards. */
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

/** Returns the path of a frame of `run7/visible`. */
export function pathOf(directory: string, name: string): string {
  return join(directory, "run7/visible", name);
}

/** Writes a frame without waiting for its outcome. */
export function put(
  source: SourceStore,
  name: string,
  bytes: Uint8Array,
  more: Partial<FrameDescription> = {},
): Outcome | Promise<Outcome> {
  const writer = source.begin(describeFrame(name, bytes.length, more));
  writer.write(bytes.slice());
  const outcome = writer.finish(crc32(bytes));
  // Avoids an unhandled rejection, because the test may await the promise later.
  if (outcome instanceof Promise) outcome.catch(() => {});
  return outcome;
}

/** Writes frames and flushes. Returns each outcome, or the code of its error. */
export async function putAll(
  store: FrameStore,
  source: SourceStore,
  frames: Iterable<readonly [name: string, bytes: Uint8Array, more?: Partial<FrameDescription>]>,
): Promise<string[]> {
  const outcomes = [...frames].map(([name, bytes, more]) => put(source, name, bytes, more));
  await store.flush();
  return Promise.all(outcomes.map(codeOf));
}

/** Returns an outcome as one word, or `rejected CODE` if its whole batch failed. */
export async function codeOf(outcome: Outcome | Promise<Outcome>): Promise<string> {
  try {
    const settled = await outcome;
    return settled instanceof FramesError ? settled.code : settled;
  } catch (error) {
    return `rejected ${(error as FramesError).code}`;
  }
}

/** Returns the code with which a flush fails. */
export async function flushCode(store: FrameStore): Promise<string | undefined> {
  try {
    await store.flush();
    return undefined;
  } catch (error) {
    if (error instanceof FramesError) return error.code;
    throw error;
  }
}

/** Returns the offer of a frame, with its CRC-32 unless `more` overrides that. */
export function offered(
  name: string,
  bytes: Uint8Array,
  more: Partial<OfferedFrame> = {},
): OfferedFrame {
  const { sequence, captured } = describeFrame(name, bytes.length);
  return { name, size: bytes.length, sequence, captured, crc32: crc32(bytes), ...more };
}

/** Returns the offer of a frame without its CRC-32. */
export function offeredByTime(name: string, bytes: Uint8Array, captured: bigint): OfferedFrame {
  return offered(name, bytes, { captured, crc32: undefined });
}

/** Returns every file below `directory` by path, except hidden files and links. */
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

/** Returns the names in the folder of unfinished frames. */
export function partials(directory: string): string[] {
  return readdirSync(join(directory, ".frames/partial"));
}

/** Returns rows of the journal with every integer as a bigint. */
export function rows<T>(directory: string, sql: string): T[] {
  const options = { readonly: true, safeIntegers: true };
  const database = new Database(journalPath(directory), options);
  try {
    return database.query<T, []>(sql).all();
  } finally {
    database.close();
  }
}

/** Changes the journal through a separate connection. */
export function alter(directory: string, sql: string): void {
  const database = new Database(journalPath(directory));
  database.run(sql);
  database.close();
}

/** Returns the names of the frames in the journal, in the order of storing. */
export function names(directory: string): string[] {
  const found = rows<{ name: string }>(directory, "SELECT name FROM frames ORDER BY id");
  return found.map(({ name }) => name);
}

/** Returns frames whose row does not match their file, as text. Missing files are allowed. */
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
