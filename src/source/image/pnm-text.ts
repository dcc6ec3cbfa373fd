/** The samples of a portable anymap that are written as text, and comments in its text. */
import { ImageError, quoteBytes } from "./image-parser.ts";

const newline = 0x0a;

/** Space, tab, newline, vertical tab, form feed or carriage return. */
export function isWhitespace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** Takes comments out of text: `#` up to the end of the line, which is left. */
export class CommentFilter {
  #isInComment = false;

  /** The byte, or `undefined` if it belongs to a comment. */
  filter(byte: number): number | undefined {
    if (this.#isInComment) {
      if (byte !== newline && byte !== 0x0d) return undefined;
      this.#isInComment = false;
      return newline;
    }
    this.#isInComment = byte === 0x23;
    return this.#isInComment ? undefined : byte;
  }
}

/** Counts samples up to the last one, and reads on to the end of its line. */
export class TextSampleCounter {
  readonly #commentFilter = new CommentFilter();
  /** Samples are one digit each, 0 or 1, and need nothing between them. */
  readonly #areBits: boolean;
  #remaining: number;
  /** A sample of several digits has begun. */
  #isInSample = false;

  constructor(count: number, areBits: boolean) {
    this.#remaining = count;
    this.#areBits = areBits;
  }

  /** Whether all samples are there if no more comes. */
  get isComplete(): boolean {
    return this.#remaining === 0 || (this.#remaining === 1 && this.#isInSample);
  }

  /**
   * Takes the bytes from `from` on.
   *
   * @returns where in them the image ends, or -1 if it goes on
   * @throws {ImageError}
   */
  parse(bytes: Uint8Array, from: number): number {
    for (let at = from; at < bytes.length; at++) {
      const byte = this.#commentFilter.filter(bytes[at]!);
      if (byte === undefined || this.#isSampleByte(byte, at)) continue;
      if (byte === newline) return at + 1;
      // What the line goes on with is not this image's.
      if (!isWhitespace(byte)) return at;
    }
    return -1;
  }

  /** Whether the byte is one of the samples, or stands between them. */
  #isSampleByte(byte: number, at: number): boolean {
    if (this.#remaining === 0) return false;
    if (byte >= 0x30 && byte <= (this.#areBits ? 0x31 : 0x39)) {
      if (this.#areBits) this.#remaining--;
      else this.#isInSample = true;
      return true;
    }
    if (this.#isInSample) {
      this.#isInSample = false;
      this.#remaining--;
      if (this.#remaining === 0) return false;
    }
    if (!isWhitespace(byte)) {
      const digits = this.#areBits ? "0 or 1" : "a number";
      throw new ImageError(
        at,
        `a PNM has ${quoteBytes(Uint8Array.of(byte))} where a sample is ${digits}`,
      );
    }
    return true;
  }
}
