/** How many files this process may have open at a time, sockets included. */
import { readFileSync } from "node:fs";

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
