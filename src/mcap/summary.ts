/** Reads the summary at the end of a file: what it holds, and where. */
import { crc32 } from "../common/checksum.ts";
import { FramesError } from "../errors.ts";
import { Cursor, type McapInput, readRegion, type Region } from "./cursor.ts";
import { footerBytes, magic, Opcode, recordHeadBytes } from "./records.ts";

/** Where a chunk is. Positions and lengths are in bytes. */
export interface IndexedChunk {
  readonly position: number;
  readonly length: number;
  /** Times of its messages in nanoseconds since 1970. */
  readonly startTime: bigint;
  readonly endTime: bigint;
}

export interface McapSummary {
  /** Messages in the file, if it says so. */
  readonly messages: number | undefined;
  readonly chunks: readonly IndexedChunk[];
}

/** Limit of a summary that is read. One of 8 million chunks is larger, and no program writes that. */
const maxSummaryBytes = 256 << 20;

/** Bytes of a summary that are checked in one step. */
const checkBytes = 1 << 20;

/** Returns the summary, or undefined if the file has none or its checksum is wrong. */
export function readSummary(input: McapInput): McapSummary | undefined {
  try {
    return tryToRead(input);
  } catch (error) {
    if (error instanceof FramesError && error.code === "unreadable") return undefined;
    throw error;
  }
}

function tryToRead(input: McapInput): McapSummary | undefined {
  const footer = input.size - magic.length - footerBytes;
  if (footer < magic.length) return undefined;
  const cursor = new Cursor({ input, position: footer, length: footerBytes });
  const isFooter =
    cursor.u8() === Opcode.footer && cursor.length() === footerBytes - recordHeadBytes;
  if (!isFooter) return undefined;
  const start = cursor.length();
  cursor.skip(8);
  const crc = cursor.u32();
  const length = footer - start;
  if (start < magic.length || length < 0 || length > maxSummaryBytes) return undefined;
  // The checksum also covers the footer up to the checksum itself.
  const checked = { input, position: start, length: length + footerBytes - 4 };
  if (crc !== 0 && checksumOf(checked) !== crc) return undefined;
  return readRecords({ input, position: start, length });
}

function checksumOf({ input, position, length }: Region): number {
  let crc = 0;
  for (let at = 0; at < length; at += checkBytes) {
    const part = { input, position: position + at, length: Math.min(checkBytes, length - at) };
    crc = crc32(readRegion(part), crc);
  }
  return crc;
}

function readRecords(region: Region): McapSummary {
  const cursor = new Cursor(region);
  const chunks: IndexedChunk[] = [];
  let messages: number | undefined;
  while (cursor.remaining > 0) {
    const opcode = cursor.u8();
    const content = new Cursor(cursor.region(cursor.length()));
    if (opcode === Opcode.statistics) messages = content.length();
    if (opcode !== Opcode.chunkIndex) continue;
    const [startTime, endTime] = [content.u64(), content.u64()];
    chunks.push({ startTime, endTime, position: content.length(), length: content.length() });
  }
  return { messages, chunks };
}
