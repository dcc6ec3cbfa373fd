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

/** Open files of a server without connections and frames: its journal, listeners and pipes. */
const otherFiles = 24;

/** Least and most connections whose peers are being told that the server is full. */
const minLeaving = 4;
export const maxLeaving = 64;

/** How many files of a process each use may have open. */
export interface OpenFileShares {
  readonly connections: number;
  /** Connections over that number, while their peers are told that the server is full. */
  readonly leaving: number;
  /** Frames that wait for their next bytes or for their turn. */
  readonly frames: number;
}

/** Divides the open files that the system allows: half of them for connections, a quarter for frames. */
export function openFileShares(limit = maxOpenFiles()): OpenFileShares {
  const connections = Math.max(1, Math.min(4096 - maxLeaving, limit >> 1));
  const spare = limit - connections - otherFiles - minLeaving;
  const frames = Math.max(1, Math.min(limit >> 2, spare));
  const leaving = Math.max(minLeaving, Math.min(spare - frames, maxLeaving));
  return { connections, leaving, frames };
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
