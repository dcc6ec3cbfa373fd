/** Takes frames out of the store: their files, their rows, and folders that are empty then. */
import { lstatSync, rmdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { FramesError, systemCode } from "../../errors.ts";
import { StoreFolder } from "./store-folder.ts";
import type { Journal } from "../journal/journal.ts";
import type { NameIndex } from "./name-index.ts";
import type { DeletionCandidate } from "../journal/deletion-log.ts";
import { syncFolders } from "./fsync.ts";
import { framePath } from "../paths.ts";

/** What became of frames that were to be removed. */
export interface DeletionResult {
  readonly frames: number;
  readonly bytes: number;
  /** Frames whose files the system does not let go: they stay stored. */
  readonly undeletable: number;
}

/** Files that are gone, or are not ours any more, and the folders they lay in. */
interface DeletedFiles {
  readonly frames: DeletionCandidate[];
  readonly undeletable: DeletionCandidate[];
  readonly folders: Map<string, StoreFolder>;
}

/**
 * What is about to go is noted first, then the files go, then their rows with the note: a process that is
 * killed between leaves what the next one completes, and `frames verify` knows of it.
 */
export class FrameDeleter {
  readonly #root: string;
  readonly #nameIndex: NameIndex;
  readonly #journal: Journal;

  /** @param root the store */
  constructor(root: string, nameIndex: NameIndex) {
    this.#root = root;
    this.#nameIndex = nameIndex;
    this.#journal = nameIndex.journal;
  }

  /**
   * Completes what the last process had begun.
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
   * Removes frames until it is `until` by `performance.now`; one at least.
   *
   * @param alsoLosses whether the losses of their time go with them
   * @param isDurable whether files that are gone must be so after a power cut, before their rows are
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
      const storePath = framePath(frame.stream, frame.source, "").slice(0, -1);
      const folder = deleted.folders.get(storePath) ?? new StoreFolder(this.#root, storePath);
      deleted.folders.set(storePath, folder);
      const isDeleted = deleteFile(folder, frame);
      (isDeleted ? deleted.frames : deleted.undeletable).push(frame);
    }
    return deleted;
  }

  /** In one transaction, with the note of what was to go. */
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

  /** Removes a folder, and those that it lies in, as far as they are empty: their paths. */
  #deleteEmptyFolders(folder: StoreFolder): string[] {
    // Behind a link nothing is ours.
    if (!folder.exists()) return [];
    const deleted: string[] = [];
    const parts = folder.storePath.split("/");
    for (; parts.length > 0; parts.pop()) {
      const path = parts.join("/");
      try {
        rmdirSync(join(this.#root, path));
      } catch (error) {
        // What else lies there keeps it.
        if (systemCode(error) !== "ENOENT") break;
      }
      deleted.push(path);
    }
    return deleted;
  }

  /** The name of a folder is free for others once no frame is recorded below it. */
  #releaseFolder(path: string): void {
    const [stream, ...source] = path.split("/");
    if (this.#journal.deletionLog.hasBelow(stream!, source.join("/"))) return;
    this.#nameIndex.release(path);
  }
}

/**
 * Removes the file of a frame, if it is the frame's: a link, or what has another size, was put there by
 * somebody else and stays. False if the system does not let it go.
 */
function deleteFile(folder: StoreFolder, { name, bytes }: DeletionCandidate): boolean {
  if (folder.entryKind(name) !== "file") return true;
  const path = folder.pathOf(name);
  try {
    if (lstatSync(path).size === bytes) unlinkSync(path);
    return true;
  } catch (error) {
    return systemCode(error) === "ENOENT";
  }
}

/** A folder and those on the way to it, the store included. */
function foldersToRoot(root: string, { storePath }: StoreFolder): string[] {
  const parts = storePath.split("/");
  return [root, ...parts.map((_, index) => join(root, ...parts.slice(0, index + 1)))];
}
