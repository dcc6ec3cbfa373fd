/**
 * Group commit of frames at a flush of the store. Batches durable frames, so that the disk is
 * flushed for many at once. Batches frames that replace others, because each replacement is
 * recorded before the rename.
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

/** A frame of the batch that has its final name, or is about to replace another. */
interface PlacedFrame {
  readonly pending: PendingCommit;
  readonly placement: Exclude<Placement, { row: undefined }>;
  /** Why the rename failed, for a frame that was to replace another. */
  error: FramesError | undefined;
}

/** A replacement recorded in the journal but not ended yet. */
interface PendingReplacement {
  readonly replacement: Replacement;
  isDone: boolean;
}

export class CommitBatch {
  readonly #journal: Journal;
  readonly #partialFolder: string;
  #pending: PendingCommit[] = [];
  /** Files found in place that must be flushed too, by path, with their folders. */
  #existing = new Map<string, StoreFolder>();
  #isFlushing = false;
  /** Recorded replacements, and whether each rename succeeded. */
  #replacements: PendingReplacement[] = [];

  /** @param partialFolder path of the folder of unfinished frames */
  constructor(journal: Journal, partialFolder: string) {
    this.#journal = journal;
    this.#partialFolder = partialFolder;
  }

  get isEmpty(): boolean {
    return this.#pending.length + this.#existing.size + this.#replacements.length === 0;
  }

  /**
   * Adds a frame that gets its final name at the next flush.
   *
   * @returns a promise of the outcome
   */
  add(file: PartialFile, crc: number): Promise<Outcome> {
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
    this.#pending.push({ file, crc, resolve, reject });
    return promise;
  }

  /** Flushes the existing file at `path` and its row to the disk at the next flush. */
  addExisting(folder: StoreFolder, path: string): void {
    this.#existing.set(path, folder);
  }

  /**
   * Ends recorded replacements that a failed commit left open, so that each name has the row of its
   * bytes.
   *
   * @throws {FramesError} `store`
   */
  completeReplacements(): void {
    // A flush in progress ends its replacements itself.
    if (!this.#isFlushing && this.#replacements.length > 0) this.#endReplacements();
  }

  /**
   * Ends every recorded replacement and commits.
   *
   * @throws {FramesError} `store`
   */
  #endReplacements(): void {
    if (this.#replacements.length === 0) return;
    for (const { replacement, isDone } of this.#replacements) {
      this.#journal.endReplacement(replacement, isDone);
    }
    this.#journal.flushKeepingError();
    this.#replacements = [];
  }

  /**
   * Places all waiting frames and commits the journal.
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
      // Some frames already have their final name but no row. When they are sent again, their files
      // are found and recorded. Those that came meanwhile must not get a row before.
      for (const pending of [...batch, ...this.#pending]) {
        pending.file.discard();
        pending.reject(error);
      }
      this.#pending = [];
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
    // Their rows may have been committed before the journal was durable.
    await wrapFsyncError(() => syncFiles(this.#journal.filePaths));
  }

  async #syncFolders(folders: ReadonlySet<StoreFolder>): Promise<void> {
    const paths = new Set([...folders].flatMap((folder) => folder.unsyncedPaths));
    await wrapFsyncError(() => syncFolders(paths));
    for (const folder of folders) folder.markSynced();
  }

  /**
   * Places a batch of frames and records their rows.
   *
   * @returns frames that must wait for another frame of the same name
   */
  async #placeBatch(batch: readonly PendingCommit[]): Promise<PendingCommit[]> {
    // Flush the bytes before the rename. After a power cut a final name then never refers to a
    // partial frame.
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
      // A frame of the same name in this batch has no row yet, so there is nothing to compare with.
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

  /**
   * Records all replacements, commits, and then renames the files. After a crash `recover` can then
   * give each name the row of its bytes.
   */
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

/**
 * Converts an error of `act`.
 *
 * @throws {FramesError} `store` if the system cannot flush
 */
async function wrapFsyncError(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    throw asFramesError(error, "store", "Cannot flush to the disk");
  }
}
