/** What a journal looks like, for all who write or read one: `DIR/.frames/journal.sqlite`. */
import { constants, Database } from "bun:sqlite";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { FramesError, systemCode, systemSentence } from "../../errors.ts";

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
  /** Name of the key that it came with. */
  readonly key: string | null;
  readonly meta: string | null;
  readonly format: string | null;
}

/** Path of the journal of the store in `directory`. */
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
    at INTEGER NOT NULL
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
    format TEXT
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

/** Whether a journal has this table. */
export function hasTable(database: Database, name: string): boolean {
  return database.query("SELECT 1 FROM sqlite_master WHERE name = ?").get(name) !== null;
}

/** Numbers of sessions from before journals accounted for them: nobody knows which were never sent. */
const accountOlderSessions = `
  INSERT INTO accounted (stream, source, session, first, last, at)
    SELECT stream, source, session, 0, max(last), max(at) FROM (
      SELECT stream, source, session, seq AS last, received AS at FROM frames
      UNION ALL SELECT stream, source, session, last, at FROM losses
    ) GROUP BY stream, source, session
`;

/**
 * What a journal says of its store as a whole: `identity` tells the store from others, `numbering` the order of
 * its rows from that of a journal that was made anew; a copy of a stream has what `copy.ts` says.
 */
export type PropertyName = "identity" | "numbering" | "copy" | "cursor";

const randomIdSql = "lower(hex(randomblob(16)))";
const addProperties = `INSERT OR IGNORE INTO properties (name, value)
  VALUES ('identity', ${randomIdSql}), ('numbering', ${randomIdSql})`;

/** A property of the store, if the journal has it. */
export function readProperty(database: Database, name: PropertyName): string | undefined {
  if (!hasTable(database, "properties")) return undefined;
  const query = database.query<{ value: string }, [string]>(
    "SELECT value FROM properties WHERE name = ?",
  );
  return query.get(name)?.value;
}

/** Makes the tables, and adds what journals had not from the beginning. */
export function prepareTables(database: Database): void {
  const isOlderJournal = !hasTable(database, "accounted");
  database.transaction(() => {
    database.run(schema);
    if (isOlderJournal) database.run(accountOlderSessions);
    database.run(addProperties);
  })();
  const replacementColumns = database
    .query<{ name: string }, []>("PRAGMA table_info(replacements)")
    .all();
  if (replacementColumns.some(({ name }) => name === "key")) return;
  database.run("ALTER TABLE replacements ADD COLUMN key TEXT");
}

/** Columns of `frames` that are written, and a place for the value of each. */
export const frameColumns =
  "stream, source, name, session, seq, bytes, crc32, captured, received, key, meta, format";
export const framePlaceholders = frameColumns.replace(/\w+/g, "?");

/** The values of a row, in the order of `columns`. */
export function frameValues(row: FrameRow) {
  const { stream, source, name, session, seq, bytes, crc32, captured, received } = row;
  const { key, meta, format } = row;
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
  ] as const;
}

/** SQLite's codes for a file that is no journal, or a damaged one. */
const malformedCodes = new Set(["SQLITE_CORRUPT", "SQLITE_NOTADB"]);

/** Whether SQLite says that a journal is malformed. */
export function isMalformed(error: unknown): boolean {
  return malformedCodes.has(systemCode(error) ?? "");
}

/** What SQLite says of the journal at `path`, and what to do about it. */
export function journalError(action: "open" | "read" | "write", path: string, error: unknown) {
  const hint = isMalformed(error) ? "; frames verify DIR --repair makes a new one" : "";
  return new FramesError(
    "store",
    `Cannot ${action} the journal ${path}: ${systemSentence(error)}${hint}`,
    { cause: error },
  );
}

/** Opens a journal beside the process that writes it. */
export function openReadOnly(path: string): Database {
  const database = new Database(path, { readonly: true });
  try {
    database.query("SELECT 1 FROM frames LIMIT 1").get();
    return database;
  } catch {
    // Whoever may not write beside the journal cannot read it through its log: it must be at rest.
    database.close();
    const { SQLITE_OPEN_READONLY, SQLITE_OPEN_URI } = constants;
    const address = `${pathToFileURL(path).href}?immutable=1`;
    return new Database(address, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
  }
}
