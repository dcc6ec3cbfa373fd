/** Encodes protobuf messages: fields in any order, without those that have their default value. */

const encoder = new TextEncoder();

/** Kinds of field on the wire. */
export const WireType = { varint: 0, fixed64: 1, lengthDelimited: 2, fixed32: 5 } as const;

/** Bytes that a tag, a length or a number takes at most. */
const maxVarintBytes = 10;

/** Builds one message. A field whose value is 0, empty or false is left out, as proto3 does. */
export class ProtobufWriter {
  #bytes = new Uint8Array(256);
  #length = 0;

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** Returns the message. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Writes int32, int64, uint64 or an enum. A negative number takes ten bytes. */
  integer(field: number, value: bigint | number): this {
    if (BigInt(value) === 0n) return this;
    this.#tag(field, WireType.varint);
    return this.#varint(BigInt.asUintN(64, BigInt(value)));
  }

  sint64(field: number, value: bigint): this {
    return this.integer(field, BigInt.asUintN(64, (value << 1n) ^ (value >> 63n)));
  }

  bool(field: number, value: boolean): this {
    return this.integer(field, value ? 1 : 0);
  }

  string(field: number, value: string): this {
    return this.bytes(field, encoder.encode(value));
  }

  bytes(field: number, value: Uint8Array): this {
    if (value.length === 0) return this;
    this.lengthPrefix(field, value.length);
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  message(field: number, value: ProtobufWriter): this {
    const bytes = value.finish();
    if (bytes.length === 0) return this.lengthPrefix(field, 0);
    return this.bytes(field, bytes);
  }

  /** Writes the number even if it is 0, so that it can be overwritten later. */
  fixed32(field: number, value: number): this {
    this.#tag(field, WireType.fixed32);
    this.#reserve(4);
    new DataView(this.#bytes.buffer).setUint32(this.#length, value, true);
    this.#length += 4;
    return this;
  }

  /** Writes tag and length of a field whose `length` bytes the caller appends to the message. */
  lengthPrefix(field: number, length: number): this {
    this.#tag(field, WireType.lengthDelimited);
    return this.#varint(BigInt(length));
  }

  #tag(field: number, wireType: number): void {
    this.#varint(BigInt(field * 8 + wireType));
  }

  #varint(value: bigint): this {
    this.#reserve(maxVarintBytes);
    // Numbers are faster than bigints, and most values are small.
    let rest = value;
    while (rest > 0x7fff_ffffn) {
      this.#bytes[this.#length++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    let small = Number(rest);
    while (small > 0x7f) {
      this.#bytes[this.#length++] = (small & 0x7f) | 0x80;
      small >>>= 7;
    }
    this.#bytes[this.#length++] = small;
    return this;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}
