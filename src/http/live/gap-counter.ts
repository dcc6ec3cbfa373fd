/** Which numbers of a session are missing, of those up to the highest that is known of. */

export class GapCounter {
  #session: string | undefined;
  /** The first number of the session that is not known of yet. */
  #next = 1;
  #missing = 0;

  get missing(): number {
    return this.#missing;
  }

  /** A frame came. */
  add(session: string, number: number): void {
    if (session !== this.#session) this.#startSession(session, number);
    if (number === this.#next) this.#next++;
    else if (number > this.#next) {
      this.#missing += number - this.#next;
      this.#next = number + 1;
    } else if (this.#missing > 0) this.#missing--;
  }

  /** Numbers are known not to come. */
  addLost(session: string, first: number, last: number): void {
    if (session !== this.#session) this.#startSession(session, first);
    if (last < this.#next) return;
    this.#missing += last - this.#next + 1;
    this.#next = last + 1;
  }

  /** Numbers need not come: they are there. */
  addPresent(session: string, first: number, last: number): void {
    if (session !== this.#session) this.#startSession(session, first);
    if (first > this.#next) this.#missing += first - this.#next;
    else this.#missing -= Math.min(this.#missing, Math.min(last + 1, this.#next) - first);
    this.#next = Math.max(this.#next, last + 1);
  }

  /** What came of a session before the server began is not known here, and so not missing. */
  #startSession(session: string, number: number): void {
    this.#session = session;
    this.#next = number;
    this.#missing = 0;
  }
}
