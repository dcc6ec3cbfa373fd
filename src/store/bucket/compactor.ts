/**
 * Keeps a bucket's journal small: merges the links of chains that rest into segments, and small segments into
 * larger ones. What is merged is removed only when the segment that has it is there, and links of a chain in
 * the order of their numbers, so that whoever goes on with it can tell that it was merged.
 */
import type { SessionLog } from "./session-log.ts";
import { type LogSync, logObjectPath, type ListedLogObject, segmentPrefix } from "./log-sync.ts";
import { decodeEntries, encodeEntries, type LogEntry } from "./log-format.ts";
import { randomId } from "./marker.ts";
import type { LocalIndex } from "./local-index.ts";
import type { S3 } from "./s3.ts";

export interface LogCompactorContext {
  readonly s3: S3;
  readonly localIndex: LocalIndex;
  readonly logSync: LogSync;
  /** The chains that this process holds, or is about to. */
  readonly logs: Map<string, SessionLog>;
  readonly node: string;
}

/** About so many milliseconds are between two rounds, by chance more or less. */
const roundIntervalMs = 30_000;

/** A chain to which nothing came for so long is merged, and given up. */
const idleTimeoutMs = 60_000;

/** A chain that goes on is merged but for its end when it has so many links. */
const longLogObjects = 200;

/** Links of nobody that is heard of, unchanged for so long, are merged by whoever finds them. */
const orphanTimeoutMs = 10 * 60_000;

/** Segments below this size are merged when there are so many of them. */
const smallSegmentBytes = 2 << 20;
const segmentsPerMerge = 16;

/** Chains that are merged into one segment, and objects that are removed at the same time. */
const logBatchSize = 64;

/** The links of one chain that are to be merged. */
interface LogObjectRange {
  readonly session: string;
  readonly numbers: readonly number[];
}

export class LogCompactor {
  readonly #context: LogCompactorContext;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  /** Since when chains of others have had the same last link. */
  readonly #unchanged = new Map<string, { last: number; since: number }>();

  constructor(context: LogCompactorContext) {
    this.#context = context;
  }

  start(): void {
    const delayMs = roundIntervalMs * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => {
      void this.compact()
        // A bucket that cannot be reached is told by whoever needs it; the next round tries again.
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

  /** Merges the chains of this process that have rested for so long, and long ones but for their ends. */
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
        // Whoever sends on begins by taking the chain over.
        logs.delete(session);
        ranges.push({ session, numbers: numbers.filter((number) => number <= lastNumber) });
      } else if (lastNumber !== undefined && numbers.length >= longLogObjects) {
        ranges.push({ session, numbers: numbers.filter((number) => number < lastNumber) });
      }
    }
    await this.#compact(ranges);
  }

  /** Merges what processes left that are no more. */
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
      // Its own link keeps apart whoever may still hold the chain.
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
    const parts: Uint8Array[] = [];
    const merged: LogObjectRange[] = [];
    for (const { session, numbers } of ranges) {
      const entries: LogEntry[] = [];
      const found: number[] = [];
      for (const number of numbers) {
        const path = logObjectPath(session, number);
        const bytes = await s3.bytes(path);
        if (bytes === undefined) continue;
        found.push(number);
        for await (const decoded of decodeEntries(path, bytes)) {
          for (const { entry } of decoded) if (entry !== undefined) entries.push(entry);
        }
      }
      const [first, last] = [found[0], found.at(-1)];
      if (first === undefined || last === undefined) continue;
      parts.push(encodeEntries({ session, first, last, node }, entries));
      merged.push({ session, numbers: found });
    }
    if (parts.length === 0) return;
    await this.#addSegment(randomId(), Buffer.concat(parts));
    await Promise.all(merged.map((range) => this.#removeLogObjects(range)));
  }

  /** @param id that no other segment has, but one with the same lines */
  async #addSegment(id: string, bytes: Uint8Array): Promise<void> {
    const { s3, logSync } = this.#context;
    const path = `${segmentPrefix}${id}`;
    // If it is there, an answer was lost, or another node was quicker.
    await s3.put(path, bytes, { condition: "new", type: "application/gzip" });
    logSync.markRead(path);
  }

  async #removeLogObjects({ session, numbers }: LogObjectRange): Promise<void> {
    for (const number of numbers) await this.#context.s3.remove(logObjectPath(session, number));
  }

  /** Merges small segments, if there are many. */
  async compactSegments(): Promise<void> {
    const { s3, logSync } = this.#context;
    const small = logSync.segments.filter(({ size }) => size < smallSegmentBytes);
    if (small.length < segmentsPerMerge) return;
    const selected = small.slice(0, segmentsPerMerge);
    const parts: Uint8Array[] = [];
    for (const { path } of selected) {
      const bytes = await s3.bytes(path);
      // Another node is about it.
      if (bytes === undefined) return;
      parts.push(bytes);
    }
    // Named after what it has: who does the same at the same time makes the same, and not as much again.
    const id = Bun.CryptoHasher.hash("sha256", selected.map(({ path }) => path).join(), "hex");
    // A segment is a row of parts, and so are two of them.
    await this.#addSegment(id.slice(0, 32), Buffer.concat(parts));
    for (const { path } of selected) await s3.remove(path);
  }
}

function groupBySession(logObjects: readonly ListedLogObject[]): Map<string, number[]> {
  const result = new Map<string, number[]>();
  for (const { session, number } of logObjects) {
    const numbers = result.get(session);
    if (numbers === undefined) result.set(session, [number]);
    else numbers.push(number);
  }
  return result;
}
