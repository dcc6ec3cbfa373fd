/**
 * Stores frames of live sources on disk while no server is connected. `DIR/spool.sqlite` describes
 * the frames; their bytes lie in files beside it. A spool survives the process, and keeps its
 * session and sequence numbers.
 */
import { Database } from "bun:sqlite";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ErrorName, FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { Frame, Loss } from "../../frame.ts";

const spoolSchema = `
  CREATE TABLE IF NOT EXISTS session (id TEXT, started INTEGER, stream TEXT);
  CREATE TABLE IF NOT EXISTS counters (source TEXT PRIMARY KEY, last INTEGER) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS frames (
    source TEXT, seq INTEGER, name TEXT, captured INTEGER, size INTEGER, meta TEXT,
    PRIMARY KEY (source, seq)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS losses (
    source TEXT, first INTEGER, last INTEGER, what TEXT, reason TEXT, PRIMARY KEY (source, first)
  ) WITHOUT ROWID;
`;

interface SpooledFrameRow {
  readonly seq: bigint;
  readonly name: string;
  readonly captured: bigint;
  readonly size: bigint;
  readonly meta: string;
}

interface SpooledLossRow {
  readonly first: bigint;
  readonly last: bigint;
  readonly what: string;
  readonly reason: ErrorName;
}

/** The session stored in a spool. */
export interface SpooledSession {
  readonly id: string;
  /** Start of the session, in milliseconds since 1970. */
  readonly started: number;
}

/** A spool directory. Only one process can open it at a time. */
export class Spool {
  readonly session: SpooledSession;
  readonly #directory: string;
  readonly #database: Database;
  readonly #maxBytes: number;
  #bytes: number;

  /**
   * Opens a spool, or creates one for `session`.
   *
   * @param maxBytes limit for the frames in it
   * @throws {FramesError} `usage` if it belongs to another stream or another process uses it,
   * `missing` if it cannot be opened
   */
  constructor(directory: string, stream: string, session: SpooledSession, maxBytes: number) {
    this.#directory = directory;
    this.#maxBytes = maxBytes;
    try {
      mkdirSync(directory, { recursive: true });
      this.#database = new Database(join(directory, "spool.sqlite"), {
        safeIntegers: true,
        create: true,
        readwrite: true,
      });
      this.#database.run("PRAGMA locking_mode = EXCLUSIVE");
      this.#database.run("PRAGMA journal_mode = WAL");
      this.#database.run("PRAGMA synchronous = NORMAL");
      this.#database.run(spoolSchema);
    } catch (error) {
      if (systemCode(error) === "SQLITE_BUSY") {
        throw new FramesError(
          "usage",
          `Cannot use the spool ${directory}: another process uses it; stop it, or choose another --spool`,
        );
      }
      const reason = systemSentence(error);
      const message = `Cannot use the spool ${directory}: ${reason}; choose another --spool`;
      throw new FramesError("missing", message, { cause: error });
    }
    this.session = this.#openSession(stream, session);
    const [sum] = this.#database
      .query<{ bytes: bigint | null }, []>("SELECT sum(size) AS bytes FROM frames")
      .all();
    this.#bytes = Number(sum?.bytes ?? 0n);
  }

  /** Returns the stored session. An empty spool of another stream starts a new one. */
  #openSession(stream: string, session: SpooledSession): SpooledSession {
    type SessionRow = { id: string; started: bigint; stream: string };
    const stored = this.#database.query<SessionRow, []>("SELECT * FROM session").get();
    const isEmpty = this.#database.query("SELECT 1 FROM frames LIMIT 1").get() === null;
    if (stored === null || (stored.stream !== stream && isEmpty)) {
      this.#clearSession();
      const put = this.#database.query("INSERT INTO session VALUES (?, ?, ?)");
      put.run(session.id, session.started, stream);
      return session;
    }
    if (stored.stream !== stream) {
      this.#database.close();
      throw new FramesError(
        "usage",
        `Cannot use the spool ${this.#directory} for ${stream}: it contains frames of ${stored.stream}; send those first with --stream ${stored.stream}, or choose another --spool`,
      );
    }
    return { id: stored.id, started: Number(stored.started) };
  }

  /** Returns the part of the spool that belongs to one source. */
  sourceSpool(source: string): SourceSpool {
    return new SourceSpool(
      this,
      this.#database,
      join(this.#directory, encodeURIComponent(source)),
      source,
    );
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
    const isEmpty = this.#database.query("SELECT 1 FROM frames LIMIT 1").get() === null;
    if (isEmpty) this.#clearSession();
    this.#database.close();
  }

  #clearSession(): void {
    for (const table of ["session", "counters", "losses"])
      this.#database.run(`DELETE FROM ${table}`);
  }
}

/** The spooled frames and losses of one source. */
export class SourceSpool {
  readonly #spool: Spool;
  readonly #folder: string;
  readonly #source: string;
  readonly #queries;
  #frameCount: number;
  /** Last sequence number that `next` returned on this connection. */
  #lastSent = 0;

  constructor(spool: Spool, database: Database, folder: string, source: string) {
    this.#spool = spool;
    this.#folder = folder;
    this.#source = source;
    this.#queries = {
      last: database.query<{ last: bigint }, [string]>(
        "SELECT last FROM counters WHERE source = ?",
      ),
      setLast: database.query<null, [string, number]>(
        "INSERT OR REPLACE INTO counters VALUES (?, ?)",
      ),
      put: database.query<null, [string, number, string, bigint, number, string]>(
        "INSERT OR REPLACE INTO frames VALUES (?, ?, ?, ?, ?, ?)",
      ),
      after: database.query<SpooledFrameRow, [string, number]>(
        "SELECT seq, name, captured, size, meta FROM frames WHERE source = ? AND seq > ? ORDER BY seq LIMIT 1",
      ),
      size: database.query<{ size: bigint }, [string, number]>(
        "SELECT size FROM frames WHERE source = ? AND seq = ?",
      ),
      delete: database.query<null, [string, number]>(
        "DELETE FROM frames WHERE source = ? AND seq = ?",
      ),
      putLoss: database.query<null, [string, number, number, string, string]>(
        "INSERT OR REPLACE INTO losses VALUES (?, ?, ?, ?, ?)",
      ),
      losses: database.query<SpooledLossRow, [string]>(
        "SELECT first, last, what, reason FROM losses WHERE source = ? ORDER BY first",
      ),
      frames: database.query<{ frames: bigint }, [string]>(
        "SELECT count(*) AS frames FROM frames WHERE source = ?",
      ),
    };
    mkdirSync(folder, { recursive: true });
    this.#frameCount = Number(this.#queries.frames.get(source)!.frames);
  }

  /** Number of spooled frames. */
  get length(): number {
    return this.#frameCount;
  }

  /** Last sequence number assigned to a frame, in this process or an earlier one. */
  get lastNumber(): number {
    return Number(this.#queries.last.get(this.#source)?.last ?? 0n);
  }

  set lastNumber(sequence: number) {
    this.#queries.setLast.run(this.#source, sequence);
  }

  /**
   * Returns all lost numbers, including those of earlier processes, which may have died before
   * reporting them.
   */
  losses(): Loss[] {
    return this.#queries.losses.all(this.#source).map(({ first, last, what, reason }) => ({
      first: Number(first),
      last: Number(last),
      what,
      error: new FramesError(reason),
    }));
  }

  /** Records lost numbers. Replaces a range with the same first number. */
  recordLoss({ first, last, what, error }: Loss): void {
    this.#queries.putLoss.run(this.#source, first, last, what, error.code);
  }

  #framePath(sequence: number): string {
    return join(this.#folder, String(sequence));
  }

  hasRoomFor({ size }: Frame): boolean {
    return this.#spool.hasRoom(size);
  }

  isLargeEnoughFor({ size }: Frame): boolean {
    return this.#spool.isLargeEnough(size);
  }

  /**
   * Writes a frame to disk. Does nothing if it is already spooled.
   *
   * @throws {FramesError} `unreadable` if the disk cannot be written
   */
  put(frame: Frame): void {
    const { sequence, name, captured, size, metadata } = frame;
    if (this.#queries.size.get(this.#source, sequence) !== null) return;
    const path = this.#framePath(sequence);
    try {
      const bytes = new Uint8Array(size);
      frame.read(bytes);
      writeFileSync(`${path}.part`, bytes);
      renameSync(`${path}.part`, path);
    } catch (error) {
      rmSync(`${path}.part`, { force: true });
      const reason = error instanceof FramesError ? error.message : systemSentence(error);
      throw new FramesError("unreadable", `the spool cannot be written: ${reason}`, {
        cause: error,
      });
    }
    this.#queries.put.run(this.#source, sequence, name, captured, size, metadata);
    this.#spool.adjustBytes(size);
    this.#frameCount++;
  }

  /** Returns the oldest frame not yet returned on this connection. */
  next(): Frame | undefined {
    const row =
      this.#frameCount === 0 ? null : this.#queries.after.get(this.#source, this.#lastSent);
    if (row === null) return undefined;
    this.#lastSent = Number(row.seq);
    return new SpooledFrame(row, this.#framePath(this.#lastSent));
  }

  /** Returns the oldest frame that may be dropped, which excludes frames in flight. */
  oldest(): Frame | undefined {
    const row = this.#queries.after.get(this.#source, this.#lastSent);
    return row === null ? undefined : new SpooledFrame(row, this.#framePath(Number(row.seq)));
  }

  /** Makes `next` start over. Called when the connection breaks. */
  rewind(): void {
    this.#lastSent = 0;
  }

  /** Deletes a frame that the server has confirmed, or that is dropped. */
  delete(sequence: number): void {
    if (this.#frameCount === 0) return;
    const row = this.#queries.size.get(this.#source, sequence);
    if (row === null) return;
    // Delete the row first: after a crash a file without a row only wastes space.
    this.#queries.delete.run(this.#source, sequence);
    rmSync(this.#framePath(sequence), { force: true });
    this.#spool.adjustBytes(-Number(row.size));
    this.#frameCount--;
  }
}

class SpooledFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata: string;
  readonly #path: string;

  constructor({ seq, name, captured, size, meta }: SpooledFrameRow, path: string) {
    this.name = name;
    this.sequence = Number(seq);
    this.captured = captured;
    this.size = Number(size);
    this.metadata = meta;
    this.#path = path;
  }

  #bytes(): Uint8Array {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(this.#path);
    } catch (error) {
      throw new FramesError("unreadable", `the spool cannot be read: ${systemSentence(error)}`, {
        cause: error,
      });
    }
    if (bytes.length === this.size) return bytes;
    throw new FramesError("unreadable", "another program changed the spool");
  }

  read(into: Uint8Array): void {
    into.set(this.#bytes());
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    yield this.#bytes();
    return undefined;
  }
}
