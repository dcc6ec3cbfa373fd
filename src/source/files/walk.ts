/** Finds the sources and their frames below directories. */
import { statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { FramesError, systemSentence, usageError } from "../../errors.ts";
import type { OnSourceEvent, SkippedPath } from "../source-event.ts";
import { DirectorySource } from "./directory-source.ts";
import {
  FileFilter,
  type FilterOptions,
  type FolderLocation,
  folderPath,
  folderSourceName,
  type RootDirectory,
} from "./file-filter.ts";
import { compareNatural } from "./natural-order.ts";
import { PackedNames } from "./packed-names.ts";

/** Result of `walk`. */
export interface WalkResult {
  readonly sources: DirectorySource[];
  /** Links and special files. In large folders they are found only when sending. */
  readonly skipped: SkippedPath[];
  /** Folders that could not be read. Their frames are missing. */
  readonly unreadable: SkippedPath[];
  /** Files that patterns exclude. Files in excluded folders are not counted. */
  filteredOut: number;
}

/**
 * Finds the sources below the roots, in natural order.
 *
 * @param onEvent called later, while the frames are sent
 * @throws {FramesError} `missing` if a root is not a directory that can be read, `usage` if two
 * folders would be the same source
 */
export function walk(
  roots: readonly RootDirectory[],
  filter: FilterOptions,
  onEvent: OnSourceEvent = () => {},
): WalkResult {
  const result: WalkResult = { sources: [], skipped: [], unreadable: [], filteredOut: 0 };
  const fileFilter = new FileFilter(filter, {
    onSkipped: (entry) => result.skipped.push(entry),
    onUnreadable: (entry) => result.unreadable.push(entry),
    onFilteredOut: () => result.filteredOut++,
  });
  const collect = (location: FolderLocation): void => {
    const { names, folders } = fileFilter.readFolder(location);
    if (names.length > 0) {
      names.sort(compareNatural);
      const [name, path] = [folderSourceName(location), folderPath(location)];
      result.sources.push(new DirectorySource({ name, path, names, onEvent }));
    }
    folders.sort((a, b) => compareNatural(a.relativePath, b.relativePath));
    for (const folder of folders) collect(folder);
  };
  for (const root of roots) {
    checkDirectory(root.path);
    collect(fileFilter.rootLocation(root));
  }
  // Without a collection, the unpacked names of a million files would count as memory in use.
  // Hundreds of megabytes of garbage could then build up before the next collection.
  if (result.sources.some(({ names }) => names instanceof PackedNames)) Bun.gc(true);
  result.skipped.sort((a, b) => compareNatural(a.path, b.path));
  const seen = new Map<string, string>();
  for (const { name, path } of result.sources) {
    const other = seen.get(name);
    if (other !== undefined) {
      throw usageError(
        `Cannot send ${other} and ${path}: both are the source ${name}; rename one with --source NAME=PATH`,
      );
    }
    seen.set(name, path);
  }
  return result;
}

/** @throws {FramesError} `missing` if `path` is not a directory that can be read */
export function checkDirectory(path: string): void {
  let reason: string | undefined;
  try {
    if (!statSync(path).isDirectory())
      reason = "not a directory; name the directory that contains it";
  } catch (error) {
    reason = `${systemSentence(error)}; check the path`;
  }
  if (reason !== undefined) throw new FramesError("missing", `Cannot send ${path}: ${reason}`);
}

/** Creates the root for one PATH of the command line. */
export function createRoot(
  path: string,
  name: string | undefined,
  isNested: boolean,
): RootDirectory {
  return { path, name: name ?? basename(resolve(path)), isNested };
}
