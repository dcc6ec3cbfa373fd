/** Selects the files and folders below a root that are sent. */
import { type Dirent, lstatSync, readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { FramesError, systemSentence } from "../../errors.ts";
import { fileKind, type SkippedPath } from "./directory-source.ts";

/** A directory to send, and the name of the source that the frames directly in it belong to. */
export interface RootDirectory {
  readonly path: string;
  readonly name: string;
  /** Whether sub-folders are named below `name`; otherwise by their path below `path` alone. */
  readonly isNested: boolean;
}

/** Which files are frames, beyond what every directory leaves out. */
export interface FilterOptions {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/**
 * A folder that takes more bytes itself holds more than a hundred thousand entries. Their kinds are not told
 * with their names then: for a million that would take 100 MB more.
 */
const largeFolderBytes = 2_500_000;

/** What is in a folder. */
interface FolderListing {
  readonly names: string[];
  /** What those names are that are no files. */
  readonly otherKinds: ReadonlyMap<string, string>;
}

type Matcher = (relative: string, name: string, isFolder: boolean) => boolean;

/** A filter that can be asked. */
interface CompiledPatterns {
  /** Whether everything is included that nothing excludes. */
  readonly includesAll: boolean;
  readonly includes: Matcher;
  readonly excludes: Matcher;
}

function compilePatterns({ include, exclude }: FilterOptions): CompiledPatterns {
  const files = include.filter((pattern) => !pattern.endsWith("/")).map(compilePattern);
  const folders = include.filter((pattern) => pattern.endsWith("/")).map(compilePattern);
  const excluded = exclude.map(compilePattern);
  return {
    includesAll: include.length === 0,
    includes: (relative, name, isFolder) =>
      (isFolder ? folders : files).some((matches) => matches(relative, name, isFolder)),
    excludes: (relative, name, isFolder) =>
      excluded.some((matches) => matches(relative, name, isFolder)),
  };
}

/** A pattern with a slash is held against the path below the root, another against the name. */
function compilePattern(pattern: string): Matcher {
  const isFolderOnly = pattern.endsWith("/");
  const isPathPattern = pattern.replace(/\/$/, "").includes("/");
  const glob = new Bun.Glob(pattern.replace(/\/$/, "").replace(/^\//, ""));
  return (relative, name, isFolder) =>
    (isFolder || !isFolderOnly) && glob.match(isPathPattern ? relative : name);
}

/** A folder below a root. */
export interface FolderLocation {
  readonly root: RootDirectory;
  /** Its path below the root, empty for the root. */
  readonly relativePath: string;
  /** Whether what is in it is included, whatever its name. */
  readonly isIncluded: boolean;
}

/** What a folder holds. */
export interface FolderContents {
  /** Names of its frames, in no order. */
  readonly names: string[];
  readonly folders: FolderLocation[];
}

/** Absolute path of a folder. */
export function folderPath({ root, relativePath }: FolderLocation): string {
  return join(resolve(root.path), relativePath);
}

/** Name of the source that the frames directly in a folder belong to. */
export function folderSourceName({ root, relativePath }: FolderLocation): string {
  if (relativePath === "") return root.name;
  // A folder named like the root is no other source than the root's, unless its name says where it is.
  if (relativePath === root.name || relativePath.startsWith(`${root.name}/`))
    return `${root.name}/${relativePath}`;
  return root.isNested ? `${root.name}/${relativePath}` : relativePath;
}

/** What a selection tells. */
export interface FileFilterHooks {
  /** A link or special file, which is never followed. */
  onSkipped(entry: SkippedPath): void;
  /** A folder that could not be read. */
  onUnreadable(entry: SkippedPath): void;
  /** A file that patterns leave out. */
  onFilteredOut(): void;
}

/** What is to be sent of a folder's entries. */
export class FileFilter {
  readonly #patterns: CompiledPatterns;
  readonly #hooks: FileFilterHooks;

  constructor(options: FilterOptions, hooks: FileFilterHooks) {
    this.#patterns = compilePatterns(options);
    this.#hooks = hooks;
  }

  /** Where a root begins. */
  rootLocation(root: RootDirectory): FolderLocation {
    return { root, relativePath: "", isIncluded: this.#patterns.includesAll };
  }

  /**
   * Whether something in a folder is to be sent, by its name alone: nothing, or a folder's place.
   *
   * @param kind `file`, `folder`, or what it is instead; what is not known counts as a file
   */
  select(
    { root, relativePath, isIncluded }: FolderLocation,
    name: string,
    kind: string | undefined,
  ): boolean | FolderLocation {
    if (name.startsWith(".") || name.endsWith(".tmp") || name.endsWith(".part")) return false;
    const relative = relativePath === "" ? name : `${relativePath}/${name}`;
    const isFolder = kind === "folder";
    if (this.#patterns.excludes(relative, name, isFolder)) {
      if (!isFolder) this.#hooks.onFilteredOut();
      return false;
    }
    // A folder is brought in whole only by a pattern that means folders.
    const isSelected = isIncluded || this.#patterns.includes(relative, name, isFolder);
    if (isFolder) return { root, relativePath: relative, isIncluded: isSelected };
    if (!isSelected) {
      this.#hooks.onFilteredOut();
      return false;
    }
    if (kind === undefined || kind === "file") return true;
    const path = join(resolve(root.path), relative);
    this.#hooks.onSkipped({ path, why: kind });
    return false;
  }

  /**
   * What is to be sent of a folder.
   *
   * @throws {FramesError} `missing` if the root cannot be read
   */
  readFolder(location: FolderLocation): FolderContents {
    const names: string[] = [];
    const folders: FolderLocation[] = [];
    const { names: all, otherKinds } = this.#listFolder(location);
    for (const name of all) {
      const selected = this.select(location, name, otherKinds.get(name));
      if (selected === true) names.push(name);
      else if (selected !== false) folders.push(selected);
    }
    return { names, folders };
  }

  #listFolder(location: FolderLocation): FolderListing {
    const path = folderPath(location);
    try {
      return statSync(path).size > largeFolderBytes ? listLargeFolder(path) : listFolder(path);
    } catch (error) {
      // A name that is not UTF-8 comes with U+FFFD in it, and cannot be opened.
      const why = path.includes("\uFFFD") ? "its name is not UTF-8" : systemSentence(error);
      if (location.relativePath === "")
        throw new FramesError("missing", `Cannot send ${location.root.path}: ${why}`);
      this.#hooks.onUnreadable({ path, why });
      return { names: [], otherKinds: new Map() };
    }
  }
}

function listFolder(path: string): FolderListing {
  const names: string[] = [];
  const otherKinds = new Map<string, string>();
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const kind = entryKind(entry, path);
    if (kind !== "file") otherKinds.set(entry.name, kind);
    names.push(entry.name);
  }
  return { names, otherKinds };
}

/** Links and the like are taken for files: the source finds out when it comes to them. */
function listLargeFolder(path: string): FolderListing {
  const names = readdirSync(path);
  const folders = new Bun.Glob("*/").scanSync({ cwd: path, onlyFiles: false, dot: true });
  return { names, otherKinds: new Map([...folders].map((name) => [name, "folder"])) };
}

function entryKind(entry: Dirent, folder: string): string {
  const kind = fileKind(entry);
  if (kind !== undefined) return kind;
  // Some file systems do not say with the name what it is.
  const stats = lstatSync(`${folder}/${entry.name}`, { throwIfNoEntry: false });
  return (stats && fileKind(stats)) ?? "a special file";
}
