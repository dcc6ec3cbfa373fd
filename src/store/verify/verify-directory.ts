/** Compares the frames of a store in a directory with its journal. */
import { Database } from "bun:sqlite";
import { existsSync, lstatSync, renameSync } from "node:fs";
import { join, resolve } from "node:path";
import { crc32 } from "../../common/checksum.ts";
import { checkNotForeign } from "../../common/foreign-folder.ts";
import { asFramesError, FramesError, systemCode, systemSentence } from "../../errors.ts";
import { AccountedRanges } from "../journal/accounted-ranges.ts";
import { readCopiedStream } from "../directory/copied-stream.ts";
import { StoreLock } from "../lock.ts";
import { rebuildJournal } from "./rebuild-journal.ts";
import { damagedRows, isJournalReadable, isWholeFrame } from "./check-journal.ts";
import {
  hasColumn,
  hasTable,
  journalPath,
  openReadOnly,
  prepareTables,
  readProperty,
} from "../journal/schema.ts";
import { unknownSession } from "../session-owner.ts";
import { forEachConcurrent } from "../../common/concurrency.ts";
import { rowChecks, type UncheckedRow } from "../journal/row-check.ts";
import { StoreFolder } from "../directory/store-folder.ts";
import { type FramePath, listFrameFiles, framePath } from "../paths.ts";

/** Options of a verification. */
export interface VerifyOptions {
  /**
   * Move damaged frames to `.frames/damaged` and delete their rows. Rebuild the journal if it is
   * malformed.
   */
  readonly repair?: boolean;
  /**
   * Accept the reported losses and the unchecked frames. Later verifications do not report them.
   */
  readonly accept?: boolean;
  /** Do not report missing frames, because they were moved away on purpose. */
  readonly ignoreMissing?: boolean;
  /** Called for each problem. */
  readonly onFinding?: (finding: Finding) => void;
  /** Called regularly with the progress. */
  readonly onProgress?: (progress: VerifyProgress) => void;
}

/** A problem that was found. */
export interface Finding {
  readonly kind: "missing" | "damaged" | "unknown" | "unchecked" | "lost";
  readonly stream: string;
  readonly source: string;
  /** Path of the frame below the store, or the frames or lost numbers of a source. */
  readonly what: string;
  readonly why: string;
}

/** Progress of a verification. */
export interface VerifyProgress {
  readonly total: number;
  readonly frames: number;
  readonly bytes: number;
}

/** Result of a verification. */
export interface Verification extends VerifyProgress {
  readonly missing: number;
  readonly damaged: number;
  readonly unknown: number;
  /** Frames with a row that was made from their file, so that damage before it is not noticed. */
  readonly unchecked: number;
  /** Reports of lost numbers. One report may cover several numbers. */
  readonly lost: number;
  /** Reports of lost numbers whose frame came later. */
  readonly cameLater: number;
  /** Reports of lost numbers that were accepted. */
  readonly accepted: number;
  /** Rows of the rebuilt journal. Undefined if it was not rebuilt. */
  readonly rebuilt: number | undefined;
}

interface JournalRow {
  id: number;
  stream: string;
  source: string;
  session: string;
  seq: number;
  name: string;
  bytes: number;
  crc32: number;
}

interface JournalLossRow {
  stream: string;
  source: string;
  first: bigint;
  last: bigint;
  reason: string;
  name: string | null;
  state: string | null;
}

/** Files read concurrently, and bytes per read of a large file. */
const maxConcurrentReads = 16;
const chunkBytes = 1 << 20;

/** Rows per query. Small pages keep read transactions short while a server writes the journal. */
const rowBatchSize = 1000;

/**
 * Verifies the store in `directory`. A server may use the store at the same time, except with
 * `repair`.
 *
 * @throws {FramesError} `missing` if there is no store, `store` if its journal cannot be read
 * @throws {FramesError} `locked` with `repair` while a server uses the store
 */
export async function verify(
  directory: string,
  options: VerifyOptions = {},
): Promise<Verification> {
  const root = resolve(directory);
  const path = journalPath(root);
  if (lstatSync(join(root, ".frames"), { throwIfNoEntry: false })?.isDirectory() !== true) {
    const reason = existsSync(root) ? "it is not a store of frames" : "no such directory";
    throw new FramesError(
      "missing",
      `Cannot verify ${root}: ${reason}; name the store, as in frames verify DIR`,
    );
  }
  const isWriting = options.repair === true || options.accept === true;
  if (isWriting) {
    const [what, hint] = [`Cannot repair ${root}`, "run this command as that user"];
    try {
      checkNotForeign(join(root, ".frames"), what, hint);
    } catch (error) {
      throw asFramesError(error, "store", what);
    }
  }
  const lock = isWriting ? new StoreLock(join(root, ".frames")) : undefined;
  try {
    let rebuilt: number | undefined;
    const isReadable = isJournalReadable(path);
    if (!isReadable && options.repair !== true) {
      throw new FramesError(
        "store",
        `Cannot verify ${root}: its journal is damaged or missing; run frames verify ${directory} --repair to make a new one`,
      );
    }
    if (options.repair === true && !(isReadable && hasOnlyWholeRows(path))) {
      rebuilt = rebuildJournal(root);
    }
    const journal = isWriting ? new Database(path) : openReadOnly(path);
    try {
      if (isWriting) prepareTables(journal, path);
      return { ...(await new Verifier(root, journal, options).run()), rebuilt };
    } catch (error) {
      throw asFramesError(error, "store", `Cannot verify ${root}`);
    } finally {
      journal.close();
    }
  } finally {
    lock?.release();
  }
}

function copiedStreamOf(journal: Database): string | undefined {
  return readCopiedStream({ property: (name) => readProperty(journal, name) });
}

/** Returns whether a journal has no damaged row. */
function hasOnlyWholeRows(path: string): boolean {
  const journal = openReadOnly(path);
  try {
    return damagedRows(journal, copiedStreamOf(journal)).next().done === true;
  } finally {
    journal.close();
  }
}

class Verifier {
  readonly #root: string;
  readonly #journal: Database;
  readonly #options: VerifyOptions;
  readonly #counts = {
    missing: 0,
    damaged: 0,
    unknown: 0,
    unchecked: 0,
    lost: 0,
    cameLater: 0,
    accepted: 0,
  };
  /** Unchecked frames by the path of their source. */
  readonly #unchecked = new Map<string, { row: JournalRow; frames: number }>();
  /** Stream that the store is a copy of, if it is one. */
  readonly #copiedStream: string | undefined;
  #hasRemovingTable: boolean | undefined;
  #total = 0;
  #frames = 0;
  #bytes = 0;

  constructor(root: string, journal: Database, options: VerifyOptions) {
    this.#root = root;
    this.#journal = journal;
    this.#options = options;
    this.#copiedStream = copiedStreamOf(journal);
  }

  async run(): Promise<Omit<Verification, "rebuilt">> {
    const count = this.#journal.query<{ frames: number }, []>(
      "SELECT count(*) AS frames FROM frames",
    );
    this.#total = count.get()!.frames;
    this.#findDamagedRows();
    await forEachConcurrent(
      this.#rows(),
      maxConcurrentReads,
      async (row) => await this.#verifyFrame(row),
    );
    this.#reportUnchecked();
    this.#findUnknown();
    this.#findLost();
    return { ...this.#progress, ...this.#counts };
  }

  get #progress(): VerifyProgress {
    return { total: this.#total, frames: this.#frames, bytes: this.#bytes };
  }

  /** Reports rows that no server can have written. Their frames are not looked at. */
  #findDamagedRows(): void {
    for (const place of damagedRows(this.#journal, this.#copiedStream)) {
      const why = "no server can have written it; --repair makes a new journal without it";
      this.#report("damaged", { stream: "", source: "" }, place, why);
    }
  }

  /** Yields the rows that are not damaged. */
  *#rows(): Generator<JournalRow> {
    const page = this.#journal
      .query<Record<keyof JournalRow, bigint>, [number]>(
        `SELECT * FROM frames WHERE id > ? ORDER BY id LIMIT ${rowBatchSize}`,
      )
      .safeIntegers(true);
    for (let after = 0; ;) {
      const rows = page.all(after);
      if (rows.length === 0) return;
      for (const row of rows) {
        if (isWholeFrame(row, this.#copiedStream)) yield toJournalRow(row);
      }
      after = Number(rows.at(-1)!.id);
      this.#options.onProgress?.(this.#progress);
    }
  }

  #report(
    kind: Finding["kind"],
    { stream, source }: Pick<JournalRow, "stream" | "source">,
    what: string,
    why: string,
  ): void {
    this.#counts[kind]++;
    this.#options.onFinding?.({ kind, stream, source, what, why });
  }

  async #verifyFrame(row: JournalRow): Promise<void> {
    let damage = await this.#findDamage(row);
    // A server may have replaced the frame meanwhile. The frame then has another row.
    if (damage !== undefined && this.#isOutdated(row)) damage = undefined;
    if (damage === "gone" && this.#isBeingRemoved(row)) damage = undefined;
    if (damage !== undefined && damage !== "gone" && (await this.#isBeingReplaced(row)))
      damage = undefined;
    this.#frames++;
    this.#bytes += row.bytes;
    if (damage === undefined) return this.#countUnchecked(row);
    const path = framePath(row.stream, row.source, row.name);
    if (damage !== "gone") {
      const where = this.#options.repair === true ? this.#setAside(row) : "";
      return this.#report("damaged", row, path, damage + where);
    }
    if (this.#options.ignoreMissing === true) return;
    this.#report("missing", row, path, "it is in the journal, but its file is missing");
  }

  #isOutdated({ id }: JournalRow): boolean {
    return this.#journal.query("SELECT 1 FROM frames WHERE id = ?").get(id) === null;
  }

  /**
   * Returns whether retention has begun to remove the frame. It deletes the file before the row and
   * may have been killed between.
   */
  #isBeingRemoved({ id }: JournalRow): boolean {
    this.#hasRemovingTable ??= hasTable(this.#journal, "removing");
    if (!this.#hasRemovingTable) return false;
    return this.#journal.query("SELECT 1 FROM removing WHERE id = ?").get(id) !== null;
  }

  /**
   * Returns whether the file is the one that replaces the frame. A server renames it before it
   * replaces the row, and may have been killed between.
   */
  async #isBeingReplaced(row: JournalRow): Promise<boolean> {
    if (!hasTable(this.#journal, "replacements")) return false;
    const replacement = this.#journal
      .query<Pick<JournalRow, "bytes" | "crc32">, [string, string, string]>(
        "SELECT bytes, crc32 FROM replacements WHERE stream = ? AND source = ? AND name = ?",
      )
      .get(row.stream, row.source, row.name);
    return (
      replacement !== null && (await this.#findDamage({ ...row, ...replacement })) === undefined
    );
  }

  #countUnchecked(row: JournalRow): void {
    if (row.session !== unknownSession) return;
    const path = `${row.stream}/${row.source}`;
    const found = this.#unchecked.get(path) ?? { row, frames: 0 };
    found.frames++;
    this.#unchecked.set(path, found);
  }

  #reportUnchecked(): void {
    for (const [path, { row, frames }] of this.#unchecked) {
      const what = `${path}, ${frames === 1 ? "1 frame" : `${frames} frames`}`;
      this.#report("unchecked", row, what, "the journal no longer has their checksums");
      this.#counts.unchecked += frames - 1;
    }
    if (this.#options.accept !== true || this.#unchecked.size === 0) return;
    // A session of their own, which no key may continue, says that these are frames as they should
    // be.
    const session = crypto.randomUUID().replaceAll("-", "");
    this.#journal.query("INSERT INTO sessions (session) VALUES (?)").run(session);
    this.#journal
      .query("UPDATE frames SET session = ? WHERE session = ?")
      .run(session, unknownSession);
    this.#counts.unchecked = 0;
  }

  #folderOf(source: Pick<JournalRow, "stream" | "source">): StoreFolder {
    return StoreFolder.ofSource(this.#root, source, this.#copiedStream);
  }

  async #findDamage({
    stream,
    source,
    name,
    bytes,
    crc32,
  }: JournalRow): Promise<string | undefined> {
    const folder = this.#folderOf({ stream, source });
    const path = folder.pathOf(name);
    try {
      // A folder that is a link leads out of the store, so its files count as missing.
      const found = folder.exists() && lstatSync(path, { throwIfNoEntry: false });
      if (!found) return "gone";
      if (!found.isFile()) return "it is not a file";
      if (found.size !== bytes) return `it has ${found.size} bytes, not ${bytes}`;
      if ((await streamChecksum(path, bytes)) !== crc32)
        return "its bytes changed after they were stored";
      return undefined;
    } catch (error) {
      if (systemCode(error) === "ENOENT") return "gone";
      return `it cannot be read: ${systemSentence(error)}`;
    }
  }

  /**
   * Moves a damaged frame out of the store and deletes its row, so that the sender can send it
   * again.
   *
   * @returns the end of the message, with the new path
   */
  #setAside(row: JournalRow): string {
    const folder = this.#folderOf(row);
    const asideFolder = new StoreFolder(this.#root, `.frames/damaged/${folder.storePath}`);
    asideFolder.ensure();
    const aside = freePath(asideFolder.pathOf(row.name));
    renameSync(folder.pathOf(row.name), aside);
    const at = BigInt(Date.now()) * 1_000_000n;
    // The number was received, so it must not become a gap.
    const writeAccount = new AccountedRanges(this.#journal).add(row, row.seq, row.seq, at);
    this.#journal.transaction(() => {
      writeAccount?.();
      this.#journal.query("DELETE FROM frames WHERE id = ?").run(row.id);
      // Without a cursor the next `frames receive` starts from the beginning and receives the frame
      // again.
      this.#journal.query("DELETE FROM properties WHERE name = 'cursor'").run();
    })();
    return `; moved to ${aside}`;
  }

  /** Reports files without a row. */
  #findUnknown(): void {
    const row = this.#journal.query<unknown, [string, string, string]>(
      "SELECT 1 FROM frames WHERE stream = ? AND source = ? AND name = ?",
    );
    const unknown: FramePath[] = [];
    const onUnreadable = (folder: Omit<FramePath, "name">, error: unknown) => {
      // Retention may have removed an empty folder just now.
      if (systemCode(error) === "ENOENT") return;
      const path = join(folder.stream, folder.source === folder.stream ? "" : folder.source);
      this.#report("unknown", folder, path, `the folder cannot be read: ${systemSentence(error)}`);
    };
    for (const frame of listFrameFiles(this.#root, this.#copiedStream, onUnreadable)) {
      if (row.get(frame.stream, frame.source, frame.name) === null) unknown.push(frame);
    }
    for (const frame of unknown) {
      // A server renames a frame just before it commits the row, so check again.
      if (row.get(frame.stream, frame.source, frame.name) !== null) continue;
      const path = framePath(frame.stream, frame.source, frame.name);
      this.#report("unknown", frame, path, "it is not in the journal");
    }
  }

  #findLost(): void {
    const columns = hasColumn(this.#journal, "losses", "state")
      ? "name, state"
      : "NULL AS name, NULL AS state";
    const losses = this.#journal
      .query<JournalLossRow, []>(
        `SELECT stream, source, session, first, last, reason, at, ${columns} FROM losses ORDER BY rowid`,
      )
      .safeIntegers(true);
    for (const row of losses.iterate()) {
      if (!rowChecks.losses(row)) continue;
      const { stream, source, first, last, reason, name, state } = row;
      if (state === "came") this.#counts.cameLater++;
      else if (state === "accepted") this.#counts.accepted++;
      else {
        const numbers = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
        const path = name === null ? `${stream}/${source}` : framePath(stream, source, name);
        this.#report("lost", { stream, source }, `${path}, ${numbers}`, reason);
      }
    }
    if (this.#options.accept !== true) return;
    this.#journal.run("UPDATE losses SET state = 'accepted' WHERE state IS NULL");
    this.#counts.accepted += this.#counts.lost;
    this.#counts.lost = 0;
  }
}

/** Converts a row that `rowChecks` accepts. */
function toJournalRow(row: UncheckedRow): JournalRow {
  const { stream, source, session, name } = row as unknown as JournalRow;
  const [id, seq, bytes, crc] = [row.id, row.seq, row.bytes, row.crc32].map(Number);
  return { id: id!, stream, source, session, seq: seq!, name, bytes: bytes!, crc32: crc! };
}

/** Returns `path`, or `path` with the first free number appended if it exists. */
function freePath(path: string): string {
  let free = path;
  for (let number = 1; lstatSync(free, { throwIfNoEntry: false }) !== undefined; number++) {
    free = `${path}.${number}`;
  }
  return free;
}

/**
 * Returns the CRC-32 of a file. Reads asynchronously in chunks, so that other files are read
 * meanwhile.
 *
 * @param size of the file in bytes
 */
export async function streamChecksum(path: string, size: number): Promise<number> {
  const file = Bun.file(path);
  if (size <= chunkBytes) return crc32(await file.bytes());
  let crc = 0;
  for (let from = 0; from < size; from += chunkBytes) {
    crc = crc32(await file.slice(from, Math.min(from + chunkBytes, size)).bytes(), crc);
  }
  return crc;
}
