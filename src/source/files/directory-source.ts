/** Frames from a folder. */
import {
  closeSync,
  type Dirent,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  type StatsBase,
  unlinkSync,
} from "node:fs";
import { checksum } from "../../common/checksum.ts";
import { openFlags } from "../../common/open-flags.ts";
import { FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { Frame, FrameSource, Loss } from "../../frame.ts";
import { type NameList, packNames } from "./packed-names.ts";
import { readSlices } from "../../common/file-slices.ts";

/** How often a file that changes while it is read is read again. */
const maxReadAttempts = 3;

/*
 * Where reading through `Bun.file` takes over from reading straight into the outgoing buffer.
 *
 * Measured with Bun 1.4.5 on two cores, tmpfs to a loopback socket, 400 MB, median ms (CPU ms):
 *
 *     frames of         20 KB        200 KB       2 MB
 *     into the buffer   254 (257)    134 (130)    126 (123)
 *     Bun.file          406 (508)    193 (234)    136 (151)
 *
 * So whatever fits into one message is read into the buffer. Larger frames are read by `Bun.file`,
 * which keeps a slow disk from holding up the other sources.
 */

/** Files from this size on are not kept open while they wait: many sources may have one. */
const maxOpenFileBytes = 1_000_000;

/** Something in a directory that is not sent. */
export interface SkippedPath {
  readonly path: string;
  readonly why: string;
}

/** Where files of one folder become frames. */
export abstract class FileSource implements FrameSource {
  readonly name: string;
  readonly path: string;
  readonly #onSkipped: (skipped: SkippedPath) => void;
  readonly #attempts = new Map<number, number>();
  #sequence = 0;
  #openFrame: FileFrame | undefined;

  /** @param onSkipped is told of names that turn out to be no files; they get no number */
  constructor(name: string, path: string, onSkipped: (skipped: SkippedPath) => void) {
    this.name = name;
    this.path = path;
    this.#onSkipped = onSkipped;
  }

  get isResumable(): boolean {
    return true;
  }

  abstract next(offered: boolean): Frame | Loss | undefined | Promise<Frame | Loss | undefined>;

  get capturedCount(): number {
    return this.#sequence;
  }

  /** The file of this name under the next number; nothing of what is no file, which gets none. */
  protected nextFrame(name: string, describeOnly: boolean): Frame | Loss | undefined {
    const item = this.#openFile(name, this.#sequence + 1, describeOnly);
    if (item !== undefined) this.#sequence++;
    return item;
  }

  /** A file that will never be read gets a number of its own. */
  protected nextLoss(name: string, error: FramesError): Loss {
    return makeLoss(name, ++this.#sequence, error);
  }

  retry(frame: Frame, error: FramesError): Frame | Loss {
    const { name, sequence } = frame;
    const tried = (this.#attempts.get(sequence) ?? 0) + 1;
    if (error.code === "changed" && tried < maxReadAttempts) {
      this.#attempts.set(sequence, tried);
      const item = this.#openFile(name, sequence, false);
      // It has its number already, whatever it is now.
      return (
        item ?? makeLoss(name, sequence, new FramesError("unreadable", "it is no longer a file"))
      );
    }
    this.#attempts.delete(sequence);
    return makeLoss(name, sequence, error);
  }

  async remove(frame: Frame, crc32: number): Promise<void> {
    const path = `${this.path}/${frame.name}`;
    try {
      const current = new FileFrame(this.path, frame.name, frame.sequence, true);
      const isSame =
        current.size === frame.size &&
        current.captured === frame.captured &&
        (await checksum(current)) === crc32;
      // What was read is what goes: somebody may have put another file in its place.
      if (!isSame || !current.isUnchangedOnDisk()) {
        throw new FramesError("changed", "it changed after it was sent");
      }
      unlinkSync(path);
    } catch (error) {
      throw toReadError(error, frame.name);
    }
  }

  close(): void {
    this.#openFrame?.close();
  }

  /** Nothing comes of what is no file. */
  #openFile(name: string, sequence: number, describeOnly: boolean): Frame | Loss | undefined {
    this.#openFrame?.close();
    this.#openFrame = undefined;
    try {
      const frame = new FileFrame(this.path, name, sequence, describeOnly);
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

/** The frames of one folder as it was found, in natural order. */
export class DirectorySource extends FileSource {
  /** Names of the frames, in order. */
  readonly names: NameList;
  #nextIndex = 0;

  /** @param onSkipped is told of names that turn out to be no files; they get no number */
  constructor(
    name: string,
    path: string,
    names: readonly string[],
    onSkipped: (skipped: SkippedPath) => void,
  ) {
    super(name, path, onSkipped);
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
  return { first: sequence, last: sequence, what: name, error };
}

/** What lies at `path`, if that can be told. */
function fileKindAt(path: string): string | undefined {
  try {
    return fileKind(lstatSync(path));
  } catch {
    // Why it cannot be opened is told; nothing more is known.
    return undefined;
  }
}

/** Whether it is a file or a folder, or what it is instead; nothing where that is not known. */
export function fileKind(file: Dirent | StatsBase<unknown>): string | undefined {
  if (file.isFile()) return "file";
  if (file.isDirectory()) return "folder";
  if (file.isSymbolicLink()) return "a symbolic link";
  if (file.isFIFO()) return "a named pipe";
  if (file.isSocket()) return "a socket";
  if (file.isBlockDevice() || file.isCharacterDevice()) return "a device";
  return undefined;
}

/** Times to the nanosecond. */
const statOptions = { bigint: true } as const;

/** A file as a frame: what it was when it was opened is what it must be when it has been read. */
class FileFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata = "";
  readonly #folder: string;
  // Thousands of frames may be described at a time, and the whole of what the system says is large.
  readonly #ctimeNs: bigint;
  readonly #inode: bigint;
  #fd: number | undefined;

  /** @param describeOnly whether the file is not opened before it is read */
  constructor(folder: string, name: string, sequence: number, describeOnly: boolean) {
    this.#folder = folder;
    this.name = name;
    this.sequence = sequence;
    if (!describeOnly) this.#fd = openSync(`${folder}/${name}`, openFlags);
    try {
      const stats =
        this.#fd === undefined
          ? lstatSync(`${folder}/${name}`, statOptions)
          : fstatSync(this.#fd, statOptions);
      if (!stats.isFile()) throw new FramesError("unreadable", "it is no longer a file");
      this.captured = stats.mtimeNs;
      this.size = Number(stats.size);
      this.#ctimeNs = stats.ctimeNs;
      this.#inode = stats.ino;
    } catch (error) {
      this.close();
      throw error;
    }
    if (this.size > maxOpenFileBytes) this.close();
  }

  /** The open file; one that was closed meanwhile must still be the same. */
  #openIfClosed(): number {
    if (this.#fd === undefined) {
      this.#fd = openSync(`${this.#folder}/${this.name}`, openFlags);
      this.#checkUnchanged(this.#fd);
    }
    return this.#fd;
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
      // It is closed below and nowhere else, and only when nothing reads it any more.
      this.#fd = undefined;
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
      if (fd !== undefined) closeSync(fd);
    }
    return undefined;
  }

  #checkUnchanged(fd: number): void {
    const stats = fstatSync(fd, statOptions);
    if (
      Number(stats.size) !== this.size ||
      stats.mtimeNs !== this.captured ||
      stats.ctimeNs !== this.#ctimeNs ||
      stats.ino !== this.#inode
    ) {
      throw changedError();
    }
  }

  /** Whether its name still stands for the same file, unchanged. */
  isUnchangedOnDisk(): boolean {
    const stats = lstatSync(`${this.#folder}/${this.name}`, { bigint: true });
    return stats.ino === this.#inode && stats.ctimeNs === this.#ctimeNs;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
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
  // A name that is not UTF-8 comes from the directory with U+FFFD in it, and cannot be opened.
  if (name.includes("\uFFFD")) {
    return new FramesError("unreadable", "its name is not UTF-8", options);
  }
  return new FramesError("vanished", "it was removed before it was read", options);
}
