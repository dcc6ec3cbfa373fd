/** Read side of a store in a directory. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../errors.ts";
import type { Journal } from "../journal/journal.ts";
import { journalPath } from "../journal/schema.ts";
import { framePath } from "../paths.ts";
import type {
  DiskSpace,
  FrameLocation,
  JournalListener,
  StoreContents,
} from "../store-contents.ts";
import { entryAt } from "./file-check.ts";
import type { FreeSpace } from "./free-space.ts";

export class DirectoryContents implements StoreContents {
  readonly location: string;
  readonly journalPath: string;
  readonly #freeSpace: FreeSpace;
  readonly #journal: Journal;

  constructor(root: string, freeSpace: FreeSpace, journal: Journal) {
    this.location = root;
    this.journalPath = journalPath(root);
    this.#freeSpace = freeSpace;
    this.#journal = journal;
  }

  setJournalListener(listener: JournalListener | undefined): void {
    this.#journal.listener = listener;
  }

  /**
   * Checks each folder on the path. Follows no link, because a link could lead out of the store.
   */
  blob({ stream, source, name, size }: FrameLocation): Blob | undefined {
    const parts = framePath(stream, source, name).split("/");
    let path = this.location;
    for (const [index, part] of parts.entries()) {
      path = join(path, part);
      const found = entryAt(path);
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
    if (statSync(this.journalPath, { throwIfNoEntry: false }) === undefined) {
      throw new FramesError(
        "store",
        `The store ${this.location} was deleted while it was served; stop the server, and start it again`,
      );
    }
    this.#freeSpace.check();
  }
}
