/**
 * The bytes of stored files: read such that neither a link in their place leads out of the store, nor a pipe
 * there is waited for.
 */
import { closeSync, fstatSync, lstatSync, openSync, readSync } from "node:fs";
import { crc32 } from "node:zlib";
import { openFlags } from "../../common/open-flags.ts";
import { FramesError } from "../../errors.ts";

/**
 * CRC-32 of a file.
 *
 * @throws {FramesError} `not-stored` if it is none
 */
export function fileChecksum(path: string): number {
  const file = openSync(path, openFlags);
  try {
    if (!fstatSync(file).isFile()) throw new FramesError("not-stored", `${path} is no file`);
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

/** Whether the file at `path` has these bytes. */
export function isIntact(
  path: string,
  { bytes, crc32 }: { bytes: number; crc32: number },
): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found?.isFile() === true && found.size === bytes && fileChecksum(path) === crc32;
}

/** Whether nothing lies at `path`, not even a link. */
export function isAbsent(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) === undefined;
}
