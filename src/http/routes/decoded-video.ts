/** `latest.jpg` and `latest.mjpeg` of encoded video, decoded by an ffmpeg that all viewers share. */
import { FramesError } from "../../errors.ts";
import type { FrameDescription } from "../../frame.ts";
import type { VideoCodec } from "../../video/nal-units.ts";
import { toDecimalSeconds } from "../media-type.ts";
import { boundaryBytes, encodePart } from "../picture/jpeg-cache.ts";
import type { DecodedPicture, VideoViewer } from "../picture/video-decoder.ts";
import { newestOf } from "../picture/video-follower.ts";
import { HttpError } from "../responses.ts";
import type { StreamClient } from "../stream-clients.ts";
import type { SourceRequest } from "./request.ts";
import { streamResponse } from "./stream-response.ts";

/** Time for the first picture, in milliseconds. A decoder that fails or hangs ends before. */
const firstPictureMs = 12_000;

/** Time after which no newer picture is expected of what was given to ffmpeg, in milliseconds. */
const quietMs = 500;

/** Creates the response of a JPEG. */
export function jpegResponse(
  { sequence, captured }: Pick<FrameDescription, "sequence" | "captured">,
  jpeg: Uint8Array,
): Response {
  const headers = {
    "Content-Type": "image/jpeg",
    "X-Sequence": String(sequence),
    "X-Timestamp": toDecimalSeconds(captured),
  };
  return new Response(jpeg as Uint8Array<ArrayBuffer>, { headers });
}

/**
 * Responds with the newest picture of a video.
 *
 * @throws {FramesError} `full` if too many videos are watched
 */
export async function jpegOfVideo(req: SourceRequest, codec: VideoCodec): Promise<Response> {
  const { viewer, picture } = await watch(req, codec);
  viewer.close();
  return jpegResponse(picture.record, picture.jpeg);
}

/**
 * Responds with the pictures of a video as MJPEG.
 *
 * @param headers of the response
 * @throws {FramesError} `full` if too many videos are watched, `full` or `stopping` if it cannot
 * stream
 */
export async function mjpegOfVideo(
  req: SourceRequest,
  codec: VideoCodec,
  headers: Record<string, string>,
): Promise<Response> {
  const { viewer } = await watch(req, codec);
  try {
    if (req.request.method === "HEAD") viewer.close();
    return streamResponse(req, { kind: "mjpeg", headers }, (client) => {
      const first = [boundaryBytes];
      const parts = decodedParts(viewer, client);
      return {
        next: async () => first.shift() ?? (await parts.next()).value,
        close: () => viewer.close(),
      };
    });
  } catch (error) {
    viewer.close();
    throw error;
  }
}

/**
 * Watches a video until its newest picture is decoded.
 *
 * @throws {FramesError} `full`, or what the response says if the video cannot be shown
 */
async function watch(
  { context, stream, source }: SourceRequest,
  codec: VideoCodec,
): Promise<{ readonly viewer: VideoViewer; readonly picture: DecodedPicture }> {
  const stats = context.liveSources.getOrCreate(stream, source);
  let viewer: VideoViewer | undefined;
  try {
    viewer = context.videoDecoders.watch(stats, codec);
    const picture = await newestPicture(viewer, stats.newest?.frame.sequence ?? Infinity);
    if (picture !== undefined) return { viewer, picture };
    const message = `Cannot show ${source} of ${stream} as JPEG: no key frame came within ${firstPictureMs / 1000} s; try again when there is one`;
    throw new FramesError("unreadable", message);
  } catch (error) {
    viewer?.close();
    if (!(error instanceof FramesError) || error.code === "full") throw error;
    const hint = error.code === "missing" ? `; or read latest.${codec}` : "";
    throw new HttpError(415, error.code, `${error.message}${hint}`);
  }
}

/** Returns the picture with a number, or the newest one before it if nothing newer comes. */
async function newestPicture(
  viewer: VideoViewer,
  wanted: number,
): Promise<DecodedPicture | undefined> {
  for (;;) {
    const { newest } = viewer;
    if (newest !== undefined && newest.record.sequence >= wanted) return newest;
    let timer: Timer | undefined;
    const limitMs = newest === undefined ? firstPictureMs : quietMs;
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), limitMs);
    });
    const result = await Promise.race([viewer.changed(), late]).finally(() => clearTimeout(timer));
    if (result === "late") return newest;
  }
}

/** Yields the newest picture as a part, each time the client has taken the one before. */
async function* decodedParts(
  viewer: VideoViewer,
  client: StreamClient,
): AsyncGenerator<Uint8Array, undefined> {
  let lastSerial = 0;
  while (!client.isEnded) {
    const { newest } = viewer;
    if (newest === undefined || newest.serial <= lastSerial) {
      await viewer.changed();
      continue;
    }
    const { record, jpeg, serial } = newest;
    if (lastSerial > 0) client.countDropped(serial - lastSerial - 1);
    lastSerial = serial;
    const { bytes } = encodePart({ newest: newestOf(record), serial }, jpeg);
    if (client.hasRoomFor(bytes.length)) yield bytes;
    else client.countDropped(1);
  }
  return undefined;
}
