/** Tracks how much may still be written before the disk reaches its reserve or has no inode left. */
import { statfsSync } from "node:fs";
import { asFramesError, FramesError } from "../../errors.ts";
import type { DiskSpace } from "../store-contents.ts";

/** Default reserve: this share of the disk, at most this many bytes. */
const defaultReserveShare = 0.05;
const defaultMaxReserveBytes = 10e9;

/** Limits how much space a frame that did not fit may require before new senders are admitted. */
const maxShortfallBytes = 1 << 20;

/** Returns the space of the disk of `path`, without blocks reserved for root. */
export function diskSpace(path: string): DiskSpace {
  const { bavail, blocks, bsize, files, ffree } = statfsSync(path);
  // File systems that create inodes as needed report 0.
  return {
    free: bavail * bsize,
    total: blocks * bsize,
    freeInodes: files > 0 ? ffree : undefined,
  };
}

/** Returns whether the disk of `path` has too few inodes left to create files. */
export function hasNoInodes(path: string): boolean {
  try {
    return lacksInodes(diskSpace(path));
  } catch {
    return false;
  }
}

/**
 * Inodes without which a disk counts as full. The first frame of a source takes one for its file and
 * one for each of its folders.
 */
const minFreeInodes = 10;

function lacksInodes({ freeInodes }: DiskSpace): boolean {
  return freeInodes !== undefined && freeInodes < minFreeInodes;
}

export class FreeSpace {
  readonly #root: string;
  readonly #statDisk: (path: string) => DiskSpace;
  readonly #reserveBytes: number | undefined;
  /** Bytes that may still be written: the last measurement less the reservations since. */
  #availableBytes = 0;
  /** Bytes of the last frame that did not fit, up to the limit. */
  #shortfallBytes = 0;

  /** @param reserveBytes bytes to keep free; default: a share of the disk */
  constructor(root: string, reserveBytes: number | undefined, statDisk = diskSpace) {
    this.#root = root;
    this.#reserveBytes = reserveBytes;
    this.#statDisk = statDisk;
  }

  /**
   * Checks whether a sender may be admitted.
   *
   * @throws {FramesError} `store` if the disk is full, or has no room for the last frame that did
   * not fit
   */
  checkAdmission(): void {
    this.measure(this.#shortfallBytes);
    this.#shortfallBytes = 0;
  }

  /**
   * Reserves space for a frame.
   *
   * @throws {FramesError} `store` if it does not fit
   */
  reserve(bytes: number): void {
    // Measures again only when the last result is spent. Between two flushes other processes write
    // little.
    if (this.#availableBytes <= bytes) this.measure(bytes);
    this.#availableBytes -= bytes;
  }

  /**
   * Measures the free space.
   *
   * @throws {FramesError} `store` if `bytes` more do not fit
   */
  measure(bytes = 0): void {
    const diskSpace = this.diskSpace();
    const reserveBytes = this.#reserveFor(diskSpace);
    this.#checkInodes(diskSpace);
    this.#availableBytes = diskSpace.free - reserveBytes;
    // Some file systems report no size. Such a disk counts as unlimited.
    if (diskSpace.total === 0) this.#availableBytes = Infinity;
    if (this.#availableBytes > bytes) return;
    this.#shortfallBytes = Math.min(bytes, maxShortfallBytes);
    throw this.#diskFullError(diskSpace.free, reserveBytes);
  }

  /**
   * Checks for free space and leaves reservations unchanged.
   *
   * @throws {FramesError} `store` if the disk is full
   */
  check(): void {
    const diskSpace = this.diskSpace();
    const reserveBytes = this.#reserveFor(diskSpace);
    this.#checkInodes(diskSpace);
    if (diskSpace.total > 0 && diskSpace.free <= reserveBytes)
      throw this.#diskFullError(diskSpace.free, reserveBytes);
  }

  #checkInodes(diskSpace: DiskSpace): void {
    if (!lacksInodes(diskSpace)) return;
    throw new FramesError(
      "store",
      `The disk of ${this.#root} can hold no more files: it has free bytes, but ${diskSpace.freeInodes} free inodes (df -i); remove files there, or use a disk with more inodes`,
    );
  }

  #reserveFor({ total }: DiskSpace): number {
    return this.#reserveBytes ?? Math.min(total * defaultReserveShare, defaultMaxReserveBytes);
  }

  #diskFullError(free: number, reserveBytes: number): FramesError {
    return new FramesError(
      "store",
      `The disk of ${this.#root} is full: ${formatMegabytes(free)} are free, --reserve is ${formatMegabytes(reserveBytes)}; delete files, or run frames serve with --keep`,
    );
  }

  /**
   * Measures the disk.
   *
   * @throws {FramesError} `store`
   */
  diskSpace(): DiskSpace {
    try {
      return this.#statDisk(this.#root);
    } catch (error) {
      throw asFramesError(error, "store", `Cannot write the store ${this.#root}`);
    }
  }

  /** Discards the measurement, so that the next frame measures again. */
  invalidate(): void {
    this.#availableBytes = 0;
  }
}

function formatMegabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;
}
