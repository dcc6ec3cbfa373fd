/**
 * The files of unfinished frames that are open: so many at a time. A peer may begin frames and never go on;
 * the file that was written to longest ago is closed then, and opened again when its next bytes come.
 */
import { closeSync, constants, openSync } from "node:fs";

/** Flags that open a file again to write behind what is there, if it still is a file of ours. */
const again = constants.O_WRONLY | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0);

export class Handles {
  readonly #most: number;
  /** Descriptors by path, the one used longest ago first. */
  readonly #open = new Map<string, number>();

  /** @param most files that may be open, at least one */
  constructor(most: number) {
    this.#most = Math.max(1, most);
  }

  /** Makes a new file. */
  create(path: string): number {
    this.#makeRoom();
    const file = openSync(path, "wx", 0o644);
    this.#open.set(path, file);
    return file;
  }

  /** The file that was made, to be written to at its end. */
  use(path: string): number {
    let file = this.#open.get(path);
    if (file === undefined) {
      this.#makeRoom();
      file = openSync(path, again);
    }
    // It is the one used last now.
    this.#open.delete(path);
    this.#open.set(path, file);
    return file;
  }

  #makeRoom(): void {
    for (const path of this.#open.keys()) {
      if (this.#open.size < this.#most) return;
      this.close(path);
    }
  }

  /** Closes it, if it is open. */
  close(path: string): void {
    const file = this.#open.get(path);
    if (file === undefined) return;
    this.#open.delete(path);
    closeSync(file);
  }
}
