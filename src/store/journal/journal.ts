/**
 * Records every stored frame and every reported loss, in `DIR/.frames/journal.sqlite`. It decides
 * whether a frame is already stored, and in which order frames arrived. Other processes may read it
 * at any time.
 */
import { compileCheaply } from "../../common/compilation.ts";
import { Database } from "bun:sqlite";
import type { FramesError } from "../../errors.ts";
import type { OfferedFrameInfo, StoredFrameInfo } from "../conflict.ts";
import type { FramePath } from "../paths.ts";
import type { JournalListener, RemovedFrameInfo } from "../store-contents.ts";
import { AccountedRanges, type SourceSession } from "./accounted-ranges.ts";
import {
  checkSessionOwner,
  hasOtherKey,
  type SessionOwner,
  stolenSession,
  unknownSession,
} from "../session-owner.ts";
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
  updateIdentityFile,
} from "./schema.ts";
import { ByteTotal } from "./byte-total.ts";
import { SessionOwners } from "./session-owners.ts";
import { isPathPart, isSource, rowChecks } from "./row-check.ts";

/** A frame that replaces another: its row, and the file that will get its name. */
export interface Replacement {
  readonly row: FrameRow;
  /**
   * File name below `.frames/partial`. If that file is gone, it was renamed to the frame's name.
   */
  readonly partial: string;
}

/** Sessions without rows above which their keys are recorded. */
const maxBegunSessions = 1000;

/** A loss that the arrival of a frame may end, and the key that reported it. */
interface OpenLoss extends SessionOwner {
  readonly id: number;
  readonly session: string;
  readonly reason: string;
}

/**
 * Columns of a stored frame. The id of its key is that of the key that began its session. It is a
 * subquery because most names are free, and a join costs 5 us also for those.
 */
const storedColumns = `bytes, crc32, key, session, seq,
  (SELECT key_id FROM sessions WHERE sessions.session = frames.session) AS keyId`;

function prepareJournalStatements(database: Database) {
  return {
    find: database.query<StoredFrameInfo, [string, string, string]>(
      `SELECT ${storedColumns} FROM frames WHERE stream = ? AND source = ? AND name = ?`,
    ),
    // Capture times may differ below a microsecond, because file systems and their interfaces lose
    // that precision (SPEC section 8).
    findOffered: database.query<OfferedFrameInfo, [string, string, string, bigint]>(
      `SELECT ${storedColumns}, captured BETWEEN ?4 - 999 AND ?4 + 999 AS sameTime
        FROM frames WHERE stream = ?1 AND source = ?2 AND name = ?3`,
    ),
    // A stream whose frames were all removed still has accounted numbers.
    anyOfStream: database.query<unknown, [string]>(
      `SELECT 1 WHERE EXISTS (SELECT 1 FROM frames WHERE stream = ?1)
        OR EXISTS (SELECT 1 FROM accounted WHERE stream = ?1)`,
    ),
    findId: database.query<{ id: number }, [string, string, string]>(
      "SELECT id FROM frames WHERE stream = ? AND source = ? AND name = ?",
    ),
    // The name may already have a row: another sender may have found the frame's file and recorded
    // it.
    insertFrame: database.query(
      `INSERT INTO frames (${frameColumns}) VALUES (${framePlaceholders})
        ON CONFLICT (stream, source, name) DO NOTHING`,
    ),
    // Deletes the row of the replaced frame. The new row gets a higher id, because it arrived
    // later.
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
    // A sender repeats unconfirmed loss reports after it reconnects, so equal reports are ignored.
    insertLoss: database.query(
      `INSERT INTO losses (stream, source, session, first, last, reason, at, name)
        SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE NOT EXISTS (SELECT 1 FROM losses
          WHERE session = ?3 AND source = ?2 AND first = ?4 AND last = ?5 AND stream = ?1)`,
    ),
    openLossesOf: database.query<OpenLoss, [string, string, string]>(
      `SELECT losses.rowid AS id, session, reason, key, key_id AS keyId
        FROM losses LEFT JOIN sessions USING (session)
        WHERE stream = ? AND source = ? AND name = ? AND state IS NOT 'came'`,
    ),
    anyNamedLoss: database.query(
      "SELECT 1 FROM losses WHERE name IS NOT NULL AND state IS NOT 'came' LIMIT 1",
    ),
    endLoss: database.query<null, [number, bigint]>(
      "UPDATE losses SET state = 'came' WHERE rowid = ? AND at <= ?",
    ),
    receivedAt: database
      .query<{ received: bigint }, [string, string, string]>(
        "SELECT received FROM frames WHERE stream = ? AND source = ? AND name = ?",
      )
      .safeIntegers(true),
    confirmFrame: database.query(
      `UPDATE frames SET session = ?4, seq = ?5, captured = ?6, key = ?7, meta = ?8, format = ?9,
          is_key = coalesce(?10, is_key)
        WHERE stream = ?1 AND source = ?2 AND name = ?3 AND session = '${unknownSession}'`,
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

/** The journal, opened for writing by the one process that serves the store. */
export class Journal {
  readonly #path: string;
  readonly #database: Database;
  readonly #statements: ReturnType<typeof prepareJournalStatements>;
  readonly #accountedRanges: AccountedRanges;
  readonly #deletionLog: DeletionLog;
  readonly #sessionOwners: SessionOwners;
  /** Sessions whose key is recorded with the next write. */
  readonly #begunSessions = new Map<string, SessionOwner>();
  readonly #byteTotal: ByteTotal;
  listener: JournalListener | undefined;
  /** Frames whose rows the batch removes. */
  #removedFrames: RemovedFrameInfo[] = [];
  #hasNamedLosses: boolean;
  #inTransaction = false;
  #isDurable = false;
  /** Why the current batch was rolled back, until `flush` has thrown it. */
  #pendingError: FramesError | undefined;

  /** @throws {FramesError} `store` if SQLite cannot open or read it */
  constructor(path: string) {
    this.#path = path;
    compileCheaply(this.#write, this.addFrame, this.find);
    let database: Database | undefined;
    try {
      database = new Database(path);
      // Another process may read the journal and lock it for a moment.
      database.run("PRAGMA busy_timeout = 2000");
      database.run("PRAGMA journal_mode = WAL");
      // In WAL mode a killed process loses no committed row. Only a power cut may.
      database.run("PRAGMA synchronous = NORMAL");
      prepareTables(database, path);
      this.#statements = prepareJournalStatements(database);
      this.#accountedRanges = new AccountedRanges(database);
      this.#sessionOwners = new SessionOwners(database);
      this.#byteTotal = new ByteTotal(database);
      this.#deletionLog = new DeletionLog(database, this.#accountedRanges);
      this.#hasNamedLosses = this.#statements.anyNamedLoss.get() !== null;
      this.#database = database;
    } catch (error) {
      database?.close();
      throw journalError("open", path, error);
    }
  }

  /** Returns the frame stored under this name. Rows that are not committed yet count. */
  find(stream: string, source: string, name: string): StoredFrameInfo | null {
    return this.#statements.find.get(stream, source, name);
  }

  /** Returns whether a stream has stored frames or accounted numbers. */
  hasStream(stream: string): boolean {
    return this.#statements.anyOfStream.get(stream) !== null;
  }

  /**
   * Returns the frame stored under this name, and whether its capture time matches.
   *
   * @param captured nanoseconds since 1970, within 64 bits
   */
  findOffered(
    stream: string,
    source: string,
    name: string,
    captured: bigint,
  ): OfferedFrameInfo | null {
    return this.#statements.findOffered.get(stream, source, name, captured);
  }

  /**
   * Runs `act` in one read transaction, because SQLite would otherwise lock the file for each
   * query.
   */
  read<T>(act: () => T): T {
    if (this.#database.inTransaction) return act();
    this.#statements.beginReading.run();
    try {
      return act();
    } finally {
      // If `act` wrote rows, the transaction stays open until `flush`.
      if (!this.#inTransaction && this.#database.inTransaction) this.#statements.commit.run();
    }
  }

  /** Returns the key that began a session; undefined if the session is not known. */
  sessionOwner(session: string): SessionOwner | undefined {
    return this.#begunSessions.get(session) ?? this.#sessionOwners.find(session);
  }

  /**
   * Checks that a sender may continue a session.
   *
   * @throws {FramesError} `stolen-session` if another key began it, or no sender did
   */
  checkSession(session: string, sender: SessionOwner): void {
    if (session === unknownSession) throw stolenSession();
    checkSessionOwner(this.sessionOwner(session), sender);
  }

  /**
   * Begins a session, or continues one. Its key is recorded with the next rows that are written.
   *
   * @throws {FramesError} `stolen-session` if another key began it
   */
  beginSession(session: string, sender: SessionOwner): void {
    this.checkSession(session, sender);
    if (!this.#sessionOwners.isNews(session, sender)) return;
    this.#begunSessions.set(session, sender);
    if (this.#begunSessions.size > maxBegunSessions) this.#write(() => {});
  }

  /** Records the key that began a session, in place of what was recorded before. */
  setSessionOwner(session: string, owner: SessionOwner): void {
    this.#write(() => this.#sessionOwners.set(session, owner));
  }

  /** Records a stored frame. The row is committed by `flush`. */
  addFrame(row: FrameRow): void {
    const { changes } = this.#write(() => this.#statements.insertFrame.run(...frameValues(row)));
    if (changes > 0) this.#byteTotal.add(row.bytes);
    this.#endLossesOf(row);
  }

  #endLossesOf(row: FrameRow): void {
    if (!this.#hasNamedLosses) return;
    const sender = { key: row.key, keyId: this.sessionOwner(row.session)?.keyId ?? null };
    this.endLosses(row, sender, row.received);
  }

  /**
   * Replaces the facts of a row that was made from a file by those of a sender whose frame has the
   * same bytes. Other rows stay as they are.
   */
  confirmFrame(row: FrameRow): void {
    const { stream, source, name, session, seq, captured, key, meta, format, is_key } = row;
    const facts = [session, seq, captured, key, meta, format, is_key] as const;
    this.#write(() => this.#statements.confirmFrame.run(stream, source, name, ...facts));
  }

  /** Whether a named loss is open, so that each frame that arrives may end one. */
  get hasNamedLosses(): boolean {
    return this.#hasNamedLosses;
  }

  /**
   * Marks losses of this name as history, because the frame is stored. A loss that another key
   * reported stays, because that key cannot know what its frame was.
   *
   * @param sender key of the frame
   * @param at when it was found stored, in nanoseconds since 1970. Default: when it was received
   */
  endLosses({ stream, source, name }: FramePath, sender: SessionOwner, at?: bigint): void {
    if (!this.#hasNamedLosses) return;
    const losses = this.#openLosses({ stream, source, name }, sender);
    const end = at ?? this.#statements.receivedAt.get(stream, source, name)?.received;
    if (losses.length === 0 || end === undefined) return;
    this.#write(() => {
      for (const { id } of losses) this.#statements.endLoss.run(id, end);
    });
    this.#hasNamedLosses = this.#statements.anyNamedLoss.get() !== null;
  }

  /** Returns the open losses of this name that no other key reported. */
  #openLosses({ stream, source, name }: FramePath, sender: SessionOwner): OpenLoss[] {
    const losses = this.#statements.openLossesOf.all(stream, source, name);
    return losses.filter((loss) => !hasOtherKey(loss, sender));
  }

  /**
   * Returns whether another session of the key has lost the frame of this name for the same reason.
   * A frame that a sender fails to deliver again and again is one loss.
   */
  hasOpenLoss(
    { stream, source, session }: SourceSession,
    sender: SessionOwner,
    name: string,
    reason: string,
  ): boolean {
    if (!this.#hasNamedLosses) return false;
    const losses = this.#openLosses({ stream, source, name }, sender);
    return losses.some((loss) => loss.reason === reason && loss.session !== session);
  }

  /** Sum of the bytes of all frames. Undefined while it is being computed: read it again later. */
  get totalBytes(): number | undefined {
    return this.#byteTotal.advance();
  }

  /**
   * Marks numbers that get no row as accounted for, so that they are no gap.
   *
   * @param at nanoseconds since 1970
   */
  markAccounted(sourceSession: SourceSession, first: number, last: number, at: bigint): void {
    const write = this.#accountedRanges.add(sourceSession, first, last, at);
    if (write !== undefined) this.#write(write);
  }

  /** Log of removed frames. Write to it only within `updateDeletions`. */
  get deletionLog(): DeletionLog {
    return this.#deletionLog;
  }

  /** Changes the log of removed frames. The change is committed by `flush`. */
  updateDeletions(act: (deletionLog: DeletionLog) => void): void {
    this.#write(() => act(this.#deletionLog));
  }

  /**
   * Deletes the rows of frames whose files were deleted. The change is committed by `flush`.
   *
   * @param at nanoseconds since 1970
   */
  endDeletion(frames: readonly DeletionCandidate[], at: bigint): void {
    this.updateDeletions((deletionLog) => deletionLog.end(frames, at));
    for (const frame of frames) this.#onFrameRemoved(frame);
  }

  #onFrameRemoved(frame: RemovedFrameInfo): void {
    this.#byteTotal.remove(frame.id, frame.bytes);
    this.#removedFrames.push(frame);
  }

  /** Records that a partial file is about to take the name of a frame that has a row. */
  addReplacement({ row, partial }: Replacement): void {
    this.#write(() => this.#statements.insertReplacement.run(...frameValues(row), partial));
  }

  /** Ends a replacement. If `isDone`, the row of the replaced frame is replaced as well. */
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
    this.#endLossesOf(row);
    // The replaced frame was received, so its number is accounted for and is no gap.
    if (previous === null || (previous.session === session && previous.seq === seq)) return;
    this.#accountedRanges.add(
      { ...row, session: previous.session },
      previous.seq,
      previous.seq,
      received,
    )?.();
  }

  /** Returns replacements that were begun but not ended. Leaves damaged rows out. */
  unfinishedReplacements(): Replacement[] {
    const rows = this.#statements.replacements.all().filter(rowChecks.replacements);
    return rows.map(({ partial, ...row }) => ({
      partial,
      row: {
        ...row,
        seq: Number(row.seq),
        bytes: Number(row.bytes),
        crc32: Number(row.crc32),
        is_key: row.is_key === null ? null : Number(row.is_key),
      },
    }));
  }

  /** Makes the next commits survive a power cut, provided the disk honours flushes. */
  makeDurable(): void {
    if (this.#isDurable) return;
    this.flushKeepingError();
    this.#database.run("PRAGMA synchronous = FULL");
    this.#isDurable = true;
  }

  /**
   * Records lost numbers.
   *
   * @param reason code of the error
   * @param at nanoseconds since 1970
   * @param name of the lost frame, if it is known
   */
  addLoss(
    { stream, source, session }: SourceSession,
    first: number,
    last: number,
    reason: string,
    at: bigint,
    name?: string,
  ): void {
    this.#hasNamedLosses ||= name !== undefined;
    const loss = [stream, source, session, first, last, reason, at, name ?? null] as const;
    this.#write(() => this.#statements.insertLoss.run(...loss));
  }

  /**
   * Returns the path that owns a folded path, in a store whose names ignore case and Unicode form.
   */
  foldedOwner(path: string): string | undefined {
    return this.#statements.findFolded.get(path)?.actual;
  }

  /** Whether the journal has a frame or accounted numbers. */
  get hasFrames(): boolean {
    return this.#statements.anyFrame.get() !== null;
  }

  /** Returns a property of the whole store. */
  property(name: PropertyName): string | undefined {
    return readProperty(this.#database, name);
  }

  /** Sets a property of the whole store. It is committed by `flush`. */
  setProperty(name: PropertyName, value: string): void {
    this.#write(() => this.#statements.setProperty.run(name, value));
    if (name === "identity" || name === "copy") updateIdentityFile(this.#database, this.#path);
  }

  /** Records `actual` as the owner of a folded path, unless the path has an owner. */
  claimFolded(path: string, actual: string): void {
    this.#write(() => this.#statements.claimFolded.run(path, actual));
  }

  /** Removes the ownership of a folded path if `actual` owns it. */
  releaseFolded(path: string, actual: string): void {
    this.#write(() => this.#statements.releaseFolded.run(path, actual));
  }

  /** Removes all folded paths. A store without portable names does not maintain them. */
  dropFolded(): void {
    if (this.#statements.anyFolded.get() !== null) {
      this.#write(() => this.#statements.dropFolded.run());
    }
  }

  /** Returns the paths of all stored frames if no folded path has an owner yet, else none. */
  *pathsToClaim(): Generator<FramePath> {
    if (this.#statements.anyFolded.get() !== null) return;
    for (const path of this.#statements.paths.iterate()) {
      if (isSource(path) && isPathPart(path.name)) yield path;
    }
  }

  /**
   * Runs `act` within the transaction of the batch, and begins one if needed.
   *
   * @throws {FramesError} `store`
   */
  #write<T>(act: () => T): T {
    if (this.#pendingError !== undefined) throw this.#pendingError;
    try {
      // A read transaction may be open. It then becomes the transaction of the batch.
      if (!this.#inTransaction && !this.#database.inTransaction) this.#statements.begin.run();
      this.#inTransaction = true;
      for (const begun of this.#begunSessions) this.#sessionOwners.set(...begun);
      this.#begunSessions.clear();
      return act();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /**
   * Rolls the batch back and remembers the error for the next `flush`. After some errors SQLite
   * rolls back by itself, and the rows of all connections in the batch are lost. So none of them
   * may be confirmed.
   */
  #fail(error: unknown): FramesError {
    this.#pendingError = journalError("write", this.#path, error);
    this.#byteTotal.reset();
    this.#removedFrames = [];
    // Losses that were ended in the batch are open again.
    this.#hasNamedLosses = true;
    if (this.#database.inTransaction) this.#statements.rollback.run();
    this.#inTransaction = false;
    return this.#pendingError;
  }

  /**
   * Commits the batch in one transaction.
   *
   * @throws {FramesError} `store` if it cannot be committed, or if a write of the batch failed
   * before
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
    for (const frame of this.#removedFrames.splice(0)) this.listener?.(frame);
  }

  /**
   * Commits for one caller. If that fails, the next `flush` throws the same error, because other
   * connections lose their rows too.
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

  /**
   * Forgets `error` once every affected connection has received it, so that the next `flush`
   * succeeds.
   */
  clearError(error: unknown): void {
    if (this.#pendingError === error) this.#pendingError = undefined;
  }

  /** Paths of the journal's files, for a caller that flushes them to the disk. */
  get filePaths(): readonly string[] {
    return [this.#path, `${this.#path}-wal`];
  }

  /** Whether rows or an error wait for `flush`. */
  get isDirty(): boolean {
    return this.#inTransaction || this.#pendingError !== undefined;
  }

  /**
   * Commits and closes the journal.
   *
   * @throws {FramesError} `store`
   */
  close(): void {
    try {
      this.flush();
    } finally {
      this.#database.close();
    }
  }
}
