/** What ffprobe finds in a file, behind a URL or in a device. */
import { FramesError } from "../errors.ts";
import { runFfprobe } from "./ffmpeg.ts";

/** The video of an input. */
export interface Probe {
  /** ffmpeg's names of the container, with commas between. */
  readonly container: string;
  readonly codec: string;
  readonly width: number;
  readonly height: number;
  /** ffmpeg's name. */
  readonly pixelFormat: string;
  /** Frames a second on average, where that is known. */
  readonly rate: number | undefined;
  /** The unit of its times in seconds, a fraction as ffmpeg writes it. */
  readonly timeBase: string;
  /** Where the times of the input begin, in seconds: its other tracks may begin before the video. */
  readonly start: number | undefined;
  /** Seconds from the start of the input to where its video ends, where the container says so. */
  readonly end: number | undefined;
  /** Seconds that the input lasts. */
  readonly duration: number | undefined;
  /** Whether the input says how long it is, in time or in bytes: it has an end. */
  readonly isFinite: boolean;
  /** Bytes of a frame as it lies in the container. */
  readonly frameSize: number | undefined;
  /** When its recording began, in nanoseconds since 1970, if it says so. */
  readonly created: bigint | undefined;
  /** Whether ffmpeg is so old that it has another name for not inventing frames. */
  readonly isOld: boolean;
}

const wanted = [
  "packet=size",
  "stream=codec_name,width,height,pix_fmt,avg_frame_rate,time_base,start_time,duration,bit_rate,nb_frames",
  "stream_tags=DURATION,creation_time",
  "format=format_name,nb_streams,start_time,duration,size",
  "format_tags=creation_time",
].join(":");

/**
 * @param words that name the input
 * @param name of the input, for people
 * @throws {FramesError} `missing` without ffprobe, `unreadable`, `timeout`
 */
export async function probe(
  words: readonly string[],
  name: string,
  options: { readonly deadline: number; readonly signal?: AbortSignal },
): Promise<Probe> {
  // `V` is video that is no cover of an album. Two frames show what a frame weighs.
  const looking = ["-select_streams", "V:0", "-read_intervals", "%+#2", "-show_packets"];
  const shown = ["-show_program_version", "-show_entries", wanted];
  const found = await runFfprobe([...looking, ...shown, ...words], name, options);
  const stream = listIn(found, "streams")[0];
  if (stream === undefined) {
    throw new FramesError("unreadable", `Cannot read ${name}: there is no video in it`);
  }
  return described(found, stream, name);
}

function described(found: unknown, stream: unknown, name: string): Probe {
  const format = fieldIn(found, "format");
  const [width, height] = [numberIn(stream, "width"), numberIn(stream, "height")];
  const pixelFormat = textIn(stream, "pix_fmt");
  if (!width || !height || pixelFormat === undefined) {
    throw new FramesError(
      "unreadable",
      `Cannot read ${name}: nothing tells the size or the format of its pictures`,
    );
  }
  const rate = fraction(textIn(stream, "avg_frame_rate"));
  const duration = numberIn(format, "duration");
  const created = textIn(fieldIn(format, "tags"), "creation_time");
  const version = textIn(fieldIn(found, "program_version"), "version") ?? "";
  const [, major, minor] = /^n?(\d+)\.(\d+)/.exec(version) ?? [];
  return {
    container: textIn(format, "format_name") ?? "",
    codec: textIn(stream, "codec_name") ?? "unknown",
    width,
    height,
    pixelFormat,
    rate,
    timeBase: textIn(stream, "time_base") ?? "1/1000000",
    start: numberIn(format, "start_time"),
    end: endOf(stream, format, rate),
    duration,
    isFinite: duration !== undefined || numberIn(format, "size") !== undefined,
    frameSize: frameSizeOf(listIn(found, "packets"), stream, rate),
    created: timeOf(created ?? textIn(fieldIn(stream, "tags"), "creation_time")),
    isOld: major !== undefined && Number(major) * 100 + Number(minor) < 501,
  };
}

/** Where the video ends: what its own track says of it, as other tracks may go on for longer. */
function endOf(stream: unknown, format: unknown, rate: number | undefined): number | undefined {
  const isAlone = numberIn(format, "nb_streams") === 1;
  // What ffprobe gives as the duration of an AVI is what is there of it, not what was meant to be.
  const isCounted = textIn(format, "format_name") === "avi";
  const frames = isCounted ? numberIn(stream, "nb_frames") : undefined;
  const counted = frames === undefined || rate === undefined ? undefined : frames / rate;
  const lasts = counted ?? numberIn(stream, "duration");
  const start = numberIn(format, "start_time") ?? 0;
  if (lasts !== undefined) return (numberIn(stream, "start_time") ?? 0) - start + lasts;
  // Matroska calls the time at which a track ends its duration.
  const tagged = seconds(textIn(fieldIn(stream, "tags"), "DURATION"));
  const ends = tagged ?? (isAlone ? numberIn(format, "duration") : undefined);
  return ends === undefined ? undefined : ends - start;
}

function frameSizeOf(
  packets: readonly unknown[],
  stream: unknown,
  rate: number | undefined,
): number | undefined {
  const bits = numberIn(stream, "bit_rate");
  if (bits !== undefined && rate !== undefined) return bits / 8 / rate;
  const sizes = packets.map((packet) => numberIn(packet, "size") ?? 0);
  return sizes.length === 0 ? undefined : sizes.reduce((sum, size) => sum + size) / sizes.length;
}

/** `00:01:02.500000000` in seconds. */
function seconds(text: string | undefined): number | undefined {
  const [, hours, minutes, rest] = /^(\d+):(\d+):(\d+(?:\.\d+)?)$/.exec(text ?? "") ?? [];
  return rest === undefined
    ? undefined
    : Number(hours) * 3600 + Number(minutes) * 60 + Number(rest);
}

function fraction(text: string | undefined): number | undefined {
  const [over, under] = (text ?? "").split("/").map(Number);
  const value = (over ?? 0) / (under ?? 1);
  return Number.isFinite(value) && value > 0 ? value : undefined;
}

/** Containers that know nothing of it say the start of their own time, or of everybody's. */
function timeOf(text: string | undefined): bigint | undefined {
  const time = Date.parse(text ?? "");
  return time > 365 * 86_400_000 ? BigInt(time) * 1_000_000n : undefined;
}

function fieldIn(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return (value as Record<string, unknown>)[name];
}

function listIn(value: unknown, name: string): readonly unknown[] {
  const list = fieldIn(value, name);
  return Array.isArray(list) ? list : [];
}

function textIn(value: unknown, name: string): string | undefined {
  const text = fieldIn(value, name);
  return typeof text === "string" ? text : undefined;
}

/** A number, which ffprobe often writes as text. */
function numberIn(value: unknown, name: string): number | undefined {
  const found = fieldIn(value, name);
  const number = typeof found === "string" && found !== "" ? Number(found) : found;
  return typeof number === "number" && Number.isFinite(number) ? number : undefined;
}
