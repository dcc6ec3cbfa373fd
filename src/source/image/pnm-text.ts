/** Parses the text parts of portable anymaps (PNM): samples in decimal, and comments. */
import { ImageError, quoteBytes } from "./image-parser.ts";

const newline = 0x0a;

/** Returns whether a byte is a space, tab, newline, vertical tab, form feed or carriage return. */
export function isWhitespace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** Removes comments, which go from `#` to the end of the line. Keeps the newline. */
export class CommentFilter {
  #isInComment = false;

  /** Returns the byte, or `undefined` inside a comment. */
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

/** Counts samples to the last one, then finds the end of its line. */
export class TextSampleCounter {
  readonly #commentFilter = new CommentFilter();
  /** Whether each sample is a single digit, 0 or 1, so that no separator is needed. */
  readonly #areBits: boolean;
  #remaining: number;
  /** Whether a sample of several digits has begun. */
  #isInSample = false;

  constructor(count: number, areBits: boolean) {
    this.#remaining = count;
    this.#areBits = areBits;
  }

  /** Whether all samples are present if the input ends here. */
  get isComplete(): boolean {
    return this.#remaining === 0 || (this.#remaining === 1 && this.#isInSample);
  }

  /**
   * Parses the bytes from `from` on.
   *
   * @returns offset at which the image ends, or -1 if it continues
   * @throws {ImageError}
   */
  parse(bytes: Uint8Array, from: number): number {
    for (let at = from; at < bytes.length; at++) {
      const byte = this.#commentFilter.filter(bytes[at]!);
      if (byte === undefined || this.#isSampleByte(byte, at)) continue;
      if (byte === newline) return at + 1;
      // The rest of the line belongs to the next image.
      if (!isWhitespace(byte)) return at;
    }
    return -1;
  }

  /** Returns whether the byte is part of a sample or separates two. */
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
