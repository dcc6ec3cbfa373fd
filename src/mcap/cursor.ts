/** Reads numbers and texts from a part of a file, whose lengths may be wrong. */
import { FramesError } from "../errors.ts";

/** Bytes that can be read at any position: a file, or a chunk in memory. */
export interface McapInput {
  /** Size in bytes. */
  readonly size: number;
  /**
   * Reads into `into` from `position` on. Returns the number of bytes read, which is less only at
   * the end.
   */
  read(position: number, into: Uint8Array): number;
}

/** A part of an input. */
export interface Region {
  readonly input: McapInput;
  readonly position: number;
  readonly length: number;
}

/** Makes an input of bytes in memory. */
export function memoryInput(bytes: Uint8Array): McapInput {
  return {
    size: bytes.length,
    read(position, into) {
      const part = bytes.subarray(position, position + into.length);
      into.set(part);
      return part.length;
    },
  };
}

/**
 * Reads a part whole. The caller has checked its length.
 *
 * @throws {FramesError} `unreadable` if the input has become shorter
 */
export function readRegion({ input, position, length }: Region): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  if (input.read(position, bytes) < length) throw endsEarly();
  return bytes;
}

/** Bytes read ahead. Most heads of records and messages are shorter. */
const windowBytes = 512;

/** Longest text or list of bytes that is read at once. */
export const maxPartBytes = 4 << 20;

const decoder = new TextDecoder("utf-8", { fatal: true });

/** Reads little-endian parts one after another. Each method throws `unreadable` beyond the end. */
export class Cursor {
  readonly #input: McapInput;
  readonly #end: number;
  readonly #window: Uint8Array;
  readonly #view: DataView;
  /** Part of the input that is in the window. */
  #windowStart = 0;
  #windowEnd = 0;
  #position: number;

  constructor({ input, position, length }: Region) {
    this.#input = input;
    this.#position = position;
    this.#end = position + length;
    this.#window = new Uint8Array(Math.min(windowBytes, length));
    this.#view = new DataView(this.#window.buffer);
  }

  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.#end - this.#position;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  u32(littleEndian = true): number {
    return this.#view.getUint32(this.#take(4), littleEndian);
  }

  i32(littleEndian = true): number {
    return this.#view.getInt32(this.#take(4), littleEndian);
  }

  /** Reads a time in nanoseconds. */
  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  /** Reads a length or position of 64 bits. One beyond 2^53 is beyond the end of any file. */
  length(): number {
    return Number(this.u64());
  }

  /** Reads a number of protobuf: 7 bits in a byte, lowest first. */
  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.u8();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw unreadable("a number in it has no end");
  }

  /** Reads `count` bytes, at most 4 MiB. */
  bytes(count: number): Uint8Array<ArrayBuffer> {
    this.#check(count);
    if (count > maxPartBytes) throw unreadable(`a text in it has ${count} bytes`);
    return readRegion(this.region(count));
  }

  /** Reads UTF-8 text of `count` bytes. */
  utf8(count: number): string {
    try {
      return decoder.decode(this.bytes(count));
    } catch (error) {
      if (error instanceof FramesError) throw error;
      throw unreadable("a text in it is not UTF-8");
    }
  }

  /** Reads a text with its length before it. */
  text(): string {
    return this.utf8(this.u32());
  }

  skip(count: number): void {
    this.#check(count);
    this.#position += count;
  }

  /** Skips `count` bytes and returns them as a part of the input. */
  region(count: number): Region {
    const position = this.#position;
    this.skip(count);
    return { input: this.#input, position, length: count };
  }

  #check(count: number): void {
    if (count > this.remaining) throw endsEarly();
  }

  /** Brings `count` bytes into the window. Returns their place in it. */
  #take(count: number): number {
    this.#check(count);
    const isInside =
      this.#position >= this.#windowStart && this.#position + count <= this.#windowEnd;
    if (!isInside) {
      const length = Math.min(windowBytes, this.remaining);
      const read = this.#input.read(this.#position, this.#window.subarray(0, length));
      if (read < count) throw endsEarly();
      this.#windowStart = this.#position;
      this.#windowEnd = this.#position + read;
    }
    const place = this.#position - this.#windowStart;
    this.#position += count;
    return place;
  }
}

/** Returns the error for a part that cannot be understood. */
export function unreadable(message: string): FramesError {
  return new FramesError("unreadable", message);
}

function endsEarly(): FramesError {
  return unreadable("it ends too early");
}
