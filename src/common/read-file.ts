/** Reads small files that another program or user may have replaced. */
import { fstatSync, openSync, readFileSync } from "node:fs";
import { closeReadFile } from "./close-file.ts";
import { openFlags } from "./open-flags.ts";

/**
 * Returns the bytes of a file; undefined if it has more than `maxBytes` or is no regular file, such
 * as a pipe, which would block.
 *
 * @throws the error of the system if it cannot be opened, also because it is a link
 */
export function readRegularFile(path: string, maxBytes: number): Buffer | undefined {
  const file = openSync(path, openFlags);
  try {
    const found = fstatSync(file);
    return found.isFile() && found.size <= maxBytes ? readFileSync(file) : undefined;
  } finally {
    closeReadFile(file);
  }
}
