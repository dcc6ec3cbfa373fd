/**
 * Frames that get their names together, when the store is flushed: those that must survive a power
 * cut, so that the disk is flushed for many at a time, and those that replace others, since what is
 * about to happen is noted first.
 */
import { asFramesError, type FramesError } from "../../errors.ts";
import type { Outcome } from "../../frame.ts";
import type { StoreFolder } from "./store-folder.ts";
import type { Journal, Replacement } from "../journal/journal.ts";
import type { PartialFile, Placement } from "./partial-file.ts";
import { syncFiles, syncFolders } from "./fsync.ts";

interface PendingCommit {
  readonly file: PartialFile;
  readonly crc: number;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

/** A waiting frame that has its name, or is about to take the place of another. */
interface PlacedFrame {
  readonly pending: PendingCommit;
  readonly placement: Exclude<Placement, { row: undefined }>;
  /** Why it could not take that place. */
  error: FramesError | undefined;
}

/** A frame that was noted to take the place of another. */
interface PendingReplacement {
  readonly replacement: Replacement;
  isDone: boolean;
}

export class CommitBatch {
  readonly #journal: Journal;
  readonly #partialFolder: string;
  #pending: PendingCommit[] = [];
  /** Paths of frames that were there and must be on the disk, and their folders. */
  #existing = new Map<string, StoreFolder>();
  #isFlushing = false;
  /** Replacements that were noted, and whether they came about, for the journal to hear. */
  #replacements: PendingReplacement[] = [];

  /** @param partialFolder the folder of unfinished frames */
  constructor(journal: Journal, partialFolder: string) {
    this.#journal = journal;
    this.#partialFolder = partialFolder;
  }

  get isEmpty(): boolean {
    return this.#pending.length + this.#existing.size + this.#replacements.length === 0;
  }

  /** The frame gets its name with the next flush. */
  add(file: PartialFile, crc: number): Promise<Outcome> {
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
    this.#pending.push({ file, crc, resolve, reject });
    return promise;
  }

  /** The file at `path` in `folder` must be on the disk with the next flush, its row too. */
  addExisting(folder: StoreFolder, path: string): void {
    this.#existing.set(path, folder);
  }

  /**
   * Makes sure that every name has the row of its bytes, where the journal failed between the two.
   *
   * @throws {FramesError} `store`
   */
  completeReplacements(): void {
    // A flush under way does it when it is its turn.
    if (!this.#isFlushing && this.#replacements.length > 0) this.#endReplacements();
  }

  /** Gives every name that was noted the row of its bytes. */
  #endReplacements(): void {
    if (this.#replacements.length === 0) return;
    for (const { replacement, isDone } of this.#replacements) {
      this.#journal.endReplacement(replacement, isDone);
    }
    this.#journal.flushKeepingError();
    this.#replacements = [];
  }

  /**
   * Places what waits, and commits the journal.
   *
   * @throws {FramesError} `store` if the journal or the disk fails
   */
  async flush(): Promise<void> {
    const existing = this.#existing;
    this.#existing = new Map();
    let batch = this.#pending;
    this.#pending = [];
    try {
      this.#isFlushing = true;
      this.#endReplacements();
      while (batch.length > 0) batch = await this.#placeBatch(batch);
      if (existing.size > 0) await this.#syncExisting(existing);
      this.#journal.flush();
    } catch (error) {
      // Some have their names already; they are taken for what they are when they come again.
      for (const pending of batch) {
        pending.file.discard();
        pending.reject(error);
      }
      this.#existing = new Map([...existing, ...this.#existing]);
      this.#journal.clearError(error);
      throw error;
    } finally {
      this.#isFlushing = false;
    }
  }

  async #syncExisting(existing: ReadonlyMap<string, StoreFolder>): Promise<void> {
    await wrapFsyncError(() => syncFiles(existing.keys()));
    await this.#syncFolders(new Set(existing.values()));
    // Their rows may have been written when nobody had asked for durable ones.
    await wrapFsyncError(() => syncFiles(this.#journal.filePaths));
  }

  async #syncFolders(folders: ReadonlySet<StoreFolder>): Promise<void> {
    const paths = new Set([...folders].flatMap((folder) => folder.unsyncedPaths));
    await wrapFsyncError(() => syncFolders(paths));
    for (const folder of folders) folder.markSynced();
  }

  /** Returns those that have to wait for others of the same name. */
  async #placeBatch(batch: readonly PendingCommit[]): Promise<PendingCommit[]> {
    // First the bytes: a name must never stand for less than the whole frame.
    const durable = batch.filter(({ file }) => file.destination.sourceInfo.durable === true);
    await wrapFsyncError(() => syncFiles(durable.map(({ file }) => file.path)));
    const { placed, postponed } = this.#placeEach(batch);
    if (placed.some(({ placement }) => "replacement" in placement)) {
      if (durable.length > 0) await wrapFsyncError(() => syncFolders([this.#partialFolder]));
      this.#replaceAll(placed);
    }
    if (durable.length > 0) {
      await this.#syncFolders(new Set(durable.map(({ file }) => file.destination.folder)));
    }
    for (const { pending, placement } of placed) {
      if (!("replacement" in placement)) pending.file.record(placement.row);
    }
    if (this.#replacements.length > 0) this.#endReplacements();
    else this.#journal.flush();
    for (const { pending, placement, error } of placed) {
      pending.resolve(error ?? ("replacement" in placement ? "stored" : placement.outcome));
    }
    return postponed;
  }

  #placeEach(batch: readonly PendingCommit[]): {
    placed: PlacedFrame[];
    postponed: PendingCommit[];
  } {
    const placed: PlacedFrame[] = [];
    const postponed: PendingCommit[] = [];
    const names = new Map<string, string>();
    for (const pending of batch) {
      const { file, crc, resolve } = pending;
      const { folder, nameIndex } = file.destination;
      const path = folder.storePathOf(file.description.name);
      // The other one of this name has no row yet to be held against.
      if (!nameIndex.isDistinct(path, names)) {
        postponed.push(pending);
        continue;
      }
      try {
        const placement = file.place(crc, file.findStored());
        if (!("replacement" in placement) && placement.row === undefined) {
          resolve(placement.outcome);
          continue;
        }
        nameIndex.reserve(path, names);
        placed.push({ pending, placement, error: undefined });
      } catch (error) {
        file.discard();
        const frameError = file.toFrameError(error);
        if (frameError.wireCode < 32) throw frameError;
        resolve(frameError);
      }
    }
    return { placed, postponed };
  }

  /** Notes what is about to be replaced, so that after a crash each name has the row of its bytes. */
  #replaceAll(placed: readonly PlacedFrame[]): void {
    const replacements = placed.flatMap((one) => {
      const { placement } = one;
      return "replacement" in placement ? [{ placed: one, ...placement, isDone: false }] : [];
    });
    for (const { replacement } of replacements) this.#journal.addReplacement(replacement);
    this.#journal.flush();
    this.#replacements.push(...replacements);
    for (const one of replacements) {
      const { file } = one.placed.pending;
      try {
        file.rename();
        one.isDone = true;
      } catch (error) {
        file.discard();
        const frameError = file.toFrameError(error);
        if (frameError.wireCode < 32) throw frameError;
        one.placed.error = frameError;
      }
    }
  }
}

/** @throws {FramesError} `store` if the system cannot flush */
async function wrapFsyncError(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    throw asFramesError(error, "store", "Cannot flush to the disk");
  }
}
