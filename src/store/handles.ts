/**
 * The files of unfinished frames that are open: so many at a time. A peer may begin frames and never go on;
 * the file that was opened longest ago is closed then, until its next bytes come.
 */

/** Whoever has a file open. */
export interface Holder {
  /** Closes it, to be opened again when it is needed. */
  letGo(): void;
}

export class Handles {
  readonly #most: number;
  /** In the order in which they opened their files. */
  readonly #holders = new Set<Holder>();

  /** @param most files that may be open, at least one */
  constructor(most: number) {
    this.#most = Math.max(1, most);
  }

  /** `holder` is about to open its file. */
  opening(holder: Holder): void {
    if (this.#holders.size >= this.#most) {
      const [oldest] = this.#holders;
      this.closed(oldest!);
      oldest!.letGo();
    }
    this.#holders.add(holder);
  }

  /** It has closed its file. */
  closed(holder: Holder): void {
    this.#holders.delete(holder);
  }
}
