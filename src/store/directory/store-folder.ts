/**
 * Folder of the frames of one source. Refuses links on its path, because they could lead out of the
 * store.
 */
import { compileCheaply } from "../../common/compilation.ts";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../errors.ts";
import { sourceFolderPath } from "../name-rules.ts";
import { relativePath } from "../paths.ts";
import { entryAt } from "./file-check.ts";

/**
 * Milliseconds for which a check of the folder is reused. Checking for each frame costs a tenth of
 * the throughput.
 */
const recheckMs = 1;

export class StoreFolder {
  /** Path below the store, with the stream. */
  readonly storePath: string;
  readonly path: string;
  readonly #root: string;
  /** Path parts below the folder of the store. Empty for the stream's own folder in a copy. */
  readonly #parts: readonly string[];
  /** When the folder was last checked, by `performance.now`. */
  #checkedAt = -Infinity;
  /** Whether the names of the folder and its parents are on the disk. */
  #isSynced = false;

  /**
   * @param root path of the store
   * @param storePath path of the folder below the store, with the stream
   * @param copiedStream the stream that the store is a copy of, if it is one
   */
  constructor(root: string, storePath: string, copiedStream?: string) {
    this.#root = root;
    this.storePath = storePath;
    const below = relativePath(storePath, copiedStream);
    this.#parts = below === "" ? [] : below.split("/");
    this.path = join(root, ...this.#parts);
  }

  /**
   * Returns the folder of a source.
   *
   * @throws {FramesError} `bad-name` if a name could lead out of the store
   */
  static ofSource(
    root: string,
    { stream, source }: { readonly stream: string; readonly source: string },
    copiedStream?: string,
  ): StoreFolder {
    return new StoreFolder(root, sourceFolderPath(stream, source, false), copiedStream);
  }

  /** Returns the final path of a frame. */
  pathOf(name: string): string {
    return `${this.path}/${name}`;
  }

  /** Returns the path of a frame below the store, with the stream. */
  storePathOf(name: string): string {
    return `${this.storePath}/${name}`;
  }

  /**
   * Creates the folder and its parents where missing, and checks that none of them is a link.
   *
   * @throws {FramesError} `not-stored` if one of them is not a folder, or cannot be looked at
   */
  ensure(): void {
    const now = performance.now();
    if (now - this.#checkedAt < recheckMs) return;
    let path = this.#root;
    for (const part of this.#parts) {
      path = join(path, part);
      const found = entryAt(path);
      if (found === undefined) {
        mkdirSync(path);
        this.#isSynced = false;
      } else if (!found.isDirectory()) {
        throw new FramesError("not-stored", `Cannot store frames in ${path}: it is not a folder`);
      }
    }
    this.#checkedAt = now;
  }

  /**
   * Creates the folder again if it was removed since the last check.
   *
   * @throws {FramesError} `not-stored` if something else is in its place
   */
  recreate(): void {
    this.#checkedAt = -Infinity;
    this.ensure();
  }

  /**
   * Returns whether the folder exists and is not reached through a link.
   *
   * @throws {FramesError} `not-stored` if the system does not tell
   */
  exists(): boolean {
    let path = this.#root;
    for (const part of this.#parts) {
      path = join(path, part);
      if (entryAt(path)?.isDirectory() !== true) return false;
    }
    return true;
  }

  /** As `exists`, but uses a check of the last millisecond. */
  wasFound(): boolean {
    if (performance.now() - this.#checkedAt < recheckMs) return true;
    if (!this.exists()) return false;
    this.#checkedAt = performance.now();
    return true;
  }

  /**
   * Returns what has this name in the folder: a regular file, or something else such as a link.
   * Undefined if the name or the folder does not exist.
   *
   * @throws {FramesError} `not-stored` if the system does not tell
   */
  entryKind(name: string): "file" | "other" | undefined {
    if (!this.wasFound()) return undefined;
    const found = entryAt(this.pathOf(name));
    if (found === undefined) return undefined;
    return found.isFile() ? "file" : "other";
  }

  /** Paths of the folders to flush, so that files in this folder are found after a power cut. */
  get unsyncedPaths(): string[] {
    if (this.#isSynced) return [this.path];
    const parts = this.#parts;
    return [this.#root, ...parts.map((_, index) => join(this.#root, ...parts.slice(0, index + 1)))];
  }

  /** Marks the folders of `unsyncedPaths` as flushed. */
  markSynced(): void {
    this.#isSynced = true;
  }
}

compileCheaply(StoreFolder.prototype.ensure);
