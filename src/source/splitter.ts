/** Cuts a stream of images, as a pipe brings them, into frames by the images' own structure. */
import { type ErrorName, FramesError } from "../errors.ts";
import type { RawShape } from "../frame.ts";
import { BmpReader } from "./bmp.ts";
import { JpegReader } from "./jpeg.ts";
import { PngReader } from "./png.ts";
import { PnmReader } from "./pnm.ts";
import { isBlank } from "./pnm-text.ts";
import { rawFrameSize, RawReader } from "./raw.ts";
import { Flaw, type ImageReader, quoted, TooLarge, UnknownStart } from "./reader.ts";

/** A frame that was cut out. */
export interface SplitFrame {
  /** Its own: nothing else changes them. */
  readonly bytes: Uint8Array;
  /** How its file ends: `jpg`, `png`, `pbm`, `pgm`, `ppm`, `pam`, `pfm`, `bmp` or, raw, `640x512.gray16le`. */
  readonly ending: string;
}

/** What a splitter needs to know. */
export interface SplitterOptions {
  /** Bytes that a frame may have. */
  readonly largest: number;
  /** Shape of the frames, if they are raw. */
  readonly raw?: RawShape;
}

/** The format of an image by its first byte; its reader looks at the rest. */
const readers = new Map<number | undefined, (largest: number) => ImageReader>([
  [0xff, () => new JpegReader()],
  [0x89, (largest) => new PngReader(largest)],
  [0x50, (largest) => new PnmReader(largest)],
  [0x42, (largest) => new BmpReader(largest)],
]);

/** First bytes of what is no image, as far as they are shown. */
const shown = 16;

/**
 * Cuts a stream of images into frames: JPEG, PNG, PNM and BMP in any mixture, with or without zero bytes
 * between them, or raw frames of one shape. It never looks for a frame further on when one is damaged.
 */
export class Splitter {
  readonly #largest: number;
  readonly #newRaw: (() => ImageReader) | undefined;
  readonly #collected: Collected;
  /** Reads the frame that has begun. */
  #reader: ImageReader | undefined;
  /** Bytes of the input before the chunk at hand. */
  #offset = 0;
  /** Where in the input the frame that has begun does so. */
  #start = 0;
  #frames = 0;
  /** Bytes between two frames so far. */
  #padding = 0;
  /** The last frame was text, after which blank lines may come. */
  #isAfterText = false;
  #failure: FramesError | undefined;
  /** All frames of the last chunk were taken. */
  #isTaken = true;

  /** @throws {FramesError} `usage` or `too-large` if no raw frame of the shape can be had */
  constructor({ largest, raw }: SplitterOptions) {
    this.#largest = largest;
    let exactly: number | undefined;
    if (raw !== undefined) {
      const size = (exactly = rawFrameSize(raw));
      this.#newRaw = () => new RawReader(raw, size);
      if (size > largest) {
        const shape = `${raw.width}x${raw.height} in ${raw.format}`;
        throw new FramesError(
          "too-large",
          `Cannot read raw frames of ${shape}: they are ${size} bytes long, ${largest} are the most`,
        );
      }
    }
    this.#collected = new Collected(largest, exactly);
  }

  /**
   * Takes the next bytes and gives the frames that are whole now, one by one. All must be taken before
   * the next call; the chunk is good until then. What is wrong with the input is thrown after the frames
   * before it, and again by every later call.
   *
   * @throws {FramesError} `unreadable` or `too-large`
   */
  push(chunk: Uint8Array): Generator<SplitFrame, undefined> {
    this.#check();
    this.#isTaken = false;
    return this.#cut(chunk);
  }

  *#cut(chunk: Uint8Array): Generator<SplitFrame, undefined> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#reader === undefined) {
        at = this.#skip(chunk, at);
        if (at === chunk.length) break;
        this.#begin(chunk, at);
      }
      // One byte more than a frame may have: it may show that the frame has ended.
      const bytes = chunk.subarray(at, at + this.#largest - this.#collected.length + 1);
      const end = this.#read(bytes, at);
      at += end ?? bytes.length;
      if (end !== undefined) yield this.#finish(bytes.subarray(0, end));
    }
    this.#offset += chunk.length;
    this.#isTaken = true;
    return undefined;
  }

  /**
   * The input has ended. Gives the frame that only this ends: an image that is text, with no newline
   * after it.
   *
   * @throws {FramesError} `unreadable` if it ended inside a frame or brought none, or what `push` threw
   */
  end(): SplitFrame | undefined {
    this.#check();
    const reader = this.#reader;
    if (reader?.isWhole) return this.#finish(new Uint8Array(0));
    if (reader !== undefined) {
      const came = this.#collected.length;
      const some =
        reader.size === undefined ? bytesOf(came) : `${came} of its ${reader.size} bytes`;
      this.#fail(
        "unreadable",
        this.#offset,
        `the input ended inside ${reader.kind}, after ${some}`,
      );
    }
    if (this.#frames > 0) return undefined;
    const nothing =
      this.#offset === 0
        ? "it ended before anything came"
        : `it brought ${bytesOf(this.#offset)}, all of them zero`;
    this.#failure = new FramesError("unreadable", `Cannot read frames from the input: ${nothing}`);
    throw this.#failure;
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
    // No frame must be lost without a word.
    if (!this.#isTaken) throw new FramesError("internal", "Cannot read on: frames are not taken");
  }

  /** Where what is between two frames ends. */
  #skip(chunk: Uint8Array, from: number): number {
    if (this.#newRaw !== undefined) return from;
    let at = from;
    while (at < chunk.length && this.#isPadding(chunk[at]!)) {
      if (++this.#padding > this.#largest) {
        const what = `${bytesOf(this.#padding)} without an image came`;
        this.#frames++;
        this.#fail("unreadable", this.#offset + at, what);
      }
      at++;
    }
    return at;
  }

  #isPadding(byte: number): boolean {
    return byte === 0 || (this.#isAfterText && isBlank(byte));
  }

  #begin(chunk: Uint8Array, at: number): void {
    this.#start = this.#offset + at;
    this.#frames++;
    this.#padding = 0;
    const newReader = this.#newRaw ?? readers.get(chunk[at]);
    if (newReader === undefined) this.#failStart(chunk.subarray(at));
    this.#reader = newReader(this.#largest);
  }

  /** Reads what `chunk` has from `at` on; where the frame ends in it, or `undefined` if it goes on. */
  #read(bytes: Uint8Array, at: number): number | undefined {
    const reader = this.#reader!;
    let end: number;
    try {
      end = reader.read(bytes);
    } catch (error) {
      if (!(error instanceof Flaw)) throw error;
      if (error instanceof UnknownStart) this.#failStart(bytes);
      if (error instanceof TooLarge) this.#failSize(reader);
      this.#fail("unreadable", this.#offset + at + error.at, error.message);
    }
    const length = this.#collected.length + (end < 0 ? bytes.length : end);
    if (length > this.#largest) this.#failSize(reader);
    if (end >= 0) return end;
    this.#collected.add(bytes);
    return undefined;
  }

  /** Ends the frame with its last bytes. */
  #finish(bytes: Uint8Array): SplitFrame {
    const reader = this.#reader!;
    this.#reader = undefined;
    this.#isAfterText = reader instanceof PnmReader && reader.isText;
    return { bytes: this.#collected.finish(bytes), ending: reader.ending };
  }

  #failSize(reader: ImageReader): never {
    const size = reader.size === undefined ? "" : `of ${reader.size} bytes `;
    const most = `is longer than the ${bytesOf(this.#largest)} that a frame may have`;
    this.#fail("too-large", this.#start, `${reader.kind} ${size}${most}`);
  }

  /** What came begins like nothing that is known. */
  #failStart(bytes: Uint8Array): never {
    const start = Buffer.concat([this.#collected.begun, bytes.subarray(0, shown)]);
    const came = quoted(start.subarray(0, shown));
    const expected = "expected a JPEG, PNG, PNM or BMP image";
    this.#fail("unreadable", this.#start, `${expected}, received ${came}`);
  }

  #fail(code: ErrorName, at: number, what: string): never {
    const message = `Cannot read frame ${this.#frames} at byte ${at} of the input: ${what}`;
    this.#failure = new FramesError(code, message);
    throw this.#failure;
  }
}

/** What came of a frame that is not yet whole. */
class Collected {
  readonly #largest: number;
  readonly #exactly: number | undefined;
  #buffer = new Uint8Array(0);
  #length = 0;
  /** Bytes of the frame before: the next is likely to have about as many. */
  #before = 0;

  /** @param exactly bytes of every frame, if all have the same */
  constructor(largest: number, exactly: number | undefined) {
    this.#largest = largest;
    this.#exactly = exactly;
  }

  get length(): number {
    return this.#length;
  }

  get begun(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  add(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > this.#buffer.length) this.#grow(length);
    this.#buffer.set(bytes, this.#length);
    this.#length = length;
  }

  /** Only what came counts, not what a header promises. */
  #grow(length: number): void {
    const expected =
      this.#length > 0
        ? 2 * this.#buffer.length
        : (this.#exactly ?? this.#before + Math.ceil(this.#before / 8));
    const larger = new Uint8Array(Math.min(Math.max(length, expected), this.#largest));
    larger.set(this.begun);
    this.#buffer = larger;
  }

  /** The whole frame, with its last bytes. */
  finish(bytes: Uint8Array): Uint8Array {
    let whole: Uint8Array;
    // A copy: the chunk is good for this call only. (Its `slice` would be none, if it is a Buffer.)
    if (this.#length === 0) whole = new Uint8Array(bytes);
    else {
      this.add(bytes);
      // Room that is not used would be kept for as long as the frame is.
      const isTight = this.#length >= this.#buffer.length * 0.75;
      whole = isTight ? this.begun : new Uint8Array(this.begun);
    }
    this.#before = whole.length;
    this.#buffer = new Uint8Array(0);
    this.#length = 0;
    return whole;
  }
}

function bytesOf(count: number): string {
  return count === 1 ? "1 byte" : `${count} bytes`;
}
