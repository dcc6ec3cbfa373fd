/** Splits a stream of images, such as from a pipe, into frames by the structure of the images. */
import { type ErrorName, FramesError } from "../../errors.ts";
import type { RawShape } from "../../frame.ts";
import { BmpParser } from "./bmp.ts";
import { JpegParser } from "./jpeg.ts";
import { PngParser } from "./png.ts";
import { PnmParser } from "./pnm.ts";
import { isWhitespace } from "./pnm-text.ts";
import { rawFrameBytes, RawParser } from "./raw.ts";
import {
  ImageError,
  type ImageParser,
  quoteBytes,
  ImageTooLargeError,
  UnknownImageError,
} from "./image-parser.ts";

/** A frame found in the stream. */
export interface SplitFrame {
  /** A copy that the splitter does not change afterwards. */
  readonly bytes: Uint8Array;
  /**
   * File name extension: `jpg`, `png`, `pbm`, `pgm`, `ppm`, `pam`, `pfm` or `bmp`; for raw frames
   * the shape, such as `640x512.gray16le`.
   */
  readonly extension: string;
}

/** A damaged or too large image in the stream, which is lost. */
export interface LostImage {
  /** `unreadable` or `too-large` */
  readonly error: FramesError;
}

/** Options of a `Splitter`. */
export interface SplitterOptions {
  /** Largest allowed frame, in bytes. */
  readonly maxFrameBytes: number;
  /** Shape of the frames if they are raw. */
  readonly raw?: RawShape;
}

/** Parser of each format by the first byte of an image. The parser checks the other bytes. */
const parserFactories = new Map<number | undefined, (maxBytes: number) => ImageParser>([
  [0xff, () => new JpegParser()],
  [0x89, (maxBytes) => new PngParser(maxBytes)],
  [0x50, (maxBytes) => new PnmParser(maxBytes)],
  [0x42, (maxBytes) => new BmpParser(maxBytes)],
]);

/** Second bytes of an image by the first byte, to search fast. */
const secondBytes = new Map<number | undefined, readonly number[]>([
  [0xff, [0xd8]],
  [0x89, [0x50]],
  [0x50, [...Buffer.from("1234567fF")]],
  [0x42, [0x4d]],
]);

/** Number of bytes shown in the error about an unknown image. */
const maxShownBytes = 16;

/** Longest signature of an image. An image with more trusted bytes really was one. */
const maxSignatureBytes = 8;

/**
 * Bytes of lost images that are searched again before the next whole image, in multiples of the
 * largest frame. A hostile stream may have a start of an image in every few bytes of a lost one.
 */
const maxSearchedFrames = 16;

/** What is wrong with the current image, and at which offset in the input. */
interface Damage {
  readonly code: ErrorName;
  readonly at: number;
  readonly problem: string;
}

/**
 * Splits a stream of images into frames. Accepts JPEG, PNG, PNM and BMP in any mixture, optionally
 * with zero bytes or JPEG fill bytes between them, or raw frames of one shape. After a damaged
 * image it goes on at the next start of an image.
 */
export class Splitter {
  readonly #maxFrameBytes: number;
  readonly #createRawParser: (() => ImageParser) | undefined;
  readonly #buffer: FrameBuffer;
  /** Parser of the current frame; `undefined` between frames. */
  #parser: ImageParser | undefined;
  /** Bytes of the input before the current chunk. */
  #offset = 0;
  /** Offset of the current frame in the input. */
  #frameStart = 0;
  /** Frames and lost images so far. */
  #imageCount = 0;
  #hasFrame = false;
  /** Offset in the input after the last frame, or where the search for the next one began. */
  #gapStart = 0;
  /** Whether an image was lost, so that any bytes may precede the next one. */
  #isSearching = false;
  /** Bytes of lost images that were searched again since the last frame. */
  #searchedBytes = 0;
  /** Offset in the input up to which a whole image is a part of the lost one. */
  #embeddedEnd = 0;
  /** Whether the last frame was text, so that blank lines may follow. */
  #isAfterText = false;
  #failure: FramesError | undefined;
  /** Whether the caller has taken all frames of the last chunk. */
  #isDrained = true;

  /**
   * @throws {FramesError} `usage` if the shape is invalid, `too-large` if a raw frame exceeds the
   * limit
   */
  constructor({ maxFrameBytes, raw }: SplitterOptions) {
    this.#maxFrameBytes = maxFrameBytes;
    let fixedBytes: number | undefined;
    if (raw !== undefined) {
      const size = (fixedBytes = rawFrameBytes(raw));
      this.#createRawParser = () => new RawParser(raw, size);
      if (size > maxFrameBytes) {
        const shape = `${raw.width}x${raw.height} in ${raw.format}`;
        throw new FramesError(
          "too-large",
          `Cannot read raw frames of ${shape}: they have ${size} bytes, the limit is ${maxFrameBytes}`,
        );
      }
    }
    this.#buffer = new FrameBuffer(maxFrameBytes, fixedBytes);
  }

  /**
   * Takes the next bytes and yields each frame that they complete, and each image that they show to
   * be damaged. The caller must take all of these before the next call, and must not change the
   * chunk until then. An error is thrown again by every later call.
   *
   * @throws {FramesError} `unreadable` if no image comes within the size of the largest frame
   */
  push(chunk: Uint8Array): Generator<SplitFrame | LostImage, undefined> {
    this.#checkReady();
    this.#isDrained = false;
    return this.#split(chunk);
  }

  /**
   * Ends the input. Yields what only the end of the input completes, such as a text image without a
   * final newline, or shows to be damaged.
   *
   * @throws {FramesError} `unreadable` if the input had no image, or what `push` threw
   */
  end(): Generator<SplitFrame | LostImage, undefined> {
    this.#checkReady();
    return this.#end();
  }

  *#split(input: Uint8Array): Generator<SplitFrame | LostImage, undefined> {
    let chunk = input;
    let at = 0;
    while (at < chunk.length) {
      if (this.#parser === undefined) {
        at = this.#skipGap(chunk, at);
        const isLost = this.#isGapTooLong(this.#offset + at);
        if (isLost) yield this.#loseGap(this.#offset + at);
        if (at === chunk.length) break;
        this.#frameStart = this.#offset + at;
        this.#parser = this.#createParser(chunk[at]);
      }
      // Include one byte beyond the limit, because it may show that the frame has ended.
      const bytes = chunk.subarray(at, at + this.#maxFrameBytes - this.#buffer.length + 1);
      const end = this.#parse(bytes, at);
      if (end === undefined) {
        at += bytes.length;
      } else if (typeof end === "number") {
        at += end;
        const frame = this.#finishFrame(bytes.subarray(0, end), this.#offset + at);
        if (frame !== undefined) yield frame;
      } else {
        const { loss, unread } = this.#leaveImage(end, chunk);
        [chunk, at] = [unread, 0];
        if (loss !== undefined) yield loss;
      }
    }
    this.#offset += chunk.length;
    this.#isDrained = true;
    return undefined;
  }

  *#end(): Generator<SplitFrame | LostImage, undefined> {
    for (let parser; (parser = this.#parser) !== undefined;) {
      if (parser.isComplete) {
        const frame = this.#finishFrame(new Uint8Array(0), this.#offset);
        if (frame !== undefined) yield frame;
        break;
      }
      const { loss, unread } = this.#leaveImage(this.#endDamage(parser), new Uint8Array(0));
      if (loss !== undefined) yield loss;
      // The last image may have begun within one that was cut off.
      yield* this.#split(unread);
    }
    if (this.#imageCount > 0) return undefined;
    const detail =
      this.#offset === 0
        ? "it ended without a byte; check the program that writes to it"
        : `it had ${formatByteCount(this.#offset)}, all of them zero`;
    this.#failure = new FramesError("unreadable", `Cannot read frames from the input: ${detail}`);
    throw this.#failure;
  }

  #checkReady(): void {
    if (this.#failure !== undefined) throw this.#failure;
    // Otherwise the rest of the last chunk would be lost silently.
    if (!this.#isDrained)
      throw new FramesError("internal", "Cannot continue reading: frames were not taken");
  }

  /** Returns the offset of the byte at which the next frame may begin. */
  #skipGap(chunk: Uint8Array, from: number): number {
    if (this.#createRawParser !== undefined) return from;
    let at = from;
    if (this.#isSearching) while (at < chunk.length && !mayBeginImage(chunk, at)) at++;
    else while (at < chunk.length && this.#isPadding(chunk, at)) at++;
    return at;
  }

  #isPadding(chunk: Uint8Array, at: number): boolean {
    const byte = chunk[at]!;
    return byte === 0 || isFill(byte, chunk[at + 1]) || (this.#isAfterText && isWhitespace(byte));
  }

  /** Returns whether a gap that reaches to `end` of the input is too long and not yet reported. */
  #isGapTooLong(end: number): boolean {
    const isReported = this.#isSearching && this.#hasFrame;
    return !isReported && end - this.#gapStart > this.#maxFrameBytes;
  }

  /**
   * Reports a gap that is too long.
   *
   * @throws {FramesError} `unreadable` if no frame preceded it, because this is no stream of images
   */
  #loseGap(end: number): LostImage {
    const problem = `${formatByteCount(this.#maxFrameBytes + 1)} arrived without an image`;
    const at = this.#gapStart + this.#maxFrameBytes;
    const loss = this.#lose({ code: "unreadable", at, problem });
    if (!this.#hasFrame) throw (this.#failure = loss.error);
    this.#gapStart = end;
    return loss;
  }

  #createParser(firstByte: number | undefined): ImageParser {
    const create = this.#createRawParser ?? parserFactories.get(firstByte);
    return create?.(this.#maxFrameBytes) ?? new UnknownParser();
  }

  /**
   * Parses `bytes`, which begin at `at` in the chunk. Returns where the frame ends in them,
   * `undefined` if it continues, or what is wrong with it.
   */
  #parse(bytes: Uint8Array, at: number): number | Damage | "fill" | undefined {
    const parser = this.#parser!;
    let end: number;
    try {
      end = parser.parse(bytes);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      if (error instanceof UnknownImageError) return this.#unknownImage(bytes, error.offset);
      if (error instanceof ImageTooLargeError) return this.#tooLarge(parser);
      return {
        code: "unreadable",
        at: this.#offset + at + error.offset,
        problem: error.message,
      };
    }
    const length = this.#buffer.length + (end < 0 ? bytes.length : end);
    if (length > this.#maxFrameBytes) return this.#tooLarge(parser);
    if (end >= 0) return end;
    this.#buffer.add(bytes);
    return undefined;
  }

  /**
   * Completes the current frame with its last bytes, which end at `end` of the input. Returns
   * `undefined` if it is a part of a lost image.
   */
  #finishFrame(bytes: Uint8Array, end: number): SplitFrame | undefined {
    const parser = this.#parser!;
    const frame = { bytes: this.#buffer.finish(bytes), extension: parser.extension };
    this.#parser = undefined;
    if (this.#isSearching && end <= this.#embeddedEnd) {
      // Usually there is one thumbnail. If the length of its segment is wrong, frames may follow.
      this.#embeddedEnd = 0;
      return undefined;
    }
    this.#isSearching = false;
    this.#searchedBytes = 0;
    this.#hasFrame = true;
    this.#imageCount++;
    this.#gapStart = end;
    this.#isAfterText = parser instanceof PnmParser && parser.isText;
    return frame;
  }

  /**
   * Leaves the current image, whose last part is in `chunk`. Returns its loss, unless it is fill or
   * belongs to an image lost before, and the bytes in which the next image is searched.
   */
  #leaveImage(
    damage: Damage | "fill",
    chunk: Uint8Array,
  ): { readonly loss: LostImage | undefined; readonly unread: Uint8Array } {
    const { trustedBytes, embeddedBytes } = this.#parser!;
    let resumeAt = this.#frameStart + trustedBytes;
    this.#searchedBytes += Math.max(0, this.#offset - resumeAt);
    if (this.#searchedBytes > maxSearchedFrames * this.#maxFrameBytes) {
      resumeAt = Math.max(resumeAt, this.#offset);
    }
    const unread =
      resumeAt >= this.#offset
        ? chunk.subarray(resumeAt - this.#offset)
        : Buffer.concat([this.#buffer.content.subarray(trustedBytes), chunk]);
    this.#parser = undefined;
    this.#buffer.clear();
    this.#offset = resumeAt;
    if (damage === "fill") return { loss: undefined, unread };
    const isImage =
      !this.#isSearching ||
      (trustedBytes > maxSignatureBytes && this.#frameStart >= this.#embeddedEnd);
    this.#embeddedEnd = Math.max(this.#embeddedEnd, this.#frameStart + embeddedBytes);
    if (!isImage) return { loss: undefined, unread };
    this.#gapStart = resumeAt;
    return { loss: this.#lose(damage), unread };
  }

  #lose({ code, at, problem }: Damage): LostImage {
    this.#imageCount++;
    this.#isSearching = true;
    const message = `Cannot read frame ${this.#imageCount} at byte ${at} of the input: ${problem}`;
    return { error: new FramesError(code, message) };
  }

  #tooLarge(parser: ImageParser): Damage {
    const size = parser.size === undefined ? "" : `of ${parser.size} bytes `;
    const limit = `is longer than the limit of ${formatByteCount(this.#maxFrameBytes)}`;
    return {
      code: "too-large",
      at: this.#frameStart,
      problem: `${parser.label} ${size}${limit}`,
    };
  }

  #unknownImage(bytes: Uint8Array, at: number): Damage | "fill" {
    const isFilled = this.#parser instanceof JpegParser && isFill(0xff, bytes[at]);
    if (isFilled && !this.#isSearching) return "fill";
    const start = Buffer.concat([this.#buffer.content, bytes.subarray(0, maxShownBytes)]);
    const received = quoteBytes(start.subarray(0, maxShownBytes));
    const expected = "expected a JPEG, PNG, PNM or BMP image";
    const problem = `${expected}, received ${received}; for raw frames add --raw WxH:FORMAT, for H.264 --raw h264`;
    return { code: "unreadable", at: this.#frameStart, problem };
  }

  /** Describes an image that is not complete at the end of the input. */
  #endDamage(parser: ImageParser): Damage | "fill" {
    const received = this.#buffer.length;
    const isFilled = parser instanceof JpegParser && received === 1;
    if (isFilled && this.#hasFrame && this.#frameStart > this.#gapStart) return "fill";
    const progress =
      parser.size === undefined
        ? formatByteCount(received)
        : `${received} of its ${parser.size} bytes`;
    const problem = `the input ended inside ${parser.label}, after ${progress}`;
    return { code: "unreadable", at: this.#offset, problem };
  }
}

/** Refuses an image whose first byte is that of no format. */
class UnknownParser implements ImageParser {
  readonly label = "an image";
  readonly extension = "bin";
  readonly size = undefined;
  readonly isComplete = false;
  readonly trustedBytes = 1;
  readonly embeddedBytes = 0;

  parse(): never {
    throw new UnknownImageError(0);
  }
}

/** Returns whether an image may begin at this byte. The next byte may not have come yet. */
function mayBeginImage(chunk: Uint8Array, at: number): boolean {
  const expected = secondBytes.get(chunk[at]);
  if (expected === undefined) return false;
  return at + 1 === chunk.length || expected.includes(chunk[at + 1]!);
}

/** Returns whether a byte before a JPEG is fill. Any number of FF bytes may precede a marker. */
function isFill(byte: number, next: number | undefined): boolean {
  return byte === 0xff && (next === 0xff || next === 0);
}

/** Buffers the bytes of the current frame. */
class FrameBuffer {
  readonly #maxBytes: number;
  readonly #fixedBytes: number | undefined;
  #buffer = new Uint8Array(0);
  #length = 0;
  /** Bytes of the previous frame, used to guess the size of the next. */
  #previousLength = 0;

  /** @param fixedBytes size of every frame, if all have the same */
  constructor(maxBytes: number, fixedBytes: number | undefined) {
    this.#maxBytes = maxBytes;
    this.#fixedBytes = fixedBytes;
  }

  get length(): number {
    return this.#length;
  }

  get content(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  add(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > this.#buffer.length) this.#grow(length);
    this.#buffer.set(bytes, this.#length);
    this.#length = length;
  }

  clear(): void {
    this.#buffer = new Uint8Array(0);
    this.#length = 0;
  }

  /** Grows by received bytes only, because a header may declare any size. */
  #grow(length: number): void {
    const expected =
      this.#length > 0
        ? 2 * this.#buffer.length
        : (this.#fixedBytes ?? this.#previousLength + Math.ceil(this.#previousLength / 8));
    const larger = new Uint8Array(Math.min(Math.max(length, expected), this.#maxBytes));
    larger.set(this.content);
    this.#buffer = larger;
  }

  /** Returns the whole frame, ending with `bytes`, and empties the buffer. */
  finish(bytes: Uint8Array): Uint8Array {
    let whole: Uint8Array;
    // Copies, because the chunk is valid only during this call. (`slice` of a Buffer does not
    // copy.)
    if (this.#length === 0) whole = new Uint8Array(bytes);
    else {
      this.add(bytes);
      // Otherwise the unused part of the buffer would stay in memory as long as the frame.
      const isNearlyFull = this.#length >= this.#buffer.length * 0.75;
      whole = isNearlyFull ? this.content : new Uint8Array(this.content);
    }
    this.#previousLength = whole.length;
    this.clear();
    return whole;
  }
}

function formatByteCount(count: number): string {
  return count === 1 ? "1 byte" : `${count} bytes`;
}
