/** Plans the paths of a command line: directories, a pipe, videos, cameras, URLs and recordings. */
import { existsSync, lstatSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { defined } from "../../common/defined.ts";
import { usageError } from "../../errors.ts";
import type { FrameSource } from "../../frame.ts";
import { checkFlags, type SourceKind } from "./flag-rules.ts";
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
  captureSettings,
  rawFramesFor,
  openSpool,
  resolveStream,
  withSpool,
} from "./options.ts";
import {
  type Capture,
  IterableSource,
  type CaptureDefaults,
} from "../../source/live/iterable-source.ts";
import type { LiveSource } from "../../source/live/live-source.ts";
import { parseInput } from "../../source/media/input.ts";
import { type Media, openMedia } from "../../source/media/media.ts";
import { MultipartPipe } from "../../source/live/multipart-pipe.ts";
import { pipeFrames } from "../../source/live/pipe.ts";
import { videoPipeFrames } from "../../source/live/video-pipe.ts";
import { parseQuality, settingFor } from "../../source/per-source.ts";
import type { Spool } from "../../source/live/spool.ts";
import { isRecording, planRecording } from "./recording.ts";
import { findCopiedStream } from "../../store/directory/copied-stream.ts";
import { sourceFolderPath } from "../../store/name-rules.ts";
import type { RootDirectory } from "../../source/files/file-filter.ts";
import { DirectorySource } from "../../source/files/directory-source.ts";
import { compareNatural } from "../../source/files/natural-order.ts";
import { checkDirectory, createRoot, type WalkResult, walk } from "../../source/files/walk.ts";
import { readUrlFile } from "./url-file.ts";

/** Path that means standard input. */
const stdinPath = "-";

/** A PATH of the command line, or several pictures of one folder. */
interface PathInput {
  /** Its path; of pictures, the first one. */
  readonly path: string;
  readonly kind: SourceKind;
  /** Name of the source, if the user chose one. */
  readonly name: string | undefined;
  /** Paths of pictures, or `undefined`. */
  readonly pictures: string[] | undefined;
  /** Name of the file that contains the path, `@FILE`. Messages show it instead of the path. */
  readonly shownAs?: string;
}

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
  const unnamed = paths.map((path): [undefined, string] => [undefined, path]);
  const inputs = classifyPaths([...unnamed, ...pairs]);
  const hasSeveral = inputs.length > 1;
  if (plainNames.length > 1 || (plainNames.length === 1 && hasSeveral)) {
    throw usageError(
      `Cannot name the source ${plainNames[0]}: there are several; write --source NAME=PATH for each`,
    );
  }
  const [first] = inputs;
  if (first === undefined) {
    throw usageError("Cannot send: no directory given; write frames send DIR");
  }
  if (hasSeveral && options.stream === undefined) {
    throw usageError("Cannot send several sources without a stream: add --stream NAME");
  }
  const isNamed = hasSeveral || plainNames.length === 1 || pairs.length === 1;
  const named = inputs.map((input) => ({ ...input, name: input.name ?? plainNames[0] }));
  for (const { path, kind } of named) if (kind === "directory") checkDirectory(path);
  const known = named.map((input) => ({ ...input, name: knownName(input) }));
  checkFlags(known, options);
  const recording = named.find(({ kind }) => kind === "recording");
  if (recording !== undefined && hasSeveral) {
    throw usageError(
      `Cannot send ${recording.path} with other paths: run frames send for each of them, with the same --stream`,
    );
  }
  if (recording !== undefined) {
    return await planRecording(recording.path, recording.name, options, naming);
  }
  const pipes = named.filter(({ kind }) => kind === "pipe");
  const pictures = named.filter(({ pictures }) => pictures !== undefined);
  const roots = named
    .filter(({ kind }) => kind === "directory")
    .map(({ path, name }) =>
      createRoot(path, isNamed ? name : (name ?? findCopiedStream(path)), isNamed),
    );
  const mediaInputs = named.filter(({ kind }) => mediaKinds.has(kind));
  const defaultName = defaultStream(first);
  const streams =
    options.stream === undefined ? { stream: defaultName } : resolveStream(options.stream, naming);
  const openedMedia = await Promise.all(
    mediaInputs.map(async (input) => {
      const { path } = input;
      const source = mediaName(input, options);
      return { source, path, media: await openMedia(path, mediaOptions(source, input, options)) };
    }),
  );
  const liveCount = pipes.length + openedMedia.filter(({ media }) => media.isLive).length;
  const spool = openSpool(options.stream ?? defaultName, liveCount, options, naming);
  const { sources, found, pipe } = withSpool(spool, () => {
    if (pipes.length > 1) {
      throw usageError("Cannot send two pipes: - is standard input; run frames send twice");
    }
    const [standardInput] = pipes;
    const pipe =
      standardInput !== undefined && options.multipart === true
        ? multipartPipe(standardInput.name, options, naming, spool)
        : undefined;
    const pipeSources =
      pipe?.spooled ?? pipes.map(({ name }) => pipeSource(name, options, naming, spool));
    const mediaSources = openedMedia.map((one) => mediaSource(one, options, naming, spool));
    const found = findDirectories(roots, options);
    const folders = found.sources.map(
      ({ path, name }) => ({ path, kind: "directory", name }) as const,
    );
    checkFlags([...known, ...folders], options);
    const pictureSources = pictures.map((input) => pictureSource(input, options));
    const namedSources = [...pipeSources, ...mediaSources, ...pictureSources];
    // Folders below the roots are not checked: the server refuses only the frames in them.
    checkNames(
      streams.stream,
      [...roots, ...namedSources].map(({ name }) => name),
    );
    const sources = [...namedSources, ...found.sources];
    checkDistinct(sources);
    const names = [...roots, ...sources].map(({ name }) => name);
    // The sources of a watched directory, or of a pipe with headers, are not known yet.
    if (options.watch !== true && pipe === undefined)
      checkSettingSources(options, [...new Set(names)]);
    const paced = sources.map(createPacer(options));
    return { sources: options.dryRun === true ? sources : paced, found, pipe };
  });
  const media = openedMedia.map(({ source, media: { description, isLive } }) => {
    const usesDefaultQueue = isLive && queuePolicyFor(source, options, undefined) === undefined;
    return {
      source,
      description: usesDefaultQueue ? `${description}; ${defaultQueueNote}` : description,
    };
  });
  return {
    ...streams,
    ...found,
    sources,
    media,
    ...defined({ spool, pipe }),
  };
}

const mediaKinds: ReadonlySet<SourceKind> = new Set(["link", "video", "camera", "url"]);

/** Classifies paths. Pictures of one folder become one input, because they are one source. */
function classifyPaths(
  named: readonly (readonly [name: string | undefined, path: string])[],
): PathInput[] {
  const inputs: PathInput[] = [];
  const pictureInputs = new Map<string, PathInput>();
  for (const [name, pathOrFile] of named) {
    if (name !== undefined && pathOrFile.startsWith("@")) {
      const path = readUrlFile(pathOrFile.slice(1));
      inputs.push({ path, kind: "url", name, pictures: undefined, shownAs: pathOrFile });
      continue;
    }
    const path = pathOrFile;
    const kind = kindOf(path);
    if (kind !== "picture") {
      inputs.push({ path, kind, name, pictures: undefined });
      continue;
    }
    const key = JSON.stringify([name ?? "", resolve(dirname(path))]);
    const known = pictureInputs.get(key);
    if (known !== undefined) {
      known.pictures!.push(path);
      continue;
    }
    const input = { path, kind, name, pictures: [path] };
    pictureInputs.set(key, input);
    inputs.push(input);
  }
  return inputs;
}

function kindOf(path: string): SourceKind {
  if (path === stdinPath) return "pipe";
  if (isRecording(path) && statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) {
    return "recording";
  }
  const kind = parseInput(path)?.kind;
  if (kind === undefined) return "directory";
  if (kind === "file") return "video";
  if (kind === "device") return "camera";
  // The directory source follows no links, but a link that the user names is followed.
  if (kind === "image") return lstatSync(path).isFile() ? "picture" : "link";
  return kind;
}

/** Returns the name of the source, as far as it is known before the input is opened. */
function knownName({ path, kind, name, pictures }: PathInput): string | undefined {
  if (name !== undefined) return name;
  if (pictures !== undefined) return pictureSourceName(path, pictures);
  return kind === "video" || kind === "link" ? fileStem(path) : undefined;
}

/** A single picture is a source of its own; several belong to the source of their folder. */
function pictureSourceName(path: string, pictures: readonly string[]): string {
  if (pictures.length === 1) return fileStem(path);
  const folder = dirname(path);
  return createRoot(folder, findCopiedStream(folder), false).name;
}

function defaultStream({ path, kind, pictures }: PathInput): string {
  if (pictures !== undefined) return pictureSourceName(path, pictures);
  if (mediaKinds.has(kind)) return fileStem(path);
  return createRoot(path, findCopiedStream(path), false).name;
}

function pictureSource(
  { path, name, pictures }: PathInput,
  { move, onEvent = () => {} }: PlanOptions,
): DirectorySource {
  const folder = dirname(path);
  if (move === true) checkNotInStore(folder);
  const names = [...new Set(pictures!.map((picture) => basename(picture)))].sort(compareNatural);
  const source = name ?? pictureSourceName(path, pictures!);
  return new DirectorySource({ name: source, path: folder, names, onEvent });
}

/** @throws {FramesError} `usage` if two sources have the same name */
function checkDistinct(sources: readonly FrameSource[]): void {
  const seen = new Set<string>();
  for (const { name } of sources) {
    if (seen.has(name)) {
      throw usageError(`Cannot send two sources named ${name}: rename one with --source NAME=PATH`);
    }
    seen.add(name);
  }
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
function mediaName({ path, name, shownAs }: PathInput, options: PlanOptions): string {
  const isFile = !/^[a-z][a-z0-9+.-]*:\/\/|^\/dev\/video/i.test(path);
  if (isFile) return name ?? fileStem(path);
  if (name !== undefined && options.stream !== undefined) return name;
  const example =
    shownAs === undefined
      ? `frames send ${path} --stream NAME --source NAME`
      : `frames send --stream NAME --source ${name}=${shownAs}`;
  throw usageError(`Cannot send a camera or URL without names: write ${example}`);
}

function mediaOptions(source: string, { kind, shownAs }: PathInput, options: PlanOptions) {
  const quality = settingFor(options.quality, source);
  const camera = kind === "camera" ? settingFor(options.camera, source) : undefined;
  const { maxFrame = defaultMaxFrameBytes, onlyPictures = false } = options;
  const conversion = settingFor(options.convert, source);
  const lossless = options.lossless === true || conversion === "png";
  const converts = onlyPictures || lossless || conversion !== undefined || quality !== undefined;
  // A lower rate leaves out pictures, which encoded video needs, unless a file is only sent slowly.
  const isThinned = options.copyVideo !== true && settingFor(options.fps, source) !== undefined;
  const copies = converts || isThinned ? false : options.copyVideo === true ? true : undefined;
  return {
    maxFrameBytes: maxFrame,
    source,
    lossless,
    ...defined({
      shownAs,
      quality: quality === undefined ? undefined : parseQuality(quality),
      camera,
      copies,
      onEvent: options.onEvent,
    }),
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
  const settings = captureSettings(source, media.codec, options, naming);
  if (media.isLive) {
    const policy = queuePolicyFor(source, options, { latest: defaultLatest } as const);
    return createLiveSource(source, media.frames, spool, { policy, settings });
  }
  const policy = queuePolicyFor(source, options, undefined);
  const frames = withNames(fileStem(path), media.frames);
  if (policy !== undefined) {
    return createLiveSource(source, frames, undefined, { policy, settings });
  }
  return new IterableSource(source, frames, settings);
}

async function* withNames(
  stem: string,
  frames: AsyncIterable<Capture>,
): AsyncGenerator<Capture, undefined> {
  let number = 0;
  for await (const frame of frames) {
    number++;
    const extension = "error" in frame ? "bin" : (frame.extension ?? "bin");
    const { name = `${stem}-${String(number).padStart(8, "0")}.${extension}` } = frame;
    yield { ...frame, name };
  }
  return undefined;
}

function pipeSource(
  name: string | undefined,
  options: PlanOptions,
  naming: CaptureDefaults,
  spool: Spool | undefined,
): LiveSource {
  if (name === undefined || options.stream === undefined) {
    const example = "frames send - --stream NAME --source NAME";
    throw usageError(`Cannot send a pipe without names: write ${example}`);
  }
  const raw = rawFramesFor(name, options);
  const { maxFrame: maxFrameBytes = defaultMaxFrameBytes, onEvent } = options;
  const policy = queuePolicyFor(name, options, "block");
  const stdin = Bun.stdin.stream();
  if (typeof raw === "string") {
    const frames = videoPipeFrames(stdin, {
      codec: raw,
      maxFrameBytes,
      clock: naming.clock,
      onNotice: (message) => onEvent?.({ type: "notice", source: name, message }),
    });
    const settings = captureSettings(name, raw, options, naming);
    return createLiveSource(name, frames, spool, { policy, settings });
  }
  const shape = raw === undefined ? {} : { raw };
  const frames = pipeFrames(stdin, { maxFrameBytes, ...shape }, naming.clock);
  return createLiveSource(name, frames, spool, { policy, settings: naming, ...shape });
}

/** @throws {FramesError} `usage` without a stream */
function multipartPipe(
  name: string | undefined,
  options: PlanOptions,
  naming: CaptureDefaults,
  spool: Spool | undefined,
): MultipartPipe {
  const { stream, maxFrame = defaultMaxFrameBytes } = options;
  if (stream === undefined) {
    throw usageError(
      "Cannot send a pipe without a stream: write frames send - --multipart --stream NAME",
    );
  }
  return new MultipartPipe(Bun.stdin.stream(), spool?.spooledSources() ?? [], {
    maxFrameBytes: maxFrame,
    defaultSource: name,
    clock: naming.clock,
    createSource(source, frames) {
      sourceFolderPath(stream, source, false);
      const policy = queuePolicyFor(source, options, "block");
      // The program has produced its frames already, and sources without connection wait for room.
      const own = { policy, settings: naming, capturesOffline: true };
      return createLiveSource(source, frames, spool, own);
    },
  });
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
    const found = walk(roots, filter, options.onEvent);
    if (options.move === true) for (const { path } of found.sources) checkNotInStore(path);
    const unreadable = found.unreadable.map(({ path, why }) => {
      return { path, why: `Cannot read the folder: ${why}` };
    });
    return { ...found, unreadable };
  }
  if (options.realtime === true) {
    throw usageError(
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
      throw usageError(
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
