/** Sends the files of a folder as frames. */
import {
  type Dirent,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  type StatsBase,
  unlinkSync,
} from "node:fs";
import { closeReadFile } from "../../common/close-file.ts";
import { checksum } from "../../common/checksum.ts";
import { type OpenFile, OpenFileLimit } from "../../common/open-file-limit.ts";
import { openFileShares } from "../../common/open-files.ts";
import { openFlags } from "../../common/open-flags.ts";
import { FramesError, isExhausted, systemCode, systemSentence } from "../../errors.ts";
import type { Frame, FrameSource, Loss, Postponed } from "../../frame.ts";
import { takeLease } from "./file-writers.ts";
import { toCaptureTime } from "../../common/capture-time.ts";
import { type NameList, packNames } from "./packed-names.ts";
import { readSlices } from "../../common/file-slices.ts";

/** Attempts to read a file that changes while it is read. */
const maxReadAttempts = 3;

/*
 * Size from which reading through `Bun.file` replaces reading straight into the outgoing buffer.
 *
 * Measured with Bun 1.4.5 on two cores, tmpfs to a loopback socket, 400 MB, median ms (CPU ms):
 *
 *     frames of         20 KB        200 KB       2 MB
 *     into the buffer   254 (257)    134 (130)    126 (123)
 *     Bun.file          406 (508)    193 (234)    136 (151)
 *
 * Therefore a frame that fits into one message is read into the buffer. Larger frames are read by
 * `Bun.file`, so that a slow disk does not block the other sources.
 */

/**
 * Size in bytes above which a file is closed while it waits. Many sources may each have one
 * waiting.
 */
const maxOpenFileBytes = 1_000_000;

/** Interval in milliseconds at which a file is tried again that a process has open for writing. */
const writerRetryMs = 1000;

/**
 * Milliseconds for which a file must be unchanged before it is removed, where the system does not
 * tell whether a process has it open for writing.
 */
const minQuietMs = 30_000;

/** Files unchanged for longer than this are removed there at once, in milliseconds. */
const maxClockErrorMs = 3_600_000;

/** An entry of a directory that is not sent, and the reason. */
export interface SkippedPath {
  readonly path: string;
  readonly why: string;
}

/** Turns files of one folder into frames. Subclasses choose the files and their order. */
export abstract class FileSource implements FrameSource {
  readonly name: string;
  readonly path: string;
  readonly #onSkipped: (skipped: SkippedPath) => void;
  readonly #onTimeClamped: ((path: string) => void) | undefined;
  readonly #attempts = new Map<number, number>();
  /** When removing a file was tried first, by `performance.now()`. Only of files still here. */
  readonly #quietSince = new Map<number, number>();
  #sequence = 0;
  #openFrame: FileFrame | undefined;

  /**
   * @param onSkipped called for names that turn out not to be regular files; they get no number
   * @param onTimeClamped called for files whose time cannot be a capture time
   */
  constructor(
    name: string,
    path: string,
    onSkipped: (skipped: SkippedPath) => void,
    onTimeClamped?: (path: string) => void,
  ) {
    this.name = name;
    this.path = path;
    this.#onSkipped = onSkipped;
    this.#onTimeClamped = onTimeClamped;
  }

  get isResumable(): boolean {
    return true;
  }

  abstract next(offered: boolean): Frame | Loss | undefined | Promise<Frame | Loss | undefined>;

  get capturedCount(): number {
    return this.#sequence;
  }

  /**
   * Returns the named file as the next frame. Returns `undefined`, and uses no number, if it is not
   * a regular file.
   */
  protected nextFrame(name: string, describeOnly: boolean): Frame | Loss | undefined {
    const item = this.#openFile(name, this.#sequence + 1, describeOnly);
    if (item !== undefined) this.#sequence++;
    if (item instanceof FileFrame && item.isTimeClamped) {
      this.#onTimeClamped?.(`${this.path}/${name}`);
    }
    return item;
  }

  /** Assigns the next number to a file that will never be read, and returns it as a loss. */
  protected nextLoss(name: string, error: FramesError): Loss {
    return makeLoss(name, ++this.#sequence, error);
  }

  retry(frame: Frame, error: FramesError): Frame | Loss {
    const { name, sequence } = frame;
    const tried = (this.#attempts.get(sequence) ?? 0) + 1;
    if (error.code === "changed" && tried < maxReadAttempts) {
      this.#attempts.set(sequence, tried);
      const item = this.#openFile(name, sequence, false);
      // The sequence number is already assigned, so this must be a loss even if the file type
      // changed.
      return (
        item ?? makeLoss(name, sequence, new FramesError("unreadable", "it is no longer a file"))
      );
    }
    this.#attempts.delete(sequence);
    return makeLoss(name, sequence, error);
  }

  /**
   * Returns whether a file may be a later version of one that was sent under its name; `undefined`
   * if each name is sent once.
   */
  protected mayRevise(_name: string): boolean | undefined {
    return undefined;
  }

  async remove(frame: Frame, crc32: number): Promise<"removed" | "superseded" | Postponed> {
    const path = `${this.path}/${frame.name}`;
    let file: number | undefined;
    try {
      const current = new FileFrame(this.path, frame.name, frame.sequence, true, undefined);
      if (!current.hasStateOf(frame)) throw changedAfterError();
      // Asked before the file is read, since a writer may take long.
      file = openSync(path, openFlags);
      let isUnwritten = takeLease(file, path);
      closeReadFile(file);
      file = undefined;
      if (isUnwritten === false) return { delayMs: writerRetryMs, error: openForWritingError() };
      const waitMs = isUnwritten === true ? 0 : this.#remainingQuietMs(current);
      if (waitMs > 0) return { delayMs: Math.round(waitMs), error: openForWritingError() };
      if ((await checksum(current)) !== crc32) throw changedAfterError();
      file = openSync(path, openFlags);
      isUnwritten = takeLease(file, path);
      if (isUnwritten === false) return { delayMs: writerRetryMs, error: openForWritingError() };
      // Another program may have put a different file in its place; delete only the file that was
      // read. The lease keeps writers out until it is closed.
      if (!current.isUnchangedOnDisk()) throw changedAfterError();
      unlinkSync(path);
      this.#quietSince.delete(frame.sequence);
      return "removed";
    } catch (error) {
      this.#quietSince.delete(frame.sequence);
      throw toReadError(error, frame.name);
    } finally {
      if (file !== undefined) closeReadFile(file);
    }
  }

  /** Returns for how long a delivered file must still be unchanged before it is removed. */
  #remainingQuietMs(frame: FileFrame): number {
    // The file's time may be of another machine's clock.
    if (frame.unchangedMs > maxClockErrorMs) return 0;
    const now = performance.now();
    const since = this.#quietSince.get(frame.sequence) ?? now;
    this.#quietSince.set(frame.sequence, since);
    return since + minQuietMs - now;
  }

  /** Returns whether the file of a frame still has its size and time. */
  protected hasStateOf(frame: Frame): boolean {
    try {
      const { name, sequence, revises } = frame;
      return new FileFrame(this.path, name, sequence, true, revises).hasStateOf(frame);
    } catch {
      return false;
    }
  }

  close(): void {
    this.#openFrame?.close();
  }

  /** Returns `undefined` if the path is not a regular file. */
  #openFile(name: string, sequence: number, describeOnly: boolean): Frame | Loss | undefined {
    this.#openFrame?.close();
    this.#openFrame = undefined;
    try {
      const frame = new FileFrame(this.path, name, sequence, describeOnly, this.mayRevise(name));
      if (!describeOnly) this.#openFrame = frame;
      return frame;
    } catch (error) {
      const path = `${this.path}/${name}`;
      const kind = fileKindAt(path);
      if (kind === undefined || kind === "file" || kind === "folder") {
        return makeLoss(name, sequence, toReadError(error, name));
      }
      this.#onSkipped({ path, why: kind });
      return undefined;
    }
  }
}

/** The files of one folder as listed at the start, in natural order. */
export class DirectorySource extends FileSource {
  /** Names of the frames, in the order of sending. */
  readonly names: NameList;
  #nextIndex = 0;

  /**
   * @param onSkipped called for names that turn out not to be regular files; they get no number
   * @param onTimeClamped called for files whose time cannot be a capture time
   */
  constructor(
    name: string,
    path: string,
    names: readonly string[],
    onSkipped: (skipped: SkippedPath) => void,
    onTimeClamped?: (path: string) => void,
  ) {
    super(name, path, onSkipped, onTimeClamped);
    this.names = packNames(names);
  }

  get total(): number {
    return this.names.length - (this.#nextIndex - this.capturedCount);
  }

  next(describeOnly: boolean): Frame | Loss | undefined {
    while (this.#nextIndex < this.names.length) {
      const item = this.nextFrame(this.names.at(this.#nextIndex++)!, describeOnly);
      if (item !== undefined) return item;
    }
    return undefined;
  }
}

function makeLoss(name: string, sequence: number, error: FramesError): Loss {
  return { first: sequence, last: sequence, what: name, name, error };
}

/** Returns the kind of file at `path`, or `undefined` if it cannot be determined. */
function fileKindAt(path: string): string | undefined {
  try {
    return fileKind(lstatSync(path));
  } catch {
    // The caller reports the error of opening the file.
    return undefined;
  }
}

/**
 * Returns `file`, `folder` or a description such as `a named pipe`; `undefined` if the kind is
 * unknown.
 */
export function fileKind(file: Dirent | StatsBase<unknown>): string | undefined {
  if (file.isFile()) return "file";
  if (file.isDirectory()) return "folder";
  if (file.isSymbolicLink()) return "a symbolic link";
  if (file.isFIFO()) return "a named pipe";
  if (file.isSocket()) return "a socket";
  if (file.isBlockDevice() || file.isCharacterDevice()) return "a device";
  return undefined;
}

/** The open files of all sources. Each source has one file that waits to be read. */
const waitingFiles = new OpenFileLimit(openFileShares().frames);

/** Makes `stat` return times in nanoseconds. */
const statOptions = { bigint: true } as const;

/** A file as a frame. Reading fails with `changed` if the file changed since it was opened. */
class FileFrame implements Frame, OpenFile {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata = "";
  readonly revises: boolean | undefined;
  readonly #folder: string;
  // Only these values of the stats are kept, because thousands of frames may be described at once.
  readonly #mtimeNs: bigint;
  readonly #ctimeNs: bigint;
  readonly #inode: bigint;
  #fd: number | undefined;

  /** @param describeOnly whether to take only the stats now and open the file when it is read */
  constructor(
    folder: string,
    name: string,
    sequence: number,
    describeOnly: boolean,
    revises: boolean | undefined,
  ) {
    this.#folder = folder;
    this.name = name;
    this.sequence = sequence;
    this.revises = revises;
    if (!describeOnly) this.#open();
    try {
      const stats =
        this.#fd === undefined
          ? lstatSync(`${folder}/${name}`, statOptions)
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

  #open(): number {
    const path = `${this.#folder}/${this.name}`;
    waitingFiles.acquire(this);
    try {
      this.#fd = openSync(path, openFlags);
    } catch (error) {
      waitingFiles.release(this);
      if (!isExhausted(error)) throw error;
      // Something else in this process has many files open. Files that only wait can be closed.
      waitingFiles.closeAll();
      this.#fd = openSync(path, openFlags);
    }
    return this.#fd;
  }

  /** Returns the file descriptor. Reopens a closed file and checks that it is unchanged. */
  #openIfClosed(): number {
    if (this.#fd !== undefined) return this.#fd;
    const fd = this.#open();
    this.#checkUnchanged(fd);
    return fd;
  }

  read(into: Uint8Array): void {
    try {
      const fd = this.#openIfClosed();
      let length = 0;
      while (length < into.length) {
        const count = readSync(fd, into, length, into.length - length, length);
        if (count === 0) throw changedError();
        length += count;
      }
      this.#checkUnchanged(fd);
    } catch (error) {
      throw toReadError(error, this.name);
    } finally {
      this.close();
    }
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    let fd: number | undefined;
    try {
      const openFd = (fd = this.#openIfClosed());
      // From here only the `finally` below closes it, after the last read has ended.
      this.#fd = undefined;
      waitingFiles.release(this);
      let remaining = this.size;
      for await (const { bytes, isLast } of readSlices(openFd, this.size)) {
        remaining -= bytes.length;
        if (isLast && remaining > 0) throw changedError();
        if (isLast) this.#checkUnchanged(openFd);
        yield bytes;
      }
    } catch (error) {
      throw toReadError(error, this.name);
    } finally {
      if (fd !== undefined) closeReadFile(fd);
    }
    return undefined;
  }

  #checkUnchanged(fd: number): void {
    const stats = fstatSync(fd, statOptions);
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
    const stats = lstatSync(`${this.#folder}/${this.name}`, { bigint: true });
    return stats.ino === this.#inode && stats.ctimeNs === this.#ctimeNs;
  }

  close(): void {
    waitingFiles.release(this);
    if (this.#fd !== undefined) closeReadFile(this.#fd);
    this.#fd = undefined;
  }
}

function changedAfterError(): FramesError {
  return new FramesError("changed", "it changed after it was sent");
}

function openForWritingError(): FramesError {
  return new FramesError("changed", "another process may still be writing to it");
}

function changedError(): FramesError {
  return new FramesError("changed", "it kept changing while it was read");
}

function toReadError(error: unknown, name: string): FramesError {
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
