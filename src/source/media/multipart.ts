/** Splits MJPEG over HTTP, a multipart stream, into JPEGs, also as cheap cameras send it. */
import { type ErrorName, FramesError } from "../../errors.ts";
import type { LostCapture } from "../live/iterable-source.ts";
import { ImageError } from "../image/image-parser.ts";
import { JpegParser } from "../image/jpeg.ts";

/** Bytes before an image in which its headers are looked for. */
const maxHeadBytes = 4096;

/** Bytes without a JPEG after which a stream is given up. */
const maxSkippedBytes = 64 << 20;

/** Start of every JPEG. */
const jpegStart = Buffer.from("ffd8ff", "hex");

/** Bytes after a part that show whether another part begins there. */
const maxPartStartBytes = 12;

/** Trusted bytes of a JPEG that really was one: its start and one segment. */
const minJpegBytes = 9;

/** A JPEG that has begun. */
interface OpenImage {
  readonly parser: JpegParser;
  /** Bytes passed to the parser. */
  parsed: number;
  /** Its end by its structure. */
  end?: number;
  /** What is wrong with its structure. */
  problem?: string;
  /** Its Content-Length, while that may be right. */
  declared: number | undefined;
}

/**
 * Finds JPEGs by their start, and ends each at its Content-Length if another part begins there, or
 * else at its end marker. So parts need neither boundaries nor lengths nor types, and wrong lengths
 * do no harm. Other parts, such as text, are passed over.
 */
export class MultipartSplitter {
  readonly #maxFrameBytes: number;
  #buffer = Buffer.alloc(0);
  /** The unread bytes in the buffer. */
  #start = 0;
  #end = 0;
  #image: OpenImage | undefined;
  /** Bytes without an image since the last one. */
  #skipped = 0;
  /** Whether a JPEG was lost, so that parts of it may look like a start. */
  #isSearching = false;

  /** @param maxFrameBytes largest allowed frame */
  constructor(maxFrameBytes: number) {
    this.#maxFrameBytes = maxFrameBytes;
  }

  /**
   * Takes the next bytes and yields the JPEGs that they complete, each a copy, and the lost ones.
   * The caller must take all of these before the next call.
   *
   * @throws {FramesError} `unreadable` if no JPEG comes for a long time
   */
  *push(chunk: Uint8Array): Generator<Uint8Array | LostCapture, undefined> {
    this.#append(chunk);
    while (this.#image !== undefined || this.#findImage()) {
      const item = this.#readImage(this.#image!);
      if (item === "more") return undefined;
      if (item !== undefined) yield item;
    }
    return undefined;
  }

  /** Ends the stream. Returns a last JPEG that has its length and no end marker. */
  end(): Uint8Array | undefined {
    const { declared = Infinity } = this.#image ?? {};
    const isWhole = declared <= Math.min(this.#content.length, this.#maxFrameBytes);
    return isWhole ? this.#take(declared) : undefined;
  }

  get #content(): Buffer {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  #append(chunk: Uint8Array): void {
    if (this.#end + chunk.length > this.#buffer.length) {
      const content = this.#content;
      const larger = Buffer.alloc(Math.max(2 * content.length, content.length + chunk.length));
      larger.set(content);
      this.#buffer = larger;
      [this.#start, this.#end] = [0, content.length];
    }
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** Moves to the start of the next JPEG. Returns whether there is one. */
  #findImage(): boolean {
    const content = this.#content;
    const at = content.indexOf(jpegStart);
    // The headers before a JPEG are kept until it begins.
    const passed = at < 0 ? Math.max(0, content.length - maxHeadBytes) : at;
    this.#skipped += passed;
    this.#start += passed;
    if (this.#skipped > maxSkippedBytes) {
      throw new FramesError("unreadable", `${this.#skipped} bytes arrived without a JPEG`);
    }
    if (at < 0) return false;
    const head = content.toString("latin1", Math.max(0, at - maxHeadBytes), at);
    this.#image = { parser: new JpegParser(), parsed: 0, declared: declaredLength(head) };
    return true;
  }

  /** Returns the current JPEG once it is complete, its loss, or nothing if it is passed over. */
  #readImage(image: OpenImage): Uint8Array | LostCapture | "more" | undefined {
    const content = this.#content;
    parseOn(image, content);
    const end = this.#endOf(image, content);
    if (end !== undefined && end <= this.#maxFrameBytes) return this.#take(end);
    if (image.problem !== undefined && image.declared === undefined) {
      return this.#lose(image, "unreadable", image.problem);
    }
    if (content.length > this.#maxFrameBytes) {
      const limit = `it is longer than the limit of ${this.#maxFrameBytes} bytes`;
      return this.#lose(image, "too-large", limit);
    }
    return "more";
  }

  /** Returns where the JPEG ends, or `undefined` if that is not known yet. */
  #endOf(image: OpenImage, content: Buffer): number | undefined {
    const { end, declared } = image;
    if (declared === undefined || declared === end) return end;
    const isLonger = end !== undefined && end < declared;
    if (isLonger && startsPart(content.subarray(end)) === true) return end;
    if (declared > this.#maxFrameBytes) {
      image.declared = undefined;
      return end;
    }
    if (content.length < declared) return undefined;
    // The JPEG is followed by padding.
    if (isLonger) return declared;
    const isRight = startsPart(content.subarray(declared));
    if (isRight === false) image.declared = undefined;
    return isRight === undefined ? undefined : isRight ? declared : end;
  }

  #take(length: number): Uint8Array {
    const bytes = new Uint8Array(this.#content.subarray(0, length));
    this.#start += length;
    this.#image = undefined;
    this.#skipped = 0;
    this.#isSearching = false;
    return bytes;
  }

  #lose({ parser }: OpenImage, code: ErrorName, problem: string): LostCapture | undefined {
    const { trustedBytes } = parser;
    this.#start += trustedBytes;
    this.#image = undefined;
    if (this.#isSearching && trustedBytes < minJpegBytes) return undefined;
    this.#isSearching = true;
    return { error: new FramesError(code, `Cannot read a frame of the camera: ${problem}`) };
  }
}

/** Passes the bytes that are new to the parser of the JPEG. */
function parseOn(image: OpenImage, content: Buffer): void {
  if (image.end !== undefined || image.problem !== undefined) return;
  const { parsed } = image;
  image.parsed = content.length;
  try {
    const end = image.parser.parse(content.subarray(parsed));
    if (end >= 0) image.end = parsed + end;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    image.problem = error.message;
  }
}

/** Returns the Content-Length in the last block of headers. */
function declaredLength(head: string): number | undefined {
  const block = head
    .trimEnd()
    .split(/\n\r?\n|(?:^|\n)--/)
    .at(-1)!;
  const [, digits] = /^content-length[ \t]*:[ \t]*(\d{1,15})[ \t]*\r?$/im.exec(block) ?? [];
  return digits === undefined || Number(digits) === 0 ? undefined : Number(digits);
}

/**
 * Returns whether a part begins with these bytes, after line ends: with a boundary, a header or a
 * JPEG. Returns `undefined` if too few bytes have come to tell.
 */
function startsPart(bytes: Buffer): boolean | undefined {
  const text = bytes.toString("latin1", 0, maxPartStartBytes).replace(/^[\r\n]+/, "");
  for (const start of ["--", "content-", "x-", "\xff\xd8"]) {
    const begin = text.slice(0, start.length).toLowerCase();
    if (begin === start) return true;
    if (start.startsWith(begin) && bytes.length < maxPartStartBytes) return undefined;
  }
  return false;
}
