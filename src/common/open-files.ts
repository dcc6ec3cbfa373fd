/** How many files this process may have open at a time, sockets included. */
import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { devNull } from "node:os";

/** Where /proc is missing, macOS allows this many. */
const fallbackLimit = 256;

/** The system's limit. */
export function maxOpenFiles(): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return limit === undefined ? fallbackLimit : Number(limit);
  } catch {
    return fallbackLimit;
  }
}

/** How many this process has open now, or fewer: where the system does not say, the number that the next one gets. */
export function countOpenFiles(): number {
  try {
    const { size = 0 } = statSync("/proc/self/fd", { throwIfNoEntry: false }) ?? {};
    if (size > 0) return size;
    const next = openSync(devNull, "r");
    closeSync(next);
    return next;
  } catch {
    // No more can be opened.
    return Infinity;
  }
}
