/** What a store gives back: its journal to read, the bytes of frames, and what room it has. */
import { lstatSync, statSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../errors.ts";
import { Catalog, type FrameRecord } from "./journal/catalog.ts";
import type { Journal, JournalListener } from "./journal/journal.ts";
import type { DiskSpace, FreeSpace } from "./directory/free-space.ts";
import { journalPath } from "./journal/schema.ts";
import { framePath } from "./paths.ts";

/** What is given back out of a store: of a directory, or of a bucket. */
export interface StoreContents {
  /** For people: where the frames lie. */
  readonly location: string;
  /**
   * Opens the journal for reading; whoever opens it closes it.
   *
   * @throws {FramesError} `store`
   */
  openCatalog(): Catalog;
  /** Has somebody told of rows that are gone, from now on: one at a time. */
  setJournalListener(listener: JournalListener | undefined): void;
  /** The bytes of a frame, or nothing if it is not there any more, or something else is in its place. */
  blob(frame: FrameLocation): Blob | undefined;
  /**
   * Where frames are far away: the answer with a frame's bytes, or nothing if it is not there. It is rejected
   * with `store`.
   */
  readonly fetch?: (frame: FrameLocation) => Promise<Response | undefined>;
  /** Space of where the frames lie, if it has an end. */
  diskSpace(): DiskSpace | undefined;
  /**
   * Makes sure that frames can be stored now.
   *
   * @throws {FramesError} `store`
   */
  checkReady(): void;
}

/** Where a frame lies. */
export type FrameLocation = Pick<FrameRecord, "stream" | "source" | "name" | "size">;

/** Frames in a directory. */
export class DirectoryContents implements StoreContents {
  readonly location: string;
  readonly #freeSpace: FreeSpace;
  readonly #journal: Journal;

  constructor(root: string, freeSpace: FreeSpace, journal: Journal) {
    this.location = root;
    this.#freeSpace = freeSpace;
    this.#journal = journal;
  }

  setJournalListener(listener: JournalListener | undefined): void {
    this.#journal.listener = listener;
  }

  openCatalog(): Catalog {
    return new Catalog(journalPath(this.location));
  }

  /** No link is followed, neither in its place nor on the way: it would lead out of the store. */
  blob({ stream, source, name, size }: FrameLocation): Blob | undefined {
    const parts = framePath(stream, source, name).split("/");
    let path = this.location;
    for (const [index, part] of parts.entries()) {
      path = join(path, part);
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found === undefined) return undefined;
      const isLast = index === parts.length - 1;
      if (isLast ? !found.isFile() || found.size !== size : !found.isDirectory()) return undefined;
    }
    return Bun.file(path);
  }

  diskSpace(): DiskSpace | undefined {
    const diskSpace = this.#freeSpace.diskSpace();
    return diskSpace.total === 0 ? undefined : diskSpace;
  }

  checkReady(): void {
    if (statSync(journalPath(this.location), { throwIfNoEntry: false }) === undefined) {
      throw new FramesError("store", `The store ${this.location} was removed while it was served`);
    }
    this.#freeSpace.check();
  }
}
