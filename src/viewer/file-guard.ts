/**
 * Keeps files for the store and its senders: Bun's HTTP server takes every connection that comes, and says of
 * none before it asks for something. So it is looked, often, how many files are open in all.
 */

/** Shares of the files that there may be: with so many open nobody new is let in, or everybody goes; then again. */
const crowded = 0.75;
const desperate = 0.875;
const roomy = 0.625;

/** What is let in by. */
export interface Gate {
  /** Lets nobody new in. */
  close(): void;
  /** Ends all connections there are. */
  clear(): void;
  /** Lets in again; whether that can be had by now. */
  open(): boolean;
}

export class FileGuard {
  readonly #most: number;
  readonly #openFiles: () => number;
  readonly #gate: Gate;
  #isOpen = true;

  /** @param most files that may be open */
  constructor(most: number, openFiles: () => number, gate: Gate) {
    this.#most = most;
    this.#openFiles = openFiles;
    this.#gate = gate;
  }

  /** Looks; to be called many times a second. */
  look(): void {
    const share = this.#openFiles() / this.#most;
    if (this.#isOpen && share > crowded) {
      this.#isOpen = false;
      this.#gate.close();
    }
    if (share > desperate) this.#gate.clear();
    else if (!this.#isOpen && share < roomy) this.#isOpen = this.#gate.open();
  }
}
