/**
 * Caches the newest frame of each source as an MJPEG part, so that all clients share one
 * conversion.
 */
import { FramesError } from "../../errors.ts";
import type { RawShape } from "../../frame.ts";
import type { Converter } from "./converter.ts";
import type { NewestFrameCache, CachedFrame } from "./newest-frames.ts";
import type { SourceStats } from "../live/source-stats.ts";
import type { LiveSources } from "../live/live-sources.ts";
import { mediaType, toDecimalSeconds } from "../media-type.ts";

/** Minimum interval between two conversions of one source: 30 per second. */
const conversionIntervalMs = 1000 / 30;

/** Time since the last request after which an entry is removed. */
const cacheTtlMs = 10_000;

/** MJPEG boundary. Sent directly after each frame, because browsers show a frame only then. */
export const mjpegBoundary = "frame";
export const boundaryLine = `--${mjpegBoundary}\r\n`;

/** An MJPEG part, shared by all clients of a source. */
export interface MjpegPart {
  /** Headers, JPEG and the following boundary. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Value of the source's frame count at this frame. */
  readonly serial: number;
}

interface JpegCacheEntry {
  latest: { readonly cached: CachedFrame; readonly part: MjpegPart | FramesError } | undefined;
  pending: Promise<MjpegPart | FramesError> | undefined;
  convertedAt: number;
  lastUsedAt: number;
}

export class JpegCache {
  readonly #newestFrames: NewestFrameCache;
  readonly #converter: Converter;
  readonly #liveSources: LiveSources;
  readonly #entries = new Map<SourceStats, JpegCacheEntry>();
  readonly #unsubscribeTick: () => void;

  constructor(newestFrames: NewestFrameCache, converter: Converter, liveSources: LiveSources) {
    this.#newestFrames = newestFrames;
    this.#converter = converter;
    this.#liveSources = liveSources;
    this.#unsubscribeTick = liveSources.onTick(() => this.#evictIdle());
  }

  /**
   * Returns the newest frame of a source, or the error if it cannot be converted.
   * Undefined if the frame was removed from the store.
   */
  async newest(stats: SourceStats): Promise<MjpegPart | FramesError | undefined> {
    const entry = this.#touchEntry(stats);
    const minSerial = stats.frames;
    for (;;) {
      const pending = await entry.pending;
      // A conversion started before the newest frame arrived is of an older frame.
      if (pending instanceof FramesError || (pending !== undefined && pending.serial >= minSerial))
        return pending;
      const cached = await this.#newestFrames.newest(stats);
      if (cached === undefined) return undefined;
      if (entry.latest?.cached === cached) return entry.latest.part;
      if (entry.pending !== undefined) continue;
      entry.pending = this.#createPart(entry, cached).finally(() => (entry.pending = undefined));
      return await entry.pending;
    }
  }

  #touchEntry(stats: SourceStats): JpegCacheEntry {
    let entry = this.#entries.get(stats);
    if (entry === undefined) {
      entry = { latest: undefined, pending: undefined, convertedAt: -Infinity, lastUsedAt: 0 };
      this.#entries.set(stats, entry);
    }
    entry.lastUsedAt = this.#liveSources.now;
    return entry;
  }

  async #createPart(entry: JpegCacheEntry, cached: CachedFrame): Promise<MjpegPart | FramesError> {
    const part = isJpeg(cached.bytes)
      ? encodePart(cached, cached.bytes)
      : await this.#convert(entry, cached);
    entry.latest = { cached, part };
    return part;
  }

  async #convert(entry: JpegCacheEntry, cached: CachedFrame): Promise<MjpegPart | FramesError> {
    const waitMs = entry.convertedAt + conversionIntervalMs - performance.now();
    if (waitMs > 0) await Bun.sleep(waitMs);
    entry.convertedAt = performance.now();
    const jpeg = await this.toJpeg(cached.bytes, cached.newest.raw, cached.newest.frame.name);
    return jpeg instanceof FramesError ? jpeg : encodePart(cached, jpeg);
  }

  /** Converts a frame to JPEG, or returns the error that prevents it. */
  async toJpeg(bytes: Uint8Array<ArrayBuffer>, raw: RawShape | undefined, name: string) {
    if (isJpeg(bytes)) return bytes;
    const { jpeg, failure } = await this.#converter.convert(bytes, raw);
    if (jpeg !== undefined) return jpeg;
    const format = raw === undefined ? mediaType(name, raw) : `raw ${raw.format}`;
    return new FramesError(
      "unreadable",
      `Cannot show ${JSON.stringify(name)} (${format}) as JPEG: ${failure}; …/latest sends the stored bytes`,
    );
  }

  #evictIdle(): void {
    const idleSince = this.#liveSources.now - cacheTtlMs;
    for (const [stats, entry] of this.#entries) {
      if (entry.lastUsedAt < idleSince && entry.pending === undefined) this.#entries.delete(stats);
    }
  }

  close(): void {
    this.#unsubscribeTick();
    this.#converter.close();
  }
}

function isJpeg(bytes: Uint8Array): boolean {
  return bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
}

/** Encodes an MJPEG part with its headers and the following boundary. */
export function encodePart(
  cached: Pick<CachedFrame, "newest" | "serial">,
  jpeg: Uint8Array,
): MjpegPart {
  const { sequence, captured } = cached.newest.frame;
  const head = new TextEncoder().encode(
    `Content-Type: image/jpeg\r\nContent-Length: ${jpeg.length}\r\n` +
      `X-Sequence: ${sequence}\r\nX-Timestamp: ${toDecimalSeconds(captured)}\r\n\r\n`,
  );
  const tail = new TextEncoder().encode(`\r\n${boundaryLine}`);
  const bytes = new Uint8Array(head.length + jpeg.length + tail.length);
  bytes.set(head);
  bytes.set(jpeg, head.length);
  bytes.set(tail, head.length + jpeg.length);
  return { bytes, serial: cached.serial };
}
