/**
 * `latest.mjpeg` streams a source as MJPEG, and `latest.jpg` is its newest frame as JPEG. A slow client
 * skips frames and gets the newest one.
 */
import { FramesError } from "../../errors.ts";
import { HttpError, notFound } from "../responses.ts";
import { maxLiveFrameBytes } from "../picture/newest-frames.ts";
import type { SourceStats } from "../live/source-stats.ts";
import { type BodySource, Wakeup } from "../stream-body.ts";
import {
  mjpegBoundary,
  boundaryBytes,
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
  const stats = context.liveSources.get(stream, source);
  const codec = newestCodec(context, stream, source, stats);
  if (codec !== undefined) return await mjpegOfVideo(req, codec, mjpegHeaders);
  const shown = await newestPart(req, stats);
  if (shown instanceof FramesError) throw new HttpError(415, shown.code, shown.message);
  // Of a live source this only checks that frames can be converted. `newestParts` makes its own parts.
  const firstPart = stats?.newest === undefined ? shown?.bytes : undefined;
  return streamResponse(req, { kind: "mjpeg", headers: mjpegHeaders }, (client) => {
    return mjpegBody(req, client, firstPart);
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
  if (shown instanceof FramesError) throw new HttpError(415, shown.code, shown.message);
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

/** @param firstPart of a source that is not live; it is not kept once the client has it */
function mjpegBody(
  { context: { liveSources, jpegCache }, stream, source }: SourceRequest,
  client: StreamClient,
  firstPart: Uint8Array | undefined,
): BodySource {
  const hasRoom = firstPart !== undefined && client.hasRoomFor(firstPart.length);
  const first = hasRoom ? [boundaryBytes, firstPart] : [boundaryBytes];
  const stats = liveSources.getOrCreate(stream, source);
  const arrival = new Wakeup();
  const unsubscribe = liveSources.subscribe(stats, () => arrival.notify());
  const parts = newestParts(stats, jpegCache, client, arrival);
  return {
    next: async () => first.shift() ?? (await parts.next()).value,
    close() {
      unsubscribe();
      arrival.notify();
    },
  };
}

/** Yields the newest frame of a source as a part, each time the client has taken the one before. */
async function* newestParts(
  stats: SourceStats,
  jpegCache: JpegCache,
  client: StreamClient,
  arrival: Wakeup,
): AsyncGenerator<Uint8Array, undefined> {
  /** Value of the source's frame count at the last part. */
  let serial = 0;
  while (!client.isEnded) {
    if (stats.frames === serial) {
      await arrival.next();
      continue;
    }
    const seenFrames = stats.frames;
    const part = await jpegCache.newest(stats, client.principal.keyId).catch(skipIfFull);
    // Skips a frame that was removed or cannot be converted, and an older one that was sent before.
    if (part === undefined || part instanceof FramesError || part.serial <= serial) {
      serial = seenFrames;
      continue;
    }
    if (serial > 0) client.countDropped(part.serial - serial - 1);
    serial = part.serial;
    if (client.hasRoomFor(part.bytes.length)) yield part.bytes;
    else client.countDropped(1);
  }
  return undefined;
}
