/** Reads a file too large for one message, a slice at a time, without holding up anything else. */

/**
 * Bytes of a slice: as many as one DATA takes (SPEC section 5), since they go to the socket as they are.
 * With slices of 4, 2 and 1 MiB the sender of a 1.5 GB frame took up to 154, 147 and 93 MB of memory, and the
 * same time.
 */
const sliceSize = (1 << 20) - 4;

/**
 * The first `size` bytes of a newly opened file, in order; a slice is shorter than it should be where the file
 * ends before. When this returns, nothing reads it any more: a read under way would go on in whatever file is
 * opened next under the same number.
 *
 * @yields each slice, and whether it is the last
 */
export async function* slicesOf(
  file: number,
  size: number,
): AsyncGenerator<{ readonly bytes: Uint8Array; readonly isLast: boolean }, void> {
  // Bun seeks to the start of a slice unless that is 0: one slice is read at a time, in order.
  const slice = (from: number) =>
    Bun.file(file)
      .slice(from, Math.min(from + sliceSize, size))
      .bytes();
  let ahead = size > 0 ? slice(0) : undefined;
  try {
    for (let from = 0; ahead !== undefined; from += sliceSize) {
      const bytes: Uint8Array = await ahead;
      const isLast = from + sliceSize >= size;
      const isWhole = bytes.length === Math.min(sliceSize, size - from);
      ahead = isLast || !isWhole ? undefined : slice(from + sliceSize);
      // It is awaited in the next round, or at the end.
      ahead?.catch(() => {});
      yield { bytes, isLast: isLast || !isWhole };
    }
  } finally {
    await ahead?.catch(() => {});
  }
}
