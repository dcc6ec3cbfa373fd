/**
 * The files of unfinished frames that are open: so many at a time. A peer may begin frames and never go on;
 * the file that was opened longest ago is closed then, until its next bytes come.
 */

/** Whoever has a file open. */
export interface OpenFile {
  /** Closes it, to be opened again when it is needed. */
  close(): void;
}

export class OpenFileLimit {
  readonly #maxOpen: number;
  /** In the order in which they opened their files. */
  readonly #files = new Set<OpenFile>();

  /** @param maxOpen files that may be open, at least one */
  constructor(maxOpen: number) {
    this.#maxOpen = Math.max(1, maxOpen);
  }

  /** `holder` is about to open its file. */
  acquire(file: OpenFile): void {
    if (this.#files.size >= this.#maxOpen) {
      const [oldest] = this.#files;
      this.release(oldest!);
      oldest!.close();
    }
    this.#files.add(file);
  }

  /** It has closed its file. */
  release(file: OpenFile): void {
    this.#files.delete(file);
  }
}
