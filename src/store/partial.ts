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
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { FrameDescription, FrameOrigin, FrameWriter, Outcome } from "../frame.ts";
import { fileChecksum, isGone, isIntact } from "./content.ts";
import type { Folder } from "./folder.ts";
import type { Handles, Holder } from "./handles.ts";
import type { Replacement, StoredFrame } from "./journal.ts";
import type { Register } from "./register.ts";
import type { FrameRow } from "./schema.ts";

/** Where a frame is to lie. */
export interface Destination {
  readonly origin: FrameOrigin;
  readonly folder: Folder;
  readonly register: Register;
  /** Files being written. */
  readonly handles: Handles;
  /** Has frames placed together, when the store is flushed. */
  readonly later: PlaceLater;
  /** A frame was found whose file must be on the disk as well when the store is flushed. */
  found(path: string): void;
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

/** Whether a stored frame is the one described. */
export function isSame(stored: StoredFrame, { size }: FrameDescription, crc: number): boolean {
  return stored.bytes === size && stored.crc32 === crc;
}

/** Whether a stored frame came with another key than `origin` has: that one's is not to be replaced. */
export function isAnothers(stored: StoredFrame, { key }: FrameOrigin): boolean {
  return stored.key !== null && key !== undefined && stored.key !== key;
}

/** Whether a stored frame is an earlier version of this one, by its own sender. */
export function isRevised(
  { session, seq }: StoredFrame,
  origin: FrameOrigin,
  { sequence }: { readonly sequence: number },
): boolean {
  return origin.revises === true && session === origin.session && seq < sequence;
}

export function conflict(): FramesError {
  return new FramesError("conflict", "other bytes are stored under this name");
}

/** Flags that open the file again to write behind what is there. */
const again = constants.O_WRONLY | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0);

export class PartialFile implements FrameWriter, Holder {
  readonly destination: Destination;
  readonly description: FrameDescription;
  readonly path: string;
  /** Whether it may take the place of what has its name. */
  readonly #replaces: boolean;
  /** What the store had recorded when this frame began. */
  readonly #recordedBefore: number;
  #file: number | undefined;
  #isCreated = false;

  constructor(
    destination: Destination,
    description: FrameDescription,
    path: string,
    replaces: boolean,
  ) {
    this.destination = destination;
    this.description = description;
    this.path = path;
    this.#replaces = replaces;
    this.#recordedBefore = destination.register.recorded;
  }

  #open(): number {
    if (this.#file !== undefined) return this.#file;
    const { handles } = this.destination;
    handles.opening(this);
    try {
      this.#file = openSync(this.path, this.#isCreated ? again : "wx", 0o644);
    } catch (error) {
      handles.closed(this);
      throw error;
    }
    this.#isCreated = true;
    return this.#file;
  }

  /** Others need the handle: it is opened again when the next bytes come. */
  letGo(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #close(): void {
    if (this.#file === undefined) return;
    this.destination.handles.closed(this);
    this.letGo();
  }

  write(bytes: Uint8Array): void {
    try {
      const file = this.#open();
      let written = 0;
      while (written < bytes.length) {
        written += writeSync(file, bytes, written, bytes.length - written);
      }
    } catch (error) {
      throw this.failure(error);
    }
  }

  finish(crc: number): Outcome | Promise<Outcome> {
    const { captured } = this.description;
    const { origin, later } = this.destination;
    try {
      const file = this.#open();
      const seconds = Number(captured) / 1e9;
      // Before 1970 only as text: Bun takes a negative number for "now".
      const time = seconds < 0 ? String(seconds) : seconds;
      futimesSync(file, time, time);
      this.#close();
      if (origin.durable === true || this.#replaces) return later(this, crc);
      const placement = this.place(crc, this.#storedMeanwhile());
      // What does not replace is never told to.
      if ("replacement" in placement) throw new FramesError("internal");
      if (placement.row !== undefined) this.record(placement.row);
      return placement.outcome;
    } catch (error) {
      this.discard();
      throw this.failure(error);
    }
  }

  /** Another sender may have begun the name too, or one that differs only in case, and finished first. */
  #storedMeanwhile(): StoredFrame | null {
    const { register } = this.destination;
    return register.recorded === this.#recordedBefore ? null : this.findStored();
  }

  /** The frame that has the name by the journal. */
  findStored(): StoredFrame | null {
    const { origin, folder, register } = this.destination;
    const { name } = this.description;
    register.checkFree(folder.relativePathOf(name));
    return register.journal.find(origin.stream, origin.source, name);
  }

  /**
   * Gives the file its final name, if nothing has it; the file is gone if something has.
   *
   * @param stored the frame that has the name by the journal
   * @throws if it cannot be placed: discard it
   */
  place(crc: number, stored: StoredFrame | null): Placement {
    const { folder, origin } = this.destination;
    const { name } = this.description;
    const path = folder.pathOf(name);
    const isStored =
      stored !== null &&
      isSame(stored, this.description, crc) &&
      (origin.proven !== true || isIntact(path, stored) || (origin.again === true && isGone(path)));
    if (stored !== null && !(this.#replaces && this.#isToReplace(stored, isStored, path))) {
      unlinkSync(this.path);
      if (isStored) this.destination.found(path);
      this.#account();
      return { outcome: isStored ? "present" : conflict(), row: undefined };
    }
    // First the folder: a link in its place would lead elsewhere.
    folder.make();
    const taken = lstatSync(path, { throwIfNoEntry: false });
    if (taken !== undefined && !taken.isFile()) {
      throw new FramesError(
        "not-stored",
        `Cannot store ${JSON.stringify(name)}: ${path} is no file`,
      );
    }
    if (stored !== null) {
      return { replacement: { row: this.#row(crc), partial: basename(this.path) } };
    }
    const isUnrecorded = taken !== undefined && this.#isUnrecorded(path, taken, crc);
    // Nobody has a row for what lies there, so nothing has to be noted before it is replaced.
    if (taken === undefined || (origin.conflict === "replace" && !isUnrecorded)) {
      this.rename();
      return { outcome: "stored", row: this.#row(crc) };
    }
    unlinkSync(this.path);
    if (!isUnrecorded) {
      this.#account();
      return { outcome: conflict(), row: undefined };
    }
    this.destination.found(path);
    return { outcome: "present", row: this.#row(crc) };
  }

  /** It gets no row, and is not lost either. */
  #account(): void {
    this.destination.register.account(this.destination.origin, this.description.sequence);
  }

  /** Whether other bytes are to be replaced, or the file of a frame that was moved away. */
  #isToReplace(stored: StoredFrame, isStored: boolean, path: string): boolean {
    const { origin, register } = this.destination;
    if (!isStored) {
      const mayReplace = origin.conflict === "replace" && !isAnothers(stored, origin);
      return mayReplace || origin.mirrors === true || isRevised(stored, origin, this.description);
    }
    return origin.again === true && isGone(path) && !register.isOwn(origin, this.description);
  }

  /** A crash between name and journal leaves just this: a whole frame without its row. */
  #isUnrecorded(path: string, taken: Stats, crc: number): boolean {
    return taken.size === this.description.size && fileChecksum(path) === crc;
  }

  /** Gives the file its final name, whatever has it. */
  rename(): void {
    const { folder } = this.destination;
    const path = folder.pathOf(this.description.name);
    folder.make();
    try {
      renameSync(this.path, path);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
      // Somebody removed the folder, perhaps because it was empty.
      folder.makeAgain();
      renameSync(this.path, path);
    }
  }

  #row(crc: number): FrameRow {
    const { origin, register } = this.destination;
    return register.row(origin, this.description, crc);
  }

  /** Records what was placed. */
  record(row: FrameRow): void {
    const { folder, register } = this.destination;
    register.record(folder.relativePathOf(row.name), row);
  }

  discard(): void {
    this.#close();
    try {
      rmSync(this.path, { force: true });
    } catch {
      // Why the disk cannot be written was told already; the next start removes what is left.
    }
  }

  /** What every frame would meet ends the connection; what only this one meets refuses it. */
  failure(error: unknown): FramesError {
    if (error instanceof FramesError) return error;
    const code = storeFails.has(systemCode(error) ?? "") ? "store" : "not-stored";
    const name = JSON.stringify(this.description.name);
    return new FramesError(code, `Cannot store ${name}: ${systemSentence(error)}`, {
      cause: error,
    });
  }
}

const storeFails = new Set(["ENOSPC", "EDQUOT", "EROFS", "EIO", "EMFILE", "ENFILE"]);
