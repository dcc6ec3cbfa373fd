/** Reads videos, images, cameras and URLs as frames, using ffmpeg. */
import { statSync } from "node:fs";
import { toCaptureTime } from "../../common/capture-time.ts";
import { defined } from "../../common/defined.ts";
import { asFramesError, FramesError, usageError } from "../../errors.ts";
import { type Transcoding, chooseTranscoding } from "./transcode.ts";
import { hasImageEnd } from "../image/image-end.ts";
import { containsSecret, redact } from "../../safe-text.ts";
import { type FfmpegResult, type Packets, runFfmpeg } from "./ffmpeg.ts";
import { probeHttpCamera, readHttpCamera } from "./http-camera.ts";
import { checkCompleteness, withFfmpegMessage } from "./completeness.ts";
import { CopiedVideo } from "./copied-video.ts";
import { describeVideo, formatAmount, formatDimensions } from "./describe.ts";
import { imageFileReader, readImage } from "./image-file.ts";
import {
  type InputArguments,
  inputArguments,
  isHttp,
  isMedia,
  type MediaInput,
  parseCameraMode,
  parseInput,
} from "./input.ts";
import type { Capture } from "../live/iterable-source.ts";
import type { OnSourceEvent } from "../source-event.ts";
import type { VideoCodec } from "../../video/nal-units.ts";
import type { LostPacket, Packet } from "./packets.ts";
import { type VideoInfo, probe } from "./probe.ts";
import { SourceClock } from "./source-clock.ts";

export { isMedia };

/** How to read a video, a camera or a URL. */
export interface MediaOptions {
  /** Quality of frames converted to JPEG, from 2 (best, the default) to 31. */
  readonly quality?: number;
  /** Whether frames that are not images become PNG. */
  readonly lossless?: boolean;
  /**
   * Whether H.264 and H.265 are copied as they are. Other video is an error if this is `true`, and
   * converted if it is not given. Default: whether the input is live.
   */
  readonly copies?: boolean;
  /** Size, pixel format and rate requested from a device, such as `640x512:gray16le@30`. */
  readonly camera?: string;
  /** Largest allowed frame, in bytes. */
  readonly maxFrameBytes: number;
  /** Name of the input in messages, if its URL must not be shown at all. Default: the path. */
  readonly shownAs?: string;
  /** Milliseconds without data after which an input counts as stalled. Default: 10,000. */
  readonly stallTimeoutMs?: number;
  /** Name of its source, for events. Default: empty. */
  readonly source?: string;
  readonly onEvent?: OnSourceEvent;
}

/** An opened input that contains frames. */
export interface Media {
  /**
   * Whether frames arrive as they are captured. Such an input has no end and is restarted when it
   * fails.
   */
  readonly isLive: boolean;
  /**
   * Description for people: `1920x1080 h264 at 30 fps, becomes JPEG of quality 2, about 12 MB/s`.
   */
  readonly description: string;
  /** Media type of the frames, if known. */
  readonly type?: string;
  /** Codec of the frames if they are encoded video. */
  readonly codec?: VideoCodec;
  /** The frames with their capture times. Each iteration opens the input again. */
  readonly frames: AsyncIterable<Capture>;
}

/** Containers without timestamps. ffmpeg invents timestamps for them. */
const untimedContainers = new Set([
  "mpjpeg",
  "mjpeg",
  "mjpeg_2000",
  "h264",
  "hevc",
  "rawvideo",
  "image2pipe",
]);

/** Time that ffprobe may take to analyse a stream while data arrives, in milliseconds. */
const analysisTimeoutMs = 5000;

/** Longest pause before a live input is restarted, in seconds. */
const maxRestartDelaySeconds = 30;

const shownInPsNote = "ps shows its URL while ffmpeg runs, also to other users";

/** An input and the settings for reading it. */
interface OpenedInput {
  readonly input: MediaInput;
  readonly name: string;
  readonly ffmpegInput: InputArguments;
  readonly options: MediaOptions;
  readonly stallTimeoutMs: number;
}

/** The video found in an input, and how its frames are converted. */
interface ReadPlan {
  readonly video: VideoInfo;
  readonly isLive: boolean;
  readonly transcoding: Transcoding;
  /** Whether it sends MJPEG over HTTP, which needs no ffmpeg. */
  readonly isHttpCamera?: boolean;
}

/**
 * Opens a video file, an image, a device or a URL.
 *
 * @throws {FramesError} `missing` if the input does not exist or ffmpeg is not installed;
 * `unreadable` or `timeout` if it cannot be read; `usage` if a setting is invalid
 */
export async function openMedia(path: string, options: MediaOptions): Promise<Media> {
  const name = options.shownAs ?? redact(path);
  const { maxFrameBytes, onEvent } = options;
  const input = parseInput(path) ?? { kind: "file", path };
  const mode = options.camera === undefined ? {} : parseCameraMode(options.camera);
  if (options.camera !== undefined && input.kind !== "device") {
    throw usageError(
      `Cannot use --camera ${options.camera} with ${name}: it is not a camera; leave --camera out`,
    );
  }
  if (input.kind !== "url") checkExists(input.path, name);
  const isSecret =
    input.kind === "url" && (options.shownAs !== undefined || containsSecret(input.url));
  if (input.kind === "image") {
    const bytes = statSync(input.path).size;
    const frames = toIterable(() => readImage(input.path, name, maxFrameBytes, onEvent));
    return { isLive: false, description: `one image of ${formatAmount(bytes)}, as it is`, frames };
  }
  const opened: OpenedInput = {
    input,
    name,
    ffmpegInput: inputArguments(input, mode, isSecret),
    options,
    stallTimeoutMs: options.stallTimeoutMs ?? 10_000,
  };
  const plan = await planRead(opened, options.copies);
  // The file contains only images, so ffmpeg is not needed to read it.
  const read = input.kind === "file" ? imageFileReader(plan.video.container) : undefined;
  if (input.kind === "file" && read !== undefined) {
    return {
      isLive: false,
      description: `${formatDimensions(plan.video)} ${plan.video.codec}, copied as it is`,
      type: plan.transcoding.type,
      frames: toIterable(() => read(input.path, name, maxFrameBytes, onEvent)),
    };
  }
  const { type, codec } = plan.transcoding;
  const description = describeVideo(plan.video, plan.transcoding);
  const isShownInPs =
    isSecret && plan.isHttpCamera !== true && opened.ffmpegInput.script === undefined;
  return {
    isLive: plan.isLive,
    description: isShownInPs ? `${description}; ${shownInPsNote}` : description,
    type,
    ...defined({ codec }),
    frames: abortable((signal) =>
      plan.isLive ? liveFrames(opened, plan, signal) : fileFrames(opened, plan, signal),
    ),
  };
}

function checkExists(path: string, name: string): void {
  try {
    if (!statSync(path).isDirectory()) return;
  } catch (error) {
    throw asFramesError(error, "missing", `Cannot read ${name}`);
  }
  throw new FramesError(
    "unreadable",
    `Cannot read ${name} as a video: it is a directory; to send its pictures, write frames send ${name}`,
  );
}

function toIterable(createIterator: () => AsyncIterator<Capture>): AsyncIterable<Capture> {
  return { [Symbol.asyncIterator]: createIterator };
}

/**
 * @param copies whether encoded video is copied
 * @throws {FramesError}
 */
async function planRead(
  opened: OpenedInput,
  copies: boolean | undefined,
  signal?: AbortSignal,
): Promise<ReadPlan> {
  const { input, name, ffmpegInput, options, stallTimeoutMs } = opened;
  const transcode = (video: VideoInfo, isLive: boolean): Transcoding => {
    const whetherCopies = copies === true && !isLive ? "required" : (copies ?? isLive);
    return chooseTranscoding(video, { ...options, isLive, copies: whetherCopies });
  };
  const timeoutMs = stallTimeoutMs + analysisTimeoutMs;
  if (input.kind === "url" && isHttp(input.url)) {
    const { maxFrameBytes } = options;
    const cameraOptions = { maxFrameBytes, stallTimeoutMs, ...defined({ signal }) };
    const video = await probeHttpCamera(input.url, name, timeoutMs, cameraOptions);
    if (video !== undefined) {
      const transcoding = transcode(video, true);
      return { video, isLive: true, transcoding, isHttpCamera: true };
    }
  }
  const video = await probe(ffmpegInput.args, name, {
    timeoutMs,
    script: ffmpegInput.script,
    ...defined({ signal }),
  }).catch((error: unknown) => {
    if (!(error instanceof FramesError) || error.code !== "unreadable" || input.kind !== "file")
      throw error;
    const hint = "to send files that are not videos, name their directory";
    throw new FramesError(error.code, `${error.message}; ${hint}`, { cause: error });
  });
  const isFiniteHttp = input.kind === "url" && isHttp(input.url) && video.isFinite;
  const isLive = input.kind === "device" || (input.kind === "url" && !isFiniteHttp);
  return { video, isLive, transcoding: transcode(video, isLive) };
}

/** Wraps a generator so that `return` also aborts a pending `next`. */
function abortable(
  createIterator: (signal: AbortSignal) => AsyncGenerator<Capture, undefined>,
): AsyncIterable<Capture> {
  return {
    [Symbol.asyncIterator]() {
      const controller = new AbortController();
      const frames = createIterator(controller.signal);
      return {
        next: () => frames.next(),
        return: () => {
          controller.abort();
          return frames.return(undefined);
        },
      };
    },
  };
}

function readPackets(
  { input, ffmpegInput, options, stallTimeoutMs: configuredTimeoutMs }: OpenedInput,
  { video, isLive, transcoding, isHttpCamera = false }: ReadPlan,
  copied: CopiedVideo | undefined,
  signal: AbortSignal,
): Packets {
  if (isHttpCamera && input.kind === "url") {
    const { maxFrameBytes } = options;
    const stallTimeoutMs = configuredTimeoutMs;
    return readHttpCamera(input.url, { maxFrameBytes, stallTimeoutMs, signal });
  }
  // Drop incomplete frames. For these containers ffmpeg also marks complete frames as corrupt: all
  // after a gap, or the last one. A script has its own option.
  const mayLookCorrupt = ["mpegts", "mpjpeg", "concat"].includes(video.container);
  const discardArgs = mayLookCorrupt ? [] : ["-fflags", "+discardcorrupt"];
  // A live input was probed before; probing again would buffer its first frames. Timestamps of
  // files are kept, because the start that ffmpeg assumes depends on the container.
  const timingArgs = isLive ? ["-fpsprobesize", "0"] : ["-copyts"];
  const inputArgs = [...discardArgs, ...timingArgs, ...ffmpegInput.args];
  const ffmpegArgs = [...inputArgs, "-map", "0:V:0", ...transcoding.args];
  // A slow disk is not a failed one, so files get at least 60 s.
  const stallTimeoutMs =
    input.kind === "file" ? Math.max(configuredTimeoutMs, 60_000) : configuredTimeoutMs;
  return dropTruncatedLast(
    runFfmpeg(ffmpegArgs, {
      maxPacketBytes: options.maxFrameBytes,
      stallTimeoutMs,
      signal,
      script: ffmpegInput.script,
      onLog: (sentence) => copied?.onLog(sentence),
    }),
  );
}

/** Returns what completes the frames of one run of ffmpeg, `undefined` if they are pictures. */
function copiedVideo(
  { options }: OpenedInput,
  { video, isLive, transcoding: { codec } }: ReadPlan,
): CopiedVideo | undefined {
  if (codec === undefined) return undefined;
  const { source = "", onEvent } = options;
  const onNotice = (message: string) => onEvent?.({ type: "notice", source, message });
  return new CopiedVideo({ codec, parameterSets: video.extradata, isLive, onNotice });
}

/**
 * Drops the last image if it has no end but an earlier one had: the connection broke or the file
 * was truncated inside it.
 */
async function* dropTruncatedLast(packets: Packets): Packets {
  let hasSeenComplete = false;
  let pending: Packet | undefined;
  try {
    for (;;) {
      const { done, value } = await packets.next();
      if (done && pending === undefined) return value;
      if (done) return { ...value, failure: value.failure ?? "its last frame is incomplete" };
      if (pending !== undefined) yield pending;
      pending = undefined;
      if ("error" in value) {
        yield value;
        continue;
      }
      const isComplete = hasImageEnd(value.bytes, value.bytes.subarray(-64));
      if (isComplete === false && hasSeenComplete) pending = value;
      else yield value;
      hasSeenComplete ||= isComplete === true;
    }
  } finally {
    await stopPackets(packets);
  }
}

/** Ends the ffmpeg process that produces the packets, if it still runs. */
async function stopPackets(packets: Packets): Promise<void> {
  await packets.return({ failure: undefined, message: "", hasErrors: false });
}

/**
 * Yields the frames of packets, and the lost ones. Ends the process that produces them.
 *
 * @param captureTime called once for each packet, in order
 */
async function* packetFrames(
  packets: Packets,
  { transcoding: { extension } }: ReadPlan,
  copied: CopiedVideo | undefined,
  captureTime: (packet: Packet | LostPacket) => bigint,
): AsyncGenerator<Capture, FfmpegResult> {
  try {
    for (;;) {
      const { done, value } = await packets.next();
      if (done) return value;
      const captured = captureTime(value);
      if ("error" in value) {
        yield { error: value.error };
        continue;
      }
      const bytes = copied === undefined ? value.bytes : copied.complete(value);
      if (bytes !== undefined) yield { bytes, extension, captured };
    }
  } finally {
    await stopPackets(packets);
  }
}

/** Yields every frame of a file. Throws at the end if frames are missing. */
async function* fileFrames(
  opened: OpenedInput,
  plan: ReadPlan,
  signal: AbortSignal,
): AsyncGenerator<Capture, undefined> {
  const start = recordingStart(opened, plan.video);
  let firstTime =
    plan.video.start === undefined ? undefined : BigInt(Math.round(plan.video.start * 1e9));
  const copied = copiedVideo(opened, plan);
  const packets = readPackets(opened, plan, copied, signal);
  let count = 0;
  let reached = 0n;
  const result = yield* packetFrames(packets, plan, copied, (packet) => {
    count++;
    firstTime ??= packet.time;
    const time = packet.time === undefined ? reached : packet.time - (firstTime ?? 0n);
    // Pictures may be coded in another order than they were captured.
    if (time + packet.duration > reached) reached = time + packet.duration;
    return toCaptureTime(start + time);
  });
  if (!signal.aborted) checkCompleteness(opened.name, result, plan.video, { count, reached });
  return undefined;
}

/**
 * Returns the capture time of the first frame, in nanoseconds since 1970. Uses the recording's
 * creation time, else the modification time minus the duration, else now.
 */
function recordingStart(
  { input, options }: OpenedInput,
  { createdAt, duration }: VideoInfo,
): bigint {
  if (createdAt !== undefined) return createdAt;
  if (input.kind !== "file") return BigInt(Date.now()) * 1_000_000n;
  const { mtimeNs } = statSync(input.path, { bigint: true });
  const { path } = input;
  const end = toCaptureTime(mtimeNs, () => options.onEvent?.({ type: "time-clamped", path }));
  return end - BigInt(Math.round((duration ?? 0) * 1e6)) * 1000n;
}

/** Yields frames until the caller stops. Restarts an input that fails. */
async function* liveFrames(
  opened: OpenedInput,
  firstPlan: ReadPlan,
  signal: AbortSignal,
): AsyncGenerator<Capture, undefined> {
  const { codec } = firstPlan.transcoding;
  let plan: ReadPlan | undefined = firstPlan;
  let failures = 0;
  for (;;) {
    let failureMessage: string;
    try {
      // After a restart the input may have another format.
      plan ??= await planRead(opened, codec !== undefined, signal);
      if (plan.transcoding.codec !== codec) throw codecError(opened.name, plan.video.codec);
      const copied = copiedVideo(opened, plan);
      const packets = readPackets(opened, plan, copied, signal);
      const captureTime = liveClock(plan, copied !== undefined);
      const result = yield* packetFrames(packets, plan, copied, (packet) => {
        failures = 0;
        return captureTime(packet);
      });
      const { failure, hasErrors, message } = result;
      const problem = withFfmpegMessage(
        failure ?? "it ended",
        failure !== undefined || hasErrors ? message : "",
      );
      failureMessage = `Cannot read ${opened.name}: ${problem}`;
    } catch (error) {
      const isTransient =
        error instanceof FramesError && (error.code === "unreadable" || error.code === "timeout");
      if (!isTransient && !signal.aborted) throw error;
      failureMessage = error instanceof Error ? error.message : String(error);
    }
    if (signal.aborted) return undefined;
    plan = undefined;
    const delaySeconds = Math.min(2 ** failures++, maxRestartDelaySeconds);
    const message = `${failureMessage}; starting it again in ${delaySeconds} s`;
    const error = new FramesError("unreadable", message);
    opened.options.onEvent?.({ type: "retry", error });
    await sleep(delaySeconds * 1000, signal);
    if (signal.aborted) return undefined;
  }
}

/** The server was told the codec, so frames of another one need another session. */
function codecError(name: string, codec: string): FramesError {
  return new FramesError(
    "changed",
    `Cannot read ${name} any further: it sends ${codec} since it was restarted; start frames again`,
  );
}

/** Returns what converts the times of packets into times of this machine's clock. */
function liveClock({ video }: ReadPlan, isCopied: boolean) {
  const clock = untimedContainers.has(video.container)
    ? undefined
    : new SourceClock(video.hasReorderedPictures && isCopied);
  return (packet: Packet | LostPacket): bigint => {
    const now = BigInt(Date.now()) * 1_000_000n;
    if (packet.time === undefined || "error" in packet) return now;
    return clock?.toCaptureTime(packet.time, now) ?? now;
  };
}

/** Resolves after this many milliseconds, or when the signal aborts. */
function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  const onAbort = (): void => resolve();
  signal.addEventListener("abort", onAbort);
  if (signal.aborted) resolve();
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  });
}
