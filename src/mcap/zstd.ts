/** Decompresses Zstandard (RFC 8878) into bounded memory. */
import { unreadable } from "./cursor.ts";

/** Size limit of a decompressed chunk in bytes. Libraries write chunks of 1 to 8 MiB. */
export const maxDecompressedBytes = 64 << 20;

const frameMagic = 0xfd2f_b528;

/** Frames that decoders skip have magic numbers from 0x184D2A50 to 0x184D2A5F. */
const skippableMagic = 0x0184_d2a5;

/** A block never expands to more (RFC 8878, section 3.1.1.2.4). */
const maxBlockBytes = 128 << 10;

const BlockType = { raw: 0, repeated: 1, compressed: 2 } as const;

/**
 * Returns the decompressed bytes.
 *
 * @param size bytes that the result must have
 * @throws {FramesError} `unreadable` if it is no Zstandard, or has another size
 */
export function decompressZstd(compressed: Uint8Array, size: number): Uint8Array {
  // Checked before, because a few bytes may expand to gigabytes.
  const bound = maxOutputBytes(compressed);
  if (size > maxDecompressedBytes || bound > maxDecompressedBytes + maxBlockBytes) {
    throw unreadable(
      `it has ${Math.max(size, bound)} bytes decompressed, the limit is ${maxDecompressedBytes}`,
    );
  }
  let bytes: Uint8Array;
  try {
    bytes = Bun.zstdDecompressSync(compressed);
  } catch {
    throw unreadable("it cannot be decompressed");
  }
  if (bytes.length !== size) {
    throw unreadable(`it has ${bytes.length} bytes decompressed, ${size} were announced`);
  }
  return bytes;
}

/** Returns a size that the decompressed bytes cannot exceed, from the heads of the blocks. */
function maxOutputBytes(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let total = 0;
  let at = 0;
  try {
    while (at < bytes.length) {
      const magic = view.getUint32(at, true);
      if (magic >>> 4 === skippableMagic) {
        at += 8 + view.getUint32(at + 4, true);
        continue;
      }
      if (magic !== frameMagic) throw unreadable("it cannot be decompressed");
      const header = readFrameHeader(view, at);
      const blocks = addBlocks(view, at + header.length);
      // A decoder may allocate the size that the frame announces.
      total += Math.max(blocks.maxBytes, header.contentSize);
      at = blocks.end + (header.hasChecksum ? 4 : 0);
    }
  } catch {
    throw unreadable("it cannot be decompressed");
  }
  return total;
}

/** Reads the head of a frame (RFC 8878, section 3.1.1.1). */
function readFrameHeader(
  view: DataView,
  start: number,
): { length: number; contentSize: number; hasChecksum: boolean } {
  const descriptor = view.getUint8(start + 4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const sizeAt = start + 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  return {
    length: sizeAt + sizeBytes - start,
    contentSize: readContentSize(view, sizeAt, sizeBytes),
    hasChecksum: (descriptor & 4) !== 0,
  };
}

function readContentSize(view: DataView, at: number, count: number): number {
  switch (count) {
    case 1:
      return view.getUint8(at);
    case 2:
      return view.getUint16(at, true) + 256;
    case 4:
      return view.getUint32(at, true);
    case 8:
      return Number(view.getBigUint64(at, true));
    default:
      return 0;
  }
}

function addBlocks(view: DataView, start: number): { maxBytes: number; end: number } {
  let maxBytes = 0;
  let at = start;
  for (;;) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const type = (header >> 1) & 3;
    const size = header >> 3;
    maxBytes += type === BlockType.compressed ? maxBlockBytes : size;
    at += 3 + (type === BlockType.repeated ? 1 : size);
    if ((header & 1) !== 0) return { maxBytes, end: at };
  }
}
