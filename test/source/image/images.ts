// Hand-made images with the difficult features of each format, and helpers to split them.

import { expect } from "bun:test";
import { crc32 } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import {
  type LostImage,
  type SplitFrame,
  Splitter,
  type SplitterOptions,
} from "../../../src/source/image/splitter.ts";
import { encodePng } from "../../helper/png.ts";

/** Result of splitting an input. */
export interface Split {
  /** Frames before the first error. */
  readonly frames: SplitFrame[];
  /** The first error: that of a lost image, or the one that was thrown. */
  readonly error?: FramesError;
  /** Frames after the first error. */
  readonly later: SplitFrame[];
  /** All errors. */
  readonly errors: FramesError[];
}

/** Passes the chunks to a splitter and ends it. */
export function split(chunks: Iterable<Uint8Array>, options: Partial<SplitterOptions> = {}): Split {
  const splitter = new Splitter({ maxFrameBytes: 1 << 20, ...options });
  const [frames, later, errors]: [SplitFrame[], SplitFrame[], FramesError[]] = [[], [], []];
  const add = (item: SplitFrame | LostImage): void => {
    if ("error" in item) errors.push(item.error);
    else (errors.length === 0 ? frames : later).push(item);
  };
  try {
    for (const chunk of chunks) {
      // A copy that is overwritten afterwards, because the splitter must not keep a reference.
      const lent = new Uint8Array(chunk);
      for (const item of splitter.push(lent)) add(item);
      lent.fill(0xaa);
    }
    for (const item of splitter.end()) add(item);
  } catch (error) {
    if (!(error instanceof FramesError)) throw error;
    errors.push(error);
  }
  const [error] = errors;
  return { frames, later, errors, ...(error === undefined ? {} : { error }) };
}

/** Returns the frames that a splitter finds in undamaged input. */
export function framesIn(input: Uint8Array): SplitFrame[] {
  const { frames, error } = split([input], { maxFrameBytes: 64 << 20 });
  if (error !== undefined) throw error;
  return frames;
}

/** Splits bytes into pieces of this size. */
export function* pieces(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Returns a line for each frame: its extension and bytes. */
export function linesOf(frames: readonly SplitFrame[]): string[] {
  return frames.map(({ extension, bytes }) => `${extension} ${bytes.toHex()}`);
}

export function ascii(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "latin1"));
}

export function join(...parts: (Uint8Array | readonly number[] | string)[]): Uint8Array {
  return new Uint8Array(
    Buffer.concat(
      parts.map((part) => (typeof part === "string" ? ascii(part) : Uint8Array.from(part))),
    ),
  );
}

/** Returns the number of frames before the error, its code and its message. */
export function complaint(input: Uint8Array, largest?: number): [number, string, string] {
  const options = largest === undefined ? {} : { maxFrameBytes: largest };
  const { frames, error } = split([input], options);
  if (error === undefined) throw new Error(`it gave ${frames.length} frames and no error`);
  // The error is the same for any chunk size, except how much of the input it quotes.
  const bare = (message: string | undefined) => message?.replace(/received .*/, "");
  for (const size of [1, 3]) {
    const again = split(pieces(input, size), options);
    expect(linesOf(again.frames)).toEqual(linesOf(frames));
    expect([again.error?.code, bare(again.error?.message)]).toEqual([
      error.code,
      bare(error.message),
    ]);
  }
  expect(error.exitCode).toBe(23);
  // The message contains no terminal control characters.
  expect(error.message).toMatch(/^[\x20-\x7e]+$/);
  return [frames.length, error.code, error.message];
}

/** A PGM of four bytes. */
export const pgm: Uint8Array = ascii("P5 2 2 255\nabcd");

/** Builds a JPEG segment. */
export function segment(code: number, body: Uint8Array | readonly number[] | string): Uint8Array {
  const bytes = join(body);
  return join([0xff, code, (bytes.length + 2) >> 8, (bytes.length + 2) & 255], bytes);
}

const soi = [0xff, 0xd8];
const eoi = [0xff, 0xd9];
const scan = [1, 1, 0, 0, 0x3f, 0];
const size = [8, 0, 1, 0, 1, 1, 1, 0x11, 0];

/** A complete JPEG, used as a thumbnail that must be skipped. */
export const thumbnail: Uint8Array = join(soi, segment(0xda, scan), [1, 2, 3], eoi);

/** A JPEG with a thumbnail, stuffing, restarts and fill bytes, but no Huffman tables. */
export const baseline: Uint8Array = join(
  soi,
  segment(0xe1, join("Exif\0\0", thumbnail, thumbnail)),
  segment(0xfe, ""),
  [0xff, 0xff, 0xff],
  segment(0xc0, size),
  segment(0xda, scan),
  [1, 0xff, 0, 0xd9, 0xff, 0xd0, 2, 0xff, 0xd7, 0xff, 0, 0xff, 0xff, 0xd1, 0xff, 0, 0xd8],
  [0xff, 0xff, 0xff],
  eoi,
);

/** A JPEG of several scans, whose height follows the first scan, with tables between them. */
export const progressive: Uint8Array = join(
  soi,
  segment(0xc2, size),
  segment(0xda, scan),
  [0xff, 0, 0x55],
  segment(0xdc, [0, 1]),
  segment(0xc4, eoi),
  segment(0xda, scan),
  [0xff, 0, 0xff, 0],
  segment(0xda, scan),
  eoi,
);

/** A JPEG-LS, in whose scan data any byte below 80 may follow FF. */
export const jpegLs: Uint8Array = join(
  soi,
  segment(0xf7, size),
  segment(0xda, scan),
  [0xff, 0x7f, 0xff, 0x01, 0xff, 0x40, 9],
  eoi,
);

/** Builds a PNG chunk with its CRC-32. */
export function chunk(type: string, body: Uint8Array | readonly number[] | string): Uint8Array {
  const bytes = Buffer.from(join([0, 0, 0, 0], type, body, [0, 0, 0, 0]));
  bytes.writeUInt32BE(bytes.length - 12, 0);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, -4)), bytes.length - 4);
  return bytes;
}

export const pngSignature: readonly number[] = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
export const png: Uint8Array = encodePng({
  width: 3,
  height: 2,
  colour: "grey16",
  pixels: Uint8Array.from({ length: 12 }, (_, index) => index * 21),
});
/** A PNG that contains the end of another PNG. */
export const pngInPng: Uint8Array = join(
  pngSignature,
  chunk("IHDR", [0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]),
  chunk("teXt", join("IEND", [0xae, 0x42, 0x60, 0x82], pngSignature)),
  chunk("IDAT", ""),
  chunk("IEND", ""),
);

/** Header fields of a test BMP. */
export interface BmpFields {
  said?: number;
  information?: number;
  width?: number;
  height?: number;
  bits?: number;
  compression?: number;
  offset?: number;
  pixels?: number;
}

/** Builds a BMP of 3 x 2 pixels with 24 bits, changed by `fields`. */
export function bmp(fields: BmpFields = {}): Uint8Array {
  const { information = 40, width = 3, height = 2, bits = 24, compression = 0 } = fields;
  const { offset = 14 + information, pixels = 24 } = fields;
  const bytes = Buffer.alloc(14 + information + pixels, 0x42);
  bytes.write("BM", 0);
  bytes.writeUInt32LE(fields.said ?? bytes.length, 2);
  bytes.writeUInt32LE(offset, 10);
  bytes.writeUInt32LE(information, 14);
  if (information === 12) {
    for (const [index, value] of [width, height, 1, bits].entries()) {
      bytes.writeUInt16LE(value, 18 + 2 * index);
    }
    return bytes;
  }
  bytes.writeInt32LE(width, 18);
  bytes.writeInt32LE(height, 22);
  bytes.writeUInt16LE(1, 26);
  bytes.writeUInt16LE(bits, 28);
  if (information >= 20) bytes.writeUInt32LE(compression, 30);
  return bytes;
}

/** Images of all formats: name, extension and bytes. */
export const images: readonly (readonly [string, string, Uint8Array])[] = [
  ["a JPEG with a thumbnail", "jpg", baseline],
  ["a JPEG of several scans", "jpg", progressive],
  ["a JPEG-LS", "jpg", jpegLs],
  ["a PNG", "png", png],
  ["a PNG with a PNG in it", "png", pngInPng],
  ["a PBM", "pbm", join("P4\n# P5\n9 2\n", [0x50, 0x34, 0x0a, 0xff])],
  ["a PGM of one byte a sample", "pgm", join("P5 2\t2 255\n", [0, 10, 35, 0xff])],
  ["a PGM of two bytes a sample", "pgm", join("P5 # a\r1 2 # b\n65535\n", [0, 10, 35, 0xff])],
  ["a PGM whose comment ends its header", "pgm", join("P5#a\n1 1 2#55\n", [7])],
  ["a PPM", "ppm", join("P6\r\n1 2\r\n255\n", [1, 2, 3, 4, 5, 0])],
  ["a PPM of two bytes a sample", "ppm", join("P6 1 1 256 ", [1, 2, 3, 4, 5, 6])],
  [
    "a PAM",
    "pam",
    join(
      "P7\n#P7 WIDTH 9\nWIDTH 2\n\nHEIGHT  1 \r\nDEPTH 4\nMAXVAL 1000\nTUPLTYPE RGB_ALPHA\nENDHDR\n",
      new Uint8Array(16).fill(0x50),
    ),
  ],
  ["a grey PFM", "pfm", join("Pf\n2 1\n-1.0\n", [1, 2, 3, 4, 5, 6, 7, 8])],
  ["a PFM in colour", "pfm", join("PF\n1 1\n+.5e-3\n", new Uint8Array(12).fill(0x0a))],
  ["a PBM as text", "pbm", ascii("P1\n4 2\n10 1\n1#1\n0100\n")],
  ["a PGM as text", "pgm", ascii("P2\n2 2\n255\n0 10\n# 3\n255\t7  # the last\n")],
  ["a PPM as text", "ppm", ascii("P3 1 1 9\r\n1 2 3 \r\n")],
  ["a BMP", "bmp", bmp()],
  ["a BMP from the top down", "bmp", bmp({ height: -2, said: 0 })],
  ["a BMP of the first kind", "bmp", bmp({ information: 12 })],
  ["a BMP of OS/2", "bmp", bmp({ information: 16, said: 0 })],
  ["a BMP with masks", "bmp", bmp({ information: 124, bits: 16, compression: 3, pixels: 16 })],
  ["a BMP that is compressed", "bmp", bmp({ compression: 1, bits: 8, pixels: 5 })],
  [
    "a BMP of OS/2 that is compressed",
    "bmp",
    bmp({ information: 64, bits: 1, compression: 3, height: 100, pixels: 5 }),
  ],
  ["a BMP that does not say its size", "bmp", bmp({ said: 0 })],
  ["a BMP that says too small a size", "bmp", bmp({ said: 60 })],
  ["a BMP with more behind its pixels", "bmp", bmp({ pixels: 31 })],
];
