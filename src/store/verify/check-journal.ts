/** Decides whether a journal can be trusted: its pages and its indexes, and then each of its rows. */
import type { Database } from "bun:sqlite";
import { closeSync, openSync, readSync } from "node:fs";
import { openFlags } from "../../common/open-flags.ts";
import { systemCode } from "../../errors.ts";
import { readIdentityFile } from "../journal/identity-file.ts";
import { checkedColumns, rowChecks, type UncheckedRow } from "../journal/row-check.ts";
import { hasTable, isMalformed, journalError, openReadOnly } from "../journal/schema.ts";

/**
 * Returns whether the journal is a valid database with the expected tables, whose indexes agree
 * with them. Single rows may be damaged.
 *
 * @throws {FramesError} `store` if it cannot be read
 */
export function isJournalReadable(path: string): boolean {
  let journal: Database | undefined;
  try {
    if (!hasValidHeader(path)) return false;
    journal = openReadOnly(path);
    // Unlike `quick_check`, this holds indexes against tables.
    const [result] = journal
      .query<{ integrity_check: string }, []>("PRAGMA integrity_check(1)")
      .all();
    return result?.integrity_check === "ok" && hasColumns(journal) && isIdentityKept(journal, path);
  } catch (error) {
    if (isMalformed(error) || damageCodes.has(systemCode(error) ?? "")) return false;
    throw journalError("read", path, error);
  } finally {
    journal?.close();
  }
}

/** A missing table or column, and a part of the file that the disk cannot read. */
const damageCodes: ReadonlySet<string> = new Set([
  "SQLITE_ERROR",
  "SQLITE_IOERR_READ",
  "SQLITE_IOERR_SHORT_READ",
  "SQLITE_IOERR_CORRUPTFS",
  "EIO",
]);

/**
 * Returns whether the header of the file is one that SQLite reads and writes. SQLite would accept
 * an empty file as a new database, and open one of a later format version read-only.
 */
function hasValidHeader(path: string): boolean {
  const header = new Uint8Array(100);
  let file: number;
  try {
    file = openSync(path, openFlags);
  } catch (error) {
    // ELOOP: a link, which could lead out of the store.
    if (["ENOENT", "ELOOP"].includes(systemCode(error) ?? "")) return false;
    throw error;
  }
  try {
    if (readSync(file, header) < header.length) return false;
  } finally {
    closeSync(file);
  }
  const [writeVersion, readVersion] = [header[18], header[19]];
  return [writeVersion, readVersion].every((version) => version === 1 || version === 2);
}

type Table = keyof typeof checkedColumns;

/** Returns the tables of a journal. Those of earlier versions lack some. */
function tablesOf(journal: Database): Table[] {
  const tables = Object.keys(checkedColumns) as Table[];
  return tables.filter((table) => requiredTables.has(table) || hasTable(journal, table));
}

const requiredTables: ReadonlySet<Table> = new Set(["frames", "losses"]);

/** Queries each table, which fails if it or one of its columns is missing. */
function hasColumns(journal: Database): boolean {
  for (const table of tablesOf(journal)) {
    journal.query(`SELECT ${checkedColumns[table]} FROM ${table} LIMIT 1`).all();
  }
  return true;
}

/**
 * Returns whether a server can have written a row of `frames`. A copy of a stream has no others.
 *
 * @param copiedStream the stream that the store is a copy of, if it is one
 */
export function isWholeFrame(row: UncheckedRow, copiedStream: string | undefined): boolean {
  return rowChecks.frames(row) && (copiedStream === undefined || row.stream === copiedStream);
}

/**
 * Yields the places of rows that no server can have written, such as `row 7 of the table frames`.
 * Rows are numbered by their ids, or in their order where they have none.
 *
 * @param copiedStream the stream that the store is a copy of, if it is one
 */
export function* damagedRows(
  journal: Database,
  copiedStream: string | undefined,
): Generator<string> {
  for (const table of tablesOf(journal)) {
    const rows = journal
      .query<UncheckedRow, []>(`SELECT ${checkedColumns[table]} FROM ${table}`)
      .safeIntegers(true);
    let count = 0;
    for (const row of rows.iterate()) {
      count++;
      if (table === "frames" ? isWholeFrame(row, copiedStream) : rowChecks[table](row)) continue;
      const id = typeof row.id === "bigint" ? row.id : count;
      yield `row ${id} of the table ${table}`;
    }
  }
}

/** Returns whether the journal has the identity that the file beside it repeats. */
function isIdentityKept(journal: Database, path: string): boolean {
  const { identity } = readIdentityFile(path);
  if (identity === undefined || !hasTable(journal, "properties")) return true;
  const found = journal
    .query<{ value: string }, []>("SELECT value FROM properties WHERE name = 'identity'")
    .get();
  return found === null || found.value === identity;
}
