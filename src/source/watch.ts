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
import { FramesError, systemSentence } from "../errors.ts";
import { kindOfFile, openFlags, type Skipped } from "./directory.ts";
import { KnownFiles } from "./known.ts";
import { isWholeImage } from "./ending.ts";
import { naturalOrder } from "./order.ts";
import {
  type Filter,
  type FolderPlace,
  pathOfFolder,
  type Root,
  Selection,
  sourceOfFolder,
} from "./walk.ts";
import { WatchedFolder } from "./watched.ts";

/** How folders are watched. Times are in milliseconds. */
export interface WatchOptions {
  readonly filter: Filter;
  /** How long size and time of a file stand still before it is complete. */
  readonly settle: number;
  /** Files that changed last before this time, in nanoseconds since 1970, are left out. */
  readonly since: bigint | undefined;
}

/** What a watch tells. */
export interface WatchHooks {
  /** A folder has its first frame. */
  source(source: WatchedFolder): void;
  skipped(skipped: Skipped): void;
  /** Something could not be watched or read, and is tried again. */
  trouble(error: FramesError): void;
}

/** A file that was seen and is not complete. */
interface Pending {
  size: bigint;
  time: bigint;
  readonly inode: bigint;
  /** When it last changed, by this process's clock. */
  since: number;
  /** Whether it came under this name as it is, as far as is known. */
  isRenamed: boolean;
}

/** A file that is gone and was not complete. */
interface Gone {
  readonly folder: Watched;
  readonly name: string;
  /** What it was: a disk may give its inode to another file at once. */
  readonly size: bigint;
  readonly time: bigint;
  readonly at: number;
}

/** A folder that is watched. */
interface Watched {
  readonly id: number;
  readonly place: FolderPlace;
  readonly path: string;
  source: WatchedFolder | undefined;
  readonly pending: Map<string, Pending>;
}

/** Pending files are looked at so often. */
const tickEvery = 10;

/** A file that is renamed into place tells of no change within this time after it came. */
const quietAfterRename = 8;

/** Files that have not changed for so long when the watch begins are complete. */
const longComplete = 10_000;

/** All names are looked at so often, or less often where that takes long: 20 times as long as it took. */
const rescanEvery = 1000;
const rescanShare = 20;

/** A file that is gone may come under another name; after so long it is lost. */
const goneFor = 1000;

/** Bytes at both ends of a file that tell whether an image is whole. */
const endSize = 64;

export class Watch {
  readonly #roots: readonly Root[];
  readonly #options: WatchOptions;
  readonly #hooks: WatchHooks;
  readonly #selection: Selection;
  readonly #folders = new Map<string, Watched>();
  /** For each root the folder that is watched, by its inode. */
  readonly #watchers = new Map<
    Root,
    { watcher: FSWatcher | undefined; inode: bigint | undefined }
  >();
  /** What was sent or is about to be. */
  readonly #known = new KnownFiles();
  /** Files that are gone and were not complete, by their inode. */
  readonly #gone = new Map<bigint, Gone>();
  readonly #told = new Set<string>();
  /** Paths of the folders that are sources, by their names. */
  readonly #sources = new Map<string, string>();
  #ticker: NodeJS.Timeout | undefined;
  #rescan: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(roots: readonly Root[], options: WatchOptions, hooks: WatchHooks) {
    this.#roots = roots;
    this.#options = options;
    this.#hooks = hooks;
    this.#selection = new Selection(options.filter, {
      skipped: (one) => this.#once(one.path, () => hooks.skipped(one)),
      unreadable: ({ path, why }) => {
        this.#trouble(new FramesError("unreadable", `Cannot read ${path}: ${why}`));
      },
      leftOut: () => {},
    });
  }

  /** What is seen again with every look is told once. */
  #once(what: string, tell: () => void): void {
    if (this.#told.has(what)) return;
    this.#told.add(what);
    tell();
  }

  #trouble(error: FramesError): void {
    this.#once(error.message, () => this.#hooks.trouble(error));
  }

  /**
   * Looks at everything that is there, and watches from then on.
   *
   * @throws {FramesError} `missing` if a root cannot be read, `usage` if two folders would be the same source
   */
  start(): void {
    for (const root of this.#roots) {
      this.#watch(root);
      this.#scan(this.#selection.placeOf(root), true);
    }
    this.#planRescan(0);
    this.#ticker = setInterval(() => this.#tick(), tickEvery);
  }

  #watch(root: Root): void {
    const path = resolve(root.path);
    const inode = inodeOf(path);
    this.#watchers.set(root, { watcher: undefined, inode });
    try {
      const watcher = watch(path, { recursive: true }, (event, name) => {
        // Of the folder itself it is told without a name: null, or with Bun nothing.
        if (typeof name === "string") this.#noticed(root, join(path, name), event === "rename");
      });
      watcher.on("error", (error) => this.#unwatched(path, error));
      this.#watchers.set(root, { watcher, inode });
    } catch (error) {
      this.#unwatched(path, error);
    }
  }

  /** Whatever the system does not tell is found by looking. */
  #unwatched(path: string, error: unknown): void {
    const why = systemSentence(error);
    const message = `Cannot watch ${path}: ${why}; it is looked through every second instead`;
    this.#trouble(new FramesError("unreadable", message, { cause: error }));
  }

  /** The system told of something. */
  #noticed(root: Root, path: string, isRename: boolean): void {
    if (this.#isStopped) return;
    const folder = this.#folders.get(dirname(path));
    // A folder whose own event is still to come, or was lost: the rescan finds it.
    if (folder?.place.root !== root) return;
    this.#look(folder, basename(path), isRename);
  }

  /** Looks through a folder and those below it. */
  #scan(place: FolderPlace, isFirst: boolean, isAnother = false): void {
    const path = pathOfFolder(place);
    const { names, folders } = this.#selection.read(place);
    let folder = this.#folders.get(path);
    if (folder === undefined) {
      folder = { id: this.#folders.size, place, path, source: undefined, pending: new Map() };
      this.#folders.set(path, folder);
    }
    if (isFirst && names.length > 0 && !this.#claim(folder)) throw this.#takenError(folder);
    if (isFirst) this.#begin(folder, names);
    // What has the place of a folder that was known may have the names of its files too.
    else if (isAnother) for (const name of names) this.#look(folder, name, false);
    else for (const name of names) this.#lookIfNew(folder, name);
    for (const below of folders) this.#scan(below, isFirst, isAnother);
  }

  /** What lies there when the watch begins, in the order in which a folder is sent. */
  #begin(folder: Watched, names: string[]): void {
    const now = Date.now();
    const complete: string[] = [];
    for (const name of names.sort(naturalOrder)) {
      const stats = statsOf(join(folder.path, name));
      if (stats === undefined || !stats.isFile()) continue;
      if (this.#isTooOld(stats)) {
        this.#known.put(folder.id, name, { size: stats.size, time: stats.mtimeNs });
      } else if (now - Number(stats.mtimeMs) >= longComplete) {
        this.#known.put(folder.id, name, { size: stats.size, time: stats.mtimeNs });
        complete.push(name);
      } else {
        this.#look(folder, name, false);
      }
    }
    if (complete.length > 0) this.#sourceOf(folder, complete);
  }

  #isTooOld({ mtimeNs }: BigIntStats): boolean {
    return this.#options.since !== undefined && mtimeNs < this.#options.since;
  }

  #sourceOf(folder: Watched, found: readonly string[] = []): WatchedFolder {
    if (folder.source !== undefined) return folder.source;
    const hooks = {
      isAsItWas: (name: string, isFound: boolean) => this.#isAsItWas(folder, name, isFound),
      isWhole: (name: string) => {
        const path = join(folder.path, name);
        return isWhole(path, Number(statsOf(path)?.size ?? 0n));
      },
      removed: (name: string) => this.#known.delete(folder.id, name),
      skipped: (one: Skipped) => this.#hooks.skipped(one),
    };
    folder.source = new WatchedFolder(sourceOfFolder(folder.place), folder.path, found, hooks);
    if (this.#claim(folder)) this.#hooks.source(folder.source);
    else this.#trouble(this.#takenError(folder));
    return folder.source;
  }

  /** Whether a folder has the name of its source to itself. */
  #claim({ place, path }: Watched): boolean {
    const name = sourceOfFolder(place);
    if (!this.#sources.has(name)) this.#sources.set(name, path);
    return this.#sources.get(name) === path;
  }

  #takenError({ place, path }: Watched): FramesError {
    const name = sourceOfFolder(place);
    const both = `Cannot send ${this.#sources.get(name)} and ${path}: both would be the source ${name}`;
    return new FramesError("usage", `${both}; name one with --source NAME=PATH`);
  }

  /** What changed since it became complete comes again when it is complete once more. */
  #isAsItWas(folder: Watched, name: string, isFound: boolean): boolean {
    const path = join(folder.path, name);
    const stats = statsOf(path);
    // What is gone is told as such when it is opened, and after the end nothing comes again.
    if (stats === undefined || !stats.isFile() || this.#isStopped) return true;
    const known = this.#known.get(folder.id, name);
    const isSame = known?.size === stats.size && known.time === stats.mtimeNs;
    // Nobody has looked yet whether what was there for long has its end.
    if (isSame && (!isFound || isWhole(path, Number(stats.size)))) return true;
    this.#known.delete(folder.id, name);
    this.#look(folder, name, false);
    return false;
  }

  #lookIfNew(folder: Watched, name: string): void {
    if (folder.pending.has(name) || this.#known.get(folder.id, name) !== null) return;
    this.#look(folder, name, false);
  }

  /** Something is there, or was: what is it now? */
  #look(folder: Watched, name: string, isRename: boolean): void {
    const stats = statsOf(join(folder.path, name));
    const pending = folder.pending.get(name);
    if (stats === undefined) return this.#vanished(folder, name, pending);
    const kind = kindOfFile(stats);
    const selected = this.#selection.select(folder.place, name, kind);
    if (typeof selected === "object") {
      if (!this.#folders.has(join(folder.path, name))) this.#scan(selected, false);
      return;
    }
    if (!selected) return;
    const { size, mtimeNs: time, ino: inode } = stats;
    const known = this.#known.get(folder.id, name);
    if (known?.size === size && known.time === time) return;
    const gone = this.#gone.get(inode);
    if (gone?.size === size && gone.time === time) this.#gone.delete(inode);
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
  #vanished(folder: Watched, name: string, pending: Pending | undefined): void {
    if (pending === undefined) {
      if (this.#known.get(folder.id, name) !== null) this.#known.delete(folder.id, name);
      return;
    }
    folder.pending.delete(name);
    const { size, time, inode } = pending;
    if (size > 0n) this.#gone.set(inode, { folder, name, size, time, at: performance.now() });
  }

  #tick(): void {
    const now = performance.now();
    for (const folder of this.#folders.values()) {
      for (const [name, pending] of folder.pending) {
        const age = now - pending.since;
        const isDue = pending.isRenamed ? age >= quietAfterRename : age >= this.#options.settle;
        if (isDue) this.#settle(folder, name, pending);
      }
    }
    for (const [inode, { folder, name, at }] of this.#gone) {
      if (now - at >= goneFor) this.#lose(inode, folder, name);
    }
  }

  #lose(inode: bigint, folder: Watched, name: string): void {
    this.#gone.delete(inode);
    const error = new FramesError("vanished", "it was removed before it was complete");
    this.#sourceOf(folder).addLoss(name, error);
  }

  /** A file has stood still for long enough. */
  #settle(folder: Watched, name: string, pending: Pending): void {
    const path = join(folder.path, name);
    const stats = statsOf(path);
    if (stats === undefined) return this.#vanished(folder, name, pending);
    const { size, mtimeNs: time } = stats;
    if (pending.size !== size || pending.time !== time || !isWhole(path, Number(size))) {
      return void Object.assign(pending, {
        size,
        time,
        since: performance.now(),
        isRenamed: false,
      });
    }
    folder.pending.delete(name);
    this.#known.put(folder.id, name, { size, time });
    this.#sourceOf(folder).add(name);
  }

  #planRescan(took: number): void {
    const pause = Math.max(rescanEvery, rescanShare * took);
    this.#rescan = setTimeout(() => {
      const began = performance.now();
      for (const root of this.#roots) this.#rescanRoot(root);
      this.#planRescan(performance.now() - began);
    }, pause);
  }

  #rescanRoot(root: Root): void {
    try {
      const { watcher, inode } = this.#watchers.get(root)!;
      const now = inodeOf(root.path);
      const isAnother = now !== undefined && now !== inode;
      if (isAnother) {
        watcher?.close();
        this.#watch(root);
      }
      this.#scan(this.#selection.placeOf(root), false, isAnother);
    } catch (error) {
      // It may be a network mount that comes back.
      if (!(error instanceof FramesError)) throw error;
      this.#trouble(error);
    }
  }

  /** Watches no more: what is complete is still given, what is not is told as lost. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#rescan);
    for (const { watcher } of this.#watchers.values()) watcher?.close();
    const error = new FramesError("stopped", "it was not complete when sending was stopped");
    for (const [inode, { folder, name }] of this.#gone) this.#lose(inode, folder, name);
    for (const folder of this.#folders.values()) {
      // What was renamed into place is complete, however short ago.
      for (const [name, pending] of folder.pending) {
        if (pending.isRenamed) this.#settle(folder, name, pending);
      }
      for (const name of folder.pending.keys()) this.#sourceOf(folder).addLoss(name, error);
      folder.pending.clear();
      folder.source?.stop();
    }
  }

  /** Of no more use. */
  close(): void {
    this.stop();
    this.#known.close();
  }
}

function statsOf(path: string): BigIntStats | undefined {
  try {
    return lstatSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    // A folder on the way that cannot be entered any more is told of by the rescan.
    return undefined;
  }
}

function inodeOf(path: string): bigint | undefined {
  try {
    return statSync(path, { bigint: true }).ino;
  } catch {
    return undefined;
  }
}

/** Whether an image has its end, where that can be told. */
function isWhole(path: string, size: number): boolean {
  try {
    const file = openSync(path, openFlags);
    try {
      const bytes = Math.min(size, endSize);
      const [head, tail] = [new Uint8Array(bytes), new Uint8Array(bytes)];
      readSync(file, head, 0, bytes, 0);
      readSync(file, tail, 0, bytes, size - bytes);
      return isWholeImage(head, tail) !== false;
    } finally {
      closeSync(file);
    }
  } catch {
    // Why it cannot be read is told when it is sent.
    return true;
  }
}
