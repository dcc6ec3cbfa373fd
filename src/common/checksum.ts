/** CRC-32, of bytes and of a frame that is not in memory. */
import type { Frame } from "../frame.ts";

/**
 * Returns the CRC-32 of bytes. Equal to `crc32` of `node:zlib`, which takes as long to load as an
 * empty program takes to start.
 *
 * @param previous CRC-32 of the bytes before these
 */
export const crc32: (bytes: Uint8Array | string, previous?: number) => number = Bun.hash.crc32;

/** Returns the CRC-32 of a stream of bytes. */
export async function checksumOf(chunks: AsyncIterable<Uint8Array> | []): Promise<number> {
  let crc = 0;
  for await (const chunk of chunks) crc = crc32(chunk, crc);
  return crc;
}

/**
 * Reads a frame and returns its CRC-32.
 *
 * @throws {FramesError} `changed`, `vanished` or `unreadable`
 */
export async function checksum(frame: Pick<Frame, "pieces">): Promise<number> {
  const pieces = frame.pieces();
  let crc = 0;
  for (;;) {
    const { value } = await pieces.next();
    if (value === undefined) return crc;
    crc = crc32(value, crc);
  }
}
