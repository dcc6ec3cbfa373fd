/**
 * The record of every stored frame and every reported loss, in `DIR/.frames/journal.sqlite`: what
 * "already stored" means, and the order in which things came. Others may read it at any time.
 */
import { Database, type Statement } from "bun:sqlite";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { FramesError, systemSentence } from "../errors.ts";
import type { FrameDescription, FrameOrigin } from "../frame.ts";

/** What the journal holds of a stored frame that decides whether another is the same. */
export interface StoredFrame {
  readonly bytes: number;
  readonly crc32: number;
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

/** The journal, open for writing by the one process that serves the store. */
export class Journal {
  readonly #database: Database;
  readonly #find: Statement<StoredFrame, [string, string, string]>;
  readonly #anyOf: Statement<unknown, [string]>;
  readonly #insertFrame: Statement;
  readonly #insertLoss: Statement;
  readonly #claim: Statement<{ actual: string }, [string, string]>;
  readonly #begin: Statement;
  readonly #commit: Statement;
  #open = false;

  /** @throws {FramesError} `store` if SQLite cannot open or read it */
  constructor(path: string) {
    try {
      this.#database = new Database(path);
      this.#database.run("PRAGMA journal_mode = WAL");
      // In WAL mode a killed process loses nothing committed; only a power cut may.
      this.#database.run("PRAGMA synchronous = NORMAL");
      this.#database.run(schema);
    } catch (error) {
      throw new FramesError("store", `Cannot open the journal ${path}: ${systemSentence(error)}`, {
        cause: error,
      });
    }
    this.#find = this.#database.query(
      "SELECT bytes, crc32 FROM frames WHERE stream = ? AND source = ? AND name = ?",
    );
    this.#anyOf = this.#database.query("SELECT 1 FROM frames WHERE stream = ? LIMIT 1");
    this.#insertFrame = this.#database.query(
      `INSERT INTO frames
        (stream, source, name, session, seq, bytes, crc32, captured, received, meta, format)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#insertLoss = this.#database.query(
      "INSERT INTO losses (stream, source, session, first, last, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    this.#claim = this.#database.query(
      `INSERT INTO folded (path, actual) VALUES (?, ?)
        ON CONFLICT (path) DO UPDATE SET actual = actual RETURNING actual`,
    );
    this.#begin = this.#database.query("BEGIN IMMEDIATE");
    this.#commit = this.#database.query("COMMIT");
  }

  /** The frame stored under this name, rows not yet committed included. */
  find(stream: string, source: string, name: string): StoredFrame | null {
    return this.#find.get(stream, source, name);
  }

  /** Whether anything is stored under this stream. */
  hasStream(stream: string): boolean {
    return this.#anyOf.get(stream) !== null;
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
      this.#insertFrame.run(
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
    this.#write(() => this.#insertLoss.run(stream, source, session, first, last, reason, at));
  }

  /**
   * For stores that must also work where case and Unicode form do not tell names apart: claims
   * `actual` under its folded form, and returns the path that holds it, which may be another.
   */
  claimFolded(folded: string, actual: string): string {
    const row = this.#write(() => this.#claim.get(folded, actual));
    return row!.actual;
  }

  /** Paths below the store of all frames, for claiming those that came before the claims did. */
  *paths(): Generator<{ stream: string; source: string; name: string }> {
    const claimed = this.#database.query("SELECT 1 FROM folded LIMIT 1").get() !== null;
    if (claimed) return;
    yield* this.#database
      .query<{ stream: string; source: string; name: string }, []>(
        "SELECT stream, source, name FROM frames ORDER BY id",
      )
      .iterate();
  }

  /** Writes within the transaction of the batch. */
  #write<T>(act: () => T): T {
    try {
      if (!this.#open) this.#begin.run();
      this.#open = true;
      return act();
    } catch (error) {
      throw unwritable(error);
    }
  }

  /**
   * Commits what was recorded: one transaction for each batch.
   *
   * @throws {FramesError} `store`: without its journal no server can keep its promise
   */
  flush(): void {
    if (!this.#open) return;
    try {
      this.#commit.run();
    } catch (error) {
      throw unwritable(error);
    }
    this.#open = false;
  }

  /** Commits and closes. */
  close(): void {
    this.flush();
    this.#database.close();
  }
}

function unwritable(error: unknown): FramesError {
  const message = `Cannot write the journal: ${systemSentence(error)}`;
  return new FramesError("store", message, { cause: error });
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
    throw new FramesError("missing", `Cannot list ${directory}: it holds no store of frames`);
  }
  let database: Database | undefined;
  try {
    database = openForReading(path);
    const only = stream === undefined ? "" : "WHERE stream = ?1";
    return database
      .query<SourceSummaryRow, string[]>(
        `SELECT stream, source, sum(frames) AS frames, sum(bytes) AS bytes, sum(lost) AS lost,
            min(firstCaptured) AS firstCaptured, max(lastCaptured) AS lastCaptured
          FROM (
            SELECT stream, source, count(*) AS frames, sum(bytes) AS bytes, 0 AS lost,
                min(captured) AS firstCaptured, max(captured) AS lastCaptured
              FROM frames ${only} GROUP BY stream, source
            UNION ALL
            SELECT stream, source, 0, 0, sum(last - first + 1), NULL, NULL
              FROM losses ${only} GROUP BY stream, source
          )
          GROUP BY stream, source ORDER BY stream, source`,
      )
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
  const options = { readonly: true, safeIntegers: true };
  const database = new Database(path, options);
  try {
    database.query("SELECT 1 FROM frames LIMIT 1").get();
    return database;
  } catch {
    // Whoever may not write beside the journal cannot read it through its log: it must be at rest.
    database.close();
    return new Database(`file:${encodeURI(path)}?immutable=1`, options);
  }
}
