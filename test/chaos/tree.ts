// Frames of a chaos run: a growing tree generated from a seed, with unique content for every frame.

import { createCipheriv } from "node:crypto";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";

import type { Random } from "../wire/fuzz.ts";

/** Name of the stream and of the tree's folder. */
export const stream = "chaos";

/** The first has the name of the stream, so its frames lie directly in the folder. */
const sources = [stream, "visible", "infrared/left", "infrared/right", "depth"];

const mebibyte = 2 ** 20;
const zeros = new Uint8Array(2.5 * mebibyte);

/** A frame of the sender's tree. */
export interface TreeFrame {
  readonly source: string;
  readonly name: string;
  readonly size: number;
  readonly crc32: number;
  /** Nanoseconds since 1970. */
  readonly captured: bigint;
}

/** Returns the key of a frame in a run, `SOURCE/NAME`. */
export function keyOf({ source, name }: Pick<TreeFrame, "source" | "name">): string {
  return `${source}/${name}`;
}

/** Returns the path of a frame, below the tree and also below the stream's folder in the store. */
export function pathOf({ source, name }: Pick<TreeFrame, "source" | "name">): string {
  return source === stream ? name : `${source}/${name}`;
}

/** The frames to send. */
export class Tree {
  readonly folder: string;
  readonly frames = new Map<string, TreeFrame>();
  bytes = 0;
  readonly #random: Random;
  readonly #key: Uint8Array;

  constructor(place: string, random: Random) {
    this.folder = join(place, stream);
    this.#random = random;
    this.#key = random.bytes(16);
  }

  /** Adds frames with new names. The first of them is large. */
  add(count: number): void {
    for (let added = 0; added < count; added++) {
      const number = this.frames.size + 1;
      const source = this.#random.pick(sources);
      const name = `${number}.png`;
      const size = added === 0 ? this.#largeSize() : this.#size();
      const bytes = this.#content(number, size);
      const path = join(this.folder, pathOf({ source, name }));
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, bytes);
      const captured = statSync(path, { bigint: true }).mtimeNs;
      const frame = { source, name, size, crc32: crc32(bytes), captured };
      this.frames.set(keyOf(frame), frame);
      this.bytes += size;
    }
  }

  /** Mostly small, because 20,000 frames must fit on a small disk. */
  #size(): number {
    const which = this.#random.below(10_000);
    if (which < 200) return 0;
    if (which < 400) return 1;
    if (which < 450) return 100_000 + this.#random.below(200_000);
    if (which < 453) return this.#largeSize();
    return 1000 + Math.floor((this.#random.below(1000) / 1000) ** 2 * 7000);
  }

  /** Returns the size of a frame that is sent in pieces. */
  #largeSize(): number {
    return mebibyte + 1 + this.#random.below(1.5 * mebibyte);
  }

  /** Returns content unique to a frame at every offset. */
  #content(number: number, size: number): Uint8Array {
    const start = Buffer.alloc(16);
    start.writeUInt32BE(number);
    return createCipheriv("aes-128-ctr", this.#key, start).update(zeros.subarray(0, size));
  }
}
