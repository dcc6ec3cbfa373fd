/** Computes the CRC-32 of a frame that is not in memory. */
import { crc32 } from "node:zlib";
import type { Frame } from "../frame.ts";

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
