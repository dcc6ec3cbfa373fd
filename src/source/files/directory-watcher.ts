/**
 * Watches folders for files that become complete. A file is complete when it is renamed into place
 * or has been unchanged for a while. Combines file system events with periodic rescans, because
 * some file systems send no events.
 */
import { type BigIntStats, lstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { closeReadFile } from "../../common/close-file.ts";
import { FramesError, systemCode, systemSentence, usageError } from "../../errors.ts";
import { openFlags } from "../../common/open-flags.ts";
import type { OnSourceEvent } from "../source-event.ts";
import { fileKind } from "./directory-source.ts";
import { int64, type SeenFile, SeenFiles, type SeenName } from "./seen-files.ts";
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
import { type FolderEvent, type FolderEvents, openFolderEvents } from "./folder-events.ts";
import { WatchedFolder } from "./watched-folder.ts";

/** How folders are watched. Durations are in milliseconds. */
export interface WatchOptions {
  readonly roots: readonly RootDirectory[];
  readonly filter: FilterOptions;
  /** Time for which size and modification time must be unchanged before a file is complete. */
  readonly settleMs: number;
  /** Files last modified before this time, in nanoseconds since 1970, are not sent. */
  readonly since: bigint | undefined;
}

export interface WatcherOptions extends WatchOptions {
  /** Called when a folder has its first frame. */
  readonly onSource: (source: WatchedFolder) => void;
  /** Called also when something cannot be watched or read. The watcher tries again by itself. */
  readonly onEvent: OnSourceEvent;
  /** Opens the events of the folders; by default those of the system. */
  readonly openEvents?: typeof openFolderEvents;
}

/** A file that was found and is not yet complete. */
interface PendingFile extends SeenFile {
  /** When it last changed, by `performance.now()`. */
  readonly since: number;
  /** Milliseconds for which it must be unchanged: none if it was complete when it got this name. */
  readonly waitMs: number;
}

/** A file that disappeared before it was sent. */
interface RemovedFile {
  readonly folder: FolderState;
  readonly name: string;
  /** Its last state. The inode alone is not enough, because the file system may reuse it at once. */
  readonly state: SeenFile;
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

/**
 * Time in milliseconds that an image without its end waits longer than others. It may be half
 * written, or have other data after its end.
 */
const missingEndMs = 3000;

/** Files unchanged for this long when the watch begins are complete, in milliseconds. */
const initialStableMs = 10_000;

/**
 * Shortest interval between rescans, in milliseconds. Each step of a rescan is followed by a pause
 * of 20 times its duration.
 */
const minRescanIntervalMs = 1000;
const rescanCostFactor = 20;

/** Longest time in milliseconds in which known files are compared without a pause. */
const maxCompareMs = 5;

/** Known files that are compared before the time is checked. */
const compareCount = 64;

/** Stands before all known files. */
const firstName: SeenName = { folder: -1n, name: "" };

/**
 * Time in which a file that disappeared may reappear under another name before it is lost, in
 * milliseconds.
 */
const removedTimeoutMs = 1000;

/** Bytes at both ends of a file that show whether an image is complete. */
const imageEndBytes = 64;

export class DirectoryWatcher {
  readonly #options: WatcherOptions;
  readonly #filter: FileFilter;
  readonly #folders = new Map<string, FolderState>();
  readonly #foldersById: FolderState[] = [];
  readonly #events: FolderEvents;
  /** Files that were sent or are queued. */
  readonly #seen = new SeenFiles();
  /** Files that disappeared before they were sent, by path. */
  readonly #removed = new Map<string, RemovedFile>();
  readonly #reported = new Set<string>();
  /** Folder path of each source name in use. */
  readonly #sourcePaths = new Map<string, string>();
  #ticker: NodeJS.Timeout | undefined;
  #rescanTimer: NodeJS.Timeout | undefined;
  /** The known file that a rescan compared last; `undefined` while it compares none. */
  #lastCompared: SeenName | undefined;
  #isStopped = false;

  constructor(options: WatcherOptions) {
    const { onEvent, openEvents = openFolderEvents } = options;
    this.#options = { ...options, settleMs: Math.max(1, options.settleMs) };
    this.#filter = new FileFilter(options.filter, {
      onSkipped: (skipped) => {
        this.#reportOnce(skipped.path, () => onEvent({ type: "skipped", skipped }));
      },
      onUnreadable: ({ path, why }) => {
        this.#reportRetry(new FramesError("unreadable", `Cannot read ${path}: ${why}`));
      },
      onFilteredOut: () => {},
    });
    this.#events = openEvents({
      onEvent: (folder, name, event) => this.#onEvent(folder, name, event),
      onOverflow: () => this.#scheduleRescan(0),
      onError: (path, error) => this.#onWatchError(path, error),
    });
  }

  /** Reports each key once, although every rescan finds it again. */
  #reportOnce(key: string, report: () => void): void {
    if (this.#reported.has(key)) return;
    this.#reported.add(key);
    report();
  }

  #reportRetry(error: FramesError): void {
    this.#reportOnce(error.message, () => this.#options.onEvent({ type: "retry", error }));
  }

  /**
   * Scans all folders and starts watching them.
   *
   * @throws {FramesError} `missing` if a root cannot be read, `usage` if two folders would be the
   * same source
   */
  start(): void {
    for (const root of this.#options.roots) this.#scanFolder(this.#filter.rootLocation(root), true);
    this.#scheduleRescan(minRescanIntervalMs);
    this.#ticker = setInterval(() => this.#tick(), tickIntervalMs);
  }

  /** Reports the error once. The rescans find changes without events. */
  #onWatchError(path: string, error: unknown): void {
    const rest = "it is scanned every second instead";
    if (systemCode(error) !== "ENOSPC") {
      const message = `Cannot watch ${path}: ${systemSentence(error)}; ${rest}`;
      return this.#reportRetry(new FramesError("unreadable", message, { cause: error }));
    }
    const why = "the system's limit of watched folders is reached";
    const advice = "to raise it run sudo sysctl fs.inotify.max_user_watches=1048576";
    const message = `Cannot watch ${path}: ${why}; ${rest}; ${advice}`;
    // One report for all folders.
    this.#reportOnce("ENOSPC", () => {
      const retried = new FramesError("unreadable", message, { cause: error });
      this.#options.onEvent({ type: "retry", error: retried });
    });
  }

  #onEvent(path: string, name: string, event: FolderEvent): void {
    if (this.#isStopped) return;
    const folder = this.#folders.get(path);
    // The folder's own event is still to come or was lost. The rescan will find the folder.
    if (folder !== undefined) this.#checkFile(folder, name, event);
  }

  /** Scans a folder and its sub-folders. */
  #scanFolder(location: FolderLocation, isFirst: boolean): void {
    const path = folderPath(location);
    // Before the listing, so that nothing that comes after it is missed.
    this.#events.watch(path, location.relativePath === "");
    const { names, folders } = this.#filter.readFolder(location);
    let folder = this.#folders.get(path);
    if (folder === undefined) {
      const id = this.#foldersById.length;
      folder = { id, location, path, source: undefined, pending: new Map() };
      this.#folders.set(path, folder);
      this.#foldersById.push(folder);
    }
    if (isFirst && names.length > 0 && !this.#reserveName(folder))
      throw this.#nameConflictError(folder);
    if (isFirst) this.#addExisting(folder, names);
    else for (const name of names) this.#checkIfNew(folder, name);
    for (const below of folders) this.#scanFolder(below, isFirst);
  }

  /** Classifies the files found at the start, in natural order. */
  #addExisting(folder: FolderState, names: string[]): void {
    const now = Date.now();
    const stableMs = Math.max(initialStableMs, this.#options.settleMs);
    const complete: string[] = [];
    for (const name of names.sort(compareNatural)) {
      const stats = statFile(join(folder.path, name));
      if (stats === undefined || !stats.isFile()) continue;
      if (this.#isTooOld(stats)) {
        this.#seen.put(folder.id, name, stateOf(stats));
      } else if (now - Number(stats.mtimeMs) >= stableMs) {
        this.#seen.put(folder.id, name, stateOf(stats));
        complete.push(name);
      } else {
        this.#checkFile(folder, name, undefined);
      }
    }
    if (complete.length > 0) this.#getSource(folder, complete);
  }

  #isTooOld({ mtimeNs }: BigIntStats): boolean {
    return this.#options.since !== undefined && mtimeNs < this.#options.since;
  }

  #getSource(folder: FolderState, initial: readonly string[] = []): WatchedFolder {
    if (folder.source !== undefined) return folder.source;
    const source = new WatchedFolder({
      name: folderSourceName(folder.location),
      path: folder.path,
      initial,
      isUnchanged: (name: string) => this.#isUnchanged(folder, name),
      mayRevise: (name: string) => this.#seen.getRemoved(folder.id, name) === null,
      isComplete: (name: string) => {
        const path = join(folder.path, name);
        return isFileComplete(path, Number(statFile(path)?.size ?? 0n));
      },
      onRemoved: (name: string) => {
        // A late event may have made it pending again, although it was sent as it is.
        folder.pending.delete(name);
        this.#seen.removeForGood(folder.id, name);
      },
      onEvent: this.#options.onEvent,
    });
    folder.source = source;
    if (this.#reserveName(folder)) this.#options.onSource(source);
    else this.#reportRetry(this.#nameConflictError(folder));
    return source;
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
    return usageError(`${conflict}; rename one with --source NAME=PATH`);
  }

  /**
   * Returns whether a file is still as it was when complete. A changed file is watched again, and
   * sent later.
   */
  #isUnchanged(folder: FolderState, name: string): boolean {
    // After `stop` no changed file could be sent later. Opening a missing file reports the loss.
    if (this.#isStopped) return true;
    this.#checkFile(folder, name, undefined);
    if (folder.pending.has(name)) return false;
    if (this.#seen.get(folder.id, name) !== null) return true;
    const state = this.#seen.getRemoved(folder.id, name);
    if (state === null || state.size < 0n) return true;
    // It may have been renamed. Otherwise it is reported as lost soon.
    this.#addRemoved(folder, name, state);
    return false;
  }

  #checkIfNew(folder: FolderState, name: string): void {
    if (folder.pending.has(name) || this.#seen.get(folder.id, name) !== null) return;
    this.#checkFile(folder, name, undefined);
  }

  /**
   * Updates the state of one path.
   *
   * @param event what happened to it; `undefined` if it was found without an event
   */
  #checkFile(folder: FolderState, name: string, event: FolderEvent | undefined): void {
    const path = join(folder.path, name);
    const stats = statFile(path);
    if (event === "removed" || stats === undefined) this.#onRemoved(folder, name);
    if (stats === undefined) return;
    const selected = this.#filter.select(folder.location, name, fileKind(stats));
    if (typeof selected === "object") {
      // Another folder may have the path now. What is in a known one has its own events.
      const isKnown = this.#folders.has(path) && (event === undefined || event === "touched");
      if (!isKnown) this.#scanFolder(selected, false);
      return;
    }
    if (!selected || this.#isKnown(folder, name, stats, event)) return;
    const pending = folder.pending.get(name);
    const state = { ...stateOf(stats), since: performance.now() };
    const isSame =
      pending !== undefined && isEqual(pending, state) && pending.inode === state.inode;
    if (isRenamed(stats, event)) folder.pending.set(name, { ...state, waitMs: 0 });
    else if (!isSame || event === "written")
      folder.pending.set(name, { ...state, waitMs: this.#options.settleMs });
  }

  /** Returns whether the file is one that was complete already. */
  #isKnown(
    folder: FolderState,
    name: string,
    stats: BigIntStats,
    event: FolderEvent | undefined,
  ): boolean {
    const state = stateOf(stats);
    const known = this.#seen.get(folder.id, name);
    if (known !== null) {
      // Bytes were written after it was complete, even if its size and time do not show it.
      if (event === "written" || !isEqual(known, state)) return false;
      // Without events the inode decides nothing: some network file systems make up new ones.
      return event === undefined || known.inode === state.inode;
    }
    if (event !== undefined || folder.pending.has(name)) return false;
    // The file system was gone for a while, and all of its files seemed to be removed.
    const removed = this.#seen.getRemoved(folder.id, name);
    if (removed === null || !isEqual(removed, state)) return false;
    this.#seen.restore(folder.id, name);
    return true;
  }

  /** Handles a file or folder that disappeared. */
  #onRemoved(folder: FolderState, name: string): void {
    const below = this.#folders.get(join(folder.path, name));
    if (below !== undefined) this.#onFolderRemoved(below);
    const pending = folder.pending.get(name);
    // If it is still queued, it is missed when it is to be sent.
    if (this.#seen.get(folder.id, name) !== null) this.#seen.remove(folder.id, name);
    folder.pending.delete(name);
    if (pending !== undefined && pending.size > 0n) this.#addRemoved(folder, name, pending);
  }

  #addRemoved(folder: FolderState, name: string, state: SeenFile): void {
    const removedAt = performance.now();
    this.#removed.set(join(folder.path, name), { folder, name, state, removedAt });
  }

  #onFolderRemoved(removed: FolderState): void {
    for (const folder of this.#foldersById) {
      if (folder !== removed && !folder.path.startsWith(`${removed.path}/`)) continue;
      for (const name of folder.pending.keys()) this.#onRemoved(folder, name);
      this.#seen.removeFolder(folder.id);
    }
  }

  #tick(): void {
    this.#events.poll();
    const now = performance.now();
    for (const folder of this.#folders.values()) {
      for (const [name, pending] of folder.pending) {
        if (now - pending.since >= pending.waitMs) this.#complete(folder, name, pending);
      }
    }
    this.#reportLosses(now - removedTimeoutMs);
  }

  /** Reports files that disappeared before `before` and were not found under another name. */
  #reportLosses(before: number): void {
    const due = [...this.#removed].filter(([, { removedAt }]) => removedAt <= before);
    if (due.length === 0) return;
    const inodes = new Map<bigint, PendingFile>();
    for (const { pending } of this.#foldersById) {
      for (const file of pending.values()) inodes.set(file.inode, file);
    }
    const error = new FramesError("vanished", "it was deleted before it was complete");
    for (const [path, { folder, name, state }] of due) {
      this.#removed.delete(path);
      const pending = inodes.get(state.inode);
      if ((pending !== undefined && isEqual(pending, state)) || this.#seen.has(state)) continue;
      this.#seen.setUnsent(folder.id, name);
      this.#getSource(folder).addLoss(name, error);
    }
  }

  /** Passes a file that is due to its source. If it changed, the wait starts again. */
  #complete(folder: FolderState, name: string, pending: PendingFile): void {
    const path = join(folder.path, name);
    const stats = statFile(path);
    if (stats === undefined) return this.#onRemoved(folder, name);
    const state = stateOf(stats);
    if (!isEqual(pending, state) || pending.inode !== state.inode) {
      const [since, waitMs] = [performance.now(), this.#options.settleMs];
      return void folder.pending.set(name, { ...state, since, waitMs });
    }
    // A renamed file is complete, and one that has waited for its end has no more to come.
    if (pending.waitMs === this.#options.settleMs && !isFileComplete(path, Number(state.size))) {
      const waitMs = pending.waitMs + missingEndMs;
      return void folder.pending.set(name, { ...pending, waitMs });
    }
    folder.pending.delete(name);
    this.#seen.put(folder.id, name, state);
    // It may be gone before the one that it was is reported as lost.
    for (const [before, { state: removed }] of this.#removed) {
      if (removed.inode === state.inode && isEqual(removed, state)) this.#removed.delete(before);
    }
    this.#getSource(folder).add(name);
  }

  #scheduleRescan(delayMs: number): void {
    clearTimeout(this.#rescanTimer);
    this.#rescanTimer = setTimeout(() => this.#rescan(), delayMs);
  }

  /**
   * Does one step of a rescan: lists the folders, or compares some of the known files with how they
   * were.
   */
  #rescan(): void {
    const began = performance.now();
    this.#events.poll();
    if (this.#lastCompared === undefined) {
      for (const root of this.#options.roots) this.#rescanRoot(root);
      this.#lastCompared = firstName;
    } else {
      this.#compareKnown(began + maxCompareMs);
    }
    const pauseMs = rescanCostFactor * (performance.now() - began);
    const isDone = this.#lastCompared === undefined;
    this.#scheduleRescan(isDone ? Math.max(minRescanIntervalMs, pauseMs) : pauseMs);
  }

  #compareKnown(until: number): void {
    do {
      const names = this.#seen.after(this.#lastCompared!, compareCount);
      for (const { folder, name } of names) {
        this.#checkFile(this.#foldersById[Number(folder)]!, name, undefined);
      }
      this.#lastCompared = names.at(-1);
    } while (this.#lastCompared !== undefined && performance.now() < until);
  }

  #rescanRoot(root: RootDirectory): void {
    try {
      this.#scanFolder(this.#filter.rootLocation(root), false);
    } catch (error) {
      // The root may be a network mount that comes back.
      if (!(error instanceof FramesError)) throw error;
      this.#reportRetry(error);
    }
  }

  /** Stops watching. Complete files are still sent; incomplete ones are reported as losses. */
  stop(): void {
    if (this.#isStopped) return;
    // A file whose rename is still to be read is complete.
    this.#events.poll();
    this.#isStopped = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#rescanTimer);
    this.#events.close();
    const error = new FramesError(
      "stopped",
      "it was not known to be complete when sending stopped",
    );
    for (const folder of this.#folders.values()) {
      for (const [name, pending] of folder.pending) {
        if (pending.waitMs === 0) this.#complete(folder, name, pending);
      }
    }
    this.#reportLosses(Infinity);
    for (const folder of this.#folders.values()) {
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

/** Returns the values that are compared. Kept as 64 bits, as `SeenFiles` has them. */
function stateOf({ size, mtimeNs, ino }: BigIntStats): SeenFile {
  return { size, time: int64(mtimeNs), inode: int64(ino) };
}

function isEqual(a: SeenFile, b: SeenFile): boolean {
  return a.size === b.size && a.time === b.time;
}

/** Returns whether a file got its name when it was already written. */
function isRenamed(stats: BigIntStats, event: FolderEvent | undefined): boolean {
  if (event === "moved") return stats.size > 0n;
  if (event !== "named" && event !== "created") return false;
  // A new name changes the ctime, and so do later bytes, but those change the mtime too.
  const isOlder = event === "named" && stats.ctimeNs > stats.mtimeNs;
  return stats.size > 0n && (isOlder || stats.nlink > 1n);
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
      closeReadFile(fd);
    }
  } catch {
    // Sending the file will report why it cannot be read.
    return true;
  }
}
