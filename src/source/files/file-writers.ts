/** Finds out whether a process has a file open for writing. */
import { constants } from "node:os";
import { isOnLocalDisk } from "../../common/local-disk.ts";
import { errnoFunction, lastErrno, openCLibrary } from "../../common/c-library.ts";

const functions = {
  fcntl: { args: ["int", "int", "int"], returns: "int" },
  ...errnoFunction,
} as const;

/** F_SETLEASE and F_RDLCK of fcntl(2). */
const setLease = 1024;
const readLease = 0;

let library: ReturnType<typeof openCLibrary<typeof functions>> | null = null;

/**
 * Takes a lease on an open file. The system grants it only if no process has the file open for
 * writing, and makes processes that open it for writing later wait until the file is closed here.
 * So close it soon.
 *
 * @param file open for reading
 * @returns whether it was granted; `undefined` if this system, file system or user cannot have one
 */
export function takeLease(file: number, path: string): boolean | undefined {
  if (library === null) {
    library = openCLibrary(functions);
    // A process that waits is told by SIGIO, which ends a process that does not handle it.
    if (library !== undefined) process.on("SIGIO", () => {});
  }
  // Other file systems do not know of all writers, but some grant or refuse leases all the same.
  if (library === undefined || isOnLocalDisk(path) !== true) return undefined;
  if (library.fcntl(file, setLease, readLease) === 0) return true;
  return lastErrno(library) === constants.errno.EAGAIN ? false : undefined;
}
