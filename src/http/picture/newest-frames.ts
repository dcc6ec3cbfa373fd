/** The newest frame of each source that somebody asked for: read once, and kept for all who ask. */
import { crc32 } from "node:zlib";
import type { StoreContents } from "../../store/store-contents.ts";
import type { SourceStats, NewestFrame } from "../live/source-stats.ts";
import type { LiveSources } from "../live/live-sources.ts";

/** Larger frames are not kept, and not shown live. */
export const maxLiveFrameBytes = 32 << 20;

/** Bytes of all copies; those that were asked for longest ago go. */
const maxCacheBytes = 128 << 20;

/** A copy that nobody asked for goes after so many milliseconds. */
const cacheTtlMs = 10_000;

/** The bytes of a frame that came. */
export interface CachedFrame {
  readonly newest: NewestFrame;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How many frames had come from the source with this one. */
  readonly serial: number;
}

interface FrameCacheEntry {
  cached: CachedFrame | undefined;
  reading: Promise<CachedFrame | undefined> | undefined;
  /** Frames that had come when the last reading began. */
  serial: number;
  lastUsedAt: number;
}

export class NewestFrameCache {
  readonly #contents: StoreContents;
  readonly #liveSources: LiveSources;
  /** The place that was asked for last is the last. */
  readonly #entries = new Map<SourceStats, FrameCacheEntry>();
  #bytes = 0;
  readonly #unsubscribeTick: () => void;

  constructor(contents: StoreContents, liveSources: LiveSources) {
    this.#contents = contents;
    this.#liveSources = liveSources;
    this.#unsubscribeTick = liveSources.onTick(() => this.#evictIdle());
  }

  /**
   * The newest frame of a source, or the one before that is held if somebody took the newest away; nothing if
   * that is gone as well, or too large.
   */
  async newest(stats: SourceStats): Promise<CachedFrame | undefined> {
    const minSerial = stats.frames;
    const entry = this.#touchEntry(stats);
    let { cached } = entry;
    while (entry.serial < minSerial || entry.reading !== undefined) {
      // Who reads already may have begun before the newest came.
      entry.reading ??= this.#readNewest(stats, entry).finally(() => (entry.reading = undefined));
      cached = await entry.reading;
    }
    return cached ?? entry.cached;
  }

  #touchEntry(stats: SourceStats): FrameCacheEntry {
    const entry = this.#entries.get(stats) ?? {
      cached: undefined,
      reading: undefined,
      serial: 0,
      lastUsedAt: 0,
    };
    entry.lastUsedAt = this.#liveSources.now;
    this.#entries.delete(stats);
    this.#entries.set(stats, entry);
    return entry;
  }

  /** Reads the newest, if there is one that can be held; gives what is held then. */
  async #readNewest(stats: SourceStats, entry: FrameCacheEntry): Promise<CachedFrame | undefined> {
    const { newest, stream, source } = stats;
    const serial = stats.frames;
    try {
      const cached =
        newest === undefined ? undefined : await this.#load(stream, source, newest, serial);
      if (cached !== undefined) this.#setCached(entry, cached);
      return entry.cached;
    } finally {
      entry.serial = serial;
      this.#evict();
    }
  }

  async #load(stream: string, source: string, newest: NewestFrame, serial: number) {
    const { name, size } = newest.frame;
    if (size > maxLiveFrameBytes) return undefined;
    try {
      const blob = this.#contents.blob({ stream, source, name, size });
      const bytes = await blob?.bytes();
      // What was changed or replaced since is not the frame.
      if (bytes?.length !== size || crc32(bytes) !== newest.crc32) return undefined;
      return { newest, bytes, serial };
    } catch {
      // It was moved away just now: the one before goes on being the newest that there is.
      return undefined;
    }
  }

  #setCached(entry: FrameCacheEntry, cached: CachedFrame | undefined): void {
    this.#bytes += (cached?.bytes.length ?? 0) - (entry.cached?.bytes.length ?? 0);
    entry.cached = cached;
  }

  #evict(): void {
    for (const [stats, entry] of this.#entries) {
      if (this.#bytes <= maxCacheBytes) return;
      this.#remove(stats, entry);
    }
  }

  #remove(stats: SourceStats, entry: FrameCacheEntry): void {
    if (entry.reading !== undefined) return;
    this.#setCached(entry, undefined);
    this.#entries.delete(stats);
  }

  #evictIdle(): void {
    const idleSince = this.#liveSources.now - cacheTtlMs;
    for (const [stats, entry] of this.#entries) {
      if (entry.lastUsedAt < idleSince) this.#remove(stats, entry);
    }
  }

  close(): void {
    this.#unsubscribeTick();
    this.#entries.clear();
  }
}
