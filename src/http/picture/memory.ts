/** Releases pictures early, because a collection of the heap comes late for memory outside of it. */

/** Smaller pictures are left to the next collection. */
const minPictureBytes = 4 << 20;

/** Memory of the process below which nothing is released early. */
const maxIdleBytes = 100 << 20;

/**
 * Releases pictures that are no longer used, if this process takes much memory.
 *
 * @param neededBytes memory that the next picture takes, or the last one took
 */
export function collectGarbage(neededBytes: number): void {
  if (neededBytes < minPictureBytes || process.memoryUsage.rss() < maxIdleBytes) return;
  Bun.gc(true);
}

/** Frees the memory of a picture now. Its array is empty afterwards. */
export function release({ buffer }: { readonly buffer: ArrayBuffer }): void {
  buffer.transfer(0);
}
