/**
 * Keeps files for the store and its senders: Bun's HTTP server takes every connection that comes, and says of
 * none before it asks for something. So it is looked, often, how many files are open in all.
 */

/** Shares of the files that there may be: with so many open nobody new is let in, or everybody goes; then again. */
const closeAboveShare = 0.75;
const dropAboveShare = 0.875;
const reopenBelowShare = 0.625;

/** What is let in by. */
export interface AcceptGate {
  /** Lets nobody new in. */
  pauseAccepting(): void;
  /** Ends all connections there are. */
  dropAll(): void;
  /** Lets in again; whether that can be had by now. */
  resumeAccepting(): boolean;
}

export class OpenFileGuard {
  readonly #maxOpenFiles: number;
  readonly #openFiles: () => number;
  readonly #gate: AcceptGate;
  #isAccepting = true;

  /** @param maxOpenFiles files that may be open */
  constructor(maxOpenFiles: number, openFiles: () => number, gate: AcceptGate) {
    this.#maxOpenFiles = maxOpenFiles;
    this.#openFiles = openFiles;
    this.#gate = gate;
  }

  /** Looks; to be called many times a second. */
  check(): void {
    const share = this.#openFiles() / this.#maxOpenFiles;
    if (this.#isAccepting && share > closeAboveShare) {
      this.#isAccepting = false;
      this.#gate.pauseAccepting();
    }
    if (share > dropAboveShare) this.#gate.dropAll();
    else if (!this.#isAccepting && share < reopenBelowShare)
      this.#isAccepting = this.#gate.resumeAccepting();
  }
}
