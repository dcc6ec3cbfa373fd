/**
 * Journal of one session in a bucket: a sequence of numbered log objects (BUCKET.md, section 5).
 * Each is created only if it does not exist. Creating the next object acquires the session. If it
 * already exists, another node has taken over.
 */
import { asFramesError, FramesError } from "../../errors.ts";
import { logObjectPath, type LogSync, maxLogObjectBytes } from "./log-sync.ts";
import {
  decodeEntries,
  encodeEntries,
  type LogEntry,
  isSameLogSource,
  type DecodedEntry,
  type LogSource,
} from "./log-format.ts";
import type { LocalIndex } from "./local-index.ts";
import type { S3 } from "./s3.ts";
import { UploadOrder } from "./upload-order.ts";
import { checkSessionOwner, type SessionOwner } from "../session-owner.ts";

/** When a log object is written: after a time, or at a size. */
export interface BatchPolicy {
  /** Longest delay after the first entry, in milliseconds. */
  readonly maxDelayMs: number;
  /** Delay after the last entry, in milliseconds. A new entry restarts it. */
  readonly lingerMs: number;
  readonly maxEntries: number;
  /** Bytes of the frames that wait for their receipt. */
  readonly maxBytes: number;
}

/** Parts of the store that all session logs share. */
export interface SessionLogContext {
  readonly s3: S3;
  readonly localIndex: LocalIndex;
  readonly logSync: LogSync;
  /** Id of this process. */
  readonly node: string;
  readonly batchPolicy: BatchPolicy;
}

interface PendingEntry {
  readonly entry: LogEntry;
  resolve(): void;
  reject(error: unknown): void;
}

/** Attempts to acquire a session while other nodes add log objects to it. */
const maxTakeoverAttempts = 100;

export class SessionLog {
  readonly session: string;
  /** Key of the sender that the entries come from. */
  readonly sender: SessionOwner;
  readonly uploadOrder: UploadOrder = new UploadOrder();
  readonly #context: SessionLogContext;
  #pending: PendingEntry[] = [];
  #pendingBytes = 0;
  /** Uploads in progress that will add an entry. */
  #uploadCount = 0;
  #isUrgent = false;
  #firstPendingAt = 0;
  #lastAddedAt = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  /** Number of the last log object if this node owns the session, and its ETag if known. */
  #lastNumber: number | undefined;
  #lastEtag: string | undefined;
  #failure: FramesError | undefined;

  constructor(session: string, sender: SessionOwner, context: SessionLogContext) {
    this.session = session;
    this.sender = sender;
    this.#context = context;
  }

  /** Whether entries could not be written. The log then rejects all later ones. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** Milliseconds since the last entry. 0 while entries wait or uploads are in progress. */
  get idleMs(): number {
    if (this.#pending.length + this.#uploadCount > 0 || this.#writing !== undefined) return 0;
    return performance.now() - this.#lastAddedAt;
  }

  /** Number of the last log object, or undefined if this node does not own the session. */
  get lastNumber(): number | undefined {
    return this.#lastNumber;
  }

  /** Announces an upload that adds an entry on success. */
  beginUpload(): void {
    this.#uploadCount++;
    this.#isUrgent = false;
  }

  /** Ends an announced upload, whether or not it succeeded. */
  endUpload(): void {
    this.#uploadCount--;
    this.#maybeFlush();
  }

  /** Writes the log object as soon as all announced uploads have ended. */
  flushSoon(): void {
    this.#isUrgent = true;
    this.#maybeFlush();
  }

  /**
   * Adds an entry to the next log object.
   *
   * @param bytes size of a frame that waits for its receipt
   * @returns resolves when the log object is written; rejects with `store`, `superseded` or
   * `stolen-session`
   */
  add(entry: LogEntry, bytes = 0): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#lastAddedAt = performance.now();
    if (this.#pending.length === 0) this.#firstPendingAt = this.#lastAddedAt;
    this.#pending.push({ entry, resolve, reject });
    this.#pendingBytes += bytes;
    this.#maybeFlush();
    return promise;
  }

  /**
   * Accounts for numbers whose frames get no row but are not lost. Errors are ignored, because only
   * the list of gaps depends on the entry.
   *
   * @param at nanoseconds since 1970
   */
  markAccounted(logSource: LogSource, first: number, last: number, at: bigint): void {
    this.add({ kind: "account", logSource, first, last, at }).catch(() => {});
  }

  /** Writes the waiting entries if a limit is reached, else sets a timer. */
  #maybeFlush(): void {
    if (this.#writing !== undefined || this.#pending.length === 0) return;
    const { maxDelayMs, lingerMs, maxEntries, maxBytes } = this.#context.batchPolicy;
    const isComplete = this.#isUrgent && this.#uploadCount === 0;
    const isFull =
      this.#pending.length >= maxEntries || this.#pendingBytes >= maxBytes || isComplete;
    const dueAt = Math.min(this.#firstPendingAt + maxDelayMs, this.#lastAddedAt + lingerMs);
    const delayMs = dueAt - performance.now();
    if (isFull || delayMs <= 0) return void this.#write();
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#maybeFlush();
    }, delayMs);
  }

  /** Writes all waiting entries. */
  async finish(): Promise<void> {
    while (this.#writing !== undefined || this.#pending.length > 0) {
      await (this.#writing ?? this.#write());
    }
  }

  #write(): Promise<void> {
    const batch = this.#pending;
    this.#pending = [];
    this.#pendingBytes = 0;
    const writing = this.#append(mergeAccounts(batch.map(({ entry }) => entry))).then(
      () => batch.forEach(({ resolve }) => resolve()),
      (error: unknown) => this.#fail(error, batch),
    );
    this.#writing = writing.finally(() => {
      this.#writing = undefined;
      this.#firstPendingAt = performance.now();
      this.#maybeFlush();
    });
    return this.#writing;
  }

  /**
   * Rejects the entries that could not be written, and those behind them. Their senders send the
   * frames again, in their order.
   */
  #fail(error: unknown, batch: readonly PendingEntry[]): void {
    this.#failure = asFramesError(error, "store");
    const rejected = [...batch, ...this.#pending];
    this.#pending = [];
    for (const { reject } of rejected) reject(error);
  }

  async #append(entries: readonly LogEntry[]): Promise<void> {
    const { s3, localIndex, logSync, node } = this.#context;
    const { session } = this;
    const strayPaths: string[] = [];
    for (let attempt = 0; attempt < maxTakeoverAttempts; attempt++) {
      // Another node may have begun the session with another key.
      checkSessionOwner(localIndex.sessionOwner(session), this.sender);
      const number = (this.#lastNumber ?? localIndex.lastNumber(session)) + 1;
      const header = { session, first: number, last: number, node };
      const bytes = encodeEntries(header, entries);
      const path = logObjectPath(session, number);
      const upload = await s3.put(path, bytes, { condition: "new", type: "application/gzip" });
      if (upload.outcome === "taken" && !(await this.#isOwnObject(path, bytes))) {
        if (this.#lastNumber !== undefined && logSync.hasRead(path))
          this.#setLast(number, undefined);
        continue;
      }
      if (!(await this.#isNextInLog(number))) {
        this.#onTakenOver(number);
        strayPaths.push(path);
        continue;
      }
      this.#setLast(number, upload.outcome === "stored" ? upload.etag : undefined);
      await logSync.apply(entries.map((entry) => ({ header, entry })));
      // If they cannot be applied now, the next poll reads them.
      logSync.markRead(path);
      // Their entries are now in the object with the right number. A stray object that remains does
      // no harm.
      for (const path of strayPaths) void s3.remove(path).catch(() => {});
      return;
    }
    throw new FramesError(
      "store",
      `Cannot take over session ${session}: another server continues it`,
    );
  }

  /**
   * Returns whether the existing object is this very one, written by an attempt whose response was
   * lost. Otherwise its entries are applied, and the next number must be tried.
   *
   * @throws {FramesError} `superseded` if another node took the session over
   */
  async #isOwnObject(path: string, bytes: Uint8Array): Promise<boolean> {
    const { s3, logSync, node } = this.#context;
    const found = await s3.bytes(path, maxLogObjectBytes);
    if (found === undefined) {
      await logSync.sync();
      return false;
    }
    if (Buffer.compare(found, bytes) === 0) return true;
    const decoded: DecodedEntry[] = [];
    for await (const batch of decodeEntries(path, found)) decoded.push(...batch);
    await logSync.apply(decoded);
    logSync.markRead(path);
    // An object without entries only merges what was left, and so takes over nothing. An object of
    // this node is an earlier attempt.
    const isFromOtherNode = decoded.some(
      ({ header, entry }) => entry !== undefined && header.node !== node,
    );
    if (isFromOtherNode && this.#lastNumber !== undefined) {
      throw new FramesError("superseded", "Another server took over this session");
    }
    return false;
  }

  /**
   * Returns whether the created object is the first with its number. The number of a merged object
   * is free again, because log objects are removed in order after a merge.
   */
  async #isNextInLog(number: number): Promise<boolean> {
    const { s3, localIndex, logSync } = this.#context;
    if (this.#lastEtag !== undefined) {
      const previous = await s3.head(logObjectPath(this.session, number - 1));
      // The ETag must match, because another node may have created an object with the number of a
      // merged one.
      if (previous?.etag === this.#lastEtag) return true;
    }
    if (!(await logSync.syncSegments())) await logSync.sync();
    return localIndex.lastNumber(this.session) < number;
  }

  #setLast(number: number | undefined, etag: string | undefined): void {
    this.#lastNumber = number;
    this.#lastEtag = etag;
  }

  /**
   * Gives up the session after other nodes have extended and merged its log.
   *
   * @throws {FramesError} `store` if this node owned the session
   */
  #onTakenOver(number: number): void {
    const wasOwner = this.#lastNumber !== undefined;
    this.#setLast(undefined, undefined);
    if (!wasOwner) return;
    const reason = `Another server took over session ${this.session} before object ${number} of its log`;
    throw new FramesError("store", reason);
  }
}

/** Joins account entries with consecutive numbers. */
function mergeAccounts(entries: readonly LogEntry[]): LogEntry[] {
  const result: LogEntry[] = [];
  for (const entry of entries) {
    const previous = result.at(-1);
    const follows =
      entry.kind === "account" &&
      previous?.kind === "account" &&
      isSameLogSource(previous.logSource, entry.logSource) &&
      previous.last + 1 === entry.first;
    if (follows) result[result.length - 1] = { ...entry, first: previous.first };
    else result.push(entry);
  }
  return result;
}
