/**
 * Encoded video as it is: `latest.h264` and `latest.h265` stream a source from a key frame on, and
 * `?gop=1` asks for all that is needed to decode a stored picture.
 */
import { FramesError } from "../../errors.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { type VideoCodec, videoTypes } from "../../video/nal-units.ts";
import { codecOf } from "../../video/picture-head.ts";
import type { SourceStats } from "../live/source-stats.ts";
import { toDecimalSeconds } from "../media-type.ts";
import {
  newestCodec,
  readPicture,
  VideoFollower,
  type VideoStore,
} from "../picture/video-follower.ts";
import { HttpError, notFound } from "../responses.ts";
import { type BodySource, Wakeup } from "../stream-body.ts";
import type { StreamClient } from "../stream-clients.ts";
import type { RouteRequest, SourceRequest } from "./request.ts";
import { idleTimeoutSeconds, streamResponse } from "./stream-response.ts";

/** Interval at which a client waits for the memory that others use, in milliseconds. */
const roomPollMs = 20;

/** Handles `latest.h264`. */
export const handleH264 = videoHandler("h264");

/** Handles `latest.h265`. */
export const handleH265 = videoHandler("h265");

function videoHandler(codec: VideoCodec) {
  /**
   * @throws {FramesError} `missing` if the source does not exist, `full` or `stopping` if it cannot
   * stream
   */
  return async (req: SourceRequest): Promise<Response> => {
    const { context, stream, source } = req;
    const { liveSources, reader } = context;
    const stats = liveSources.get(stream, source);
    if (stats?.newest === undefined && reader.newest(stream, source) === undefined) {
      throw notFound(`${stream} has no source ${source}`);
    }
    const found = newestCodec(context, stream, source, stats);
    if (found !== codec) {
      const hint = found === undefined ? "latest or latest.mjpeg" : `latest.${found}`;
      const message = `Cannot send ${source} of ${stream} as ${codec}: its frames are no ${codec}; read ${hint}`;
      throw new HttpError(415, "unreadable", message);
    }
    const headers = { "Content-Type": videoTypes[codec], "X-Accel-Buffering": "no" };
    return streamResponse(req, { kind: "video", headers }, (client) => {
      return videoBody(context, liveSources.getOrCreate(stream, source), codec, client);
    });
  };
}

function videoBody(
  store: VideoStore,
  stats: SourceStats,
  codec: VideoCodec,
  client: StreamClient,
): BodySource {
  const arrival = new Wakeup();
  const unsubscribe = store.liveSources.subscribe(stats, () => arrival.notify());
  const parts = pictures(new VideoFollower(store, stats, codec), client, arrival);
  return {
    next: async () => (await parts.next()).value,
    close() {
      unsubscribe();
      arrival.notify();
    },
  };
}

/** Yields the pictures of a source that the client can decode. */
async function* pictures(
  follower: VideoFollower,
  client: StreamClient,
  wakeup: Wakeup,
): AsyncGenerator<Uint8Array, undefined> {
  while (!client.isEnded) {
    const arrival = wakeup.next();
    const picture = await follower.next();
    if (picture === undefined) {
      await arrival;
      continue;
    }
    client.countDropped(picture.skipped);
    if (client.hasRoomFor(picture.bytes.length)) {
      yield picture.bytes;
      continue;
    }
    client.countDropped(1);
    follower.restart();
    await arrival;
  }
  return undefined;
}

/**
 * Responds with the access units from the key frame before a picture up to it.
 *
 * @throws {FramesError} `missing` if one of them is not stored, `limit` if there are too many, `full`
 * or `stopping` if it cannot stream
 */
export async function groupResponse(req: RouteRequest, frame: FrameRecord): Promise<Response> {
  const { context } = req;
  const { stream, source, sequence, captured } = frame;
  const codec = codecOf(undefined, frame.name);
  const group = await req.run(() => context.reader.groupUpTo(frame));
  const missing = missingNumber(group, sequence);
  if (codec === undefined || missing !== undefined) {
    const why = codec === undefined ? "it is no encoded video" : missing;
    throw notFound(`Cannot decode frame ${sequence} of ${source} in ${stream}: ${why}`);
  }
  const headers = {
    "Content-Type": videoTypes[codec],
    "X-Key-Sequence": String(group[0]!.sequence),
    "X-Sequence": String(sequence),
    "X-Timestamp": toDecimalSeconds(captured),
  };
  const options = { kind: "video", headers, idleTimeout: idleTimeoutSeconds } as const;
  return streamResponse(req, options, (client) => {
    const parts = storedPictures(context, client, group);
    return { mustBeComplete: true, next: async () => (await parts.next()).value, close: () => {} };
  });
}

/** Returns why a group cannot be decoded; undefined if it is complete. */
function missingNumber(group: readonly FrameRecord[], last: number): string | undefined {
  const [key] = group;
  if (key === undefined) return "no key frame before it is stored";
  const index = group.findIndex((record, at) => record.sequence !== key.sequence + at);
  if (index >= 0) return `frame ${key.sequence + index} is not stored`;
  return group.at(-1)!.sequence === last ? undefined : `frame ${last} is not stored`;
}

/**
 * Yields stored pictures.
 *
 * @throws {FramesError} `damaged` if a picture is gone or damaged
 */
async function* storedPictures(
  store: VideoStore,
  client: StreamClient,
  group: readonly FrameRecord[],
): AsyncGenerator<Uint8Array, undefined> {
  for (const record of group) {
    while (!client.isEnded && !client.hasRoomFor(record.size)) await Bun.sleep(roomPollMs);
    const bytes = await readPicture(store, record);
    if (bytes === undefined) throw new FramesError("damaged");
    yield bytes;
  }
  return undefined;
}
