/** A frame in a spool. Its bytes are a file that another program may have changed. */
import { readRegularFile } from "../../common/read-file.ts";
import { FramesError, systemSentence } from "../../errors.ts";
import type { Frame, RawShape } from "../../frame.ts";
import { parseRawShape } from "../image/raw.ts";
import type { SpooledFrameRow } from "./spool-rows.ts";

export class SpooledFrame implements Frame {
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata: string;
  readonly raw: RawShape | undefined;
  readonly isKey: boolean | undefined;
  readonly #path: string;

  constructor(row: SpooledFrameRow, path: string) {
    const { seq, name, captured, size, meta, raw, is_key: isKey } = row;
    this.name = name;
    this.sequence = Number(seq);
    this.captured = captured;
    this.size = Number(size);
    this.metadata = meta;
    this.raw = raw === null ? undefined : parseRawShape(raw);
    this.isKey = isKey === null ? undefined : isKey === 1n;
    this.#path = path;
  }

  #bytes(): Uint8Array {
    let bytes: Uint8Array | undefined;
    try {
      bytes = readRegularFile(this.#path, this.size);
    } catch (error) {
      throw new FramesError("unreadable", `the spool cannot be read: ${systemSentence(error)}`, {
        cause: error,
      });
    }
    if (bytes?.length === this.size) return bytes;
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
