/** The newest frame of each source that somebody asked for: read once, and kept for all who ask. */
import { crc32 } from "node:zlib";
import type { KeptFrames } from "../store/kept.ts";
import type { Feed, Newest } from "./feed.ts";
import type { Live } from "./live.ts";

/** Larger frames are not kept, and not shown live. */
export const largestCopy = 32 << 20;

/** Bytes of all copies; those that were asked for longest ago go. */
const mostBytes = 128 << 20;

/** A copy that nobody asked for goes after so many milliseconds. */
const keptFor = 10_000;

/** The bytes of a frame that came. */
export interface FrameCopy {
  readonly newest: Newest;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How many frames had come from the source with this one. */
  readonly serial: number;
}

interface Place {
  copy: FrameCopy | undefined;
  reading: Promise<FrameCopy | undefined> | undefined;
  /** Frames that had come when the last reading began. */
  serial: number;
  askedAt: number;
}

export class Copies {
  readonly #kept: KeptFrames;
  readonly #live: Live;
  /** The place that was asked for last is the last. */
  readonly #places = new Map<Feed, Place>();
  #bytes = 0;
  readonly #endTick: () => void;

  constructor(kept: KeptFrames, live: Live) {
    this.#kept = kept;
    this.#live = live;
    this.#endTick = live.onTick(() => this.#dropUnasked());
  }

  /**
   * The newest frame of a source, or the one before that is held if somebody took the newest away; nothing if
   * that is gone as well, or too large.
   */
  async newest(feed: Feed): Promise<FrameCopy | undefined> {
    const wanted = feed.frames;
    const place = this.#place(feed);
    let { copy } = place;
    while (place.serial < wanted || place.reading !== undefined) {
      // Who reads already may have begun before the newest came.
      place.reading ??= this.#read(feed, place).finally(() => (place.reading = undefined));
      copy = await place.reading;
    }
    return copy ?? place.copy;
  }

  #place(feed: Feed): Place {
    const place = this.#places.get(feed) ?? {
      copy: undefined,
      reading: undefined,
      serial: 0,
      askedAt: 0,
    };
    place.askedAt = this.#live.now;
    this.#places.delete(feed);
    this.#places.set(feed, place);
    return place;
  }

  /** Reads the newest, if there is one that can be held; gives what is held then. */
  async #read(feed: Feed, place: Place): Promise<FrameCopy | undefined> {
    const { newest, stream, source } = feed;
    const serial = feed.frames;
    try {
      const copy =
        newest === undefined ? undefined : await this.#copy(stream, source, newest, serial);
      if (copy !== undefined) this.#hold(place, copy);
      return place.copy;
    } finally {
      place.serial = serial;
      this.#makeRoom();
    }
  }

  async #copy(stream: string, source: string, newest: Newest, serial: number) {
    const { name, size } = newest.frame;
    if (size > largestCopy) return undefined;
    try {
      const blob = this.#kept.bytesOf({ stream, source, name, size });
      const bytes = await blob?.bytes();
      // What was changed or replaced since is not the frame.
      if (bytes?.length !== size || crc32(bytes) !== newest.crc32) return undefined;
      return { newest, bytes, serial };
    } catch {
      // It was moved away just now: the one before goes on being the newest that there is.
      return undefined;
    }
  }

  #hold(place: Place, copy: FrameCopy | undefined): void {
    this.#bytes += (copy?.bytes.length ?? 0) - (place.copy?.bytes.length ?? 0);
    place.copy = copy;
  }

  #makeRoom(): void {
    for (const [feed, place] of this.#places) {
      if (this.#bytes <= mostBytes) return;
      this.#drop(feed, place);
    }
  }

  #drop(feed: Feed, place: Place): void {
    if (place.reading !== undefined) return;
    this.#hold(place, undefined);
    this.#places.delete(feed);
  }

  #dropUnasked(): void {
    const before = this.#live.now - keptFor;
    for (const [feed, place] of this.#places) {
      if (place.askedAt < before) this.#drop(feed, place);
    }
  }

  close(): void {
    this.#endTick();
    this.#places.clear();
  }
}
