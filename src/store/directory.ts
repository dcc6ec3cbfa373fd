/**
 * Frames in a directory: `DIR/STREAM/SOURCE/NAME`. A frame is written under `.frames/partial`, its
 * checksum verified by the caller, renamed to its final name, and journalled with its batch.
 */
import {
  closeSync,
  futimesSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { crc32 } from "node:zlib";
import { asFramesError, FramesError, systemCode, systemSentence } from "../errors.ts";
import type {
  FrameDescription,
  FrameOrigin,
  FrameStore,
  FrameWriter,
  Outcome,
  SourceStore,
} from "../frame.ts";
import { Journal, journalPath, type StoredFrame } from "./journal.ts";
import { StoreLock } from "./lock.ts";
import { checkPart, foldPath, sourceFolder } from "./name.ts";

/** How a store in a directory behaves. */
export interface DirectoryStoreOptions {
  /** Refuse what Windows and macOS cannot keep, wherever this runs. */
  readonly portableNames: boolean;
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
}

/** Whether this system's file names are those of Windows or macOS. */
export const systemNeedsPortableNames =
  process.platform === "win32" || process.platform === "darwin";

/** A store in a directory, served by this process alone. */
export class DirectoryStore implements FrameStore {
  readonly place: string;
  readonly journal: Journal;
  readonly portable: boolean;
  readonly #lock: StoreLock;
  readonly #partial: string;
  readonly #clock: () => number;
  /** Inode of the journal. */
  readonly #journalFile: number;
  #partials = 0;
  /** Frames recorded since the store was opened. */
  recorded = 0;

  /**
   * Opens the store, or makes it.
   *
   * @throws {FramesError} `store` if it cannot be written, `locked` if another process serves it
   */
  constructor(directory: string, options: DirectoryStoreOptions) {
    this.place = resolve(directory);
    this.portable = options.portableNames;
    this.#clock = options.clock;
    this.#partial = join(this.place, ".frames", "partial");
    try {
      mkdirSync(this.#partial, { recursive: true });
      this.#lock = new StoreLock(join(this.place, ".frames"));
    } catch (error) {
      throw asFramesError(error, "store", `Cannot write the store ${this.place}`);
    }
    try {
      // What a killed server left half written was never receipted.
      for (const name of readdirSync(this.#partial)) {
        rmSync(join(this.#partial, name), { recursive: true });
      }
      this.journal = new Journal(journalPath(this.place));
      this.#journalFile = statSync(journalPath(this.place)).ino;
      if (this.portable) this.#claimStored();
      else this.journal.dropFolded();
    } catch (error) {
      this.#lock.release();
      throw asFramesError(error, "store", `Cannot write the store ${this.place}`);
    }
  }

  isFresh(stream: string): boolean {
    this.#checkThere();
    return !this.journal.hasStream(stream);
  }

  open(origin: FrameOrigin): SourceStore {
    const folder = sourceFolder(origin.stream, origin.source, this.portable);
    if (this.portable) this.checkFree(folder);
    return new SourceFolder(this, origin, folder);
  }

  flush(): void {
    if (this.journal.isDirty) this.#checkThere();
    this.journal.flush();
  }

  /** A journal that was removed goes on in memory, as it were: what it says is true of nothing. */
  #checkThere(): void {
    const found = statSync(journalPath(this.place), { throwIfNoEntry: false })?.ino;
    if (found === this.#journalFile) return;
    throw new FramesError("store", `The store ${this.place} was removed while it was served`);
  }

  /** Closes journal and lock; the store is then of no more use. */
  close(): void {
    try {
      this.journal.close();
    } finally {
      this.#lock.release();
    }
  }

  /** A path for a frame being written. */
  nextPartial(): string {
    return `${this.#partial}/${++this.#partials}`;
  }

  /** Now, in nanoseconds since 1970. */
  now(): bigint {
    return BigInt(Math.round(this.#clock() * 1e3)) * 1000n;
  }

  /**
   * Where names must be portable, makes sure that a path below the store, and each folder on the way,
   * differs from what is stored in more than case or Unicode form.
   *
   * @throws {FramesError} `unportable-name`
   */
  checkFree(path: string): void {
    for (const part of prefixes(path)) {
      const holder = this.journal.folded(foldPath(part));
      if (holder === undefined || holder === part) continue;
      throw new FramesError(
        "unportable-name",
        `On Windows and macOS ${JSON.stringify(part)} would be the same file as ${JSON.stringify(holder)}`,
      );
    }
  }

  /** Where names must be portable, nothing may be stored any more that `path` would be mistaken for. */
  claim(path: string): void {
    for (const part of prefixes(path)) this.journal.claimFolded(foldPath(part), part);
  }

  /** Names stored before names had to be portable are claimed as they are. */
  #claimStored(): void {
    for (const { stream, source, name } of this.journal.unclaimed()) {
      const folder = source === stream ? stream : `${stream}/${source}`;
      this.claim(`${folder}/${name}`);
    }
    this.journal.flush();
  }
}

/** `a`, `a/b` and `a/b/c` of `a/b/c`. */
function prefixes(path: string): string[] {
  const parts = path.split("/");
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}

/** The folder of one source, while one session sends to it. */
class SourceFolder implements SourceStore {
  readonly store: DirectoryStore;
  readonly origin: FrameOrigin;
  readonly #relative: string;
  readonly #absolute: string;
  #made = false;

  constructor(store: DirectoryStore, origin: FrameOrigin, relative: string) {
    this.store = store;
    this.origin = origin;
    this.#relative = relative;
    this.#absolute = join(store.place, relative);
  }

  begin(description: FrameDescription): FrameWriter {
    checkPart(description.name, this.store.portable);
    const { stream, source } = this.origin;
    const stored = this.store.journal.find(stream, source, description.name);
    if (stored !== null) return new Comparison(description, stored);
    if (this.store.portable) this.store.checkFree(this.relativePath(description.name));
    return new PartialFile(this, description);
  }

  lost(first: number, last: number, error: FramesError): void {
    this.store.journal.addLoss(this.origin, first, last, error.code, this.store.now());
  }

  /** Final path of a frame, below the store. */
  relativePath(name: string): string {
    return `${this.#relative}/${name}`;
  }

  /** Final path of a frame. */
  path(name: string): string {
    return `${this.#absolute}/${name}`;
  }

  /** Makes the folder, part by part: a link on the way would lead out of the store. */
  make(): void {
    if (this.#made) return;
    let path = this.store.place;
    for (const part of this.#relative.split("/")) {
      path = join(path, part);
      try {
        mkdirSync(path);
      } catch (error) {
        if (systemCode(error) !== "EEXIST") throw error;
        if (!lstatSync(path).isDirectory()) {
          throw new FramesError("not-stored", `Cannot keep frames in ${path}: it is not a folder`);
        }
      }
    }
    this.#made = true;
  }

  /** The folder may have gone meanwhile. */
  forget(): void {
    this.#made = false;
  }
}

/** A frame whose name is in the journal: nothing is written, only compared. */
class Comparison implements FrameWriter {
  readonly #description: FrameDescription;
  readonly #stored: StoredFrame;

  constructor(description: FrameDescription, stored: StoredFrame) {
    this.#description = description;
    this.#stored = stored;
  }

  write(): void {}

  finish(crc: number): Outcome {
    const same = this.#stored.bytes === this.#description.size && this.#stored.crc32 === crc;
    return same ? "present" : conflict();
  }

  discard(): void {}
}

function conflict(): FramesError {
  return new FramesError("conflict", "other bytes are stored under this name");
}

/** A frame being written under a name of its own. */
class PartialFile implements FrameWriter {
  readonly #folder: SourceFolder;
  readonly #description: FrameDescription;
  readonly #path: string;
  /** What the store had recorded when this frame began. */
  readonly #recordedBefore: number;
  #file: number | undefined;

  constructor(folder: SourceFolder, description: FrameDescription) {
    this.#folder = folder;
    this.#description = description;
    this.#path = folder.store.nextPartial();
    this.#recordedBefore = folder.store.recorded;
  }

  #open(): number {
    return (this.#file ??= openSync(this.#path, "wx", 0o644));
  }

  write(bytes: Uint8Array): void {
    try {
      const file = this.#open();
      let written = 0;
      while (written < bytes.length) {
        written += writeSync(file, bytes, written, bytes.length - written);
      }
    } catch (error) {
      throw this.#failure(error);
    }
  }

  finish(crc: number): Outcome {
    const { name, captured } = this.#description;
    try {
      const file = this.#open();
      const seconds = Number(captured) / 1e9;
      // Before 1970 only as text: Bun takes a negative number for "now".
      const time = seconds < 0 ? String(seconds) : seconds;
      futimesSync(file, time, time);
      closeSync(file);
      this.#file = undefined;
      const stored = this.#storedMeanwhile();
      if (stored !== null) {
        unlinkSync(this.#path);
        return new Comparison(this.#description, stored).finish(crc);
      }
      // First the folder: a link in its place would lead elsewhere.
      this.#folder.make();
      const path = this.#folder.path(name);
      const taken = lstatSync(path, { throwIfNoEntry: false });
      if (taken !== undefined) {
        unlinkSync(this.#path);
        return this.#adopt(path, taken, crc);
      }
      this.#rename(path);
    } catch (error) {
      this.discard();
      throw this.#failure(error);
    }
    this.#record(crc);
    return "stored";
  }

  /** Another sender may have begun the name too, or one that differs only in case, and finished first. */
  #storedMeanwhile(): StoredFrame | null {
    const { origin, store } = this.#folder;
    if (store.recorded === this.#recordedBefore) return null;
    const { name } = this.#description;
    if (store.portable) store.checkFree(this.#folder.relativePath(name));
    return store.journal.find(origin.stream, origin.source, name);
  }

  #rename(path: string): void {
    try {
      renameSync(this.#path, path);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
      // Somebody removed the folder, perhaps because it was empty.
      this.#folder.forget();
      this.#folder.make();
      renameSync(this.#path, path);
    }
  }

  /** Something lies under the final name that `begin` did not find: the same frame, or a conflict. */
  #adopt(path: string, taken: Stats, crc: number): Outcome {
    const { name, size } = this.#description;
    if (!taken.isFile()) {
      throw new FramesError(
        "not-stored",
        `Cannot store ${JSON.stringify(name)}: ${path} is no file`,
      );
    }
    // A crash between rename and journal leaves just this: a whole frame without its row.
    if (taken.size !== size || fileCrc(path) !== crc) return conflict();
    this.#record(crc);
    return "present";
  }

  #record(crc: number): void {
    const { origin, store } = this.#folder;
    if (store.portable) store.claim(this.#folder.relativePath(this.#description.name));
    const raw = origin.raw;
    const format = raw === undefined ? null : `${raw.width}x${raw.height}.${raw.format}`;
    store.recorded++;
    store.journal.addFrame(origin, this.#description, crc, store.now(), format);
  }

  discard(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
    rmSync(this.#path, { force: true });
  }

  #failure(error: unknown): FramesError {
    if (error instanceof FramesError) return error;
    // What every frame would meet ends the connection; what only this one meets refuses it.
    const code = storeIsFull.has(systemCode(error) ?? "") ? "store" : "not-stored";
    const name = JSON.stringify(this.#description.name);
    return new FramesError(code, `Cannot store ${name}: ${systemSentence(error)}`, {
      cause: error,
    });
  }
}

const storeIsFull = new Set(["ENOSPC", "EDQUOT", "EROFS", "EIO"]);

/** CRC-32 of a file. */
function fileCrc(path: string): number {
  const file = openSync(path, "r");
  try {
    const buffer = new Uint8Array(1 << 20);
    let crc = 0;
    for (;;) {
      const read = readSync(file, buffer, 0, buffer.length, null);
      if (read === 0) return crc;
      crc = crc32(buffer.subarray(0, read), crc);
    }
  } finally {
    closeSync(file);
  }
}
