/** Makes a new journal of what can be read of a malformed one, and of the frames themselves. */
import { Database } from "bun:sqlite";
import { copyFileSync, existsSync, lstatSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { systemCode } from "../../errors.ts";
import { Journal } from "../journal/journal.ts";
import { fileChecksum } from "../directory/file-check.ts";
import { frameColumns, type FrameRow, isMalformed, journalPath } from "../journal/schema.ts";
import { readCopiedStream } from "../directory/copied-stream.ts";
import { listFrameFiles, framePath, relativePath } from "../paths.ts";

/** Session of frames whose own nobody knows any more. */
const unknownSession = "0".repeat(32);

/** Rows that are committed at a time. */
const commitBatchSize = 10_000;

/**
 * Puts a new journal in the place of a malformed one, which is kept in `.frames/damaged`. The store
 * must be locked. Returns the number of its rows.
 */
export function rebuildJournal(root: string): number {
  const path = journalPath(root);
  const newPath = `${path}.new`;
  for (const suffix of ["", "-wal", "-shm"]) rmSync(newPath + suffix, { force: true });
  const journal = new Journal(newPath);
  let rows = 0;
  const add = (row: FrameRow) => {
    if (journal.find(row.stream, row.source, row.name) !== null) return;
    journal.addFrame(row);
    if (++rows % commitBatchSize === 0) journal.flush();
  };
  for (const row of readableRows(path)) add(row);
  journal.flush();
  for (const loss of readableLosses(path)) {
    journal.addLoss(loss, Number(loss.first), Number(loss.last), loss.reason, loss.at);
  }
  copyAuxiliaryTables(path, newPath);
  const copied = readCopiedStream(journal);
  let sequence = 0;
  for (const { stream, source, name } of listFrameFiles(root, copied)) {
    if (journal.find(stream, source, name) !== null) continue;
    const row = rowFromFile(root, copied, stream, source, name, sequence + 1);
    if (row === undefined) continue;
    sequence++;
    add(row);
  }
  journal.close();
  backUpJournal(root, path);
  for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
  // Should this be killed, there is the old one or the new one.
  renameSync(newPath, path);
  return rows;
}

/** What is known of frames that have no rows any more, as far as it can be read. */
function copyAuxiliaryTables(path: string, newPath: string): void {
  const database = new Database(newPath);
  const copy = (table: string, columns: string, condition = "TRUE") => {
    const insert = database.query(
      `INSERT OR REPLACE INTO ${table} (${columns}) VALUES (${columns.replace(/\w+/g, "?")})`,
    );
    const names = columns.split(", ");
    database.transaction(() => {
      const query = `SELECT ${columns} FROM ${table} WHERE ${condition}`;
      for (const row of readRows<Record<string, bigint | string>>(path, query)) {
        if (row !== "end") insert.run(...names.map((name) => row[name]!));
      }
    })();
  };
  copy("accounted", "stream, source, session, first, last, at");
  copy("removed", "path, bytes, crc32, captured");
  // The rows are numbered anew; how far a copy was may be true no more.
  copy("properties", "name, value", "name IN ('identity', 'copy')");
  database.close();
}

/** What a file itself tells of a frame. */
function rowFromFile(
  root: string,
  copied: string | undefined,
  stream: string,
  source: string,
  name: string,
  seq: number,
): FrameRow | undefined {
  const path = join(root, relativePath(framePath(stream, source, name), copied));
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (found === undefined) return undefined;
  const { size, mtimeNs } = found;
  return {
    stream,
    source,
    name,
    session: unknownSession,
    seq,
    bytes: Number(size),
    crc32: fileChecksum(path),
    captured: mtimeNs,
    received: BigInt(Date.now()) * 1_000_000n,
    key: null,
    meta: null,
    format: null,
  };
}

/** The rows that can still be read: from the first on, and where that fails from the last back. */
function* readableRows(path: string): Generator<FrameRow> {
  for (const order of ["ASC", "DESC"]) {
    const rows = readRows<Record<keyof FrameRow, never>>(
      path,
      `SELECT ${frameColumns} FROM frames ORDER BY id ${order}`,
    );
    let isComplete = false;
    for (const row of rows) {
      if (row === "end") isComplete = true;
      else
        yield { ...row, seq: Number(row.seq), bytes: Number(row.bytes), crc32: Number(row.crc32) };
    }
    if (isComplete) return;
  }
}

interface RecoveredLossRow {
  stream: string;
  source: string;
  session: string;
  first: bigint;
  last: bigint;
  reason: string;
  at: bigint;
}

function* readableLosses(path: string): Generator<RecoveredLossRow> {
  for (const row of readRows<RecoveredLossRow>(path, "SELECT * FROM losses"))
    if (row !== "end") yield row;
}

/** The rows of an answer up to where the journal is damaged; `end` after the last. */
function* readRows<Row>(path: string, query: string): Generator<Row | "end"> {
  let database: Database | undefined;
  try {
    database = new Database(path);
    yield* database.query<Row, []>(query).safeIntegers(true).iterate();
    yield "end";
  } catch (error) {
    // That is why there is to be a new journal: what cannot be read is made up for by the frames.
    if (!isMalformed(error) && systemCode(error) !== "SQLITE_ERROR") throw error;
  } finally {
    database?.close();
  }
}

/** Keeps the malformed journal, for whoever wants to look into it. */
function backUpJournal(root: string, path: string): void {
  const damagedFolder = join(root, ".frames", "damaged");
  mkdirSync(damagedFolder, { recursive: true });
  const time = new Date().toISOString().replaceAll(":", "");
  for (const suffix of ["", "-wal", "-shm"]) {
    if (existsSync(path + suffix)) {
      copyFileSync(path + suffix, join(damagedFolder, `journal-${time}.sqlite${suffix}`));
    }
  }
}
