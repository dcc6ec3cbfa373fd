/** Options and result of `plan`, and helpers for its settings per source. */
import { type FramesError, usageError } from "../../errors.ts";
import type { FrameSource, RawShape } from "../../frame.ts";
import { monotonicNow } from "../../common/clock.ts";
import type { OnSourceEvent, SkippedPath } from "../../source/source-event.ts";
import { EncodedVideo } from "../../source/live/encoded-video.ts";
import type {
  Capture,
  CapturedFrame,
  CaptureDefaults,
  CaptureSettings,
} from "../../source/live/iterable-source.ts";
import { parseCameraMode } from "../../source/media/input.ts";
import { LiveSource, type LiveSourceOptions } from "../../source/live/live-source.ts";
import type { MultipartPipe } from "../../source/live/multipart-pipe.ts";
import { PacedSource, RatePacer, ReplayPacer } from "../../source/live/paced-source.ts";
import { parseRawShape } from "../../source/image/raw.ts";
import {
  checkSourceNames,
  checkValues,
  parsePolicy,
  parseConversion,
  parseQuality,
  parseRate,
  type PerSource,
  type QueuePolicy,
  settingFor,
} from "../../source/per-source.ts";
import { Spool } from "../../source/live/spool.ts";
import type { WatchOptions } from "../../source/files/directory-watcher.ts";
import type { VideoCodec } from "../../video/nal-units.ts";
import { containsSecret } from "../../safe-text.ts";
import { sourceFolderPath } from "../../store/name-rules.ts";
import { StreamNameTemplate } from "./stream-name.ts";

/** What to send, and under which names. */
export interface PlanOptions {
  /**
   * Name of the stream. Default: the name of the directory, if only one is sent. May contain
   * strftime fields in UTC, such as `cam3-%Y-%m-%d`; live sources switch when the name changes.
   */
  readonly stream?: string;
  /** Name of the only source, or a name for each of several paths: `NAME=PATH`. */
  readonly source?: string | readonly string[];
  /** Sends only files that match one of these globs. */
  readonly include?: readonly string[];
  /** Leaves out files and folders that match one of these globs, even if `include` matches. */
  readonly exclude?: readonly string[];
  /** Removes each frame here once the server has stored it durably. */
  readonly move?: boolean;
  /** Refuses sources whose frames cannot be listed, because the plan is only to be listed. */
  readonly dryRun?: boolean;
  /** Also sends files that appear in the directories later, until `signal` is aborted. */
  readonly watch?: boolean;
  /** Milliseconds without a change until a file is complete. Default 250, with `move` 2000. */
  readonly settleMs?: number;
  /** With `watch`: leaves out files last changed before this time, in nanoseconds since 1970. */
  readonly since?: bigint;
  /** What a full queue does: `block` or `latest[:N]`. `SOURCE=VALUE` applies to one source only. */
  readonly policy?: PerSource;
  /**
   * What frames without a header are: their shape, `WIDTHxHEIGHT:FORMAT`, or `h264` or `h265`, each
   * an access unit in Annex B; may be per source, as `policy`.
   */
  readonly raw?: PerSource;
  /** Reads a pipe whose frames have headers, as `frames receive --multipart` writes them. */
  readonly multipart?: boolean;
  /** Maximum of frames sent a second; may be per source, as `policy`. */
  readonly fps?: PerSource;
  /** Sends frames at the intervals at which they were captured. */
  readonly realtime?: boolean;
  /** Directory that stores live frames while there is no connection; survives the process. */
  readonly spool?: string;
  /** Maximum size of the spool in bytes. Default 10 GiB. */
  readonly spoolSize?: number;
  /** Requested camera mode, such as `640x512:gray16le@30`; may be per source, as `policy`. */
  readonly camera?: PerSource;
  /** JPEG quality of converted video: 2, the best, to 31; may be per source, as `policy`. */
  readonly quality?: PerSource;
  /** Converts frames of videos and cameras that are not images to PNG instead of JPEG. */
  readonly lossless?: boolean;
  /**
   * Converts H.264 and H.265 of cameras to pictures: `jpeg`, or `png` without loss. Without it they
   * are copied; `quality`, `lossless` and `fps` ask for pictures too. May be per source, as `policy`.
   */
  readonly convert?: PerSource;
  /** Copies H.264 and H.265 of video files as they are, instead of converting them to JPEG. */
  readonly copyVideo?: boolean;
  /** Makes pictures of all encoded video, because the server knows nothing else. */
  readonly onlyPictures?: boolean;
  /** Called for each event. */
  readonly onEvent?: OnSourceEvent;
  /** Largest frame read from a pipe, video, camera or URL, in bytes. Default 64 MiB. */
  readonly maxFrame?: number;
}

/** Frames that a program produces. */
export type CapturedFrames = AsyncIterable<CapturedFrame> | Iterable<CapturedFrame>;

/** What `send` accepts: paths, the frames of one source, or the frames of several by name. */
export type Sendable =
  string | readonly string[] | CapturedFrames | Readonly<Record<string, CapturedFrames>>;

/** What a session will send, found before it connects. */
export interface Plan {
  readonly stream: string;
  /** Returns the stream name at a time in nanoseconds since 1970; undefined if it never changes. */
  readonly streamNameAt?: (time: bigint) => string;
  readonly sources: readonly FrameSource[];
  readonly skipped: readonly SkippedPath[];
  /** Folders and parts of a recording that cannot be read, so that frames in them are missing. */
  readonly unreadable: readonly SkippedPath[];
  /** Files that `include` and `exclude` left out. */
  readonly filteredOut: number;
  /** Stores frames of live sources. Its recorded session continues, also in a new process. */
  readonly spool?: Spool;
  /** Session to use, so that the same recording is sent in the same one. Default: a new one. */
  readonly session?: string;
  /** Describes the frames of videos, cameras, URLs and recordings, for the user. */
  readonly media?: readonly { readonly source: string; readonly description: string }[];
  /** Pipe that adds sources while it is read. */
  readonly pipe?: MultipartPipe;
  /** Directories to watch for new files. */
  readonly watch?: WatchOptions;
}

export function createLiveSource(
  name: string,
  frames: AsyncIterable<Capture> | Iterable<Capture>,
  spool: Spool | undefined,
  options: Omit<LiveSourceOptions, "spool">,
): LiveSource {
  if (spool === undefined) return new LiveSource(name, frames, options);
  const settings = { ...options.settings, started: spool.session.started };
  return new LiveSource(name, frames, { ...options, settings, spool: spool.sourceSpool(name) });
}

/** Parsers of the settings that may be given per source. */
const parsers = {
  policy: parsePolicy,
  raw: parseRaw,
  fps: parseRate,
  camera: parseCameraMode,
  quality: parseQuality,
  convert: parseConversion,
} as const;

/** @throws {FramesError} `usage` if a setting cannot be parsed */
export function checkSettingValues(options: PlanOptions): void {
  for (const [setting, parse] of Object.entries(parsers)) {
    checkValues(options[setting as keyof typeof parsers], parse);
  }
}

/** @throws {FramesError} `usage` if a setting names a source that does not exist */
export function checkSettingSources(options: PlanOptions, names: readonly string[]): void {
  for (const setting of Object.keys(parsers) as (keyof typeof parsers)[]) {
    checkSourceNames(options[setting], names, `--${setting}`);
  }
}

/** Expands the stream name for the start of the session, and for later times if it has fields. */
export function resolveStream(
  text: string,
  { started }: CaptureDefaults,
): Pick<Plan, "stream" | "streamNameAt"> {
  const name = new StreamNameTemplate(text);
  const stream = name.at(BigInt(started) * 1_000_000n);
  return name.isTimeDependent ? { stream, streamNameAt: (time) => name.at(time) } : { stream };
}

export const emptyPlan = { skipped: [], unreadable: [], filteredOut: 0 };

export function queuePolicyFor<Default>(
  source: string,
  { policy }: PlanOptions,
  fallback: Default,
): QueuePolicy | Default {
  const text = settingFor(policy, source);
  return text === undefined ? fallback : parsePolicy(text);
}

/** What the frames of a pipe or a program are, if they have no header. */
export type RawFrames = RawShape | VideoCodec;

/** @throws {FramesError} `usage` */
function parseRaw(text: string): RawFrames {
  if (text === "h264" || text === "h265") return text;
  if (text.includes(":")) return parseRawShape(text);
  throw usageError(
    `Cannot read --raw: expected WIDTHxHEIGHT:FORMAT such as 640x512:gray16le, h264 or h265, current value is ${JSON.stringify(text)}`,
  );
}

export function rawFramesFor(source: string, { raw }: PlanOptions): RawFrames | undefined {
  const text = settingFor(raw, source);
  return text === undefined ? undefined : parseRaw(text);
}

/** Returns the settings of a source of encoded video, or of other frames if `codec` is not given. */
export function captureSettings(
  source: string,
  codec: VideoCodec | undefined,
  { onEvent }: PlanOptions,
  naming: CaptureDefaults,
): CaptureSettings {
  if (codec === undefined) return naming;
  const onNotice = (message: string) => onEvent?.({ type: "notice", source, message });
  return { ...naming, video: new EncodedVideo(codec, onNotice) };
}

/**
 * Calls `build`, and closes the spool if it throws, because only one process can open a spool.
 *
 * @throws what `build` throws
 */
export function withSpool<T>(spool: Spool | undefined, build: () => T): T {
  try {
    return build();
  } catch (error) {
    spool?.close();
    throw error;
  }
}

/**
 * Opens the spool, if the options name one.
 *
 * @throws {FramesError} `usage` if there is no live source, or another process has it; `missing`
 */
export function openSpool(
  stream: string,
  liveCount: number,
  { spool, spoolSize = defaultSpoolBytes, onEvent }: PlanOptions,
  { started }: CaptureDefaults,
): Spool | undefined {
  if (spool === undefined) return undefined;
  if (liveCount === 0) {
    throw usageError(
      "Cannot use --spool with directories: their files stay until they are sent; leave it out",
    );
  }
  const session = { id: crypto.randomUUID().replaceAll("-", ""), started };
  const onError = (error: FramesError) => onEvent?.({ type: "retry", error });
  return new Spool({ directory: spool, stream, session, maxBytes: spoolSize, onError });
}

/**
 * Returns a function that limits the rate of a source according to `fps` or `realtime`.
 *
 * @throws {FramesError} `usage`, from that function, if a source has both
 */
export function createPacer({
  fps,
  realtime = false,
}: PlanOptions): (source: FrameSource) => FrameSource {
  const replay = new ReplayPacer();
  return (source) => {
    const rate = settingFor(fps, source.name);
    if (rate !== undefined && realtime) {
      throw usageError("Cannot use both --realtime and --fps: leave one out");
    }
    if (rate !== undefined)
      return new PacedSource(source, new RatePacer(parseRate(rate)), monotonicNow);
    return realtime ? new PacedSource(source, replay, monotonicNow) : source;
  };
}

const defaultSpoolBytes = 10 * 2 ** 30;

/** @throws {FramesError} `usage` for names from the command line that every server refuses */
export function checkNames(stream: string, sources: readonly string[]): void {
  if ([stream, ...sources].some(containsSecret)) {
    const hint = "names are shown; choose another with --stream or --source";
    throw usageError(`Cannot send under a name that holds a password or key: ${hint}`);
  }
  try {
    sourceFolderPath(stream, stream, false);
    for (const source of sources) sourceFolderPath(stream, source, false);
  } catch (error) {
    throw usageError(
      `Cannot send under this name: ${(error as Error).message}; choose another with --stream or --source`,
    );
  }
}
