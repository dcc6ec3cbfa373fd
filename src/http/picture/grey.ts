/**
 * Decodes grey images that browsers cannot show as they are: PNG and PGM of 8 and 16 bits, and raw
 * grey.
 * Also finds the range of their values. Pure functions, used by the page and by the server.
 */

/** Layout of a raw frame; `format` is ffmpeg's name. */
export interface GreyShape {
  readonly width: number;
  readonly height: number;
  readonly format: string;
}

/** A grey image: one sample per pixel, row by row from the top. */
export interface GreyImage {
  readonly width: number;
  readonly height: number;
  readonly samples: Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
  /** Highest possible sample value. */
  readonly maximum: number;
}

/** Range of sample values without outliers. `low` is less than `high`. */
export interface GreyRange {
  readonly low: number;
  readonly high: number;
}

/** Kinds of images that `decodeGrey` reads. */
export type GreyKind = "png" | "pgm" | "raw";

/** Says in one sentence why an image cannot be decoded. */
export class GreyError extends Error {
  override readonly name = "GreyError";
}

/** Longest side of a JPEG. A picture of more rows would take long to decode, too. */
const maxSide = 65_535;

/** Pixel limit: above any camera's resolution, and low enough for the memory of a browser tab. */
export const maxPixels = 2 ** 26;

const pngSignature = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Length of the signature and the IHDR chunk. */
const pngHeaderBytes = 33;
/** Colour type of grey with alpha. */
const greyAlphaColour = 4;
/** Passes of an interlaced PNG: first column and row, and distances of columns and rows. */
const adam7Passes = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;
/** Bytes that are inflated at a time. */
const maxPieceBytes = 8192;
/** Maximum compression ratio of Deflate. */
const maxDeflateRatio = 1032;

/** Raw grey formats by ffmpeg's names: bits per sample and byte order. */
const rawGreyFormats = new Map<string, { bits: number; bigEndian: boolean }>([
  ["gray", { bits: 8, bigEndian: false }],
  ...[9, 10, 12, 14, 16].flatMap((bits) => [
    [`gray${bits}le`, { bits, bigEndian: false }] as const,
    [`gray${bits}be`, { bits, bigEndian: true }] as const,
  ]),
]);

/**
 * Detects the kind of image by its first bytes, or by `raw`. Undefined if `decodeGrey` cannot read
 * it.
 */
export function greyKind(bytes: Uint8Array, raw?: GreyShape | null): GreyKind | undefined {
  if (raw !== undefined && raw !== null) return rawGreyFormats.has(raw.format) ? "raw" : undefined;
  if (bytes.length > pngHeaderBytes && pngSignature.every((byte, index) => bytes[index] === byte)) {
    const [depth, colour, interlaced] = [bytes[24], bytes[25], bytes[28]];
    const isDeep = depth === 16 && (colour === 0 || colour === greyAlphaColour);
    const isPlain = depth === 8 && colour === 0 && interlaced === 0;
    return isDeep || isPlain ? "png" : undefined;
  }
  const isPgm = bytes[0] === 0x50 && (bytes[1] === 0x32 || bytes[1] === 0x35);
  return isPgm && isWhitespace(bytes[2]) ? "pgm" : undefined;
}

/**
 * Decodes a grey image. Alpha is ignored.
 *
 * @param pixelLimit pixels that it may have at most
 * @throws {GreyError} if the image is truncated, damaged, too large or of another kind
 */
export async function decodeGrey(
  bytes: Uint8Array,
  raw?: GreyShape | null,
  pixelLimit = maxPixels,
): Promise<GreyImage> {
  switch (greyKind(bytes, raw)) {
    case "png":
      return await decodePng(bytes, pixelLimit);
    case "pgm":
      return decodePgm(bytes, pixelLimit);
    case "raw":
      return decodeRaw(bytes, raw!, pixelLimit);
    case undefined:
      throw new GreyError("The frame is not a grey PNG, PGM or raw frame that can be shown");
  }
}

async function decodePng(bytes: Uint8Array, pixelLimit: number): Promise<GreyImage> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  checkDimensions(width, height, pixelLimit);
  const sampleBytes = bytes[24]! >> 3;
  const pixelBytes = sampleBytes * (bytes[25] === greyAlphaColour ? 2 : 1);
  const passes = bytes[28] === 1 ? adam7Passes : ([[0, 0, 1, 1]] as const);
  const parts = passes
    .map(([x, y, dx, dy]) => {
      return {
        x,
        y,
        dx,
        dy,
        columns: Math.ceil((width - x) / dx),
        rows: Math.ceil((height - y) / dy),
      };
    })
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
  const byteCount = parts.reduce(
    (sum, { columns, rows }) => sum + (columns * pixelBytes + 1) * rows,
    0,
  );
  let compressedBytes = 0;
  for (const piece of idatPieces(bytes, view)) compressedBytes += piece.length;
  // Checks before allocating: so little data cannot inflate to the declared size.
  if (byteCount > compressedBytes * maxDeflateRatio) throw truncatedError("PNG", width, height);
  const inflated = await inflate(idatPieces(bytes, view), byteCount);
  if (inflated === undefined) throw truncatedError("PNG", width, height);
  const maximum = sampleBytes === 1 ? 0xff : 0xffff;
  // Only grey of 16 bits is interlaced here.
  const samples = new Uint16Array(passes.length === 1 ? 0 : width * height);
  let from = 0;
  for (const { x, y, dx, dy, columns, rows } of parts) {
    const rowBytes = columns * pixelBytes;
    const filtered = inflated.subarray(from, (from += (rowBytes + 1) * rows));
    const unfiltered = unfilter(filtered, rowBytes, rows, pixelBytes);
    const part = sampleBytes === 1 ? unfiltered : readSamples16(unfiltered, true, pixelBytes);
    if (passes.length === 1) return { width, height, samples: part, maximum };
    for (let row = 0, index = 0; row < rows; row++) {
      let at = (y + row * dy) * width + x;
      for (let column = 0; column < columns; column++, at += dx) samples[at] = part[index++]!;
    }
  }
  return { width, height, samples, maximum };
}

/**
 * Yields the data of all IDAT chunks, up to the end or to a truncated chunk, in small pieces. A file
 * may have millions of empty chunks, and a large piece may inflate to a thousand times its size.
 */
function* idatPieces(bytes: Uint8Array, view: DataView): Generator<Uint8Array<ArrayBuffer>> {
  for (let at = pngSignature.length; at + 8 <= bytes.length;) {
    const end = Math.min(at + 8 + view.getUint32(at), bytes.length);
    // 0x49444154 is "IDAT".
    if (view.getUint32(at + 4) === 0x49444154) {
      for (let from = at + 8; from < end; from += maxPieceBytes) {
        yield bytes.slice(from, Math.min(from + maxPieceBytes, end));
      }
    }
    at = end + 4;
  }
}

/**
 * Inflates exactly `byteCount` bytes and ignores the rest. Undefined if data is short or damaged.
 */
async function inflate(
  pieces: Iterator<Uint8Array<ArrayBuffer>>,
  byteCount: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const result = new Uint8Array(byteCount);
  let filled = 0;
  const compressed = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      const { done, value } = pieces.next();
      if (done === true) controller.close();
      else controller.enqueue(value);
    },
  });
  const reader = compressed.pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    while (filled < byteCount) {
      const { done, value } = await reader.read();
      if (done) return undefined;
      result.set(value.subarray(0, byteCount - filled), filled);
      filled += value.length;
    }
    return result;
  } catch {
    // The checksum at the end may be wrong or missing although all rows are complete.
    return filled >= byteCount ? result : undefined;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Reverses the row filters (PNG, section 9), which apply to bytes and not to samples. Works in
 * place, because a picture may be large.
 */
function unfilter(
  rows: Uint8Array<ArrayBuffer>,
  rowBytes: number,
  height: number,
  pixelBytes: number,
): Uint8Array<ArrayBuffer> {
  const unfiltered = rows.subarray(0, rowBytes * height);
  for (let y = 0; y < height; y++) {
    const from = y * (rowBytes + 1);
    const filter = rows[from]!;
    const row = unfiltered.subarray(y * rowBytes, (y + 1) * rowBytes);
    row.set(rows.subarray(from + 1, from + 1 + rowBytes));
    // The row above the first one counts as zeros.
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
      throw new GreyError(`The PNG has a filter ${filter}, which is unknown`);
  }
}

function paeth(left: number, up: number, corner: number): number {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

function decodePgm(bytes: Uint8Array, pixelLimit: number): GreyImage {
  const header = new PgmNumberReader(bytes, 2);
  const [width, height, maximum] = [header.next(), header.next(), header.next()];
  if (width === undefined || height === undefined || maximum === undefined) {
    throw new GreyError("The header of the PGM is incomplete");
  }
  checkDimensions(width, height, pixelLimit);
  if (maximum < 1 || maximum > 0xffff) {
    throw new GreyError(`The PGM's highest value is ${maximum}, expected 1 to 65535`);
  }
  const count = width * height;
  if (bytes[1] === 0x32) {
    // Each value takes at least one digit, and each but the last a space.
    if (bytes.length - header.offset < 2 * count - 1) throw truncatedError("PGM", width, height);
    const samples = maximum > 0xff ? new Uint16Array(count) : new Uint8Array(count);
    for (let index = 0; index < count; index++) {
      const value = header.next();
      if (value === undefined) throw truncatedError("PGM", width, height);
      samples[index] = Math.min(value, maximum);
    }
    return { width, height, samples, maximum };
  }
  // One whitespace byte ends the header.
  const data = bytes.subarray(
    header.offset + 1,
    header.offset + 1 + count * (maximum > 0xff ? 2 : 1),
  );
  if (data.length < count * (maximum > 0xff ? 2 : 1)) throw truncatedError("PGM", width, height);
  const samples = maximum > 0xff ? readSamples16(data, true) : data.slice();
  return { width, height, samples, maximum };
}

/** Reads decimal numbers of a PGM, skipping whitespace and comments. */
class PgmNumberReader {
  readonly #bytes: Uint8Array;
  /** Offset of the first byte after the last number. */
  offset: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.offset = at;
  }

  /** Returns the next number, or undefined if there is none. */
  next(): number | undefined {
    const bytes = this.#bytes;
    let at = this.offset;
    for (; at < bytes.length; at++) {
      if (bytes[at] === 0x23) while (at < bytes.length && bytes[at] !== 0x0a) at++;
      else if (!isWhitespace(bytes[at])) break;
    }
    const start = at;
    let value = 0;
    // Ten digits exceed any valid side or sample.
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

function decodeRaw(
  bytes: Uint8Array,
  { width, height, format }: GreyShape,
  pixelLimit: number,
): GreyImage {
  const { bits, bigEndian } = rawGreyFormats.get(format)!;
  checkDimensions(width, height, pixelLimit);
  const byteCount = width * height * (bits > 8 ? 2 : 1);
  if (bytes.length !== byteCount) {
    throw new GreyError(
      `The raw frame has ${bytes.length} bytes, expected ${byteCount} for ${width}x${height} ${format}`,
    );
  }
  const samples = bits > 8 ? readSamples16(bytes, bigEndian) : bytes.slice();
  return { width, height, samples, maximum: 2 ** bits - 1 };
}

/** @param step bytes from one sample to the next */
function readSamples16(bytes: Uint8Array, bigEndian: boolean, step = 2): Uint16Array<ArrayBuffer> {
  const samples = new Uint16Array(bytes.length / step);
  const [high, low] = bigEndian ? [0, 1] : [1, 0];
  for (let index = 0, at = 0; index < samples.length; index++, at += step) {
    samples[index] = (bytes[at + high]! << 8) | bytes[at + low]!;
  }
  return samples;
}

function checkDimensions(width: number, height: number, pixelLimit: number): void {
  const isValidSide = (side: number): boolean => side >= 1 && side <= maxSide;
  if (isValidSide(width) && isValidSide(height) && width * height <= pixelLimit) return;
  throw new GreyError(
    `A picture of ${width}x${height} cannot be shown: expected 1 to ${pixelLimit} pixels, and sides of 1 to ${maxSide}`,
  );
}

function truncatedError(kind: string, width: number, height: number): GreyError {
  return new GreyError(`The ${kind} is damaged, or has fewer than its ${width}x${height} pixels`);
}

/**
 * Finds the range of values, ignoring the given share of pixels at either end.
 * Without that, a few hot or dead pixels would take the contrast from the rest.
 * An image of a single value gets a range around it.
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

/** Scales an image to 8 bits, so that `low` becomes 0 and `high` becomes 255. */
export function stretch(
  { samples }: Pick<GreyImage, "samples">,
  { low, high }: GreyRange,
): Uint8Array<ArrayBuffer> {
  // Uint8ClampedArray rounds, and limits values outside the range.
  const result = new Uint8ClampedArray(samples.length);
  const scale = 255 / (high - low);
  for (let index = 0; index < samples.length; index++) {
    result[index] = (samples[index]! - low) * scale;
  }
  return new Uint8Array(result.buffer);
}
