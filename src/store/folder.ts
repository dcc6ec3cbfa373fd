/** The folder that the frames of one source lie in. */
import { lstatSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { FramesError, systemCode } from "../errors.ts";

export class Folder {
  /** Path below the store. */
  readonly relative: string;
  readonly path: string;
  readonly #place: string;
  #made = false;
  /** Whether its own name, and those on the way to it, were flushed. */
  #isFlushed = false;

  constructor(place: string, relative: string) {
    this.#place = place;
    this.relative = relative;
    this.path = join(place, relative);
  }

  /** Final path of a frame. */
  pathOf(name: string): string {
    return `${this.path}/${name}`;
  }

  /** Final path of a frame, below the store. */
  relativePathOf(name: string): string {
    return `${this.relative}/${name}`;
  }

  /** Makes the folder, part by part: a link on the way would lead out of the store. */
  make(): void {
    if (this.#made) return;
    let path = this.#place;
    for (const part of this.relative.split("/")) {
      path = join(path, part);
      try {
        mkdirSync(path);
        this.#isFlushed = false;
      } catch (error) {
        if (systemCode(error) !== "EEXIST") throw error;
        if (!lstatSync(path).isDirectory()) {
          throw new FramesError("not-stored", `Cannot keep frames in ${path}: it is not a folder`);
        }
      }
    }
    this.#made = true;
  }

  /** The folder may have gone meanwhile: it is made anew. */
  makeAgain(): void {
    this.#made = false;
    this.make();
  }

  /** Whether the folder is there, and no link leads to it. */
  isThere(): boolean {
    let path = this.#place;
    for (const part of this.relative.split("/")) {
      path = join(path, part);
      if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return false;
    }
    return true;
  }

  /** The folders that must be flushed for the frames in this one to be found after a power cut. */
  get unflushed(): string[] {
    if (this.#isFlushed) return [this.path];
    const parts = this.relative.split("/");
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
