/** Live statistics of sources and senders, and the problem log, since the server started. */
import type { FramesError } from "../../errors.ts";
import type { FrameDescription, SourceInfo } from "../../frame.ts";
import { historyLength, historyEntrySeconds, SourceStats } from "./source-stats.ts";
import { ProblemLog } from "./problem-log.ts";

/**
 * Limit of remembered sources. At the limit, the source that has been silent longest is forgotten.
 */
const maxLiveSources = 2000;

/** Limit of source names listed for one sender. */
const maxSourcesPerSender = 100;

const tickIntervalMs = 1000;

/** A connected sender, as the API reports it. */
export interface SenderInfo {
  readonly peer: string;
  readonly stream: string;
  readonly sources: readonly string[];
  readonly software: string;
  readonly key: string | null;
  /** Nanoseconds since 1970. */
  readonly since: bigint;
  /** Frames stored from this connection. */
  readonly frames: number;
  readonly bytes: number;
}

/** Identity of a sender that has completed HELLO. */
export interface ConnectedSender {
  readonly peer: string;
  readonly session: string;
  readonly stream: string;
  readonly software: string;
  readonly key: string | undefined;
}

/** Counters of one sender. */
class SenderStats {
  frames = 0;
  bytes = 0;
  readonly sources = new Set<string>();
  readonly since: number;
  readonly sender: ConnectedSender;

  constructor(sender: ConnectedSender, since: number) {
    this.sender = sender;
    this.since = since;
  }
}

/**
 * Records what happens to the frames of one source. It keeps no statistics, so that those of a source
 * that is forgotten take no memory.
 */
export class SourceRecorder {
  readonly #liveSources: LiveSources;
  readonly #info: SourceInfo;

  constructor(liveSources: LiveSources, info: SourceInfo) {
    this.#liveSources = liveSources;
    this.#info = info;
  }

  /** Records a stored frame. */
  recordStored(frame: FrameDescription, crc32: number): void {
    const { stream, source, session } = this.#info;
    const { now } = this.#liveSources;
    const sender = this.#liveSources.senderOf(session, source);
    if (sender !== undefined) {
      sender.frames++;
      sender.bytes += frame.size;
    }
    this.#liveSources.getOrCreate(stream, source).recordStored(this.#info, frame, crc32, now);
  }

  /** Records numbers that will not arrive: already stored, or lost if `error` is given. */
  recordUnsent(first: number, last: number, error?: FramesError): void {
    const { stream, source, session } = this.#info;
    this.#liveSources.senderOf(session, source);
    const stats = this.#liveSources.getOrCreate(stream, source);
    stats.recordUnsent(session, first, last, error !== undefined);
  }
}

export class LiveSources {
  readonly problems: ProblemLog;
  readonly #clock: () => number;
  /** Statistics by stream, then by source. */
  readonly #sources = new Map<string, Map<string, SourceStats>>();
  #sourceCount = 0;
  readonly #senders = new Map<string, SenderStats>();
  readonly #subscribed = new Set<SourceStats>();
  readonly #addedListeners = new Set<(stats: SourceStats) => void>();
  readonly #timer: NodeJS.Timeout;
  readonly #tickListeners = new Set<() => void>();
  #ticks = 0;

  /** @param clock returns ms since 1970 */
  constructor(clock: () => number = Date.now) {
    this.#clock = clock;
    this.problems = new ProblemLog(clock);
    this.#timer = setInterval(() => this.#tick(), tickIntervalMs);
    this.#timer.unref();
  }

  /** Returns a recorder for a source. The source is listed once it has recorded something. */
  recorder(info: SourceInfo): SourceRecorder {
    return new SourceRecorder(this, info);
  }

  /** Returns the counters of the sender of a session, which then lists the source. */
  senderOf(session: string, source: string): SenderStats | undefined {
    const sender = this.#senders.get(session);
    if (sender !== undefined && sender.sources.size < maxSourcesPerSender)
      sender.sources.add(source);
    return sender;
  }

  /** Returns a source's statistics, creating them if nothing has arrived yet. */
  getOrCreate(stream: string, source: string): SourceStats {
    const existing = this.get(stream, source);
    if (existing !== undefined) return existing;
    if (this.#sourceCount >= maxLiveSources) this.#evictOldest();
    const stats = new SourceStats(stream, source, this.#clock());
    this.#sources.getOrInsertComputed(stream, () => new Map()).set(source, stats);
    this.#sourceCount++;
    for (const listener of this.#addedListeners) listener(stats);
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

  /** Returns a source's statistics, or undefined if the source is not remembered. */
  get(stream: string, source: string): SourceStats | undefined {
    return this.#sources.get(stream)?.get(source);
  }

  /** Iterates over all remembered sources. */
  *all(): Generator<SourceStats> {
    for (const ofStream of this.#sources.values()) yield* ofStream.values();
  }

  /** Called when a sender has connected. */
  onConnected(sender: ConnectedSender): void {
    this.#senders.set(sender.session, new SenderStats(sender, this.#clock()));
  }

  /** Called when the sender at this address has delivered everything and has disconnected. */
  onDelivered(peer: string, session: string): void {
    for (const stats of this.all()) stats.recordDelivered(session);
    this.onDisconnected(peer, session);
  }

  /** Called when the sender at this address has disconnected. */
  onDisconnected(peer: string, session: string): void {
    // Another connection may have taken the session over.
    if (this.#senders.get(session)?.sender.peer === peer) this.#senders.delete(session);
  }

  /** Connected senders. */
  get senders(): SenderInfo[] {
    return [...this.#senders.values()].map(({ sender, since, sources, frames, bytes }) => ({
      peer: sender.peer,
      stream: sender.stream,
      sources: [...sources],
      software: sender.software,
      key: sender.key ?? null,
      since: BigInt(since) * 1_000_000n,
      frames,
      bytes,
    }));
  }

  /**
   * Calls `listener` after frames of the source were stored and committed to the journal.
   *
   * @returns a function that unsubscribes
   */
  subscribe(stats: SourceStats, listener: () => void): () => void {
    const unsubscribe = stats.subscribe(listener);
    this.#subscribed.add(stats);
    return () => {
      unsubscribe();
      if (!stats.hasListeners) this.#subscribed.delete(stats);
    };
  }

  /**
   * Calls `listener` for each source that is added. Returns a function that unsubscribes.
   */
  onAdded(listener: (stats: SourceStats) => void): () => void {
    this.#addedListeners.add(listener);
    return () => void this.#addedListeners.delete(listener);
  }

  /** Notifies subscribers. Called when stored frames have been committed to the journal. */
  onFlushed(): void {
    for (const stats of this.#subscribed) stats.notify();
  }

  /**
   * Calls `listener` once a second, after the rates were updated. Returns a function that
   * unsubscribes.
   */
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
