/** Closes files that were only read. */
import { closeSync } from "node:fs";

/**
 * Closes a file that was only read. Its bytes are known already, so an error of the file system says
 * nothing about them. The system closes the file in any case.
 */
export function closeReadFile(file: number): void {
  try {
    closeSync(file);
  } catch {
    // Nothing was written.
  }
}
