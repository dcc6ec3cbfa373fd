/**
 * Memory that peers make a server hold by not going on: messages that are not whole, and what came behind a
 * source that is waited for. There is so much of it for all of them together; then whoever has held some for
 * longest goes, and not who is just in the middle of a message.
 */

/** Bytes in all. */
const mostHeld = 32 << 20;

/** What every connection may hold is not worth counting. */
const freeOfCharge = 4096;

export class HeldBytes<Owner> {
  /** In the order in which they began to hold more than nothing. */
  readonly #owners = new Map<Owner, number>();
  #sum = 0;

  /**
   * `owner` holds so many bytes now.
   *
   * @returns those who must go for it, oldest first
   */
  note(owner: Owner, bytes: number): Owner[] {
    const before = this.#owners.get(owner) ?? 0;
    const now = bytes > freeOfCharge ? bytes : 0;
    if (before === now) return [];
    this.#sum += now - before;
    // A key that is there keeps its place.
    if (now === 0) this.#owners.delete(owner);
    else this.#owners.set(owner, now);
    const going: Owner[] = [];
    for (const oldest of this.#owners.keys()) {
      if (this.#sum <= mostHeld) break;
      going.push(oldest);
      this.forget(oldest);
    }
    return going;
  }

  /** It holds nothing any more. */
  forget(owner: Owner): void {
    this.#sum -= this.#owners.get(owner) ?? 0;
    this.#owners.delete(owner);
  }
}
