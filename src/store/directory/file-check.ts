/**
 * Checks stored files. Opening them follows no link out of the store and does not block on a pipe.
 */
import { fstatSync, lstatSync, openSync, readSync, type Stats } from "node:fs";
import { crc32 } from "../../common/checksum.ts";
import { closeReadFile } from "../../common/close-file.ts";
import { openFlags } from "../../common/open-flags.ts";
import { FramesError } from "../../errors.ts";
import { codecOf, isKeyHead, maxHeadBytes } from "../../video/picture-head.ts";
import { toReadError } from "./store-error.ts";

/** Buffer for reading files. Reading is synchronous, so all readers share it. */
export const readBuffer = new Uint8Array(1 << 20);

/**
 * Returns the CRC-32 of a file. Blocks until the whole file is read.
 *
 * @throws {FramesError} `not-stored` if it is not a regular file, or cannot be read
 * @throws {FramesError} `store` if the process has too many open files
 */
export function fileChecksum(path: string): number {
  let file: number | undefined;
  try {
    file = openSync(path, openFlags);
    if (!fstatSync(file).isFile()) throw new FramesError("not-stored", `${path} is not a file`);
    let crc = 0;
    for (;;) {
      const read = readSync(file, readBuffer, 0, readBuffer.length, null);
      if (read === 0) return crc;
      crc = crc32(readBuffer.subarray(0, read), crc);
    }
  } catch (error) {
    throw toReadError(error, path);
  } finally {
    if (file !== undefined) closeReadFile(file);
  }
}

/**
 * Returns whether a file is a key frame; `undefined` if its name is not that of encoded video.
 *
 * @throws {FramesError} as `fileChecksum`
 */
export function isKeyFile(path: string): boolean | undefined {
  const codec = codecOf(undefined, path);
  if (codec === undefined) return undefined;
  let file: number | undefined;
  try {
    file = openSync(path, openFlags);
    return isKeyHead(readPictureHead(file), codec) ?? false;
  } catch (error) {
    throw toReadError(error, path);
  } finally {
    if (file !== undefined) closeReadFile(file);
  }
}

/** Reads the first bytes of an open file, which tell the kind of a picture of encoded video. */
export function readPictureHead(file: number): Uint8Array {
  const head = new Uint8Array(maxHeadBytes);
  return head.subarray(0, readSync(file, head, 0, head.length, 0));
}

/**
 * Returns what is at `path` itself, a link included, or `undefined` if nothing is there.
 *
 * @throws {FramesError} `not-stored` if the system does not tell
 */
export function entryAt(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw toReadError(error, path);
  }
}

/**
 * Returns whether the file at `path` is a regular file with this size and CRC-32.
 *
 * @throws {FramesError} as `fileChecksum`
 */
export function isIntact(
  path: string,
  { bytes, crc32 }: { bytes: number; crc32: number },
): boolean {
  const found = entryAt(path);
  return found?.isFile() === true && found.size === bytes && fileChecksum(path) === crc32;
}

/**
 * Calls `check`. Returns false if the file in place cannot be read, for a caller that may replace
 * that file.
 *
 * @throws {FramesError} `store`
 */
export function isReadableAnd(check: () => boolean): boolean {
  try {
    return check();
  } catch (error) {
    if (error instanceof FramesError && error.code === "not-stored") return false;
    throw error;
  }
}
