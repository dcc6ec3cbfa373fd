/** Detects from the first and last bytes of an image file whether it has its end. */

const pngSignature = "89504e470d0a1a0a";
/** The complete IEND chunk. It has no data, so its CRC-32 is always the same. */
const pngEndChunk = "0000000049454e44ae426082";

/**
 * Returns whether an image file, which may still be being written, is complete. Returns `undefined`
 * for formats without a recognizable end.
 *
 * @param head first bytes of the file, 8 or more
 * @param tail last bytes of the file, about 64; may be the same as `head` in a short file
 */
export function hasImageEnd(head: Uint8Array, tail: Uint8Array): boolean | undefined {
  const start = head.subarray(0, 8).toHex();
  if (start === pngSignature) return tail.subarray(-12).toHex() === pngEndChunk;
  if (!start.startsWith("ffd8ff")) return undefined;
  // Cameras pad the last block of a JPEG with zeros or FF bytes.
  const last = tail.findLastIndex((byte) => byte !== 0 && byte !== 0xff);
  // All padding: the end may lie before these bytes, or the space may be preallocated.
  if (last < 0) return undefined;
  return last > 0 && tail[last - 1] === 0xff && tail[last] === 0xd9;
}
