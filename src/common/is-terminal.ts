/** Tells terminals from files and pipes. */
import { fstatSync } from "node:fs";

/**
 * Whether a file descriptor is a terminal. For files and pipes this does not load `node:tty`, which
 * with the streams below it takes half as long as the start of an empty program.
 */
export function isTerminal(fd: number): boolean {
  try {
    return fstatSync(fd).isCharacterDevice() && process.getBuiltinModule("node:tty").isatty(fd);
  } catch {
    // The descriptor is closed.
    return false;
  }
}
