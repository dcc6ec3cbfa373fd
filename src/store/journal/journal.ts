/**
 * The record of every stored frame and every reported loss, in `DIR/.frames/journal.sqlite`: what
 * "already stored" means, and the order in which things came. Others may read it at any time.
 */
import { Database } from "bun:sqlite";
import type { FramesError } from "../../errors.ts";
import type { SourceInfo } from "../../frame.ts";
import type { OfferedFrameInfo, StoredFrameInfo } from "../conflict.ts";
import type { FramePath } from "../paths.ts";
import type { JournalListener, RemovedFrameInfo } from "../store-contents.ts";
import { AccountedRanges, type SourceSession } from "./accounted-ranges.ts";
import { type DeletionCandidate, DeletionLog } from "./deletion-log.ts";
import {
  frameColumns,
  type FrameRow,
  journalError,
  prepareTables,
  type PropertyName,
  readProperty,
  framePlaceholders,
  frameValues,
} from "./schema.ts";
import { ByteTotal } from "./byte-total.ts";

/** A frame that takes the place of another: its row, and the file that is to get its name. */
export interface Replacement {
  readonly row: FrameRow;
  /** Name below `.frames/partial`; once it is gone, the file has the frame's name. */
  readonly partial: string;
}

function prepareJournalStatements(database: Database) {
  return {
    find: database.query<StoredFrameInfo, [string, string, string]>(
      "SELECT bytes, crc32, key, session, seq FROM frames WHERE stream = ? AND source = ? AND name = ?",
    ),
    // File systems and their interfaces lose parts of a microsecond (SPEC section 8).
    findOffered: database.query<OfferedFrameInfo, [string, string, string, bigint]>(
      `SELECT bytes, crc32, key, session, seq, captured BETWEEN ?4 - 999 AND ?4 + 999 AS sameTime
        FROM frames WHERE stream = ?1 AND source = ?2 AND name = ?3`,
    ),
    // Of a stream whose frames were all removed there is still an account.
    anyOfStream: database.query<unknown, [string]>(
      `SELECT 1 WHERE EXISTS (SELECT 1 FROM frames WHERE stream = ?1)
        OR EXISTS (SELECT 1 FROM accounted WHERE stream = ?1)`,
    ),
    findId: database.query<{ id: number }, [string, string, string]>(
      "SELECT id FROM frames WHERE stream = ? AND source = ? AND name = ?",
    ),
    // A frame that waits for its row may get it from somebody who found it there.
    insertFrame: database.query(
      `INSERT INTO frames (${frameColumns}) VALUES (${framePlaceholders})
        ON CONFLICT (stream, source, name) DO NOTHING`,
    ),
    // The row of the frame before goes: this one came later, under a number that no row has had.
    replaceFrame: database.query(
      `INSERT OR REPLACE INTO frames (id, ${frameColumns})
        VALUES ((SELECT coalesce(max(id), 0) + 1 FROM frames), ${framePlaceholders})`,
    ),
    anyFrame: database.query(
      "SELECT 1 WHERE EXISTS (SELECT 1 FROM frames) OR EXISTS (SELECT 1 FROM accounted)",
    ),
    setProperty: database.query("INSERT OR REPLACE INTO properties (name, value) VALUES (?, ?)"),
    insertReplacement: database.query(
      `INSERT INTO replacements (${frameColumns}, partial) VALUES (${framePlaceholders}, ?)`,
    ),
    replacements: database
      .query<FrameRow & { partial: string }, []>("SELECT * FROM replacements")
      .safeIntegers(true),
    dropReplacement: database.query("DELETE FROM replacements WHERE partial = ?"),
    // A sender repeats after a reconnection what may not have come.
    insertLoss: database.query(
      `INSERT INTO losses (stream, source, session, first, last, reason, at)
        SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE NOT EXISTS (SELECT 1 FROM losses
          WHERE session = ?3 AND source = ?2 AND first = ?4 AND last = ?5 AND stream = ?1)`,
    ),
    findFolded: database.query<{ actual: string }, [string]>(
      "SELECT actual FROM folded WHERE path = ?",
    ),
    claimFolded: database.query("INSERT OR IGNORE INTO folded (path, actual) VALUES (?, ?)"),
    anyFolded: database.query("SELECT 1 FROM folded LIMIT 1"),
    releaseFolded: database.query("DELETE FROM folded WHERE path = ? AND actual = ?"),
    dropFolded: database.query("DELETE FROM folded"),
    paths: database.query<FramePath, []>("SELECT stream, source, name FROM frames ORDER BY id"),
    begin: database.query("BEGIN IMMEDIATE"),
    beginReading: database.query("BEGIN"),
    commit: database.query("COMMIT"),
    rollback: database.query("ROLLBACK"),
  };
}

/** The journal, open for writing by the one process that serves the store. */
export class Journal {
  readonly #path: string;
  readonly #database: Database;
  readonly #statements: ReturnType<typeof prepareJournalStatements>;
  readonly #accountedRanges: AccountedRanges;
  readonly #deletionLog: DeletionLog;
  readonly #byteTotal: ByteTotal;
  /** Is told of rows that are gone. */
  listener: JournalListener | undefined;
  #inTransaction = false;
  #isDurable = false;
  /** Why rows of the batch are gone, until everybody has heard of it. */
  #pendingError: FramesError | undefined;

  /** @throws {FramesError} `store` if SQLite cannot open or read it */
  constructor(path: string) {
    this.#path = path;
    let database: Database | undefined;
    try {
      database = new Database(path);
      // Others may look into the journal, and even hold it for a moment.
      database.run("PRAGMA busy_timeout = 2000");
      database.run("PRAGMA journal_mode = WAL");
      // In WAL mode a killed process loses nothing committed; only a power cut may.
      database.run("PRAGMA synchronous = NORMAL");
      prepareTables(database);
      this.#statements = prepareJournalStatements(database);
      this.#accountedRanges = new AccountedRanges(database);
      this.#byteTotal = new ByteTotal(database);
      this.#deletionLog = new DeletionLog(database, this.#accountedRanges);
      this.#database = database;
    } catch (error) {
      database?.close();
      throw journalError("open", path, error);
    }
  }

  /** The frame stored under this name, rows not yet committed included. */
  find(stream: string, source: string, name: string): StoredFrameInfo | null {
    return this.#statements.find.get(stream, source, name);
  }

  /** Whether anything is stored under this stream, or was until it was removed as too old. */
  hasStream(stream: string): boolean {
    return this.#statements.anyOfStream.get(stream) !== null;
  }

  /** Likewise, with what tells whether it is the one that is offered. `captured` is as in a row. */
  findOffered(
    stream: string,
    source: string,
    name: string,
    captured: bigint,
  ): OfferedFrameInfo | null {
    return this.#statements.findOffered.get(stream, source, name, captured);
  }

  /** Reads many rows: one by one each would take the lock of the file and let it go. */
  read<T>(act: () => T): T {
    if (this.#database.inTransaction) return act();
    this.#statements.beginReading.run();
    try {
      return act();
    } finally {
      // What was written meanwhile began a batch of its own.
      if (!this.#inTransaction && this.#database.inTransaction) this.#statements.commit.run();
    }
  }

  /** Records a stored frame; it lasts once `flush` returned. */
  addFrame(row: FrameRow): void {
    const { changes } = this.#write(() => this.#statements.insertFrame.run(...frameValues(row)));
    if (changes > 0) this.#byteTotal.add(row.bytes);
  }

  /** Sum of the bytes of all frames; nothing as long as they are being summed up: ask again. */
  get totalBytes(): number | undefined {
    return this.#byteTotal.advance();
  }

  /** Accounts for numbers of a session that get no row, so that they count as no gap. */
  markAccounted(sourceSession: SourceSession, first: number, last: number, at: bigint): void {
    const write = this.#accountedRanges.add(sourceSession, first, last, at);
    if (write !== undefined) this.#write(write);
  }

  /** What is known of frames that were removed, and of those that may be. */
  get deletionLog(): DeletionLog {
    return this.#deletionLog;
  }

  /** Changes what is known of removed frames; it lasts once `flush` returned. */
  updateDeletions(act: (deletionLog: DeletionLog) => void): void {
    this.#write(() => act(this.#deletionLog));
  }

  /** The files of these frames are gone, and so are their rows once `flush` returned. */
  endDeletion(frames: readonly DeletionCandidate[], at: bigint): void {
    this.updateDeletions((removals) => removals.end(frames, at));
    for (const frame of frames) this.#onFrameRemoved(frame);
  }

  #onFrameRemoved(frame: RemovedFrameInfo): void {
    this.#byteTotal.remove(frame.id, frame.bytes);
    this.listener?.onFrameRemoved(frame);
  }

  /** Notes that a frame is about to take the place of another, or its file that of one moved away. */
  addReplacement({ row, partial }: Replacement): void {
    this.#write(() => this.#statements.insertReplacement.run(...frameValues(row), partial));
  }

  /** The frame has taken its place, if `isDone`; if not, it never will. */
  endReplacement({ row, partial }: Replacement, isDone: boolean): void {
    this.#write(() => {
      if (isDone) this.#replace(row);
      this.#statements.dropReplacement.run(partial);
    });
  }

  #replace(row: FrameRow): void {
    const { stream, source, name, session, seq, received } = row;
    const previous = this.find(stream, source, name);
    if (previous !== null) {
      const { id } = this.#statements.findId.get(stream, source, name)!;
      this.#onFrameRemoved({ id, stream, source, bytes: previous.bytes });
    }
    this.#statements.replaceFrame.run(...frameValues(row));
    this.#byteTotal.add(row.bytes);
    // The number that it had came, too, and was not lost.
    if (previous === null || (previous.session === session && previous.seq === seq)) return;
    this.#accountedRanges.add(
      { ...row, session: previous.session },
      previous.seq,
      previous.seq,
      received,
    )?.();
  }

  /** Replacements that were begun and not ended. */
  unfinishedReplacements(): Replacement[] {
    return this.#statements.replacements.all().map(({ partial, ...row }) => ({
      partial,
      row: { ...row, seq: Number(row.seq), bytes: Number(row.bytes), crc32: Number(row.crc32) },
    }));
  }

  /** From now on what `flush` commits survives a power cut, if the disk keeps what it was told to. */
  makeDurable(): void {
    if (this.#isDurable) return;
    this.flushKeepingError();
    this.#database.run("PRAGMA synchronous = FULL");
    this.#isDurable = true;
  }

  /** Records numbers that will never come. `at` is in nanoseconds since 1970. */
  addLoss(sourceInfo: SourceInfo, first: number, last: number, reason: string, at: bigint): void {
    const { stream, source, session } = sourceInfo;
    this.#write(() =>
      this.#statements.insertLoss.run(stream, source, session, first, last, reason, at),
    );
  }

  /** For stores where case and Unicode form do not tell names apart: who holds the folded path. */
  foldedOwner(path: string): string | undefined {
    return this.#statements.findFolded.get(path)?.actual;
  }

  /** Whether anything is stored, or was. */
  get hasFrames(): boolean {
    return this.#statements.anyFrame.get() !== null;
  }

  /** What the journal says of the store as a whole. */
  property(name: PropertyName): string | undefined {
    return readProperty(this.#database, name);
  }

  /** Says something of the store as a whole; it lasts once `flush` returned. */
  setProperty(name: PropertyName, value: string): void {
    this.#write(() => this.#statements.setProperty.run(name, value));
  }

  /** Gives a folded path to `actual`, unless somebody holds it. */
  claimFolded(path: string, actual: string): void {
    this.#write(() => this.#statements.claimFolded.run(path, actual));
  }

  /** Gives up a folded path that `actual` holds. */
  releaseFolded(path: string, actual: string): void {
    this.#write(() => this.#statements.releaseFolded.run(path, actual));
  }

  /** Forgets who holds which folded path: what is stored from now on does not claim its own. */
  dropFolded(): void {
    if (this.#statements.anyFolded.get() !== null) {
      this.#write(() => this.#statements.dropFolded.run());
    }
  }

  /** The stored frames whose paths are to be claimed: all, if none is. */
  pathsToClaim(): Iterable<FramePath> {
    return this.#statements.anyFolded.get() === null ? this.#statements.paths.iterate() : [];
  }

  /** Writes within the transaction of the batch. */
  #write<T>(act: () => T): T {
    if (this.#pendingError !== undefined) throw this.#pendingError;
    try {
      // While rows are read a transaction is open, which becomes the one of the batch.
      if (!this.#inTransaction && !this.#database.inTransaction) this.#statements.begin.run();
      this.#inTransaction = true;
      return act();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /**
   * After some errors SQLite rolls back by itself, with the rows of every connection. So the batch is
   * given up, and the next `flush` says so: nobody may count on it.
   */
  #fail(error: unknown): FramesError {
    this.#pendingError = journalError("write", this.#path, error);
    this.#byteTotal.reset();
    this.listener?.onReset();
    if (this.#database.inTransaction) this.#statements.rollback.run();
    this.#inTransaction = false;
    return this.#pendingError;
  }

  /**
   * Commits what was recorded: one transaction for each batch.
   *
   * @throws {FramesError} `store`: without its journal no server can keep its promise
   */
  flush(): void {
    const pendingError = this.#pendingError;
    this.#pendingError = undefined;
    if (pendingError !== undefined) throw pendingError;
    if (!this.#inTransaction) return;
    try {
      this.#statements.commit.run();
      this.#inTransaction = false;
    } catch (error) {
      const journalFailed = this.#fail(error);
      this.#pendingError = undefined;
      throw journalFailed;
    }
  }

  /**
   * Commits on behalf of one: if that fails, the next `flush` fails as well, since everybody whose rows
   * are gone must hear of it.
   *
   * @throws {FramesError} `store`
   */
  flushKeepingError(): void {
    if (this.#pendingError !== undefined) throw this.#pendingError;
    try {
      this.flush();
    } catch (error) {
      this.#pendingError = error as FramesError;
      throw error;
    }
  }

  /** Everybody has heard of `error`: the next flush need not tell it. */
  clearError(error: unknown): void {
    if (this.#pendingError === error) this.#pendingError = undefined;
  }

  /** Its files, for whoever wants them on the disk. */
  get filePaths(): readonly string[] {
    return [this.#path, `${this.#path}-wal`];
  }

  /** Whether something waits for `flush`. */
  get isDirty(): boolean {
    return this.#inTransaction || this.#pendingError !== undefined;
  }

  /** Commits and closes. */
  close(): void {
    try {
      this.flush();
    } finally {
      this.#database.close();
    }
  }
}
