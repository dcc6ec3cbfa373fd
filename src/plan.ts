/** Finds out what there is to send: directories, pipes, or frames that a program makes. */
import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { FramesError } from "./errors.ts";
import type { FrameSource, RawShape } from "./frame.ts";
import { steadyNow } from "./net/connection.ts";
import type { Skipped } from "./source/directory.ts";
import { type CapturedFrame, IterableSource, type Naming } from "./source/iterable.ts";
import { LiveSource, type QueuePolicy } from "./source/live.ts";
import { PacedSource, Rate, Replay } from "./source/paced.ts";
import { pipeFrames } from "./source/pipe.ts";
import { parseRawShape } from "./source/raw.ts";
import {
  checkSettings,
  parsePolicy,
  parseRate,
  type PerSource,
  settingFor,
} from "./source/settings.ts";
import { Spool } from "./source/spool.ts";
import { checkRoot, type Root, rootOf, type Walk, walk } from "./source/walk.ts";
import type { WatchOptions } from "./source/watch.ts";
import { sourceFolder } from "./store/name.ts";
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
  /** Directories to be watched for more. */
  readonly watch?: WatchOptions & { readonly roots: readonly Root[] };
}

/**
 * Finds out what would be sent.
 *
 * @param started session's start, in milliseconds since 1970
 * @throws {FramesError} `usage` or `missing`
 */
export function plan(what: Sendable, options: PlanOptions, started: number): Plan {
  const named = typeof options.source === "string" ? [options.source] : (options.source ?? []);
  const naming: Naming = { started, clock: Date.now };
  if (typeof what === "string") return planInputs([what], named, options, naming);
  if (isPaths(what, named)) return planInputs(what, named, options, naming);
  const isOne = Symbol.iterator in what || Symbol.asyncIterator in what;
  const [name] = named;
  if (
    options.stream === undefined ||
    (isOne ? name === undefined || named.length > 1 : named.length > 0)
  ) {
    throw new FramesError(
      "usage",
      "Cannot send frames of a program: name the stream, and the one source or all of them",
    );
  }
  const given = isOne
    ? { [name!]: what as CapturedFrames }
    : (what as Record<string, CapturedFrames>);
  const names = Object.keys(given);
  const streams = streamsOf(options.stream, naming);
  checkNames(streams.stream, names);
  checkAllSettings(options, names);
  const spool = spoolOf(options.stream, names.length, options, naming);
  const sources = Object.entries(given).map(([source, frames]) => {
    const policy = policyOf(source, options, undefined);
    if (policy === undefined && spool === undefined) {
      return new IterableSource(source, frames, naming);
    }
    return liveSource(source, frames, policy ?? "block", naming, spool);
  });
  const paced = sources.map(pacing(options));
  return { ...streams, sources: paced, ...nothingElse, ...(spool === undefined ? {} : { spool }) };
}

function liveSource(
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

function checkAllSettings(options: PlanOptions, names: readonly string[]): void {
  for (const setting of ["policy", "raw", "fps"] as const) {
    checkSettings(options[setting], names, `--${setting}`);
  }
}

/** What the stream is called when it begins, and later. */
function streamsOf(text: string, { started }: Naming): Pick<Plan, "stream" | "streamAt"> {
  const name = new StreamName(text);
  const stream = name.at(BigInt(started) * 1_000_000n);
  return name.changes ? { stream, streamAt: (time) => name.at(time) } : { stream };
}

const nothingElse = { skipped: [], unreadable: [], leftOut: 0 };

function policyOf<Default>(
  source: string,
  { policy }: PlanOptions,
  otherwise: Default,
): QueuePolicy | Default {
  const text = settingFor(policy, source);
  return text === undefined ? otherwise : parsePolicy(text);
}

/** An empty list is one of paths if no source is named, or if the paths are in their names. */
function isPaths(
  what: Exclude<Sendable, string>,
  named: readonly string[],
): what is readonly string[] {
  if (!Array.isArray(what) || what.some((item) => typeof item !== "string")) return false;
  return what.length > 0 || named.length === 0 || named.some((text) => text.includes("="));
}

/** What stands on the command line for standard input. */
const pipe = "-";

function planInputs(
  paths: readonly string[],
  named: readonly string[],
  options: PlanOptions,
  naming: Naming,
): Plan {
  const pairs = named.filter((text) => text.includes("=")).map(splitPair);
  const bare = named.filter((text) => !text.includes("="));
  const several = paths.length + pairs.length > 1;
  if (bare.length > 1 || (bare.length === 1 && several)) {
    throw new FramesError(
      "usage",
      `Cannot name the source ${bare[0]}: with several sources say which is which, --source NAME=PATH`,
    );
  }
  const inputs = [
    ...paths.map((path) => ({ path, name: bare[0], nested: several || bare.length === 1 })),
    ...pairs.map(([name, path]) => ({ path, name, nested: true })),
  ];
  const [first] = inputs;
  if (first === undefined) {
    throw new FramesError("usage", "Cannot send nothing: say which directory, frames send DIR");
  }
  if (several && options.stream === undefined) {
    throw new FramesError("usage", "Cannot send several sources: name their stream with --stream");
  }
  const pipes = inputs.filter(({ path }) => path === pipe);
  const roots = inputs
    .filter(({ path }) => path !== pipe)
    .map(({ path, name, nested }) => rootOf(path, name, nested));
  const own = rootOf(first.path, undefined, false).name;
  const streams =
    options.stream === undefined ? { stream: own } : streamsOf(options.stream, naming);
  const spool = spoolOf(options.stream ?? own, pipes.length, options, naming);
  const piped = pipes.map(({ name }) => pipeSource(name, pipes.length, options, naming, spool));
  const names = [...roots, ...piped].map(({ name }) => name);
  // A folder below them that has an odd name costs its own frames only: the server refuses these.
  checkNames(streams.stream, names);
  checkAllSettings(options, names);
  const found = findDirectories(roots, options);
  const sources = [...piped, ...found.sources].map(pacing(options));
  return { ...streams, ...found, sources, ...(spool === undefined ? {} : { spool }) };
}

/** Opens the spool, if there is to be one. */
function spoolOf(
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
function pacing({ fps, realtime = false }: PlanOptions): (source: FrameSource) => FrameSource {
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

function pipeSource(
  name: string | undefined,
  pipes: number,
  options: PlanOptions,
  naming: Naming,
  spool: Spool | undefined,
): LiveSource {
  if (pipes > 1) throw new FramesError("usage", "Cannot send two pipes: - is standard input");
  if (name === undefined || options.stream === undefined) {
    const example = "frames send - --stream NAME --source NAME";
    throw new FramesError("usage", `Cannot send a pipe without a name for it: ${example}`);
  }
  const text = settingFor(options.raw, name);
  const raw = text === undefined ? undefined : parseRawShape(text);
  const { largest = usualLargest } = options;
  const limits = { largest, ...(raw === undefined ? {} : { raw }) };
  const frames = pipeFrames(Bun.stdin.stream(), limits, naming.clock);
  const policy = policyOf(name, options, "block");
  return liveSource(name, frames, policy, naming, spool, raw);
}

/** Bytes that a spool holds that was not told otherwise. */
const usualSpool = 10 * 2 ** 30;

/** What a server takes that was not told otherwise. */
const usualLargest = 64 << 20;

/** With `watch` nothing is found now: it is looked for when the delivery has begun. */
function findDirectories(roots: readonly Root[], options: PlanOptions): Walk & Pick<Plan, "watch"> {
  const filter = { include: options.include ?? [], exclude: options.exclude ?? [] };
  if (options.watch !== true) {
    const found = walk(roots, filter);
    if (options.move === true) for (const { path } of found.sources) checkNoStore(path);
    return found;
  }
  if (roots.length === 0) {
    throw new FramesError("usage", "Cannot watch a pipe: --watch is for directories");
  }
  if (options.realtime === true) {
    throw new FramesError("usage", "Cannot watch with --realtime: frames come when they come");
  }
  for (const { path } of roots) {
    checkRoot(path);
    if (options.move === true) checkNoStore(path);
  }
  const { settle = options.move === true ? 2000 : 250, since } = options;
  return { sources: [], ...nothingElse, watch: { roots, filter, settle, since } };
}

/** What `--move` removes must not be what a server keeps. */
function checkNoStore(path: string): void {
  for (let folder = realpathSync(path); ; folder = dirname(folder)) {
    if (existsSync(join(folder, ".frames", "journal.sqlite"))) {
      throw new FramesError(
        "usage",
        `Cannot move ${path}: it lies in a store of frames, ${folder}; without --move it is copied`,
      );
    }
    if (folder === dirname(folder)) return;
  }
}

function splitPair(text: string): [string, string] {
  const at = text.indexOf("=");
  return [text.slice(0, at), text.slice(at + 1)];
}

/** What a server would refuse frame by frame is said at once, where it is a matter of the command. */
function checkNames(stream: string, sources: readonly string[]): void {
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
