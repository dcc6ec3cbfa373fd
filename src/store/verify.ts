/** Holds the frames of a store against its journal. */
import { Database } from "bun:sqlite";
import { existsSync, lstatSync, mkdirSync, renameSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { crc32 } from "node:zlib";
import { asFramesError, FramesError, systemCode, systemSentence } from "../errors.ts";
import { Accounts } from "./accounts.ts";
import { copiedStream } from "./copy-of.ts";
import { StoreLock } from "./lock.ts";
import { rebuildJournal } from "./rebuild.ts";
import {
  hasTable,
  isMalformed,
  journalFailure,
  journalPath,
  openForReading,
  prepareTables,
  propertyOf,
} from "./schema.ts";
import { forEachOf } from "./sync.ts";
import { framesBelow, pathOfFrame, placeOf } from "./tree.ts";

/** How to verify. */
export interface VerifyOptions {
  /** Set damaged frames aside and out of the journal, and make a new journal if it is malformed. */
  readonly repair?: boolean;
  /** Frames that are not there were moved away. */
  readonly ignoreMissing?: boolean;
  /** Is told of each thing that is wrong. */
  readonly onFinding?: (finding: Finding) => void;
  /** Is told now and then how far it is. */
  readonly onProgress?: (progress: VerifyProgress) => void;
}

/** Something that is wrong. */
export interface Finding {
  readonly kind: "missing" | "damaged" | "unknown" | "lost";
  readonly stream: string;
  readonly source: string;
  /** Path of the frame below the store, or the numbers that were lost. */
  readonly what: string;
  readonly why: string;
}

/** How far verifying is. */
export interface VerifyProgress {
  readonly total: number;
  readonly frames: number;
  readonly bytes: number;
}

/** What was found. */
export interface Verification extends VerifyProgress {
  readonly missing: number;
  readonly damaged: number;
  readonly unknown: number;
  /** Frames that never came. */
  readonly lost: number;
  /** Rows that a new journal was made of, if that was needed. */
  readonly rebuilt: number | undefined;
}

interface Row {
  id: number;
  stream: string;
  source: string;
  session: string;
  seq: number;
  name: string;
  bytes: number;
  crc32: number;
}

interface LossRow {
  stream: string;
  source: string;
  first: number;
  last: number;
  reason: string;
}

/** Frames that are read at the same time, and bytes of a large one at a time. */
const readAtOnce = 16;
const pieceSize = 1 << 20;

/** Rows that are fetched at a time: a server may be writing the journal meanwhile. */
const pageSize = 1000;

/**
 * Verifies the store in `directory`, beside the server that serves it if nothing is to be repaired.
 *
 * @throws {FramesError} `missing` if there is no store, `store` if its journal cannot be read,
 * `locked` if it is to be repaired and served at the same time
 */
export async function verify(
  directory: string,
  options: VerifyOptions = {},
): Promise<Verification> {
  const place = resolve(directory);
  const path = journalPath(place);
  if (!existsSync(join(place, ".frames"))) {
    const why = existsSync(place) ? "it holds no store of frames" : "no such directory";
    throw new FramesError("missing", `Cannot verify ${place}: ${why}`);
  }
  const lock = options.repair === true ? new StoreLock(join(place, ".frames")) : undefined;
  try {
    const isSound = checkJournal(path);
    if (!isSound && lock === undefined) {
      throw new FramesError(
        "store",
        `The journal ${path} is malformed or gone: frames verify ${directory} --repair makes a new one`,
      );
    }
    const rebuilt = isSound ? undefined : rebuildJournal(place);
    const journal = lock === undefined ? openForReading(path) : new Database(path);
    try {
      if (lock !== undefined) prepareTables(journal);
      return { ...(await new Verifier(place, journal, options).run()), rebuilt };
    } catch (error) {
      throw asFramesError(error, "store", `Cannot verify ${place}`);
    } finally {
      journal.close();
    }
  } finally {
    lock?.release();
  }
}

/** Whether SQLite finds the journal in order. */
function checkJournal(path: string): boolean {
  let journal: Database | undefined;
  try {
    // An empty file would be a new journal to SQLite.
    if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) === 0) return false;
    journal = openForReading(path);
    const [answer] = journal.query<{ quick_check: string }, []>("PRAGMA quick_check(1)").all();
    journal.query("SELECT 1 FROM losses LIMIT 1").get();
    return answer?.quick_check === "ok";
  } catch (error) {
    // A table that is not there cannot be read either.
    if (isMalformed(error) || systemCode(error) === "SQLITE_ERROR") return false;
    throw journalFailure("read", path, error);
  } finally {
    journal?.close();
  }
}

class Verifier {
  readonly #place: string;
  readonly #journal: Database;
  readonly #options: VerifyOptions;
  readonly #counts = { missing: 0, damaged: 0, unknown: 0, lost: 0 };
  /** The stream that the store is a copy of, if it is one. */
  readonly #copied: string | undefined;
  #knowsRemoving: boolean | undefined;
  #total = 0;
  #frames = 0;
  #bytes = 0;

  constructor(place: string, journal: Database, options: VerifyOptions) {
    this.#place = place;
    this.#journal = journal;
    this.#options = options;
    this.#copied = copiedStream({ property: (name) => propertyOf(journal, name) });
  }

  async run(): Promise<Omit<Verification, "rebuilt">> {
    const count = this.#journal.query<{ frames: number }, []>(
      "SELECT count(*) AS frames FROM frames",
    );
    this.#total = count.get()!.frames;
    await forEachOf(this.#rows(), readAtOnce, async (row) => await this.#verifyFrame(row));
    this.#findUnknown();
    this.#findLost();
    return { ...this.#progress, ...this.#counts };
  }

  get #progress(): VerifyProgress {
    return { total: this.#total, frames: this.#frames, bytes: this.#bytes };
  }

  *#rows(): Generator<Row> {
    const page = this.#journal.query<Row, [number]>(
      `SELECT id, stream, source, session, seq, name, bytes, crc32 FROM frames
        WHERE id > ? ORDER BY id LIMIT ${pageSize}`,
    );
    for (let after = 0; ;) {
      const rows = page.all(after);
      if (rows.length === 0) return;
      yield* rows;
      after = rows.at(-1)!.id;
      this.#options.onProgress?.(this.#progress);
    }
  }

  #find(
    kind: Finding["kind"],
    { stream, source }: Pick<Row, "stream" | "source">,
    what: string,
    why: string,
  ): void {
    this.#counts[kind]++;
    this.#options.onFinding?.({ kind, stream, source, what, why });
  }

  async #verifyFrame(row: Row): Promise<void> {
    let wrong = await this.#wrongWith(row);
    // A server may just be replacing it: then it has another row by now.
    if (wrong !== undefined && this.#isOutdated(row)) wrong = undefined;
    if (wrong === "gone" && this.#isBeingRemoved(row)) wrong = undefined;
    this.#frames++;
    this.#bytes += row.bytes;
    if (wrong === undefined) return;
    const path = pathOfFrame(row.stream, row.source, row.name);
    if (wrong !== "gone") {
      const where = this.#options.repair === true ? this.#setAside(row, path) : "";
      return this.#find("damaged", row, path, wrong + where);
    }
    if (this.#options.ignoreMissing === true) return;
    this.#find("missing", row, path, "it is in the journal, but not there");
  }

  #isOutdated({ id }: Row): boolean {
    return this.#journal.query("SELECT 1 FROM frames WHERE id = ?").get(id) === null;
  }

  /** A server that removes old frames takes the file first, and may have been killed then. */
  #isBeingRemoved({ id }: Row): boolean {
    this.#knowsRemoving ??= hasTable(this.#journal, "removing");
    if (!this.#knowsRemoving) return false;
    return this.#journal.query("SELECT 1 FROM removing WHERE id = ?").get(id) !== null;
  }

  async #wrongWith({ stream, source, name, bytes, crc32 }: Row): Promise<string | undefined> {
    const path = join(this.#place, placeOf(pathOfFrame(stream, source, name), this.#copied));
    try {
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found === undefined) return "gone";
      if (!found.isFile()) return "it is no file";
      if (found.size !== bytes) return `it has ${found.size} bytes, not ${bytes}`;
      if ((await checksumOf(path, bytes)) !== crc32) return "its bytes are not those that came";
      return undefined;
    } catch (error) {
      if (systemCode(error) === "ENOENT") return "gone";
      return `it cannot be read: ${systemSentence(error)}`;
    }
  }

  /** Takes a damaged frame out of the store and the journal, so that the next send brings it. */
  #setAside(row: Row, path: string): string {
    const aside = freePath(join(this.#place, ".frames", "damaged", path));
    mkdirSync(dirname(aside), { recursive: true });
    renameSync(join(this.#place, placeOf(path, this.#copied)), aside);
    const at = BigInt(Date.now()) * 1_000_000n;
    // It came, so its number is no gap.
    const account = new Accounts(this.#journal).add(row, row.seq, row.seq, at);
    this.#journal.transaction(() => {
      account?.();
      this.#journal.query("DELETE FROM frames WHERE id = ?").run(row.id);
      // A copy has to be gone through from the beginning to get it again.
      this.#journal.query("DELETE FROM properties WHERE name = 'cursor'").run();
    })();
    return `; it is in ${aside} now`;
  }

  /** Files that no row stands for. */
  #findUnknown(): void {
    const row = this.#journal.query<unknown, [string, string, string]>(
      "SELECT 1 FROM frames WHERE stream = ? AND source = ? AND name = ?",
    );
    const unknown: Pick<Row, "stream" | "source" | "name">[] = [];
    for (const frame of framesBelow(this.#place, this.#copied)) {
      if (row.get(frame.stream, frame.source, frame.name) === null) unknown.push(frame);
    }
    for (const frame of unknown) {
      // A server gives a frame its name just before its row.
      if (row.get(frame.stream, frame.source, frame.name) !== null) continue;
      const path = pathOfFrame(frame.stream, frame.source, frame.name);
      this.#find("unknown", frame, path, "it is not in the journal");
    }
  }

  #findLost(): void {
    const losses = this.#journal.query<LossRow, []>(
      "SELECT stream, source, first, last, reason FROM losses ORDER BY rowid",
    );
    for (const { stream, source, first, last, reason } of losses.iterate()) {
      const numbers = first === last ? `number ${first}` : `numbers ${first} to ${last}`;
      this.#find("lost", { stream, source }, `${stream}/${source}, ${numbers}`, reason);
    }
  }
}

/** `path`, or if that is taken the next one with a number. */
function freePath(path: string): string {
  let free = path;
  for (let number = 1; lstatSync(free, { throwIfNoEntry: false }) !== undefined; number++) {
    free = `${path}.${number}`;
  }
  return free;
}

/** CRC-32 of a file of `size` bytes, read so that others can be read meanwhile. */
export async function checksumOf(path: string, size: number): Promise<number> {
  const file = Bun.file(path);
  if (size <= pieceSize) return crc32(await file.bytes());
  let crc = 0;
  for (let from = 0; from < size; from += pieceSize) {
    crc = crc32(await file.slice(from, Math.min(from + pieceSize, size)).bytes(), crc);
  }
  return crc;
}
