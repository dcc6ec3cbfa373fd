/** Counts the files that this process has open and may open, sockets included. */
import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { devNull } from "node:os";

/** Default limit of macOS, which has no /proc. */
const fallbackLimit = 256;

/** Returns the system's limit of open files for this process. */
export function maxOpenFiles(): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return limit === undefined ? fallbackLimit : Number(limit);
  } catch {
    return fallbackLimit;
  }
}

/**
 * Returns the number of open files. Without /proc it returns the next free descriptor, which may be
 * lower than the count.
 */
export function countOpenFiles(): number {
  try {
    const { size = 0 } = statSync("/proc/self/fd", { throwIfNoEntry: false }) ?? {};
    if (size > 0) return size;
    const next = openSync(devNull, "r");
    closeSync(next);
    return next;
  } catch {
    // No more files can be opened.
    return Infinity;
  }
}
