/** Caches the bytes of each source's newest frame, so that all clients share one read. */
import { crc32 } from "../../common/checksum.ts";
import type { StoreContents } from "../../store/store-contents.ts";
import type { SourceStats, NewestFrame } from "../live/source-stats.ts";
import { collectGarbage } from "../../common/memory.ts";
import type { LiveSources } from "../live/live-sources.ts";

/** Size limit of a frame to be cached and shown live. */
export const maxLiveFrameBytes = 32 << 20;

/** Size limit of the cache. Above it, the least recently used entries are removed. */
const maxCacheBytes = maxLiveFrameBytes;

/** Bytes of frames read at the same time, unless one frame is larger. */
const maxReadingBytes = 16 << 20;

/** Time since the last request after which an entry is removed. */
const cacheTtlMs = 10_000;

/** A frame with its bytes. */
export interface CachedFrame {
  readonly newest: NewestFrame;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Value of the source's frame count at this frame. */
  readonly serial: number;
}

interface FrameCacheEntry {
  cached: CachedFrame | undefined;
  reading: Promise<CachedFrame | undefined> | undefined;
  /** Value of the source's frame count when the last read began. */
  serial: number;
  lastUsedAt: number;
}

export class NewestFrameCache {
  readonly #contents: StoreContents;
  readonly #liveSources: LiveSources;
  /** Entries in order of use, most recent last. */
  readonly #entries = new Map<SourceStats, FrameCacheEntry>();
  #bytes = 0;
  #readingBytes = 0;
  /** Reads that wait until others have ended, in order. */
  readonly #waitingReads: (() => void)[] = [];
  readonly #unsubscribeTick: () => void;

  constructor(contents: StoreContents, liveSources: LiveSources) {
    this.#contents = contents;
    this.#liveSources = liveSources;
    this.#unsubscribeTick = liveSources.onTick(() => this.#evictIdle());
  }

  /**
   * Returns the newest frame of a source.
   * If its file was removed meanwhile, returns the previously cached frame.
   * Undefined if there is none, or if the frame is too large.
   */
  async newest(stats: SourceStats): Promise<CachedFrame | undefined> {
    const minSerial = stats.frames;
    const entry = this.#touchEntry(stats);
    let { cached } = entry;
    while (entry.serial < minSerial || entry.reading !== undefined) {
      // A read in progress may have begun before the newest frame arrived, so the loop checks
      // again.
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

  /** Reads the newest frame into the entry. On failure the entry keeps its previous frame. */
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
    while (this.#readingBytes > 0 && this.#readingBytes + size > maxReadingBytes) {
      await new Promise<void>((resolve) => this.#waitingReads.push(resolve));
    }
    this.#readingBytes += size;
    collectGarbage(size);
    try {
      const blob = this.#contents.blob({ stream, source, name, size });
      const bytes = await blob?.bytes();
      // The file was changed or replaced since it was stored.
      if (bytes?.length !== size || crc32(bytes) !== newest.crc32) return undefined;
      return { newest, bytes, serial };
    } catch {
      // The file was removed just now, so the previous frame remains the newest one.
      return undefined;
    } finally {
      this.#readingBytes -= size;
      for (const resume of this.#waitingReads.splice(0)) resume();
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
