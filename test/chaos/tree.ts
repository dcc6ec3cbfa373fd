// A growing tree that is sent with `frames send DIR`, again and again.

import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";

import type { Random } from "../wire/fuzz.ts";
import { keyOf, Scenario } from "./scenario.ts";

const stream = "tree";

/** The first has the name of the stream, so its frames lie directly in the folder. */
const sources = [stream, "visible", "infrared/left", "infrared/right", "depth"];

export class Tree extends Scenario {
  readonly stream = stream;
  readonly #folder: string;

  /** @param place folder for the tree */
  constructor(place: string, random: Random) {
    super(random);
    this.#folder = join(place, stream);
  }

  args(): string[] {
    return [this.#folder];
  }

  /** Writes frames with new names. The first of them is large. */
  add(count: number): void {
    for (let added = 0; added < count; added++) {
      const source = this.random.pick(sources);
      const bytes = this.makeContent(added === 0 ? this.pickLargeSize() : this.pickSize());
      const name = `${this.made}.png`;
      const path = join(this.#folder, source === stream ? name : `${source}/${name}`);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, bytes);
      const captured = statSync(path, { bigint: true }).mtimeNs;
      const frame = { source, name, size: bytes.length, crc32: crc32(bytes), captured };
      this.frames.set(keyOf(frame), frame);
    }
  }
}
