/** Encodes protobuf messages: fields in any order, without those that have their default value. */
import { RecordWriter } from "./records.ts";

const encoder = new TextEncoder();

/** Kinds of field on the wire. */
export const WireType = { varint: 0, fixed64: 1, lengthDelimited: 2, fixed32: 5 } as const;

/** Builds one message. A field whose value is 0, empty or false is left out, as proto3 does. */
export class ProtobufWriter {
  readonly #output = new RecordWriter(256);

  /** Bytes written so far. */
  get length(): number {
    return this.#output.length;
  }

  /** Returns the message. */
  finish(): Uint8Array {
    return this.#output.bytes;
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
    this.lengthPrefix(field, value.length).#output.raw(value);
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
    this.#output.u32(value);
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
    // Numbers are faster than bigints, and most values are small.
    let rest = value;
    while (rest > 0x7fff_ffffn) {
      this.#output.u8(Number(rest & 0x7fn) | 0x80);
      rest >>= 7n;
    }
    let small = Number(rest);
    while (small > 0x7f) {
      this.#output.u8((small & 0x7f) | 0x80);
      small >>>= 7;
    }
    this.#output.u8(small);
    return this;
  }
}
