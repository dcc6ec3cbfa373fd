/**
 * Writes frames as an MCAP file: uncompressed chunks with their indexes, and a summary at the end.
 * Memory is bounded: one chunk, and the index of the chunks.
 */
import { crc32 } from "../common/checksum.ts";
import { FramesError, usageError } from "../errors.ts";
import { combineCrc32 } from "./crc32-combine.ts";
import { encodeFrame, formatShape, type RecordedFrame } from "./frame-message.ts";
import {
  chunkHeadBytes,
  magic,
  messageHeadBytes,
  Opcode,
  recordHeadBytes,
  RecordWriter,
} from "./records.ts";
import { schemaData, type SchemaName } from "./schemas.ts";
import { SummaryWriter } from "./summary-writer.ts";

/** Takes the bytes of a file. */
export interface McapOutput {
  /** Appends bytes, which are valid until the call returns. */
  append(bytes: Uint8Array): void;
  /** Replaces bytes that were appended before. Not called for frames with a known CRC-32. */
  patch(position: number, bytes: Uint8Array): void;
  /** Removes everything behind the first `length` bytes, because a frame was discarded. */
  cut(length: number): void;
}

export interface McapWriterOptions {
  /** Name and version of the software, for messages of readers. */
  readonly library: string;
  /** Name of the stream that the frames belong to. */
  readonly stream: string;
}

/** Name of the Metadata record by which a file of ours is known. */
export const recordingMetadata = "frames";

/** Name of the Metadata record that describes the message before it, of a frame of 2 GiB or more. */
export const largeFrameMetadata = "frames.frame";

/** Message encoding of a channel whose messages are the bytes of frames. */
export const bareFrameEncoding = "frames";

/** Bytes of a chunk: the default of other libraries, and a limit for files with many chunks. */
const minChunkBytes = 1 << 20;
const maxChunkBytes = 16 << 20;

/** The index may take 8 times the bytes of a chunk. That is 40 MB for a file of 1 TB. */
const indexChunks = 8;

/** MCAP numbers channels with 16 bits. */
const maxChannels = 65_535;

/** Position of the checksum in a Chunk record. */
const chunkCrcPosition = recordHeadBytes + 24;

/** The frame that is being written. */
interface OpenFrame {
  readonly frame: RecordedFrame;
  readonly channel: number;
  readonly time: bigint;
  /** Length of the chunk before the frame, or position of its own chunk. */
  readonly start: number;
  /** Position of its CRC-32 in the chunk or the file; undefined if the message has none. */
  readonly crcPosition: number | undefined;
  /** Chunk of its own, if the frame is large. */
  readonly own: { readonly head: Uint8Array; readonly crcOffset: number | undefined } | undefined;
  remaining: number;
}

export class McapWriter {
  readonly #output: McapOutput;
  readonly #summary = new SummaryWriter();
  readonly #channels = new Map<string, number>();
  readonly #schemas = new Map<SchemaName, number>();
  #chunk = new RecordWriter(minChunkBytes + (64 << 10));
  /** Times and positions of the messages in the chunk, by channel. */
  readonly #index = new Map<number, [time: bigint, offset: number][]>();
  #startTime = 0n;
  #endTime = 0n;
  /** Bytes appended to the output. */
  #position = 0;
  #open: OpenFrame | undefined;

  constructor(output: McapOutput, { library, stream }: McapWriterOptions) {
    this.#output = output;
    const head = new RecordWriter();
    head.raw(magic).record(Opcode.header, () => head.text("").text(library));
    this.#append(head.bytes);
    this.#startChunk();
    this.addMetadata(recordingMetadata, { stream });
  }

  /** Bytes of the file so far, without the end that `end` adds. */
  get size(): number {
    return this.#position + this.#chunk.length;
  }

  /** Frames written. */
  get frames(): number {
    return this.#summary.messages;
  }

  /**
   * Begins a frame. Only one can be open.
   *
   * @throws {FramesError} `usage` if the file would have too many sources
   */
  begin(frame: RecordedFrame): void {
    const message = encodeFrame(frame);
    const channel = this.#channelFor(frame.source, message?.schema);
    const head = message?.head ?? new Uint8Array(0);
    const length = messageHeadBytes + head.length + frame.size;
    const time = frame.captured < 0n ? 0n : frame.captured;
    const isLarge = length > this.#chunkBytes;
    if (isLarge || this.#chunk.length - chunkHeadBytes + length > this.#chunkBytes) {
      this.#flushChunk();
    }
    const target = isLarge ? new RecordWriter(chunkHeadBytes + messageHeadBytes) : this.#chunk;
    if (isLarge) writeChunkHead(target, length, time, time);
    const start = isLarge ? this.#position : target.length;
    target
      .u8(Opcode.message)
      .u64(length - recordHeadBytes)
      .u16(channel)
      .u32(frame.sequence % 2 ** 32)
      .u64(time)
      .u64(time)
      .raw(head);
    const crcPosition = message && target.length - head.length + message.crcPosition;
    const open = { frame, channel, time, remaining: frame.size };
    if (!isLarge) {
      this.#open = { ...open, start, crcPosition, own: undefined };
      return;
    }
    if (frame.crc32 !== undefined) {
      const recordsCrc = combineCrc32(
        crc32(target.bytes.subarray(chunkHeadBytes)),
        frame.crc32,
        frame.size,
      );
      target.patchU32(chunkCrcPosition, recordsCrc);
    }
    const own = { head: target.bytes, crcOffset: crcPosition };
    this.#append(target.bytes);
    this.#open = {
      ...open,
      start,
      crcPosition: crcPosition === undefined ? undefined : start + crcPosition,
      own,
    };
  }

  /** Writes the next bytes of the open frame. */
  write(bytes: Uint8Array): void {
    const open = this.#opened();
    open.remaining -= bytes.length;
    if (open.remaining < 0) throw new FramesError("internal");
    if (open.own === undefined) this.#chunk.raw(bytes);
    else this.#append(bytes);
  }

  /**
   * Completes the open frame.
   *
   * @param checksum CRC-32 of its bytes
   * @throws {FramesError} `damaged` if the frame was said to have another one
   */
  finish(checksum: number): void {
    const open = this.#opened();
    const { frame, channel, time, start, crcPosition, own } = open;
    if (open.remaining !== 0) throw new FramesError("internal");
    if (frame.crc32 !== undefined && frame.crc32 !== checksum) throw new FramesError("damaged");
    this.#open = undefined;
    if (own === undefined) {
      this.#chunk.patchU32(crcPosition!, checksum);
      this.#addToIndex(channel, time, start - chunkHeadBytes);
    } else {
      if (frame.crc32 === undefined) this.#patchLarge(open, own, checksum);
      this.#addToIndex(channel, time, 0);
      this.#finishChunk(start, this.#position - start);
      this.#startChunk();
      if (crcPosition === undefined) this.addMetadata(largeFrameMetadata, factsOf(frame, checksum));
    }
    this.#summary.addMessage(channel, time);
  }

  /** Removes the open frame. */
  discard(): void {
    const { start, own } = this.#opened();
    this.#open = undefined;
    if (own === undefined) return this.#chunk.cut(start);
    this.#output.cut(start);
    this.#position = start;
  }

  /** Writes the last chunk, the summary and the end of the file. */
  end(): void {
    if (this.#open !== undefined) throw new FramesError("internal");
    this.#flushChunk();
    this.#summary.finish(this.#position, (bytes) => this.#append(bytes));
  }

  #opened(): OpenFrame {
    if (this.#open === undefined) throw new FramesError("internal");
    return this.#open;
  }

  /** Target size of a chunk. It grows with the index, so that the index stays small. */
  get #chunkBytes(): number {
    const forIndex = Math.floor(this.#summary.indexBytes / indexChunks);
    return Math.min(maxChunkBytes, Math.max(minChunkBytes, forIndex));
  }

  #append(bytes: Uint8Array): void {
    this.#output.append(bytes);
    this.#position += bytes.length;
  }

  /** Returns the channel of a source and schema. Writes its record if it is new. */
  #channelFor(source: string, schema: SchemaName | undefined): number {
    const key = `${schema ?? ""} ${source}`;
    const known = this.#channels.get(key);
    if (known !== undefined) return known;
    const id = this.#channels.size + 1;
    if (id > maxChannels) {
      throw usageError(
        `Cannot write more than ${maxChannels} sources to one MCAP file: choose some with --source NAME`,
      );
    }
    this.#flushChunk();
    const schemaId = schema === undefined ? 0 : this.#schemaFor(schema);
    const record = new RecordWriter();
    record.record(Opcode.channel, () => {
      const encoding = schema === undefined ? bareFrameEncoding : "protobuf";
      record.u16(id).u16(schemaId).text(`/${source}`).text(encoding).map({});
    });
    this.#append(record.bytes);
    this.#summary.addChannel(record.bytes);
    this.#channels.set(key, id);
    return id;
  }

  #schemaFor(name: SchemaName): number {
    const known = this.#schemas.get(name);
    if (known !== undefined) return known;
    const id = this.#schemas.size + 1;
    const data = schemaData(name);
    const record = new RecordWriter();
    record.record(Opcode.schema, () => {
      record.u16(id).text(name).text("protobuf").u32(data.length).raw(data);
    });
    this.#append(record.bytes);
    this.#summary.addSchema(record.bytes);
    this.#schemas.set(name, id);
    return id;
  }

  /** Writes a Metadata record. No frame can be open. */
  addMetadata(name: string, entries: Readonly<Record<string, string>>): void {
    this.#flushChunk();
    const record = new RecordWriter();
    record.record(Opcode.metadata, () => record.text(name).map(entries));
    this.#summary.addMetadata(name, this.#position, record.length);
    this.#append(record.bytes);
  }

  #addToIndex(channel: number, time: bigint, offset: number): void {
    if (this.#index.size === 0 || time < this.#startTime) this.#startTime = time;
    if (this.#index.size === 0 || time > this.#endTime) this.#endTime = time;
    this.#index.getOrInsertComputed(channel, () => []).push([time, offset]);
  }

  #startChunk(): void {
    this.#index.clear();
    this.#chunk.cut(0);
    writeChunkHead(this.#chunk, 0, 0n, 0n);
  }

  /** Writes the chunk, if it has messages. */
  #flushChunk(): void {
    if (this.#index.size === 0) return;
    const chunk = this.#chunk;
    const length = chunk.length;
    chunk.cut(0);
    writeChunkHead(chunk, length - chunkHeadBytes, this.#startTime, this.#endTime);
    chunk.cut(length);
    chunk.patchU32(chunkCrcPosition, crc32(chunk.bytes.subarray(chunkHeadBytes)));
    // A reader may lose a chunk without its indexes, so they are written together.
    this.#finishChunk(this.#position, length);
    this.#startChunk();
  }

  /**
   * Writes the indexes of a chunk, behind the chunk's own bytes if these are in the buffer.
   *
   * @param position of the Chunk record in the file
   * @param length of the Chunk record
   */
  #finishChunk(position: number, length: number): void {
    const isBuffered = this.#position === position;
    const writer = isBuffered ? this.#chunk : new RecordWriter();
    const from = isBuffered ? position : this.#position;
    const before = isBuffered ? length : 0;
    const messageIndexes = new Map<number, number>();
    for (const [channel, entries] of this.#index) {
      messageIndexes.set(channel, from + writer.length);
      writer.record(Opcode.messageIndex, () => {
        writer.u16(channel).list(() => {
          for (const [time, offset] of entries) writer.u64(time).u64(offset);
        });
      });
    }
    this.#summary.addChunk({
      startTime: this.#startTime,
      endTime: this.#endTime,
      position,
      length,
      recordsLength: length - chunkHeadBytes,
      messageIndexes,
      messageIndexLength: writer.length - before,
    });
    this.#append(writer.bytes);
  }

  /** Writes the checksums of a large frame and its chunk, which were not known before. */
  #patchLarge(
    { start, crcPosition, frame }: OpenFrame,
    { head, crcOffset }: NonNullable<OpenFrame["own"]>,
    checksum: number,
  ): void {
    const view = new DataView(head.buffer, head.byteOffset, head.length);
    if (crcOffset !== undefined) {
      view.setUint32(crcOffset, checksum, true);
      this.#output.patch(crcPosition!, head.subarray(crcOffset, crcOffset + 4));
    }
    const recordsCrc = combineCrc32(crc32(head.subarray(chunkHeadBytes)), checksum, frame.size);
    view.setUint32(chunkCrcPosition, recordsCrc, true);
    this.#output.patch(
      start + chunkCrcPosition,
      head.subarray(chunkCrcPosition, chunkCrcPosition + 4),
    );
  }
}

/** Writes a Chunk record up to its records. Its checksum is filled in later. */
function writeChunkHead(
  writer: RecordWriter,
  recordsLength: number,
  startTime: bigint,
  endTime: bigint,
): void {
  writer
    .u8(Opcode.chunk)
    .u64(chunkHeadBytes - recordHeadBytes + recordsLength)
    .u64(startTime)
    .u64(endTime)
    .u64(recordsLength)
    .u32(0)
    .text("")
    .u64(recordsLength);
}

/** Returns what a message says of a frame, as the entries of a Metadata record. */
function factsOf(frame: RecordedFrame, checksum: number): Record<string, string> {
  const { name, sequence, session, captured, metadata, received, raw } = frame;
  return {
    name,
    number: String(sequence),
    session,
    captured: String(captured),
    crc32: checksum.toString(16).padStart(8, "0"),
    metadata,
    received: String(received ?? 0n),
    ...(raw === undefined ? {} : { raw: formatShape(raw) }),
  };
}
