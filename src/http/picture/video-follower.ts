/**
 * Follows the pictures of an encoded video, so that one decoder can take them all. A viewer that is too
 * slow goes on at the newest key frame.
 */
import { crc32 } from "../../common/checksum.ts";
import { ConcurrencyLimit } from "../../common/concurrency.ts";
import {
  type FrameRecord,
  type JournalReader,
  maxGroupFrames,
  type VideoPicture,
} from "../../store/journal/journal-reader.ts";
import type { StoreContents } from "../../store/store-contents.ts";
import { DecodableFilter } from "../../video/decodable.ts";
import { pictureKind, type VideoCodec } from "../../video/nal-units.ts";
import { codecOf, maxHeadBytes } from "../../video/picture-head.ts";
import type { LiveSources } from "../live/live-sources.ts";
import type { NewestFrame, SourceStats } from "../live/source-stats.ts";
import { maxLiveFrameBytes } from "./newest-frames.ts";

/** Milliseconds that a viewer may be behind before it goes on at a newer key frame. */
const maxLagMs = 1000;

/**
 * Pictures that are read to find a recovery point, if no key frame is near: some 10 seconds, and one
 * second from a bucket.
 */
const maxLookedBack = 300;
const maxFetchedBack = 30;

/** Rows read at a time. A longer gap of numbers is left at the next key frame. */
const batchSize = 64;

/** Limits the memory for pictures that are read, over all viewers. */
const reads = new ConcurrencyLimit(4);

/** What a follower reads from. */
export interface VideoStore {
  readonly reader: JournalReader;
  readonly contents: StoreContents;
  readonly liveSources: LiveSources;
}

/** A picture with its bytes. */
export interface FollowedPicture {
  readonly record: FrameRecord;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Pictures since the previous one that the viewer does not get. */
  readonly skipped: number;
}

/** Returns a stored picture as the newest frame of its source. */
export function newestOf(record: FrameRecord): NewestFrame {
  const { session, crc32: crc, raw } = record;
  return {
    frame: record,
    session,
    crc32: crc,
    raw,
    received: Number(record.received / 1_000_000n),
  };
}

/** Returns the codec of the newest frame of a source; undefined if it is no encoded video. */
export function newestCodec(
  { reader }: Pick<VideoStore, "reader">,
  stream: string,
  source: string,
  stats: SourceStats | undefined,
): VideoCodec | undefined {
  const name = stats?.newest?.frame.name ?? reader.newest(stream, source)?.name;
  return name === undefined ? undefined : codecOf(undefined, name);
}

export class VideoFollower {
  readonly #store: VideoStore;
  readonly #stats: SourceStats;
  readonly #codec: VideoCodec;
  readonly #filter: DecodableFilter;
  /** Record that was taken last. */
  #last: FrameRecord | undefined;
  /** Records to take next. */
  #next: FrameRecord[] = [];
  /** When the viewer took the first picture after it had taken all, in milliseconds. */
  #behindSince: number | undefined;
  /** When a recovery point was looked for, in milliseconds. That reads many pictures. */
  #lookedBackAt = -Infinity;
  /** Number of the picture that was returned last. */
  #returned = 0;

  constructor(store: VideoStore, stats: SourceStats, codec: VideoCodec) {
    this.#store = store;
    this.#stats = stats;
    this.#codec = codec;
    this.#filter = new DecodableFilter(codec);
  }

  /**
   * Returns the next picture: first the key frame or recovery point before the newest one. Undefined
   * if there is none at the moment.
   */
  async next(): Promise<FollowedPicture | undefined> {
    for (;;) {
      const record = await this.#nextRecord();
      if (record === undefined) {
        this.#behindSince = undefined;
        return undefined;
      }
      const isSameSession = record.session === this.#last?.session;
      this.#last = record;
      const bytes = await this.#read(record);
      if (bytes === undefined || !this.#filter.accepts(record.sequence, bytes)) continue;
      const skipped = isSameSession ? record.sequence - this.#returned - 1 : 0;
      this.#returned = record.sequence;
      return { record, bytes, skipped };
    }
  }

  /** Goes on at a key frame, because the viewer did not get the picture that was returned last. */
  restart(): void {
    this.#filter.restart();
  }

  async #nextRecord(): Promise<FrameRecord | undefined> {
    const { reader, liveSources } = this.#store;
    const newest = this.#newest();
    const last = this.#last;
    if (newest === undefined) return undefined;
    if (last?.session !== newest.session) {
      this.#next = [];
      return await this.#startBefore(newest);
    }
    if (last.sequence >= newest.sequence) return undefined;
    if (this.#next.length === 0) this.#next = reader.picturesAfter(last, batchSize);
    this.#behindSince ??= liveSources.now;
    const isLate = liveSources.now - this.#behindSince > maxLagMs;
    if (!isLate && this.#next.length > 0) return this.#next.shift();
    const start = await this.#startBefore(newest, last.sequence);
    if (start === undefined || start.sequence <= last.sequence) return this.#next.shift();
    this.#next = [];
    return start;
  }

  /**
   * Returns the newest key frame. If that is far away, or no newer one than `last`, returns the newest
   * recovery point, if there is one.
   */
  async #startBefore(newest: VideoPicture, last = 0): Promise<FrameRecord | undefined> {
    const { reader, contents, liveSources } = this.#store;
    const key = reader.keyFrameBefore(newest);
    const isNear = key !== undefined && newest.sequence - key.sequence < maxGroupFrames;
    if (isNear && key.sequence > last) return key;
    if (liveSources.now - this.#lookedBackAt < maxLagMs) return key;
    this.#lookedBackAt = liveSources.now;
    const count = contents.fetch === undefined ? maxLookedBack : maxFetchedBack;
    const sequence = Math.max(last, newest.sequence - count);
    const pictures = reader.picturesAfter({ ...newest, sequence }, newest.sequence - sequence);
    for (const record of pictures.reverse()) {
      if (await this.#isRecoveryPoint(record)) return record;
    }
    return key;
  }

  async #isRecoveryPoint(record: FrameRecord): Promise<boolean> {
    return await reads.run(async () => {
      try {
        const head = await this.#store.contents.blob(record)?.slice(0, maxHeadBytes).bytes();
        return head !== undefined && pictureKind(head, this.#codec)?.recoveryCount !== undefined;
      } catch {
        // The file was removed just now.
        return false;
      }
    });
  }

  /** The newest picture; of a source that is not live, the stored one that was captured last. */
  #newest(): VideoPicture | undefined {
    const { stream, source, newest } = this.#stats;
    if (newest === undefined) return this.#store.reader.newest(stream, source);
    return { stream, source, session: newest.session, sequence: newest.frame.sequence };
  }

  async #read(record: FrameRecord): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (codecOf(undefined, record.name) !== this.#codec) return undefined;
    return await readPicture(this.#store, record);
  }
}

/** Returns the bytes of a picture. Undefined if it is gone, damaged, or too large. */
export async function readPicture(
  { contents }: Pick<VideoStore, "contents">,
  record: FrameRecord,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const { size } = record;
  if (size > maxLiveFrameBytes) return undefined;
  return await reads.run(async () => {
    try {
      const bytes = await contents.blob(record)?.bytes();
      return bytes?.length === size && crc32(bytes) === record.crc32 ? bytes : undefined;
    } catch {
      // The file was removed just now.
      return undefined;
    }
  });
}
