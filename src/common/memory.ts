/** Releases memory early, because a collection of the heap comes late for memory outside of it. */

/** Less memory is left to the next collection. */
const minBytes = 4 << 20;

/** Memory that `countGarbage` leaves. */
const maxGarbageBytes = 32 << 20;

/** Memory of the process below which nothing is released early. */
const maxIdleBytes = 100 << 20;

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

/** Counts memory that small objects took and that is no longer used. Releases it every 32 MB. */
export function countGarbage(bytes: number): void {
  garbageBytes += bytes;
  if (garbageBytes < maxGarbageBytes) return;
  garbageBytes = 0;
  collectGarbage(maxGarbageBytes);
}

/** Frees the memory of a picture now. Its array is empty afterwards. */
export function release({ buffer }: { readonly buffer: ArrayBuffer }): void {
  buffer.transfer(0);
}
