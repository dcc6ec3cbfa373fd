/** What a plan is, and what every way of making one needs. */
import { FramesError } from "../errors.ts";
import type { FrameSource, RawShape } from "../frame.ts";
import { steadyNow } from "../net/connection.ts";
import type { Skipped } from "../source/directory.ts";
import type { CapturedFrame, Naming } from "../source/iterable.ts";
import { parseCamera } from "../source/input.ts";
import { LiveSource, type QueuePolicy } from "../source/live.ts";
import { PacedSource, Rate, Replay } from "../source/paced.ts";
import { parseRawShape } from "../source/raw.ts";
import {
  checkSettings,
  checkValues,
  parsePolicy,
  parseQuality,
  parseRate,
  type PerSource,
  settingFor,
} from "../source/settings.ts";
import { Spool } from "../source/spool.ts";
import type { Root } from "../source/walk.ts";
import type { WatchOptions } from "../source/watch.ts";
import { sourceFolder } from "../store/name.ts";
import { StreamName } from "./stream-name.ts";

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
  readonly settle?: number;
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
  readonly onTrouble?: (error: FramesError) => void;
  /** Bytes of the largest frame that is taken from a pipe. Default 64 MiB, as a server takes. */
  readonly largest?: number;
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
  readonly streamAt?: (time: bigint) => string;
  readonly sources: readonly FrameSource[];
  readonly skipped: readonly Skipped[];
  /** Folders that cannot be read. */
  readonly unreadable: readonly Skipped[];
  /** Files that patterns left out. */
  readonly leftOut: number;
  /** Keeps frames of live sources, and the session. */
  readonly spool?: Spool;
  /** What the frames of videos, cameras and URLs are, for people. */
  readonly media?: readonly { readonly source: string; readonly description: string }[];
  /** Directories to be watched for more. */
  readonly watch?: WatchOptions & { readonly roots: readonly Root[] };
}

export function liveSource(
  name: string,
  frames: CapturedFrames,
  policy: QueuePolicy,
  naming: Naming,
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
      ...(spool === undefined ? {} : { spool: spool.of(name) }),
    },
  );
}

/** What each setting has to be, whatever is sent. */
const parsers = {
  policy: parsePolicy,
  raw: parseRawShape,
  fps: parseRate,
  camera: parseCamera,
  quality: parseQuality,
} as const;

/** @throws {FramesError} `usage` if a setting cannot be read */
export function checkAllValues(options: PlanOptions): void {
  for (const [setting, parse] of Object.entries(parsers)) {
    checkValues(options[setting as keyof typeof parsers], parse);
  }
}

/** @throws {FramesError} `usage` if a setting is for a source that there is not */
export function checkAllSettings(options: PlanOptions, names: readonly string[]): void {
  for (const setting of Object.keys(parsers) as (keyof typeof parsers)[]) {
    checkSettings(options[setting], names, `--${setting}`);
  }
}

/** What the stream is called when it begins, and later. */
export function streamsOf(text: string, { started }: Naming): Pick<Plan, "stream" | "streamAt"> {
  const name = new StreamName(text);
  const stream = name.at(BigInt(started) * 1_000_000n);
  return name.changes ? { stream, streamAt: (time) => name.at(time) } : { stream };
}

export const nothingElse = { skipped: [], unreadable: [], leftOut: 0 };

export function policyOf<Default>(
  source: string,
  { policy }: PlanOptions,
  otherwise: Default,
): QueuePolicy | Default {
  const text = settingFor(policy, source);
  return text === undefined ? otherwise : parsePolicy(text);
}

/**
 * Plans with a spool, which is closed again if nothing comes of that: it is one process's at a time.
 *
 * @throws what `make` throws
 */
export function withSpool<T>(spool: Spool | undefined, make: () => T): T {
  try {
    return make();
  } catch (error) {
    spool?.close();
    throw error;
  }
}

/** Opens the spool, if there is to be one. */
export function spoolOf(
  stream: string,
  lives: number,
  { spool, spoolSize = usualSpool }: PlanOptions,
  { started }: Naming,
): Spool | undefined {
  if (spool === undefined) return undefined;
  if (lives === 0) {
    throw new FramesError("usage", "Cannot spool directories: they keep their frames themselves");
  }
  const session = { id: crypto.randomUUID().replaceAll("-", ""), started };
  return new Spool(spool, stream, session, spoolSize);
}

/** Gives sources the pace that is asked for. */
export function pacing({
  fps,
  realtime = false,
}: PlanOptions): (source: FrameSource) => FrameSource {
  const replay = new Replay();
  return (source) => {
    const rate = settingFor(fps, source.name);
    if (rate !== undefined && realtime) {
      throw new FramesError("usage", "Cannot send both --realtime and at --fps: choose one");
    }
    if (rate !== undefined) return new PacedSource(source, new Rate(parseRate(rate)), steadyNow);
    return realtime ? new PacedSource(source, replay, steadyNow) : source;
  };
}

/** Bytes that a spool holds that was not told otherwise. */
const usualSpool = 10 * 2 ** 30;

/** What a server would refuse frame by frame is said at once, where it is a matter of the command. */
export function checkNames(stream: string, sources: readonly string[]): void {
  try {
    sourceFolder(stream, stream, false);
    for (const source of sources) sourceFolder(stream, source, false);
  } catch (error) {
    throw new FramesError(
      "usage",
      `Cannot send under this name: ${(error as Error).message}; choose with --stream and --source`,
    );
  }
}
