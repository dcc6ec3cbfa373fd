/** Uses ffprobe to find the video in a file, URL or device. */
import { FramesError } from "../../errors.ts";
import { type FfprobeOptions, isOldVersion, runFfprobe } from "./ffmpeg.ts";

/** Properties of an input's video. */
export interface VideoInfo {
  /** ffmpeg's names of the container, separated by commas. */
  readonly container: string;
  readonly codec: string;
  readonly width: number;
  readonly height: number;
  /** ffmpeg's name of the pixel format. */
  readonly pixelFormat: string;
  /** Average frames per second, if known. */
  readonly rate: number | undefined;
  /** Unit of its timestamps in seconds, as a fraction in ffmpeg's notation. */
  readonly timeBase: string;
  /** Start of the input's timestamps, in seconds. Other tracks may start before the video. */
  readonly start: number | undefined;
  /** Seconds from the start of the input to the end of its video, if the container declares it. */
  readonly end: number | undefined;
  /** Duration of the input, in seconds. */
  readonly duration: number | undefined;
  /** Whether the input has an end: it declares a duration or a size in bytes. */
  readonly isFinite: boolean;
  /** Average bytes of a frame in the container. */
  readonly frameBytes: number | undefined;
  /** Whether pictures may be coded in another order than they are shown. */
  readonly hasReorderedPictures: boolean;
  /** What the container or the camera says about the coding; empty if nothing. */
  readonly extradata: Uint8Array;
  /** Start of the recording in nanoseconds since 1970, if declared. */
  readonly createdAt: bigint | undefined;
  /** Whether ffmpeg is older than 5.1, which renamed the option that disables frame duplication. */
  readonly isOldFfmpeg: boolean;
}

const probedEntries = [
  "packet=size",
  "stream=codec_name,width,height,pix_fmt,avg_frame_rate,time_base,start_time,duration,bit_rate,nb_frames,has_b_frames,extradata",
  "stream_tags=DURATION,creation_time",
  "format=format_name,nb_streams,start_time,duration,size",
  "format_tags=creation_time",
].join(":");

/**
 * Finds the video of an input.
 *
 * @param args arguments that select the input
 * @param name name of the input, for messages
 * @throws {FramesError} `missing` if ffprobe is not installed, `unreadable`, `timeout`
 */
export async function probe(
  args: readonly string[],
  name: string,
  options: FfprobeOptions,
): Promise<VideoInfo> {
  // `V` excludes cover art. Two frames are enough to estimate the bytes of a frame.
  const selectArgs = ["-select_streams", "V:0", "-read_intervals", "%+#2", "-show_packets"];
  const outputArgs = ["-show_program_version", "-show_data", "-show_entries", probedEntries];
  const output = await runFfprobe([...selectArgs, ...outputArgs, ...args], name, options);
  const stream = getList(output, "streams")[0];
  if (stream === undefined) {
    throw new FramesError("unreadable", `Cannot read ${name}: it contains no video`);
  }
  return toVideoInfo(output, stream, name);
}

function toVideoInfo(output: unknown, stream: unknown, name: string): VideoInfo {
  const format = getField(output, "format");
  const [width, height] = [getNumber(stream, "width"), getNumber(stream, "height")];
  const pixelFormat = getText(stream, "pix_fmt");
  if (!width || !height || pixelFormat === undefined) {
    throw new FramesError(
      "unreadable",
      `Cannot read ${name}: its size or pixel format is unknown; check it with ffprobe`,
    );
  }
  const rate = parseFraction(getText(stream, "avg_frame_rate"));
  const duration = getNumber(format, "duration");
  const creationTime = getText(getField(format, "tags"), "creation_time");
  const version = getText(getField(output, "program_version"), "version") ?? "";
  return {
    container: getText(format, "format_name") ?? "",
    codec: getText(stream, "codec_name") ?? "unknown",
    width,
    height,
    pixelFormat,
    rate,
    timeBase: getText(stream, "time_base") ?? "1/1000000",
    start: getNumber(format, "start_time"),
    end: videoEnd(stream, format, rate),
    duration,
    isFinite: duration !== undefined || getNumber(format, "size") !== undefined,
    frameBytes: averageFrameBytes(getList(output, "packets"), stream, rate),
    hasReorderedPictures: (getNumber(stream, "has_b_frames") ?? 0) > 0,
    extradata: parseDump(getText(stream, "extradata") ?? ""),
    createdAt: parseCreationTime(
      creationTime ?? getText(getField(stream, "tags"), "creation_time"),
    ),
    isOldFfmpeg: isOldVersion(version),
  };
}

/** Returns where the video ends. Uses the video's own track, because others may be longer. */
function videoEnd(stream: unknown, format: unknown, rate: number | undefined): number | undefined {
  const isOnlyStream = getNumber(format, "nb_streams") === 1;
  // For AVI, ffprobe's duration covers only the data present, so a truncated file would look
  // complete.
  const isCounted = getText(format, "format_name") === "avi";
  const frames = isCounted ? getNumber(stream, "nb_frames") : undefined;
  const countedDuration = frames === undefined || rate === undefined ? undefined : frames / rate;
  const duration = countedDuration ?? getNumber(stream, "duration");
  const start = getNumber(format, "start_time") ?? 0;
  if (duration !== undefined) return (getNumber(stream, "start_time") ?? 0) - start + duration;
  // The DURATION tag of Matroska is the time at which the track ends.
  const taggedEnd = parseDuration(getText(getField(stream, "tags"), "DURATION"));
  const end = taggedEnd ?? (isOnlyStream ? getNumber(format, "duration") : undefined);
  return end === undefined ? undefined : end - start;
}

function averageFrameBytes(
  packets: readonly unknown[],
  stream: unknown,
  rate: number | undefined,
): number | undefined {
  const bits = getNumber(stream, "bit_rate");
  if (bits !== undefined && rate !== undefined) return bits / 8 / rate;
  // The first one is a key frame, many times larger than the others.
  if (/^(?:h264|hevc)$/.test(getText(stream, "codec_name") ?? "")) return undefined;
  const sizes = packets.map((packet) => getNumber(packet, "size") ?? 0);
  return sizes.length === 0 ? undefined : sizes.reduce((sum, size) => sum + size) / sizes.length;
}

/** Parses the hexadecimal dump of ffprobe: an offset, up to 16 bytes, and the same bytes as text. */
function parseDump(text: string): Uint8Array {
  const digits = text.split("\n").map((line) => line.slice(10, 50).replaceAll(" ", ""));
  return Buffer.from(digits.join(""), "hex");
}

/** Parses a duration such as `00:01:02.500000000` to seconds. */
function parseDuration(text: string | undefined): number | undefined {
  const [, hours, minutes, rest] = /^(\d+):(\d+):(\d+(?:\.\d+)?)$/.exec(text ?? "") ?? [];
  return rest === undefined
    ? undefined
    : Number(hours) * 3600 + Number(minutes) * 60 + Number(rest);
}

function parseFraction(text: string | undefined): number | undefined {
  const [numerator, denominator] = (text ?? "").split("/").map(Number);
  const value = (numerator ?? 0) / (denominator ?? 1);
  return Number.isFinite(value) && value > 0 ? value : undefined;
}

/**
 * Parses a creation time. Ignores times before 1971, which containers write when they do not know
 * it.
 */
function parseCreationTime(text: string | undefined): bigint | undefined {
  const time = Date.parse(text ?? "");
  return time > 365 * 86_400_000 ? BigInt(time) * 1_000_000n : undefined;
}

function getField(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return (value as Record<string, unknown>)[name];
}

function getList(value: unknown, name: string): readonly unknown[] {
  const list = getField(value, name);
  return Array.isArray(list) ? list : [];
}

function getText(value: unknown, name: string): string | undefined {
  const text = getField(value, name);
  return typeof text === "string" ? text : undefined;
}

/** Returns a number field, which ffprobe often writes as text. */
function getNumber(value: unknown, name: string): number | undefined {
  const found = getField(value, name);
  const number = typeof found === "string" && found !== "" ? Number(found) : found;
  return typeof number === "number" && Number.isFinite(number) ? number : undefined;
}
