/** What is live: sources, senders and problems, as far as this server has seen them since it began. */
import type { FramesError } from "../../errors.ts";
import type { FrameDescription, SourceInfo } from "../../frame.ts";
import { historyLength, historyEntrySeconds, SourceStats } from "./source-stats.ts";
import { ProblemLog } from "./problem-log.ts";

/** Sources that are remembered; of more, those from which something came longest ago are forgotten. */
const maxLiveSources = 2000;

/** Names of sources that are told of one sender. */
const maxSourcesPerSender = 100;

const tickIntervalMs = 1000;

/** Somebody who is connected and sends. */
export interface SenderInfo {
  readonly peer: string;
  readonly stream: string;
  readonly sources: readonly string[];
  readonly software: string;
  readonly key: string | null;
  /** Nanoseconds since 1970. */
  readonly since: bigint;
  /** Stored, of what came over this connection. */
  readonly frames: number;
  readonly bytes: number;
}

/** Who has connected. */
export interface ConnectedSender {
  readonly peer: string;
  readonly session: string;
  readonly stream: string;
  readonly software: string;
  readonly key: string | undefined;
}

/** What one sender brings, as it is counted. */
class SenderStats {
  frames = 0;
  bytes = 0;
  readonly sources = new Set<string>();
  readonly since: number;
  readonly sender: ConnectedSender | undefined;

  constructor(sender: ConnectedSender | undefined, since: number) {
    this.sender = sender;
    this.since = since;
  }
}

/** Where what becomes of one source's frames is noted. */
export interface SourceRecorder {
  /** Called for each frame that was stored. */
  recordStored(frame: FrameDescription, crc32: number): void;
  /** Numbers that will not come: they are there, or lost for this reason. */
  recordUnsent(first: number, last: number, error?: FramesError): void;
}

export class LiveSources {
  readonly problems: ProblemLog;
  readonly #clock: () => number;
  /** By stream, then by source. */
  readonly #sources = new Map<string, Map<string, SourceStats>>();
  #sourceCount = 0;
  readonly #senders = new Map<string, SenderStats>();
  readonly #subscribed = new Set<SourceStats>();
  readonly #timer: NodeJS.Timeout;
  readonly #tickListeners = new Set<() => void>();
  #ticks = 0;

  /** @param clock milliseconds since 1970 */
  constructor(clock: () => number = Date.now) {
    this.#clock = clock;
    this.problems = new ProblemLog(clock);
    this.#timer = setInterval(() => this.#tick(), tickIntervalMs);
    this.#timer.unref();
  }

  /** Where a source's frames are noted; it is remembered once there is one. */
  recorder(origin: SourceInfo): SourceRecorder {
    const { stream, source, session } = origin;
    let stats: SourceStats | undefined;
    let senderStats: SenderStats | undefined;
    const attach = () => {
      senderStats ??= this.#senderStats(session);
      if (senderStats.sources.size < maxSourcesPerSender) senderStats.sources.add(source);
      return (stats = this.#statsFor(stream, source));
    };
    return {
      recordStored: (frame, crc32) => {
        const current = stats === undefined || stats.isEvicted ? attach() : stats;
        current.recordStored(origin, frame, crc32, this.#clock());
        senderStats!.frames++;
        senderStats!.bytes += frame.size;
      },
      recordUnsent: (first, last, error) =>
        attach().recordUnsent(session, first, last, error !== undefined),
    };
  }

  #senderStats(session: string): SenderStats {
    const existing = this.#senders.get(session);
    if (existing !== undefined) return existing;
    // Nobody said who it is; so nobody is told either.
    return new SenderStats(undefined, this.#clock());
  }

  #statsFor(stream: string, source: string): SourceStats {
    const existing = this.get(stream, source);
    if (existing !== undefined) return existing;
    if (this.#sourceCount >= maxLiveSources) this.#evictOldest();
    const stats = new SourceStats(stream, source, this.#clock());
    let ofStream = this.#sources.get(stream);
    if (ofStream === undefined) this.#sources.set(stream, (ofStream = new Map()));
    ofStream.set(source, stats);
    this.#sourceCount++;
    return stats;
  }

  #evictOldest(): void {
    let oldest: SourceStats | undefined;
    for (const stats of this.all()) {
      if (!stats.hasListeners && stats.receivedAt < (oldest?.receivedAt ?? Infinity))
        oldest = stats;
    }
    if (oldest === undefined) return;
    oldest.isEvicted = true;
    const ofStream = this.#sources.get(oldest.stream)!;
    ofStream.delete(oldest.source);
    if (ofStream.size === 0) this.#sources.delete(oldest.stream);
    this.#sourceCount--;
  }

  /** A source from which something came. */
  get(stream: string, source: string): SourceStats | undefined {
    return this.#sources.get(stream)?.get(source);
  }

  /** All of them. */
  *all(): Generator<SourceStats> {
    for (const ofStream of this.#sources.values()) yield* ofStream.values();
  }

  /** Somebody connected, and begins to send. */
  onConnected(sender: ConnectedSender): void {
    this.#senders.set(sender.session, new SenderStats(sender, this.#clock()));
  }

  /** The sender at this address has ended, or was ended. */
  onDisconnected(peer: string, session: string): void {
    // Another connection may have taken the session over.
    if (this.#senders.get(session)?.sender?.peer === peer) this.#senders.delete(session);
  }

  /** Those who are connected. */
  get senders(): SenderInfo[] {
    return [...this.#senders.values()].flatMap(({ sender, since, sources, frames, bytes }) => {
      if (sender === undefined) return [];
      const { peer, stream, software, key } = sender;
      return [
        {
          peer,
          stream,
          sources: [...sources],
          software,
          key: key ?? null,
          since: BigInt(since) * 1_000_000n,
          frames,
          bytes,
        },
      ];
    });
  }

  /** A source, also if nothing came from it yet. */
  getOrCreate(stream: string, source: string): SourceStats {
    return this.#statsFor(stream, source);
  }

  /**
   * Has somebody told when a frame came and is in the journal.
   *
   * @returns what ends it
   */
  subscribe(stats: SourceStats, listener: () => void): () => void {
    const unsubscribe = stats.subscribe(listener);
    this.#subscribed.add(stats);
    return () => {
      unsubscribe();
      if (!stats.hasListeners) this.#subscribed.delete(stats);
    };
  }

  /** What was stored is in the journal. */
  onFlushed(): void {
    for (const stats of this.#subscribed) stats.notify();
  }

  /** Is called once a second, when rates are known anew; returns what ends it. */
  onTick(listener: () => void): () => void {
    this.#tickListeners.add(listener);
    return () => void this.#tickListeners.delete(listener);
  }

  #tick(): void {
    const now = this.#clock();
    const isEntry = ++this.#ticks % historyEntrySeconds === 0;
    const historyMs = historyLength * historyEntrySeconds * 1000;
    for (const stats of this.all()) {
      if (now - stats.receivedAt < historyMs || stats.rate > 0) stats.updateRates(now, isEntry);
    }
    for (const listener of this.#tickListeners) listener();
  }

  get now(): number {
    return this.#clock();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
