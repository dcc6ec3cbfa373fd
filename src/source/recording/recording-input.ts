/** Reads an MCAP file from the disk, and notices if it changes. */
import { type BigIntStats, closeSync, fstatSync, openSync, readSync } from "node:fs";
import { FramesError, systemCode, systemSentence } from "../../errors.ts";
import type { McapInput } from "../../mcap/cursor.ts";

export class RecordingInput implements McapInput {
  readonly path: string;
  readonly size: number;
  readonly #file: number;
  readonly #stats: BigIntStats;
  #isClosed = false;

  /** @throws {FramesError} `missing`, `unreadable` */
  constructor(path: string) {
    this.path = path;
    try {
      this.#file = openSync(path, "r");
      this.#stats = fstatSync(this.#file, { bigint: true });
    } catch (error) {
      const code = systemCode(error) === "ENOENT" ? "missing" : "unreadable";
      throw new FramesError(code, `Cannot send ${path}: ${systemSentence(error)}`, {
        cause: error,
      });
    }
    this.size = Number(this.#stats.size);
  }

  /** @throws {FramesError} `unreadable` if the disk cannot be read */
  read(position: number, into: Uint8Array): number {
    let length = 0;
    try {
      while (length < into.length) {
        const count = readSync(this.#file, into, length, into.length - length, position + length);
        if (count === 0) break;
        length += count;
      }
    } catch (error) {
      throw new FramesError("unreadable", systemSentence(error), { cause: error });
    }
    return length;
  }

  /** @throws {FramesError} `changed` if the file is no longer as it was when it was opened */
  checkUnchanged(): void {
    const { size, mtimeNs, ctimeNs } = fstatSync(this.#file, { bigint: true });
    const was = this.#stats;
    if (size === was.size && mtimeNs === was.mtimeNs && ctimeNs === was.ctimeNs) return;
    throw new FramesError("changed", "the file changed while it was sent");
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeSync(this.#file);
  }
}
