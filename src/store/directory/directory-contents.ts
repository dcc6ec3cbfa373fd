/** Read side of a store in a directory. */
import { statSync } from "node:fs";
import { FramesError } from "../../errors.ts";
import type { Journal } from "../journal/journal.ts";
import { journalPath } from "../journal/schema.ts";
import type {
  DiskSpace,
  FrameLocation,
  JournalListener,
  StoreContents,
} from "../store-contents.ts";
import { entryAt } from "./file-check.ts";
import { FrameFiles } from "./frame-files.ts";
import type { FreeSpace } from "./free-space.ts";

export class DirectoryContents implements StoreContents {
  readonly location: string;
  readonly journalPath: string;
  readonly #files: FrameFiles;
  readonly #freeSpace: FreeSpace;
  readonly #journal: Journal;

  constructor(root: string, freeSpace: FreeSpace, journal: Journal) {
    this.location = root;
    this.journalPath = journalPath(root);
    this.#files = new FrameFiles(root);
    this.#freeSpace = freeSpace;
    this.#journal = journal;
  }

  setJournalListener(listener: JournalListener | undefined): void {
    this.#journal.listener = listener;
  }

  blob({ size, ...frame }: FrameLocation): Blob | undefined {
    const path = this.#files.find(frame);
    return path !== undefined && entryAt(path)?.size === size ? Bun.file(path) : undefined;
  }

  diskSpace(): DiskSpace | undefined {
    const diskSpace = this.#freeSpace.diskSpace();
    return diskSpace.total === 0 ? undefined : diskSpace;
  }

  checkReady(): void {
    if (statSync(this.journalPath, { throwIfNoEntry: false }) === undefined) {
      throw new FramesError(
        "store",
        `The store ${this.location} was deleted while it was served; stop the server, and start it again`,
      );
    }
    this.#freeSpace.check();
  }
}
