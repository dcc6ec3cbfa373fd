/** The spooled frames and losses of one source. */
import type { Database } from "bun:sqlite";
import {
  closeSync,
  constants,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { checkNotForeign } from "../../common/foreign-folder.ts";
import { replaceFile } from "../../common/replace-file.ts";
import { FramesError, systemSentence, usageError } from "../../errors.ts";
import type { Frame, Loss } from "../../frame.ts";
import { formatRawShape } from "../image/raw.ts";
import { removeFile, SpoolNotes } from "./spool-notes.ts";
import { prepareSpoolStatements } from "./spool-rows.ts";
import { SpooledFrame } from "./spooled-frame.ts";

/** What the sources of a spool share. */
export interface SharedSpool {
  readonly directory: string;
  /** Whether nothing is on the disk yet, because it was full at the start. */
  readonly isNew: boolean;
  /** Id of the session in which the numbers in the spool began. */
  readonly numbering: string;
  /**
   * Returns the database.
   *
   * @throws if its disk is still full
   */
  open(): Database;
  /**
   * Called before each write. Makes room on a disk that was full.
   *
   * @throws if it is still full
   */
  makeRoom(): void;
  /** Converts an error of the disk, and reports the first one. */
  fail(action: "read" | "written", error: unknown): FramesError;
  /** Called when a frame was spooled: a later failure is reported again. */
  onSpooled(): void;
  /** Returns whether this many more bytes fit. */
  hasRoom(bytes: number): boolean;
  /** Returns whether this many bytes would fit into the empty spool. */
  isLargeEnough(bytes: number): boolean;
  /** Counts added bytes, or removed ones if negative. */
  adjustBytes(bytes: number): void;
}

/** Opens a file to cut it. A link in its place fails instead of being followed. */
const cutFlags = constants.O_WRONLY | (constants.O_NOFOLLOW ?? 0);

/** End of the name of a file whose frame was settled while its row could not be deleted. */
const settledSuffix = ".settled";

export class SourceSpool {
  readonly #spool: SharedSpool;
  readonly #folder: string;
  readonly #source: string;
  #statements: ReturnType<typeof prepareSpoolStatements> | undefined;
  #hasFolder = false;
  readonly #notes: SpoolNotes;
  /** Losses that SQLite could not record yet, by their first number. */
  readonly #unrecorded = new Map<number, Loss>();
  /** Whether one of them is not even noted, so that a killed process would forget it. */
  #isLossUnnoted = false;
  #frameCount = 0;
  /** Whether pictures of encoded video may be in the spool. */
  #hasPictures = false;
  /** Last sequence number that `next` returned on this connection. */
  #lastSent = 0;
  /** Last frame that was in flight when a connection broke. */
  #lastInFlight = 0;
  /** Settled frames whose rows are still to be deleted. They are never returned again. */
  readonly #settled = new Set<number>();
  /** Why frames in the spool could not be read last time. */
  #readError: FramesError | undefined;

  /** @throws {FramesError} `unreadable` if an earlier process left frames that cannot be read */
  constructor(spool: SharedSpool, folder: string, source: string) {
    this.#spool = spool;
    this.#folder = folder;
    this.#source = source;
    checkOwn(spool.directory, folder);
    try {
      this.#notes = new SpoolNotes(folder, spool.numbering);
    } catch (error) {
      throw spool.fail("read", error);
    }
    if (!spool.isNew) {
      for (const { first, last } of this.#notes.lost) {
        this.recordLoss({ first, last, what: `frame ${first}`, error: new FramesError("dropped") });
      }
      this.#deleteLost();
    }
    this.#try(() => this.#use("written", () => this.#createFolder()));
    this.deleteSettled();
  }

  /**
   * Deletes frames whose loss an earlier process has recorded, and which it was killed before deleting.
   * They would be both reported as lost and stored.
   */
  #deleteLost(): void {
    for (const { first, last } of this.losses()) {
      const left = this.#use("read", ({ between }) => between.all(this.#source, first, last));
      for (const { seq } of left) this.delete(Number(seq));
    }
  }

  /**
   * Runs `act` on the database.
   *
   * @throws {FramesError} `unreadable`
   */
  #use<T>(
    action: "read" | "written",
    act: (statements: ReturnType<typeof prepareSpoolStatements>) => T,
  ): T {
    try {
      this.#statements ??= this.#prepare();
      if (action === "written") this.#spool.makeRoom();
      return act(this.#statements);
    } catch (error) {
      throw this.#spool.fail(action, error);
    }
  }

  #prepare(): ReturnType<typeof prepareSpoolStatements> {
    const statements = prepareSpoolStatements(this.#spool.open());
    this.#frameCount = Number(statements.frames.get(this.#source)!.frames);
    this.#hasPictures = statements.anyPicture.get(this.#source) !== null;
    for (const name of existsSync(this.#folder) ? readdirSync(this.#folder) : []) {
      if (name.endsWith(settledSuffix)) this.#settled.add(parseInt(name));
    }
    return statements;
  }

  /** Creates the folder of the frames, unless it was created before. */
  #createFolder(): void {
    if (!this.#hasFolder) mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    this.#hasFolder = true;
  }

  /** Number of spooled frames. */
  get length(): number {
    return this.#frameCount;
  }

  /**
   * Last sequence number assigned to a frame, in this process or an earlier one.
   *
   * @throws {FramesError} `unreadable`
   */
  get lastNumber(): number {
    if (this.#spool.isNew) return 0;
    const recorded = this.#use("read", ({ last }) => Number(last.get(this.#source)?.last ?? 0n));
    return Math.max(recorded, this.#notes.lastNumber);
  }

  /** Recorded in another way if SQLite cannot record it. */
  set lastNumber(sequence: number) {
    const failure = this.#try(() => {
      this.#use("written", ({ setLast }) => setLast.run(this.#source, sequence));
      this.#notes.forgetLastNumber();
    });
    if (failure !== undefined) this.#notes.noteLastNumber(sequence);
  }

  /** Runs `act`, and returns its failure, which was reported and is made up for later. */
  #try(act: () => void): FramesError | undefined {
    try {
      act();
      return undefined;
    } catch (error) {
      if (error instanceof FramesError) return error;
      throw error;
    }
  }

  /**
   * Returns all lost numbers, including those of earlier processes, which may have died before
   * reporting them.
   *
   * @throws {FramesError} `unreadable`
   */
  losses(): Loss[] {
    if (this.#spool.isNew) return [];
    const rows = this.#use("read", ({ losses }) => losses.all(this.#source));
    const recorded = rows.map(({ first, last, what, reason }) => ({
      first: Number(first),
      last: Number(last),
      what,
      error: new FramesError(reason),
    }));
    return [...recorded, ...this.#unrecorded.values()];
  }

  /**
   * Records lost numbers. Extends a range with the same first number. What SQLite cannot record now is
   * noted in another way.
   */
  recordLoss(loss: Loss): void {
    this.#unrecorded.set(loss.first, loss);
    if (!this.#recordLosses() && !this.#notes.noteLost(loss)) this.#isLossUnnoted = true;
  }

  /** Records the losses that SQLite could not record before. Returns whether it could now. */
  #recordLosses(): boolean {
    if (this.#unrecorded.size === 0) return true;
    const failure = this.#try(() => {
      this.#use("written", ({ putLoss }) => {
        for (const { first, last, what, error } of this.#unrecorded.values()) {
          putLoss.run(this.#source, first, last, what, error.code);
          this.#unrecorded.delete(first);
        }
      });
      this.#notes.forgetLost();
      this.#isLossUnnoted = false;
    });
    return failure === undefined;
  }

  /**
   * Yields the numbers of pictures of encoded video, in their order. The spool must not be changed
   * meanwhile.
   *
   * @throws {FramesError} `unreadable`
   */
  *pictureNumbers(): Generator<number, void> {
    if (this.#frameCount === 0) return;
    try {
      const rows = this.#use("read", ({ pictures }) => pictures.iterate(this.#source));
      for (const { seq } of rows) if (!this.#settled.has(Number(seq))) yield Number(seq);
    } catch (error) {
      throw error instanceof FramesError ? error : this.#spool.fail("read", error);
    }
  }

  #framePath(sequence: number): string {
    return join(this.#folder, String(sequence));
  }

  hasRoomFor({ size }: Frame): boolean {
    return this.#spool.hasRoom(size);
  }

  isLargeEnoughFor({ size }: Frame): boolean {
    return this.#spool.isLargeEnough(size);
  }

  /**
   * Writes a frame to disk. Does nothing if it is already spooled.
   *
   * @throws {FramesError} `unreadable` if the disk cannot be written
   */
  put(frame: Frame): void {
    if (frame instanceof SpooledFrame) return;
    const { sequence, name, captured, size, metadata, raw, isKey } = frame;
    const path = this.#framePath(sequence);
    const isNew = this.#use("written", (statements) => {
      if (statements.size.get(this.#source, sequence) !== null) return false;
      const bytes = new Uint8Array(size);
      frame.read(bytes);
      try {
        this.#createFolder();
        replaceFile(path, 0o600, (file) => writeFileSync(file, bytes));
        if (raw !== undefined) {
          statements.putShape.run(this.#source, sequence, formatRawShape(raw));
        }
        if (isKey !== undefined) {
          statements.putPicture.run(this.#source, sequence, isKey);
          this.#hasPictures = true;
        }
        statements.put.run(this.#source, sequence, name, captured, size, metadata);
      } catch (error) {
        removeFile(path);
        throw error;
      }
      return true;
    });
    this.#spool.onSpooled();
    if (!isNew) return;
    this.#spool.adjustBytes(size);
    this.#frameCount++;
  }

  /**
   * Returns the oldest frame not yet returned on this connection. Returns undefined if there is none, or
   * if it cannot be read now: see `readError`.
   */
  next(): Frame | undefined {
    const frame = this.unsent();
    if (frame !== undefined) this.#lastSent = frame.sequence;
    return frame;
  }

  /** Why `next` could not read the frames that remain; undefined if it could. */
  get readError(): FramesError | undefined {
    return this.#readError;
  }

  /**
   * Returns the oldest frame that may be dropped. That excludes frames in flight, also those that were
   * in flight when the connection broke: they would be reported as lost, although the server may have them.
   */
  oldest(): Frame | undefined {
    return this.after(Math.max(this.#lastSent, this.#lastInFlight));
  }

  /** Returns the oldest frame that was neither sent on this connection nor skipped. */
  unsent(): Frame | undefined {
    return this.after(this.#lastSent);
  }

  /** Returns the oldest frame with a higher number. */
  after(sequence: number): Frame | undefined {
    this.#readError = undefined;
    if (this.#frameCount === 0) return undefined;
    let frame: SpooledFrame | undefined;
    this.#readError = this.#try(() => {
      frame = this.#use("read", ({ after }) => {
        let row = after.get(this.#source, sequence);
        while (row !== null && this.#settled.has(Number(row.seq))) {
          row = after.get(this.#source, Number(row.seq));
        }
        return row === null ? undefined : new SpooledFrame(row, this.#framePath(Number(row.seq)));
      });
    });
    return frame;
  }

  /** Returns the number of the next key frame after a frame; `undefined` if there is none. */
  keyAfter(sequence: number): number | undefined {
    let key: number | undefined;
    this.#try(() => {
      const found = this.#use("read", ({ keyAfter }) => keyAfter.get(this.#source, sequence));
      if (found !== null) key = Number(found.seq);
    });
    return key;
  }

  /**
   * Makes `next` start over. Called when the connection breaks.
   *
   * @param lastInFlight last frame that was in flight. The server may have the frames up to it.
   */
  rewind(lastInFlight = 0): void {
    this.#lastSent = 0;
    this.#lastInFlight = Math.max(this.#lastInFlight, lastInFlight);
  }

  /** Makes `next` go on behind a frame, because the ones up to it are sent from memory. */
  skipTo(sequence: number): void {
    this.#lastSent = Math.max(this.#lastSent, sequence);
  }

  /** Deletes a frame that the server has confirmed, or that is dropped. */
  delete(sequence: number): void {
    if (this.#frameCount === 0 || this.#settled.has(sequence)) return;
    this.#try(() => {
      const row = this.#use("read", ({ size }) => size.get(this.#source, sequence));
      if (row === null) return;
      this.#settled.add(sequence);
      this.#spool.adjustBytes(-Number(row.size));
      this.#frameCount--;
    });
    // A frame whose loss a killed process would forget stays for the next one.
    if (!this.deleteSettled() && !this.#isLossUnnoted) this.#freeSettled(this.#framePath(sequence));
  }

  /**
   * Deletes the rows and files of settled and dropped frames, once the losses are recorded. What fails is
   * tried again with the next frame.
   *
   * @returns whether all were deleted
   */
  deleteSettled(): boolean {
    if (!this.#recordLosses()) return false;
    const failure = this.#try(() => {
      for (const sequence of this.#settled) {
        // Delete the row first: after a crash a file without a row only wastes space.
        this.#use("written", (statements) => {
          statements.delete.run(this.#source, sequence);
          statements.deleteShape.run(this.#source, sequence);
          if (this.#hasPictures) statements.deletePicture.run(this.#source, sequence);
        });
        const path = this.#framePath(sequence);
        for (const file of [path, path + settledSuffix]) removeFile(file);
        this.#settled.delete(sequence);
      }
    });
    return failure === undefined;
  }

  /**
   * Frees the space of a settled frame whose row stays. On a full disk SQLite cannot delete a row, but a
   * file can be renamed and cut.
   */
  #freeSettled(path: string): void {
    try {
      renameSync(path, path + settledSuffix);
      const file = openSync(path + settledSuffix, cutFlags);
      try {
        ftruncateSync(file, 0);
      } finally {
        closeSync(file);
      }
    } catch {
      // The file is gone already, or the frame is sent again by the next process.
    }
  }
}

/** Returns the name of the folder of a source. Names of dots would lead to other folders. */
export function folderName(source: string): string {
  return /^\.{1,2}$/.test(source) ? source.replaceAll(".", "%2E") : encodeURIComponent(source);
}

/**
 * Checks that a file or folder of a spool is no link, and that no other user has prepared it.
 *
 * @throws {FramesError} `usage`, or `missing` if the system does not tell
 */
export function checkOwn(spool: string, path: string): void {
  const what = `Cannot use the spool ${spool}`;
  try {
    checkNotForeign(path, what, "name another folder with --spool");
    if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return;
  } catch (error) {
    if (error instanceof FramesError) throw error;
    const message = `${what}: ${systemSentence(error)}; choose another --spool`;
    throw new FramesError("missing", message, { cause: error });
  }
  throw usageError(`${what}: ${path} is a link; delete it, or choose another --spool`);
}
