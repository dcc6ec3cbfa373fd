/**
 * Memory that peers make a server hold by not going on: messages that are not whole, and what came behind a
 * source that is waited for. There is so much of it for all of them together; then whoever has held some for
 * longest goes, and not who is just in the middle of a message.
 */

/** Bytes in all. */
const maxBufferedBytes = 32 << 20;

/** What every connection may hold is not worth counting. */
const uncountedBytes = 4096;

export class BufferBudget<Owner> {
  /** In the order in which they began to hold more than nothing. */
  readonly #owners = new Map<Owner, number>();
  #totalBytes = 0;

  /**
   * `owner` holds so many bytes now.
   *
   * @returns those who must go for it, oldest first
   */
  update(owner: Owner, bytes: number): Owner[] {
    const previousBytes = this.#owners.get(owner) ?? 0;
    const countedBytes = bytes > uncountedBytes ? bytes : 0;
    if (previousBytes === countedBytes) return [];
    this.#totalBytes += countedBytes - previousBytes;
    // A key that is there keeps its place.
    if (countedBytes === 0) this.#owners.delete(owner);
    else this.#owners.set(owner, countedBytes);
    const evicted: Owner[] = [];
    for (const oldest of this.#owners.keys()) {
      if (this.#totalBytes <= maxBufferedBytes) break;
      evicted.push(oldest);
      this.remove(oldest);
    }
    return evicted;
  }

  /** It holds nothing any more. */
  remove(owner: Owner): void {
    this.#totalBytes -= this.#owners.get(owner) ?? 0;
    this.#owners.delete(owner);
  }
}
