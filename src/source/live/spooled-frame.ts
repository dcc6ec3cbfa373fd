/** A frame that lies in a spool: its row, and its bytes in a file. */
import { readFileSync } from "node:fs";
import { FramesError, systemSentence } from "../../errors.ts";
import type { Frame } from "../../frame.ts";

/** Row of a frame in the spool. */
export interface SpooledFrameRow {
  readonly seq: bigint;
  readonly name: string;
  readonly captured: bigint;
  readonly size: bigint;
  readonly meta: string;
}

export class SpooledFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata: string;
  readonly #path: string;

  constructor({ seq, name, captured, size, meta }: SpooledFrameRow, path: string) {
    this.name = name;
    this.sequence = Number(seq);
    this.captured = captured;
    this.size = Number(size);
    this.metadata = meta;
    this.#path = path;
  }

  #bytes(): Uint8Array {
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(this.#path);
    } catch (error) {
      throw new FramesError("unreadable", `the spool cannot be read: ${systemSentence(error)}`, {
        cause: error,
      });
    }
    if (bytes.length === this.size) return bytes;
    throw new FramesError("unreadable", "another program changed the spool");
  }

  read(into: Uint8Array): void {
    into.set(this.#bytes());
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    yield this.#bytes();
    return undefined;
  }
}
