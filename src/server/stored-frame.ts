/** A frame of a store, read back from its disk: what is given out has the CRC-32 of what came. */
import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Frame } from "../frame.ts";
import { openFlags } from "../source/directory.ts";
import { slicesOf } from "../source/slices.ts";
import type { KeptFrame } from "../store/catalog.ts";
import { pathOfFrame } from "../store/tree.ts";

export class StoredFrame implements Frame {
  readonly kept: KeptFrame;
  readonly #place: string;

  /** @param place the folder of the store */
  constructor(place: string, kept: KeptFrame) {
    this.#place = place;
    this.kept = kept;
  }

  get name(): string {
    return this.kept.name;
  }

  get sequence(): number {
    return this.kept.sequence;
  }

  get captured(): bigint {
    return this.kept.captured;
  }

  get size(): number {
    return this.kept.size;
  }

  get metadata(): string {
    return this.kept.metadata;
  }

  #open(): number {
    const { stream, source, name } = this.kept;
    return openSync(join(this.#place, pathOfFrame(stream, source, name)), openFlags);
  }

  read(into: Uint8Array): void {
    let file: number | undefined;
    try {
      file = this.#open();
      let length = 0;
      while (length < into.length) {
        const read = readSync(file, into, length, into.length - length, length);
        if (read === 0) throw otherBytes();
        length += read;
      }
      if (crc32(into) !== this.kept.crc32) throw otherBytes();
    } catch (error) {
      throw readFailure(error);
    } finally {
      if (file !== undefined) closeSync(file);
    }
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    let file: number | undefined;
    try {
      file = this.#open();
      let left = this.size;
      let crc = 0;
      for await (const { bytes, isLast } of slicesOf(file, this.size)) {
        left -= bytes.length;
        crc = crc32(bytes, crc);
        if (isLast && (left > 0 || crc !== this.kept.crc32)) throw otherBytes();
        yield bytes;
      }
    } catch (error) {
      throw readFailure(error);
    } finally {
      if (file !== undefined) closeSync(file);
    }
    return undefined;
  }
}

function otherBytes(): FramesError {
  const message = "its bytes are not those that came (frames verify, on the server)";
  return new FramesError("unreadable", message);
}

function readFailure(error: unknown): FramesError {
  if (error instanceof FramesError) return error;
  const isGone = systemCode(error) === "ENOENT" || systemCode(error) === "ENOTDIR";
  const options = { cause: error };
  return isGone
    ? new FramesError("vanished", "it is no longer in the store", options)
    : new FramesError("unreadable", systemSentence(error), options);
}
