/** A file of a folder as a frame. */
import { compileCheaply } from "../../common/compilation.ts";
import { type BigIntStats, close, fstat, fstatSync, lstatSync, open, openSync } from "node:fs";
import { promisify } from "node:util";
import { toCaptureTime } from "../../common/capture-time.ts";
import { closeReadFile } from "../../common/close-file.ts";
import { readSlices } from "../../common/file-slices.ts";
import { type OpenFile, OpenFileLimit } from "../../common/open-file-limit.ts";
import { openFileShares } from "../../common/open-files.ts";
import { openFlags } from "../../common/open-flags.ts";
import { FramesError, isExhausted, systemCode, systemSentence } from "../../errors.ts";
import type { Frame, FramePieces } from "../../frame.ts";
import type { ReadMode } from "./read-mode.ts";

/**
 * Size in bytes above which a file is closed while it waits. Many sources may each have one
 * waiting.
 */
const maxOpenFileBytes = 1_000_000;

/** The open files of all sources. Each source has one file that waits to be read. */
const waitingFiles = new OpenFileLimit(openFileShares().frames);

/**
 * Opens a file for reading. If the process has too many open files, those that only wait are closed
 * first.
 */
export function openToRead(path: string): number {
  try {
    return openSync(path, openFlags);
  } catch (error) {
    if (!isExhausted(error)) throw error;
    waitingFiles.closeAll();
    return openSync(path, openFlags);
  }
}

/** Makes `stat` return times in nanoseconds. */
const statOptions = { bigint: true } as const;

/** The same functions by the thread pool, for files that may block for long. */
const openLater = promisify(open);
const fstatLater: (fd: number, options: typeof statOptions) => Promise<BigIntStats> =
  promisify(fstat);

/** Folder of a frame's file. */
export interface FrameFolder {
  readonly path: string;
  readonly readMode: ReadMode;
}

/** A file as a frame. Reading fails with `changed` if the file changed since it was opened. */
export class FileFrame implements Frame, OpenFile {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata = "";
  readonly revises: boolean | undefined;
  readonly #folder: FrameFolder;
  // Only these values of the stats are kept, because thousands of frames may be described at once.
  readonly #mtimeNs: bigint;
  readonly #ctimeNs: bigint;
  readonly #inode: bigint;
  #fd: number | undefined;

  /**
   * @param describeOnly whether to take only the stats now and open the file when it is read, as for
   * every file that is not on a local disk
   * @param stats of the file, if they are known
   */
  constructor(
    folder: FrameFolder,
    name: string,
    sequence: number,
    describeOnly: boolean,
    revises: boolean | undefined,
    stats?: BigIntStats,
  ) {
    this.#folder = folder;
    this.name = name;
    this.sequence = sequence;
    this.revises = revises;
    if (!describeOnly && folder.readMode.isLocal) this.#open();
    try {
      stats ??=
        this.#fd === undefined
          ? lstatSync(this.#path, statOptions)
          : fstatSync(this.#fd, statOptions);
      if (!stats.isFile()) throw new FramesError("unreadable", "it is no longer a file");
      this.captured = toCaptureTime(stats.mtimeNs);
      this.#mtimeNs = stats.mtimeNs;
      this.size = Number(stats.size);
      this.#ctimeNs = stats.ctimeNs;
      this.#inode = stats.ino;
    } catch (error) {
      this.close();
      throw error;
    }
    if (this.size > maxOpenFileBytes) this.close();
  }

  get #path(): string {
    return `${this.#folder.path}/${this.name}`;
  }

  get needsPieces(): boolean {
    return this.size > 0 && !this.#folder.readMode.isSynchronous;
  }

  #open(): number {
    waitingFiles.acquire(this);
    try {
      return (this.#fd = openToRead(this.#path));
    } catch (error) {
      waitingFiles.release(this);
      throw error;
    }
  }

  /** Returns the file descriptor. Reopens a closed file and checks that it is unchanged. */
  #openIfClosed(): number {
    if (this.#fd !== undefined) return this.#fd;
    const fd = this.#open();
    this.checkUnchanged(fstatSync(fd, statOptions));
    return fd;
  }

  read(into: Uint8Array): void {
    try {
      const fd = this.#openIfClosed();
      const { readMode } = this.#folder;
      let length = 0;
      while (length < into.length) {
        const count = readMode.read(fd, into, length, into.length - length, length);
        if (count === 0) throw changedError();
        length += count;
      }
      this.checkUnchanged(fstatSync(fd, statOptions));
    } catch (error) {
      throw toFileError(error, this.name);
    } finally {
      this.close();
    }
  }

  pieces(): FramePieces {
    return new FilePieces(this, this.#folder.readMode);
  }

  /** Opens the file and leaves its descriptor to the caller, who closes it after the last read. */
  takeDescriptor(): number {
    const fd = this.#openIfClosed();
    this.#fd = undefined;
    waitingFiles.release(this);
    return fd;
  }

  /** As `takeDescriptor`, without blocking the event loop. */
  async takeDescriptorLater(): Promise<number> {
    if (this.#fd !== undefined) return this.takeDescriptor();
    const opened = await this.#openLater();
    try {
      this.checkUnchanged(await fstatLater(opened, statOptions));
      return opened;
    } catch (error) {
      closeLater(opened);
      throw error;
    }
  }

  async #openLater(): Promise<number> {
    try {
      return await openLater(this.#path, openFlags);
    } catch (error) {
      if (!isExhausted(error)) throw error;
      waitingFiles.closeAll();
      return await openLater(this.#path, openFlags);
    }
  }

  /** @throws {FramesError} `changed` if the stats are not those of the frame */
  checkUnchanged(stats: BigIntStats): void {
    if (
      Number(stats.size) !== this.size ||
      stats.mtimeNs !== this.#mtimeNs ||
      stats.ctimeNs !== this.#ctimeNs ||
      stats.ino !== this.#inode
    ) {
      throw changedError();
    }
  }

  /** Returns whether size and time are those of `frame`. */
  hasStateOf({ size, captured }: Frame): boolean {
    return this.size === size && this.captured === captured;
  }

  /** Milliseconds since the file last changed. Its modification time may have been set. */
  get unchangedMs(): number {
    return Date.now() - Number(this.#ctimeNs / 1_000_000n);
  }

  /** Whether the time of the file is too early or too late for a capture time. */
  get isTimeClamped(): boolean {
    return this.captured !== this.#mtimeNs;
  }

  /** Returns whether the path still refers to the same, unchanged file. */
  isUnchangedOnDisk(): boolean {
    const stats = lstatSync(this.#path, statOptions);
    return stats.ino === this.#inode && stats.ctimeNs === this.#ctimeNs;
  }

  close(): void {
    waitingFiles.release(this);
    if (this.#fd !== undefined) closeReadFile(this.#fd);
    this.#fd = undefined;
  }
}

/** Reads a file in pieces: synchronously while that is fast, then by the thread pool. */
class FilePieces implements FramePieces {
  readonly #frame: FileFrame;
  readonly #readMode: ReadMode;
  #fd: number | undefined;
  /** Bytes read synchronously. */
  #position = 0;
  /** The rest, once it is read by the pool. */
  #rest: AsyncGenerator<Uint8Array, undefined> | undefined;

  constructor(frame: FileFrame, readMode: ReadMode) {
    this.#frame = frame;
    this.#readMode = readMode;
  }

  readNow(into: Uint8Array): number {
    const { size } = this.#frame;
    if (this.#rest !== undefined || this.#position === size) return 0;
    if (!this.#readMode.isSynchronous) return 0;
    try {
      const fd = (this.#fd ??= this.#frame.takeDescriptor());
      const wanted = Math.min(into.length, size - this.#position);
      const count = this.#readMode.read(fd, into, 0, wanted, this.#position);
      if (count === 0) throw changedError();
      this.#position += count;
      if (this.#position === size) {
        this.#frame.checkUnchanged(fstatSync(fd, statOptions));
        this.#close();
      }
      return count;
    } catch (error) {
      this.#close();
      throw toFileError(error, this.#frame.name);
    }
  }

  next(): Promise<IteratorResult<Uint8Array, undefined>> {
    return (this.#rest ??= this.#readRest()).next();
  }

  return(): Promise<IteratorResult<Uint8Array, undefined>> {
    this.#rest ??= this.#readRest();
    // The generator closes a file that it has taken over.
    this.#close();
    return this.#rest.return(undefined);
  }

  async *#readRest(): AsyncGenerator<Uint8Array, undefined> {
    const frame = this.#frame;
    let fd = this.#fd;
    this.#fd = undefined;
    try {
      const opened = (fd ??= await frame.takeDescriptorLater());
      let remaining = frame.size - this.#position;
      for await (const { bytes, isLast } of readSlices(opened, frame.size, this.#position)) {
        remaining -= bytes.length;
        if (isLast && remaining > 0) throw changedError();
        if (isLast) frame.checkUnchanged(await fstatLater(opened, statOptions));
        yield bytes;
      }
    } catch (error) {
      throw toFileError(error, frame.name);
    } finally {
      if (fd !== undefined) closeLater(fd);
    }
    return undefined;
  }

  #close(): void {
    if (this.#fd !== undefined) closeReadFile(this.#fd);
    this.#fd = undefined;
  }
}

/** Closes a file that was only read, where closing may block. */
function closeLater(fd: number): void {
  close(fd, () => {});
}

function changedError(): FramesError {
  return new FramesError("changed", "it kept changing while it was read");
}

export function toFileError(error: unknown, name: string): FramesError {
  if (error instanceof FramesError) return error;
  const options = { cause: error };
  if (systemCode(error) !== "ENOENT") {
    return new FramesError("unreadable", systemSentence(error), options);
  }
  // A name that is not UTF-8 is listed with U+FFFD in it, and cannot be opened.
  if (name.includes("\uFFFD")) {
    return new FramesError("unreadable", "its name is not UTF-8; rename it", options);
  }
  return new FramesError("vanished", "it was deleted before it was read", options);
}

compileCheaply(FileFrame, FileFrame.prototype.read, FileFrame.prototype.checkUnchanged);
