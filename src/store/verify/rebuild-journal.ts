/** Rebuilds a malformed journal from its readable rows and from the files of the store. */
import { Database } from "bun:sqlite";
import { copyFileSync, existsSync, lstatSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { systemCode } from "../../errors.ts";
import { Journal } from "../journal/journal.ts";
import { fileChecksum } from "../directory/file-check.ts";
import { frameColumns, type FrameRow, isMalformed, journalPath } from "../journal/schema.ts";
import { readCopiedStream } from "../directory/copied-stream.ts";
import { listFrameFiles, framePath, relativePath } from "../paths.ts";

/** Session id for frames whose session is unknown. */
const unknownSession = "0".repeat(32);

/** Rows per commit. */
const commitBatchSize = 10_000;

/**
 * Replaces a malformed journal with a rebuilt one, and saves the old one in `.frames/damaged`. The
 * caller must hold the lock of the store.
 *
 * @returns the number of rows in the rebuilt journal
 * @throws {FramesError} `store` if the new journal cannot be written
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
  // The rename is atomic, so a killed process leaves either the old journal or the new one.
  renameSync(newPath, path);
  return rows;
}

/** Copies the readable rows of other tables: accounted numbers, removed frames and properties. */
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
  // Rows get new ids, so `numbering` is not copied. The cursor of a copy may be wrong and is
  // dropped too.
  copy("properties", "name, value", "name IN ('identity', 'copy')");
  database.close();
}

/** Creates a row from the file of a frame. The modification time becomes the capture time. */
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

/**
 * Yields the readable rows. Reads from the first row on, and after an error also from the last row
 * back.
 */
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

/** Yields the rows of a query up to the first damaged one, and `end` if all were read. */
function* readRows<Row>(path: string, query: string): Generator<Row | "end"> {
  let database: Database | undefined;
  try {
    database = new Database(path);
    yield* database.query<Row, []>(query).safeIntegers(true).iterate();
    yield "end";
  } catch (error) {
    // Damage is expected here. Frames whose rows are unreadable are found by their files.
    if (!isMalformed(error) && systemCode(error) !== "SQLITE_ERROR") throw error;
  } finally {
    database?.close();
  }
}

/** Copies the malformed journal to `.frames/damaged`, for later analysis. */
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
