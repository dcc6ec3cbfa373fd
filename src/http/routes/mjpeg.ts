/**
 * `latest.mjpeg` streams a source as MJPEG, and `latest.jpg` is its newest frame as JPEG. A slow client
 * skips frames and gets the newest one.
 */
import { FramesError } from "../../errors.ts";
import { notFound, errorResponse } from "../responses.ts";
import { maxLiveFrameBytes } from "../picture/newest-frames.ts";
import type { SourceStats } from "../live/source-stats.ts";
import type { BodySource } from "../stream-body.ts";
import {
  mjpegBoundary,
  boundaryLine,
  encodePart,
  type JpegCache,
  type MjpegPart,
} from "../picture/jpeg-cache.ts";
import { newestCodec, newestOf } from "../picture/video-follower.ts";
import { jpegOfVideo, jpegResponse, mjpegOfVideo } from "./decoded-video.ts";
import type { StreamClient } from "../stream-clients.ts";
import type { SourceRequest } from "./request.ts";
import { streamResponse } from "./stream-response.ts";

const mjpegHeaders = {
  "Content-Type": `multipart/x-mixed-replace; boundary=${mjpegBoundary}`,
  // Keeps nginx from buffering the stream.
  "X-Accel-Buffering": "no",
};

/**
 * @throws {FramesError} `missing` if the source does not exist, `full` or `stopping` if it cannot
 * stream
 */
export async function handleMjpeg(req: SourceRequest): Promise<Response> {
  const { context, stream, source } = req;
  const { liveSources, jpegCache } = context;
  const stats = liveSources.get(stream, source);
  const codec = newestCodec(context, stream, source, stats);
  if (codec !== undefined) return await mjpegOfVideo(req, codec, mjpegHeaders);
  const shown = await newestPart(req, stats);
  if (shown instanceof FramesError) return errorResponse(415, shown.code, shown.message);
  // Of a live source this only checks that frames can be converted. `MjpegBody` makes its own parts.
  const firstPart = stats?.newest === undefined ? shown?.bytes : undefined;
  return streamResponse(req, { kind: "mjpeg", headers: mjpegHeaders }, (client) => {
    const hasRoom = firstPart !== undefined && client.hasRoomFor(firstPart.length);
    const liveStats = liveSources.getOrCreate(stream, source);
    const body = new MjpegBody(liveStats, jpegCache, client, hasRoom ? firstPart : undefined);
    body.setUnsubscribe(liveSources.subscribe(liveStats, () => body.notify()));
    return body;
  });
}

/**
 * @throws {FramesError} `missing` if the source does not exist or its frame was removed, `full`
 */
export async function handleJpeg(req: SourceRequest): Promise<Response> {
  const { context, stream, source } = req;
  const stats = context.liveSources.get(stream, source);
  const codec = newestCodec(context, stream, source, stats);
  if (codec !== undefined) return await jpegOfVideo(req, codec);
  const shown = await newestPart(req, stats);
  if (shown instanceof FramesError) return errorResponse(415, shown.code, shown.message);
  if (shown === undefined) throw notFound(`The newest frame of ${source} in ${stream} is gone`);
  return jpegResponse(shown.newest.frame, shown.jpeg);
}

/**
 * Returns the newest frame as JPEG; of a source that is not live, the stored frame captured last.
 * Undefined if there is no frame to show, and the error if it cannot be converted.
 */
async function newestPart(
  { context, principal: { keyId }, stream, source }: SourceRequest,
  stats: SourceStats | undefined,
): Promise<MjpegPart | FramesError | undefined> {
  const { contents, reader, jpegCache } = context;
  if (stats?.newest !== undefined) return await jpegCache.newest(stats, keyId);
  const stored = reader.newest(stream, source);
  if (stored === undefined && stats === undefined)
    throw notFound(`${stream} has no source ${source}`);
  if (stored === undefined || stored.size > maxLiveFrameBytes) return undefined;
  const { raw, name } = stored;
  const jpeg = await jpegCache.toJpeg(keyId, async () => {
    const bytes = await contents.blob(stored)?.bytes();
    return bytes === undefined ? undefined : { bytes, raw, name };
  });
  if (jpeg === undefined || jpeg instanceof FramesError) return jpeg;
  return encodePart({ newest: newestOf(stored), serial: 0 }, jpeg);
}

/** A viewer of a key with too many waiting pictures skips frames. */
function skipIfFull(error: unknown): undefined {
  if (!(error instanceof FramesError) || error.code !== "full") throw error;
  return undefined;
}

class MjpegBody implements BodySource {
  readonly #stats: SourceStats;
  readonly #jpegCache: JpegCache;
  readonly #client: StreamClient;
  #firstPart: Uint8Array | undefined;
  #isStarted = false;
  /** Value of the source's frame count at the last part returned. */
  #serial = 0;
  #resolveWait: (() => void) | undefined;
  #unsubscribe: () => void = () => {};

  constructor(
    stats: SourceStats,
    jpegCache: JpegCache,
    client: StreamClient,
    firstPart: Uint8Array | undefined,
  ) {
    this.#stats = stats;
    this.#jpegCache = jpegCache;
    this.#client = client;
    this.#firstPart = firstPart;
  }

  setUnsubscribe(unsubscribe: () => void): void {
    this.#unsubscribe = unsubscribe;
  }

  /** Wakes `next` after a frame was committed or the client ended. */
  notify(): void {
    this.#resolveWait?.();
    this.#resolveWait = undefined;
  }

  async next(): Promise<Uint8Array | undefined> {
    if (!this.#isStarted) {
      this.#isStarted = true;
      return new TextEncoder().encode(boundaryLine);
    }
    if (this.#firstPart !== undefined) {
      const firstPart = this.#firstPart;
      this.#firstPart = undefined;
      return firstPart;
    }
    while (!this.#client.isEnded) {
      if (this.#stats.frames === this.#serial) {
        await new Promise<void>((resolve) => (this.#resolveWait = resolve));
        continue;
      }
      const seenFrames = this.#stats.frames;
      const part = await this.#jpegCache
        .newest(this.#stats, this.#client.principal.keyId)
        .catch(skipIfFull);
      // Skips a frame that was removed or cannot be converted.
      if (part === undefined || part instanceof FramesError) {
        this.#serial = seenFrames;
        continue;
      }
      const skipped = part.serial - this.#serial;
      if (skipped <= 0) {
        // The newest frame was removed, and this older one was sent before.
        this.#serial = seenFrames;
        continue;
      }
      const isFirst = this.#serial === 0;
      this.#serial = part.serial;
      if (!isFirst) this.#client.countDropped(skipped - 1);
      if (this.#client.hasRoomFor(part.bytes.length)) return part.bytes;
      this.#client.countDropped(1);
    }
    return undefined;
  }

  close(): void {
    this.#unsubscribe();
    this.notify();
  }
}
