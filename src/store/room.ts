/** How much may still be written before the disk is as full as it may get. */
import { statfsSync } from "node:fs";
import { asFramesError, FramesError } from "../errors.ts";

/** Share of a disk, and bytes at most, that are kept free if nothing else was asked for. */
const defaultShare = 0.05;
const defaultMost = 10e9;

/** What a frame lacked keeps other senders out only up to so many bytes. */
const mostLacking = 1 << 20;

/** Free bytes and all bytes of a disk. */
export interface DiskSpace {
  readonly free: number;
  readonly total: number;
}

/** Space of the disk that `path` lies on, as far as ordinary users may have it. */
export function diskSpace(path: string): DiskSpace {
  const { bavail, blocks, bsize } = statfsSync(path);
  return { free: bavail * bsize, total: blocks * bsize };
}

export class Room {
  readonly #place: string;
  readonly #measure: (path: string) => DiskSpace;
  readonly #reserve: number | undefined;
  /** Bytes that may be written, by the last measurement and what was taken since. */
  #left = 0;
  /** Bytes of the frame that found no room last. */
  #lacking = 0;

  /** @param reserve bytes to keep free */
  constructor(place: string, reserve: number | undefined, measure = diskSpace) {
    this.#place = place;
    this.#reserve = reserve;
    this.#measure = measure;
  }

  /**
   * Whether there is any use in letting a sender in.
   *
   * @throws {FramesError} `store` if there is no room, or too little for what found none last
   */
  admit(): void {
    this.check(this.#lacking);
    this.#lacking = 0;
  }

  /**
   * Takes room for a frame.
   *
   * @throws {FramesError} `store` if there is none
   */
  take(bytes: number): void {
    // What is left is measured seldom: others write to the disk too, but not that much.
    if (this.#left <= bytes) this.check(bytes);
    this.#left -= bytes;
  }

  /**
   * Measures what is left.
   *
   * @throws {FramesError} `store` if that is not enough for `bytes` more
   */
  check(bytes = 0): void {
    const space = this.space();
    const reserve = this.#reserved(space);
    this.#left = space.free - reserve;
    // Some file systems do not say how large they are.
    if (space.total === 0) this.#left = Infinity;
    if (this.#left > bytes) return;
    this.#lacking = Math.min(bytes, mostLacking);
    throw this.#full(space.free, reserve);
  }

  /**
   * Measures for whoever only wants to know whether there is room.
   *
   * @throws {FramesError} `store` if there is none
   */
  look(): void {
    const space = this.space();
    const reserve = this.#reserved(space);
    if (space.total > 0 && space.free <= reserve) throw this.#full(space.free, reserve);
  }

  #reserved({ total }: DiskSpace): number {
    return this.#reserve ?? Math.min(total * defaultShare, defaultMost);
  }

  #full(free: number, reserve: number): FramesError {
    return new FramesError(
      "store",
      `The disk of ${this.#place} is full: only ${megabytes(free)} are free, and ${megabytes(reserve)} are to be kept free (frames serve --reserve)`,
    );
  }

  /**
   * Free bytes and all bytes of the disk, now.
   *
   * @throws {FramesError} `store`
   */
  space(): DiskSpace {
    try {
      return this.#measure(this.#place);
    } catch (error) {
      throw asFramesError(error, "store", `Cannot write the store ${this.#place}`);
    }
  }

  /** The next frame measures again. */
  forget(): void {
    this.#left = 0;
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;
}
