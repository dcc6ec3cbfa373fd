/**
 * Reads a file that is too large for one message, slice by slice, without blocking the event loop.
 */

/**
 * Bytes of a slice: the largest payload of a DATA message (SPEC section 5), so that a slice is sent
 * without copying. With slices of 4, 2 and 1 MiB the sender of a 1.5 GB frame took up to 154, 147
 * and 93 MB of memory, and the same time.
 */
export const sliceBytes = (1 << 20) - 4;

/**
 * Reads the bytes of a file from `start` to `size` in order. The position of the file must be 0. A
 * slice is shorter than usual if the file ends early. No read is pending when this returns: it would
 * continue in the next file opened under the same descriptor.
 *
 * @yields each slice, and whether it is the last
 */
export async function* readSlices(
  fd: number,
  size: number,
  start = 0,
): AsyncGenerator<{ readonly bytes: Uint8Array; readonly isLast: boolean }, void> {
  // Bun seeks to the start of a slice unless that is 0. So slices are read in order, one at a time.
  const readSlice = (from: number) =>
    Bun.file(fd)
      .slice(from, Math.min(from + sliceBytes, size))
      .bytes();
  let nextSlice = size > start ? readSlice(start) : undefined;
  try {
    for (let from = start; nextSlice !== undefined; from += sliceBytes) {
      const bytes: Uint8Array = await nextSlice;
      const isLast = from + sliceBytes >= size;
      const isFull = bytes.length === Math.min(sliceBytes, size - from);
      nextSlice = isLast || !isFull ? undefined : readSlice(from + sliceBytes);
      // The next round or `finally` awaits it; this keeps an early rejection from being uncaught.
      nextSlice?.catch(() => {});
      yield { bytes, isLast: isLast || !isFull };
    }
  } finally {
    await nextSlice?.catch(() => {});
  }
}
