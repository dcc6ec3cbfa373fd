/**
 * Sheds HTTP connections before the process runs out of file descriptors, which the store and
 * senders need.
 * Bun's HTTP server accepts every connection and reports none before its first request.
 * So the guard polls the number of open files.
 */

/** Shares of the open-file limit: stop accepting, drop all connections, accept again. */
const closeAboveShare = 0.75;
const dropAboveShare = 0.875;
const reopenBelowShare = 0.625;

/** Controls which HTTP connections the server accepts. */
export interface AcceptGate {
  /** Stops accepting connections. */
  pauseAccepting(): void;
  /** Closes all connections. */
  dropAll(): void;
  /** Starts accepting again. Returns false if the port is in use at the moment. */
  resumeAccepting(): boolean;
}

export class OpenFileGuard {
  readonly #maxOpenFiles: number;
  readonly #openFiles: () => number;
  readonly #gate: AcceptGate;
  #isAccepting = true;

  /** @param maxOpenFiles limit of open files of the process */
  constructor(maxOpenFiles: number, openFiles: () => number, gate: AcceptGate) {
    this.#maxOpenFiles = maxOpenFiles;
    this.#openFiles = openFiles;
    this.#gate = gate;
  }

  /** Compares the number of open files with the limits. Call it many times a second. */
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
