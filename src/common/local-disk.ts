/** Tells whether files are on a disk of this machine, or behind a network or another process. */
import { statfsSync } from "node:fs";

/**
 * Types of file systems that only this machine writes to, from statfs(2): ext2 to ext4, XFS, btrfs,
 * tmpfs, overlayfs, ZFS, F2FS, FAT, exFAT, NTFS, bcachefs, JFS, ramfs. Others, such as NFS, SMB and
 * FUSE, may block for as long as another machine or process does not answer.
 */
const localTypes: ReadonlySet<number> = new Set([
  0xef53, 0x58465342, 0x9123683e, 0x1021994, 0x794c7630, 0x2fc12fc1, 0xf2f52010, 0x4d44, 0x2011bab0,
  0x7366746e, 0xca451a4e, 0x3153464a, 0x858458f6,
]);

/**
 * Returns whether a file system of this machine has the path. Returns `undefined` on systems other
 * than Linux, which number their file systems differently.
 *
 * @throws if the system does not tell
 */
export function isOnLocalDisk(path: string): boolean | undefined {
  return process.platform === "linux" ? localTypes.has(statfsSync(path).type) : undefined;
}
