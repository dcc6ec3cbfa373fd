/**
 * Local copy of a bucket's journal, in a temporary SQLite file. Rows have the order in which this
 * node learned of them. It may be deleted at any time between runs, because the next start reads
 * the bucket again.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { isOwnFolder } from "../../common/foreign-folder.ts";
import { asFramesError, FramesError, isSystemError, systemSentence } from "../../errors.ts";
import type { SourceInfo } from "../../frame.ts";
import type { OfferedFrameInfo, StoredFrameInfo } from "../conflict.ts";
import type { SourceSession } from "../journal/accounted-ranges.ts";
import { Journal } from "../journal/journal.ts";
import type { LogEntry, DecodedEntry, LogSource } from "./log-format.ts";
import { StoreLock } from "../lock.ts";
import type { JournalListener } from "../store-contents.ts";
import { type FrameRow, isMalformed, journalPath, rawShapeColumn } from "../journal/schema.ts";
import { provedKey, type SessionOwner } from "../session-owner.ts";

/** A row whose frame has other bytes in the local index. */
export interface Conflict {
  readonly row: FrameRow;
  readonly etag: string;
}

/** What is known of the log objects of a session. */
interface KnownSession {
  /** Highest number. */
  last: number;
  /** Number of the log object that names the key of the session, and whether by its id. */
  ownedFrom: number;
  hasKeyId: boolean;
  /** Whether the row of the owner may be lost, so that its entry must write it again. */
  isOwnerUnsure: boolean;
}

export class LocalIndex {
  /** Path of the SQLite file, for readers in this process and beside it. */
  readonly path: string;
  /** Temporary folder with the layout of a store but without frames. */
  readonly folder: string;
  readonly #lock: StoreLock;
  readonly #journal: Journal;
  #version = 0;
  readonly #sessions = new Map<string, KnownSession>();

  /**
   * @param identity distinguishes the store from others
   * @param parentFolder folder for the temporary folder
   * @throws {FramesError} `store` if the folder cannot be created
   */
  constructor(identity: string, parentFolder: string = tmpdir()) {
    removeStale(parentFolder);
    [this.folder, this.#lock] = makeFolder(parentFolder);
    this.path = journalPath(this.folder);
    try {
      mkdirSync(dirname(this.path));
      this.#journal = new Journal(this.path);
      this.#journal.setProperty("identity", identity);
      this.#journal.flush();
    } catch (error) {
      this.#removeFolder();
      throw this.#toStoreError(error);
    }
  }

  /**
   * Runs `act` on the journal. After a failure the entries of the current batch are missing, and are
   * to be applied again.
   *
   * @throws {FramesError} `store`
   */
  #use<T>(act: (journal: Journal) => T): T {
    try {
      return act(this.#journal);
    } catch (error) {
      // Only the caller's entries are lost, so the next ones need not fail as well.
      this.#journal.clearError(error);
      const storeError = this.#toStoreError(error);
      if (storeError !== error) {
        for (const known of this.#sessions.values()) known.isOwnerUnsure = true;
      }
      throw storeError;
    }
  }

  #toStoreError(error: unknown): unknown {
    const cause = error instanceof FramesError ? error.cause : error;
    if (!isSystemError(cause)) return error;
    const what = `Cannot use the local copy of the journal in ${this.folder}`;
    const hint = isMalformed(cause) ? "; start this command again, which makes a new copy" : "";
    return new FramesError("store", `${what}: ${systemSentence(cause)}${hint}`, { cause });
  }

  /** Rises with each frame row that is applied. */
  get version(): number {
    return this.#version;
  }

  /** Returns the highest number of a session's log objects, or 0 if none is known. */
  lastNumber(session: string): number {
    return this.#sessions.get(session)?.last ?? 0;
  }

  /** Returns the key that began a session; undefined if no log object names it. */
  sessionOwner(session: string): SessionOwner | undefined {
    return this.#use((journal) => journal.sessionOwner(session));
  }

  /** @throws {FramesError} `stolen-session` if another key began the session, or no sender did; `store` */
  checkSession(session: string, sender: SessionOwner): void {
    this.#use((journal) => journal.checkSession(session, sender));
  }

  /**
   * The key of the first entry owns the session. Segments come in any order, and entries of earlier
   * versions have no id of the key.
   */
  #updateSession({ header: { session, first, last }, entry }: DecodedEntry): void {
    const known = this.#sessions.get(session) ?? {
      last,
      ownedFrom: Infinity,
      hasKeyId: false,
      isOwnerUnsure: false,
    };
    this.#sessions.set(session, known);
    if (last > known.last) known.last = last;
    if (entry === undefined) return;
    const { key, keyId } = entry.logSource;
    const hasKeyId = keyId !== null;
    const isEarlier = first < known.ownedFrom || (known.isOwnerUnsure && first === known.ownedFrom);
    if (!(hasKeyId === known.hasKeyId ? isEarlier : hasKeyId)) return;
    known.isOwnerUnsure = false;
    known.ownedFrom = first;
    known.hasKeyId = hasKeyId;
    this.#journal.setSessionOwner(session, { key, keyId });
  }

  /**
   * Applies entries of log objects and segments.
   *
   * @returns rows that conflict with the bytes of a stored frame
   * @throws {FramesError} `store`
   */
  apply(decoded: readonly DecodedEntry[]): Conflict[] {
    return this.#use((journal) => this.#apply(journal, decoded));
  }

  #apply(journal: Journal, decoded: readonly DecodedEntry[]): Conflict[] {
    const conflicts: Conflict[] = [];
    for (const item of decoded) {
      this.#updateSession(item);
      const { entry } = item;
      if (entry === undefined) continue;
      const { session } = item.header;
      const { stream, source } = entry.logSource;
      const sourceSession = { stream, source, session };
      if (entry.kind === "loss") {
        const { first, last, reason, at, name } = entry;
        journal.addLoss(sourceSession, first, last, reason, at, name);
        // The lines of other sessions come in any order.
        const stored = name === undefined ? null : journal.find(stream, source, name);
        if (stored !== null) journal.endLosses({ stream, source, name: name! }, stored);
      } else if (entry.kind === "account") {
        journal.markAccounted(sourceSession, entry.first, entry.last, entry.at);
      } else {
        const row = toFrameRow(session, entry);
        const stored = journal.find(stream, source, row.name);
        this.#version++;
        if (stored === null) journal.addFrame(row);
        else if (stored.bytes !== row.bytes || stored.crc32 !== row.crc32) {
          conflicts.push({ row, etag: entry.etag });
        } else if (stored.session !== session || stored.seq !== row.seq) {
          journal.markAccounted(sourceSession, row.seq, row.seq, row.received);
        }
      }
    }
    return conflicts;
  }

  /** Replaces the row of the frame that has the same name. */
  replace(row: FrameRow): void {
    this.#use((journal) => journal.endReplacement({ row, partial: "" }, true));
  }

  /** Sets the one listener for removed rows, or removes it if undefined. */
  setListener(listener: JournalListener | undefined): void {
    this.#journal.listener = listener;
  }

  /** Commits applied entries, so that readers see them. */
  flush(): void {
    this.#use((journal) => journal.flush());
  }

  find(stream: string, source: string, name: string): StoredFrameInfo | null {
    return this.#use((journal) => journal.find(stream, source, name));
  }

  hasOpenLoss(
    sourceSession: SourceSession,
    sender: SessionOwner,
    name: string,
    reason: string,
  ): boolean {
    return this.#use((journal) => journal.hasOpenLoss(sourceSession, sender, name, reason));
  }

  findOffered(
    stream: string,
    source: string,
    name: string,
    captured: bigint,
  ): OfferedFrameInfo | null {
    return this.#use((journal) => journal.findOffered(stream, source, name, captured));
  }

  hasStream(stream: string): boolean {
    return this.#use((journal) => journal.hasStream(stream));
  }

  /** Runs `act` in one read transaction. */
  read<T>(act: () => T): T {
    return this.#use((journal) => journal.read(act));
  }

  /** Closes the index and deletes its folder. */
  close(): void {
    try {
      this.#journal.close();
    } catch {
      // Its rows are in the bucket as well.
    }
    this.#removeFolder();
  }

  #removeFolder(): void {
    this.#lock.release();
    try {
      rmSync(this.folder, { recursive: true, force: true });
    } catch {
      // The next index deletes it as a stale one.
    }
  }
}

const folderPrefix = "frames-bucket-";

/**
 * Creates a temporary folder and locks it. Retries, because another process may delete the folder
 * before it is locked.
 *
 * @throws {FramesError} `store`
 */
function makeFolder(parentFolder: string): [folder: string, lock: StoreLock] {
  for (let attempt = 1; ; attempt++) {
    try {
      const folder = mkdtempSync(join(parentFolder, folderPrefix));
      return [folder, new StoreLock(folder)];
    } catch (error) {
      if (attempt < maxFolderAttempts) continue;
      throw asFramesError(
        error,
        "store",
        `Cannot write the local copy of the journal in ${parentFolder}`,
      );
    }
  }
}

const maxFolderAttempts = 20;

/** Deletes the folders of killed processes, whose locks are free. */
function removeStale(parentFolder: string): void {
  try {
    for (const name of readdirSync(parentFolder)) {
      if (name.startsWith(folderPrefix)) removeIfStale(join(parentFolder, name));
    }
  } catch {
    // A folder that cannot be listed has no stale copies to delete.
  }
}

function removeIfStale(folder: string): void {
  try {
    // Another user's folder may hold links in place of the lock.
    if (!isOwnFolder(folder)) return;
    new StoreLock(folder).release();
    rmSync(folder, { recursive: true, force: true });
  } catch {
    // The folder is in use.
  }
}

/** Converts an entry to a row of the journal. */
export function toFrameRow(session: string, entry: LogEntry & { kind: "frame" }): FrameRow {
  const { logSource, kind: _, etag: __, ...row } = entry;
  const { stream, source, key, format } = logSource;
  return { ...row, stream, source, key, format, session };
}

/** Returns the fields of a source that the entries of a session log repeat. */
export function toLogSource(sourceInfo: SourceInfo): LogSource {
  const { stream, source, raw } = sourceInfo;
  return { stream, source, ...provedKey(sourceInfo), format: rawShapeColumn(raw) };
}

/** @throws {FramesError} `not-stored` if the time exceeds 64 bits */
export function checkCaptureTime(captured: bigint): void {
  if (BigInt.asIntN(64, captured) === captured) return;
  throw new FramesError(
    "not-stored",
    `Cannot store the capture time ${captured}: it needs more than 64 bits`,
  );
}
