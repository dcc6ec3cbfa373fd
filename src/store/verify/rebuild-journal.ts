/** Rebuilds a malformed journal from its readable rows and from the files of the store. */
import { Database } from "bun:sqlite";
import { constants, copyFileSync, existsSync, lstatSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { toCaptureTime } from "../../common/capture-time.ts";
import { systemCode } from "../../errors.ts";
import { fileChecksum, isIntact, isKeyFile } from "../directory/file-check.ts";
import { readCopiedStream } from "../directory/copied-stream.ts";
import {
  readIdentityFile,
  type StoreIdentity,
  writeIdentityFile,
} from "../journal/identity-file.ts";
import type { SourceSession } from "../journal/accounted-ranges.ts";
import { Journal } from "../journal/journal.ts";
import { rowChecks, type UncheckedRow } from "../journal/row-check.ts";
import { type FrameRow, journalPath, keyColumn } from "../journal/schema.ts";
import { unknownSession } from "../session-owner.ts";
import { StoreFolder } from "../directory/store-folder.ts";
import { type FramePath, listFrameFiles } from "../paths.ts";
import { isWholeFrame } from "./check-journal.ts";
import { DamagedJournal } from "./damaged-journal.ts";

/** Rows per commit. */
const commitBatchSize = 10_000;

/**
 * Replaces a malformed journal with a rebuilt one, and saves the old one in `.frames/damaged`. The
 * caller must hold the lock of the store.
 *
 * A row of the old journal is used if a server could have written it, and if the frame's file or
 * the index of names confirms its name. A file without a row gets one. Unless the checksum of the file is that of a damaged row,
 * it has `unknownSession`, because the file may be damaged too.
 *
 * @returns the number of rows in the rebuilt journal
 * @throws {FramesError} `store` if the new journal cannot be written
 */
export function rebuildJournal(root: string): number {
  const path = journalPath(root);
  const newPath = `${path}.new`;
  for (const suffix of ["", "-wal", "-shm"]) rmSync(newPath + suffix, { force: true });
  backUpJournal(root, path);
  const damaged = new DamagedJournal(path);
  const identity = { ...readableIdentity(damaged), ...readIdentityFile(path) };
  // The new journal takes its identity from this file, so that copies of the store go on.
  if (identity.identity !== undefined) writeIdentityFile(path, identity);
  const journal = new Journal(newPath);
  if (identity.copy !== undefined) journal.setProperty("copy", identity.copy);
  const rebuilder = new Rebuilder(root, journal, damaged);
  rebuilder.addReadableRows();
  rebuilder.addFiles();
  journal.close();
  copyOtherTables(damaged, newPath);
  damaged.close();
  for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
  // The rename is atomic, so a killed process leaves either the old journal or the new one.
  renameSync(newPath, path);
  return rebuilder.rows;
}

/**
 * Returns the properties that are kept. Rows get new ids, so `numbering` and the cursor of a copy
 * are not.
 */
function readableIdentity(damaged: DamagedJournal): StoreIdentity {
  const properties = [...damaged.rows("properties")].map(({ name, value }) => [name, value]);
  const { identity, copy } = Object.fromEntries(properties) as StoreIdentity;
  return { ...(identity !== undefined && { identity }), ...(copy !== undefined && { copy }) };
}

class Rebuilder {
  readonly #root: string;
  readonly #journal: Journal;
  readonly #damaged: DamagedJournal;
  readonly #copied: string | undefined;
  readonly #now = BigInt(Date.now()) * 1_000_000n;
  /** Sizes and checksums of frames whose rows were damaged otherwise. */
  readonly #knownSums = new Set<string>();
  /** Session of rows made from files that have one of these checksums. */
  readonly #session = crypto.randomUUID().replaceAll("-", "");
  /** Rows of the new journal. */
  rows = 0;

  constructor(root: string, journal: Journal, damaged: DamagedJournal) {
    this.#root = root;
    this.#journal = journal;
    this.#damaged = damaged;
    this.#copied = readCopiedStream(journal);
  }

  addReadableRows(): void {
    const removing = new Set([...this.#damaged.rows("removing")].map(({ id }) => id));
    const optional = (table: "frames" | "replacements") =>
      this.#damaged.hasColumn(table, "is_key") ? ", is_key" : "";
    for (const row of this.#damaged.readableRows("frames", optional("frames"))) {
      if (!isWholeFrame(row, this.#copied)) this.#drop(row);
      else this.#addReadable(toFrameRow(row), row.id as bigint, removing.has(row.id));
    }
    // A server that was killed has perhaps renamed the new file, and not replaced the row yet.
    for (const row of this.#damaged.rows("replacements", `, key${optional("replacements")}`)) {
      const frame = toFrameRow(row);
      if (existsSync(join(this.#root, ".frames/partial", row.partial as string))) continue;
      if (this.#fitsFile(frame)) this.#replace(frame);
    }
    this.#journal.flush();
  }

  #addReadable(row: FrameRow, id: bigint, isBeingRemoved: boolean): void {
    const earlier = this.#journal.find(row.stream, row.source, row.name);
    if (earlier !== null) {
      // One of two rows for a name is damaged. The file shows which.
      const isEarlierRight = this.#fitsFile({ ...row, ...earlier });
      if (isEarlierRight || !this.#fitsFile(row)) return this.#drop(toUnchecked(row));
      this.#drop(toUnchecked({ ...row, ...earlier }));
      return this.#replace(row);
    }
    const { stream, source, name } = row;
    if (this.#folderOf(row).entryKind(name) === undefined) {
      // Retention had deleted the file, and not the row yet.
      if (isBeingRemoved) {
        const removed = { ...row, id: 0, isDamaged: false };
        return this.#journal.updateDeletions((log) => log.end([removed], this.#now));
      }
      // A frame that was moved away, or a row with a damaged name.
      if (!this.#damaged.isIndexed(stream, source, name, id)) return this.#drop(toUnchecked(row));
    }
    this.#add(row);
  }

  /** Uses what is left of a damaged row: the checksum of its frame, and that its number came. */
  #drop({ stream, source, session, seq, bytes, crc32, received }: UncheckedRow): void {
    this.#knownSums.add(`${bytes} ${crc32}`);
    const range = { stream, source, session, first: seq, last: seq, at: received };
    if (!rowChecks.accounted(range)) return;
    const sourceSession = { stream, source, session } as SourceSession;
    this.#journal.markAccounted(sourceSession, Number(seq), Number(seq), received as bigint);
  }

  #add(row: FrameRow): void {
    this.#journal.addFrame(row);
    if (++this.rows % commitBatchSize === 0) this.#journal.flush();
  }

  #replace(row: FrameRow): void {
    if (this.#journal.find(row.stream, row.source, row.name) === null) this.rows++;
    this.#journal.endReplacement({ row, partial: "" }, true);
  }

  /** Adds a row for each file that has none. */
  addFiles(): void {
    let sequence = 0;
    for (const frame of listFrameFiles(this.#root, this.#copied)) {
      if (this.#journal.find(frame.stream, frame.source, frame.name) !== null) continue;
      const row = this.#rowOfFile(frame, sequence + 1);
      if (row === undefined) continue;
      sequence++;
      this.#add(row);
    }
  }

  /**
   * Creates a row from the file of a frame. The modification time becomes the capture time. Returns
   * undefined if the file cannot be read or could not be a frame.
   */
  #rowOfFile(frame: FramePath, seq: number): FrameRow | undefined {
    let row: FrameRow;
    try {
      const path = this.#folderOf(frame).pathOf(frame.name);
      const { size, mtimeNs } = lstatSync(path, { bigint: true });
      const crc32 = fileChecksum(path);
      row = {
        ...frame,
        session: this.#knownSums.has(`${size} ${crc32}`) ? this.#session : unknownSession,
        seq,
        bytes: Number(size),
        crc32,
        captured: toCaptureTime(mtimeNs),
        received: this.#now,
        key: null,
        meta: null,
        format: null,
        is_key: keyColumn({ isKey: isKeyFile(path) }),
      };
    } catch {
      return undefined;
    }
    return rowChecks.frames(toUnchecked(row)) ? row : undefined;
  }

  #folderOf(frame: FramePath): StoreFolder {
    return StoreFolder.ofSource(this.#root, frame, this.#copied);
  }

  /** Returns whether the file of a frame has the size and the checksum of a row. */
  #fitsFile(row: FramePath & Pick<FrameRow, "bytes" | "crc32">): boolean {
    try {
      const folder = this.#folderOf(row);
      return folder.exists() && isIntact(folder.pathOf(row.name), row);
    } catch {
      return false;
    }
  }
}

function toUnchecked(row: FrameRow): UncheckedRow {
  const { seq, bytes, crc32, is_key } = row;
  return {
    ...row,
    seq: BigInt(seq),
    bytes: BigInt(bytes),
    crc32: BigInt(crc32),
    is_key: is_key === null ? null : BigInt(is_key),
  };
}

/** Converts a row that `rowChecks` accepts. */
function toFrameRow(row: UncheckedRow): FrameRow {
  const { id: _, partial: __, rowid: ___, ...columns } = row as Record<string, never>;
  const { seq, bytes, crc32 } = columns as Record<string, bigint>;
  const numbers = {
    seq: Number(seq),
    bytes: Number(bytes),
    crc32: Number(crc32),
    is_key: columns["is_key"] == null ? null : Number(columns["is_key"]),
  };
  return { ...(columns as unknown as FrameRow), ...numbers };
}

/**
 * Copies the readable rows of other tables: losses, accounted numbers, keys of sessions and removed
 * frames. A session whose row is damaged belongs to the name of the key that its frames have.
 */
function copyOtherTables(damaged: DamagedJournal, newPath: string): void {
  const database = new Database(newPath);
  const copy = (
    table: "losses" | "accounted" | "sessions" | "removed",
    columns: string,
    moreColumns = "",
  ) => {
    const insert = database.query(
      `INSERT OR REPLACE INTO ${table} (${columns}) VALUES (${columns.replace(/\w+/g, "?")})`,
    );
    const names = columns.split(", ");
    database.transaction(() => {
      for (const row of damaged.rows(table, moreColumns)) {
        insert.run(...names.map((name) => (row as Record<string, string | bigint>)[name]!));
      }
    })();
  };
  const lossColumns = "stream, source, session, first, last, reason, at";
  if (damaged.hasColumn("losses", "name")) {
    copy("losses", `${lossColumns}, name, state`, ", name, state");
  } else copy("losses", lossColumns);
  copy("accounted", "stream, source, session, first, last, at");
  copy("sessions", "session, key, key_id");
  copy("removed", "path, bytes, crc32, captured");
  database.close();
}

/** Copies the malformed journal to `.frames/damaged`, for later analysis. */
function backUpJournal(root: string, path: string): void {
  const folder = new StoreFolder(root, ".frames/damaged");
  folder.ensure();
  const time = new Date().toISOString().replaceAll(":", "");
  for (const suffix of ["", "-wal", "-shm"]) {
    if (lstatSync(path + suffix, { throwIfNoEntry: false })?.isFile() !== true) continue;
    const copy = folder.pathOf(`journal-${time}.sqlite${suffix}`);
    try {
      copyFileSync(path + suffix, copy, constants.COPYFILE_EXCL);
    } catch (error) {
      // What the disk cannot read cannot be kept.
      if (systemCode(error) !== "EIO") throw error;
    }
  }
}
