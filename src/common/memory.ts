/** Releases memory early, because a collection of the heap comes late for memory outside of it. */

/** Less memory is left to the next collection. */
const minBytes = 4 << 20;

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

/** Frees the memory of a picture now. Its array is empty afterwards. */
export function release({ buffer }: { readonly buffer: ArrayBuffer }): void {
  buffer.transfer(0);
}
