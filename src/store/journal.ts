/**
 * The record of every stored frame and every reported loss, in `DIR/.frames/journal.sqlite`: what
 * "already stored" means, and the order in which things came. Others may read it at any time.
 */
import { constants, Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { FramesError, systemSentence } from "../errors.ts";
import type { FrameDescription, FrameOrigin } from "../frame.ts";

/** What the journal holds of a stored frame that decides whether another is the same. */
export interface StoredFrame {
  readonly bytes: number;
  readonly crc32: number;
}

/** What the path of a stored frame is made of. */
interface StoredPath {
  readonly stream: string;
  readonly source: string;
  readonly name: string;
}

/** A source of a stream, summed up. Times are nanoseconds since 1970. */
export interface SourceSummary {
  readonly stream: string;
  readonly source: string;
  readonly frames: number;
  readonly bytes: number;
  readonly lost: number;
  readonly firstCaptured: bigint | null;
  readonly lastCaptured: bigint | null;
}

const schema = `
  CREATE TABLE IF NOT EXISTS frames (
    id INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    session TEXT NOT NULL,
    seq INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    captured INTEGER NOT NULL,
    received INTEGER NOT NULL,
    key TEXT,
    meta TEXT,
    format TEXT,
    UNIQUE (stream, source, name)
  );
  CREATE TABLE IF NOT EXISTS losses (
    stream TEXT NOT NULL,
    source TEXT NOT NULL,
    session TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL
  );
  CREATE TABLE IF NOT EXISTS folded (
    path TEXT PRIMARY KEY,
    actual TEXT NOT NULL
  ) WITHOUT ROWID;
`;

/** Path of the journal of the store in `directory`. */
export function journalPath(directory: string): string {
  return join(directory, ".frames", "journal.sqlite");
}

function prepare(database: Database) {
  return {
    find: database.query<StoredFrame, [string, string, string]>(
      "SELECT bytes, crc32 FROM frames WHERE stream = ? AND source = ? AND name = ?",
    ),
    anyOf: database.query<unknown, [string]>("SELECT 1 FROM frames WHERE stream = ? LIMIT 1"),
    insertFrame: database.query(
      `INSERT INTO frames
        (stream, source, name, session, seq, bytes, crc32, captured, received, meta, format)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    insertLoss: database.query(
      "INSERT INTO losses (stream, source, session, first, last, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
    findFolded: database.query<{ actual: string }, [string]>(
      "SELECT actual FROM folded WHERE path = ?",
    ),
    claimFolded: database.query("INSERT OR IGNORE INTO folded (path, actual) VALUES (?, ?)"),
    anyFolded: database.query("SELECT 1 FROM folded LIMIT 1"),
    dropFolded: database.query("DELETE FROM folded"),
    paths: database.query<StoredPath, []>("SELECT stream, source, name FROM frames ORDER BY id"),
    begin: database.query("BEGIN IMMEDIATE"),
    commit: database.query("COMMIT"),
    rollback: database.query("ROLLBACK"),
  };
}

/** The journal, open for writing by the one process that serves the store. */
export class Journal {
  readonly #database: Database;
  readonly #statements: ReturnType<typeof prepare>;
  #open = false;
  /** Why rows of the batch are gone, until everybody has heard of it. */
  #broken: FramesError | undefined;

  /** @throws {FramesError} `store` if SQLite cannot open or read it */
  constructor(path: string) {
    let database: Database | undefined;
    try {
      database = new Database(path);
      // Others may look into the journal, and even hold it for a moment.
      database.run("PRAGMA busy_timeout = 2000");
      database.run("PRAGMA journal_mode = WAL");
      // In WAL mode a killed process loses nothing committed; only a power cut may.
      database.run("PRAGMA synchronous = NORMAL");
      database.run(schema);
      this.#statements = prepare(database);
      this.#database = database;
    } catch (error) {
      database?.close();
      const message = `Cannot open the journal ${path}: ${systemSentence(error)}`;
      throw new FramesError("store", message, { cause: error });
    }
  }

  /** The frame stored under this name, rows not yet committed included. */
  find(stream: string, source: string, name: string): StoredFrame | null {
    return this.#statements.find.get(stream, source, name);
  }

  /** Whether anything is stored under this stream. */
  hasStream(stream: string): boolean {
    return this.#statements.anyOf.get(stream) !== null;
  }

  /** Records a stored frame; it lasts once `flush` returned. `received` is in nanoseconds since 1970. */
  addFrame(
    origin: FrameOrigin,
    frame: FrameDescription,
    crc32: number,
    received: bigint,
    format: string | null,
  ): void {
    const metadata = frame.metadata === "" ? null : frame.metadata;
    this.#write(() =>
      this.#statements.insertFrame.run(
        origin.stream,
        origin.source,
        frame.name,
        origin.session,
        frame.sequence,
        frame.size,
        crc32,
        frame.captured,
        received,
        metadata,
        format,
      ),
    );
  }

  /** Records numbers that will never come. `at` is in nanoseconds since 1970. */
  addLoss(origin: FrameOrigin, first: number, last: number, reason: string, at: bigint): void {
    const { stream, source, session } = origin;
    this.#write(() =>
      this.#statements.insertLoss.run(stream, source, session, first, last, reason, at),
    );
  }

  /** For stores where case and Unicode form do not tell names apart: who holds the folded path. */
  folded(path: string): string | undefined {
    return this.#statements.findFolded.get(path)?.actual;
  }

  /** Gives a folded path to `actual`, unless somebody holds it. */
  claimFolded(path: string, actual: string): void {
    this.#write(() => this.#statements.claimFolded.run(path, actual));
  }

  /** Forgets who holds which folded path: what is stored from now on does not claim its own. */
  dropFolded(): void {
    if (this.#statements.anyFolded.get() !== null) {
      this.#write(() => this.#statements.dropFolded.run());
    }
  }

  /** The stored frames whose paths are to be claimed: all, if none is. */
  unclaimed(): Iterable<StoredPath> {
    return this.#statements.anyFolded.get() === null ? this.#statements.paths.iterate() : [];
  }

  /** Writes within the transaction of the batch. */
  #write<T>(act: () => T): T {
    if (this.#broken !== undefined) throw this.#broken;
    try {
      if (!this.#open) this.#statements.begin.run();
      this.#open = true;
      return act();
    } catch (error) {
      throw this.#break(error);
    }
  }

  /**
   * After some errors SQLite rolls back by itself, with the rows of every connection. So the batch is
   * given up, and the next `flush` says so: nobody may count on it.
   */
  #break(error: unknown): FramesError {
    const message = `Cannot write the journal: ${systemSentence(error)}`;
    this.#broken = new FramesError("store", message, { cause: error });
    if (this.#database.inTransaction) this.#statements.rollback.run();
    this.#open = false;
    return this.#broken;
  }

  /**
   * Commits what was recorded: one transaction for each batch.
   *
   * @throws {FramesError} `store`: without its journal no server can keep its promise
   */
  flush(): void {
    const broken = this.#broken;
    this.#broken = undefined;
    if (broken !== undefined) throw broken;
    if (!this.#open) return;
    try {
      this.#statements.commit.run();
      this.#open = false;
    } catch (error) {
      const failure = this.#break(error);
      this.#broken = undefined;
      throw failure;
    }
  }

  /** Whether something waits for `flush`. */
  get isDirty(): boolean {
    return this.#open || this.#broken !== undefined;
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

/**
 * Sums up what the store in `directory` holds, in the order of names, beside the process that
 * serves it.
 *
 * @throws {FramesError} `missing` if there is no journal, `store` if it cannot be read
 */
export function summarize(directory: string, stream?: string): SourceSummary[] {
  const path = journalPath(directory);
  if (!existsSync(path)) {
    const why = existsSync(directory) ? "it holds no store of frames" : "no such directory";
    throw new FramesError("missing", `Cannot list ${directory}: ${why}; name the store with --dir`);
  }
  let database: Database | undefined;
  try {
    database = openForReading(path);
    const only = stream === undefined ? "" : "WHERE stream = ?1";
    return database
      .query<SourceSummaryRow, string[]>(
        `SELECT stream, source, sum(frames) AS frames, sum(bytes) AS bytes, CAST(total(lost) AS INTEGER) AS lost,
            min(firstCaptured) AS firstCaptured, max(lastCaptured) AS lastCaptured
          FROM (
            SELECT stream, source, count(*) AS frames, sum(bytes) AS bytes, 0 AS lost,
                min(captured) AS firstCaptured, max(captured) AS lastCaptured
              FROM frames ${only} GROUP BY stream, source
            UNION ALL
            SELECT stream, source, 0, 0, min(total(last - first + 1), 9007199254740991), NULL, NULL
              FROM losses ${only} GROUP BY stream, source
          )
          GROUP BY stream, source ORDER BY stream, source`,
      )
      .safeIntegers(true)
      .all(...(stream === undefined ? [] : [stream]))
      .map((row) => ({
        ...row,
        frames: Number(row.frames),
        bytes: Number(row.bytes),
        lost: Number(row.lost),
      }));
  } catch (error) {
    throw new FramesError("store", `Cannot read the journal ${path}: ${systemSentence(error)}`, {
      cause: error,
    });
  } finally {
    database?.close();
  }
}

interface SourceSummaryRow {
  stream: string;
  source: string;
  frames: bigint;
  bytes: bigint;
  lost: bigint;
  firstCaptured: bigint | null;
  lastCaptured: bigint | null;
}

function openForReading(path: string): Database {
  const database = new Database(path, { readonly: true });
  try {
    database.query("SELECT 1 FROM frames LIMIT 1").get();
    return database;
  } catch {
    // Whoever may not write beside the journal cannot read it through its log: it must be at rest.
    database.close();
    const { SQLITE_OPEN_READONLY, SQLITE_OPEN_URI } = constants;
    const address = `${pathToFileURL(path).href}?immutable=1`;
    return new Database(address, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
  }
}
