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

/** Number of bytes shown in the error about an unknown image. */
const maxShownBytes = 16;

/**
 * Splits a stream of images into frames. Accepts JPEG, PNG, PNM and BMP in any mixture, optionally
 * with zero bytes between them, or raw frames of one shape. A damaged image is an error: the
 * splitter does not search for the next one.
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
  #frameCount = 0;
  /** Padding bytes since the last frame. */
  #padding = 0;
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
   * Takes the next bytes and yields each frame that they complete. The caller must take all frames
   * before the next call, and must not change the chunk until then. An error is thrown after the
   * frames that precede it, and again by every later call.
   *
   * @throws {FramesError} `unreadable` or `too-large`
   */
  push(chunk: Uint8Array): Generator<SplitFrame, undefined> {
    this.#checkReady();
    this.#isDrained = false;
    return this.#split(chunk);
  }

  *#split(chunk: Uint8Array): Generator<SplitFrame, undefined> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#parser === undefined) {
        at = this.#skipPadding(chunk, at);
        if (at === chunk.length) break;
        this.#beginFrame(chunk, at);
      }
      // Include one byte beyond the limit, because it may show that the frame has ended.
      const bytes = chunk.subarray(at, at + this.#maxFrameBytes - this.#buffer.length + 1);
      const end = this.#parse(bytes, at);
      at += end ?? bytes.length;
      if (end !== undefined) yield this.#finishFrame(bytes.subarray(0, end));
    }
    this.#offset += chunk.length;
    this.#isDrained = true;
    return undefined;
  }

  /**
   * Ends the input. Returns the last frame if only the end of the input completes it: a text image
   * without a final newline.
   *
   * @throws {FramesError} `unreadable` if the input ended inside a frame or had none, or what
   * `push` threw
   */
  end(): SplitFrame | undefined {
    this.#checkReady();
    const parser = this.#parser;
    if (parser?.isComplete) return this.#finishFrame(new Uint8Array(0));
    if (parser !== undefined) {
      const received = this.#buffer.length;
      const progress =
        parser.size === undefined
          ? formatByteCount(received)
          : `${received} of its ${parser.size} bytes`;
      this.#fail(
        "unreadable",
        this.#offset,
        `the input ended inside ${parser.label}, after ${progress}`,
      );
    }
    if (this.#frameCount > 0) return undefined;
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

  /** Returns the offset after the padding between two frames. */
  #skipPadding(chunk: Uint8Array, from: number): number {
    if (this.#createRawParser !== undefined) return from;
    let at = from;
    while (at < chunk.length && this.#isPadding(chunk[at]!)) {
      if (++this.#padding > this.#maxFrameBytes) {
        const problem = `${formatByteCount(this.#padding)} arrived without an image`;
        this.#frameCount++;
        this.#fail("unreadable", this.#offset + at, problem);
      }
      at++;
    }
    return at;
  }

  #isPadding(byte: number): boolean {
    return byte === 0 || (this.#isAfterText && isWhitespace(byte));
  }

  #beginFrame(chunk: Uint8Array, at: number): void {
    this.#frameStart = this.#offset + at;
    this.#frameCount++;
    this.#padding = 0;
    const createParser = this.#createRawParser ?? parserFactories.get(chunk[at]);
    if (createParser === undefined) this.#failUnknownImage(chunk.subarray(at));
    this.#parser = createParser(this.#maxFrameBytes);
  }

  /**
   * Parses `bytes`, which begin at `at` in the chunk. Returns where the frame ends in them, or
   * `undefined` if it continues.
   */
  #parse(bytes: Uint8Array, at: number): number | undefined {
    const parser = this.#parser!;
    let end: number;
    try {
      end = parser.parse(bytes);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      if (error instanceof UnknownImageError) this.#failUnknownImage(bytes);
      if (error instanceof ImageTooLargeError) this.#failTooLarge(parser);
      this.#fail("unreadable", this.#offset + at + error.offset, error.message);
    }
    const length = this.#buffer.length + (end < 0 ? bytes.length : end);
    if (length > this.#maxFrameBytes) this.#failTooLarge(parser);
    if (end >= 0) return end;
    this.#buffer.add(bytes);
    return undefined;
  }

  /** Completes the current frame with its last bytes. */
  #finishFrame(bytes: Uint8Array): SplitFrame {
    const parser = this.#parser!;
    this.#parser = undefined;
    this.#isAfterText = parser instanceof PnmParser && parser.isText;
    return { bytes: this.#buffer.finish(bytes), extension: parser.extension };
  }

  #failTooLarge(parser: ImageParser): never {
    const size = parser.size === undefined ? "" : `of ${parser.size} bytes `;
    const limit = `is longer than the limit of ${formatByteCount(this.#maxFrameBytes)}`;
    this.#fail("too-large", this.#frameStart, `${parser.label} ${size}${limit}`);
  }

  #failUnknownImage(bytes: Uint8Array): never {
    const start = Buffer.concat([this.#buffer.content, bytes.subarray(0, maxShownBytes)]);
    const received = quoteBytes(start.subarray(0, maxShownBytes));
    const expected = "expected a JPEG, PNG, PNM or BMP image";
    this.#fail(
      "unreadable",
      this.#frameStart,
      `${expected}, received ${received}; for raw frames add --raw WxH:FORMAT`,
    );
  }

  #fail(code: ErrorName, at: number, problem: string): never {
    const message = `Cannot read frame ${this.#frameCount} at byte ${at} of the input: ${problem}`;
    this.#failure = new FramesError(code, message);
    throw this.#failure;
  }
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
    this.#buffer = new Uint8Array(0);
    this.#length = 0;
    return whole;
  }
}

function formatByteCount(count: number): string {
  return count === 1 ? "1 byte" : `${count} bytes`;
}
