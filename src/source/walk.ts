/** Finds what there is to send below directories. */
import { type Dirent, lstatSync, readdirSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { FramesError, systemSentence } from "../errors.ts";
import { DirectorySource, kindOfFile, type Skipped } from "./directory.ts";
import { PackedNames } from "./names.ts";
import { naturalOrder } from "./order.ts";

/** A directory to send, and the name of the source that the frames directly in it belong to. */
export interface Root {
  readonly path: string;
  readonly name: string;
  /** Whether sub-folders are named below `name`; otherwise by their path below `path` alone. */
  readonly nested: boolean;
}

/** Which files are frames, beyond what every directory leaves out. */
export interface Filter {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/** What a walk found. */
export interface Walk {
  readonly sources: DirectorySource[];
  /** Links and special files, which are never followed. In large folders more are found later. */
  readonly skipped: Skipped[];
  /** Folders that could not be read: frames in them are missing. */
  readonly unreadable: Skipped[];
  /** Files that patterns left out; those in folders that were left out are not counted. */
  leftOut: number;
}

/**
 * Finds the sources below the roots, in natural order.
 *
 * @throws {FramesError} `missing` if a root is not a directory that can be read, `usage` if two
 * folders would be the same source
 */
export function walk(roots: readonly Root[], filter: Filter): Walk {
  const found: Walk = { sources: [], skipped: [], unreadable: [], leftOut: 0 };
  const selection = new Selection(filter, {
    skipped: (one) => found.skipped.push(one),
    unreadable: (one) => found.unreadable.push(one),
    leftOut: () => found.leftOut++,
  });
  for (const root of roots) {
    checkRoot(root.path);
    collect(selection.placeOf(root), selection, found);
  }
  // The names of a million files, now packed, would count for so much memory in use that hundreds of
  // megabytes might pile up before the next collection.
  if (found.sources.some(({ names }) => names instanceof PackedNames)) Bun.gc(true);
  found.skipped.sort((a, b) => naturalOrder(a.path, b.path));
  const seen = new Map<string, string>();
  for (const { name, path } of found.sources) {
    const other = seen.get(name);
    if (other !== undefined) {
      throw new FramesError(
        "usage",
        `Cannot send ${other} and ${path}: both would be the source ${name}; name one with --source NAME=PATH`,
      );
    }
    seen.set(name, path);
  }
  return found;
}

/** @throws {FramesError} `missing` if it is not a directory that can be read */
export function checkRoot(path: string): void {
  let why: string | undefined;
  try {
    if (!statSync(path).isDirectory()) why = "not a directory";
  } catch (error) {
    why = systemSentence(error);
  }
  if (why !== undefined) throw new FramesError("missing", `Cannot send ${path}: ${why}`);
}

/**
 * A folder that takes more bytes itself holds more than a hundred thousand entries. Their kinds are not told
 * with their names then: for a million that would take 100 MB more.
 */
const largeFolder = 2_500_000;

/** What is in a folder. */
interface Listing {
  readonly names: string[];
  /** What those names are that are no files. */
  readonly others: ReadonlyMap<string, string>;
}

type Matches = (relative: string, name: string, folder: boolean) => boolean;

/** A filter that can be asked. */
interface CompiledFilter {
  /** Whether everything is included that nothing excludes. */
  readonly all: boolean;
  readonly includes: Matches;
  readonly excludes: Matches;
}

function compileFilter({ include, exclude }: Filter): CompiledFilter {
  const files = include.filter((pattern) => !pattern.endsWith("/")).map(compilePattern);
  const folders = include.filter((pattern) => pattern.endsWith("/")).map(compilePattern);
  const excluded = exclude.map(compilePattern);
  return {
    all: include.length === 0,
    includes: (relative, name, folder) =>
      (folder ? folders : files).some((matches) => matches(relative, name, folder)),
    excludes: (relative, name, folder) =>
      excluded.some((matches) => matches(relative, name, folder)),
  };
}

/** A pattern with a slash is held against the path below the root, another against the name. */
function compilePattern(pattern: string): Matches {
  const folderOnly = pattern.endsWith("/");
  const whole = pattern.replace(/\/$/, "").includes("/");
  const glob = new Bun.Glob(pattern.replace(/\/$/, "").replace(/^\//, ""));
  return (relative, name, folder) => (folder || !folderOnly) && glob.match(whole ? relative : name);
}

/** A folder below a root. */
export interface FolderPlace {
  readonly root: Root;
  /** Its path below the root, empty for the root. */
  readonly below: string;
  /** Whether what is in it is included, whatever its name. */
  readonly isIncluded: boolean;
}

/** What a folder holds. */
export interface FolderContent {
  /** Names of its frames, in no order. */
  readonly names: string[];
  readonly folders: FolderPlace[];
}

/** Absolute path of a folder. */
export function pathOfFolder({ root, below }: FolderPlace): string {
  return join(resolve(root.path), below);
}

/** Name of the source that the frames directly in a folder belong to. */
export function sourceOfFolder({ root, below }: FolderPlace): string {
  if (below === "") return root.name;
  // A folder named like the root is no other source than the root's, unless its name says where it is.
  if (below === root.name || below.startsWith(`${root.name}/`)) return `${root.name}/${below}`;
  return root.nested ? `${root.name}/${below}` : below;
}

/** What a selection tells. */
export interface SelectionHooks {
  /** A link or special file, which is never followed. */
  skipped(one: Skipped): void;
  /** A folder that could not be read. */
  unreadable(one: Skipped): void;
  /** A file that patterns leave out. */
  leftOut(): void;
}

/** What is to be sent of a folder's entries. */
export class Selection {
  readonly #filter: CompiledFilter;
  readonly #hooks: SelectionHooks;

  constructor(filter: Filter, hooks: SelectionHooks) {
    this.#filter = compileFilter(filter);
    this.#hooks = hooks;
  }

  /** Where a root begins. */
  placeOf(root: Root): FolderPlace {
    return { root, below: "", isIncluded: this.#filter.all };
  }

  /**
   * Whether something in a folder is to be sent, by its name alone: nothing, or a folder's place.
   *
   * @param kind `file`, `folder`, or what it is instead; what is not known counts as a file
   */
  select(
    { root, below, isIncluded }: FolderPlace,
    name: string,
    kind: string | undefined,
  ): boolean | FolderPlace {
    if (name.startsWith(".") || name.endsWith(".tmp") || name.endsWith(".part")) return false;
    const relative = below === "" ? name : `${below}/${name}`;
    const isFolder = kind === "folder";
    if (this.#filter.excludes(relative, name, isFolder)) {
      if (!isFolder) this.#hooks.leftOut();
      return false;
    }
    // A folder is brought in whole only by a pattern that means folders.
    const wanted = isIncluded || this.#filter.includes(relative, name, isFolder);
    if (isFolder) return { root, below: relative, isIncluded: wanted };
    if (!wanted) {
      this.#hooks.leftOut();
      return false;
    }
    if (kind === undefined || kind === "file") return true;
    const path = join(resolve(root.path), relative);
    this.#hooks.skipped({ path, why: kind });
    return false;
  }

  /**
   * What is to be sent of a folder.
   *
   * @throws {FramesError} `missing` if the root cannot be read
   */
  read(place: FolderPlace): FolderContent {
    const names: string[] = [];
    const folders: FolderPlace[] = [];
    const { names: all, others } = this.#list(place);
    for (const name of all) {
      const selected = this.select(place, name, others.get(name));
      if (selected === true) names.push(name);
      else if (selected !== false) folders.push(selected);
    }
    return { names, folders };
  }

  #list(place: FolderPlace): Listing {
    const path = pathOfFolder(place);
    try {
      return statSync(path).size > largeFolder ? listLarge(path) : list(path);
    } catch (error) {
      // A name that is not UTF-8 comes with U+FFFD in it, and cannot be opened.
      const why = path.includes("\uFFFD") ? "its name is not UTF-8" : systemSentence(error);
      if (place.below === "")
        throw new FramesError("missing", `Cannot send ${place.root.path}: ${why}`);
      this.#hooks.unreadable({ path, why });
      return { names: [], others: new Map() };
    }
  }
}

function collect(place: FolderPlace, selection: Selection, found: Walk): void {
  const { names, folders } = selection.read(place);
  if (names.length > 0) {
    const skipped = (one: Skipped) => found.skipped.push(one);
    names.sort(naturalOrder);
    const path = pathOfFolder(place);
    found.sources.push(new DirectorySource(sourceOfFolder(place), path, names, skipped));
  }
  folders.sort((a, b) => naturalOrder(a.below, b.below));
  for (const folder of folders) collect(folder, selection, found);
}

function list(path: string): Listing {
  const names: string[] = [];
  const others = new Map<string, string>();
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const kind = kindOf(entry, path);
    if (kind !== "file") others.set(entry.name, kind);
    names.push(entry.name);
  }
  return { names, others };
}

/** Links and the like are taken for files: the source finds out when it comes to them. */
function listLarge(path: string): Listing {
  const names = readdirSync(path);
  const found = new Bun.Glob("*/").scanSync({ cwd: path, onlyFiles: false, dot: true });
  return { names, others: new Map([...found].map((name) => [name, "folder"])) };
}

function kindOf(entry: Dirent, folder: string): string {
  const kind = kindOfFile(entry);
  if (kind !== undefined) return kind;
  // Some file systems do not say with the name what it is.
  const stats = lstatSync(`${folder}/${entry.name}`, { throwIfNoEntry: false });
  return (stats && kindOfFile(stats)) ?? "a special file";
}

/** The root that one PATH of the command line stands for. */
export function rootOf(path: string, name: string | undefined, nested: boolean): Root {
  return { path, name: name ?? basename(resolve(path)), nested };
}
