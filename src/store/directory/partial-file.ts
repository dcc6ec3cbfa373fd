/** A frame being written, under a name of its own, until it is whole. */
import {
  closeSync,
  constants,
  futimesSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  type Stats,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename } from "node:path";
import { FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { FrameDescription, SourceInfo, FrameWriter, Outcome } from "../../frame.ts";
import { fileChecksum, isAbsent, isIntact } from "./file-check.ts";
import type { StoreFolder } from "./store-folder.ts";
import type { OpenFileLimit, OpenFile } from "./open-file-limit.ts";
import {
  conflictError,
  hasOtherKey,
  hasSameBytes,
  isEarlierVersion,
  type StoredFrameInfo,
} from "../conflict.ts";
import type { Replacement } from "../journal/journal.ts";
import type { NameIndex } from "./name-index.ts";
import type { FrameRow } from "../journal/schema.ts";

/** Where a frame is to lie. */
export interface FrameDestination {
  readonly sourceInfo: SourceInfo;
  readonly folder: StoreFolder;
  readonly nameIndex: NameIndex;
  /** Files being written. */
  readonly openFiles: OpenFileLimit;
  /** Has frames placed together, when the store is flushed. */
  readonly placeLater: PlaceLater;
  /** A frame was found whose file must be on the disk as well when the store is flushed. */
  onExisting(path: string): void;
}

/** Takes a frame that gets its name with the next flush. */
export type PlaceLater = (file: PartialFile, crc: number) => Promise<Outcome>;

/**
 * A frame as far as it can get before the journal: it has its name and needs its row, it is to take
 * the place of another, or nothing is left to be done.
 */
export type Placement =
  | { readonly outcome: "stored" | "present"; readonly row: FrameRow }
  | { readonly replacement: Replacement }
  | { readonly outcome: Outcome; readonly row: undefined };

/** Flags that open the file again to write behind what is there. */
const appendFlags = constants.O_WRONLY | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0);

export class PartialFile implements FrameWriter, OpenFile {
  readonly destination: FrameDestination;
  readonly description: FrameDescription;
  readonly path: string;
  /** Whether it may take the place of what has its name. */
  readonly #mayReplace: boolean;
  /** What the store had recorded when this frame began. */
  readonly #recordedAtStart: number;
  #file: number | undefined;
  #isCreated = false;

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
    try {
      this.#file = openSync(this.path, this.#isCreated ? appendFlags : "wx", 0o644);
    } catch (error) {
      openFiles.release(this);
      throw error;
    }
    this.#isCreated = true;
    return this.#file;
  }

  /** Others need the handle: it is opened again when the next bytes come. */
  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #closeAndRelease(): void {
    if (this.#file === undefined) return;
    this.destination.openFiles.release(this);
    this.close();
  }

  write(bytes: Uint8Array): void {
    try {
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
    const { sourceInfo, placeLater } = this.destination;
    try {
      const file = this.#open();
      const seconds = Number(captured) / 1e9;
      // Before 1970 only as text: Bun takes a negative number for "now".
      const time = seconds < 0 ? String(seconds) : seconds;
      futimesSync(file, time, time);
      this.#closeAndRelease();
      if (sourceInfo.durable === true || this.#mayReplace) return placeLater(this, crc);
      const placement = this.place(crc, this.#findStoredMeanwhile());
      // What does not replace is never told to.
      if ("replacement" in placement) throw new FramesError("internal");
      if (placement.row !== undefined) this.record(placement.row);
      return placement.outcome;
    } catch (error) {
      this.discard();
      throw this.toFrameError(error);
    }
  }

  /** Another sender may have begun the name too, or one that differs only in case, and finished first. */
  #findStoredMeanwhile(): StoredFrameInfo | null {
    const { nameIndex } = this.destination;
    return nameIndex.recordedCount === this.#recordedAtStart ? null : this.findStored();
  }

  /** The frame that has the name by the journal. */
  findStored(): StoredFrameInfo | null {
    const { sourceInfo, folder, nameIndex } = this.destination;
    const { name } = this.description;
    nameIndex.checkFree(folder.storePathOf(name));
    return nameIndex.journal.find(sourceInfo.stream, sourceInfo.source, name);
  }

  /**
   * Gives the file its final name, if nothing has it; the file is gone if something has.
   *
   * @param stored the frame that has the name by the journal
   * @throws if it cannot be placed: discard it
   */
  place(crc: number, stored: StoredFrameInfo | null): Placement {
    const { folder, sourceInfo } = this.destination;
    const { name } = this.description;
    const path = folder.pathOf(name);
    const isStored =
      stored !== null &&
      hasSameBytes(stored, this.description, crc) &&
      (sourceInfo.verifyStored !== true ||
        isIntact(path, stored) ||
        (sourceInfo.resendRemoved === true && isAbsent(path)));
    if (stored !== null && !(this.#mayReplace && this.#shouldReplace(stored, isStored, path))) {
      unlinkSync(this.path);
      if (isStored) this.destination.onExisting(path);
      this.#markAccounted();
      return { outcome: isStored ? "present" : conflictError(), row: undefined };
    }
    // First the folder: a link in its place would lead elsewhere.
    folder.ensure();
    const existing = lstatSync(path, { throwIfNoEntry: false });
    if (existing !== undefined && !existing.isFile()) {
      throw new FramesError(
        "not-stored",
        `Cannot store ${JSON.stringify(name)}: ${path} is no file`,
      );
    }
    if (stored !== null) {
      return { replacement: { row: this.#row(crc), partial: basename(this.path) } };
    }
    const isUnrecorded = existing !== undefined && this.#isUnrecorded(path, existing, crc);
    // Nobody has a row for what lies there, so nothing has to be noted before it is replaced.
    if (existing === undefined || (sourceInfo.conflict === "replace" && !isUnrecorded)) {
      this.rename();
      return { outcome: "stored", row: this.#row(crc) };
    }
    unlinkSync(this.path);
    if (!isUnrecorded) {
      this.#markAccounted();
      return { outcome: conflictError(), row: undefined };
    }
    this.destination.onExisting(path);
    return { outcome: "present", row: this.#row(crc) };
  }

  /** It gets no row, and is not lost either. */
  #markAccounted(): void {
    this.destination.nameIndex.markAccounted(
      this.destination.sourceInfo,
      this.description.sequence,
    );
  }

  /** Whether other bytes are to be replaced, or the file of a frame that was moved away. */
  #shouldReplace(stored: StoredFrameInfo, isStored: boolean, path: string): boolean {
    const { sourceInfo, nameIndex } = this.destination;
    if (!isStored) {
      const mayReplace = sourceInfo.conflict === "replace" && !hasOtherKey(stored, sourceInfo);
      return (
        mayReplace ||
        sourceInfo.isCopy === true ||
        isEarlierVersion(stored, sourceInfo, this.description)
      );
    }
    return (
      sourceInfo.resendRemoved === true &&
      isAbsent(path) &&
      !nameIndex.isOwn(sourceInfo, this.description)
    );
  }

  /** A crash between name and journal leaves just this: a whole frame without its row. */
  #isUnrecorded(path: string, existing: Stats, crc: number): boolean {
    return existing.size === this.description.size && fileChecksum(path) === crc;
  }

  /** Gives the file its final name, whatever has it. */
  rename(): void {
    const { folder } = this.destination;
    const path = folder.pathOf(this.description.name);
    folder.ensure();
    try {
      renameSync(this.path, path);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
      // Somebody removed the folder, perhaps because it was empty.
      folder.recreate();
      renameSync(this.path, path);
    }
  }

  #row(crc: number): FrameRow {
    const { sourceInfo, nameIndex } = this.destination;
    return nameIndex.row(sourceInfo, this.description, crc);
  }

  /** Records what was placed. */
  record(row: FrameRow): void {
    const { folder, nameIndex } = this.destination;
    nameIndex.record(folder.storePathOf(row.name), row);
  }

  discard(): void {
    this.#closeAndRelease();
    try {
      rmSync(this.path, { force: true });
    } catch {
      // Why the disk cannot be written was told already; the next start removes what is left.
    }
  }

  /** What every frame would meet ends the connection; what only this one meets refuses it. */
  toFrameError(error: unknown): FramesError {
    if (error instanceof FramesError) return error;
    const code = storeErrorCodes.has(systemCode(error) ?? "") ? "store" : "not-stored";
    const name = JSON.stringify(this.description.name);
    return new FramesError(code, `Cannot store ${name}: ${systemSentence(error)}`, {
      cause: error,
    });
  }
}

const storeErrorCodes = new Set(["ENOSPC", "EDQUOT", "EROFS", "EIO", "EMFILE", "ENFILE"]);
