/**
 * Events of folders. Linux tells them by inotify(7), which is used directly: Bun's `fs.watch` does
 * not tell whether a name was created or a complete file was renamed to it, and is silent when
 * events were lost. Other systems use `fs.watch`.
 */
import { type FSWatcher, statSync, watch } from "node:fs";
import { constants } from "node:os";
import { basename, dirname, join } from "node:path";
import { closeReadFile } from "../../common/close-file.ts";
import { errnoFunction, lastErrno, openCLibrary } from "../../common/c-library.ts";

/**
 * What happened to a name:
 *
 * - `moved`: a file or folder was renamed to it.
 * - `written`: bytes were written to the file.
 * - `removed`: the file or folder was deleted or renamed away. Another may have the name by now.
 * - `created`: it is new: an empty file, a link to a file, or a folder.
 * - `named`: it is new or gone; the system does not say how.
 * - `touched`: something about it changed, perhaps its bytes.
 */
export type FolderEvent = "moved" | "written" | "removed" | "created" | "named" | "touched";

/** Callbacks of `FolderEvents`. */
export interface FolderEventHooks {
  onEvent(folder: string, name: string, event: FolderEvent): void;
  /** Called when events were lost. */
  onOverflow(): void;
  /** Called when a folder cannot be watched. It is tried again with the next `watch`. */
  onError(folder: string, error: unknown): void;
}

export interface FolderEvents {
  /**
   * Watches a folder. Call it before each listing of the folder, because another folder may have
   * the path by now.
   *
   * @param path absolute path
   */
  watch(path: string, isRoot: boolean): void;
  /** Calls `onEvent` for all events so far, if they do not come by themselves. */
  poll(): void;
  close(): void;
}

/** Creates the events of this system. */
export function openFolderEvents(hooks: FolderEventHooks): FolderEvents {
  return InotifyEvents.open(hooks) ?? new WatcherEvents(hooks);
}

const inotifyFunctions = {
  inotify_init1: { args: ["int"], returns: "int" },
  inotify_add_watch: { args: ["int", "ptr", "u32"], returns: "int" },
  inotify_rm_watch: { args: ["int", "int"], returns: "int" },
  read: { args: ["int", "ptr", "u64"], returns: "int" },
  ...errnoFunction,
} as const;

type InotifyLibrary = NonNullable<ReturnType<typeof openCLibrary<typeof inotifyFunctions>>>;

/** Constants of inotify(7), the same on every processor. */
const inotify = {
  modify: 0x2,
  attributes: 0x4,
  movedFrom: 0x40,
  movedTo: 0x80,
  create: 0x100,
  delete: 0x200,
  overflow: 0x4000,
  ignored: 0x8000,
  onlyFolder: 0x1000000,
  noFollow: 0x2000000,
  isFolder: 0x40000000,
  /** O_NONBLOCK and O_CLOEXEC. */
  openFlags: 0o4000 | 0o2000000,
};

const watchedEvents =
  inotify.modify |
  inotify.attributes |
  inotify.movedFrom |
  inotify.movedTo |
  inotify.create |
  inotify.delete |
  inotify.onlyFolder;

/** Bytes of an event before its name. */
const eventHeadBytes = 16;

/** Events by inotify. Each folder has a watch of its own. */
class InotifyEvents implements FolderEvents {
  readonly #library: InotifyLibrary;
  readonly #file: number;
  readonly #hooks: FolderEventHooks;
  readonly #buffer = Buffer.alloc(65_536);
  readonly #pathOf = new Map<number, string>();
  readonly #watchOf = new Map<string, number>();

  private constructor(library: InotifyLibrary, file: number, hooks: FolderEventHooks) {
    this.#library = library;
    this.#file = file;
    this.#hooks = hooks;
  }

  /** Returns `undefined` if this system has no inotify, or no instance of it is left. */
  static open(hooks: FolderEventHooks): InotifyEvents | undefined {
    const library = openCLibrary(inotifyFunctions);
    const file = library?.inotify_init1(inotify.openFlags) ?? -1;
    return library === undefined || file < 0 ? undefined : new InotifyEvents(library, file, hooks);
  }

  watch(path: string, isRoot: boolean): void {
    // Only a root may be a link, as everywhere.
    const mask = watchedEvents | (isRoot ? 0 : inotify.noFollow);
    const added = this.#library.inotify_add_watch(this.#file, Buffer.from(`${path}\0`), mask);
    if (added < 0) {
      const error = systemError(lastErrno(this.#library), path);
      // The listing reports a folder that is missing or cannot be entered.
      if (!["ENOENT", "ENOTDIR", "EACCES"].includes(error.code)) this.#hooks.onError(path, error);
      return;
    }
    const before = this.#watchOf.get(path);
    if (before !== undefined && before !== added) this.#remove(before, path);
    this.#watchOf.set(path, added);
    this.#pathOf.set(added, path);
  }

  /** Ends a watch, unless its folder is watched under another path by now. */
  #remove(watched: number, path: string): void {
    if (this.#watchOf.get(path) === watched) this.#watchOf.delete(path);
    if (this.#pathOf.get(watched) !== path) return;
    this.#pathOf.delete(watched);
    this.#library.inotify_rm_watch(this.#file, watched);
  }

  poll(): void {
    for (;;) {
      const length = this.#library.read(this.#file, this.#buffer, this.#buffer.length);
      if (length <= 0) return;
      for (let offset = 0; offset < length;) offset += this.#readEvent(offset);
    }
  }

  /** Handles the event at `offset` of the buffer. Returns its length. */
  #readEvent(offset: number): number {
    const watched = this.#buffer.readInt32LE(offset);
    const mask = this.#buffer.readUInt32LE(offset + 4);
    const nameBytes = this.#buffer.readUInt32LE(offset + 12);
    const length = eventHeadBytes + nameBytes;
    if ((mask & inotify.overflow) !== 0) this.#hooks.onOverflow();
    const folder = this.#pathOf.get(watched);
    if (folder === undefined) return length;
    if ((mask & inotify.ignored) !== 0) this.#remove(watched, folder);
    if (nameBytes === 0) return length;
    const start = offset + eventHeadBytes;
    const end = this.#buffer.indexOf(0, start);
    const name = this.#buffer.toString("utf8", start, end);
    const isFolder = (mask & inotify.isFolder) !== 0;
    if (isFolder && (mask & inotify.movedFrom) !== 0) this.#removeBelow(join(folder, name));
    this.#hooks.onEvent(folder, name, eventKind(mask));
    return length;
  }

  /** Ends the watches of a folder that was moved, and of those below. They follow the folder. */
  #removeBelow(moved: string): void {
    for (const [path, watched] of this.#watchOf) {
      if (path === moved || path.startsWith(`${moved}/`)) this.#remove(watched, path);
    }
  }

  close(): void {
    closeReadFile(this.#file);
  }
}

function eventKind(mask: number): FolderEvent {
  if ((mask & inotify.movedTo) !== 0) return "moved";
  if ((mask & inotify.modify) !== 0) return "written";
  if ((mask & inotify.create) !== 0) return "created";
  return (mask & (inotify.movedFrom | inotify.delete)) !== 0 ? "removed" : "touched";
}

function systemError(errno: number, path: string): Error & { code: string } {
  const code = Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? "EIO";
  return Object.assign(new Error(`${code}: watch ${path}`), { code });
}

/** Events by `fs.watch`. Each root has one watcher for all folders below. */
export class WatcherEvents implements FolderEvents {
  readonly #hooks: FolderEventHooks;
  /** Watcher of each root, and the inode that it watches. */
  readonly #watchers = new Map<string, { watcher: FSWatcher | undefined; inode: bigint }>();

  constructor(hooks: FolderEventHooks) {
    this.#hooks = hooks;
  }

  watch(path: string, isRoot: boolean): void {
    const inode = isRoot ? getInode(path) : undefined;
    const current = this.#watchers.get(path);
    if (inode === undefined || current?.inode === inode) return;
    current?.watcher?.close();
    this.#watchers.set(path, { watcher: undefined, inode });
    try {
      const watcher = watch(path, { recursive: true }, (event, name) => {
        // Events about the root itself have no name: null in Node, `undefined` in Bun.
        if (typeof name !== "string") return;
        const changed = join(path, name);
        const kind = event === "rename" ? "named" : "touched";
        this.#hooks.onEvent(dirname(changed), basename(changed), kind);
      });
      watcher.on("error", (error) => this.#hooks.onError(path, error));
      this.#watchers.set(path, { watcher, inode });
    } catch (error) {
      this.#hooks.onError(path, error);
    }
  }

  poll(): void {}

  close(): void {
    for (const { watcher } of this.#watchers.values()) watcher?.close();
  }
}

function getInode(path: string): bigint | undefined {
  try {
    return statSync(path, { bigint: true }).ino;
  } catch {
    return undefined;
  }
}
