/** A source as MJPEG, live: each part is the newest frame at the time when there is room for it. */
import { FramesError } from "../errors.ts";
import { missing, refusal } from "./answers.ts";
import type { Asked } from "./asked.ts";
import type { Exhibition } from "./exhibition.ts";
import { largestCopy } from "./copies.ts";
import type { Feed } from "./feed.ts";
import { bodyOf, type Outflow } from "./outflow.ts";
import { boundary, opening, partOf, type Pictures } from "./pictures.ts";
import type { Viewer } from "./viewers.ts";

const headers = {
  "Content-Type": `multipart/x-mixed-replace; boundary=${boundary}`,
  // Some proxies would wait until they have much.
  "X-Accel-Buffering": "no",
};

/** @throws {FramesError} */
export async function mjpegAnswer(
  asked: Asked,
  exhibition: Exhibition,
  stream: string,
  source: string,
): Promise<Response> {
  const { live, pictures } = exhibition;
  const feed = live.feed(stream, source);
  const first = await firstPart(exhibition, stream, source, feed);
  if (first instanceof FramesError) return refusal(415, first.code, first.message);
  if (asked.request.method === "HEAD") return new Response(null, { headers });
  const viewer = asked.viewers.enter("mjpeg", asked.visitor);
  asked.mayTake(0);
  const watched = live.known(stream, source);
  const flow = new MjpegFlow(watched, pictures, viewer, first);
  flow.begin(live.watch(watched, () => flow.wake()));
  return new Response(bodyOf(viewer, flow), { headers });
}

/** What is shown at once: of a source that is not live the frame that was captured last. */
async function firstPart(
  { kept, catalog, pictures }: Exhibition,
  stream: string,
  source: string,
  feed: Feed | undefined,
): Promise<Uint8Array | FramesError | undefined> {
  if (feed?.newest !== undefined) {
    const picture = await pictures.newest(feed);
    // The stream makes its own; this one only had to be possible.
    return picture instanceof FramesError ? picture : undefined;
  }
  const stored = catalog.newest(stream, source);
  if (stored === undefined && feed === undefined)
    throw missing(`${stream} has no source ${source}`);
  if (stored === undefined || stored.size > largestCopy) return undefined;
  const bytes = await kept.bytesOf(stored)?.bytes();
  if (bytes === undefined) return undefined;
  const { session, crc32, raw } = stored;
  const jpeg = await pictures.toJpeg(bytes, raw, stored.name);
  if (jpeg instanceof FramesError) return jpeg;
  const newest = { frame: stored, session, crc32, raw, received: 0 };
  return partOf({ newest, serial: 0 }, jpeg).part;
}

class MjpegFlow implements Outflow {
  readonly #feed: Feed;
  readonly #pictures: Pictures;
  readonly #viewer: Viewer;
  #first: Uint8Array | undefined;
  #isOpen = false;
  /** Frames that had come with the one that was given last. */
  #serial = 0;
  #woken: (() => void) | undefined;
  #unwatch: () => void = () => {};

  constructor(feed: Feed, pictures: Pictures, viewer: Viewer, first: Uint8Array | undefined) {
    this.#feed = feed;
    this.#pictures = pictures;
    this.#viewer = viewer;
    this.#first = first;
  }

  begin(unwatch: () => void): void {
    this.#unwatch = unwatch;
  }

  /** Something came. */
  wake(): void {
    this.#woken?.();
    this.#woken = undefined;
  }

  async next(): Promise<Uint8Array | undefined> {
    if (!this.#isOpen) {
      this.#isOpen = true;
      return new TextEncoder().encode(opening);
    }
    if (this.#first !== undefined) {
      const first = this.#first;
      this.#first = undefined;
      return first;
    }
    while (!this.#viewer.isOver) {
      if (this.#feed.frames === this.#serial) {
        await new Promise<void>((resolve) => (this.#woken = resolve));
        continue;
      }
      const seen = this.#feed.frames;
      const picture = await this.#pictures.newest(this.#feed);
      // What cannot be shown, or is gone, is passed over.
      if (picture === undefined || picture instanceof FramesError) {
        this.#serial = seen;
        continue;
      }
      const skipped = picture.serial - this.#serial;
      if (skipped <= 0) {
        // The newest is gone, and this one was shown.
        this.#serial = seen;
        continue;
      }
      const isFirst = this.#serial === 0;
      this.#serial = picture.serial;
      if (!isFirst) this.#viewer.passedOver(skipped - 1);
      if (this.#viewer.mayTake(picture.part.length)) return picture.part;
      this.#viewer.passedOver(1);
    }
    return undefined;
  }

  close(): void {
    this.#unwatch();
    this.wake();
  }
}
