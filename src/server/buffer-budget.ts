/**
 * Limits the memory used by unprocessed data over all peers: incomplete messages, and data that
 * waits for a source. Over the limit, the peer that has held data longest is disconnected.
 */

/** Limit for all peers together. */
const maxBufferedBytes = 32 << 20;

/** Buffers up to this size are not counted, because every connection may have one. */
const uncountedBytes = 4096;

export class BufferBudget<Owner> {
  /** Counted bytes of each peer, in the order in which the peers began to be counted. */
  readonly #owners = new Map<Owner, number>();
  #totalBytes = 0;

  /**
   * Sets the bytes that `owner` has buffered now.
   *
   * @returns peers to disconnect because the budget is exceeded, oldest first; they are no longer
   * counted
   */
  update(owner: Owner, bytes: number): Owner[] {
    const previousBytes = this.#owners.get(owner) ?? 0;
    const countedBytes = bytes > uncountedBytes ? bytes : 0;
    if (previousBytes === countedBytes) return [];
    this.#totalBytes += countedBytes - previousBytes;
    // `Map.set` keeps the position of an existing key.
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

  /** Stops counting `owner`. */
  remove(owner: Owner): void {
    this.#totalBytes -= this.#owners.get(owner) ?? 0;
    this.#owners.delete(owner);
  }
}
