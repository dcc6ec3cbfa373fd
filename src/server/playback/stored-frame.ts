/**
 * A frame read back from a store on disk. Its CRC-32 is verified before its last byte is passed on.
 */
import { readSync } from "node:fs";
import { crc32 } from "../../common/checksum.ts";
import { FramesError, isExhausted, systemCode, systemSentence } from "../../errors.ts";
import type { FramePieces } from "../../frame.ts";
import { closeReadFile } from "../../common/close-file.ts";
import { readPictureHead } from "../../store/directory/file-check.ts";
import type { FrameFiles } from "../../store/directory/frame-files.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { JournaledFrame } from "./journaled-frame.ts";
import { otherBytesError, vanishedError } from "../../store/read-errors.ts";

export class StoredFrame extends JournaledFrame {
  readonly #files: FrameFiles;

  constructor(files: FrameFiles, record: FrameRecord) {
    super(record);
    this.#files = files;
  }

  #open(): number {
    const file = this.#files.open(this.record);
    if (file === undefined) throw vanishedError();
    return file;
  }

  read(into: Uint8Array): void {
    let file: number | undefined;
    try {
      file = this.#open();
      let length = 0;
      while (length < into.length) {
        const read = readSync(file, into, length, into.length - length, length);
        if (read === 0) throw otherBytesError();
        length += read;
      }
      if (crc32(into) !== this.record.crc32) throw otherBytesError();
    } catch (error) {
      throw toReadError(error);
    } finally {
      if (file !== undefined) closeReadFile(file);
    }
  }

  /** Reads the first bytes; `undefined` if that is not possible. */
  readHead(): Uint8Array | undefined {
    let file: number | undefined;
    try {
      file = this.#open();
      return readPictureHead(file);
    } catch {
      return undefined;
    } finally {
      if (file !== undefined) closeReadFile(file);
    }
  }

  pieces(): FramePieces {
    return new StoredPieces(() => this.#open(), this.record);
  }
}

/**
 * The pieces of a stored frame. They are read when they are sent, so a client that reads slowly
 * holds no memory for them.
 */
class StoredPieces implements FramePieces {
  readonly #open: () => number;
  readonly #record: FrameRecord;
  #fd: number | undefined;
  #length = 0;
  #crc = 0;

  constructor(open: () => number, record: FrameRecord) {
    this.#open = open;
    this.#record = record;
  }

  readNow(into: Uint8Array): number {
    const { size, crc32: expectedCrc } = this.#record;
    try {
      this.#fd ??= this.#open();
      const wanted = Math.min(into.length, size - this.#length);
      const count = readSync(this.#fd, into, 0, wanted, this.#length);
      if (count === 0) throw otherBytesError();
      this.#length += count;
      this.#crc = crc32(into.subarray(0, count), this.#crc);
      if (this.#length === size && this.#crc !== expectedCrc) throw otherBytesError();
      return count;
    } catch (error) {
      throw toReadError(error);
    }
  }

  /** Not called, because `readNow` never returns 0. */
  next(): Promise<IteratorResult<Uint8Array, undefined>> {
    return Promise.resolve({ done: true, value: undefined });
  }

  return(): Promise<IteratorResult<Uint8Array, undefined>> {
    if (this.#fd !== undefined) closeReadFile(this.#fd);
    this.#fd = undefined;
    return this.next();
  }
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
    ? vanishedError(error)
    : new FramesError("unreadable", systemSentence(error), options);
}
