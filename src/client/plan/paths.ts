/** Plans the paths of a command line: directories, a pipe, videos, cameras and URLs. */
import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { FramesError } from "../../errors.ts";
import type { FrameSource } from "../../frame.ts";
import {
  checkSettingSources,
  checkSettingValues,
  checkNames,
  createLiveSource,
  emptyPlan,
  createPacer,
  type Plan,
  type PlanOptions,
  queuePolicyFor,
  openSpool,
  resolveStream,
  withSpool,
} from "./options.ts";
import {
  type CapturedFrame,
  IterableSource,
  type CaptureDefaults,
} from "../../source/live/iterable-source.ts";
import type { LiveSource } from "../../source/live/live-source.ts";
import { isMedia, type Media, openMedia } from "../../source/media/media.ts";
import { pipeFrames } from "../../source/live/pipe.ts";
import { parseRawShape } from "../../source/image/raw.ts";
import { parseQuality, settingFor } from "../../source/per-source.ts";
import type { Spool } from "../../source/live/spool.ts";
import { findCopiedStream } from "../../store/directory/copied-stream.ts";
import type { RootDirectory } from "../../source/files/file-filter.ts";
import { checkDirectory, createRoot, type WalkResult, walk } from "../../source/files/walk.ts";

/** Path that means standard input. */
const stdinPath = "-";

/**
 * Plans a session that sends these paths.
 *
 * @param sourceArgs values of `--source`: names, or `NAME=PATH`
 * @throws {FramesError} `usage`, `missing`, or the error of a video or camera
 */
export async function planPaths(
  paths: readonly string[],
  sourceArgs: readonly string[],
  options: PlanOptions,
  naming: CaptureDefaults,
): Promise<Plan> {
  checkSettingValues(options);
  const pairs = sourceArgs.filter((text) => text.includes("=")).map(splitPair);
  const plainNames = sourceArgs.filter((text) => !text.includes("="));
  const hasSeveral = paths.length + pairs.length > 1;
  if (plainNames.length > 1 || (plainNames.length === 1 && hasSeveral)) {
    throw new FramesError(
      "usage",
      `Cannot name the source ${plainNames[0]}: there are several; write --source NAME=PATH for each`,
    );
  }
  const inputs = [
    ...paths.map((path) => ({
      path,
      name: plainNames[0],
      nested: hasSeveral || plainNames.length === 1,
    })),
    ...pairs.map(([name, path]) => ({ path, name, nested: true })),
  ];
  const [first] = inputs;
  if (first === undefined) {
    throw new FramesError("usage", "Cannot send: no directory given; write frames send DIR");
  }
  if (hasSeveral && options.stream === undefined) {
    throw new FramesError(
      "usage",
      "Cannot send several sources without a stream: add --stream NAME",
    );
  }
  const pipes = inputs.filter(({ path }) => path === stdinPath);
  const mediaInputs = inputs.filter(({ path }) => path !== stdinPath && isMedia(path));
  const roots = inputs
    .filter((input) => !pipes.includes(input) && !mediaInputs.includes(input))
    .map(({ path, name, nested }) => {
      return createRoot(path, nested ? name : (name ?? findCopiedStream(path)), nested);
    });
  const defaultName =
    mediaInputs[0] === first
      ? fileStem(first.path)
      : createRoot(first.path, findCopiedStream(first.path), false).name;
  const streams =
    options.stream === undefined ? { stream: defaultName } : resolveStream(options.stream, naming);
  const openedMedia = await Promise.all(
    mediaInputs.map(async ({ path, name }) => {
      const source = mediaName(path, name, options);
      return { source, path, media: await openMedia(path, mediaOptions(source, options)) };
    }),
  );
  const liveCount = pipes.length + openedMedia.filter(({ media }) => media.isLive).length;
  const spool = openSpool(options.stream ?? defaultName, liveCount, options, naming);
  const { sources, found } = withSpool(spool, () => {
    const pipeSources = pipes.map(({ name }) =>
      pipeSource(name, pipes.length, options, naming, spool),
    );
    const mediaSources = openedMedia.map((one) => mediaSource(one, options, naming, spool));
    const found = findDirectories(roots, options);
    const liveSources = [...pipeSources, ...mediaSources];
    // Folders below the roots are not checked: the server refuses only the frames in them.
    checkNames(
      streams.stream,
      [...roots, ...liveSources].map(({ name }) => name),
    );
    const names = [...roots, ...liveSources, ...found.sources].map(({ name }) => name);
    // The sources of a watched directory are not known yet.
    if (options.watch !== true) checkSettingSources(options, [...new Set(names)]);
    return { sources: [...liveSources, ...found.sources].map(createPacer(options)), found };
  });
  const media = openedMedia.map(({ source, media: { description, isLive } }) => {
    const usesDefaultQueue = isLive && queuePolicyFor(source, options, undefined) === undefined;
    return {
      source,
      description: usesDefaultQueue ? `${description}; ${defaultQueueNote}` : description,
    };
  });
  return { ...streams, ...found, sources, media, ...(spool === undefined ? {} : { spool }) };
}

/** Queue length of cameras and URLs without `policy`. */
const defaultLatest = 30;
const defaultQueueNote = `on a slow link the newest ${defaultLatest} frames are kept (--policy)`;

/** Returns the file name without its extension. */
function fileStem(path: string): string {
  return basename(path, extname(path));
}

/**
 * Names the source: a file after itself, if `name` is undefined.
 *
 * @throws {FramesError} `usage` for a camera or URL without `--stream` and `--source`
 */
function mediaName(path: string, name: string | undefined, options: PlanOptions): string {
  const isFile = !/^[a-z][a-z0-9+.-]*:\/\/|^\/dev\/video/i.test(path);
  if (isFile) return name ?? fileStem(path);
  if (name !== undefined && options.stream !== undefined) return name;
  const example = `frames send ${path} --stream NAME --source NAME`;
  throw new FramesError("usage", `Cannot send a camera or URL without names: write ${example}`);
}

function mediaOptions(source: string, options: PlanOptions) {
  const quality = settingFor(options.quality, source);
  const camera = settingFor(options.camera, source);
  const { maxFrame = defaultMaxFrameBytes, lossless, onRetry } = options;
  return {
    maxFrameBytes: maxFrame,
    ...(quality === undefined ? {} : { quality: parseQuality(quality) }),
    ...(camera === undefined ? {} : { camera }),
    ...(lossless === undefined ? {} : { lossless }),
    ...(onRetry === undefined ? {} : { onRetry }),
  };
}

/**
 * Creates the source of a video, camera or URL. Frames of a file are named after it, so that the
 * same command recognizes them in the store. Live frames get the usual names of live sources.
 */
function mediaSource(
  { source, path, media }: { source: string; path: string; media: Media },
  options: PlanOptions,
  naming: CaptureDefaults,
  spool: Spool | undefined,
): FrameSource {
  if (media.isLive) {
    const policy = queuePolicyFor(source, options, { latest: defaultLatest } as const);
    return createLiveSource(source, media.frames, policy, naming, spool);
  }
  const policy = queuePolicyFor(source, options, undefined);
  const frames = withNames(fileStem(path), media.frames);
  if (policy !== undefined) return createLiveSource(source, frames, policy, naming, undefined);
  return new IterableSource(source, frames, naming);
}

async function* withNames(
  stem: string,
  frames: AsyncIterable<CapturedFrame>,
): AsyncGenerator<CapturedFrame, undefined> {
  let number = 0;
  for await (const frame of frames) {
    number++;
    const { name = `${stem}-${String(number).padStart(8, "0")}.${frame.extension ?? "bin"}` } =
      frame;
    yield { ...frame, name };
  }
  return undefined;
}

function pipeSource(
  name: string | undefined,
  pipes: number,
  options: PlanOptions,
  naming: CaptureDefaults,
  spool: Spool | undefined,
): LiveSource {
  if (pipes > 1)
    throw new FramesError(
      "usage",
      "Cannot send two pipes: - is standard input; run frames send twice",
    );
  if (name === undefined || options.stream === undefined) {
    const example = "frames send - --stream NAME --source NAME";
    throw new FramesError("usage", `Cannot send a pipe without names: write ${example}`);
  }
  const text = settingFor(options.raw, name);
  const raw = text === undefined ? undefined : parseRawShape(text);
  const { maxFrame = defaultMaxFrameBytes } = options;
  const limits = { maxFrameBytes: maxFrame, ...(raw === undefined ? {} : { raw }) };
  const frames = pipeFrames(Bun.stdin.stream(), limits, naming.clock);
  const policy = queuePolicyFor(name, options, "block");
  return createLiveSource(name, frames, policy, naming, spool, raw);
}

/** The default of `frames serve --max-frame`. */
const defaultMaxFrameBytes = 64 << 20;

/** Walks the directories. With `watch` it only checks them, since the session finds files later. */
function findDirectories(
  roots: readonly RootDirectory[],
  options: PlanOptions,
): WalkResult & Pick<Plan, "watch"> {
  const filter = { include: options.include ?? [], exclude: options.exclude ?? [] };
  if (options.watch !== true) {
    const found = walk(roots, filter);
    if (options.move === true) for (const { path } of found.sources) checkNotInStore(path);
    return found;
  }
  if (roots.length === 0) {
    throw new FramesError(
      "usage",
      "Cannot use --watch without a directory: add one, or leave --watch out",
    );
  }
  if (options.realtime === true) {
    throw new FramesError(
      "usage",
      "Cannot use --realtime with --watch: new files are sent as they arrive; leave one out",
    );
  }
  for (const { path } of roots) {
    checkDirectory(path);
    if (options.move === true) checkNotInStore(path);
  }
  const { settleMs = options.move === true ? 2000 : 250, since } = options;
  return { sources: [], ...emptyPlan, watch: { roots, filter, settleMs, since } };
}

/** @throws {FramesError} `usage` if the path is in a store, since `--move` would empty it */
function checkNotInStore(path: string): void {
  for (let folder = realpathSync(path); ; folder = dirname(folder)) {
    if (existsSync(join(folder, ".frames", "journal.sqlite"))) {
      throw new FramesError(
        "usage",
        `Cannot use --move with ${path}: it is in the store ${folder}; leave --move out to copy it`,
      );
    }
    if (folder === dirname(folder)) return;
  }
}

function splitPair(text: string): [string, string] {
  const at = text.indexOf("=");
  return [text.slice(0, at), text.slice(at + 1)];
}
