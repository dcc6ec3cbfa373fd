/**
 * Limits the open files of frames that wait for more bytes or for their turn. A peer may begin many
 * frames and never complete them, and a sender may have thousands of sources. At the limit the file
 * that was opened first is closed, and is opened again when it is needed.
 */

/** A frame with an open file. */
export interface OpenFile {
  /** Closes the file. It is opened again when needed. */
  close(): void;
}

export class OpenFileLimit {
  readonly #maxOpen: number;
  /** In the order in which the files were opened. */
  readonly #files = new Set<OpenFile>();

  /** @param maxOpen open files; at least one is allowed */
  constructor(maxOpen: number) {
    this.#maxOpen = Math.max(1, maxOpen);
  }

  /** Registers a file that is about to be opened. At the limit, closes the oldest one. */
  acquire(file: OpenFile): void {
    if (this.#files.size >= this.#maxOpen) this.#closeOldest();
    this.#files.add(file);
  }

  #closeOldest(): void {
    const [oldest] = this.#files;
    this.release(oldest!);
    oldest!.close();
  }

  /** Closes all files, because the process can open no more. */
  closeAll(): void {
    while (this.#files.size > 0) this.#closeOldest();
  }

  /** Unregisters a file that was closed. */
  release(file: OpenFile): void {
    this.#files.delete(file);
  }
}
