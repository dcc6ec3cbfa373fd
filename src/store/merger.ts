/**
 * Keeps a bucket's journal small: merges the links of chains that rest into segments, and small segments into
 * larger ones. What is merged is removed only when the segment that has it is there, and links of a chain in
 * the order of their numbers, so that whoever goes on with it can tell that it was merged.
 */
import type { Chain } from "./chain.ts";
import { type Follower, linkPath, type ListedLink, segmentsBelow } from "./follower.ts";
import { decodeEntries, encodeEntries, type Entry } from "./link.ts";
import { unique } from "./marker.ts";
import type { Mirror } from "./mirror.ts";
import type { S3 } from "./s3.ts";

export interface MergerParts {
  readonly s3: S3;
  readonly mirror: Mirror;
  readonly follower: Follower;
  /** The chains that this process holds, or is about to. */
  readonly chains: Map<string, Chain>;
  readonly node: string;
}

/** About so many milliseconds are between two rounds, by chance more or less. */
const roundEvery = 30_000;

/** A chain to which nothing came for so long is merged, and given up. */
const restAfter = 60_000;

/** A chain that goes on is merged but for its end when it has so many links. */
const longChain = 200;

/** Links of nobody that is heard of, unchanged for so long, are merged by whoever finds them. */
const orphanAfter = 10 * 60_000;

/** Segments below this size are merged when there are so many of them. */
const smallSegment = 2 << 20;
const manySegments = 16;

/** Chains that are merged into one segment, and objects that are removed at the same time. */
const chainsAtOnce = 64;

/** The links of one chain that are to be merged. */
interface Run {
  readonly session: string;
  readonly numbers: readonly number[];
}

export class Merger {
  readonly #parts: MergerParts;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  /** Since when chains of others have had the same last link. */
  readonly #unchanged = new Map<string, { last: number; since: number }>();

  constructor(parts: MergerParts) {
    this.#parts = parts;
  }

  start(): void {
    const wait = roundEvery * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => {
      void this.round()
        // A bucket that cannot be reached is told by whoever needs it; the next round tries again.
        .catch(() => {})
        .finally(() => this.#isStopped || this.start());
    }, wait);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  async round(): Promise<void> {
    await this.mergeOwn(restAfter);
    await this.mergeOrphans(orphanAfter);
    await this.mergeSegments();
  }

  /** Merges the chains of this process that have rested for so long, and long ones but for their ends. */
  async mergeOwn(rested: number): Promise<void> {
    const { chains, follower } = this.#parts;
    await follower.sync();
    const numbers = byChain(follower.links);
    const runs: Run[] = [];
    for (const [session, chain] of chains) {
      const { last } = chain;
      const links = numbers.get(session) ?? [];
      if (chain.isLost || (chain.idle >= rested && last === undefined)) chains.delete(session);
      else if (last !== undefined && chain.idle >= rested) {
        // Whoever sends on begins by taking the chain over.
        chains.delete(session);
        runs.push({ session, numbers: links.filter((number) => number <= last) });
      } else if (last !== undefined && links.length >= longChain) {
        runs.push({ session, numbers: links.filter((number) => number < last) });
      }
    }
    await this.#merge(runs);
  }

  /** Merges what processes left that are no more. */
  async mergeOrphans(unchangedFor: number): Promise<void> {
    const { s3, chains, follower, node, mirror } = this.#parts;
    const now = performance.now();
    const runs: Run[] = [];
    const numbers = byChain(follower.links);
    for (const session of this.#unchanged.keys()) {
      if (!numbers.has(session)) this.#unchanged.delete(session);
    }
    for (const [session, links] of numbers) {
      if (chains.has(session)) continue;
      const last = links.at(-1)!;
      const before = this.#unchanged.get(session);
      if (before?.last !== last) this.#unchanged.set(session, { last, since: now });
      const since = before?.last === last ? before.since : now;
      if (now - since < unchangedFor) continue;
      // Its own link keeps apart whoever may still hold the chain.
      const number = Math.max(last, mirror.lastOf(session)) + 1;
      const bytes = encodeEntries({ session, first: number, last: number, node }, []);
      const path = linkPath(session, number);
      const { outcome } = await s3.put(path, bytes, { only: "new", type: "application/gzip" });
      if (outcome !== "stored") continue;
      const header = { session, first: number, last: number, node };
      await follower.take([{ header, entry: undefined }]);
      runs.push({ session, numbers: [...links, number] });
    }
    await this.#merge(runs);
  }

  async #merge(runs: readonly Run[]): Promise<void> {
    const some = runs.filter(({ numbers }) => numbers.length > 0);
    for (let from = 0; from < some.length; from += chainsAtOnce) {
      await this.#mergeTogether(some.slice(from, from + chainsAtOnce));
    }
  }

  async #mergeTogether(runs: readonly Run[]): Promise<void> {
    const { s3, node } = this.#parts;
    const parts: Uint8Array[] = [];
    const merged: Run[] = [];
    for (const { session, numbers } of runs) {
      const entries: Entry[] = [];
      const found: number[] = [];
      for (const number of numbers) {
        const path = linkPath(session, number);
        const bytes = await s3.bytes(path);
        if (bytes === undefined) continue;
        found.push(number);
        for await (const told of decodeEntries(path, bytes)) {
          for (const { entry } of told) if (entry !== undefined) entries.push(entry);
        }
      }
      const [first, last] = [found[0], found.at(-1)];
      if (first === undefined || last === undefined) continue;
      parts.push(encodeEntries({ session, first, last, node }, entries));
      merged.push({ session, numbers: found });
    }
    if (parts.length === 0) return;
    await this.#addSegment(unique(), Buffer.concat(parts));
    await Promise.all(merged.map((run) => this.#removeLinks(run)));
  }

  /** @param id that no other segment has, but one with the same lines */
  async #addSegment(id: string, bytes: Uint8Array): Promise<void> {
    const { s3, follower } = this.#parts;
    const path = `${segmentsBelow}${id}`;
    // If it is there, an answer was lost, or another node was quicker.
    await s3.put(path, bytes, { only: "new", type: "application/gzip" });
    follower.know(path);
  }

  async #removeLinks({ session, numbers }: Run): Promise<void> {
    for (const number of numbers) await this.#parts.s3.remove(linkPath(session, number));
  }

  /** Merges small segments, if there are many. */
  async mergeSegments(): Promise<void> {
    const { s3, follower } = this.#parts;
    const small = follower.segments.filter(({ size }) => size < smallSegment);
    if (small.length < manySegments) return;
    const some = small.slice(0, manySegments);
    const parts: Uint8Array[] = [];
    for (const { path } of some) {
      const bytes = await s3.bytes(path);
      // Another node is about it.
      if (bytes === undefined) return;
      parts.push(bytes);
    }
    // Named after what it has: who does the same at the same time makes the same, and not as much again.
    const id = Bun.CryptoHasher.hash("sha256", some.map(({ path }) => path).join(), "hex");
    // A segment is a row of parts, and so are two of them.
    await this.#addSegment(id.slice(0, 32), Buffer.concat(parts));
    for (const { path } of some) await s3.remove(path);
  }
}

function byChain(links: readonly ListedLink[]): Map<string, number[]> {
  const result = new Map<string, number[]>();
  for (const { session, number } of links) {
    const numbers = result.get(session);
    if (numbers === undefined) result.set(session, [number]);
    else numbers.push(number);
  }
  return result;
}
