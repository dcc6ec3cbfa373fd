/** Reads a file too large for one message, a slice at a time, without holding up anything else. */

/**
 * Bytes of a slice: as many as one DATA takes (SPEC section 5), since they go to the socket as they are.
 * With slices of 4, 2 and 1 MiB the sender of a 1.5 GB frame took up to 154, 147 and 93 MB of memory, and the
 * same time.
 */
const sliceBytes = (1 << 20) - 4;

/**
 * The first `size` bytes of a newly opened file, in order; a slice is shorter than it should be where the file
 * ends before. When this returns, nothing reads it any more: a read under way would go on in whatever file is
 * opened next under the same number.
 *
 * @yields each slice, and whether it is the last
 */
export async function* readSlices(
  fd: number,
  size: number,
): AsyncGenerator<{ readonly bytes: Uint8Array; readonly isLast: boolean }, void> {
  // Bun seeks to the start of a slice unless that is 0: one slice is read at a time, in order.
  const readSlice = (from: number) =>
    Bun.file(fd)
      .slice(from, Math.min(from + sliceBytes, size))
      .bytes();
  let nextSlice = size > 0 ? readSlice(0) : undefined;
  try {
    for (let from = 0; nextSlice !== undefined; from += sliceBytes) {
      const bytes: Uint8Array = await nextSlice;
      const isLast = from + sliceBytes >= size;
      const isFull = bytes.length === Math.min(sliceBytes, size - from);
      nextSlice = isLast || !isFull ? undefined : readSlice(from + sliceBytes);
      // It is awaited in the next round, or at the end.
      nextSlice?.catch(() => {});
      yield { bytes, isLast: isLast || !isFull };
    }
  } finally {
    await nextSlice?.catch(() => {});
  }
}
