/** A frame in a spool: its row, and its bytes in a file. */
import { readFileSync } from "node:fs";
import { FramesError, systemSentence } from "../../errors.ts";
import type { Frame, RawShape } from "../../frame.ts";
import { parseRawShape } from "../image/raw.ts";

/** Row of a frame in the spool. */
export interface SpooledFrameRow {
  readonly seq: bigint;
  readonly name: string;
  readonly captured: bigint;
  readonly size: bigint;
  readonly meta: string;
  /** Shape of a raw frame, if it has one of its own. */
  readonly raw: string | null;
}

export class SpooledFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata: string;
  readonly raw: RawShape | undefined;
  readonly #path: string;

  constructor({ seq, name, captured, size, meta, raw }: SpooledFrameRow, path: string) {
    this.name = name;
    this.sequence = Number(seq);
    this.captured = captured;
    this.size = Number(size);
    this.metadata = meta;
    this.raw = raw === null ? undefined : parseRawShape(raw);
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
