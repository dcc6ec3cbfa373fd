/** How much may still be written before the disk is as full as it may get. */
import { statfsSync } from "node:fs";
import { asFramesError, FramesError } from "../../errors.ts";
import type { DiskSpace } from "../store-contents.ts";

/** Share of a disk, and bytes at most, that are kept free if nothing else was asked for. */
const defaultReserveShare = 0.05;
const defaultMaxReserveBytes = 10e9;

/** What a frame lacked keeps other senders out only up to so many bytes. */
const maxShortfallBytes = 1 << 20;

/** Space of the disk that `path` lies on, as far as ordinary users may have it. */
export function diskSpace(path: string): DiskSpace {
  const { bavail, blocks, bsize } = statfsSync(path);
  return { free: bavail * bsize, total: blocks * bsize };
}

export class FreeSpace {
  readonly #root: string;
  readonly #statDisk: (path: string) => DiskSpace;
  readonly #reserveBytes: number | undefined;
  /** Bytes that may be written, by the last measurement and what was taken since. */
  #availableBytes = 0;
  /** Bytes of the frame that found no room last. */
  #shortfallBytes = 0;

  /** @param reserveBytes bytes to keep free */
  constructor(root: string, reserveBytes: number | undefined, statDisk = diskSpace) {
    this.#root = root;
    this.#reserveBytes = reserveBytes;
    this.#statDisk = statDisk;
  }

  /**
   * Whether there is any use in letting a sender in.
   *
   * @throws {FramesError} `store` if there is no room, or too little for what found none last
   */
  checkAdmission(): void {
    this.measure(this.#shortfallBytes);
    this.#shortfallBytes = 0;
  }

  /**
   * Takes room for a frame.
   *
   * @throws {FramesError} `store` if there is none
   */
  reserve(bytes: number): void {
    // What is left is measured seldom: others write to the disk too, but not that much.
    if (this.#availableBytes <= bytes) this.measure(bytes);
    this.#availableBytes -= bytes;
  }

  /**
   * Measures what is left.
   *
   * @throws {FramesError} `store` if that is not enough for `bytes` more
   */
  measure(bytes = 0): void {
    const diskSpace = this.diskSpace();
    const reserveBytes = this.#reserveFor(diskSpace);
    this.#availableBytes = diskSpace.free - reserveBytes;
    // Some file systems do not say how large they are.
    if (diskSpace.total === 0) this.#availableBytes = Infinity;
    if (this.#availableBytes > bytes) return;
    this.#shortfallBytes = Math.min(bytes, maxShortfallBytes);
    throw this.#diskFullError(diskSpace.free, reserveBytes);
  }

  /**
   * Measures for whoever only wants to know whether there is room.
   *
   * @throws {FramesError} `store` if there is none
   */
  check(): void {
    const diskSpace = this.diskSpace();
    const reserveBytes = this.#reserveFor(diskSpace);
    if (diskSpace.total > 0 && diskSpace.free <= reserveBytes)
      throw this.#diskFullError(diskSpace.free, reserveBytes);
  }

  #reserveFor({ total }: DiskSpace): number {
    return this.#reserveBytes ?? Math.min(total * defaultReserveShare, defaultMaxReserveBytes);
  }

  #diskFullError(free: number, reserveBytes: number): FramesError {
    return new FramesError(
      "store",
      `The disk of ${this.#root} is full: only ${formatMegabytes(free)} are free, and ${formatMegabytes(reserveBytes)} are to be kept free (frames serve --reserve)`,
    );
  }

  /**
   * Free bytes and all bytes of the disk, now.
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

  /** The next frame measures again. */
  invalidate(): void {
    this.#availableBytes = 0;
  }
}

function formatMegabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;
}
