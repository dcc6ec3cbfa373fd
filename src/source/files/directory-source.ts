/** Sends the files of a folder as frames. */
import { compileCheaply } from "../../common/compilation.ts";
import { type BigIntStats, type Dirent, lstatSync, type StatsBase, unlinkSync } from "node:fs";
import { lstat } from "node:fs/promises";
import { closeReadFile } from "../../common/close-file.ts";
import { checksum } from "../../common/checksum.ts";
import { FramesError, isExhausted } from "../../errors.ts";
import type { Frame, FrameSource, Loss, Postponed } from "../../frame.ts";
import type { OnSourceEvent } from "../source-event.ts";
import { FileFrame, type FrameFolder, openToRead, toFileError } from "./file-frame.ts";
import { takeLease } from "./file-writers.ts";
import { type NameList, packNames } from "./packed-names.ts";
import { ReadMode } from "./read-mode.ts";

/** Attempts to read a file that changes while it is read. */
const maxReadAttempts = 3;

/** Interval in milliseconds at which a file is tried again that a process has open for writing. */
const writerRetryMs = 1000;

/**
 * Milliseconds for which a file must be unchanged before it is removed, where the system does not
 * tell whether a process has it open for writing.
 */
const minQuietMs = 30_000;

/** Files unchanged for longer than this are removed there at once, in milliseconds. */
const maxClockErrorMs = 3_600_000;

export interface FileSourceOptions {
  readonly name: string;
  /** Path of the folder. */
  readonly path: string;
  /** Names of the frames, in the order of sending. */
  readonly names: readonly string[];
  /** Called also for names that turn out not to be regular files; they get no number. */
  readonly onEvent: OnSourceEvent;
}

/** Turns files of one folder into frames. Subclasses choose the files and their order. */
export abstract class FileSource implements FrameSource, FrameFolder {
  readonly name: string;
  readonly path: string;
  readonly readMode: ReadMode;
  readonly #onEvent: OnSourceEvent;
  readonly #attempts = new Map<number, number>();
  /** When removing a file was tried first, by `performance.now()`. Only of files still here. */
  readonly #quietSince = new Map<number, number>();
  #sequence = 0;
  #openFrame: FileFrame | undefined;

  constructor({ name, path, onEvent }: Omit<FileSourceOptions, "names">) {
    this.name = name;
    this.path = path;
    this.readMode = new ReadMode(path);
    compileCheaply(this.#openFile, this.nextFrame);
    this.#onEvent = onEvent;
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
   *
   * @param stats of the file, if they are known
   */
  protected nextFrame(
    name: string,
    describeOnly: boolean,
    stats?: BigIntStats,
  ): Frame | Loss | undefined {
    const item = this.#openFile(name, this.#sequence + 1, describeOnly, stats);
    if (item !== undefined) this.#sequence++;
    if (item instanceof FileFrame && item.isTimeClamped) {
      this.#onEvent({ type: "time-clamped", path: `${this.path}/${name}` });
    }
    return item;
  }

  /** As `nextFrame`, for a file that another machine or process may be slow to describe. */
  protected async nextRemoteFrame(name: string): Promise<Frame | Loss | undefined> {
    // `nextFrame` looks again if this fails, and reports why.
    const stats = await lstat(`${this.path}/${name}`, { bigint: true }).catch(() => undefined);
    return this.nextFrame(name, true, stats);
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
      const current = new FileFrame(this, frame.name, frame.sequence, true, undefined);
      if (!current.hasStateOf(frame)) throw changedAfterError();
      // Asked before the file is read, since a writer may take long.
      file = openToRead(path);
      let isUnwritten = takeLease(file, path);
      closeReadFile(file);
      file = undefined;
      if (isUnwritten === false) return { delayMs: writerRetryMs, error: openForWritingError() };
      const waitMs = isUnwritten === true ? 0 : this.#remainingQuietMs(current);
      if (waitMs > 0) return { delayMs: Math.round(waitMs), error: openForWritingError() };
      if ((await checksum(current)) !== crc32) throw changedAfterError();
      file = openToRead(path);
      isUnwritten = takeLease(file, path);
      if (isUnwritten === false) return { delayMs: writerRetryMs, error: openForWritingError() };
      // Another program may have put a different file in its place; delete only the file that was
      // read. The lease keeps writers out until it is closed.
      if (!current.isUnchangedOnDisk()) throw changedAfterError();
      unlinkSync(path);
      this.#quietSince.delete(frame.sequence);
      return "removed";
    } catch (error) {
      const fileError = toFileError(error, frame.name);
      if (isExhausted(fileError.cause)) return { delayMs: writerRetryMs, error: fileError };
      this.#quietSince.delete(frame.sequence);
      throw fileError;
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
      return new FileFrame(this, name, sequence, true, revises).hasStateOf(frame);
    } catch {
      return false;
    }
  }

  close(): void {
    this.#openFrame?.close();
  }

  /** Returns `undefined` if the path is not a regular file. */
  #openFile(
    name: string,
    sequence: number,
    describeOnly: boolean,
    stats?: BigIntStats,
  ): Frame | Loss | undefined {
    this.#openFrame?.close();
    this.#openFrame = undefined;
    try {
      const revises = this.mayRevise(name);
      const frame = new FileFrame(this, name, sequence, describeOnly, revises, stats);
      if (!describeOnly) this.#openFrame = frame;
      return frame;
    } catch (error) {
      const path = `${this.path}/${name}`;
      const kind = fileKindAt(path);
      if (kind === undefined || kind === "file" || kind === "folder") {
        return makeLoss(name, sequence, toFileError(error, name));
      }
      this.#onEvent({ type: "skipped", skipped: { path, why: kind } });
      return undefined;
    }
  }
}

/** The files of one folder as listed at the start, in natural order. */
export class DirectorySource extends FileSource {
  /** Names of the frames, in the order of sending. */
  readonly names: NameList;
  #nextIndex = 0;

  constructor(options: FileSourceOptions) {
    super(options);
    this.names = packNames(options.names);
  }

  get total(): number {
    return this.names.length - (this.#nextIndex - this.capturedCount);
  }

  next(describeOnly: boolean): Frame | Loss | undefined | Promise<Frame | Loss | undefined> {
    if (!this.readMode.isLocal) return this.#nextRemote();
    while (this.#nextIndex < this.names.length) {
      const item = this.nextFrame(this.names.at(this.#nextIndex++)!, describeOnly);
      if (item !== undefined) return item;
    }
    return undefined;
  }

  async #nextRemote(): Promise<Frame | Loss | undefined> {
    while (this.#nextIndex < this.names.length) {
      const item = await this.nextRemoteFrame(this.names.at(this.#nextIndex++)!);
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

function changedAfterError(): FramesError {
  return new FramesError("changed", "it changed after it was sent");
}

function openForWritingError(): FramesError {
  return new FramesError("changed", "another process may still be writing to it");
}
