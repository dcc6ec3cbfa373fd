/**
 * Frames that get their names together, when the store is flushed: those that must survive a power
 * cut, so that the disk is flushed for many at a time, and those that replace others, since what is
 * about to happen is noted first.
 */
import { asFramesError, type FramesError } from "../errors.ts";
import type { Outcome } from "../frame.ts";
import type { Folder } from "./folder.ts";
import type { Journal, Replacement } from "./journal.ts";
import type { PartialFile, Placement } from "./partial.ts";
import { syncFiles, syncFolders } from "./sync.ts";

interface Waiting {
  readonly file: PartialFile;
  readonly crc: number;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

/** A waiting frame that has its name, or is about to take the place of another. */
interface Placed {
  readonly waiting: Waiting;
  readonly placement: Exclude<Placement, { row: undefined }>;
  /** Why it could not take that place. */
  failure: FramesError | undefined;
}

/** A frame that was noted to take the place of another. */
interface Noted {
  readonly replacement: Replacement;
  isDone: boolean;
}

export class Batch {
  readonly #journal: Journal;
  readonly #partial: string;
  #waiting: Waiting[] = [];
  /** Paths of frames that were there and must be on the disk, and their folders. */
  #found = new Map<string, Folder>();
  #isFlushing = false;
  /** Replacements that were noted, and whether they came about, for the journal to hear. */
  #noted: Noted[] = [];

  /** @param partial the folder of unfinished frames */
  constructor(journal: Journal, partial: string) {
    this.#journal = journal;
    this.#partial = partial;
  }

  get isEmpty(): boolean {
    return this.#waiting.length + this.#found.size + this.#noted.length === 0;
  }

  /** The frame gets its name with the next flush. */
  add(file: PartialFile, crc: number): Promise<Outcome> {
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
    this.#waiting.push({ file, crc, resolve, reject });
    return promise;
  }

  /** The file at `path` in `folder` must be on the disk with the next flush, its row too. */
  addFound(folder: Folder, path: string): void {
    this.#found.set(path, folder);
  }

  /**
   * Makes sure that every name has the row of its bytes, where the journal failed between the two.
   *
   * @throws {FramesError} `store`
   */
  checkOrder(): void {
    // A flush under way does it when it is its turn.
    if (!this.#isFlushing && this.#noted.length > 0) this.#settle();
  }

  /** Gives every name that was noted the row of its bytes. */
  #settle(): void {
    if (this.#noted.length === 0) return;
    for (const { replacement, isDone } of this.#noted) {
      this.#journal.endReplacement(replacement, isDone);
    }
    this.#journal.flushAside();
    this.#noted = [];
  }

  /**
   * Places what waits, and commits the journal.
   *
   * @throws {FramesError} `store` if the journal or the disk fails
   */
  async flush(): Promise<void> {
    const found = this.#found;
    this.#found = new Map();
    let batch = this.#waiting;
    this.#waiting = [];
    try {
      this.#isFlushing = true;
      this.#settle();
      while (batch.length > 0) batch = await this.#place(batch);
      if (found.size > 0) await this.#syncFound(found);
      this.#journal.flush();
    } catch (error) {
      // Some have their names already; they are taken for what they are when they come again.
      for (const waiting of batch) {
        waiting.file.discard();
        waiting.reject(error);
      }
      this.#found = new Map([...found, ...this.#found]);
      this.#journal.heard(error);
      throw error;
    } finally {
      this.#isFlushing = false;
    }
  }

  async #syncFound(found: ReadonlyMap<string, Folder>): Promise<void> {
    await onDisk(() => syncFiles(found.keys()));
    await this.#syncFolders(new Set(found.values()));
    // Their rows may have been written when nobody had asked for durable ones.
    await onDisk(() => syncFiles(this.#journal.files));
  }

  async #syncFolders(folders: ReadonlySet<Folder>): Promise<void> {
    const paths = new Set([...folders].flatMap((folder) => folder.unflushed));
    await onDisk(() => syncFolders(paths));
    for (const folder of folders) folder.flushed();
  }

  /** Returns those that have to wait for others of the same name. */
  async #place(batch: readonly Waiting[]): Promise<Waiting[]> {
    // First the bytes: a name must never stand for less than the whole frame.
    const durable = batch.filter(({ file }) => file.destination.origin.durable === true);
    await onDisk(() => syncFiles(durable.map(({ file }) => file.path)));
    const { placed, postponed } = this.#giveNames(batch);
    if (placed.some(({ placement }) => "replacement" in placement)) {
      if (durable.length > 0) await onDisk(() => syncFolders([this.#partial]));
      this.#replace(placed);
    }
    if (durable.length > 0) {
      await this.#syncFolders(new Set(durable.map(({ file }) => file.destination.folder)));
    }
    for (const { waiting, placement } of placed) {
      if (!("replacement" in placement)) waiting.file.record(placement.row);
    }
    if (this.#noted.length > 0) this.#settle();
    else this.#journal.flush();
    for (const { waiting, placement, failure } of placed) {
      waiting.resolve(failure ?? ("replacement" in placement ? "stored" : placement.outcome));
    }
    return postponed;
  }

  #giveNames(batch: readonly Waiting[]): { placed: Placed[]; postponed: Waiting[] } {
    const placed: Placed[] = [];
    const postponed: Waiting[] = [];
    const names = new Map<string, string>();
    for (const waiting of batch) {
      const { file, crc, resolve } = waiting;
      const { folder, register } = file.destination;
      const path = folder.relativePathOf(file.description.name);
      // The other one of this name has no row yet to be held against.
      if (!register.isApart(path, names)) {
        postponed.push(waiting);
        continue;
      }
      try {
        const placement = file.place(crc, file.findStored());
        if (!("replacement" in placement) && placement.row === undefined) {
          resolve(placement.outcome);
          continue;
        }
        register.noteApart(path, names);
        placed.push({ waiting, placement, failure: undefined });
      } catch (error) {
        file.discard();
        const failure = file.failure(error);
        if (failure.wire < 32) throw failure;
        resolve(failure);
      }
    }
    return { placed, postponed };
  }

  /** Notes what is about to be replaced, so that after a crash each name has the row of its bytes. */
  #replace(placed: readonly Placed[]): void {
    const noted = placed.flatMap((one) => {
      const { placement } = one;
      return "replacement" in placement ? [{ placed: one, ...placement, isDone: false }] : [];
    });
    for (const { replacement } of noted) this.#journal.addReplacement(replacement);
    this.#journal.flush();
    this.#noted.push(...noted);
    for (const one of noted) {
      const { file } = one.placed.waiting;
      try {
        file.rename();
        one.isDone = true;
      } catch (error) {
        file.discard();
        const failure = file.failure(error);
        if (failure.wire < 32) throw failure;
        one.placed.failure = failure;
      }
    }
  }
}

/** @throws {FramesError} `store` if the system cannot flush */
async function onDisk(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    throw asFramesError(error, "store", "Cannot flush to the disk");
  }
}
