/**
 * Keeps a mirror of a bucket's journal up with what other nodes write: reads the links and segments that it
 * does not know yet.
 */
import { CommitSignal } from "../journal/commit-signal.ts";
import { asFramesError, FramesError } from "../../errors.ts";
import { decodeEntries, type DecodedEntry } from "./log-format.ts";
import type { LocalIndex } from "./local-index.ts";
import type { S3 } from "./s3.ts";
import { framePath } from "../paths.ts";

/** Below these lie the links of chains, and the segments. */
export const logPrefix = ".frames/journal/";
export const segmentPrefix = ".frames/segments/";

/** The pause between two looks at the bucket, in milliseconds. */
const pollIntervalMs = 1500;

/** Links, and segments, which may be large, that are read at the same time. */
const maxConcurrentLogReads = 16;
const maxConcurrentSegmentReads = 2;

/** So often an object that is listed may be gone, because it was merged meanwhile, before that is a fault. */
const maxMisses = 20;

/** A link of a chain in the bucket. */
export interface ListedLogObject {
  readonly session: string;
  readonly number: number;
  readonly path: string;
}

/** Path of a link; as text they sort in the order of their numbers. */
export function logObjectPath(session: string, number: number): string {
  return `${logPrefix}${session}/${String(number).padStart(10, "0")}`;
}

export class LogSync {
  /** Tells of frames that this node and others have received. */
  readonly commitSignal = new CommitSignal();
  readonly #s3: S3;
  readonly #localIndex: LocalIndex;
  /** Paths of what was read, and is there still. */
  readonly #readLogObjects = new Set<string>();
  readonly #readSegments = new Set<string>();
  #logObjects: ListedLogObject[] = [];
  #segments: { path: string; size: number }[] = [];
  #running: Promise<void> | undefined;
  #queued: Promise<void> | undefined;
  #applying: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  #lastError: FramesError | undefined;

  constructor(s3: S3, localIndex: LocalIndex) {
    this.#s3 = s3;
    this.#localIndex = localIndex;
  }

  /** The links that the last look found, in the order of sessions and numbers. */
  get logObjects(): readonly ListedLogObject[] {
    return this.#logObjects;
  }

  get segments(): readonly { readonly path: string; readonly size: number }[] {
    return this.#segments;
  }

  /** Why the last look failed, if it did. */
  get lastError(): FramesError | undefined {
    return this.#lastError;
  }

  /** Looks again and again. */
  start(): void {
    const poll = async () => {
      // What is wrong is told to whoever needs the bucket: this only runs behind.
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
   * Reads what the bucket's journal had when this was called.
   *
   * @throws {FramesError} `store`
   */
  sync(): Promise<void> {
    if (this.#running === undefined) return this.#run();
    // One that is under way may have looked too early.
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

  /** First the links: one that is merged meanwhile is in a segment by the time these are listed. */
  async #poll(): Promise<void> {
    for (let misses = 0; ; misses++) {
      if (await this.#pollOnce()) return;
      if (misses === maxMisses)
        throw new FramesError("store", "The bucket's journal does not stand still");
    }
  }

  async #pollOnce(): Promise<boolean> {
    const logObjects: ListedLogObject[] = [];
    for await (const page of this.#s3.list(logPrefix)) {
      for (const { key } of page) {
        const [, session, number] =
          /^\.frames\/journal\/([0-9a-f]{1,64})\/(\d{10})$/.exec(key) ?? [];
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
   * Reads the segments that are new.
   *
   * @returns whether all were still there
   */
  async syncSegments(): Promise<boolean> {
    const segments: { path: string; size: number }[] = [];
    for await (const page of this.#s3.list(segmentPrefix)) {
      for (const { key, size } of page) segments.push({ path: key, size });
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
    for (let from = 0; from < paths.length; from += maxConcurrent) {
      const chunk = paths.slice(from, from + maxConcurrent);
      const found = await Promise.all(chunk.map((path) => this.#s3.bytes(path)));
      for (const [index, bytes] of found.entries()) {
        const path = chunk[index]!;
        if (bytes === undefined) isComplete = false;
        else if (!read.has(path)) {
          for await (const decoded of decodeEntries(path, bytes)) await this.apply(decoded);
          read.add(path);
        }
      }
    }
    return isComplete;
  }

  /** Notes what this node wrote itself. */
  markRead(path: string): void {
    (path.startsWith(segmentPrefix) ? this.#readSegments : this.#readLogObjects).add(path);
  }

  /** Whether a link was read. */
  hasRead(path: string): boolean {
    return this.#readLogObjects.has(path);
  }

  /** Takes over what a link says; where two rows have one name, the bytes in the bucket decide. */
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
