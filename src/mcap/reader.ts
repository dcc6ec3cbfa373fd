/**
 * Reads any MCAP file from its beginning: with or without index, chunked or not, complete or cut off.
 * What cannot be read is reported, and the rest is read.
 */
import { crc32 } from "../common/checksum.ts";
import { FramesError } from "../errors.ts";
import {
  Cursor,
  maxPartBytes,
  type McapInput,
  memoryInput,
  readRegion,
  type Region,
  unreadable,
} from "./cursor.ts";
import { magic, Opcode, recordHeadBytes } from "./records.ts";
import { readSummary } from "./summary.ts";
import { decompressZstd, maxDecompressedBytes } from "./zstd.ts";

/** Definition of the messages of a channel. */
export interface McapSchema {
  readonly name: string;
  readonly encoding: string;
  readonly data: Uint8Array;
}

/** Messages of one topic in one encoding. */
export interface McapChannel {
  readonly id: number;
  readonly topic: string;
  readonly messageEncoding: string;
  /** Undefined if the channel has none. */
  readonly schema: McapSchema | undefined;
}

/** A Chunk record. Positions are in bytes of the file. */
export interface McapChunk {
  readonly position: number;
  /** Its records, compressed as `compression` says. */
  readonly records: Region;
  readonly compression: string;
  readonly uncompressedSize: number;
  /** CRC-32 of the decompressed records; 0 if there is none. */
  readonly crc32: number;
}

export interface McapMessage {
  readonly channel: McapChannel;
  readonly sequence: number;
  /** Nanoseconds since 1970. */
  readonly logTime: bigint;
  readonly data: Region;
  /** Position of the record in the input of `data`. */
  readonly position: number;
  readonly chunk: McapChunk | undefined;
}

/** What a file has, in order. */
export type McapEvent =
  | { readonly type: "message"; readonly message: McapMessage }
  | {
      readonly type: "metadata";
      readonly name: string;
      readonly entries: ReadonlyMap<string, string>;
    }
  /** Something at a byte of the file that could not be read; what follows it may be read. */
  | { readonly type: "problem"; readonly position: number; readonly message: string };

/** A record inside an input. */
interface McapRecord {
  readonly opcode: number;
  readonly position: number;
  readonly content: Region;
}

/** A channel, and whether the file defines its id twice. */
interface KnownChannel extends McapChannel {
  readonly fingerprint: number;
  isContradicted: boolean;
}

export class McapReader {
  readonly #input: McapInput;
  readonly #schemas = new Map<number, McapSchema & { readonly fingerprint: number }>();
  readonly #channels = new Map<number, KnownChannel>();
  /** Bytes of the definitions of schemas and channels, which stay in memory. */
  #definitionBytes = 0;

  /** @throws {FramesError} `unreadable` if it does not begin as an MCAP file */
  constructor(input: McapInput) {
    this.#input = input;
    const start = new Uint8Array(magic.length);
    if (input.read(0, start) < start.length || start.some((byte, at) => byte !== magic[at])) {
      throw unreadable("it is no MCAP file");
    }
  }

  /** Reads the file from the beginning. */
  *read(): Generator<McapEvent, void> {
    let position = magic.length;
    for (;;) {
      const end: { reason: string | undefined } = { reason: undefined };
      position = yield* this.#readRecords(position, end);
      if (end.reason === undefined) return;
      // Behind a part that cannot be read, the index may tell where the next chunk is.
      const next = this.#nextIndexedChunk(position);
      const skipped =
        next === undefined ? "the rest is left out" : `what lies before byte ${next} is left out`;
      yield { type: "problem", position, message: `${end.reason}; ${skipped}` };
      if (next === undefined) return;
      position = next;
    }
  }

  /**
   * Returns the message at a position that `read` gave. Its chunk must be decompressed if it is
   * compressed.
   *
   * @throws {FramesError} `unreadable` if the file has changed
   */
  messageAt(input: McapInput, position: number, chunk: McapChunk | undefined): McapMessage {
    const length = input.size - position;
    const cursor = new Cursor({ input, position, length });
    const opcode = cursor.u8();
    const content = cursor.region(cursor.length());
    const message = this.#message({ opcode, position, content }, chunk);
    if (opcode !== Opcode.message || message === undefined) throw unreadable("it has changed");
    return message;
  }

  /** Reads the messages of a chunk again. */
  *messagesIn(chunk: McapChunk): Generator<McapMessage, void> {
    const cursor = new Cursor(chunk.records);
    while (cursor.remaining > 0) {
      const position = cursor.position;
      const opcode = cursor.u8();
      const content = cursor.region(cursor.length());
      if (opcode !== Opcode.message) continue;
      const message = this.#message({ opcode, position, content }, chunk);
      if (message !== undefined) yield message;
    }
  }

  /**
   * Reads records of the data section.
   *
   * @param end gets the reason if they end before the section does
   * @returns position behind the last record
   */
  *#readRecords(start: number, end: { reason: string | undefined }): Generator<McapEvent, number> {
    const input = this.#input;
    const cursor = new Cursor({ input, position: start, length: input.size - start });
    for (;;) {
      const position = cursor.position;
      if (cursor.remaining < recordHeadBytes) {
        end.reason = "the file ends without its last record";
        return position;
      }
      const opcode = cursor.u8();
      const length = cursor.length();
      if (opcode === Opcode.dataEnd || opcode === Opcode.footer) return position;
      if (opcode === 0) {
        end.reason = "there is no record";
        return position;
      }
      const isTorn = length > cursor.remaining;
      const content = cursor.region(Math.min(length, cursor.remaining));
      try {
        if (opcode === Opcode.chunk) yield* this.#readChunk(position, content);
        else if (!isTorn) yield* this.#readRecord({ opcode, position, content }, undefined);
      } catch (error) {
        yield problem(position, error);
      }
      if (isTorn) {
        end.reason = `a record has ${length} bytes, more than the file`;
        return position;
      }
    }
  }

  *#readRecord(record: McapRecord, chunk: McapChunk | undefined): Generator<McapEvent, void> {
    const { opcode, content, position } = record;
    switch (opcode) {
      case Opcode.schema:
        return this.#addSchema(content);
      case Opcode.channel:
        return this.#addChannel(content);
      case Opcode.message: {
        const message = this.#message(record, chunk);
        const isKnown = message !== undefined && !message.channel.isContradicted;
        if (isKnown) return yield { type: "message", message };
        const id = new Cursor(content).u16();
        throw unreadable(`it is a message of channel ${id}, which is not defined or defined twice`);
      }
      case Opcode.metadata:
        // Not allowed in chunks, and of no use there.
        if (chunk === undefined) yield { type: "metadata", ...readMetadata(content) };
        return;
      case Opcode.chunk:
        throw unreadable(`it is a chunk inside a chunk, at byte ${position}`);
      default:
      // Records of other kinds, also unknown ones, are no frames.
    }
  }

  *#readChunk(position: number, content: Region): Generator<McapEvent, void> {
    const cursor = new Cursor(content);
    cursor.skip(16);
    const uncompressedSize = cursor.length();
    const crc = cursor.u32();
    const compression = cursor.text();
    const length = cursor.length();
    // The records of a file that was cut off are read as far as they go.
    const isTorn = length > cursor.remaining;
    const records = cursor.region(Math.min(length, cursor.remaining));
    const chunk = { position, records, compression, uncompressedSize, crc32: isTorn ? 0 : crc };
    if (compression !== "" && isTorn) throw unreadable("the chunk is cut off and compressed");
    const inside = new Cursor(compression === "" ? records : memoryRegion(decompressChunk(chunk)));
    while (inside.remaining > 0) {
      const position = inside.position;
      const opcode = inside.u8();
      const content = inside.region(inside.length());
      yield* this.#readRecord({ opcode, position, content }, chunk);
    }
  }

  /** Returns undefined if its channel is unknown. */
  #message({ content, position }: McapRecord, chunk: McapChunk | undefined) {
    const cursor = new Cursor(content);
    const channel = this.#channels.get(cursor.u16());
    if (channel === undefined) return undefined;
    const sequence = cursor.u32();
    const logTime = cursor.u64();
    cursor.skip(8);
    const data = cursor.region(cursor.remaining);
    return { channel, sequence, logTime, data, position, chunk };
  }

  #addSchema(content: Region): void {
    const fingerprint = this.#fingerprint(content);
    const cursor = new Cursor(content);
    const id = cursor.u16();
    const known = this.#schemas.get(id);
    if (known?.fingerprint === fingerprint) return;
    if (known !== undefined) throw unreadable(`it defines schema ${id} again with other contents`);
    const schema = {
      name: cursor.text(),
      encoding: cursor.text(),
      data: cursor.bytes(cursor.u32()),
    };
    this.#countDefinition(content.length);
    this.#schemas.set(id, { ...schema, fingerprint });
  }

  #addChannel(content: Region): void {
    const fingerprint = this.#fingerprint(content);
    const cursor = new Cursor(content);
    const id = cursor.u16();
    const known = this.#channels.get(id);
    if (known?.fingerprint === fingerprint) return;
    if (known !== undefined) {
      known.isContradicted = true;
      throw unreadable(`it defines channel ${id} again with other contents`);
    }
    const schemaId = cursor.u16();
    const schema = this.#schemas.get(schemaId);
    if (schemaId !== 0 && schema === undefined) {
      throw unreadable(`channel ${id} has the schema ${schemaId}, which is not defined`);
    }
    const channel = { id, topic: cursor.text(), messageEncoding: cursor.text(), schema };
    this.#countDefinition(content.length);
    this.#channels.set(id, { ...channel, fingerprint, isContradicted: false });
  }

  /** Returns a checksum by which two definitions of an id are compared. */
  #fingerprint(content: Region): number {
    if (content.length > maxPartBytes) throw unreadable(`it has ${content.length} bytes`);
    return crc32(readRegion(content));
  }

  #countDefinition(bytes: number): void {
    this.#definitionBytes += bytes;
    if (this.#definitionBytes <= maxDefinitionBytes) return;
    throw unreadable(`the definitions of channels have more than ${maxDefinitionBytes} bytes`);
  }

  /** Returns the position of the first chunk behind `position` that the index names. */
  #nextIndexedChunk(position: number): number | undefined {
    const chunks = readSummary(this.#input)?.chunks ?? [];
    const later = chunks.filter((chunk) => chunk.position > position);
    return later.reduce<number | undefined>(
      (first, chunk) => Math.min(first ?? Infinity, chunk.position),
      undefined,
    );
  }
}

/** Limit of the definitions that a file keeps in memory. */
const maxDefinitionBytes = 16 << 20;

/**
 * Returns the records of a compressed chunk.
 *
 * @throws {FramesError} `unreadable`
 */
export function decompressChunk({ compression, records, ...chunk }: McapChunk): Uint8Array {
  if (compression !== "zstd") {
    const hint = compression === "lz4" ? "" : ", which is unknown";
    throw unreadable(
      `the chunk is compressed with ${compression.slice(0, 20)}${hint}; convert the file with mcap decompress`,
    );
  }
  if (records.length > maxDecompressedBytes) {
    throw unreadable(`the chunk has ${records.length} bytes, the limit is ${maxDecompressedBytes}`);
  }
  const bytes = decompressZstd(readRegion(records), chunk.uncompressedSize);
  if (chunk.crc32 !== 0 && crc32(bytes) !== chunk.crc32) {
    throw unreadable("the chunk has another checksum than it was written with");
  }
  return bytes;
}

function memoryRegion(bytes: Uint8Array): Region {
  return { input: memoryInput(bytes), position: 0, length: bytes.length };
}

function readMetadata(content: Region): { name: string; entries: ReadonlyMap<string, string> } {
  const cursor = new Cursor(content);
  const name = cursor.text();
  const end = cursor.u32() + cursor.position;
  const entries = new Map<string, string>();
  while (cursor.position < end) entries.set(cursor.text(), cursor.text());
  return { name, entries };
}

function problem(position: number, error: unknown): McapEvent {
  if (!(error instanceof FramesError) || error.code !== "unreadable") throw error;
  return { type: "problem", position, message: error.message };
}
