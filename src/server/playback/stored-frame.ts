/**
 * A frame read back from a store on disk. Its CRC-32 is verified before its last byte is passed on.
 */
import { readSync } from "node:fs";
import { crc32 } from "../../common/checksum.ts";
import { FramesError, isExhausted, systemCode, systemSentence } from "../../errors.ts";
import type { Frame } from "../../frame.ts";
import { closeReadFile } from "../../common/close-file.ts";
import { readSlices } from "../../common/file-slices.ts";
import type { FrameFiles } from "../../store/directory/frame-files.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";

export class StoredFrame implements Frame {
  readonly record: FrameRecord;
  readonly #files: FrameFiles;

  constructor(files: FrameFiles, record: FrameRecord) {
    this.#files = files;
    this.record = record;
  }

  get name(): string {
    return this.record.name;
  }

  get sequence(): number {
    return this.record.sequence;
  }

  get captured(): bigint {
    return this.record.captured;
  }

  get size(): number {
    return this.record.size;
  }

  get metadata(): string {
    return this.record.metadata;
  }

  #open(): number {
    const file = this.#files.open(this.record);
    if (file === undefined) throw missingError();
    return file;
  }

  read(into: Uint8Array): void {
    let file: number | undefined;
    try {
      file = this.#open();
      let length = 0;
      while (length < into.length) {
        const read = readSync(file, into, length, into.length - length, length);
        if (read === 0) throw contentMismatch();
        length += read;
      }
      if (crc32(into) !== this.record.crc32) throw contentMismatch();
    } catch (error) {
      throw toReadError(error);
    } finally {
      if (file !== undefined) closeReadFile(file);
    }
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    let file: number | undefined;
    try {
      file = this.#open();
      let remainingBytes = this.size;
      let crc = 0;
      for await (const { bytes, isLast } of readSlices(file, this.size)) {
        remainingBytes -= bytes.length;
        crc = crc32(bytes, crc);
        if (isLast && (remainingBytes > 0 || crc !== this.record.crc32)) throw contentMismatch();
        yield bytes;
      }
    } catch (error) {
      throw toReadError(error);
    } finally {
      if (file !== undefined) closeReadFile(file);
    }
    return undefined;
  }
}

function contentMismatch(): FramesError {
  const message = "its bytes changed in the store; on the server run frames verify";
  return new FramesError("unreadable", message);
}

function missingError(cause?: unknown): FramesError {
  return new FramesError("vanished", "its file was deleted from the store", { cause });
}

function toReadError(error: unknown): FramesError {
  if (error instanceof FramesError) return error;
  const isMissing = systemCode(error) === "ENOENT" || systemCode(error) === "ENOTDIR";
  const options = { cause: error };
  // The client connects again, and gets the frame when fewer files are open.
  if (isExhausted(error)) {
    return new FramesError("store", `Cannot read the store: ${systemSentence(error)}`, options);
  }
  return isMissing
    ? missingError(error)
    : new FramesError("unreadable", systemSentence(error), options);
}
