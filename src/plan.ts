/** Finds out what there is to send: directories, pipes, or frames that a program makes. */
import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { FramesError } from "./errors.ts";
import type { FrameSource } from "./frame.ts";
import type { Skipped } from "./source/directory.ts";
import { type CapturedFrame, IterableSource } from "./source/iterable.ts";
import { rootOf, walk } from "./source/walk.ts";
import { sourceFolder } from "./store/name.ts";

/** What is to be sent, and as what. */
export interface PlanOptions {
  /** Name under which the frames are kept. Default: that of the one directory sent. */
  readonly stream?: string;
  /** Name of the one source, or what each of several sources is: `NAME=PATH`. */
  readonly source?: string | readonly string[];
  /** Only what matches one of these globs. */
  readonly include?: readonly string[];
  /** Nothing that matches one of these globs. */
  readonly exclude?: readonly string[];
  /** Remove each frame once the server has it for good. */
  readonly move?: boolean;
}

/** What can be sent: directories, or frames that a program makes. */
export type Sendable =
  string | readonly string[] | AsyncIterable<CapturedFrame> | Iterable<CapturedFrame>;

/** A delivery that is ready to begin: what would be sent, before anybody is connected to. */
export interface Plan {
  readonly stream: string;
  readonly sources: readonly FrameSource[];
  readonly skipped: readonly Skipped[];
  /** Folders that cannot be read. */
  readonly unreadable: readonly Skipped[];
  /** Files that patterns left out. */
  readonly leftOut: number;
}

/**
 * Finds out what would be sent.
 *
 * @param started session's start, in milliseconds since 1970
 * @throws {FramesError} `usage` or `missing`
 */
export function plan(what: Sendable, options: PlanOptions, started: number): Plan {
  const named = typeof options.source === "string" ? [options.source] : (options.source ?? []);
  if (typeof what === "string") return planDirectories([what], named, options);
  if (isPaths(what, named)) return planDirectories(what, named, options);
  const [name] = named;
  if (options.stream === undefined || name === undefined || named.length > 1) {
    throw new FramesError(
      "usage",
      "Cannot send frames of a program: name the stream and one source",
    );
  }
  checkNames(options.stream, [name]);
  const source = new IterableSource(name, what, { started, clock: Date.now });
  return { stream: options.stream, sources: [source], skipped: [], unreadable: [], leftOut: 0 };
}

/** An empty list is one of paths if no source is named, or if the paths are in their names. */
function isPaths(
  what: Exclude<Sendable, string>,
  named: readonly string[],
): what is readonly string[] {
  if (!Array.isArray(what) || what.some((item) => typeof item !== "string")) return false;
  return what.length > 0 || named.length === 0 || named.some((text) => text.includes("="));
}

function planDirectories(
  paths: readonly string[],
  named: readonly string[],
  options: PlanOptions,
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
  const roots = [
    ...paths.map((path) => rootOf(path, bare[0], several || bare.length === 1)),
    ...pairs.map(([name, path]) => rootOf(path, name, true)),
  ];
  const [first] = roots;
  if (first === undefined) {
    throw new FramesError("usage", "Cannot send nothing: say which directory, frames send DIR");
  }
  if (several && options.stream === undefined) {
    throw new FramesError("usage", "Cannot send several sources: name their stream with --stream");
  }
  const found = walk(roots, { include: options.include ?? [], exclude: options.exclude ?? [] });
  if (options.move === true) for (const { path } of found.sources) checkNoStore(path);
  const stream = options.stream ?? rootOf(first.path, undefined, false).name;
  // A folder below them that has an odd name costs its own frames only: the server refuses these.
  checkNames(
    stream,
    roots.map(({ name }) => name),
  );
  return { stream, ...found };
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
