/**
 * Limits the memory that peers hold together, such as incomplete messages, or data that slow
 * receivers have not read. Over the limit, the peer that has held data longest is disconnected.
 */
import { collectGarbage } from "../common/memory.ts";

/** Buffers up to this size are not counted, because every connection may have one. */
const uncountedBytes = 4096;

export class BufferBudget<Owner> {
  /** Counted bytes of each peer, in the order in which the peers began to be counted. */
  readonly #owners = new Map<Owner, number>();
  readonly #maxBytes: number;
  #totalBytes = 0;
  /** Bytes of disconnected peers since the last collection of garbage. */
  #evictedBytes = 0;

  /** @param maxBytes limit for all peers together */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Sets the bytes that `owner` holds now.
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
      if (this.#totalBytes <= this.#maxBytes) break;
      evicted.push(oldest);
      this.#evictedBytes += this.#owners.get(oldest)!;
      this.remove(oldest);
    }
    return evicted;
  }

  /**
   * Releases the memory of disconnected peers once it is half of the limit. New peers may
   * otherwise fill the budget again before a collection of garbage.
   */
  releaseEvicted(): void {
    if (this.#evictedBytes < this.#maxBytes / 2) return;
    collectGarbage(this.#evictedBytes);
    this.#evictedBytes = 0;
  }

  /** Stops counting `owner`. */
  remove(owner: Owner): void {
    this.#totalBytes -= this.#owners.get(owner) ?? 0;
    this.#owners.delete(owner);
  }
}
