/**
 * Watches folders for files that become complete. A file is complete when it is renamed into place
 * or has been unchanged for a while. Combines file system events with periodic rescans, because
 * some file systems send no events.
 */
import {
  type BigIntStats,
  closeSync,
  type FSWatcher,
  lstatSync,
  openSync,
  readSync,
  statSync,
  watch,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { FramesError, systemSentence } from "../../errors.ts";
import { openFlags } from "../../common/open-flags.ts";
import { fileKind, type SkippedPath } from "./directory-source.ts";
import { SeenFiles } from "./seen-files.ts";
import { hasImageEnd } from "../image/image-end.ts";
import { compareNatural } from "./natural-order.ts";
import {
  type FilterOptions,
  type FolderLocation,
  folderPath,
  type RootDirectory,
  FileFilter,
  folderSourceName,
} from "./file-filter.ts";
import { WatchedFolder } from "./watched-folder.ts";

/** How folders are watched. Durations are in milliseconds. */
export interface WatchOptions {
  readonly filter: FilterOptions;
  /** Time for which size and modification time must be unchanged before a file is complete. */
  readonly settleMs: number;
  /** Files last modified before this time, in nanoseconds since 1970, are not sent. */
  readonly since: bigint | undefined;
}

/** Callbacks of a `DirectoryWatcher`. */
export interface WatchHooks {
  /** Called when a folder has its first frame. */
  onSource(source: WatchedFolder): void;
  onSkipped(skipped: SkippedPath): void;
  /** Called when something cannot be watched or read. The watcher tries again by itself. */
  onRetry(error: FramesError): void;
}

/** A file that was found and is not yet complete. */
interface PendingFile {
  size: bigint;
  time: bigint;
  readonly inode: bigint;
  /** When it last changed, by `performance.now()`. */
  since: number;
  /** Whether it probably was renamed to this name when already written. */
  isRenamed: boolean;
}

/** A file that disappeared before it was complete. */
interface RemovedFile {
  readonly folder: FolderState;
  readonly name: string;
  /** Its last size and time, because the file system may reuse its inode at once. */
  readonly size: bigint;
  readonly time: bigint;
  readonly removedAt: number;
}

/** A watched folder and its incomplete files. */
interface FolderState {
  readonly id: number;
  readonly location: FolderLocation;
  readonly path: string;
  source: WatchedFolder | undefined;
  readonly pending: Map<string, PendingFile>;
}

/** Interval at which incomplete files are checked, in milliseconds. */
const tickIntervalMs = 10;

/** Time without further events after which a renamed file counts as complete, in milliseconds. */
const renameQuietMs = 8;

/** Files unchanged for this long when the watch begins are complete, in milliseconds. */
const initialStableMs = 10_000;

/**
 * Shortest interval between rescans, in milliseconds. A slow rescan is followed by a pause of 20
 * times its duration.
 */
const minRescanIntervalMs = 1000;
const rescanCostFactor = 20;

/**
 * Time in which a file that disappeared may reappear under another name before it is lost, in
 * milliseconds.
 */
const removedTimeoutMs = 1000;

/** Bytes at both ends of a file that show whether an image is complete. */
const imageEndBytes = 64;

export class DirectoryWatcher {
  readonly #roots: readonly RootDirectory[];
  readonly #options: WatchOptions;
  readonly #hooks: WatchHooks;
  readonly #filter: FileFilter;
  readonly #folders = new Map<string, FolderState>();
  /** File system watcher of each root, and the inode that it watches. */
  readonly #watchers = new Map<
    RootDirectory,
    { watcher: FSWatcher | undefined; inode: bigint | undefined }
  >();
  /** Files that were sent or are queued. */
  readonly #seen = new SeenFiles();
  /** Files that disappeared before they were complete, by inode. */
  readonly #removed = new Map<bigint, RemovedFile>();
  readonly #reported = new Set<string>();
  /** Folder path of each source name in use. */
  readonly #sourcePaths = new Map<string, string>();
  #ticker: NodeJS.Timeout | undefined;
  #rescanTimer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(roots: readonly RootDirectory[], options: WatchOptions, hooks: WatchHooks) {
    this.#roots = roots;
    this.#options = options;
    this.#hooks = hooks;
    this.#filter = new FileFilter(options.filter, {
      onSkipped: (entry) => this.#reportOnce(entry.path, () => hooks.onSkipped(entry)),
      onUnreadable: ({ path, why }) => {
        this.#reportRetry(new FramesError("unreadable", `Cannot read ${path}: ${why}`));
      },
      onFilteredOut: () => {},
    });
  }

  /** Reports each key once, although every rescan finds it again. */
  #reportOnce(key: string, report: () => void): void {
    if (this.#reported.has(key)) return;
    this.#reported.add(key);
    report();
  }

  #reportRetry(error: FramesError): void {
    this.#reportOnce(error.message, () => this.#hooks.onRetry(error));
  }

  /**
   * Scans all folders and starts watching them.
   *
   * @throws {FramesError} `missing` if a root cannot be read, `usage` if two folders would be the
   * same source
   */
  start(): void {
    for (const root of this.#roots) {
      this.#watchRoot(root);
      this.#scanFolder(this.#filter.rootLocation(root), true);
    }
    this.#scheduleRescan(0);
    this.#ticker = setInterval(() => this.#tick(), tickIntervalMs);
  }

  #watchRoot(root: RootDirectory): void {
    const path = resolve(root.path);
    const inode = getInode(path);
    this.#watchers.set(root, { watcher: undefined, inode });
    try {
      const watcher = watch(path, { recursive: true }, (event, name) => {
        // Events about the root itself have no name: null in Node, `undefined` in Bun.
        if (typeof name === "string") this.#onEvent(root, join(path, name), event === "rename");
      });
      watcher.on("error", (error) => this.#onWatchError(path, error));
      this.#watchers.set(root, { watcher, inode });
    } catch (error) {
      this.#onWatchError(path, error);
    }
  }

  /** Reports the error once. The rescans find new files without events. */
  #onWatchError(path: string, error: unknown): void {
    const reason = systemSentence(error);
    const message = `Cannot watch ${path}: ${reason}; it is scanned every second instead`;
    this.#reportRetry(new FramesError("unreadable", message, { cause: error }));
  }

  #onEvent(root: RootDirectory, path: string, isRename: boolean): void {
    if (this.#isStopped) return;
    const folder = this.#folders.get(dirname(path));
    // The folder's own event is still to come or was lost. The rescan will find the folder.
    if (folder?.location.root !== root) return;
    this.#checkFile(folder, basename(path), isRename);
  }

  /** Scans a folder and its sub-folders. */
  #scanFolder(location: FolderLocation, isFirst: boolean, isReplaced = false): void {
    const path = folderPath(location);
    const { names, folders } = this.#filter.readFolder(location);
    let folder = this.#folders.get(path);
    if (folder === undefined) {
      folder = { id: this.#folders.size, location, path, source: undefined, pending: new Map() };
      this.#folders.set(path, folder);
    }
    if (isFirst && names.length > 0 && !this.#reserveName(folder))
      throw this.#nameConflictError(folder);
    if (isFirst) this.#addExisting(folder, names);
    // The new folder may contain files with the names of already known files, so check all of them.
    else if (isReplaced) for (const name of names) this.#checkFile(folder, name, false);
    else for (const name of names) this.#checkIfNew(folder, name);
    for (const below of folders) this.#scanFolder(below, isFirst, isReplaced);
  }

  /** Classifies the files found at the start, in natural order. */
  #addExisting(folder: FolderState, names: string[]): void {
    const now = Date.now();
    const complete: string[] = [];
    for (const name of names.sort(compareNatural)) {
      const stats = statFile(join(folder.path, name));
      if (stats === undefined || !stats.isFile()) continue;
      if (this.#isTooOld(stats)) {
        this.#seen.put(folder.id, name, { size: stats.size, time: stats.mtimeNs });
      } else if (now - Number(stats.mtimeMs) >= initialStableMs) {
        this.#seen.put(folder.id, name, { size: stats.size, time: stats.mtimeNs });
        complete.push(name);
      } else {
        this.#checkFile(folder, name, false);
      }
    }
    if (complete.length > 0) this.#getSource(folder, complete);
  }

  #isTooOld({ mtimeNs }: BigIntStats): boolean {
    return this.#options.since !== undefined && mtimeNs < this.#options.since;
  }

  #getSource(folder: FolderState, initial: readonly string[] = []): WatchedFolder {
    if (folder.source !== undefined) return folder.source;
    const hooks = {
      isUnchanged: (name: string, isInitial: boolean) => this.#isUnchanged(folder, name, isInitial),
      isComplete: (name: string) => {
        const path = join(folder.path, name);
        return isFileComplete(path, Number(statFile(path)?.size ?? 0n));
      },
      onRemoved: (name: string) => this.#seen.delete(folder.id, name),
      onSkipped: (entry: SkippedPath) => this.#hooks.onSkipped(entry),
    };
    folder.source = new WatchedFolder(
      folderSourceName(folder.location),
      folder.path,
      initial,
      hooks,
    );
    if (this.#reserveName(folder)) this.#hooks.onSource(folder.source);
    else this.#reportRetry(this.#nameConflictError(folder));
    return folder.source;
  }

  /**
   * Returns whether the source name belongs to this folder. The first folder to use a name gets it.
   */
  #reserveName({ location, path }: FolderState): boolean {
    const name = folderSourceName(location);
    if (!this.#sourcePaths.has(name)) this.#sourcePaths.set(name, path);
    return this.#sourcePaths.get(name) === path;
  }

  #nameConflictError({ location, path }: FolderState): FramesError {
    const name = folderSourceName(location);
    const conflict = `Cannot send ${this.#sourcePaths.get(name)} and ${path}: both are the source ${name}`;
    return new FramesError("usage", `${conflict}; rename one with --source NAME=PATH`);
  }

  /**
   * Returns whether a file is still as it was when complete. A changed file is watched again, and
   * sent later.
   */
  #isUnchanged(folder: FolderState, name: string, isInitial: boolean): boolean {
    const path = join(folder.path, name);
    const stats = statFile(path);
    // Opening a missing file reports the loss. After `stop` no changed file could be sent later.
    if (stats === undefined || !stats.isFile() || this.#isStopped) return true;
    const seen = this.#seen.get(folder.id, name);
    const isSame = seen?.size === stats.size && seen.time === stats.mtimeNs;
    // The end of a file that was present at the start has not been checked before.
    if (isSame && (!isInitial || isFileComplete(path, Number(stats.size)))) return true;
    this.#seen.delete(folder.id, name);
    this.#checkFile(folder, name, false);
    return false;
  }

  #checkIfNew(folder: FolderState, name: string): void {
    if (folder.pending.has(name) || this.#seen.get(folder.id, name) !== null) return;
    this.#checkFile(folder, name, false);
  }

  /** Updates the state of one path after an event or in a rescan. */
  #checkFile(folder: FolderState, name: string, isRename: boolean): void {
    const stats = statFile(join(folder.path, name));
    const pending = folder.pending.get(name);
    if (stats === undefined) return this.#onRemoved(folder, name, pending);
    const kind = fileKind(stats);
    const selected = this.#filter.select(folder.location, name, kind);
    if (typeof selected === "object") {
      if (!this.#folders.has(join(folder.path, name))) this.#scanFolder(selected, false);
      return;
    }
    if (!selected) return;
    const { size, mtimeNs: time, ino: inode } = stats;
    const seen = this.#seen.get(folder.id, name);
    if (seen?.size === size && seen.time === time) return;
    const removed = this.#removed.get(inode);
    if (removed?.size === size && removed.time === time) this.#removed.delete(inode);
    const since = performance.now();
    if (pending === undefined || pending.inode !== inode) {
      const isRenamed = isRename && size > 0n;
      folder.pending.set(name, { size, time, inode, since, isRenamed });
      return;
    }
    // An event that leaves size and time unchanged still means that the file was written to.
    if (!isRename || pending.size !== size || pending.time !== time) {
      Object.assign(pending, { size, time, since, isRenamed: false });
    } else if (size > 0n && !pending.isRenamed) {
      // The rescan found the file before its rename event arrived.
      Object.assign(pending, { since, isRenamed: true });
    }
  }

  /**
   * Handles a file that disappeared. If it was complete, its source reports the loss when opening
   * it.
   */
  #onRemoved(folder: FolderState, name: string, pending: PendingFile | undefined): void {
    if (pending === undefined) {
      if (this.#seen.get(folder.id, name) !== null) this.#seen.delete(folder.id, name);
      return;
    }
    folder.pending.delete(name);
    const { size, time, inode } = pending;
    if (size > 0n)
      this.#removed.set(inode, { folder, name, size, time, removedAt: performance.now() });
  }

  #tick(): void {
    const now = performance.now();
    for (const folder of this.#folders.values()) {
      for (const [name, pending] of folder.pending) {
        const age = now - pending.since;
        const isDue = pending.isRenamed ? age >= renameQuietMs : age >= this.#options.settleMs;
        if (isDue) this.#complete(folder, name, pending);
      }
    }
    for (const [inode, { folder, name, removedAt }] of this.#removed) {
      if (now - removedAt >= removedTimeoutMs) this.#reportLoss(inode, folder, name);
    }
  }

  #reportLoss(inode: bigint, folder: FolderState, name: string): void {
    this.#removed.delete(inode);
    const error = new FramesError("vanished", "it was deleted before it was complete");
    this.#getSource(folder).addLoss(name, error);
  }

  /**
   * Passes a file that is due to its source. If it changed or has no image end, the wait starts
   * again.
   */
  #complete(folder: FolderState, name: string, pending: PendingFile): void {
    const path = join(folder.path, name);
    const stats = statFile(path);
    if (stats === undefined) return this.#onRemoved(folder, name, pending);
    const { size, mtimeNs: time } = stats;
    if (pending.size !== size || pending.time !== time || !isFileComplete(path, Number(size))) {
      return void Object.assign(pending, {
        size,
        time,
        since: performance.now(),
        isRenamed: false,
      });
    }
    folder.pending.delete(name);
    this.#seen.put(folder.id, name, { size, time });
    this.#getSource(folder).add(name);
  }

  #scheduleRescan(tookMs: number): void {
    const delayMs = Math.max(minRescanIntervalMs, rescanCostFactor * tookMs);
    this.#rescanTimer = setTimeout(() => {
      const began = performance.now();
      for (const root of this.#roots) this.#rescanRoot(root);
      this.#scheduleRescan(performance.now() - began);
    }, delayMs);
  }

  #rescanRoot(root: RootDirectory): void {
    try {
      const { watcher, inode } = this.#watchers.get(root)!;
      const currentInode = getInode(root.path);
      const isReplaced = currentInode !== undefined && currentInode !== inode;
      if (isReplaced) {
        watcher?.close();
        this.#watchRoot(root);
      }
      this.#scanFolder(this.#filter.rootLocation(root), false, isReplaced);
    } catch (error) {
      // The root may be a network mount that comes back.
      if (!(error instanceof FramesError)) throw error;
      this.#reportRetry(error);
    }
  }

  /** Stops watching. Complete files are still sent; incomplete ones are reported as losses. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#rescanTimer);
    for (const { watcher } of this.#watchers.values()) watcher?.close();
    const error = new FramesError("stopped", "it was not complete when sending stopped");
    for (const [inode, { folder, name }] of this.#removed) this.#reportLoss(inode, folder, name);
    for (const folder of this.#folders.values()) {
      // A renamed file is complete even if its quiet time has not passed.
      for (const [name, pending] of folder.pending) {
        if (pending.isRenamed) this.#complete(folder, name, pending);
      }
      for (const name of folder.pending.keys()) this.#getSource(folder).addLoss(name, error);
      folder.pending.clear();
      folder.source?.stopCapture();
    }
  }

  /** Stops watching and frees the list of known files. */
  close(): void {
    this.stop();
    this.#seen.close();
  }
}

function statFile(path: string): BigIntStats | undefined {
  try {
    return lstatSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    // The rescan reports a parent folder that cannot be entered.
    return undefined;
  }
}

function getInode(path: string): bigint | undefined {
  try {
    return statSync(path, { bigint: true }).ino;
  } catch {
    return undefined;
  }
}

/** Returns whether an image has its end. Formats without a recognizable end count as complete. */
function isFileComplete(path: string, size: number): boolean {
  try {
    const fd = openSync(path, openFlags);
    try {
      const bytes = Math.min(size, imageEndBytes);
      const [head, tail] = [new Uint8Array(bytes), new Uint8Array(bytes)];
      readSync(fd, head, 0, bytes, 0);
      readSync(fd, tail, 0, bytes, size - bytes);
      return hasImageEnd(head, tail) !== false;
    } finally {
      closeSync(fd);
    }
  } catch {
    // Sending the file will report why it cannot be read.
    return true;
  }
}
