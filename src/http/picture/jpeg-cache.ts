/**
 * Caches the newest frame of each source as an MJPEG part, so that all clients share one
 * conversion.
 */
import { FramesError } from "../../errors.ts";
import type { RawShape } from "../../frame.ts";
import type { Converter, FrameToConvert } from "./converter.ts";
import type { NewestFrameCache, CachedFrame } from "./newest-frames.ts";
import type { NewestFrame, SourceStats } from "../live/source-stats.ts";
import type { LiveSources } from "../live/live-sources.ts";
import { mediaType, toDecimalSeconds } from "../media-type.ts";

/** Minimum interval between two conversions of one source: 30 per second. */
const conversionIntervalMs = 1000 / 30;

/** Time since the last request after which an entry is removed. */
const cacheTtlMs = 10_000;

/** Size limit of all parts that are kept for the next client. */
const maxCacheBytes = 16 << 20;

/** MJPEG boundary. Sent directly after each frame, because browsers show a frame only then. */
export const mjpegBoundary = "frame";
const boundaryLine = `--${mjpegBoundary}\r\n`;

/** Begins a response, before its first part. */
export const boundaryBytes = new TextEncoder().encode(boundaryLine);

/** An MJPEG part, shared by all clients of a source. */
export interface MjpegPart {
  /** Headers, JPEG and the following boundary. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The JPEG alone, a part of `bytes`. */
  readonly jpeg: Uint8Array<ArrayBuffer>;
  readonly newest: NewestFrame;
  /** Value of the source's frame count at this frame. */
  readonly serial: number;
}

interface JpegCacheEntry {
  latest: { readonly newest: NewestFrame; readonly part: MjpegPart | FramesError } | undefined;
  /** Conversions by key, so that no viewer waits for the turn of another key. */
  readonly pending: Map<string, Promise<MjpegPart | FramesError | undefined>>;
  convertedAt: number;
  lastUsedAt: number;
}

export class JpegCache {
  readonly #newestFrames: NewestFrameCache;
  readonly #converter: Converter;
  readonly #liveSources: LiveSources;
  /** Entries in order of use, most recent last. */
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
   *
   * @param keyId id of the viewer's key
   * @throws {FramesError} `full` if too many pictures of this key wait
   */
  async newest(stats: SourceStats, keyId: string): Promise<MjpegPart | FramesError | undefined> {
    const entry = this.#touchEntry(stats);
    const minSerial = stats.frames;
    for (;;) {
      const pending = await entry.pending.get(keyId);
      // A conversion started before the newest frame arrived is of an older frame.
      if (pending instanceof FramesError || (pending !== undefined && pending.serial >= minSerial))
        return pending;
      if (entry.pending.has(keyId)) continue;
      const part = this.#createPart(entry, stats, keyId);
      entry.pending.set(keyId, part);
      return await part.finally(() => entry.pending.delete(keyId));
    }
  }

  #touchEntry(stats: SourceStats): JpegCacheEntry {
    let entry = this.#entries.get(stats);
    if (entry === undefined) {
      entry = { latest: undefined, pending: new Map(), convertedAt: -Infinity, lastUsedAt: 0 };
    }
    entry.lastUsedAt = this.#liveSources.now;
    this.#entries.delete(stats);
    this.#entries.set(stats, entry);
    return entry;
  }

  /** Reads the newest frame, and converts it if it is no JPEG. */
  async #createPart(
    entry: JpegCacheEntry,
    stats: SourceStats,
    keyId: string,
  ): Promise<MjpegPart | FramesError | undefined> {
    const part = await this.#readPart(entry, stats);
    return part === "no-jpeg" ? await this.#convertPart(entry, stats, keyId) : part;
  }

  async #readPart(entry: JpegCacheEntry, stats: SourceStats) {
    const cached = await this.#newestFrames.newest(stats);
    if (cached === undefined) return undefined;
    if (entry.latest?.newest === cached.newest) return entry.latest.part;
    if (!isJpeg(cached.bytes)) return "no-jpeg";
    return this.#keep(entry, cached.newest, encodePart(cached, cached.bytes));
  }

  /** Reads the frame again in its turn, so that waiting frames take no memory. */
  async #convertPart(
    entry: JpegCacheEntry,
    stats: SourceStats,
    keyId: string,
  ): Promise<MjpegPart | FramesError | undefined> {
    const waitMs = entry.convertedAt + conversionIntervalMs - performance.now();
    if (waitMs > 0) await Bun.sleep(waitMs);
    entry.convertedAt = performance.now();
    let frame: Pick<CachedFrame, "newest" | "serial"> | undefined;
    const jpeg = await this.toJpeg(keyId, async () => {
      const cached = await this.#newestFrames.newest(stats);
      // The turn of another key came first.
      if (cached === undefined || cached.newest === entry.latest?.newest) return undefined;
      const { newest, serial, bytes } = cached;
      frame = { newest, serial };
      return { bytes, raw: newest.raw, name: newest.frame.name };
    });
    if (frame === undefined || jpeg === undefined) return entry.latest?.part;
    const part = jpeg instanceof FramesError ? jpeg : encodePart(frame, jpeg);
    return this.#keep(entry, frame.newest, part);
  }

  #keep(entry: JpegCacheEntry, newest: NewestFrame, part: MjpegPart | FramesError) {
    entry.latest = { newest, part };
    this.#evict(entry);
    return part;
  }

  /**
   * Converts a frame to JPEG, or returns the error that prevents it; undefined if it was removed.
   *
   * @param keyId id of the viewer's key
   * @param read reads the frame when its turn has come
   * @throws {FramesError} `full` if too many pictures of this key wait
   */
  async toJpeg(
    keyId: string,
    read: () => Promise<(FrameToConvert & { readonly name: string }) | undefined>,
  ): Promise<Uint8Array<ArrayBuffer> | FramesError | undefined> {
    let original: Uint8Array<ArrayBuffer> | undefined;
    let name = "";
    let raw: RawShape | undefined;
    const result = await this.#converter.convert(keyId, async () => {
      const frame = await read();
      if (frame === undefined) return undefined;
      ({ name, raw } = frame);
      if (isJpeg(frame.bytes)) original = frame.bytes;
      return original === undefined ? { bytes: frame.bytes, raw } : undefined;
    });
    if (result === undefined) return original;
    if (result.jpeg !== undefined) return result.jpeg;
    const format = raw === undefined ? mediaType(name, raw) : `raw ${raw.format}`;
    return new FramesError(
      "unreadable",
      `Cannot show ${JSON.stringify(name)} (${format}) as JPEG: ${result.failure}; …/latest sends the stored bytes`,
    );
  }

  /** Removes the parts used least recently, but not the one of `current`. */
  #evict(current: JpegCacheEntry): void {
    let bytes = 0;
    for (const { latest } of this.#entries.values()) bytes += partLength(latest?.part);
    for (const entry of this.#entries.values()) {
      if (bytes <= maxCacheBytes) return;
      if (entry === current) continue;
      bytes -= partLength(entry.latest?.part);
      entry.latest = undefined;
    }
  }

  #evictIdle(): void {
    const idleSince = this.#liveSources.now - cacheTtlMs;
    for (const [stats, entry] of this.#entries) {
      if (entry.lastUsedAt < idleSince && entry.pending.size === 0) this.#entries.delete(stats);
    }
  }

  close(): void {
    this.#unsubscribeTick();
    this.#converter.close();
  }
}

function partLength(part: MjpegPart | FramesError | undefined): number {
  return part === undefined || part instanceof FramesError ? 0 : part.bytes.length;
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
  const whole = bytes.subarray(head.length, head.length + jpeg.length);
  return { bytes, jpeg: whole, newest: cached.newest, serial: cached.serial };
}
