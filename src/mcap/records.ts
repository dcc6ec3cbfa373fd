/** The records of MCAP, and how their parts become bytes: https://mcap.dev/spec */

/** First and last bytes of a file. */
export const magic = new Uint8Array([0x89, 0x4d, 0x43, 0x41, 0x50, 0x30, 0x0d, 0x0a]);

export const Opcode = {
  header: 0x01,
  footer: 0x02,
  schema: 0x03,
  channel: 0x04,
  message: 0x05,
  chunk: 0x06,
  messageIndex: 0x07,
  chunkIndex: 0x08,
  statistics: 0x0b,
  metadata: 0x0c,
  metadataIndex: 0x0d,
  summaryOffset: 0x0e,
  dataEnd: 0x0f,
} as const;

/** Bytes of opcode and length before the content of a record. */
export const recordHeadBytes = 9;

/** Bytes of a Message record before its data. */
export const messageHeadBytes = 31;

/** Bytes of an uncompressed Chunk record before the records in it. */
export const chunkHeadBytes = 49;

/** Bytes of the Footer record, whose length never changes. */
export const footerBytes = 29;

const encoder = new TextEncoder();

/** Builds a sequence of records. */
export class RecordWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  /** @param capacity bytes to reserve; it grows when more are written */
  constructor(capacity = 1024) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get length(): number {
    return this.#length;
  }

  /** Returns what was written, valid until the next call of another method. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Forgets everything behind the first `length` bytes. */
  cut(length: number): void {
    this.#length = length;
  }

  u8(value: number): this {
    this.reserve(1);
    this.#bytes[this.#length++] = value;
    return this;
  }

  u16(value: number): this {
    this.reserve(2);
    this.#view.setUint16(this.#length, value, true);
    this.#length += 2;
    return this;
  }

  u32(value: number): this {
    this.reserve(4);
    this.#view.setUint32(this.#length, value, true);
    this.#length += 4;
    return this;
  }

  u64(value: bigint | number): this {
    this.reserve(8);
    this.#view.setBigUint64(this.#length, BigInt(value), true);
    this.#length += 8;
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  text(value: string): this {
    const bytes = encoder.encode(value);
    return this.u32(bytes.length).raw(bytes);
  }

  /** Writes a map from text to text. */
  map(entries: Readonly<Record<string, string>>): this {
    return this.#sized(4, () => {
      for (const [key, value] of Object.entries(entries)) this.text(key).text(value);
    });
  }

  /** Writes what `write` does, as a list or map with its length in bytes. */
  list(write: () => void): this {
    return this.#sized(4, write);
  }

  /** Writes a record whose content `write` writes. */
  record(opcode: number, write: () => void): this {
    this.u8(opcode);
    return this.#sized(8, write);
  }

  /** Replaces four bytes that were written before. */
  patchU32(position: number, value: number): void {
    this.#view.setUint32(position, value, true);
  }

  #sized(lengthBytes: 4 | 8, write: () => void): this {
    const start = this.#length;
    this.reserve(lengthBytes);
    this.#length += lengthBytes;
    write();
    const length = this.#length - start - lengthBytes;
    if (lengthBytes === 4) this.#view.setUint32(start, length, true);
    else this.#view.setBigUint64(start, BigInt(length), true);
    return this;
  }

  /** Makes room for `count` more bytes. */
  reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count));
    grown.set(this.bytes);
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}
