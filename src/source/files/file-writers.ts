/** Finds out whether a process has a file open for writing. */
import { statfsSync } from "node:fs";
import { constants } from "node:os";
import { errnoFunction, lastErrno, openCLibrary } from "../../common/c-library.ts";

const functions = {
  fcntl: { args: ["int", "int", "int"], returns: "int" },
  ...errnoFunction,
} as const;

/** F_SETLEASE and F_RDLCK of fcntl(2). */
const setLease = 1024;
const readLease = 0;

/**
 * Types of file systems that only this machine writes to, from statfs(2): ext2 to ext4, XFS, btrfs,
 * tmpfs, overlayfs, ZFS, F2FS, FAT, exFAT, NTFS, bcachefs, JFS, ramfs. Others, such as NFS, SMB and
 * FUSE, do not know of all writers, but some grant or refuse leases all the same.
 */
const localTypes: ReadonlySet<number> = new Set([
  0xef53, 0x58465342, 0x9123683e, 0x1021994, 0x794c7630, 0x2fc12fc1, 0xf2f52010, 0x4d44, 0x2011bab0,
  0x7366746e, 0xca451a4e, 0x3153464a, 0x858458f6,
]);

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
  if (library === undefined || !localTypes.has(statfsSync(path).type)) return undefined;
  if (library.fcntl(file, setLease, readLease) === 0) return true;
  return lastErrno(library) === constants.errno.EAGAIN ? false : undefined;
}
