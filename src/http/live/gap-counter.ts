/** Counts the numbers missing in a session, up to the highest number known. */

export class GapCounter {
  #session: string | undefined;
  /** Lowest number above all known numbers of the session. */
  #next = 1;
  #missing = 0;

  get missing(): number {
    return this.#missing;
  }

  /** Records a frame. A number below the highest known one fills a gap. */
  add(session: string, number: number): void {
    if (session !== this.#session) this.#startSession(session, number);
    if (number === this.#next) this.#next++;
    else if (number > this.#next) {
      this.#missing += number - this.#next;
      this.#next = number + 1;
    } else if (this.#missing > 0) this.#missing--;
  }

  /** Records numbers that the sender or the server gave up. */
  addLost(session: string, first: number, last: number): void {
    if (session !== this.#session) this.#startSession(session, first);
    if (last < this.#next) return;
    this.#missing += last - this.#next + 1;
    this.#next = last + 1;
  }

  /** Records numbers that are stored already, so the sender does not send them. */
  addPresent(session: string, first: number, last: number): void {
    if (session !== this.#session) this.#startSession(session, first);
    if (first > this.#next) this.#missing += first - this.#next;
    else this.#missing -= Math.min(this.#missing, Math.min(last + 1, this.#next) - first);
    this.#next = Math.max(this.#next, last + 1);
  }

  /**
   * Starts at `number`: frames of the session from before the server start do not count as missing.
   */
  #startSession(session: string, number: number): void {
    this.#session = session;
    this.#next = number;
    this.#missing = 0;
  }
}
