/** The samples of a portable anymap that are written as text, and comments in its text. */
import { Flaw, quoted } from "./reader.ts";

const newline = 0x0a;

/** Space, tab, newline, vertical tab, form feed or carriage return. */
export function isBlank(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** Takes comments out of text: `#` up to the end of the line, which is left. */
export class Comments {
  #isInside = false;

  /** The byte, or `undefined` if it belongs to a comment. */
  pass(byte: number): number | undefined {
    if (this.#isInside) {
      if (byte !== newline && byte !== 0x0d) return undefined;
      this.#isInside = false;
      return newline;
    }
    this.#isInside = byte === 0x23;
    return this.#isInside ? undefined : byte;
  }
}

/** Counts samples up to the last one, and reads on to the end of its line. */
export class TextSamples {
  readonly #comments = new Comments();
  /** Samples are one digit each, 0 or 1, and need nothing between them. */
  readonly #areBits: boolean;
  #left: number;
  /** A sample of several digits has begun. */
  #isBegun = false;

  constructor(count: number, areBits: boolean) {
    this.#left = count;
    this.#areBits = areBits;
  }

  /** Whether all samples are there if no more comes. */
  get isWhole(): boolean {
    return this.#left === 0 || (this.#left === 1 && this.#isBegun);
  }

  /**
   * Takes the bytes from `from` on.
   *
   * @returns where in them the image ends, or -1 if it goes on
   * @throws {Flaw}
   */
  read(bytes: Uint8Array, from: number): number {
    for (let at = from; at < bytes.length; at++) {
      const byte = this.#comments.pass(bytes[at]!);
      if (byte === undefined || this.#isSample(byte, at)) continue;
      if (byte === newline) return at + 1;
      // What the line goes on with is not this image's.
      if (!isBlank(byte)) return at;
    }
    return -1;
  }

  /** Whether the byte is one of the samples, or stands between them. */
  #isSample(byte: number, at: number): boolean {
    if (this.#left === 0) return false;
    if (byte >= 0x30 && byte <= (this.#areBits ? 0x31 : 0x39)) {
      if (this.#areBits) this.#left--;
      else this.#isBegun = true;
      return true;
    }
    if (this.#isBegun) {
      this.#isBegun = false;
      this.#left--;
      if (this.#left === 0) return false;
    }
    if (!isBlank(byte)) {
      const digits = this.#areBits ? "0 or 1" : "a number";
      throw new Flaw(at, `a PNM has ${quoted(Uint8Array.of(byte))} where a sample is ${digits}`);
    }
    return true;
  }
}
