/** Deletes frames: their files, their rows, and the folders that are then empty. */
import { lstatSync, rmdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { FramesError, systemCode } from "../../errors.ts";
import { isReadableAnd } from "./file-check.ts";
import { StoreFolder } from "./store-folder.ts";
import type { Journal } from "../journal/journal.ts";
import type { NameIndex } from "./name-index.ts";
import type { DeletionCandidate } from "../journal/deletion-log.ts";
import { syncFolders } from "./fsync.ts";
import { framePath } from "../paths.ts";

/** Result of a deletion. */
export interface DeletionResult {
  readonly frames: number;
  readonly bytes: number;
  /** Frames whose files the system refused to delete. They stay stored. */
  readonly undeletable: number;
}

/**
 * Processed frames and the folders that held them. `frames` includes those whose file was missing
 * or belongs to another program.
 */
interface DeletedFiles {
  readonly frames: DeletionCandidate[];
  readonly undeletable: DeletionCandidate[];
  readonly folders: Map<string, StoreFolder>;
}

/**
 * Records the removal, deletes the files, then deletes the rows together with the record. If the
 * process is killed between these steps, the next one completes them. `frames verify` does not
 * report such frames as missing.
 */
export class FrameDeleter {
  readonly #root: string;
  readonly #nameIndex: NameIndex;
  readonly #journal: Journal;

  /** @param root path of the store */
  constructor(root: string, nameIndex: NameIndex) {
    this.#root = root;
    this.#nameIndex = nameIndex;
    this.#journal = nameIndex.journal;
  }

  /**
   * Completes the removals that the last process began.
   *
   * @throws {FramesError} `store`
   */
  complete(): void {
    const deleted = this.#deleteFiles(this.#journal.deletionLog.unfinished(), Infinity);
    this.#deleteRows(deleted, true);
    this.#journal.updateDeletions((deletionLog) => deletionLog.clear());
    this.#journal.flush();
  }

  /**
   * Removes frames until `deadline`, at least one.
   *
   * @param deadline by `performance.now`
   * @param alsoLosses whether losses up to the removed numbers are deleted too
   * @param isDurable whether deletions of files are flushed before their rows are deleted
   * @throws {FramesError} `store`
   */
  async delete(
    frames: readonly DeletionCandidate[],
    deadline: number,
    { alsoLosses, isDurable }: { alsoLosses: boolean; isDurable: boolean },
  ): Promise<DeletionResult> {
    this.#journal.updateDeletions((deletionLog) => deletionLog.begin(frames));
    this.#journal.flushKeepingError();
    const deleted = this.#deleteFiles(frames, deadline);
    if (isDurable) {
      const paths = [...deleted.folders.values()].flatMap((folder) =>
        foldersToRoot(this.#root, folder),
      );
      try {
        await syncFolders(new Set(paths));
      } catch (error) {
        throw new FramesError("store", "Cannot flush to the disk", { cause: error });
      }
    }
    this.#deleteRows(deleted, alsoLosses);
    this.#journal.flushKeepingError();
    const bytes = deleted.frames.reduce((sum, frame) => sum + frame.bytes, 0);
    return { frames: deleted.frames.length, bytes, undeletable: deleted.undeletable.length };
  }

  #deleteFiles(frames: readonly DeletionCandidate[], deadline: number): DeletedFiles {
    const deleted: DeletedFiles = { frames: [], undeletable: [], folders: new Map() };
    for (const frame of frames) {
      const isOverdue = performance.now() >= deadline;
      if (isOverdue && deleted.frames.length + deleted.undeletable.length > 0) break;
      const key = `${frame.stream}/${frame.source}`;
      const folder = deleted.folders.get(key) ?? StoreFolder.ofSource(this.#root, frame);
      deleted.folders.set(key, folder);
      const isDeleted = deleteFile(folder, frame);
      (isDeleted ? deleted.frames : deleted.undeletable).push(frame);
    }
    return deleted;
  }

  /** Deletes the rows and the record of the removal in one transaction. */
  #deleteRows({ frames, undeletable, folders }: DeletedFiles, alsoLosses: boolean): void {
    const emptyFolders = [...folders.values()].flatMap((folder) =>
      this.#deleteEmptyFolders(folder),
    );
    this.#journal.endDeletion(frames, this.#nameIndex.now());
    this.#journal.updateDeletions((deletionLog) => {
      for (const frame of undeletable) deletionLog.cancel(frame);
      if (alsoLosses) deletionLog.dropLossesOf(frames);
    });
    for (const { stream, source, name } of frames) {
      this.#nameIndex.release(framePath(stream, source, name));
    }
    for (const path of emptyFolders) this.#releaseFolder(path);
  }

  /**
   * Removes a folder and its parents as far as they are empty. Returns the paths of the removed
   * folders.
   */
  #deleteEmptyFolders(folder: StoreFolder): string[] {
    // A folder reached through a link is outside the store, and one that cannot be read stays.
    if (!isReadableAnd(() => folder.exists())) return [];
    const deleted: string[] = [];
    const parts = folder.storePath.split("/");
    for (; parts.length > 0; parts.pop()) {
      const path = parts.join("/");
      try {
        rmdirSync(join(this.#root, path));
      } catch (error) {
        // The folder is not empty, or cannot be removed.
        if (systemCode(error) !== "ENOENT") break;
      }
      deleted.push(path);
    }
    return deleted;
  }

  /** Releases the name of a folder if no frame below it has a row. */
  #releaseFolder(path: string): void {
    const [stream, ...source] = path.split("/");
    if (this.#journal.deletionLog.hasBelow(stream!, source.join("/"))) return;
    this.#nameIndex.release(path);
  }
}

/**
 * Deletes the file of a frame. A link, or a file of another size, was put there by another program
 * and stays.
 *
 * @returns false if the system refuses to delete the file
 */
function deleteFile(folder: StoreFolder, { name, bytes }: DeletionCandidate): boolean {
  const path = folder.pathOf(name);
  try {
    if (folder.entryKind(name) !== "file") return true;
    if (lstatSync(path).size === bytes) unlinkSync(path);
    return true;
  } catch (error) {
    return systemCode(error) === "ENOENT";
  }
}

/** Returns the path of a folder and of all its parents up to the store. */
function foldersToRoot(root: string, { storePath }: StoreFolder): string[] {
  const parts = storePath.split("/");
  return [root, ...parts.map((_, index) => join(root, ...parts.slice(0, index + 1)))];
}
