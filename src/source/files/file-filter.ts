/** Selects the files and folders below a root that are sent. */
import { compileCheaply } from "../../common/compilation.ts";
import { type Dirent, lstatSync, readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { FramesError, systemSentence } from "../../errors.ts";
import type { SkippedPath } from "../source-event.ts";
import { fileKind } from "./directory-source.ts";

/** A directory to send, and the source name of the frames directly in it. */
export interface RootDirectory {
  readonly path: string;
  readonly name: string;
  /**
   * Whether sub-folders are named below `name`. Otherwise their source name is their path below
   * `path`.
   */
  readonly isNested: boolean;
}

/** Patterns that select files. Hidden and temporary files are never sent. */
export interface FilterOptions {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/**
 * Size in bytes of a directory itself above which it has more than a hundred thousand entries. File
 * types are not listed with the names then, because that takes 100 MB more for a million entries.
 */
const largeFolderBytes = 2_500_000;

/** The entries of a folder. */
interface FolderListing {
  readonly names: string[];
  /** Kinds of the entries that are not regular files, by name. */
  readonly otherKinds: ReadonlyMap<string, string>;
}

type Matcher = (relative: string, name: string, isFolder: boolean) => boolean;

/** `FilterOptions` compiled to functions. */
interface CompiledPatterns {
  /** Whether there are no include patterns, so that every file not excluded is included. */
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

/**
 * Compiles a pattern. One with a slash is matched against the path below the root, another against
 * the name.
 */
function compilePattern(pattern: string): Matcher {
  const isFolderOnly = pattern.endsWith("/");
  const isPathPattern = pattern.replace(/\/$/, "").includes("/");
  const glob = new Bun.Glob(pattern.replace(/\/$/, "").replace(/^\//, ""));
  return (relative, name, isFolder) =>
    (isFolder || !isFolderOnly) && glob.match(isPathPattern ? relative : name);
}

/** A folder below a root, or the root. */
export interface FolderLocation {
  readonly root: RootDirectory;
  /** Path below the root; empty for the root. */
  readonly relativePath: string;
  /** Whether every file in it is included, because a pattern matched the folder. */
  readonly isIncluded: boolean;
}

/** The selected entries of a folder. */
export interface FolderContents {
  /** Names of its frames, unordered. */
  readonly names: string[];
  readonly folders: FolderLocation[];
}

/** Returns the absolute path of a folder. */
export function folderPath({ root, relativePath }: FolderLocation): string {
  return join(resolve(root.path), relativePath);
}

/** Returns the source name of the frames directly in a folder. */
export function folderSourceName({ root, relativePath }: FolderLocation): string {
  if (relativePath === "") return root.name;
  // A sub-folder with the name of the root must not become the same source as the root.
  if (relativePath === root.name || relativePath.startsWith(`${root.name}/`))
    return `${root.name}/${relativePath}`;
  return root.isNested ? `${root.name}/${relativePath}` : relativePath;
}

/** Callbacks of a `FileFilter`. */
export interface FileFilterHooks {
  /** Called for a link or special file. These are never followed. */
  onSkipped(entry: SkippedPath): void;
  /** Called for a folder that cannot be read. */
  onUnreadable(entry: SkippedPath): void;
  /** Called for a file that the patterns exclude. */
  onFilteredOut(): void;
}

/** Selects the entries of a folder that are sent. */
export class FileFilter {
  readonly #patterns: CompiledPatterns;
  readonly #hooks: FileFilterHooks;

  constructor(options: FilterOptions, hooks: FileFilterHooks) {
    this.#patterns = compilePatterns(options);
    this.#hooks = hooks;
  }

  /** Returns the location of a root, where scanning begins. */
  rootLocation(root: RootDirectory): FolderLocation {
    return { root, relativePath: "", isIncluded: this.#patterns.includesAll };
  }

  /**
   * Returns whether a file is sent; for a folder that is scanned, its location.
   *
   * @param kind `file`, `folder` or a description of another type; `undefined` counts as a file
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
    // Only a pattern that ends with a slash includes a folder with all its files.
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
   * Lists the selected entries of a folder.
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
      // A name that is not UTF-8 is listed with U+FFFD in it, and cannot be opened.
      const why = path.includes("\uFFFD")
        ? "its name is not UTF-8; rename it"
        : systemSentence(error);
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

/**
 * Lists only names and folders. Links and special files count as files until the source opens them.
 */
function listLargeFolder(path: string): FolderListing {
  const names = readdirSync(path);
  const folders = new Bun.Glob("*/").scanSync({ cwd: path, onlyFiles: false, dot: true });
  return { names, otherKinds: new Map([...folders].map((name) => [name, "folder"])) };
}

function entryKind(entry: Dirent, folder: string): string {
  const kind = fileKind(entry);
  if (kind !== undefined) return kind;
  // Some file systems do not return the entry type with the name.
  const stats = lstatSync(`${folder}/${entry.name}`, { throwIfNoEntry: false });
  return (stats && fileKind(stats)) ?? "a special file";
}

compileCheaply(FileFilter.prototype.select);
