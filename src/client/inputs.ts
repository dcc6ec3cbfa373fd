/** Plans what stands on a command line: directories, pipes, videos, cameras and URLs. */
import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { FramesError } from "../errors.ts";
import type { FrameSource } from "../frame.ts";
import {
  checkAllSettings,
  checkAllValues,
  checkNames,
  liveSource,
  nothingElse,
  pacing,
  type Plan,
  type PlanOptions,
  policyOf,
  spoolOf,
  streamsOf,
  withSpool,
} from "./planning.ts";
import { type CapturedFrame, IterableSource, type Naming } from "../source/iterable.ts";
import type { LiveSource } from "../source/live.ts";
import { isMedia, type Media, openMedia } from "../source/media.ts";
import { pipeFrames } from "../source/pipe.ts";
import { parseRawShape } from "../source/raw.ts";
import { parseQuality, settingFor } from "../source/settings.ts";
import type { Spool } from "../source/spool.ts";
import { streamCopiedInto } from "../store/copy-of.ts";
import { checkRoot, type Root, rootOf, type Walk, walk } from "../source/walk.ts";

/** What stands on the command line for standard input. */
const pipe = "-";

/**
 * Finds out what is to be sent of these paths.
 *
 * @param named `--source`: names, or `NAME=PATH`
 * @throws {FramesError} `usage`, `missing`, or what a video or camera fails with
 */
export async function planInputs(
  paths: readonly string[],
  named: readonly string[],
  options: PlanOptions,
  naming: Naming,
): Promise<Plan> {
  checkAllValues(options);
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
  const medias = inputs.filter(({ path }) => path !== pipe && isMedia(path));
  const roots = inputs
    .filter((input) => !pipes.includes(input) && !medias.includes(input))
    .map(({ path, name, nested }) => {
      return rootOf(path, nested ? name : (name ?? streamCopiedInto(path)), nested);
    });
  const own =
    medias[0] === first
      ? stemOf(first.path)
      : rootOf(first.path, streamCopiedInto(first.path), false).name;
  const streams =
    options.stream === undefined ? { stream: own } : streamsOf(options.stream, naming);
  const opened = await Promise.all(
    medias.map(async ({ path, name }) => {
      const source = mediaName(path, name, options);
      return { source, path, media: await openMedia(path, mediaOptions(source, options)) };
    }),
  );
  const lives = pipes.length + opened.filter(({ media }) => media.isLive).length;
  const spool = spoolOf(options.stream ?? own, lives, options, naming);
  const { sources, found } = withSpool(spool, () => {
    const piped = pipes.map(({ name }) => pipeSource(name, pipes.length, options, naming, spool));
    const filmed = opened.map((one) => mediaSource(one, options, naming, spool));
    const found = findDirectories(roots, options);
    const live = [...piped, ...filmed];
    // A folder below them that has an odd name costs its own frames only: the server refuses these.
    checkNames(
      streams.stream,
      [...roots, ...live].map(({ name }) => name),
    );
    const names = [...roots, ...live, ...found.sources].map(({ name }) => name);
    // What will come of a watched directory is not known yet.
    if (options.watch !== true) checkAllSettings(options, [...new Set(names)]);
    return { sources: [...live, ...found.sources].map(pacing(options)), found };
  });
  const media = opened.map(({ source, media: { description, isLive } }) => {
    const isQueued = isLive && policyOf(source, options, undefined) === undefined;
    return { source, description: isQueued ? `${description}; ${usualQueue}` : description };
  });
  return { ...streams, ...found, sources, media, ...(spool === undefined ? {} : { spool }) };
}

/** Frames that the queue of a camera keeps, and what is said of that. */
const usualLatest = 30;
const usualQueue = `when the link is slow, the newest ${usualLatest} are kept (--policy)`;

/** The name of a file without its ending. */
function stemOf(path: string): string {
  return basename(path, extname(path));
}

/** A file has a name of its own; what lies behind a device or a URL does not. */
function mediaName(path: string, name: string | undefined, options: PlanOptions): string {
  const isFile = !/^[a-z][a-z0-9+.-]*:\/\/|^\/dev\/video/i.test(path);
  if (isFile) return name ?? stemOf(path);
  if (name !== undefined && options.stream !== undefined) return name;
  const example = `frames send ${path} --stream NAME --source NAME`;
  throw new FramesError("usage", `Cannot send a camera or URL without a name for it: ${example}`);
}

function mediaOptions(source: string, options: PlanOptions) {
  const quality = settingFor(options.quality, source);
  const camera = settingFor(options.camera, source);
  const { largest = usualLargest, lossless, onTrouble } = options;
  return {
    largest,
    ...(quality === undefined ? {} : { quality: parseQuality(quality) }),
    ...(camera === undefined ? {} : { camera }),
    ...(lossless === undefined ? {} : { lossless }),
    ...(onTrouble === undefined ? {} : { onTrouble }),
  };
}

/** Frames of a file are called after it, so that the same command finds them again; live ones as all live ones. */
function mediaSource(
  { source, path, media }: { source: string; path: string; media: Media },
  options: PlanOptions,
  naming: Naming,
  spool: Spool | undefined,
): FrameSource {
  if (media.isLive) {
    const policy = policyOf(source, options, { latest: usualLatest } as const);
    return liveSource(source, media.frames, policy, naming, spool);
  }
  const policy = policyOf(source, options, undefined);
  const frames = called(stemOf(path), media.frames);
  if (policy !== undefined) return liveSource(source, frames, policy, naming, undefined);
  return new IterableSource(source, frames, naming);
}

async function* called(
  stem: string,
  frames: AsyncIterable<CapturedFrame>,
): AsyncGenerator<CapturedFrame, undefined> {
  let number = 0;
  for await (const frame of frames) {
    number++;
    const { name = `${stem}-${String(number).padStart(8, "0")}.${frame.ending ?? "bin"}` } = frame;
    yield { ...frame, name };
  }
  return undefined;
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
