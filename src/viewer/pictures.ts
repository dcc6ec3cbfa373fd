/** The newest frame of each source as a part of MJPEG: made once for all who watch, while somebody does. */
import { FramesError } from "../errors.ts";
import type { RawShape } from "../frame.ts";
import type { Converter } from "./converter.ts";
import type { Copies, FrameCopy } from "./copies.ts";
import type { Feed } from "./feed.ts";
import type { Live } from "./live.ts";
import { mediaType, secondsText } from "./media.ts";

/** Milliseconds between two conversions of one source, at least: 30 a second. */
const convertEvery = 1000 / 30;

/** A part goes so many milliseconds after somebody asked for it last. */
const keptFor = 10_000;

/** Between the parts; it is sent right behind a frame, since a browser shows that only then. */
export const boundary = "frame";
export const opening = `--${boundary}\r\n`;

/** A frame as it goes out to all who watch its source. */
export interface Picture {
  /** Headers, JPEG and the boundary behind it. */
  readonly part: Uint8Array<ArrayBuffer>;
  /** How many frames had come from the source with this one. */
  readonly serial: number;
}

interface Place {
  made: { readonly of: FrameCopy; readonly picture: Picture | FramesError } | undefined;
  making: Promise<Picture | FramesError> | undefined;
  convertedAt: number;
  askedAt: number;
}

export class Pictures {
  readonly #copies: Copies;
  readonly #converter: Converter;
  readonly #live: Live;
  readonly #places = new Map<Feed, Place>();
  readonly #endTick: () => void;

  constructor(copies: Copies, converter: Converter, live: Live) {
    this.#copies = copies;
    this.#converter = converter;
    this.#live = live;
    this.#endTick = live.onTick(() => this.#dropUnasked());
  }

  /** The newest frame of a source, or why it cannot be shown; nothing if it is gone. */
  async newest(feed: Feed): Promise<Picture | FramesError | undefined> {
    const place = this.#place(feed);
    const wanted = feed.frames;
    for (;;) {
      const made = await place.making;
      // What was begun before the newest came is of one before.
      if (made instanceof FramesError || (made !== undefined && made.serial >= wanted)) return made;
      const copy = await this.#copies.newest(feed);
      if (copy === undefined) return undefined;
      if (place.made?.of === copy) return place.made.picture;
      if (place.making !== undefined) continue;
      place.making = this.#make(place, copy).finally(() => (place.making = undefined));
      return await place.making;
    }
  }

  #place(feed: Feed): Place {
    let place = this.#places.get(feed);
    if (place === undefined) {
      place = { made: undefined, making: undefined, convertedAt: -Infinity, askedAt: 0 };
      this.#places.set(feed, place);
    }
    place.askedAt = this.#live.now;
    return place;
  }

  async #make(place: Place, copy: FrameCopy): Promise<Picture | FramesError> {
    const picture = isJpeg(copy.bytes)
      ? partOf(copy, copy.bytes)
      : await this.#convert(place, copy);
    place.made = { of: copy, picture };
    return picture;
  }

  async #convert(place: Place, copy: FrameCopy): Promise<Picture | FramesError> {
    const early = place.convertedAt + convertEvery - performance.now();
    if (early > 0) await Bun.sleep(early);
    place.convertedAt = performance.now();
    const jpeg = await this.toJpeg(copy.bytes, copy.newest.raw, copy.newest.frame.name);
    return jpeg instanceof FramesError ? jpeg : partOf(copy, jpeg);
  }

  /** A frame as JPEG, or why it cannot be. */
  async toJpeg(bytes: Uint8Array<ArrayBuffer>, raw: RawShape | undefined, name: string) {
    if (isJpeg(bytes)) return bytes;
    const { jpeg, failure } = await this.#converter.convert(bytes, raw);
    if (jpeg !== undefined) return jpeg;
    const what = raw === undefined ? mediaType(name, raw) : `raw ${raw.format}`;
    return new FramesError(
      "unreadable",
      `Cannot show ${JSON.stringify(name)} (${what}) as JPEG: ${failure}; …/latest has it as it is`,
    );
  }

  #dropUnasked(): void {
    const before = this.#live.now - keptFor;
    for (const [feed, place] of this.#places) {
      if (place.askedAt < before && place.making === undefined) this.#places.delete(feed);
    }
  }

  close(): void {
    this.#endTick();
    this.#converter.close();
  }
}

function isJpeg(bytes: Uint8Array): boolean {
  return bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
}

/** One part, for all who watch. */
export function partOf(copy: Pick<FrameCopy, "newest" | "serial">, jpeg: Uint8Array): Picture {
  const { sequence, captured } = copy.newest.frame;
  const head = new TextEncoder().encode(
    `Content-Type: image/jpeg\r\nContent-Length: ${jpeg.length}\r\n` +
      `X-Sequence: ${sequence}\r\nX-Timestamp: ${secondsText(captured)}\r\n\r\n`,
  );
  const tail = new TextEncoder().encode(`\r\n${opening}`);
  const part = new Uint8Array(head.length + jpeg.length + tail.length);
  part.set(head);
  part.set(jpeg, head.length);
  part.set(tail, head.length + jpeg.length);
  return { part, serial: copy.serial };
}
