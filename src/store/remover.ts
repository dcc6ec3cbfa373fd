/** Takes frames out of the store: their files, their rows, and folders that are empty then. */
import { lstatSync, rmdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { FramesError, systemCode } from "../errors.ts";
import { Folder } from "./folder.ts";
import type { Journal } from "./journal.ts";
import type { Register } from "./register.ts";
import type { OldFrame } from "./removals.ts";
import { syncFolders } from "./sync.ts";
import { pathOfFrame } from "./tree.ts";

/** What became of frames that were to be removed. */
export interface Removed {
  readonly frames: number;
  readonly bytes: number;
  /** Frames whose files the system does not let go: they stay stored. */
  readonly stuck: number;
}

/** Files that are gone, or are not ours any more, and the folders they lay in. */
interface Gone {
  readonly frames: OldFrame[];
  readonly stuck: OldFrame[];
  readonly folders: Map<string, Folder>;
}

/**
 * What is about to go is noted first, then the files go, then their rows with the note: a process that is
 * killed between leaves what the next one completes, and `frames verify` knows of it.
 */
export class Remover {
  readonly #place: string;
  readonly #register: Register;
  readonly #journal: Journal;

  /** @param place the store */
  constructor(place: string, register: Register) {
    this.#place = place;
    this.#register = register;
    this.#journal = register.journal;
  }

  /**
   * Completes what the last process had begun.
   *
   * @throws {FramesError} `store`
   */
  complete(): void {
    const gone = this.#removeFiles(this.#journal.removals.begun(), Infinity);
    this.#removeRows(gone, true);
    this.#journal.remove((removals) => removals.clear());
    this.#journal.flush();
  }

  /**
   * Removes frames until it is `until` by `performance.now`; one at least.
   *
   * @param alsoLosses whether the losses of their time go with them
   * @param isDurable whether files that are gone must be so after a power cut, before their rows are
   * @throws {FramesError} `store`
   */
  async remove(
    frames: readonly OldFrame[],
    until: number,
    { alsoLosses, isDurable }: { alsoLosses: boolean; isDurable: boolean },
  ): Promise<Removed> {
    this.#journal.remove((removals) => removals.begin(frames));
    this.#journal.flushAside();
    const gone = this.#removeFiles(frames, until);
    if (isDurable) {
      const paths = [...gone.folders.values()].flatMap((folder) => foldersTo(this.#place, folder));
      try {
        await syncFolders(new Set(paths));
      } catch (error) {
        throw new FramesError("store", "Cannot flush to the disk", { cause: error });
      }
    }
    this.#removeRows(gone, alsoLosses);
    this.#journal.flushAside();
    const bytes = gone.frames.reduce((sum, frame) => sum + frame.bytes, 0);
    return { frames: gone.frames.length, bytes, stuck: gone.stuck.length };
  }

  #removeFiles(frames: readonly OldFrame[], until: number): Gone {
    const gone: Gone = { frames: [], stuck: [], folders: new Map() };
    for (const frame of frames) {
      const isLate = performance.now() >= until;
      if (isLate && gone.frames.length + gone.stuck.length > 0) break;
      const relative = pathOfFrame(frame.stream, frame.source, "").slice(0, -1);
      const folder = gone.folders.get(relative) ?? new Folder(this.#place, relative);
      gone.folders.set(relative, folder);
      const isGone = removeFile(folder, frame);
      (isGone ? gone.frames : gone.stuck).push(frame);
    }
    return gone;
  }

  /** In one transaction, with the note of what was to go. */
  #removeRows({ frames, stuck, folders }: Gone, alsoLosses: boolean): void {
    const empty = [...folders.values()].flatMap((folder) => this.#removeFolders(folder));
    this.#journal.endRemoval(frames, this.#register.now());
    this.#journal.remove((removals) => {
      for (const frame of stuck) removals.giveUp(frame);
      if (alsoLosses) removals.dropLossesOf(frames);
    });
    for (const { stream, source, name } of frames) {
      this.#register.release(pathOfFrame(stream, source, name));
    }
    for (const path of empty) this.#releaseFolder(path);
  }

  /** Removes a folder, and those that it lies in, as far as they are empty: their paths. */
  #removeFolders(folder: Folder): string[] {
    // Behind a link nothing is ours.
    if (!folder.isThere()) return [];
    const removed: string[] = [];
    const parts = folder.relative.split("/");
    for (; parts.length > 0; parts.pop()) {
      const path = parts.join("/");
      try {
        rmdirSync(join(this.#place, path));
      } catch (error) {
        // What else lies there keeps it.
        if (systemCode(error) !== "ENOENT") break;
      }
      removed.push(path);
    }
    return removed;
  }

  /** The name of a folder is free for others once no frame is recorded below it. */
  #releaseFolder(path: string): void {
    const [stream, ...source] = path.split("/");
    if (this.#journal.removals.hasBelow(stream!, source.join("/"))) return;
    this.#register.release(path);
  }
}

/**
 * Removes the file of a frame, if it is the frame's: a link, or what has another size, was put there by
 * somebody else and stays. False if the system does not let it go.
 */
function removeFile(folder: Folder, { name, bytes }: OldFrame): boolean {
  if (folder.look(name) !== "file") return true;
  const path = folder.pathOf(name);
  try {
    if (lstatSync(path).size === bytes) unlinkSync(path);
    return true;
  } catch (error) {
    return systemCode(error) === "ENOENT";
  }
}

/** A folder and those on the way to it, the store included. */
function foldersTo(place: string, { relative }: Folder): string[] {
  const parts = relative.split("/");
  return [place, ...parts.map((_, index) => join(place, ...parts.slice(0, index + 1)))];
}
