/** Releases memory early, because a collection of the heap comes late for memory outside of it. */

/** Less memory is left to the next collection. */
const minBytes = 4 << 20;

/** Memory that `countGarbage` leaves. */
const maxGarbageBytes = 32 << 20;

/** Memory of the process below which nothing is released early. */
const maxIdleBytes = 64 << 20;

/**
 * Releases what is no longer used, if this process takes much memory.
 *
 * @param neededBytes memory that is needed next, or that was taken last
 */
export function collectGarbage(neededBytes: number): void {
  if (neededBytes < minBytes || process.memoryUsage.rss() < maxIdleBytes) return;
  Bun.gc(true);
}

/** Bytes counted by `countGarbage` since its last collection. */
let garbageBytes = 0;

/** Counts memory that is no longer used. Collects it every 32 MB. */
export function countGarbage(bytes: number): void {
  garbageBytes += bytes;
  if (garbageBytes < maxGarbageBytes) return;
  garbageBytes = 0;
  collectGarbage(maxGarbageBytes);
}

/** Interval of `GarbageWatch` in milliseconds. */
const watchIntervalMs = 100;

/** Memory of the process from which `GarbageWatch` collects. */
const maxUnwatchedBytes = 128 << 20;

/** Growth after a collection that leads to the next one. */
const maxGrowthBytes = 16 << 20;

/**
 * Collects garbage early while the process takes much memory. JavaScriptCore lets garbage grow as large
 * as what is in use, and that includes all buffers.
 */
export class GarbageWatch {
  readonly #measure: () => number;
  readonly #collect: () => void;
  readonly #timer: NodeJS.Timeout;
  /** Bytes that the last collection left. */
  #leftBytes = 0;

  /**
   * Starts to watch.
   *
   * @param measure returns the memory of the process in bytes
   * @param collect collects all garbage
   */
  constructor(measure = () => process.memoryUsage.rss(), collect = () => Bun.gc(true)) {
    this.#measure = measure;
    this.#collect = collect;
    this.#timer = setInterval(() => this.check(), watchIntervalMs);
    this.#timer.unref();
  }

  /** Collects garbage if the process has grown. */
  check(): void {
    const bytes = this.#measure();
    this.#leftBytes = Math.min(this.#leftBytes, bytes);
    if (bytes < Math.max(maxUnwatchedBytes, this.#leftBytes + maxGrowthBytes)) return;
    this.#collect();
    this.#leftBytes = this.#measure();
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** Frees the memory of a picture now. Its array is empty afterwards. */
export function release({ buffer }: { readonly buffer: ArrayBuffer }): void {
  buffer.transfer(0);
}
