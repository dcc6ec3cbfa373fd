/** Decides whether a journal can be trusted: its pages, its indexes and each of its rows. */
import type { Database } from "bun:sqlite";
import { closeSync, openSync, readSync } from "node:fs";
import { systemCode } from "../../errors.ts";
import { readIdentityFile } from "../journal/identity-file.ts";
import { checkedColumns, rowChecks, type UncheckedRow } from "../journal/row-check.ts";
import { hasTable, isMalformed, journalError, openReadOnly } from "../journal/schema.ts";

/**
 * Returns whether the journal is a valid database with the expected tables, whose indexes agree
 * with them and whose rows a server could have written.
 *
 * @throws {FramesError} `store` if it cannot be read
 */
export function isJournalValid(path: string): boolean {
  let journal: Database | undefined;
  try {
    if (!hasValidHeader(path)) return false;
    journal = openReadOnly(path);
    // Unlike `quick_check`, this holds indexes against tables.
    const [result] = journal
      .query<{ integrity_check: string }, []>("PRAGMA integrity_check(1)")
      .all();
    return (
      result?.integrity_check === "ok" && areRowsValid(journal) && isIdentityKept(journal, path)
    );
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
    file = openSync(path, "r");
  } catch (error) {
    if (systemCode(error) === "ENOENT") return false;
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

function areRowsValid(journal: Database): boolean {
  for (const table of Object.keys(checkedColumns) as (keyof typeof checkedColumns)[]) {
    // Journals of earlier versions lack the other tables.
    if (table !== "frames" && table !== "losses" && !hasTable(journal, table)) continue;
    const rows = journal
      .query<UncheckedRow, []>(`SELECT ${checkedColumns[table]} FROM ${table}`)
      .safeIntegers(true);
    for (const row of rows.iterate()) if (!rowChecks[table](row)) return false;
  }
  return true;
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
