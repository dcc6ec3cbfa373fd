/** Tells the user what is unusual about a source, without repeating it all the time. */

/** Called with a sentence about a source, such as "its timestamps jump". */
export type OnNotice = (message: string) => void;

/** Time in which the same notice is sent once, in milliseconds. */
const intervalMs = 60_000;

export class NoticeLimiter {
  readonly #onNotice: OnNotice;
  readonly #clock: () => number;
  /** When each notice was sent last, in milliseconds. The sentences are few and fixed. */
  readonly #sent = new Map<string, number>();

  /** @param clock returns milliseconds */
  constructor(onNotice: OnNotice, clock: () => number) {
    this.#onNotice = onNotice;
    this.#clock = clock;
  }

  send(message: string): void {
    const now = this.#clock();
    if (now - (this.#sent.get(message) ?? -Infinity) < intervalMs) return;
    this.#sent.set(message, now);
    this.#onNotice(message);
  }
}
