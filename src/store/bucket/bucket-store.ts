/**
 * Stores frames in a bucket of an S3 engine (BUCKET.md). Each frame is one object, with the name
 * that it has in a directory. The journal consists of objects too. Several processes may serve the
 * same bucket.
 */
import { toNanoseconds } from "../../common/clock.ts";
import { FramesError } from "../../errors.ts";
import type {
  FrameDescription,
  SourceInfo,
  FrameStore,
  FrameWriter,
  OfferedFrame,
  SourceStore,
  OfferStatus,
} from "../../frame.ts";
import type { CommitSignal } from "../journal/commit-signal.ts";
import { BucketFrameWriter, type BucketContext, FrameObject } from "./frame-writer.ts";
import { SessionLog, type BatchPolicy } from "./session-log.ts";
import { LogSync } from "./log-sync.ts";
import { BucketContents } from "./bucket-contents.ts";
import type { LogEntry } from "./log-format.ts";
import { openStoreMarker, randomId } from "./marker.ts";
import { LogCompactor } from "./compactor.ts";
import { LocalIndex, checkCaptureTime, toLogSource } from "./local-index.ts";
import { checkPathPart, sourceFolderPath } from "../name-rules.ts";
import { compareWithRow, isRepeated, mayWriteOver } from "../conflict.ts";
import { ExistingFrameWriter } from "../existing-frame-writer.ts";
import { compareOffers } from "../offers.ts";
import { type BucketLocation, maxKeyBytes, type S3Timeouts, S3 } from "./s3.ts";
import { framePath } from "../paths.ts";
import { checkSessionOwner, provedKey } from "../session-owner.ts";
import { UploadPool } from "./upload-pool.ts";

/** Options of a store in a bucket. */
export interface BucketStoreOptions {
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
  readonly batchPolicy?: Partial<BatchPolicy>;
  readonly timeouts?: S3Timeouts;
}

const defaultBatchPolicy: BatchPolicy = {
  maxDelayMs: 1000,
  lingerMs: 150,
  maxEntries: 500,
  maxBytes: 16 << 20,
};

/** Time for requests in progress when the store is closed, in milliseconds. */
const closeTimeoutMs = 10_000;

/** A store in a bucket. */
export class BucketStore implements FrameStore {
  readonly location: string;
  /** Read side of the store. */
  readonly contents: BucketContents;
  /** An S3 engine confirms an object only when it is durable. */
  readonly isDurable = true;
  /** Longest time that frames wait for a common receipt, in milliseconds. */
  readonly receiptIntervalMs: number;
  /** Random id of this process among the nodes that serve the bucket. */
  readonly #node = randomId();
  readonly #context: BucketContext;
  readonly #logSync: LogSync;
  readonly #compactor: LogCompactor;
  readonly #batchPolicy: BatchPolicy;
  readonly #logs = new Map<string, SessionLog>();
  /** Reported losses whose log object is not written yet. */
  readonly #pendingLosses = new Set<Promise<void>>();
  #closed: Promise<void> | undefined;

  private constructor(s3: S3, identity: string, options: BucketStoreOptions) {
    const localIndex = new LocalIndex(identity);
    this.location = s3.location;
    this.#batchPolicy = { ...defaultBatchPolicy, ...options.batchPolicy };
    this.receiptIntervalMs = this.#batchPolicy.maxDelayMs;
    this.#logSync = new LogSync(s3, localIndex);
    this.contents = new BucketContents(s3, localIndex, this.#logSync);
    const compactorContext = {
      s3,
      localIndex,
      logSync: this.#logSync,
      logs: this.#logs,
      node: this.#node,
    };
    this.#compactor = new LogCompactor(compactorContext);
    const { clock } = options;
    this.#context = {
      s3,
      localIndex,
      uploadPool: new UploadPool(),
      lastByPath: new Map(),
      now: () => toNanoseconds(clock()),
      sessionLog: (sourceInfo) => this.#sessionLog(sourceInfo),
    };
  }

  /**
   * Opens the store in a bucket, or creates it.
   *
   * @throws {FramesError} `store` if the engine cannot be reached, refuses the key, or lacks a
   * needed operation
   */
  static async open(location: BucketLocation, options: BucketStoreOptions): Promise<BucketStore> {
    const s3 = await S3.open(location, options.timeouts);
    const store = new BucketStore(s3, await openStoreMarker(s3), options);
    try {
      await store.#logSync.sync();
    } catch (error) {
      store.#context.localIndex.close();
      throw error;
    }
    store.#logSync.start();
    store.#compactor.start();
    return store;
  }

  /** Path of the local copy of the bucket's journal. It lags the bucket by a few seconds. */
  get journalPath(): string {
    return this.#context.localIndex.path;
  }

  /** Signals new frames, including those that other nodes stored. */
  get commitSignal(): CommitSignal {
    return this.#logSync.commitSignal;
  }

  isStreamEmpty(stream: string): boolean {
    return !this.#context.localIndex.hasStream(stream);
  }

  refresh(): Promise<void> {
    return this.#logSync.sync();
  }

  whenReady(): Promise<void> | undefined {
    return this.#context.uploadPool.waitForCapacity();
  }

  checkNames(stream: string, source: string): void {
    sourceFolderPath(stream, source, false);
  }

  checkSession(sender: Pick<SourceInfo, "session" | "key" | "keyId">): void {
    const key = provedKey(sender);
    this.#context.localIndex.checkSession(sender.session, key);
    // A sender may have begun it, whose first log object is not written yet.
    const log = this.#logs.get(sender.session);
    if (log?.hasFailed === false) checkSessionOwner(log.sender, key);
  }

  open(requested: SourceInfo): SourceStore {
    this.checkNames(requested.stream, requested.source);
    this.checkSession(requested);
    const sourceInfo = { ...requested, verifyStored: requested.durable === true };
    const log = () => this.#sessionLog(sourceInfo);
    return new BucketSourceStore(this.#context, sourceInfo, log, (pending) => {
      this.#pendingLosses.add(pending);
      const end = () => void this.#pendingLosses.delete(pending);
      pending.then(end, end);
    });
  }

  /** @throws {FramesError} `stolen-session` */
  #sessionLog(sourceInfo: SourceInfo): SessionLog {
    const { session } = sourceInfo;
    const existing = this.#logs.get(session);
    if (existing?.hasFailed === false) {
      checkSessionOwner(existing.sender, provedKey(sourceInfo));
      return existing;
    }
    const { s3, localIndex } = this.#context;
    const context = {
      s3,
      localIndex,
      logSync: this.#logSync,
      node: this.#node,
      batchPolicy: this.#batchPolicy,
    };
    const log = new SessionLog(session, provedKey(sourceInfo), context);
    this.#logs.set(session, log);
    return log;
  }

  /**
   * Waits for losses only. Each frame settles by itself when its row is in the bucket.
   *
   * @throws {FramesError} `store`
   */
  flush(): void | Promise<void> {
    if (this.#pendingLosses.size > 0) return this.#waitForLosses();
  }

  async #waitForLosses(): Promise<void> {
    for (const result of await Promise.allSettled(this.#pendingLosses)) {
      // Other errors concern one session, and its frames report them.
      if (result.status === "rejected" && result.reason?.code === "store") throw result.reason;
    }
  }

  /** Finishes requests in progress for at most `closeTimeoutMs`, and closes. */
  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#logSync.stop();
    this.#compactor.stop();
    const timeout = Promise.withResolvers<void>();
    const timer = setTimeout(timeout.resolve, closeTimeoutMs);
    try {
      // A frame that fails now has no receipt, so its sender sends it again.
      await Promise.race([this.#finish().catch(() => {}), timeout.promise]);
    } finally {
      clearTimeout(timer);
      this.#context.s3.close();
      this.#context.localIndex.close();
    }
  }

  async #finish(): Promise<void> {
    await this.#context.uploadPool.uploads.whenIdle();
    await Promise.all([...this.#logs.values()].map((log) => log.finish()));
    await this.#compactor.compactOwn(0);
  }
}

/** Stores the frames of one source in one session. */
class BucketSourceStore implements SourceStore {
  readonly #context: BucketContext;
  readonly #sourceInfo: SourceInfo;
  readonly #log: () => SessionLog;
  readonly #onPending: (pending: Promise<void>) => void;

  constructor(
    context: BucketContext,
    sourceInfo: SourceInfo,
    log: () => SessionLog,
    onPending: (pending: Promise<void>) => void,
  ) {
    this.#context = context;
    this.#sourceInfo = sourceInfo;
    this.#log = log;
    this.#onPending = onPending;
  }

  begin(description: FrameDescription): FrameWriter {
    const { stream, source } = this.#sourceInfo;
    const { name, captured } = description;
    this.#check(name);
    checkCaptureTime(captured);
    const stored = this.#context.localIndex.find(stream, source, name);
    if (stored !== null && !mayWriteOver(stored, this.#sourceInfo, description)) {
      const object = new FrameObject(this.#context, this.#sourceInfo, description);
      return new ExistingFrameWriter((crc) => object.compareStored(stored, crc));
    }
    return new BucketFrameWriter(this.#context, this.#sourceInfo, description, stored === null);
  }

  /** @throws {FramesError} `bad-name` if the name is unsafe or its key is too long */
  #check(name: string): void {
    checkPathPart(name, false);
    const { stream, source } = this.#sourceInfo;
    const path = framePath(stream, source, name);
    // A string has at most three UTF-8 bytes per UTF-16 unit, so short paths need no encoding. The
    // other half of the key is left for the prefix.
    if (path.length * 3 <= maxKeyBytes / 2) return;
    const bytes = this.#context.s3.keyByteLength(path);
    if (bytes <= maxKeyBytes) return;
    const reason = `its object key has ${bytes} bytes, the limit is ${maxKeyBytes}`;
    throw new FramesError("bad-name", `The name cannot be used in a bucket: ${reason}`);
  }

  compare(offered: readonly OfferedFrame[]): OfferStatus[] {
    return this.#context.localIndex.read(() =>
      compareOffers(
        offered,
        (frame) => this.#compare(frame),
        (first, last) => this.#markAccounted(first, last),
      ),
    );
  }

  #compare(offered: OfferedFrame): OfferStatus {
    const sourceInfo = this.#sourceInfo;
    const { name, captured } = offered;
    this.#check(name);
    checkCaptureTime(captured);
    const { stream, source } = sourceInfo;
    const stored = this.#context.localIndex.findOffered(stream, source, name, captured);
    if (stored === null) return "wanted";
    const status = compareWithRow(stored, sourceInfo, offered);
    if (status !== "same") return status;
    const { resendRemoved, verifyStored } = sourceInfo;
    if (resendRemoved === true && isRepeated(stored, sourceInfo, offered)) return "removed";
    // With `verifyStored`, the stored object must be read first. With `resendRemoved`, the object
    // may have been moved away. In both cases the sender sends the frame, and it is checked then.
    return resendRemoved === true || verifyStored === true ? "wanted" : "stored";
  }

  /** Accounts for numbers of frames that get no row. */
  #markAccounted(first: number, last: number): void {
    this.#log().markAccounted(toLogSource(this.#sourceInfo), first, last, this.#context.now());
  }

  recordLoss(first: number, last: number, error: FramesError, name?: string): void {
    const logSource = toLogSource(this.#sourceInfo);
    const range = { logSource, first, last, at: this.#context.now() };
    const isKnown =
      name !== undefined &&
      this.#context.localIndex.hasOpenLoss(
        this.#sourceInfo,
        provedKey(this.#sourceInfo),
        name,
        error.code,
      );
    const entry: LogEntry = isKnown
      ? { kind: "account", ...range }
      : { kind: "loss", ...range, reason: error.code, name };
    this.#onPending(this.#log().add(entry));
  }

  flushSoon(): void {
    this.#log().flushSoon();
  }
}
