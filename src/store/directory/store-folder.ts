/** The folder that the frames of one source lie in. */
import { lstatSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../../errors.ts";
import { relativePath } from "../paths.ts";

/** For so many milliseconds a folder is taken for what it was: to look for each frame would cost a tenth. */
const recheckMs = 1;

export class StoreFolder {
  /** Path below the store. */
  readonly storePath: string;
  readonly path: string;
  readonly #root: string;
  /** Its parts below the folder that the store lies in: none where that is the stream's own. */
  readonly #parts: readonly string[];
  /** When it was last looked at. */
  #checkedAt = -Infinity;
  /** Whether its own name, and those on the way to it, were flushed. */
  #isSynced = false;

  /**
   * @param root the folder that the store lies in
   * @param storePath path below the store
   * @param copiedStream the stream that the store is a copy of, if it is one
   */
  constructor(root: string, storePath: string, copiedStream?: string) {
    this.#root = root;
    this.storePath = storePath;
    const below = relativePath(storePath, copiedStream);
    this.#parts = below === "" ? [] : below.split("/");
    this.path = join(root, ...this.#parts);
  }

  /** Final path of a frame. */
  pathOf(name: string): string {
    return `${this.path}/${name}`;
  }

  /** Final path of a frame, below the store. */
  storePathOf(name: string): string {
    return `${this.storePath}/${name}`;
  }

  /**
   * Makes the folder, part by part, and looks whether it still is one: a link on the way would lead out of
   * the store.
   *
   * @throws {FramesError} `not-stored` if something else is in its place
   */
  ensure(): void {
    const now = performance.now();
    if (now - this.#checkedAt < recheckMs) return;
    let path = this.#root;
    for (const part of this.#parts) {
      path = join(path, part);
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found === undefined) {
        mkdirSync(path);
        this.#isSynced = false;
      } else if (!found.isDirectory()) {
        throw new FramesError("not-stored", `Cannot keep frames in ${path}: it is not a folder`);
      }
    }
    this.#checkedAt = now;
  }

  /** The folder may have gone meanwhile: it is made anew. */
  recreate(): void {
    this.#checkedAt = -Infinity;
    this.ensure();
  }

  /** Whether the folder is there, and no link leads to it. */
  exists(): boolean {
    let path = this.#root;
    for (const part of this.#parts) {
      path = join(path, part);
      if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return false;
    }
    return true;
  }

  /** What lies there under a name, if the folder is there: a file, or something else, such as a link. */
  entryKind(name: string): "file" | "other" | undefined {
    if (performance.now() - this.#checkedAt >= recheckMs) {
      if (!this.exists()) return undefined;
      this.#checkedAt = performance.now();
    }
    const found = lstatSync(this.pathOf(name), { throwIfNoEntry: false });
    if (found === undefined) return undefined;
    return found.isFile() ? "file" : "other";
  }

  /** The folders that must be flushed for the frames in this one to be found after a power cut. */
  get unsyncedPaths(): string[] {
    if (this.#isSynced) return [this.path];
    const parts = this.#parts;
    return [this.#root, ...parts.map((_, index) => join(this.#root, ...parts.slice(0, index + 1)))];
  }

  /** What was `unflushed` is on the disk. */
  markSynced(): void {
    this.#isSynced = true;
  }
}
