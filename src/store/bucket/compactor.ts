/**
 * Keeps the journal of a bucket small. Merges the log objects of idle sessions into segments, and
 * small segments into larger ones. Log objects are removed only when their segment exists, and in
 * the order of their numbers. A node that resumes the session can thus detect the merge (BUCKET.md,
 * section 6).
 */
import type { SessionLog } from "./session-log.ts";
import {
  type LogSync,
  logObjectPath,
  type ListedLogObject,
  maxLogObjectBytes,
  maxSegmentBytes,
  segmentPrefix,
} from "./log-sync.ts";
import { decodeEntries, encodeEntries, type LogEntry } from "./log-format.ts";
import { randomId } from "./marker.ts";
import type { LocalIndex } from "./local-index.ts";
import type { S3 } from "./s3.ts";

export interface LogCompactorContext {
  readonly s3: S3;
  readonly localIndex: LocalIndex;
  readonly logSync: LogSync;
  /** Session logs that this process owns or is about to acquire, by session. */
  readonly logs: Map<string, SessionLog>;
  readonly node: string;
}

/**
 * Average time between two rounds, in milliseconds. It varies at random by a quarter, so that nodes
 * do not act together.
 */
const roundIntervalMs = 30_000;

/** A session log that was idle for this long, in milliseconds, is merged and released. */
const idleTimeoutMs = 60_000;

/** An active session log with this many objects is merged, except for its last object. */
const longLogLength = 200;

/**
 * Log objects of other nodes, unchanged for this long, in milliseconds, are merged by any node that
 * finds them. Their node has probably stopped.
 */
const orphanTimeoutMs = 10 * 60_000;

/** Segments smaller than this are merged when this many exist. */
const smallSegmentBytes = 2 << 20;
const segmentsPerMerge = 16;

/**
 * Session logs merged into one segment. The logs' objects are removed concurrently, those of one
 * log in order.
 */
const logBatchSize = 64;

/** Log objects of one session that are to be merged. */
interface LogObjectRange {
  readonly session: string;
  readonly numbers: readonly number[];
}

export class LogCompactor {
  readonly #context: LogCompactorContext;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  /**
   * Last log object of each session of another node, and when it was first seen, by
   * `performance.now`.
   */
  readonly #unchanged = new Map<string, { last: number; since: number }>();

  constructor(context: LogCompactorContext) {
    this.#context = context;
  }

  start(): void {
    const delayMs = roundIntervalMs * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => {
      void this.compact()
        // Another operation reports that the bucket cannot be reached. The next round tries again.
        .catch(() => {})
        .finally(() => this.#isStopped || this.start());
    }, delayMs);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  async compact(): Promise<void> {
    await this.compactOwn(idleTimeoutMs);
    await this.compactOrphans(orphanTimeoutMs);
    await this.compactSegments();
  }

  /**
   * Merges session logs of this process that were idle for `minIdleMs`, and long ones except for
   * their last object.
   *
   * @throws {FramesError} `store`
   */
  async compactOwn(minIdleMs: number): Promise<void> {
    const { logs, logSync } = this.#context;
    await logSync.sync();
    const numbersBySession = groupBySession(logSync.logObjects);
    const ranges: LogObjectRange[] = [];
    for (const [session, log] of logs) {
      const { lastNumber } = log;
      const numbers = numbersBySession.get(session) ?? [];
      if (log.hasFailed || (log.idleMs >= minIdleMs && lastNumber === undefined))
        logs.delete(session);
      else if (lastNumber !== undefined && log.idleMs >= minIdleMs) {
        // A later entry creates a new `SessionLog`, which acquires the session again.
        logs.delete(session);
        ranges.push({ session, numbers: numbers.filter((number) => number <= lastNumber) });
      } else if (lastNumber !== undefined && numbers.length >= longLogLength) {
        ranges.push({ session, numbers: numbers.filter((number) => number < lastNumber) });
      }
    }
    await this.#compact(ranges);
  }

  /**
   * Merges log objects of other nodes that did not change for `unchangedMs`.
   *
   * @throws {FramesError} `store`
   */
  async compactOrphans(unchangedMs: number): Promise<void> {
    const { s3, logs, logSync, node, localIndex } = this.#context;
    const now = performance.now();
    const ranges: LogObjectRange[] = [];
    const numbersBySession = groupBySession(logSync.logObjects);
    for (const session of this.#unchanged.keys()) {
      if (!numbersBySession.has(session)) this.#unchanged.delete(session);
    }
    for (const [session, numbers] of numbersBySession) {
      if (logs.has(session)) continue;
      const last = numbers.at(-1)!;
      const previous = this.#unchanged.get(session);
      if (previous?.last !== last) this.#unchanged.set(session, { last, since: now });
      const since = previous?.last === last ? previous.since : now;
      if (now - since < unchangedMs) continue;
      // An empty log object with the next number acquires the session. If its node still runs, that
      // node finds the object and continues after it.
      const number = Math.max(last, localIndex.lastNumber(session)) + 1;
      const bytes = encodeEntries({ session, first: number, last: number, node }, []);
      const path = logObjectPath(session, number);
      const { outcome } = await s3.put(path, bytes, { condition: "new", type: "application/gzip" });
      if (outcome !== "stored") continue;
      const header = { session, first: number, last: number, node };
      await logSync.apply([{ header, entry: undefined }]);
      ranges.push({ session, numbers: [...numbers, number] });
    }
    await this.#compact(ranges);
  }

  async #compact(ranges: readonly LogObjectRange[]): Promise<void> {
    const selected = ranges.filter(({ numbers }) => numbers.length > 0);
    for (let from = 0; from < selected.length; from += logBatchSize) {
      await this.#compactBatch(selected.slice(from, from + logBatchSize));
    }
  }

  async #compactBatch(ranges: readonly LogObjectRange[]): Promise<void> {
    const { s3, node } = this.#context;
    let parts: Uint8Array[] = [];
    let merged: LogObjectRange[] = [];
    let size = 0;
    for (const { session, numbers } of ranges) {
      const entries: LogEntry[] = [];
      const found: number[] = [];
      for (const number of numbers) {
        const path = logObjectPath(session, number);
        const bytes = await s3.bytes(path, maxLogObjectBytes);
        if (bytes === undefined) continue;
        found.push(number);
        for await (const decoded of decodeEntries(path, bytes)) {
          for (const { entry } of decoded) if (entry !== undefined) entries.push(entry);
        }
      }
      const [first, last] = [found[0], found.at(-1)];
      if (first === undefined || last === undefined) continue;
      const part = encodeEntries({ session, first, last, node }, entries);
      if (size + part.length > maxSegmentBytes) {
        await this.#replaceBySegment(merged, parts);
        [parts, merged, size] = [[], [], 0];
      }
      parts.push(part);
      merged.push({ session, numbers: found });
      size += part.length;
    }
    await this.#replaceBySegment(merged, parts);
  }

  /** Writes a segment, and removes the log objects that it has. */
  async #replaceBySegment(
    merged: readonly LogObjectRange[],
    parts: readonly Uint8Array[],
  ): Promise<void> {
    if (parts.length === 0) return;
    await this.#addSegment(randomId(), Buffer.concat(parts));
    await Promise.all(merged.map((range) => this.#removeLogObjects(range)));
  }

  /** @param id unique, or derived from the merged segments so that equal content has an equal id */
  async #addSegment(id: string, bytes: Uint8Array): Promise<void> {
    const { s3, logSync } = this.#context;
    const path = `${segmentPrefix}${id}`;
    // If the object exists, an earlier attempt created it, or another node merged the same
    // segments.
    await s3.put(path, bytes, { condition: "new", type: "application/gzip" });
    logSync.markRead(path);
  }

  async #removeLogObjects({ session, numbers }: LogObjectRange): Promise<void> {
    for (const number of numbers) await this.#context.s3.remove(logObjectPath(session, number));
  }

  /**
   * Merges small segments in the order of their ids, if enough exist.
   *
   * @throws {FramesError} `store`
   */
  async compactSegments(): Promise<void> {
    const { s3, logSync } = this.#context;
    const small = logSync.segments.filter(({ size }) => size < smallSegmentBytes);
    if (small.length < segmentsPerMerge) return;
    const selected = small.slice(0, segmentsPerMerge);
    const parts: Uint8Array[] = [];
    for (const { path } of selected) {
      const bytes = await s3.bytes(path, smallSegmentBytes);
      // Another node is merging the same segments.
      if (bytes === undefined) return;
      parts.push(bytes);
    }
    // The id is a hash of the merged paths. If two nodes merge the same segments, they write the
    // same object.
    const id = Bun.CryptoHasher.hash("sha256", selected.map(({ path }) => path).join(), "hex");
    // A segment is a sequence of gzip members, so segments are joined by concatenation.
    await this.#addSegment(id.slice(0, 32), Buffer.concat(parts));
    for (const { path } of selected) await s3.remove(path);
  }
}

function groupBySession(logObjects: readonly ListedLogObject[]): Map<string, number[]> {
  const result = new Map<string, number[]>();
  for (const { session, number } of logObjects) {
    result.getOrInsertComputed(session, () => []).push(number);
  }
  return result;
}
