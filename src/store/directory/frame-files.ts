/** Finds the files of stored frames for readers. Follows no link, because it could lead out of the store. */
import { openSync } from "node:fs";
import { openFlags } from "../../common/open-flags.ts";
import type { FramePath } from "../paths.ts";
import { checkPathPart } from "../name-rules.ts";
import { StoreFolder } from "./store-folder.ts";

/** Folders kept in memory, so that reading frame after frame does not check their parents again. */
const maxFolders = 1000;

export class FrameFiles {
  readonly #root: string;
  /** By stream and source. */
  readonly #folders = new Map<string, StoreFolder>();

  /** @param root path of the store */
  constructor(root: string) {
    this.#root = root;
  }

  /**
   * Returns the path of a frame's file; undefined if it is missing, or something else is in its
   * place.
   *
   * @throws {FramesError} `bad-name` if a name could lead out of the store, `not-stored` if the
   * system does not tell
   */
  find(frame: FramePath): string | undefined {
    const folder = this.#folderOf(frame);
    // A single request has time to look at the folder, and a swap in the last millisecond shows.
    if (!folder.exists()) return undefined;
    return folder.entryKind(frame.name) === "file" ? folder.pathOf(frame.name) : undefined;
  }

  /**
   * Opens a frame's file for reading; returns undefined if its folder is missing or is a link.
   *
   * @throws the error of the system if the file is missing or is a link
   * @throws {FramesError} as `find`
   */
  open(frame: FramePath): number | undefined {
    const folder = this.#folderOf(frame);
    return folder.wasFound() ? openSync(folder.pathOf(frame.name), openFlags) : undefined;
  }

  #folderOf({ stream, source, name }: FramePath): StoreFolder {
    checkPathPart(name, false);
    const key = `${stream}/${source}`;
    let folder = this.#folders.get(key);
    if (folder === undefined) {
      if (this.#folders.size === maxFolders) this.#folders.clear();
      folder = StoreFolder.ofSource(this.#root, { stream, source });
      this.#folders.set(key, folder);
    }
    return folder;
  }
}
