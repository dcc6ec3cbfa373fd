/**
 * Reads grey pictures that a browser cannot show as they are (PNG and PGM of 8 and 16 bits, raw grey) and finds the
 * range in which their values lie. Pure functions, without a page: the viewer's server uses them as well.
 */

/** How a raw frame lies in its bytes: `format` as ffmpeg names it. */
export interface GreyShape {
  readonly width: number;
  readonly height: number;
  readonly format: string;
}

/** A picture of one value for each pixel, row by row from the top. */
export interface GreyImage {
  readonly width: number;
  readonly height: number;
  readonly samples: Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
  /** The highest value that a sample can have. */
  readonly maximum: number;
}

/** Where the values of a picture lie, but for the few that are far out. `low` is below `high`. */
export interface GreyRange {
  readonly low: number;
  readonly high: number;
}

/** Kinds of pictures that `decodeGrey` reads. */
export type GreyKind = "png" | "pgm" | "raw";

/** Says what is wrong with a picture, in one sentence. */
export class GreyError extends Error {
  override readonly name = "GreyError";
}

/** Pixels that a picture may have: more than any camera's, and no more memory than a page can have. */
export const maxPixels = 2 ** 26;

const pngSignature = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** The signature and the first chunk, IHDR. */
const pngHeaderBytes = 33;
/** Deflate makes at most so many bytes of one. */
const maxDeflateRatio = 1032;

/** Bytes of a sample, and whether the higher one comes first, by ffmpeg's names. */
const rawGreyFormats = new Map<string, { bits: number; bigEndian: boolean }>([
  ["gray", { bits: 8, bigEndian: false }],
  ...[9, 10, 12, 14, 16].flatMap((bits) => [
    [`gray${bits}le`, { bits, bigEndian: false }] as const,
    [`gray${bits}be`, { bits, bigEndian: true }] as const,
  ]),
]);

/** Of what kind a frame is, by its first bytes and its shape; undefined if it is none that is read here. */
export function greyKind(bytes: Uint8Array, raw?: GreyShape | null): GreyKind | undefined {
  if (raw !== undefined && raw !== null) return rawGreyFormats.has(raw.format) ? "raw" : undefined;
  if (bytes.length > pngHeaderBytes && pngSignature.every((byte, index) => bytes[index] === byte)) {
    const [depth, colour, interlaced] = [bytes[24], bytes[25], bytes[28]];
    const isGrey = colour === 0 && (depth === 8 || depth === 16) && interlaced === 0;
    return isGrey ? "png" : undefined;
  }
  const isPgm = bytes[0] === 0x50 && (bytes[1] === 0x32 || bytes[1] === 0x35);
  return isPgm && isWhitespace(bytes[2]) ? "pgm" : undefined;
}

/**
 * Reads a grey picture.
 *
 * @throws {GreyError} if it is none, or not whole
 */
export async function decodeGrey(bytes: Uint8Array, raw?: GreyShape | null): Promise<GreyImage> {
  switch (greyKind(bytes, raw)) {
    case "png":
      return await decodePng(bytes);
    case "pgm":
      return decodePgm(bytes);
    case "raw":
      return decodeRaw(bytes, raw!);
    case undefined:
      throw new GreyError("This is no grey PNG, PGM or raw frame that can be shown");
  }
}

async function decodePng(bytes: Uint8Array): Promise<GreyImage> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  checkDimensions(width, height);
  const pixelBytes = bytes[24]! >> 3;
  const rowBytes = width * pixelBytes;
  const byteCount = (rowBytes + 1) * height;
  const chunks = idatChunks(bytes, view);
  const compressedBytes = chunks.reduce((sum, part) => sum + part.length, 0);
  // What cannot come of so little is not given room either.
  if (byteCount > compressedBytes * maxDeflateRatio) throw truncatedError("PNG", width, height);
  const rows = await inflate(chunks, byteCount);
  if (rows === undefined) throw truncatedError("PNG", width, height);
  const unfiltered = unfilter(rows, rowBytes, height, pixelBytes);
  return {
    width,
    height,
    samples: pixelBytes === 1 ? unfiltered : readSamples16(unfiltered, true),
    maximum: pixelBytes === 1 ? 0xff : 0xffff,
  };
}

/** The data of all IDAT chunks, up to the end or to what is missing. */
function idatChunks(bytes: Uint8Array, view: DataView): Uint8Array<ArrayBuffer>[] {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for (let at = pngSignature.length; at + 8 <= bytes.length;) {
    const length = view.getUint32(at);
    const type = view.getUint32(at + 4);
    const end = Math.min(at + 8 + length, bytes.length);
    // 0x49444154 is "IDAT".
    if (type === 0x49444154) {
      chunks.push(bytes.subarray(at + 8, end) as Uint8Array<ArrayBuffer>);
    }
    at = end + 4;
  }
  return chunks;
}

/** Exactly `size` bytes, or undefined if there are fewer or if they are damaged; more are not read. */
async function inflate(
  chunks: readonly Uint8Array<ArrayBuffer>[],
  byteCount: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const result = new Uint8Array(byteCount);
  let filled = 0;
  const reader = new Blob([...chunks])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"))
    .getReader();
  try {
    while (filled < byteCount) {
      const { done, value } = await reader.read();
      if (done) return undefined;
      result.set(value.subarray(0, byteCount - filled), filled);
      filled += value.length;
    }
    return result;
  } catch {
    // The checksum at the end may be wrong or missing while all rows are there.
    return filled >= byteCount ? result : undefined;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Takes the filters off all rows (PNG, section 9): each was applied to bytes, not to samples. */
function unfilter(
  rows: Uint8Array,
  rowBytes: number,
  height: number,
  pixelBytes: number,
): Uint8Array<ArrayBuffer> {
  const unfiltered = new Uint8Array(rowBytes * height);
  for (let y = 0; y < height; y++) {
    const from = y * (rowBytes + 1);
    const filter = rows[from]!;
    const row = unfiltered.subarray(y * rowBytes, (y + 1) * rowBytes);
    row.set(rows.subarray(from + 1, from + 1 + rowBytes));
    // Above the first row there are zeros.
    const above =
      y === 0 ? new Uint8Array(rowBytes) : unfiltered.subarray((y - 1) * rowBytes, y * rowBytes);
    unfilterRow(filter, row, above, pixelBytes);
  }
  return unfiltered;
}

function unfilterRow(filter: number, row: Uint8Array, above: Uint8Array, pixelBytes: number): void {
  const length = row.length;
  switch (filter) {
    case 0:
      return;
    case 1:
      for (let at = pixelBytes; at < length; at++) row[at]! += row[at - pixelBytes]!;
      return;
    case 2:
      for (let at = 0; at < length; at++) row[at]! += above[at]!;
      return;
    case 3:
      for (let at = 0; at < pixelBytes; at++) row[at]! += above[at]! >> 1;
      for (let at = pixelBytes; at < length; at++)
        row[at]! += (row[at - pixelBytes]! + above[at]!) >> 1;
      return;
    case 4:
      for (let at = 0; at < pixelBytes; at++) row[at]! += above[at]!;
      for (let at = pixelBytes; at < length; at++) {
        row[at]! += paeth(row[at - pixelBytes]!, above[at]!, above[at - pixelBytes]!);
      }
      return;
    default:
      throw new GreyError(`The PNG has a filter ${filter}, which does not exist`);
  }
}

function paeth(left: number, up: number, corner: number): number {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

function decodePgm(bytes: Uint8Array): GreyImage {
  const header = new PgmNumberReader(bytes, 2);
  const [width, height, maximum] = [header.next(), header.next(), header.next()];
  if (width === undefined || height === undefined || maximum === undefined) {
    throw new GreyError("The header of the PGM is not whole");
  }
  checkDimensions(width, height);
  if (maximum < 1 || maximum > 0xffff) {
    throw new GreyError(`A PGM's highest value is from 1 to 65535, here it is ${maximum}`);
  }
  const count = width * height;
  if (bytes[1] === 0x32) {
    // Each has a digit at least, and a blank but for the last.
    if (bytes.length - header.offset < 2 * count - 1) throw truncatedError("PGM", width, height);
    const samples = maximum > 0xff ? new Uint16Array(count) : new Uint8Array(count);
    for (let index = 0; index < count; index++) {
      const value = header.next();
      if (value === undefined) throw truncatedError("PGM", width, height);
      samples[index] = Math.min(value, maximum);
    }
    return { width, height, samples, maximum };
  }
  // One blank ends the header.
  const data = bytes.subarray(
    header.offset + 1,
    header.offset + 1 + count * (maximum > 0xff ? 2 : 1),
  );
  if (data.length < count * (maximum > 0xff ? 2 : 1)) throw truncatedError("PGM", width, height);
  const samples = maximum > 0xff ? readSamples16(data, true) : data.slice();
  return { width, height, samples, maximum };
}

/** Numbers in text, between blanks and comments. */
class PgmNumberReader {
  readonly #bytes: Uint8Array;
  /** Of the first byte after the number that was read last. */
  offset: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.offset = at;
  }

  /** The next; undefined where there is none. */
  next(): number | undefined {
    const bytes = this.#bytes;
    let at = this.offset;
    for (; at < bytes.length; at++) {
      if (bytes[at] === 0x23) while (at < bytes.length && bytes[at] !== 0x0a) at++;
      else if (!isWhitespace(bytes[at])) break;
    }
    const start = at;
    let value = 0;
    // Ten digits are more than any side or sample has.
    for (; at < bytes.length && at - start < 10; at++) {
      const digit = bytes[at]! - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    this.offset = at;
    return at === start ? undefined : value;
  }
}

function isWhitespace(byte: number | undefined): boolean {
  return byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);
}

function decodeRaw(bytes: Uint8Array, { width, height, format }: GreyShape): GreyImage {
  const { bits, bigEndian } = rawGreyFormats.get(format)!;
  checkDimensions(width, height);
  const byteCount = width * height * (bits > 8 ? 2 : 1);
  if (bytes.length !== byteCount) {
    throw new GreyError(
      `A raw frame of ${width}x${height} ${format} has ${byteCount} bytes, this one has ${bytes.length}`,
    );
  }
  const samples = bits > 8 ? readSamples16(bytes, bigEndian) : bytes.slice();
  return { width, height, samples, maximum: 2 ** bits - 1 };
}

function readSamples16(bytes: Uint8Array, bigEndian: boolean): Uint16Array<ArrayBuffer> {
  const samples = new Uint16Array(bytes.length >> 1);
  const [high, low] = bigEndian ? [0, 1] : [1, 0];
  for (let index = 0, at = 0; index < samples.length; index++, at += 2) {
    samples[index] = (bytes[at + high]! << 8) | bytes[at + low]!;
  }
  return samples;
}

function checkDimensions(width: number, height: number): void {
  const isValidSide = (side: number): boolean => Number.isSafeInteger(side) && side >= 1;
  if (isValidSide(width) && isValidSide(height) && width * height <= maxPixels) return;
  throw new GreyError(
    `A picture of ${width}x${height} cannot be shown: from 1 to ${maxPixels} pixels can`,
  );
}

function truncatedError(kind: string, width: number, height: number): GreyError {
  return new GreyError(`The ${kind} is damaged, or holds less than its ${width}x${height} pixels`);
}

/**
 * Where the values lie, leaving out a share of the pixels at either end, so that a few hot or dead ones do not take
 * the contrast from all others. A picture of one value gets a range around it.
 */
export function greyRange({ samples }: Pick<GreyImage, "samples">, share = 0.005): GreyRange {
  const counts = new Uint32Array(samples instanceof Uint8Array ? 0x100 : 0x10000);
  for (let index = 0; index < samples.length; index++) counts[samples[index]!]!++;
  const outlierCount = Math.floor(samples.length * share);
  let low = 0;
  for (let remaining = outlierCount; low < counts.length - 1 && counts[low]! <= remaining; low++) {
    remaining -= counts[low]!;
  }
  let high = counts.length - 1;
  for (let remaining = outlierCount; high > low && counts[high]! <= remaining; high--)
    remaining -= counts[high]!;
  return low < high ? { low, high } : { low: low - 1, high: high + 1 };
}

/** The picture in 8 bits, scaled so that its range goes from black to white. */
export function stretch(
  { samples }: Pick<GreyImage, "samples">,
  { low, high }: GreyRange,
): Uint8Array<ArrayBuffer> {
  // It rounds and holds what is outside at the ends.
  const result = new Uint8ClampedArray(samples.length);
  const scale = 255 / (high - low);
  for (let index = 0; index < samples.length; index++) {
    result[index] = (samples[index]! - low) * scale;
  }
  return new Uint8Array(result.buffer);
}
