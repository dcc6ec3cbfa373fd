/**
 * Keeps the local index up to date. Polls the bucket for new log objects and segments of other
 * nodes.
 */
import { CommitSignal } from "../journal/commit-signal.ts";
import { asFramesError, FramesError } from "../../errors.ts";
import { DamagedLogError, decodeEntries, type DecodedEntry } from "./log-format.ts";
import type { LocalIndex } from "./local-index.ts";
import type { S3 } from "./s3.ts";
import { framePath } from "../paths.ts";

/** Prefixes of the log objects and of the segments. */
export const logPrefix = ".frames/journal/";
export const segmentPrefix = ".frames/segments/";

/** Pause between two polls, in milliseconds. */
const pollIntervalMs = 1500;

/** Segments are named by hexadecimal ids. Other objects below their prefix are not read. */
const segmentPath = /^\.frames\/segments\/[0-9a-f]{1,64}$/;
const logObject = /^\.frames\/journal\/([0-9a-f]{1,64})\/(\d{10})$/;

/** Largest log object, in bytes. One of 500 frames with the longest names and metadata has 3 MB. */
export const maxLogObjectBytes: number = 16 << 20;

/** Largest segment, in bytes: some million frames. */
export const maxSegmentBytes: number = 128 << 20;

/** Damaged lines that are remembered. */
const maxDamagedLines = 1000;

/** Log objects and segments read concurrently. A segment may need half of a server's memory. */
const maxConcurrentLogReads = 16;
const maxConcurrentSegmentReads = 1;

/** Polls in which a listed object was merged away before it was read. More of them are an error. */
const maxMisses = 20;

/** A log object in the bucket. */
export interface ListedLogObject {
  readonly session: string;
  readonly number: number;
  readonly path: string;
}

/** Returns the path of a log object. Sorted as text, paths have the order of their numbers. */
export function logObjectPath(session: string, number: number): string {
  return `${logPrefix}${session}/${String(number).padStart(10, "0")}`;
}

export class LogSync {
  /** Signals frames that this node or another one has stored. */
  readonly commitSignal = new CommitSignal();
  readonly #s3: S3;
  readonly #localIndex: LocalIndex;
  /** Paths of objects that were read. */
  readonly #readLogObjects = new Set<string>();
  readonly #readSegments = new Set<string>();
  #logObjects: ListedLogObject[] = [];
  #segments: { path: string; size: number }[] = [];
  #running: Promise<void> | undefined;
  #queued: Promise<void> | undefined;
  #applying: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  readonly #damagedLines: string[] = [];
  /** The object at which the last poll failed. Objects of the journal never change. */
  #damagedObject: { readonly path: string; readonly error: DamagedLogError } | undefined;
  #lastError: FramesError | undefined;

  constructor(s3: S3, localIndex: LocalIndex) {
    this.#s3 = s3;
    this.#localIndex = localIndex;
  }

  /** Log objects found by the last poll, sorted by session and number. */
  get logObjects(): readonly ListedLogObject[] {
    return this.#logObjects;
  }

  get segments(): readonly { readonly path: string; readonly size: number }[] {
    return this.#segments;
  }

  /** Error of the last poll, or undefined if it succeeded. */
  get lastError(): FramesError | undefined {
    return this.#lastError;
  }

  /** Starts to poll the bucket. */
  start(): void {
    const poll = async () => {
      // An operation that needs the bucket reports the error. Polling continues.
      await this.sync().catch(() => {});
      if (!this.#isStopped) this.#timer = setTimeout(() => void poll(), pollIntervalMs);
    };
    this.#timer = setTimeout(() => void poll(), pollIntervalMs);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /**
   * Reads everything that the bucket's journal had at the time of this call.
   *
   * @throws {FramesError} `store`
   */
  sync(): Promise<void> {
    if (this.#running === undefined) return this.#run();
    // A poll in progress may have listed the bucket before this call, so another one follows.
    return (this.#queued ??= this.#running.then(
      () => this.#run(),
      () => this.#run(),
    ));
  }

  #run(): Promise<void> {
    this.#queued = undefined;
    const running = this.#poll()
      .then(
        () => (this.#lastError = undefined),
        (error: unknown) => {
          this.#lastError = asFramesError(error, "store");
          throw error;
        },
      )
      .then(() => {})
      .finally(() => {
        if (this.#running === running) this.#running = undefined;
      });
    return (this.#running = running);
  }

  /**
   * Polls until every listed object was read. Log objects are listed before segments, because one
   * that is merged meanwhile is then in a listed segment.
   *
   * @throws {FramesError} `store`
   */
  async #poll(): Promise<void> {
    for (let misses = 0; ; misses++) {
      if (await this.#pollOnce()) return;
      if (misses === maxMisses)
        throw new FramesError(
          "store",
          "Cannot read the bucket's journal: it changes faster than it can be read",
        );
    }
  }

  async #pollOnce(): Promise<boolean> {
    const logObjects: ListedLogObject[] = [];
    for await (const page of this.#s3.list(logPrefix)) {
      for (const { key } of page) {
        const [, session, number] = logObject.exec(key) ?? [];
        if (session !== undefined) logObjects.push({ session, number: Number(number), path: key });
      }
    }
    let isComplete = await this.syncSegments();
    const unread = logObjects.filter(({ path }) => !this.#readLogObjects.has(path));
    isComplete =
      (await this.#read(
        unread.map(({ path }) => path),
        this.#readLogObjects,
        maxConcurrentLogReads,
      )) && isComplete;
    this.#logObjects = logObjects;
    retainListed(this.#readLogObjects, new Set(logObjects.map(({ path }) => path)));
    return isComplete;
  }

  /**
   * Reads new segments.
   *
   * @returns false if a listed segment was missing
   */
  async syncSegments(): Promise<boolean> {
    const segments: { path: string; size: number }[] = [];
    for await (const page of this.#s3.list(segmentPrefix)) {
      for (const { key, size } of page) {
        if (segmentPath.test(key)) segments.push({ path: key, size });
      }
    }
    const unread = segments.filter(({ path }) => !this.#readSegments.has(path));
    const isComplete = await this.#read(
      unread.map(({ path }) => path),
      this.#readSegments,
      maxConcurrentSegmentReads,
    );
    this.#segments = segments;
    return isComplete;
  }

  async #read(
    paths: readonly string[],
    read: Set<string>,
    maxConcurrent: number,
  ): Promise<boolean> {
    let isComplete = true;
    const maxBytes = read === this.#readSegments ? maxSegmentBytes : maxLogObjectBytes;
    for (let from = 0; from < paths.length; from += maxConcurrent) {
      const chunk = paths.slice(from, from + maxConcurrent);
      const found = await Promise.all(chunk.map((path) => this.#bytes(path, maxBytes)));
      for (const [index, bytes] of found.entries()) {
        const path = chunk[index]!;
        if (bytes === undefined) isComplete = false;
        else if (!read.has(path)) await this.#readEntries(path, bytes, read);
      }
    }
    return isComplete;
  }

  /** @throws {FramesError} `store`. An object that was damaged is not read again. */
  async #bytes(path: string, maxBytes: number): Promise<Uint8Array | undefined> {
    if (this.#damagedObject?.path === path) throw this.#damagedObject.error;
    return await this.#s3.bytes(path, maxBytes);
  }

  async #readEntries(path: string, bytes: Uint8Array, read: Set<string>): Promise<void> {
    try {
      for await (const decoded of decodeEntries(path, bytes)) {
        this.#check(path, decoded);
        await this.apply(decoded);
      }
    } catch (error) {
      if (error instanceof DamagedLogError) this.#damagedObject = { path, error };
      throw error;
    }
    read.add(path);
  }

  /**
   * Checks that the entries of a log object are of the session and number in its key, and remembers
   * damaged lines.
   *
   * @throws {FramesError} `store`
   */
  #check(path: string, decoded: readonly DecodedEntry[]): void {
    const [, session, number] = logObject.exec(path) ?? [];
    for (const { header, damagedLine } of decoded) {
      const isOther =
        session !== undefined &&
        (header.session !== session ||
          header.first !== Number(number) ||
          header.last !== header.first);
      if (isOther) {
        const reason = "it is of another session or number than its key";
        throw new DamagedLogError(path, reason);
      }
      if (damagedLine !== undefined && this.#damagedLines.length < maxDamagedLines) {
        this.#damagedLines.push(`line ${damagedLine} of ${path}`);
      }
    }
  }

  /** Places of lines that no server can have written, the first of them. */
  get damagedLines(): readonly string[] {
    return this.#damagedLines;
  }

  /** Marks an object as read, because this node wrote it or has its entries. */
  markRead(path: string): void {
    (path.startsWith(segmentPrefix) ? this.#readSegments : this.#readLogObjects).add(path);
  }

  /** Returns whether a log object was read. */
  hasRead(path: string): boolean {
    return this.#readLogObjects.has(path);
  }

  /**
   * Applies entries to the local index. If two rows have the same name but different bytes, the
   * ETag of the object decides.
   *
   * @throws {FramesError} `store`
   */
  apply(decoded: readonly DecodedEntry[]): Promise<void> {
    return (this.#applying = this.#applying.then(
      () => this.#applyNow(decoded),
      () => this.#applyNow(decoded),
    ));
  }

  async #applyNow(decoded: readonly DecodedEntry[]): Promise<void> {
    const conflicts = this.#localIndex.apply(decoded);
    for (const { row, etag } of conflicts) {
      const head = await this.#s3.head(framePath(row.stream, row.source, row.name));
      if (head?.etag === etag) this.#localIndex.replace(row);
    }
    this.#localIndex.flush();
    this.commitSignal.notify();
  }
}

function retainListed(paths: Set<string>, listed: ReadonlySet<string>): void {
  for (const path of paths) if (!listed.has(path)) paths.delete(path);
}
