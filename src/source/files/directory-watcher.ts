/**
 * Watches folders for frames that become complete: when they are renamed into place, or have stood still for
 * a while. The system's events and a look at all names every now and then go together, since some file systems
 * tell of nothing.
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

/** How folders are watched. Times are in milliseconds. */
export interface WatchOptions {
  readonly filter: FilterOptions;
  /** How long size and time of a file stand still before it is complete. */
  readonly settleMs: number;
  /** Files that changed last before this time, in nanoseconds since 1970, are left out. */
  readonly since: bigint | undefined;
}

/** What a watch tells. */
export interface WatchHooks {
  /** A folder has its first frame. */
  onSource(source: WatchedFolder): void;
  onSkipped(skipped: SkippedPath): void;
  /** Something could not be watched or read, and is tried again. */
  onRetry(error: FramesError): void;
}

/** A file that was seen and is not complete. */
interface PendingFile {
  size: bigint;
  time: bigint;
  readonly inode: bigint;
  /** When it last changed, by this process's clock. */
  since: number;
  /** Whether it came under this name as it is, as far as is known. */
  isRenamed: boolean;
}

/** A file that is gone and was not complete. */
interface RemovedFile {
  readonly folder: FolderState;
  readonly name: string;
  /** What it was: a disk may give its inode to another file at once. */
  readonly size: bigint;
  readonly time: bigint;
  readonly removedAt: number;
}

/** A folder that is watched. */
interface FolderState {
  readonly id: number;
  readonly location: FolderLocation;
  readonly path: string;
  source: WatchedFolder | undefined;
  readonly pending: Map<string, PendingFile>;
}

/** Pending files are looked at so often. */
const tickIntervalMs = 10;

/** A file that is renamed into place tells of no change within this time after it came. */
const renameQuietMs = 8;

/** Files that have not changed for so long when the watch begins are complete. */
const initialStableMs = 10_000;

/** All names are looked at so often, or less often where that takes long: 20 times as long as it took. */
const minRescanIntervalMs = 1000;
const rescanCostFactor = 20;

/** A file that is gone may come under another name; after so long it is lost. */
const removedTimeoutMs = 1000;

/** Bytes at both ends of a file that tell whether an image is whole. */
const imageEndBytes = 64;

export class DirectoryWatcher {
  readonly #roots: readonly RootDirectory[];
  readonly #options: WatchOptions;
  readonly #hooks: WatchHooks;
  readonly #filter: FileFilter;
  readonly #folders = new Map<string, FolderState>();
  /** For each root the folder that is watched, by its inode. */
  readonly #watchers = new Map<
    RootDirectory,
    { watcher: FSWatcher | undefined; inode: bigint | undefined }
  >();
  /** What was sent or is about to be. */
  readonly #seen = new SeenFiles();
  /** Files that are gone and were not complete, by their inode. */
  readonly #removed = new Map<bigint, RemovedFile>();
  readonly #reported = new Set<string>();
  /** Paths of the folders that are sources, by their names. */
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

  /** What is seen again with every look is told once. */
  #reportOnce(key: string, report: () => void): void {
    if (this.#reported.has(key)) return;
    this.#reported.add(key);
    report();
  }

  #reportRetry(error: FramesError): void {
    this.#reportOnce(error.message, () => this.#hooks.onRetry(error));
  }

  /**
   * Looks at everything that is there, and watches from then on.
   *
   * @throws {FramesError} `missing` if a root cannot be read, `usage` if two folders would be the same source
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
        // Of the folder itself it is told without a name: null, or with Bun nothing.
        if (typeof name === "string") this.#onEvent(root, join(path, name), event === "rename");
      });
      watcher.on("error", (error) => this.#onWatchError(path, error));
      this.#watchers.set(root, { watcher, inode });
    } catch (error) {
      this.#onWatchError(path, error);
    }
  }

  /** Whatever the system does not tell is found by looking. */
  #onWatchError(path: string, error: unknown): void {
    const reason = systemSentence(error);
    const message = `Cannot watch ${path}: ${reason}; it is looked through every second instead`;
    this.#reportRetry(new FramesError("unreadable", message, { cause: error }));
  }

  /** The system told of something. */
  #onEvent(root: RootDirectory, path: string, isRename: boolean): void {
    if (this.#isStopped) return;
    const folder = this.#folders.get(dirname(path));
    // A folder whose own event is still to come, or was lost: the rescan finds it.
    if (folder?.location.root !== root) return;
    this.#checkFile(folder, basename(path), isRename);
  }

  /** Looks through a folder and those below it. */
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
    // What has the place of a folder that was known may have the names of its files too.
    else if (isReplaced) for (const name of names) this.#checkFile(folder, name, false);
    else for (const name of names) this.#checkIfNew(folder, name);
    for (const below of folders) this.#scanFolder(below, isFirst, isReplaced);
  }

  /** What lies there when the watch begins, in the order in which a folder is sent. */
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

  /** Whether a folder has the name of its source to itself. */
  #reserveName({ location, path }: FolderState): boolean {
    const name = folderSourceName(location);
    if (!this.#sourcePaths.has(name)) this.#sourcePaths.set(name, path);
    return this.#sourcePaths.get(name) === path;
  }

  #nameConflictError({ location, path }: FolderState): FramesError {
    const name = folderSourceName(location);
    const conflict = `Cannot send ${this.#sourcePaths.get(name)} and ${path}: both would be the source ${name}`;
    return new FramesError("usage", `${conflict}; name one with --source NAME=PATH`);
  }

  /** What changed since it became complete comes again when it is complete once more. */
  #isUnchanged(folder: FolderState, name: string, isInitial: boolean): boolean {
    const path = join(folder.path, name);
    const stats = statFile(path);
    // What is gone is told as such when it is opened, and after the end nothing comes again.
    if (stats === undefined || !stats.isFile() || this.#isStopped) return true;
    const seen = this.#seen.get(folder.id, name);
    const isSame = seen?.size === stats.size && seen.time === stats.mtimeNs;
    // Nobody has looked yet whether what was there for long has its end.
    if (isSame && (!isInitial || isFileComplete(path, Number(stats.size)))) return true;
    this.#seen.delete(folder.id, name);
    this.#checkFile(folder, name, false);
    return false;
  }

  #checkIfNew(folder: FolderState, name: string): void {
    if (folder.pending.has(name) || this.#seen.get(folder.id, name) !== null) return;
    this.#checkFile(folder, name, false);
  }

  /** Something is there, or was: what is it now? */
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
    // An event without a change of size or time is a change all the same.
    if (!isRename || pending.size !== size || pending.time !== time) {
      Object.assign(pending, { size, time, since, isRenamed: false });
    } else if (size > 0n && !pending.isRenamed) {
      // The rescan was there before the event.
      Object.assign(pending, { since, isRenamed: true });
    }
  }

  /** What was complete is told by its source when it comes to it. */
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
    const error = new FramesError("vanished", "it was removed before it was complete");
    this.#getSource(folder).addLoss(name, error);
  }

  /** A file has stood still for long enough. */
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
      // It may be a network mount that comes back.
      if (!(error instanceof FramesError)) throw error;
      this.#reportRetry(error);
    }
  }

  /** Watches no more: what is complete is still given, what is not is told as lost. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#rescanTimer);
    for (const { watcher } of this.#watchers.values()) watcher?.close();
    const error = new FramesError("stopped", "it was not complete when sending was stopped");
    for (const [inode, { folder, name }] of this.#removed) this.#reportLoss(inode, folder, name);
    for (const folder of this.#folders.values()) {
      // What was renamed into place is complete, however short ago.
      for (const [name, pending] of folder.pending) {
        if (pending.isRenamed) this.#complete(folder, name, pending);
      }
      for (const name of folder.pending.keys()) this.#getSource(folder).addLoss(name, error);
      folder.pending.clear();
      folder.source?.stopCapture();
    }
  }

  /** Of no more use. */
  close(): void {
    this.stop();
    this.#seen.close();
  }
}

function statFile(path: string): BigIntStats | undefined {
  try {
    return lstatSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    // A folder on the way that cannot be entered any more is told of by the rescan.
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

/** Whether an image has its end, where that can be told. */
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
    // Why it cannot be read is told when it is sent.
    return true;
  }
}
