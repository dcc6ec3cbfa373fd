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
import { damagedRows, isJournalReadable } from "./check-journal.ts";
import {
  type JournalRow,
  maxConcurrentReads,
  otherBytesReason,
  sizeReason,
  StoreVerifier,
  type Verification,
  type VerifyOptions,
} from "./store-verifier.ts";
import {
  hasTable,
  journalPath,
  openReadOnly,
  prepareTables,
  readProperty,
} from "../journal/schema.ts";
import { unknownSession } from "../session-owner.ts";
import { forEachConcurrent } from "../../common/concurrency.ts";
import { StoreFolder } from "../directory/store-folder.ts";
import { type FramePath, listFrameFiles, framePath } from "../paths.ts";

/** Bytes per read of a large file. */
const chunkBytes = 1 << 20;

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
      return { ...(await new DirectoryVerifier(root, journal, options).run()), rebuilt };
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

class DirectoryVerifier extends StoreVerifier {
  readonly #root: string;
  /** Unchecked frames by the path of their source. */
  readonly #unchecked = new Map<string, { row: JournalRow; frames: number }>();
  #hasRemovingTable: boolean | undefined;

  constructor(root: string, journal: Database, options: VerifyOptions) {
    super(journal, options, copiedStreamOf(journal));
    this.#root = root;
  }

  async run(): Promise<Omit<Verification, "rebuilt">> {
    this.#findDamagedRows();
    await forEachConcurrent(
      this.rows(),
      maxConcurrentReads,
      async (row) => await this.#verifyFrame(row),
    );
    this.#reportUnchecked();
    this.#findUnknown();
    this.findLost();
    if (this.options.accept === true) this.#acceptLosses();
    return { ...this.progress, ...this.counts };
  }

  /** Reports rows that no server can have written. Their frames are not looked at. */
  #findDamagedRows(): void {
    for (const place of damagedRows(this.journal, this.copiedStream)) {
      const why = "no server can have written it; --repair makes a new journal without it";
      this.report("damaged", { stream: "", source: "" }, place, why);
    }
  }

  async #verifyFrame(row: JournalRow): Promise<void> {
    let damage = await this.#findDamage(row);
    // A server may have replaced the frame meanwhile. The frame then has another row.
    if (damage !== undefined && this.#isOutdated(row)) damage = undefined;
    if (damage === "gone" && this.#isBeingRemoved(row)) damage = undefined;
    if (damage !== undefined && damage !== "gone" && (await this.#isBeingReplaced(row)))
      damage = undefined;
    this.countFrame(row);
    if (damage === undefined) return this.#countUnchecked(row);
    if (damage === "gone") {
      return this.reportMissing(row, "it is in the journal, but its file is missing");
    }
    const path = framePath(row.stream, row.source, row.name);
    const where = this.options.repair === true ? this.#setAside(row) : "";
    this.report("damaged", row, path, damage + where);
  }

  #isOutdated({ id }: JournalRow): boolean {
    return this.journal.query("SELECT 1 FROM frames WHERE id = ?").get(id) === null;
  }

  /**
   * Returns whether retention has begun to remove the frame. It deletes the file before the row and
   * may have been killed between.
   */
  #isBeingRemoved({ id }: JournalRow): boolean {
    this.#hasRemovingTable ??= hasTable(this.journal, "removing");
    if (!this.#hasRemovingTable) return false;
    return this.journal.query("SELECT 1 FROM removing WHERE id = ?").get(id) !== null;
  }

  /**
   * Returns whether the file is the one that replaces the frame. A server renames it before it
   * replaces the row, and may have been killed between.
   */
  async #isBeingReplaced(row: JournalRow): Promise<boolean> {
    if (!hasTable(this.journal, "replacements")) return false;
    const replacement = this.journal
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
      this.report("unchecked", row, what, "the journal no longer has their checksums");
      this.counts.unchecked += frames - 1;
    }
    if (this.options.accept !== true || this.#unchecked.size === 0) return;
    // A session of their own, which no key may continue, says that these are frames as they should
    // be.
    const session = crypto.randomUUID().replaceAll("-", "");
    this.journal.query("INSERT INTO sessions (session) VALUES (?)").run(session);
    this.journal
      .query("UPDATE frames SET session = ? WHERE session = ?")
      .run(session, unknownSession);
    this.counts.unchecked = 0;
  }

  #folderOf(source: Pick<JournalRow, "stream" | "source">): StoreFolder {
    return StoreFolder.ofSource(this.#root, source, this.copiedStream);
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
      if (found.size !== bytes) return sizeReason(found.size, { bytes });
      return (await streamChecksum(path, bytes)) === crc32 ? undefined : otherBytesReason;
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
    const writeAccount = new AccountedRanges(this.journal).add(row, row.seq, row.seq, at);
    this.journal.transaction(() => {
      writeAccount?.();
      this.journal.query("DELETE FROM frames WHERE id = ?").run(row.id);
      // Without a cursor the next `frames receive` starts from the beginning and receives the frame
      // again.
      this.journal.query("DELETE FROM properties WHERE name = 'cursor'").run();
    })();
    return `; moved to ${aside}`;
  }

  /** Reports files without a row. */
  #findUnknown(): void {
    const unknown: FramePath[] = [];
    const onUnreadable = (folder: Omit<FramePath, "name">, error: unknown) => {
      // Retention may have removed an empty folder just now.
      if (systemCode(error) === "ENOENT") return;
      const path = join(folder.stream, folder.source === folder.stream ? "" : folder.source);
      this.report("unknown", folder, path, `the folder cannot be read: ${systemSentence(error)}`);
    };
    for (const frame of listFrameFiles(this.#root, this.copiedStream, onUnreadable)) {
      if (this.findRow(frame) === undefined) unknown.push(frame);
    }
    this.reportUnknown(unknown);
  }

  #acceptLosses(): void {
    this.journal.run("UPDATE losses SET state = 'accepted' WHERE state IS NULL");
    this.counts.accepted += this.counts.lost;
    this.counts.lost = 0;
  }
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
