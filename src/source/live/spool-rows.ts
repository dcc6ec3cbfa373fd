/**
 * Tables of a spool, the statements for them, and checks of their rows. The disk may have damaged a row, or another program
 * may have written it.
 */
import type { Database, SQLQueryBindings } from "bun:sqlite";
import {
  isMetadata,
  isNumber,
  isReason,
  isSession,
  isText,
  isTime,
} from "../../common/row-values.ts";
import { type ErrorName, errors } from "../../errors.ts";
import { parseRawShape } from "../image/raw.ts";

export const spoolSchema = `
  CREATE TABLE IF NOT EXISTS session (id TEXT, started INTEGER, stream TEXT);
  CREATE TABLE IF NOT EXISTS counters (source TEXT PRIMARY KEY, last INTEGER) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS frames (
    source TEXT, seq INTEGER, name TEXT, captured INTEGER, size INTEGER, meta TEXT,
    PRIMARY KEY (source, seq)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS shapes (
    source TEXT, seq INTEGER, raw TEXT, PRIMARY KEY (source, seq)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS pictures (
    source TEXT, seq INTEGER, is_key INTEGER, PRIMARY KEY (source, seq)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS losses (
    source TEXT, first INTEGER, last INTEGER, what TEXT, reason TEXT, PRIMARY KEY (source, first)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS ended_sessions (id TEXT PRIMARY KEY) WITHOUT ROWID;
`;

export interface SpooledFrameRow {
  readonly seq: bigint;
  readonly name: string;
  readonly captured: bigint;
  readonly size: bigint;
  readonly meta: string;
  /** Shape of a raw frame, if it has one of its own. */
  readonly raw: string | null;
  /** For a picture of encoded video: 1 for a key frame, otherwise 0. */
  readonly is_key: bigint | null;
}

export interface SpooledLossRow {
  readonly first: bigint;
  readonly last: bigint;
  readonly what: string;
  readonly reason: ErrorName;
}

/** Facts that earlier versions do not know have tables of their own. */
const framesWithFacts =
  "FROM frames LEFT JOIN shapes USING (source, seq) LEFT JOIN pictures USING (source, seq)";

export function prepareSpoolStatements(database: Database) {
  return {
    last: database.query<{ last: bigint }, [string]>("SELECT last FROM counters WHERE source = ?"),
    setLast: database.query<null, [string, number]>(
      "INSERT OR REPLACE INTO counters VALUES (?, ?)",
    ),
    put: database.query<null, [string, number, string, bigint, number, string]>(
      "INSERT OR REPLACE INTO frames VALUES (?, ?, ?, ?, ?, ?)",
    ),
    after: database.query<SpooledFrameRow, [string, number]>(
      `SELECT seq, name, captured, size, meta, raw, is_key ${framesWithFacts}
        WHERE source = ? AND seq > ? ORDER BY seq LIMIT 1`,
    ),
    size: database.query<{ size: bigint }, [string, number]>(
      "SELECT size FROM frames WHERE source = ? AND seq = ?",
    ),
    delete: database.query<null, [string, number]>(
      "DELETE FROM frames WHERE source = ? AND seq = ?",
    ),
    putShape: database.query<null, [string, number, string]>(
      "INSERT OR REPLACE INTO shapes VALUES (?, ?, ?)",
    ),
    deleteShape: database.query<null, [string, number]>(
      "DELETE FROM shapes WHERE source = ? AND seq = ?",
    ),
    putPicture: database.query<null, [string, number, boolean]>(
      "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?)",
    ),
    deletePicture: database.query<null, [string, number]>(
      "DELETE FROM pictures WHERE source = ? AND seq = ?",
    ),
    anyPicture: database.query<unknown, [string]>(
      "SELECT 1 FROM pictures WHERE source = ? LIMIT 1",
    ),
    keyAfter: database.query<{ seq: bigint }, [string, number]>(
      `SELECT seq FROM pictures JOIN frames USING (source, seq)
        WHERE source = ? AND seq > ? AND is_key = 1 ORDER BY seq LIMIT 1`,
    ),
    putLoss: database.query<null, [string, number, number, string, string]>(
      `INSERT INTO losses VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT DO UPDATE SET last = max(last, ?3), what = ?4, reason = ?5`,
    ),
    losses: database.query<SpooledLossRow, [string]>(
      "SELECT first, last, what, reason FROM losses WHERE source = ? ORDER BY first",
    ),
    between: database.query<{ seq: bigint }, [string, number, number]>(
      "SELECT seq FROM frames WHERE source = ? AND seq BETWEEN ? AND ?",
    ),
    pictures: database.query<{ seq: bigint }, [string]>(
      `SELECT seq FROM pictures JOIN frames USING (source, seq) WHERE source = ? ORDER BY seq`,
    ),
    frames: database.query<{ frames: bigint }, [string]>(
      "SELECT count(*) AS frames FROM frames WHERE source = ?",
    ),
  };
}

/** Longest names of a frame and of a source, in bytes (SPEC section 12). */
const maxNameBytes = 255;
const maxSourceBytes = 1024;

type Row = Readonly<Record<string, unknown>>;

/** Checks of the tables that a process cannot go on without. */
const neededRows = {
  session: ({ id, started, stream }: Row) => isSession(id) && isTime(started) && isText(stream),
  counters: ({ source, last }: Row) => isText(source) && isNumber(last, 0n),
};

/** Returns whether a value can be the name of a source, which becomes the name of a folder. */
function isSource(value: unknown): boolean {
  return (
    isText(value) &&
    value !== "" &&
    value.isWellFormed() &&
    Buffer.byteLength(value) <= maxSourceBytes
  );
}

function isRawShape(value: unknown): boolean {
  try {
    return isText(value) && parseRawShape(value) !== undefined;
  } catch {
    return false;
  }
}

function isFrameRow({ source, seq, name, captured, size, meta, raw, is_key }: Row): boolean {
  return (
    isSource(source) &&
    isNumber(seq, 1n) &&
    isText(name) &&
    name.isWellFormed() &&
    Buffer.byteLength(name) <= maxNameBytes &&
    isTime(captured) &&
    isNumber(size, 0n) &&
    (meta === "" || isMetadata(meta)) &&
    (raw === null || isRawShape(raw)) &&
    [null, 0n, 1n].includes(is_key as bigint)
  );
}

function isLossRow({ source, first, last, what, reason }: Row): boolean {
  return (
    isText(source) &&
    isNumber(first, 1n) &&
    isNumber(last, first) &&
    isText(what) &&
    isReason(reason) &&
    Object.hasOwn(errors, reason)
  );
}

/** Damage of a spool. */
interface SpoolDamage {
  /** Table without which the spool cannot be used, if one of its rows is damaged. */
  readonly unusable?: keyof typeof neededRows;
  /** Rows that were deleted, such as `frame 7 of "gate"`. */
  readonly rows: readonly string[];
}

/**
 * Deletes damaged rows of frames and losses. If the number of such a frame is known, it becomes a
 * loss.
 */
export function dropDamagedRows(database: Database): SpoolDamage {
  for (const [table, isRight] of Object.entries(neededRows)) {
    const rows = database.query<Row, []>(`SELECT * FROM ${table}`).all();
    if (!rows.every(isRight)) return { unusable: table as keyof typeof neededRows, rows: [] };
  }
  const frames = findDamaged(database, `SELECT * ${framesWithFacts}`, isFrameRow);
  const losses = findDamaged(database, "SELECT * FROM losses", isLossRow);
  database.transaction(() => {
    for (const { source, seq, name } of frames) {
      database.query("DELETE FROM frames WHERE source IS ? AND seq IS ?").run(source, seq);
      if (!isText(source) || !isNumber(seq, 1n)) continue;
      const reason: ErrorName = "unreadable";
      const what = isText(name) ? name : String(seq);
      database
        .query("INSERT OR REPLACE INTO losses VALUES (?, ?, ?, ?, ?)")
        .run(source, seq, seq, what, reason);
    }
    for (const { source, first } of losses) {
      database.query("DELETE FROM losses WHERE source IS ? AND first IS ?").run(source, first);
    }
  })();
  const describe = (kind: string, number: unknown, source: unknown) =>
    `${kind} ${String(number)} of ${JSON.stringify(String(source))}`;
  return {
    rows: [
      ...frames.map(({ source, seq }) => describe("frame", seq, source)),
      ...losses.map(({ source, first }) => describe("loss", first, source)),
    ],
  };
}

type DamagedRow = Readonly<Record<"source" | "seq" | "first" | "name", SQLQueryBindings>>;

function findDamaged(
  database: Database,
  query: string,
  isRight: (row: Row) => boolean,
): DamagedRow[] {
  const damaged: DamagedRow[] = [];
  for (const row of database.query<Row, []>(query).iterate()) {
    if (!isRight(row)) damaged.push(row as unknown as DamagedRow);
  }
  return damaged;
}
