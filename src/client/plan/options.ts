/** What a plan is, and what every way of making one needs. */
import { FramesError } from "../../errors.ts";
import type { FrameSource, RawShape } from "../../frame.ts";
import { monotonicNow } from "../../common/clock.ts";
import type { SkippedPath } from "../../source/files/directory-source.ts";
import type { CapturedFrame, CaptureDefaults } from "../../source/live/iterable-source.ts";
import { parseCameraMode } from "../../source/media/input.ts";
import { LiveSource, type QueuePolicy } from "../../source/live/live-source.ts";
import { PacedSource, RatePacer, ReplayPacer } from "../../source/live/paced-source.ts";
import { parseRawShape } from "../../source/image/raw.ts";
import {
  checkSourceNames,
  checkValues,
  parsePolicy,
  parseQuality,
  parseRate,
  type PerSource,
  settingFor,
} from "../../source/per-source.ts";
import { Spool } from "../../source/live/spool.ts";
import type { RootDirectory } from "../../source/files/walk.ts";
import type { WatchOptions } from "../../source/files/directory-watcher.ts";
import { sourceFolderPath } from "../../store/name-rules.ts";
import { StreamNameTemplate } from "./stream-name.ts";

/** What is to be sent, and as what. */
export interface PlanOptions {
  /**
   * Name under which the frames are kept. Default: that of the one directory sent. It may hold fields of
   * strftime, such as `cam3-%Y-%m-%d`, in UTC: what is live goes over when the name changes.
   */
  readonly stream?: string;
  /** Name of the one source, or what each of several sources is: `NAME=PATH`. */
  readonly source?: string | readonly string[];
  /** Only what matches one of these globs. */
  readonly include?: readonly string[];
  /** Nothing that matches one of these globs. */
  readonly exclude?: readonly string[];
  /** Remove each frame once the server has it for good. */
  readonly move?: boolean;
  /** Send what arrives in the directories too, until the signal is aborted. */
  readonly watch?: boolean;
  /** Milliseconds for which a file stands still before it is complete. Default 250, with `move` 2000. */
  readonly settleMs?: number;
  /** Of watched directories, leave out what changed last before this time, in nanoseconds since 1970. */
  readonly since?: bigint;
  /** What a full queue does, `block` or `latest[:N]`, of all sources or, as `SOURCE=VALUE`, of one. */
  readonly policy?: PerSource;
  /** Shape of raw frames on a pipe, `WIDTHxHEIGHT:FORMAT`, likewise. */
  readonly raw?: PerSource;
  /** Frames a second that are sent at most, likewise. */
  readonly fps?: PerSource;
  /** Send frames as far apart as they were captured. */
  readonly realtime?: boolean;
  /** Directory that keeps frames of live sources while there is no server, from one process to the next. */
  readonly spool?: string;
  /** Bytes that it may hold. Default 10 GiB. */
  readonly spoolSize?: number;
  /** What is asked of a camera, such as `640x512:gray16le@30`, likewise. */
  readonly camera?: PerSource;
  /** Quality of JPEG where a video becomes that, from 2, the best, to 31, likewise. */
  readonly quality?: PerSource;
  /** Frames of videos and cameras that are no images become PNG instead of JPEG. */
  readonly lossless?: boolean;
  /** Is told when a camera or URL fails that is tried again. */
  readonly onRetry?: (error: FramesError) => void;
  /** Bytes of the largest frame that is taken from a pipe. Default 64 MiB, as a server takes. */
  readonly maxFrame?: number;
}

/** Frames that a program makes. */
export type CapturedFrames = AsyncIterable<CapturedFrame> | Iterable<CapturedFrame>;

/** What can be sent: directories and pipes, or frames that a program makes, of one source or of several by name. */
export type Sendable =
  string | readonly string[] | CapturedFrames | Readonly<Record<string, CapturedFrames>>;

/** A delivery that is ready to begin: what would be sent, before anybody is connected to. */
export interface Plan {
  readonly stream: string;
  /** What it is called at a time, in nanoseconds since 1970, if that changes. */
  readonly streamNameAt?: (time: bigint) => string;
  readonly sources: readonly FrameSource[];
  readonly skipped: readonly SkippedPath[];
  /** Folders that cannot be read. */
  readonly unreadable: readonly SkippedPath[];
  /** Files that patterns left out. */
  readonly filteredOut: number;
  /** Keeps frames of live sources, and the session. */
  readonly spool?: Spool;
  /** What the frames of videos, cameras and URLs are, for people. */
  readonly media?: readonly { readonly source: string; readonly description: string }[];
  /** Directories to be watched for more. */
  readonly watch?: WatchOptions & { readonly roots: readonly RootDirectory[] };
}

export function createLiveSource(
  name: string,
  frames: CapturedFrames,
  policy: QueuePolicy,
  naming: CaptureDefaults,
  spool: Spool | undefined,
  raw?: RawShape,
): LiveSource {
  const started = spool?.session.started ?? naming.started;
  return new LiveSource(
    name,
    frames,
    policy,
    { ...naming, started },
    {
      ...(raw === undefined ? {} : { raw }),
      ...(spool === undefined ? {} : { spool: spool.sourceSpool(name) }),
    },
  );
}

/** What each setting has to be, whatever is sent. */
const parsers = {
  policy: parsePolicy,
  raw: parseRawShape,
  fps: parseRate,
  camera: parseCameraMode,
  quality: parseQuality,
} as const;

/** @throws {FramesError} `usage` if a setting cannot be read */
export function checkSettingValues(options: PlanOptions): void {
  for (const [setting, parse] of Object.entries(parsers)) {
    checkValues(options[setting as keyof typeof parsers], parse);
  }
}

/** @throws {FramesError} `usage` if a setting is for a source that there is not */
export function checkSettingSources(options: PlanOptions, names: readonly string[]): void {
  for (const setting of Object.keys(parsers) as (keyof typeof parsers)[]) {
    checkSourceNames(options[setting], names, `--${setting}`);
  }
}

/** What the stream is called when it begins, and later. */
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

/**
 * Plans with a spool, which is closed again if nothing comes of that: it is one process's at a time.
 *
 * @throws what `make` throws
 */
export function withSpool<T>(spool: Spool | undefined, build: () => T): T {
  try {
    return build();
  } catch (error) {
    spool?.close();
    throw error;
  }
}

/** Opens the spool, if there is to be one. */
export function openSpool(
  stream: string,
  liveCount: number,
  { spool, spoolSize = defaultSpoolBytes }: PlanOptions,
  { started }: CaptureDefaults,
): Spool | undefined {
  if (spool === undefined) return undefined;
  if (liveCount === 0) {
    throw new FramesError("usage", "Cannot spool directories: they keep their frames themselves");
  }
  const session = { id: crypto.randomUUID().replaceAll("-", ""), started };
  return new Spool(spool, stream, session, spoolSize);
}

/** Gives sources the pace that is asked for. */
export function createPacer({
  fps,
  realtime = false,
}: PlanOptions): (source: FrameSource) => FrameSource {
  const replay = new ReplayPacer();
  return (source) => {
    const rate = settingFor(fps, source.name);
    if (rate !== undefined && realtime) {
      throw new FramesError("usage", "Cannot send both --realtime and at --fps: choose one");
    }
    if (rate !== undefined)
      return new PacedSource(source, new RatePacer(parseRate(rate)), monotonicNow);
    return realtime ? new PacedSource(source, replay, monotonicNow) : source;
  };
}

/** Bytes that a spool holds that was not told otherwise. */
const defaultSpoolBytes = 10 * 2 ** 30;

/** What a server would refuse frame by frame is said at once, where it is a matter of the command. */
export function checkNames(stream: string, sources: readonly string[]): void {
  try {
    sourceFolderPath(stream, stream, false);
    for (const source of sources) sourceFolderPath(stream, source, false);
  } catch (error) {
    throw new FramesError(
      "usage",
      `Cannot send under this name: ${(error as Error).message}; choose with --stream and --source`,
    );
  }
}
