/**
 * Stores frames of live sources on disk while no server is connected. `DIR/spool.sqlite` describes
 * the frames; their bytes lie in files beside it. A spool survives the process, and keeps its
 * session and sequence numbers.
 */
import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import {
  FramesError,
  isSystemError,
  systemCode,
  systemSentence,
  usageError,
} from "../../errors.ts";
import { checkOwn, folderName, type SharedSpool, SourceSpool } from "./source-spool.ts";
import { dropDamagedRows, spoolSchema } from "./spool-rows.ts";

/** The session stored in a spool. */
export interface SpooledSession {
  readonly id: string;
  /** Start of the session, in milliseconds since 1970. */
  readonly started: number;
}

/**
 * Limits of the database's log in pages, and its share of the spool. Within them SQLite copies the log
 * into the database, which needs a sync, and begins it again.
 */
const minLogPages = 16;
const maxLogPages = 1000;
const logShare = 1 / 16;

/** Codes of a full disk. A spool is created later if its disk is full at the start. */
const fullDiskCodes = new Set(["ENOSPC", "EDQUOT", "SQLITE_FULL"]);

export interface SpoolOptions {
  readonly directory: string;
  readonly stream: string;
  /** Session of a new spool. */
  readonly session: SpooledSession;
  /** Limit for the frames in it. */
  readonly maxBytes: number;
  /** Called when the disk begins to fail. */
  readonly onError?: (error: FramesError) => void;
}

/**
 * A spool directory. Only one process can open it at a time. Its disk may fail at any time: then its
 * methods throw `unreadable` or do nothing, and the caller keeps its frames in memory.
 */
export class Spool implements SharedSpool {
  readonly session: SpooledSession;
  readonly directory: string;
  readonly #stream: string;
  readonly #maxBytes: number;
  readonly #onError: (error: FramesError) => void;
  readonly #sources: SourceSpool[] = [];
  #database: Database | undefined;
  #isSessionEnded = false;
  #numbering: string;
  /** Whether the tables and the session are on the disk. */
  #isPrepared = false;
  #bytes = 0;
  /** Whether a failure was reported and no frame was spooled since. */
  #isFailing = false;
  /** Whether the disk was full, and the log was not emptied since. */
  #isDiskFull = false;

  /**
   * Opens a spool, or creates one.
   *
   * @throws {FramesError} `usage` if it belongs to another stream or another process uses it,
   * `missing` if it cannot be opened
   */
  constructor({ directory, stream, session, maxBytes, onError = () => {} }: SpoolOptions) {
    this.directory = directory;
    this.#stream = stream;
    this.#maxBytes = maxBytes;
    this.#onError = onError;
    this.session = session;
    this.#numbering = session.id;
    try {
      this.session = this.#prepare(session);
    } catch (error) {
      if (fullDiskCodes.has(systemCode(error) ?? "")) {
        // Frames can be sent without a spool, so a disk that is full now must not keep them here.
        this.fail("written", error);
        return;
      }
      this.#database?.close();
      if (error instanceof FramesError) throw error;
      if (systemCode(error) === "SQLITE_BUSY") {
        throw usageError(
          `Cannot use the spool ${directory}: another process uses it; stop it, or choose another --spool`,
        );
      }
      const reason = systemSentence(error);
      const message = `Cannot use the spool ${directory}: ${reason}; choose another --spool`;
      throw new FramesError("missing", message, { cause: error });
    }
  }

  /** Creates what is missing, and returns the session of the spool. */
  #prepare(session: SpooledSession): SpooledSession {
    if (this.#database === undefined) {
      const path = join(this.directory, "spool.sqlite");
      checkOwn(this.directory, path);
      mkdirSync(this.directory, { recursive: true, mode: 0o700 });
      this.#database = new Database(path, {
        safeIntegers: true,
        create: true,
        readwrite: true,
      });
    }
    const database = this.#database;
    database.run("PRAGMA locking_mode = EXCLUSIVE");
    database.run("PRAGMA journal_mode = WAL");
    database.run("PRAGMA synchronous = NORMAL");
    this.#limitLog(database);
    database.run(spoolSchema);
    this.#dropDamagedRows(database);
    const stored = this.#openSession(database, session);
    const [sum] = database
      .query<{ bytes: bigint | null }, []>("SELECT sum(size) AS bytes FROM frames")
      .all();
    this.#bytes = Number(sum?.bytes ?? 0n);
    this.#isPrepared = true;
    return stored;
  }

  /** Keeps the log small, because it takes the space of frames, and a full disk cannot shrink it. */
  #limitLog(database: Database): void {
    const { page_size } = database.query<{ page_size: bigint }, []>("PRAGMA page_size").get()!;
    const share = Math.floor((this.#maxBytes * logShare) / Number(page_size));
    const pages = Math.min(Math.max(minLogPages, share), maxLogPages);
    database.run(`PRAGMA wal_autocheckpoint = ${pages}`);
    database.run(`PRAGMA journal_size_limit = ${pages * Number(page_size)}`);
  }

  /**
   * Drops rows that no process can have written. The numbers of their frames are reported as lost.
   *
   * @throws {FramesError} `missing` if the session or its numbers are damaged
   */
  #dropDamagedRows(database: Database): void {
    const damage = dropDamagedRows(database);
    if (damage.unusable !== undefined) {
      const hint = "another program changed it; choose another --spool";
      const message = `Cannot use the spool ${this.directory}: its table ${damage.unusable} is damaged: ${hint}`;
      throw new FramesError("missing", message);
    }
    const [first] = damage.rows;
    if (first === undefined) return;
    const count = damage.rows.length === 1 ? "a damaged row" : `${damage.rows.length} damaged rows`;
    const message = `The spool ${this.directory} had ${count}, the first was ${first}: it was left out`;
    this.#onError(new FramesError("unreadable", message));
  }

  /** Returns the stored session. An empty spool of another stream starts a new one. */
  #openSession(database: Database, session: SpooledSession): SpooledSession {
    type SessionRow = { id: string; started: bigint; stream: string };
    const stored = database.query<SessionRow, []>("SELECT * FROM session").get();
    const isEmpty = database.query("SELECT 1 FROM frames LIMIT 1").get() === null;
    const stream = this.#stream;
    if (stored === null || (stored.stream !== stream && isEmpty)) {
      database.transaction(() => {
        clearSession(database);
        const put = database.query("INSERT INTO session VALUES (?, ?, ?)");
        put.run(session.id, session.started, stream);
      })();
      return session;
    }
    const ended = database.query("SELECT 1 FROM ended_sessions WHERE id = ?").get(stored.id);
    if (stored.stream !== stream) {
      throw usageError(
        `Cannot use the spool ${this.directory} for ${stream}: it contains frames of ${stored.stream}; send those first with --stream ${stored.stream}, or choose another --spool`,
      );
    }
    this.#isSessionEnded = ended !== null;
    this.#numbering = stored.id;
    return { id: ended === null ? stored.id : session.id, started: Number(stored.started) };
  }

  /** Id of the session in which the numbers in the spool began. */
  get numbering(): string {
    return this.#numbering;
  }

  /**
   * Whether another key began the session of the numbers in the spool. Each process then sends what
   * is left under a session of its own, with other numbers.
   */
  get isSessionEnded(): boolean {
    return this.#isSessionEnded;
  }

  /** Records that another key began the session, for the processes that continue the spool. */
  endSession(): void {
    if (this.#isSessionEnded || !this.#isPrepared) return;
    try {
      const end = this.#database!.query("INSERT INTO ended_sessions SELECT id FROM session");
      end.run();
      this.#isSessionEnded = true;
    } catch (error) {
      // The next process finds out by itself.
      this.fail("written", error);
    }
  }

  /** Whether nothing is on the disk yet, because it was full at the start. */
  get isNew(): boolean {
    return !this.#isPrepared;
  }

  /**
   * Returns the database.
   *
   * @throws if its disk is still full
   */
  open(): Database {
    if (!this.#isPrepared && this.#prepare(this.session).id !== this.session.id) {
      this.#isPrepared = false;
      throw new FramesError(
        "unreadable",
        "the spool contains an earlier session; start this command again",
      );
    }
    return this.#database!;
  }

  /**
   * Called before each write. Empties the log if the disk was full. Otherwise the log would take
   * each block that becomes free, until emptying it needs more space than is left.
   *
   * @throws if the disk is still full
   */
  makeRoom(): void {
    if (!this.#isDiskFull || !this.#isPrepared) return;
    this.#database!.run("PRAGMA wal_checkpoint(TRUNCATE)");
    this.#isDiskFull = false;
  }

  /**
   * Converts an error of the disk, and reports the first one. Other errors are faults in the software.
   *
   * @param action what cannot be done with the spool
   */
  fail(action: "read" | "written", error: unknown): FramesError {
    if (!isSystemError(error)) throw error;
    if (fullDiskCodes.has(systemCode(error) ?? "")) this.#isDiskFull = true;
    const reason = systemSentence(error);
    if (!this.#isFailing) {
      this.#isFailing = true;
      const message = `The spool ${this.directory} cannot be ${action}: ${reason}; frames are still sent, but without a connection only the queue in memory keeps them`;
      this.#onError(new FramesError("unreadable", message, { cause: error }));
    }
    return new FramesError("unreadable", `the spool cannot be ${action}: ${reason}`, {
      cause: error,
    });
  }

  /** Called when a frame was spooled: a later failure is reported again. */
  onSpooled(): void {
    this.#isFailing = false;
  }

  /**
   * Returns the sources of which frames are spooled.
   *
   * @throws {FramesError} `unreadable`
   */
  spooledSources(): string[] {
    if (this.isNew) return [];
    try {
      const sql = "SELECT DISTINCT source FROM frames ORDER BY source";
      return this.open()
        .query<{ source: string }, []>(sql)
        .all()
        .map(({ source }) => source);
    } catch (error) {
      throw this.fail("read", error);
    }
  }

  /** Returns the part of the spool that belongs to one source. */
  sourceSpool(source: string): SourceSpool {
    const folder = join(this.directory, folderName(source));
    const spool = new SourceSpool(this, folder, source);
    this.#sources.push(spool);
    return spool;
  }

  /** Returns whether this many more bytes fit. */
  hasRoom(bytes: number): boolean {
    return this.#bytes + bytes <= this.#maxBytes;
  }

  /** Returns whether this many bytes would fit into the empty spool. */
  isLargeEnough(bytes: number): boolean {
    return bytes <= this.#maxBytes;
  }

  /** Counts added bytes, or removed ones if negative. */
  adjustBytes(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Closes the spool. If it is empty, the next process starts a new session. */
  close(): void {
    const database = this.#database;
    if (database === undefined) return;
    try {
      for (const source of this.#sources) source.deleteSettled();
      const isEmpty = database.query("SELECT 1 FROM frames LIMIT 1").get() === null;
      if (isEmpty) database.transaction(() => clearSession(database))();
    } catch {
      // The next process continues this session.
    }
    database.close();
  }
}

function clearSession(database: Database): void {
  for (const table of ["session", "counters", "losses", "shapes", "pictures", "ended_sessions"])
    database.run(`DELETE FROM ${table}`);
}
