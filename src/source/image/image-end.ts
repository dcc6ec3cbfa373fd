/** Whether the file of an image has its end already, by its first and last bytes. */

const pngSignature = "89504e470d0a1a0a";
/** The whole chunk IEND: no data, and so always the same CRC-32. */
const pngEndChunk = "0000000049454e44ae426082";

/**
 * Whether an image that somebody is writing is whole; `undefined` if its bytes do not tell, as those of
 * most formats do not.
 *
 * @param head the first bytes of the file, 8 or more
 * @param tail its last bytes, 64 or so; in a short file they may be the same
 */
export function hasImageEnd(head: Uint8Array, tail: Uint8Array): boolean | undefined {
  const start = head.subarray(0, 8).toHex();
  if (start === pngSignature) return tail.subarray(-12).toHex() === pngEndChunk;
  if (!start.startsWith("ffd8ff")) return undefined;
  // Cameras fill their last block, with zeros or with ones.
  const last = tail.findLastIndex((byte) => byte !== 0 && byte !== 0xff);
  // Of a file that is filled all through, the end may lie before; or it is space to be written to.
  if (last < 0) return undefined;
  return last > 0 && tail[last - 1] === 0xff && tail[last] === 0xd9;
}
