/**
 * Limits the memory that peers hold together, such as incomplete messages, or data that slow
 * receivers have not read. Over the limit, the peer that has held data longest is disconnected.
 * Peers whose data waits for the server's own work come last.
 */
import { collectGarbage } from "../common/memory.ts";

/** Buffers up to this size are not counted, because every connection may have one. */
const uncountedBytes = 4096;

interface Holding {
  bytes: number;
  isQueued: boolean;
}

export class BufferBudget<Owner> {
  /** What each counted peer holds, in the order in which the peers began to be counted. */
  readonly #holdings = new Map<Owner, Holding>();
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
   * @param isQueued whether the bytes wait for the server's own work
   * @returns peers to disconnect because the budget is exceeded, oldest first; they are no longer
   * counted
   */
  update(owner: Owner, bytes: number, isQueued = false): Owner[] {
    const holding = this.#holdings.get(owner);
    if (bytes <= uncountedBytes) {
      if (holding !== undefined) this.remove(owner);
      return [];
    }
    this.#totalBytes += bytes - (holding?.bytes ?? 0);
    if (holding === undefined) this.#holdings.set(owner, { bytes, isQueued });
    else Object.assign(holding, { bytes, isQueued });
    const evicted: Owner[] = [];
    while (this.#totalBytes > this.#maxBytes) {
      const oldest = this.#oldest();
      evicted.push(oldest);
      this.#evictedBytes += this.#holdings.get(oldest)!.bytes;
      this.remove(oldest);
    }
    return evicted;
  }

  /** Returns the oldest peer, of those that are not queued if there is one. */
  #oldest(): Owner {
    for (const [owner, { isQueued }] of this.#holdings) if (!isQueued) return owner;
    return this.#holdings.keys().next().value!;
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
    this.#totalBytes -= this.#holdings.get(owner)?.bytes ?? 0;
    this.#holdings.delete(owner);
  }
}
