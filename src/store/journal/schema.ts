/** Schema of the journal `DIR/.frames/journal.sqlite`, for its writer and its readers. */
import { constants, Database } from "bun:sqlite";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { lstatSync } from "node:fs";
import { FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { FrameDescription, RawShape } from "../../frame.ts";
import { readIdentityFile, writeIdentityFile } from "./identity-file.ts";
import { rowChecks } from "./row-check.ts";

/** A row of `frames`. Times are nanoseconds since 1970. */
export interface FrameRow {
  readonly stream: string;
  readonly source: string;
  readonly name: string;
  readonly session: string;
  readonly seq: number;
  readonly bytes: number;
  readonly crc32: number;
  readonly captured: bigint;
  readonly received: bigint;
  /** Name of the key that its sender proved. */
  readonly key: string | null;
  readonly meta: string | null;
  readonly format: string | null;
  /** For a picture of encoded video: 1 for a key frame, otherwise 0. */
  readonly is_key: number | null;
}

/** Returns the columns of a row that differ between the frames of a source. */
export function frameFacts(frame: FrameDescription, crc32: number, received: bigint) {
  const { name, sequence: seq, size: bytes, captured, metadata } = frame;
  const meta = metadata === "" ? null : metadata;
  return { name, seq, bytes, crc32, captured, received, meta, is_key: keyColumn(frame) };
}

/** Returns the value of the column `format`. */
export function rawShapeColumn(raw: RawShape | undefined): string | null {
  return raw === undefined ? null : `${raw.width}x${raw.height}.${raw.format}`;
}

/** Returns the value of the column `is_key`. */
export function keyColumn({ isKey }: Pick<FrameDescription, "isKey">): number | null {
  return isKey === undefined ? null : Number(isKey);
}

/** Returns the path of the journal of the store in `directory`. */
export function journalPath(directory: string): string {
  return join(directory, ".frames", "journal.sqlite");
}

export const schema = `
  CREATE TABLE IF NOT EXISTS frames (
    id INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    session TEXT NOT NULL,
    seq INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    captured INTEGER NOT NULL,
    received INTEGER NOT NULL,
    key TEXT,
    meta TEXT,
    format TEXT,
    is_key INTEGER,
    UNIQUE (stream, source, name)
  );
  CREATE INDEX IF NOT EXISTS frames_by_time ON frames (stream, source, captured, seq);
  CREATE TABLE IF NOT EXISTS losses (
    stream TEXT NOT NULL,
    source TEXT NOT NULL,
    session TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    name TEXT,
    state TEXT
  );
  CREATE INDEX IF NOT EXISTS losses_by_session ON losses (session, source, first);
  CREATE TABLE IF NOT EXISTS replacements (
    partial TEXT PRIMARY KEY,
    stream TEXT NOT NULL,
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    session TEXT NOT NULL,
    seq INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    captured INTEGER NOT NULL,
    received INTEGER NOT NULL,
    key TEXT,
    meta TEXT,
    format TEXT,
    is_key INTEGER
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS folded (
    path TEXT PRIMARY KEY,
    actual TEXT NOT NULL
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS accounted (
    stream TEXT NOT NULL,
    source TEXT NOT NULL,
    session TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (stream, source, session, first)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS sessions (
    session TEXT PRIMARY KEY,
    key TEXT,
    key_id TEXT
  ) WITHOUT ROWID;
  CREATE TRIGGER IF NOT EXISTS begun_sessions AFTER INSERT ON frames
    WHEN NOT EXISTS (SELECT 1 FROM sessions WHERE session = NEW.session)
    BEGIN INSERT INTO sessions (session, key) VALUES (NEW.session, NEW.key); END;
  CREATE TABLE IF NOT EXISTS properties (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS removing (id INTEGER PRIMARY KEY);
  CREATE TABLE IF NOT EXISTS removed (
    id INTEGER PRIMARY KEY,
    path INTEGER NOT NULL UNIQUE,
    bytes INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    captured INTEGER NOT NULL
  );
`;

export function hasTable(database: Database, name: string): boolean {
  return database.query("SELECT 1 FROM sqlite_master WHERE name = ?").get(name) !== null;
}

/**
 * Accounts for all numbers of sessions in a journal that had no table `accounted`. Which of them
 * were never sent is unknown.
 */
const accountOlderSessions = `
  INSERT INTO accounted (stream, source, session, first, last, at)
    SELECT stream, source, session, 0, max(last), max(at) FROM (
      SELECT stream, source, session, seq AS last, received AS at FROM frames
      UNION ALL SELECT stream, source, session, last, at FROM losses
    ) GROUP BY stream, source, session
`;

/**
 * Names the keys of sessions in a journal that had no table `sessions`. From then on the trigger
 * `begun_sessions` does, also for frames that an earlier version stores.
 */
const nameOlderSessions = `
  INSERT OR IGNORE INTO sessions (session, key) SELECT session, key FROM frames ORDER BY id
`;

/**
 * Properties of a whole store. `identity` distinguishes it from other stores. `numbering` changes
 * when the journal is rebuilt, because ids then change. `copy` and `cursor` exist in a copy of a
 * stream; see `copied-stream.ts` and `stream-copy.ts`.
 */
export type PropertyName = "identity" | "numbering" | "copy" | "cursor";

const randomIdSql = "lower(hex(randomblob(16)))";
const addProperties = `INSERT OR IGNORE INTO properties (name, value)
  VALUES ('identity', coalesce(?, ${randomIdSql})), ('numbering', ${randomIdSql})`;

/** Returns a property of the store; undefined if the journal lacks it, or its row is damaged. */
export function readProperty(database: Database, name: PropertyName): string | undefined {
  if (!hasTable(database, "properties")) return undefined;
  const query = database.query<{ value: string }, [string]>(
    "SELECT value FROM properties WHERE name = ?",
  );
  const row = query.get(name);
  return row !== null && rowChecks.properties({ name, ...row }) ? row.value : undefined;
}

/**
 * Creates missing tables and columns, also in journals of earlier versions.
 *
 * @param path of the journal, which keeps the identity that its identity file has
 */
export function prepareTables(database: Database, path: string): void {
  const isOlderJournal = !hasTable(database, "accounted");
  const hasSessions = hasTable(database, "sessions");
  const file = readIdentityFile(path);
  database.transaction(() => {
    database.run(schema);
    if (isOlderJournal) database.run(accountOlderSessions);
    if (!hasSessions) database.run(nameOlderSessions);
    database.run(addProperties, [file.identity ?? null]);
    for (const [table, column, type] of addedColumns) {
      if (hasColumn(database, table, column)) continue;
      database.run(`ALTER TABLE ${table} ADD COLUMN ${column} ${type}`);
    }
    database.run(indexesOfAddedColumns);
  })();
  if (file.identity === undefined) updateIdentityFile(database, path);
}

/** Repeats the properties that identify the store in the identity file. */
export function updateIdentityFile(database: Database, path: string): void {
  const [identity, copy] = [readProperty(database, "identity"), readProperty(database, "copy")];
  writeIdentityFile(path, { ...(identity && { identity }), ...(copy && { copy }) });
}

/** Columns that earlier versions of the journal lack. */
const addedColumns = [
  ["replacements", "key", "TEXT"],
  ["losses", "name", "TEXT"],
  ["losses", "state", "TEXT"],
  ["frames", "is_key", "INTEGER"],
  ["replacements", "is_key", "INTEGER"],
] as const;

export function hasColumn(database: Database, table: string, column: string): boolean {
  const query = database.query("SELECT 1 FROM pragma_table_info(?) WHERE name = ?");
  return query.get(table, column) !== null;
}

/**
 * For losses that the arrival of a frame of the same name may end, and for those it has ended. For
 * pictures of encoded video, in the order of decoding.
 */
const indexesOfAddedColumns = `
  CREATE INDEX IF NOT EXISTS losses_by_name ON losses (stream, source, name)
    WHERE name IS NOT NULL AND state IS NOT 'came';
  CREATE INDEX IF NOT EXISTS losses_ended ON losses (state) WHERE state = 'came';
  CREATE INDEX IF NOT EXISTS video_frames ON frames (session, source, is_key, seq)
    WHERE is_key IS NOT NULL`;

/** Columns that are written to `frames`, and a placeholder for each. */
export const frameColumns =
  "stream, source, name, session, seq, bytes, crc32, captured, received, key, meta, format, is_key";
export const framePlaceholders = frameColumns.replace(/\w+/g, "?");

/** Returns the values of a row in the order of `frameColumns`. */
export function frameValues(row: FrameRow) {
  const { stream, source, name, session, seq, bytes, crc32, captured, received } = row;
  const { key, meta, format, is_key } = row;
  return [
    stream,
    source,
    name,
    session,
    seq,
    bytes,
    crc32,
    captured,
    received,
    key,
    meta,
    format,
    is_key,
  ] as const;
}

/** Returns whether an error says that a journal is no database, or a damaged one. */
export function isMalformed(error: unknown): boolean {
  return /^SQLITE_(?:CORRUPT|NOTADB)/.test(systemCode(error) ?? "");
}

/** Creates the error `store` for a failed operation on the journal at `path`. */
export function journalError(action: "open" | "read" | "write", path: string, error: unknown) {
  if (error instanceof FramesError) return error;
  const hint = isMalformed(error) ? "; run frames verify DIR --repair to make a new one" : "";
  return new FramesError(
    "store",
    `Cannot ${action} the journal ${path}: ${systemSentence(error)}${hint}`,
    { cause: error },
  );
}

/**
 * Opens a journal for reading while another process may write it.
 *
 * @throws {FramesError} `store` if it is no regular file: a link could lead out of the store, and a
 * pipe would block
 */
export function openReadOnly(path: string): Database {
  if (lstatSync(path, { throwIfNoEntry: false })?.isFile() === false) {
    throw new FramesError("store", `Cannot read the journal ${path}: it is not a file; delete it`);
  }
  const database = new Database(path, { readonly: true });
  try {
    database.query("SELECT 1 FROM frames LIMIT 1").get();
    return database;
  } catch (error) {
    database.close();
    // A reader without write access to the folder cannot open the WAL. Such a journal is read as
    // immutable, which is correct only while no process writes it.
    if (!/^SQLITE_(?:CANTOPEN|READONLY)/.test(systemCode(error) ?? "")) throw error;
    const { SQLITE_OPEN_READONLY, SQLITE_OPEN_URI } = constants;
    const address = `${pathToFileURL(path).href}?immutable=1`;
    return new Database(address, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
  }
}
