/** Frames from a folder. */
import {
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  type StatsBase,
  unlinkSync,
} from "node:fs";
import { checksum } from "../checksum.ts";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Frame, FrameSource, Loss } from "../frame.ts";
import { type Names, packNames } from "./names.ts";
import { slicesOf } from "./slices.ts";

/** How often a file that changes while it is read is read again. */
const attempts = 3;

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
const keptOpen = 1_000_000;

/** Something in a directory that is not sent. */
export interface Skipped {
  readonly path: string;
  readonly why: string;
}

/** Where files of one folder become frames. */
export abstract class FolderSource implements FrameSource {
  readonly name: string;
  readonly path: string;
  readonly #skipped: (skipped: Skipped) => void;
  readonly #attempts = new Map<number, number>();
  #sequence = 0;
  #open: FileFrame | undefined;

  /** @param skipped is told of names that turn out to be no files; they get no number */
  constructor(name: string, path: string, skipped: (skipped: Skipped) => void) {
    this.name = name;
    this.path = path;
    this.#skipped = skipped;
  }

  get resumes(): boolean {
    return true;
  }

  abstract next(offered: boolean): Frame | Loss | undefined | Promise<Frame | Loss | undefined>;

  get captured(): number {
    return this.#sequence;
  }

  /** The file of this name under the next number; nothing of what is no file, which gets none. */
  protected take(name: string, offered: boolean): Frame | Loss | undefined {
    const item = this.#read(name, this.#sequence + 1, offered);
    if (item !== undefined) this.#sequence++;
    return item;
  }

  /** A file that will never be read gets a number of its own. */
  protected lose(name: string, error: FramesError): Loss {
    return loss(name, ++this.#sequence, error);
  }

  again(frame: Frame, error: FramesError): Frame | Loss {
    const { name, sequence } = frame;
    const tried = (this.#attempts.get(sequence) ?? 0) + 1;
    if (error.code === "changed" && tried < attempts) {
      this.#attempts.set(sequence, tried);
      const item = this.#read(name, sequence, false);
      // It has its number already, whatever it is now.
      return item ?? loss(name, sequence, new FramesError("unreadable", "it is no longer a file"));
    }
    this.#attempts.delete(sequence);
    return loss(name, sequence, error);
  }

  async remove(frame: Frame, crc32: number): Promise<void> {
    const path = `${this.path}/${frame.name}`;
    try {
      const found = new FileFrame(this.path, frame.name, frame.sequence, true);
      const isSame =
        found.size === frame.size &&
        found.captured === frame.captured &&
        (await checksum(found)) === crc32;
      // What was read is what goes: somebody may have put another file in its place.
      if (!isSame || !found.isStillThere()) {
        throw new FramesError("changed", "it changed after it was sent");
      }
      unlinkSync(path);
    } catch (error) {
      throw readFailure(error, frame.name);
    }
  }

  close(): void {
    this.#open?.close();
  }

  /** Nothing comes of what is no file. */
  #read(name: string, sequence: number, described: boolean): Frame | Loss | undefined {
    this.#open?.close();
    this.#open = undefined;
    try {
      const frame = new FileFrame(this.path, name, sequence, described);
      if (!described) this.#open = frame;
      return frame;
    } catch (error) {
      const path = `${this.path}/${name}`;
      const kind = kindAt(path);
      if (kind === undefined || kind === "file" || kind === "folder") {
        return loss(name, sequence, readFailure(error, name));
      }
      this.#skipped({ path, why: kind });
      return undefined;
    }
  }
}

/** The frames of one folder as it was found, in natural order. */
export class DirectorySource extends FolderSource {
  /** Names of the frames, in order. */
  readonly names: Names;
  #next = 0;

  /** @param skipped is told of names that turn out to be no files; they get no number */
  constructor(
    name: string,
    path: string,
    names: readonly string[],
    skipped: (skipped: Skipped) => void,
  ) {
    super(name, path, skipped);
    this.names = packNames(names);
  }

  get total(): number {
    return this.names.length - (this.#next - this.captured);
  }

  next(offered: boolean): Frame | Loss | undefined {
    while (this.#next < this.names.length) {
      const item = this.take(this.names.at(this.#next++)!, offered);
      if (item !== undefined) return item;
    }
    return undefined;
  }
}

function loss(name: string, sequence: number, error: FramesError): Loss {
  return { first: sequence, last: sequence, what: name, error };
}

/** What lies at `path`, if that can be told. */
function kindAt(path: string): string | undefined {
  try {
    return kindOfFile(lstatSync(path));
  } catch {
    // Why it cannot be opened is told; nothing more is known.
    return undefined;
  }
}

/** Whether it is a file or a folder, or what it is instead; nothing where that is not known. */
export function kindOfFile(file: Dirent | StatsBase<unknown>): string | undefined {
  if (file.isFile()) return "file";
  if (file.isDirectory()) return "folder";
  if (file.isSymbolicLink()) return "a symbolic link";
  if (file.isFIFO()) return "a named pipe";
  if (file.isSocket()) return "a socket";
  if (file.isBlockDevice() || file.isCharacterDevice()) return "a device";
  return undefined;
}

// A file that became a link or a pipe since its folder was listed is not followed or waited for.
export const openFlags =
  constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/** Times to the nanosecond. */
const exactly = { bigint: true } as const;

/** A file as a frame: what it was when it was opened is what it must be when it has been read. */
class FileFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata = "";
  readonly #folder: string;
  // Thousands of frames may be described at a time, and the whole of what the system says is large.
  readonly #changedAt: bigint;
  readonly #inode: bigint;
  #file: number | undefined;

  /** @param described whether the file is not opened before it is read */
  constructor(folder: string, name: string, sequence: number, described: boolean) {
    this.#folder = folder;
    this.name = name;
    this.sequence = sequence;
    if (!described) this.#file = openSync(`${folder}/${name}`, openFlags);
    try {
      const stats =
        this.#file === undefined
          ? lstatSync(`${folder}/${name}`, exactly)
          : fstatSync(this.#file, exactly);
      if (!stats.isFile()) throw new FramesError("unreadable", "it is no longer a file");
      this.captured = stats.mtimeNs;
      this.size = Number(stats.size);
      this.#changedAt = stats.ctimeNs;
      this.#inode = stats.ino;
    } catch (error) {
      this.close();
      throw error;
    }
    if (this.size > keptOpen) this.close();
  }

  /** The open file; one that was closed meanwhile must still be the same. */
  #opened(): number {
    if (this.#file === undefined) {
      this.#file = openSync(`${this.#folder}/${this.name}`, openFlags);
      this.#checkUnchanged(this.#file);
    }
    return this.#file;
  }

  read(into: Uint8Array): void {
    try {
      const file = this.#opened();
      let length = 0;
      while (length < into.length) {
        const read = readSync(file, into, length, into.length - length, length);
        if (read === 0) throw changed();
        length += read;
      }
      this.#checkUnchanged(file);
    } catch (error) {
      throw readFailure(error, this.name);
    } finally {
      this.close();
    }
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    let file: number | undefined;
    try {
      const own = (file = this.#opened());
      // It is closed below and nowhere else, and only when nothing reads it any more.
      this.#file = undefined;
      let left = this.size;
      for await (const { bytes, isLast } of slicesOf(own, this.size)) {
        left -= bytes.length;
        if (isLast && left > 0) throw changed();
        if (isLast) this.#checkUnchanged(own);
        yield bytes;
      }
    } catch (error) {
      throw readFailure(error, this.name);
    } finally {
      if (file !== undefined) closeSync(file);
    }
    return undefined;
  }

  #checkUnchanged(file: number): void {
    const now = fstatSync(file, exactly);
    if (
      Number(now.size) !== this.size ||
      now.mtimeNs !== this.captured ||
      now.ctimeNs !== this.#changedAt ||
      now.ino !== this.#inode
    ) {
      throw changed();
    }
  }

  /** Whether its name still stands for the same file, unchanged. */
  isStillThere(): boolean {
    const now = lstatSync(`${this.#folder}/${this.name}`, { bigint: true });
    return now.ino === this.#inode && now.ctimeNs === this.#changedAt;
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

function changed(): FramesError {
  return new FramesError("changed", "it kept changing while it was read");
}

function readFailure(error: unknown, name: string): FramesError {
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
