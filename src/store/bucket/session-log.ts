/**
 * The journal of one session in a bucket: a chain of links, each created only if nobody has created it before.
 * Whoever creates the next one holds the session; who finds it taken by another has lost it.
 */
import { type ErrorName, FramesError } from "../../errors.ts";
import { logObjectPath, type LogSync } from "./log-sync.ts";
import {
  decodeEntries,
  encodeEntries,
  type LogEntry,
  isSameLogSource,
  type DecodedEntry,
} from "./log-format.ts";
import type { LocalIndex } from "./local-index.ts";
import type { S3 } from "./s3.ts";

/** When a link is written, in milliseconds; or when it has enough. */
export interface BatchPolicy {
  /** So long after its first entry at the latest. */
  readonly maxDelayMs: number;
  /** Earlier if nothing more came for so long. */
  readonly lingerMs: number;
  readonly maxEntries: number;
  /** Bytes of the frames that wait for their receipt. */
  readonly maxBytes: number;
}

/** What chains share. */
export interface SessionLogContext {
  readonly s3: S3;
  readonly localIndex: LocalIndex;
  readonly logSync: LogSync;
  /** Name of this process. */
  readonly node: string;
  readonly batchPolicy: BatchPolicy;
}

interface PendingEntry {
  readonly entry: LogEntry;
  resolve(): void;
  reject(error: unknown): void;
}

/** Errors after which a chain is of no more use here. */
const fatalErrors: ReadonlySet<ErrorName> = new Set(["superseded", "stolen-session"]);

/** Others may go on with a chain so often while it is taken over. */
const maxTakeoverAttempts = 100;

export class SessionLog {
  readonly session: string;
  readonly #context: SessionLogContext;
  #pending: PendingEntry[] = [];
  #pendingBytes = 0;
  /** Frames that will be added. */
  #uploadCount = 0;
  #isUrgent = false;
  #firstPendingAt = 0;
  #lastAddedAt = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  /** Number of the last link, if this node wrote it, and its ETag. */
  #lastNumber: number | undefined;
  #lastEtag: string | undefined;
  #failure: FramesError | undefined;

  constructor(session: string, context: SessionLogContext) {
    this.session = session;
    this.#context = context;
  }

  /** Whether another node has gone on with it: it is then of no more use here. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** For how long nothing came, in milliseconds; 0 while something waits. */
  get idleMs(): number {
    if (this.#pending.length > 0 || this.#writing !== undefined) return 0;
    return performance.now() - this.#lastAddedAt;
  }

  /** Number of the last link, if this node holds the chain. */
  get lastNumber(): number | undefined {
    return this.#lastNumber;
  }

  /** Begins something that adds an entry, if all goes well. */
  beginUpload(): void {
    this.#uploadCount++;
    this.#isUrgent = false;
  }

  /** It has ended. */
  endUpload(): void {
    this.#uploadCount--;
    this.#maybeFlush();
  }

  /** Nothing more is to be waited for than what has begun. */
  flushSoon(): void {
    this.#isUrgent = true;
    this.#maybeFlush();
  }

  /**
   * Records an entry.
   *
   * @param bytes of a frame that waits for its receipt
   * @returns what is settled when its link is written
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

  /** Writes what waits, if it is time. */
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

  /** Writes all that waits now. */
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

  #fail(error: unknown, batch: readonly PendingEntry[]): void {
    if (error instanceof FramesError && fatalErrors.has(error.code)) {
      this.#failure = error;
      batch = [...batch, ...this.#pending];
      this.#pending = [];
    }
    for (const { reject } of batch) reject(error);
  }

  async #append(entries: readonly LogEntry[]): Promise<void> {
    const { s3, localIndex, logSync, node } = this.#context;
    const { session } = this;
    const strayPaths: string[] = [];
    for (let attempt = 0; attempt < maxTakeoverAttempts; attempt++) {
      this.#checkKey(entries);
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
      logSync.markRead(path);
      await logSync.apply(entries.map((entry) => ({ header, entry })));
      // What they say is said now where it belongs; that they lie about is no harm.
      for (const path of strayPaths) void s3.remove(path).catch(() => {});
      return;
    }
    throw new FramesError("store", `Cannot take over session ${session}: others go on with it`);
  }

  /**
   * Whoever knows the id of a session has not its key yet.
   *
   * @throws {FramesError} `stolen-session`
   */
  #checkKey(entries: readonly LogEntry[]): void {
    if (this.#lastNumber !== undefined) return;
    const key = this.#context.localIndex.keyName(this.session);
    if (key === undefined || entries.every(({ logSource }) => logSource.key === key)) return;
    throw new FramesError("stolen-session");
  }

  /**
   * What has the link's name: this very link, written by a try whose answer was lost, or something else that
   * the next link comes after.
   *
   * @throws {FramesError} `superseded`
   */
  async #isOwnObject(path: string, bytes: Uint8Array): Promise<boolean> {
    const { s3, logSync, node } = this.#context;
    const found = await s3.bytes(path);
    if (found === undefined) {
      await logSync.sync();
      return false;
    }
    if (Buffer.compare(found, bytes) === 0) return true;
    const decoded: DecodedEntry[] = [];
    for await (const batch of decodeEntries(path, found)) decoded.push(...batch);
    await logSync.apply(decoded);
    logSync.markRead(path);
    // Who only merges what was left takes no session over, and neither did an earlier try of our own.
    const isFromOtherNode = decoded.some(
      ({ header, entry }) => entry !== undefined && header.node !== node,
    );
    if (isFromOtherNode && this.#lastNumber !== undefined) {
      throw new FramesError("superseded", "Another server has gone on with this session");
    }
    return false;
  }

  /**
   * Whether the link that was just created is the first of its number: links are removed from the first on, and
   * only when a segment has them.
   */
  async #isNextInLog(number: number): Promise<boolean> {
    const { s3, localIndex, logSync } = this.#context;
    if (this.#lastEtag !== undefined) {
      const previous = await s3.head(logObjectPath(this.session, number - 1));
      // Not just any: somebody may have begun where it was.
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
   * Others have gone on with the chain, and merged it.
   *
   * @throws {FramesError} `store` if this node held it
   */
  #onTakenOver(number: number): void {
    const wasOwner = this.#lastNumber !== undefined;
    this.#setLast(undefined, undefined);
    if (!wasOwner) return;
    const reason = `Others have gone on with session ${this.session} before its link ${number}`;
    throw new FramesError("store", reason);
  }
}

/** Accounts of numbers that follow each other become one. */
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
