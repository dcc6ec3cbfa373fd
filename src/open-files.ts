/** How many files this process may have open at a time, sockets included. */
import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { devNull } from "node:os";

/** Where /proc is missing, macOS allows this many. */
const fewest = 256;

/** The system's limit. */
export function mostOpenFiles(): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return limit === undefined ? fewest : Number(limit);
  } catch {
    return fewest;
  }
}

/** How many this process has open now, or fewer: where the system does not say, the number that the next one gets. */
export function openFiles(): number {
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
