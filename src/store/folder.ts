/** The folder that the frames of one source lie in. */
import { lstatSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { FramesError } from "../errors.ts";
import { placeOf } from "./tree.ts";

/** For so many milliseconds a folder is taken for what it was: to look for each frame would cost a tenth. */
const seenFor = 1;

export class Folder {
  /** Path below the store. */
  readonly relative: string;
  readonly path: string;
  readonly #place: string;
  /** Its parts below the folder that the store lies in: none where that is the stream's own. */
  readonly #parts: readonly string[];
  /** When it was last looked at. */
  #seenAt = -Infinity;
  /** Whether its own name, and those on the way to it, were flushed. */
  #isFlushed = false;

  /**
   * @param place the folder that the store lies in
   * @param relative path below the store
   * @param copied the stream that the store is a copy of, if it is one
   */
  constructor(place: string, relative: string, copied?: string) {
    this.#place = place;
    this.relative = relative;
    const below = placeOf(relative, copied);
    this.#parts = below === "" ? [] : below.split("/");
    this.path = join(place, ...this.#parts);
  }

  /** Final path of a frame. */
  pathOf(name: string): string {
    return `${this.path}/${name}`;
  }

  /** Final path of a frame, below the store. */
  relativePathOf(name: string): string {
    return `${this.relative}/${name}`;
  }

  /**
   * Makes the folder, part by part, and looks whether it still is one: a link on the way would lead out of
   * the store.
   *
   * @throws {FramesError} `not-stored` if something else is in its place
   */
  make(): void {
    const now = performance.now();
    if (now - this.#seenAt < seenFor) return;
    let path = this.#place;
    for (const part of this.#parts) {
      path = join(path, part);
      const found = lstatSync(path, { throwIfNoEntry: false });
      if (found === undefined) {
        mkdirSync(path);
        this.#isFlushed = false;
      } else if (!found.isDirectory()) {
        throw new FramesError("not-stored", `Cannot keep frames in ${path}: it is not a folder`);
      }
    }
    this.#seenAt = now;
  }

  /** The folder may have gone meanwhile: it is made anew. */
  makeAgain(): void {
    this.#seenAt = -Infinity;
    this.make();
  }

  /** Whether the folder is there, and no link leads to it. */
  isThere(): boolean {
    let path = this.#place;
    for (const part of this.#parts) {
      path = join(path, part);
      if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return false;
    }
    return true;
  }

  /** What lies there under a name, if the folder is there: a file, or something else, such as a link. */
  look(name: string): "file" | "other" | undefined {
    if (performance.now() - this.#seenAt >= seenFor) {
      if (!this.isThere()) return undefined;
      this.#seenAt = performance.now();
    }
    const found = lstatSync(this.pathOf(name), { throwIfNoEntry: false });
    if (found === undefined) return undefined;
    return found.isFile() ? "file" : "other";
  }

  /** The folders that must be flushed for the frames in this one to be found after a power cut. */
  get unflushed(): string[] {
    if (this.#isFlushed) return [this.path];
    const parts = this.#parts;
    return [
      this.#place,
      ...parts.map((_, index) => join(this.#place, ...parts.slice(0, index + 1))),
    ];
  }

  /** What was `unflushed` is on the disk. */
  flushed(): void {
    this.#isFlushed = true;
  }
}
