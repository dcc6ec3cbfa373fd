/** Collects what the summary of a file says about its data, and writes it. */
import { crc32 } from "../common/checksum.ts";
import { footerBytes, magic, Opcode, recordHeadBytes, RecordWriter } from "./records.ts";

/** A chunk that was written. Positions and lengths are in bytes of the file. */
export interface WrittenChunk {
  readonly startTime: bigint;
  readonly endTime: bigint;
  readonly position: number;
  /** Length of the Chunk record. */
  readonly length: number;
  readonly recordsLength: number;
  /** Position of the MessageIndex of each channel. */
  readonly messageIndexes: ReadonlyMap<number, number>;
  readonly messageIndexLength: number;
}

export class SummaryWriter {
  readonly #schemas = new RecordWriter();
  readonly #channels = new RecordWriter();
  readonly #chunks = new RecordWriter();
  readonly #metadata = new RecordWriter();
  readonly #messagesByChannel = new Map<number, number>();
  #schemaCount = 0;
  #channelCount = 0;
  #chunkCount = 0;
  #metadataCount = 0;
  #messages = 0;
  #startTime = 0n;
  #endTime = 0n;

  /** Messages so far. */
  get messages(): number {
    return this.#messages;
  }

  /** Bytes that the index of the chunks takes in memory. */
  get indexBytes(): number {
    return this.#chunks.length;
  }

  /** @param record the Schema record, repeated in the summary */
  addSchema(record: Uint8Array): void {
    this.#schemaCount++;
    this.#schemas.raw(record);
  }

  /** @param record the Channel record, repeated in the summary */
  addChannel(record: Uint8Array): void {
    this.#channelCount++;
    this.#channels.raw(record);
  }

  addMessage(channel: number, time: bigint): void {
    if (this.#messages === 0 || time < this.#startTime) this.#startTime = time;
    if (this.#messages === 0 || time > this.#endTime) this.#endTime = time;
    this.#messages++;
    this.#messagesByChannel.set(channel, (this.#messagesByChannel.get(channel) ?? 0) + 1);
  }

  addChunk(chunk: WrittenChunk): void {
    const { startTime, endTime, position, length, recordsLength } = chunk;
    this.#chunkCount++;
    this.#chunks.record(Opcode.chunkIndex, () => {
      this.#chunks
        .u64(startTime)
        .u64(endTime)
        .u64(position)
        .u64(length)
        .list(() => {
          for (const entry of chunk.messageIndexes) this.#chunks.u16(entry[0]).u64(entry[1]);
        })
        .u64(chunk.messageIndexLength)
        .text("")
        .u64(recordsLength)
        .u64(recordsLength);
    });
  }

  addMetadata(name: string, position: number, length: number): void {
    this.#metadataCount++;
    this.#metadata.record(Opcode.metadataIndex, () => {
      this.#metadata.u64(position).u64(length).text(name);
    });
  }

  /**
   * Writes the end of the file.
   *
   * @param position length of the file so far
   * @param append called with the parts in order
   */
  finish(position: number, append: (bytes: Uint8Array) => void): void {
    const dataEnd = new RecordWriter();
    // No library writes a checksum of the data; each chunk has one.
    dataEnd.record(Opcode.dataEnd, () => dataEnd.u32(0));
    append(dataEnd.bytes);
    const groups: readonly (readonly [opcode: number, records: RecordWriter])[] = [
      [Opcode.schema, this.#schemas],
      [Opcode.channel, this.#channels],
      [Opcode.statistics, this.#statistics()],
      [Opcode.chunkIndex, this.#chunks],
      [Opcode.metadataIndex, this.#metadata],
    ];
    const summaryStart = position + dataEnd.length;
    const tail = new RecordWriter();
    let checksum = 0;
    let at = summaryStart;
    for (const [opcode, records] of groups) {
      if (records.length === 0) continue;
      append(records.bytes);
      checksum = crc32(records.bytes, checksum);
      tail.record(Opcode.summaryOffset, () => tail.u8(opcode).u64(at).u64(records.length));
      at += records.length;
    }
    tail
      .u8(Opcode.footer)
      .u64(footerBytes - recordHeadBytes)
      .u64(summaryStart)
      .u64(at);
    tail.u32(crc32(tail.bytes, checksum)).raw(magic);
    append(tail.bytes);
  }

  #statistics(): RecordWriter {
    const writer = new RecordWriter();
    return writer.record(Opcode.statistics, () => {
      writer
        .u64(this.#messages)
        .u16(this.#schemaCount)
        .u32(this.#channelCount)
        .u32(0)
        .u32(this.#metadataCount)
        .u32(this.#chunkCount)
        .u64(this.#startTime)
        .u64(this.#endTime)
        .list(() => {
          for (const [channel, count] of this.#messagesByChannel) writer.u16(channel).u64(count);
        });
    });
  }
}
