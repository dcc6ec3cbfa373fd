/** Videos, images, cameras and URLs as frames, by way of ffmpeg. */
import { statSync } from "node:fs";
import { asFramesError, FramesError } from "../errors.ts";
import { type Conversion, convert } from "./conversion.ts";
import { isWholeImage } from "./ending.ts";
import { type Ended, runFfmpeg, shownInput } from "./ffmpeg.ts";
import { imagesIn, readImage } from "./image-file.ts";
import { type Input, inputWords, isMedia, parseCamera, understand } from "./input.ts";
import type { CapturedFrame } from "./iterable.ts";
import type { Packet } from "./packets.ts";
import { type Probe, probe } from "./probe.ts";
import { SourceClock } from "./source-clock.ts";

export { isMedia };

/** How a video, a camera or a URL is to be read. */
export interface MediaOptions {
  /** Quality of JPEG, where frames are made JPEG: from 2, the default and the best, to 31. */
  readonly quality?: number;
  /** Frames that are not images become PNG. */
  readonly lossless?: boolean;
  /** What is asked of a device: size, pixel format and rate, such as `640x512:gray16le@30`. */
  readonly camera?: string;
  /** Bytes that a frame may have. */
  readonly largest: number;
  /** Milliseconds without a byte after which an input has stalled; default 10,000. */
  readonly stallAfter?: number;
  /** A live input failed, and is started again after a pause. */
  readonly onTrouble?: (error: FramesError) => void;
}

/** An input that was found to have frames. */
export interface Media {
  /** Whether its frames come as they are captured: it has no end, and is started again when it fails. */
  readonly isLive: boolean;
  /** For people: `1920x1080 h264 at 30 fps, becomes JPEG of quality 2, about 12 MB/s`. */
  readonly description: string;
  /** Media type of the frames, where one is known. */
  readonly type?: string;
  /** The frames with their capture times. Each iteration reads the input anew. */
  readonly frames: AsyncIterable<CapturedFrame>;
}

/** Containers that carry no times: what ffmpeg says as one is made up. */
const timeless = new Set([
  "mpjpeg",
  "mjpeg",
  "mjpeg_2000",
  "h264",
  "hevc",
  "rawvideo",
  "image2pipe",
]);

/** What ffprobe may take to make sense of a stream while bytes come, in milliseconds. */
const analysis = 5000;

/** Longest pause before a live input is started again, in seconds. */
const longestPause = 30;

/** Reads one input in one way. */
interface Reading {
  readonly input: Input;
  readonly name: string;
  readonly words: readonly string[];
  readonly options: MediaOptions;
  readonly stallAfter: number;
}

/** What was found in an input, and what its frames become. */
interface Plan {
  readonly found: Probe;
  readonly isLive: boolean;
  readonly conversion: Conversion;
}

/**
 * Opens a video file, an image, a device or a URL.
 *
 * @throws {FramesError} `missing` if it is not there or ffmpeg is not installed; `unreadable` or `timeout`
 * if nothing can be made of it; `usage` if what is asked for is nothing
 */
export async function openMedia(path: string, options: MediaOptions): Promise<Media> {
  const name = shownInput(path);
  const input = understand(path) ?? { kind: "file", path };
  const camera = options.camera === undefined ? {} : parseCamera(options.camera);
  if (options.camera !== undefined && input.kind !== "device") {
    throw new FramesError("usage", `Cannot ask ${name} for ${options.camera}: it is no camera`);
  }
  if (input.kind !== "url") checkPresence(input.path, name);
  if (input.kind === "image") {
    const bytes = statSync(input.path).size;
    const frames = again(() => readImage(input.path, name, options.largest));
    return { isLive: false, description: `one image of ${amount(bytes)}, as it is`, frames };
  }
  const reading: Reading = {
    input,
    name,
    words: inputWords(input, camera),
    options,
    stallAfter: options.stallAfter ?? 10_000,
  };
  const plan = await look(reading);
  // Only images: there is nothing that ffmpeg would have to take apart.
  const read = input.kind === "file" ? imagesIn(plan.found.container) : undefined;
  if (input.kind === "file" && read !== undefined) {
    return {
      isLive: false,
      description: `${size(plan.found)} ${plan.found.codec}, copied as it is`,
      type: plan.conversion.type,
      frames: again(() => read(input.path, name, options.largest)),
    };
  }
  return {
    isLive: plan.isLive,
    description: describe(plan),
    type: plan.conversion.type,
    frames: stoppable((signal) =>
      plan.isLive ? liveFrames(reading, plan, signal) : filedFrames(reading, plan, signal),
    ),
  };
}

function checkPresence(path: string, name: string): void {
  try {
    if (!statSync(path).isDirectory()) return;
  } catch (error) {
    throw asFramesError(error, "missing", `Cannot read ${name}`);
  }
  throw new FramesError("unreadable", `Cannot read ${name} as a video: it is a directory`);
}

function again(begin: () => AsyncIterator<CapturedFrame>): AsyncIterable<CapturedFrame> {
  return { [Symbol.asyncIterator]: begin };
}

/** @throws {FramesError} */
async function look(reading: Reading, signal?: AbortSignal): Promise<Plan> {
  const { input, name, words, options, stallAfter } = reading;
  const deadline = stallAfter + analysis;
  const found = await probe(words, name, { deadline, ...(signal === undefined ? {} : { signal }) });
  const isOver = /^https?:/i.test(input.kind === "url" ? input.url : "") && found.isFinite;
  const isLive = input.kind === "device" || (input.kind === "url" && !isOver);
  return { found, isLive, conversion: convert(found, { ...options, isLive }) };
}

function describe({ found, conversion }: Plan): string {
  const { codec, rate } = found;
  const { label, frameSize } = conversion;
  const pace = rate === undefined ? "" : ` at ${Number(rate.toFixed(2))} fps`;
  const parts = [`${size(found)} ${codec}${pace}`, label];
  if (frameSize !== undefined) {
    parts.push(
      rate === undefined
        ? `about ${amount(frameSize)} a frame`
        : `about ${amount(frameSize * rate)}/s`,
    );
  }
  return parts.join(", ");
}

function size({ width, height }: Probe): string {
  return `${width}x${height}`;
}

/** `12 MB`, `0.3 MB`, `40 kB`. */
function amount(bytes: number): string {
  if (bytes < 100_000) return `${Math.ceil(bytes / 1000)} kB`;
  const megabytes = bytes / 1e6;
  return `${megabytes < 10 ? Number(megabytes.toFixed(1)) : Math.round(megabytes)} MB`;
}

/** Frames that can be given up at any time, also while the next is waited for. */
function stoppable(
  begin: (signal: AbortSignal) => AsyncGenerator<CapturedFrame, undefined>,
): AsyncIterable<CapturedFrame> {
  return {
    [Symbol.asyncIterator]() {
      const stop = new AbortController();
      const frames = begin(stop.signal);
      return {
        next: () => frames.next(),
        return: () => {
          stop.abort();
          return frames.return(undefined);
        },
      };
    },
  };
}

function run(
  { input, words, options, stallAfter: given }: Reading,
  { found, isLive, conversion }: Plan,
  signal: AbortSignal,
): AsyncGenerator<Packet, Ended> {
  // Half a frame is none. What is called damaged in these may be whole: all that follows a gap, or the last.
  const isLax = found.container === "mpegts" || found.container === "mpjpeg";
  const whole = isLax ? [] : ["-fflags", "+discardcorrupt"];
  // What a live input is like is known; to find out once more would heap up its first frames. The times
  // of others are left as they are: what ffmpeg takes for their start depends on the container.
  const known = isLive ? ["-fpsprobesize", "0"] : ["-copyts"];
  const told = [...whole, ...known, ...words, "-map", "0:V:0", ...conversion.words];
  // A disk that is slow is not taken for one that has failed.
  const stallAfter = input.kind === "file" ? Math.max(given, 60_000) : given;
  return withoutTorn(runFfmpeg(told, { largest: options.largest, stallAfter, signal }));
}

/**
 * Keeps back a last image that has no end, if others had one: the link broke or the file was cut off in
 * the midst of it.
 */
async function* withoutTorn(packets: AsyncGenerator<Packet, Ended>): AsyncGenerator<Packet, Ended> {
  let wholeCame = false;
  let unsure: Packet | undefined;
  try {
    for (;;) {
      const { done, value } = await packets.next();
      if (done && unsure === undefined) return value;
      if (done) return { ...value, failure: value.failure ?? "its last frame is cut off" };
      if (unsure !== undefined) yield unsure;
      unsure = undefined;
      const isWhole = isWholeImage(value.bytes, value.bytes.subarray(-64));
      if (isWhole === false && wholeCame) unsure = value;
      else yield value;
      wholeCame ||= isWhole === true;
    }
  } finally {
    await giveUp(packets);
  }
}

/** Ends the program that packets come from, if it has not ended. */
async function giveUp(packets: AsyncGenerator<Packet, Ended>): Promise<void> {
  await packets.return({ failure: undefined, words: "", sawErrors: false });
}

/** Every frame that a file has; then why these are not all, if they are not. */
async function* filedFrames(
  reading: Reading,
  plan: Plan,
  signal: AbortSignal,
): AsyncGenerator<CapturedFrame, undefined> {
  const start = recordingStart(reading.input, plan.found);
  const { ending } = plan.conversion;
  let origin =
    plan.found.start === undefined ? undefined : BigInt(Math.round(plan.found.start * 1e9));
  const packets = run(reading, plan, signal);
  let count = 0;
  let reached = 0n;
  try {
    for (;;) {
      const { done, value } = await packets.next();
      if (signal.aborted) return undefined;
      if (done) {
        checkEnd(reading.name, value, plan.found, { count, reached });
        return undefined;
      }
      origin ??= value.time;
      const time = value.time === undefined ? reached : value.time - (origin ?? 0n);
      count++;
      reached = time + value.duration;
      yield { bytes: value.bytes, ending, captured: start + time };
    }
  } finally {
    await giveUp(packets);
  }
}

/**
 * ffmpeg is content with less than there should be: a file that was cut off only ends early.
 *
 * @throws {FramesError} `unreadable`
 */
function checkEnd(
  name: string,
  { failure, words, sawErrors }: Ended,
  { end, rate }: Probe,
  { count, reached }: { readonly count: number; readonly reached: bigint },
): void {
  const some = count === 1 ? "1 frame" : `${count} frames`;
  let what = failure;
  if (what === undefined && count === 0) what = "no frame came of it";
  if (what === undefined && end !== undefined) {
    const got = Number(reached) / 1e9;
    // What ffmpeg calls an error need not be one; without any, containers are not exact about their ends.
    const lenience = sawErrors ? 1.5 / (rate ?? 10) : 0.5;
    if (got < end - lenience) {
      what = `it ended after ${some}, at ${got.toFixed(2)} of ${end.toFixed(2)} s`;
    }
  } else if (what !== undefined && count > 0) {
    what = `${what} after ${some}`;
  }
  if (what === undefined) return;
  throw new FramesError("unreadable", `Cannot read ${name} to its end: ${withWords(what, words)}`);
}

function withWords(what: string, words: string): string {
  return words === "" ? what : `${what}; ffmpeg said: ${words}`;
}

/**
 * When the first frame was captured, in nanoseconds since 1970: when the recording says it began, or else
 * so long before the file was last written to as the recording lasts, or else now.
 */
function recordingStart(input: Input, { created, duration }: Probe): bigint {
  if (created !== undefined) return created;
  if (input.kind !== "file") return BigInt(Date.now()) * 1_000_000n;
  const { mtimeNs } = statSync(input.path, { bigint: true });
  return mtimeNs - BigInt(Math.round((duration ?? 0) * 1e6)) * 1000n;
}

/** Frames for as long as somebody wants them: an input that fails is started again. */
async function* liveFrames(
  reading: Reading,
  first: Plan,
  signal: AbortSignal,
): AsyncGenerator<CapturedFrame, undefined> {
  let plan: Plan | undefined = first;
  let failures = 0;
  for (;;) {
    let trouble: string;
    try {
      // What comes after a pause may be something else.
      plan ??= await look(reading, signal);
      const packets = run(reading, plan, signal);
      const ended = yield* datedFrames(packets, plan, () => (failures = 0));
      const { failure, sawErrors, words } = ended;
      const what = withWords(
        failure ?? "it ended",
        failure !== undefined || sawErrors ? words : "",
      );
      trouble = `Cannot read ${reading.name}: ${what}`;
    } catch (error) {
      const isPassing =
        error instanceof FramesError && (error.code === "unreadable" || error.code === "timeout");
      if (!isPassing && !signal.aborted) throw error;
      trouble = error instanceof Error ? error.message : String(error);
    }
    if (signal.aborted) return undefined;
    plan = undefined;
    const pause = Math.min(2 ** failures++, longestPause);
    reading.options.onTrouble?.(
      new FramesError("unreadable", `${trouble}; starting it again in ${pause} s`),
    );
    await sleep(pause * 1000, signal);
    if (signal.aborted) return undefined;
  }
}

/** Live frames by the clock of this machine. */
async function* datedFrames(
  packets: AsyncGenerator<Packet, Ended>,
  { found, conversion }: Plan,
  onFrame: () => void,
): AsyncGenerator<CapturedFrame, Ended> {
  const clock = timeless.has(found.container) ? undefined : new SourceClock();
  try {
    for (;;) {
      const { done, value } = await packets.next();
      if (done) return value;
      onFrame();
      const now = BigInt(Date.now()) * 1_000_000n;
      const captured = value.time === undefined ? now : (clock?.date(value.time, now) ?? now);
      yield { bytes: value.bytes, ending: conversion.ending, captured };
    }
  } finally {
    await giveUp(packets);
  }
}

/** Resolves after so many milliseconds, or when the signal comes. */
function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  const stop = (): void => resolve();
  signal.addEventListener("abort", stop);
  if (signal.aborted) resolve();
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  });
}
