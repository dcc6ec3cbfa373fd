/**
 * Checks stored files. Opening them follows no link out of the store and does not block on a pipe.
 */
import { closeSync, fstatSync, lstatSync, openSync, readSync } from "node:fs";
import { crc32 } from "node:zlib";
import { openFlags } from "../../common/open-flags.ts";
import { FramesError } from "../../errors.ts";

/**
 * Returns the CRC-32 of a file. Blocks until the whole file is read.
 *
 * @throws {FramesError} `not-stored` if it is not a regular file
 */
export function fileChecksum(path: string): number {
  const file = openSync(path, openFlags);
  try {
    if (!fstatSync(file).isFile()) throw new FramesError("not-stored", `${path} is not a file`);
    const buffer = new Uint8Array(1 << 20);
    let crc = 0;
    for (;;) {
      const read = readSync(file, buffer, 0, buffer.length, null);
      if (read === 0) return crc;
      crc = crc32(buffer.subarray(0, read), crc);
    }
  } finally {
    closeSync(file);
  }
}

/** Returns whether the file at `path` is a regular file with this size and CRC-32. */
export function isIntact(
  path: string,
  { bytes, crc32 }: { bytes: number; crc32: number },
): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found?.isFile() === true && found.size === bytes && fileChecksum(path) === crc32;
}

/**
 * Returns whether `path` does not exist. A link counts as existing, even if its target is missing.
 */
export function isAbsent(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) === undefined;
}
