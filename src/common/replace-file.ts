/** Replaces whole files, so that other processes read the old bytes or the new ones. */
import { closeSync, openSync, renameSync, rmSync } from "node:fs";

/**
 * Writes a new file beside `path` and renames it. The caller must hold a lock, because the name of
 * the new file is fixed: what a killed process left under it is deleted.
 *
 * @param mode permissions of the new file
 * @param write writes the bytes to the open file, whose path at that time is the second argument
 * @throws the error of the system or of `write`; the old file then stays
 */
export function replaceFile(
  path: string,
  mode: number,
  write: (file: number, partial: string) => void,
): void {
  const partial = `${path}.part`;
  try {
    rmSync(partial, { force: true });
    // "x" fails if another user has put a link in its place meanwhile.
    const file = openSync(partial, "wx", mode);
    try {
      write(file, partial);
    } finally {
      closeSync(file);
    }
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
}
