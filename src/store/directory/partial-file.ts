/** Writes a frame to a file under a temporary name, and renames it when it is complete. */
import { compileCheaply } from "../../common/compilation.ts";
import {
  closeSync,
  constants,
  futimesSync,
  openSync,
  renameSync,
  rmSync,
  type Stats,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename } from "node:path";
import type { OpenFileLimit, OpenFile } from "../../common/open-file-limit.ts";
import { FramesError, isExhausted, systemCode } from "../../errors.ts";
import type { FrameDescription, FrameWriter, Outcome } from "../../frame.ts";
import {
  existingBytes,
  type FileDestination,
  flushExisting,
  settleExisting,
} from "./existing-file.ts";
import { entryAt, fileChecksum, isReadableAnd } from "./file-check.ts";
import {
  conflictError,
  isEarlierVersion,
  isRepeated,
  mayReplaceOthers,
  type StoredBytes,
  type StoredFrameInfo,
} from "../conflict.ts";
import type { Replacement } from "../journal/journal.ts";
import type { FrameRow } from "../journal/schema.ts";
import { toStoreError, toWholeStoreError } from "./store-error.ts";

/** Destination of the frames of one source. */
export interface FrameDestination extends FileDestination {
  /** Path of the store. */
  readonly root: string;
  /** Limits the open files of all unfinished frames. */
  readonly openFiles: OpenFileLimit;
  readonly batch: FrameBatch;
}

/** What the next flush of the store commits. */
type FrameBatch = FileDestination["batch"] & {
  /** Adds a complete frame, which gets its final name then. */
  add(file: PartialFile, crc: number): Promise<Outcome>;
};

/**
 * Result of placing a frame. It has its final name and needs a row, or must replace another frame,
 * or is finished without a row.
 */
export type Placement =
  | { readonly outcome: "stored" | "present"; readonly row: FrameRow }
  | { readonly replacement: Replacement }
  | { readonly outcome: Outcome; readonly row: undefined };

/** Flags that reopen the file to append to it. */
const appendFlags = constants.O_WRONLY | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0);

export class PartialFile implements FrameWriter, OpenFile {
  readonly destination: FrameDestination;
  readonly description: FrameDescription;
  readonly path: string;
  /** Whether the frame may replace another of its name. */
  readonly #mayReplace: boolean;
  /**
   * Value of `recordedCount` when the frame began. An unchanged count means that the name is still
   * free.
   */
  readonly #recordedAtStart: number;
  #file: number | undefined;
  #isCreated = false;
  /** Why the file could not be closed: on some file systems that is when a full disk shows. */
  #closeError: { readonly error: unknown } | undefined;

  constructor(
    destination: FrameDestination,
    description: FrameDescription,
    path: string,
    mayReplace: boolean,
  ) {
    this.destination = destination;
    this.description = description;
    this.path = path;
    this.#mayReplace = mayReplace;
    this.#recordedAtStart = destination.nameIndex.recordedCount;
  }

  #open(): number {
    if (this.#file !== undefined) return this.#file;
    const { openFiles } = this.destination;
    openFiles.acquire(this);
    const open = () => openSync(this.path, this.#isCreated ? appendFlags : "wx", 0o644);
    try {
      try {
        this.#file = open();
      } catch (error) {
        if (!isExhausted(error)) throw error;
        // Other frames can wait for their next bytes with a closed file.
        openFiles.closeAll();
        this.#file = open();
        openFiles.acquire(this);
      }
    } catch (error) {
      openFiles.release(this);
      // Without a new file in the folder of unfinished frames, no frame can be stored.
      if (!this.#isCreated) throw this.#toWholeStoreError(error);
      throw error;
    }
    this.#isCreated = true;
    return this.#file;
  }

  /** Closes the file, so that another can be opened. The next bytes open it again. */
  close(): void {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    try {
      closeSync(file);
    } catch (error) {
      // Another frame may need the place of this one. The error is thrown with the next bytes.
      this.#closeError ??= { error };
    }
  }

  #closeAndRelease(): void {
    if (this.#file === undefined) return;
    this.destination.openFiles.release(this);
    this.close();
  }

  #checkClosed(): void {
    if (this.#closeError !== undefined) throw this.#closeError.error;
  }

  write(bytes: Uint8Array): void {
    try {
      this.#checkClosed();
      const file = this.#open();
      let written = 0;
      while (written < bytes.length) {
        written += writeSync(file, bytes, written, bytes.length - written);
      }
    } catch (error) {
      throw this.toFrameError(error);
    }
  }

  finish(crc: number): Outcome | Promise<Outcome> {
    const { captured } = this.description;
    const { sourceInfo, batch } = this.destination;
    try {
      const file = this.#open();
      const seconds = Number(captured) / 1e9;
      // Bun takes a negative number as "now", so times before 1970 are passed as text.
      const time = seconds < 0 ? String(seconds) : seconds;
      futimesSync(file, time, time);
      this.#closeAndRelease();
      this.#checkClosed();
      if (sourceInfo.durable === true || this.#mayReplace) return batch.add(this, crc);
      const placement = this.place(crc, this.#findStoredMeanwhile());
      // Only a frame that may replace another gets such a placement, and those are placed by the
      // batch.
      if ("replacement" in placement) throw new FramesError("internal");
      if (placement.row !== undefined) this.record(placement.row);
      return placement.outcome;
    } catch (error) {
      this.discard();
      throw this.toFrameError(error);
    }
  }

  /**
   * Returns the frame that another sender has stored under this name since this one began.
   *
   * @throws {FramesError} `unportable-name` if a path stored since differs only in case or Unicode
   * form
   */
  #findStoredMeanwhile(): StoredFrameInfo | null {
    const { nameIndex } = this.destination;
    return nameIndex.recordedCount === this.#recordedAtStart ? null : this.findStored();
  }

  /**
   * Returns the frame that the journal has under this name.
   *
   * @throws {FramesError} `unportable-name`
   */
  findStored(): StoredFrameInfo | null {
    const { sourceInfo, folder, nameIndex } = this.destination;
    const { name } = this.description;
    nameIndex.checkFree(folder.storePathOf(name));
    return nameIndex.journal.find(sourceInfo.stream, sourceInfo.source, name);
  }

  /**
   * Renames the file to its final name if that is free. Deletes the file if another frame has the
   * name.
   *
   * @param stored the frame that the journal has under this name
   * @throws if the frame cannot be placed; the caller must then discard it
   */
  place(crc: number, stored: StoredFrameInfo | null): Placement {
    const { folder, sourceInfo } = this.destination;
    const { name } = this.description;
    const path = folder.pathOf(name);
    if (stored !== null) {
      const mayReplace = this.#mayReplace;
      const bytes = existingBytes(this.destination, this.description, stored, crc, mayReplace);
      if (!mayReplace || !this.#shouldReplace(stored, bytes)) {
        unlinkSync(this.path);
        const outcome = settleExisting(this.destination, this.description, stored, bytes);
        return { outcome, row: undefined };
      }
    }
    if (stored === null && this.#wasRemovedBefore(crc)) {
      unlinkSync(this.path);
      this.#markAccounted();
      return { outcome: new FramesError("moved-away"), row: undefined };
    }
    // Check the folder before the rename, because a link in its place would lead out of the store.
    folder.ensure();
    const existing = entryAt(path);
    if (existing !== undefined && !existing.isFile()) {
      throw new FramesError(
        "not-stored",
        `Cannot store ${JSON.stringify(name)}: ${path} is not a file`,
      );
    }
    if (stored !== null) {
      return { replacement: { row: this.#row(crc), partial: basename(this.path) } };
    }
    const isUnrecorded = existing !== undefined && this.#isUnrecorded(path, existing, crc);
    // The file in place has no row, so no replacement needs to be recorded.
    if (existing === undefined || (sourceInfo.conflict === "replace" && !isUnrecorded)) {
      this.rename();
      return { outcome: "stored", row: this.#row(crc) };
    }
    unlinkSync(this.path);
    if (!isUnrecorded) {
      this.#markAccounted();
      return { outcome: conflictError(), row: undefined };
    }
    flushExisting(this.destination, name);
    return { outcome: "present", row: this.#row(crc) };
  }

  /** Returns whether retention removed the same frame. It counts as moved away (SPEC section 8). */
  #wasRemovedBefore(crc: number): boolean {
    const { sourceInfo, nameIndex } = this.destination;
    const { deletionLog } = nameIndex.journal;
    const { stream, source, knowsMovedAway, resendRemoved } = sourceInfo;
    if (deletionLog.isEmpty || knowsMovedAway !== true || resendRemoved === true) return false;
    const { name, captured, size } = this.description;
    const removed = deletionLog.find(stream, source, name, captured);
    return removed?.bytes === size && removed.crc32 === crc;
  }

  /** Accounts for the number, because the frame gets no row but is not lost. */
  #markAccounted(): void {
    this.destination.nameIndex.markAccounted(
      this.destination.sourceInfo,
      this.description.sequence,
    );
  }

  /**
   * Returns whether the frame replaces the stored one: other bytes under its name, or a file that
   * was moved away.
   */
  #shouldReplace(stored: StoredFrameInfo, bytes: StoredBytes): boolean {
    const { sourceInfo } = this.destination;
    if (bytes === "other") {
      return (
        mayReplaceOthers(stored, sourceInfo) ||
        sourceInfo.isCopy === true ||
        isEarlierVersion(stored, sourceInfo, this.description)
      );
    }
    const { resendRemoved } = sourceInfo;
    const isRemoved = bytes === "gone" && !isRepeated(stored, sourceInfo, this.description);
    return resendRemoved === true && isRemoved;
  }

  /**
   * Returns whether the file in place is this frame without a row. A crash between rename and
   * commit leaves such a file.
   */
  #isUnrecorded(path: string, existing: Stats, crc: number): boolean {
    if (existing.size !== this.description.size) return false;
    const check = () => fileChecksum(path) === crc;
    return this.destination.sourceInfo.conflict === "replace" ? isReadableAnd(check) : check();
  }

  /** Renames the file to its final name and replaces any file there. */
  rename(): void {
    const { folder } = this.destination;
    const path = folder.pathOf(this.description.name);
    folder.ensure();
    try {
      renameSync(this.path, path);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
      // The folder was removed meanwhile, perhaps by retention because it was empty.
      folder.recreate();
      renameSync(this.path, path);
    }
  }

  #row(crc: number): FrameRow {
    const { sourceInfo, nameIndex } = this.destination;
    return nameIndex.row(sourceInfo, this.description, crc);
  }

  /** Records the row of a placed frame. */
  record(row: FrameRow): void {
    const { folder, nameIndex } = this.destination;
    nameIndex.record(folder.storePathOf(row.name), row);
  }

  discard(): void {
    this.#closeAndRelease();
    try {
      rmSync(this.path, { force: true });
    } catch {
      // The error of the disk was already reported. The next start deletes the file.
    }
  }

  /** Converts an error as `toStoreError` does. */
  toFrameError(error: unknown): FramesError {
    return toStoreError(error, this.#what, this.destination.root);
  }

  #toWholeStoreError(error: unknown): FramesError {
    return toWholeStoreError(error, this.#what, this.destination.root);
  }

  get #what(): string {
    return `Cannot store ${JSON.stringify(this.description.name)}`;
  }
}

compileCheaply(
  PartialFile.prototype.write,
  PartialFile.prototype.finish,
  PartialFile.prototype.place,
);
compileCheaply(PartialFile.prototype.rename, PartialFile.prototype.record);
