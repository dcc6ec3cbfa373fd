// The frames of a chaos run: a tree that grows, made by a seed, every frame with bytes of its own.

import { createCipheriv } from "node:crypto";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";

import type { Random } from "../wire/fuzz.ts";

/** The name of the stream, which is that of the tree's folder. */
export const stream = "chaos";

/** The first is named like the stream: its frames lie directly in the folder. */
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

/** What names a frame everywhere in a run: `SOURCE/NAME`. */
export function keyOf({ source, name }: Pick<TreeFrame, "source" | "name">): string {
  return `${source}/${name}`;
}

/** Where a frame lies, below the tree and below the stream's folder in the store alike. */
export function pathOf({ source, name }: Pick<TreeFrame, "source" | "name">): string {
  return source === stream ? name : `${source}/${name}`;
}

/** The frames that there are to send. */
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

  /** Adds frames under new names, the first of them a large one. */
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

  /** Mostly small, as 20,000 frames must fit on a small disk. */
  #size(): number {
    const which = this.#random.below(10_000);
    if (which < 200) return 0;
    if (which < 400) return 1;
    if (which < 450) return 100_000 + this.#random.below(200_000);
    if (which < 453) return this.#largeSize();
    return 1000 + Math.floor((this.#random.below(1000) / 1000) ** 2 * 7000);
  }

  /** Of a frame that goes in pieces. */
  #largeSize(): number {
    return mebibyte + 1 + this.#random.below(1.5 * mebibyte);
  }

  /** Bytes that no other frame has, at any place. */
  #content(number: number, size: number): Uint8Array {
    const start = Buffer.alloc(16);
    start.writeUInt32BE(number);
    return createCipheriv("aes-128-ctr", this.#key, start).update(zeros.subarray(0, size));
  }
}
