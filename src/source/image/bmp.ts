/** The end of a BMP: the size in its header, or where that cannot be, the size of its pixels. */
import {
  ImageError,
  type ImageParser,
  ImageTooLargeError,
  UnknownImageError,
} from "./image-parser.ts";

const State = { header: 0, pixels: 1 } as const;
type State = (typeof State)[keyof typeof State];

/** The file header and, after it, the size of the information header. */
const minHeaderBytes = 18;
/** The information header of the first kind, which has 16-bit sizes and no compression. */
const coreHeaderBytes = 12;
/** The least that one of a later kind may have: sizes and bits, but no compression. */
const minInfoHeaderBytes = 16;
/** As far as a header says how the pixels are compressed. */
const parsedHeaderBytes = 34;

/** The longest information header there is has 124 bytes; a larger one is for a later day. */
const maxInfoHeaderBytes = 1024;

/** Reads BMP. */
export class BmpParser implements ImageParser {
  readonly label = "a BMP";
  readonly extension = "bmp";
  readonly isComplete = false;
  readonly #maxBytes: number;
  #state: State = State.header;
  readonly #header = new Uint8Array(parsedHeaderBytes);
  readonly #view = new DataView(this.#header.buffer);
  #neededBytes = minHeaderBytes;
  #received = 0;
  #size = 0;

  /** @param maxBytes bytes that an image may have */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get size(): number | undefined {
    return this.#state === State.pixels ? this.#size : undefined;
  }

  parse(bytes: Uint8Array): number {
    let at = 0;
    while (this.#state === State.header) {
      if (at === bytes.length) return -1;
      const byte = bytes[at]!;
      if (this.#received < 2 && byte !== (this.#received === 0 ? 0x42 : 0x4d))
        throw new UnknownImageError(at);
      this.#header[this.#received++] = byte;
      at++;
      if (this.#received === this.#neededBytes) this.#parseHeader(at);
    }
    const remaining = this.#size - this.#received;
    if (bytes.length - at >= remaining) return at + remaining;
    this.#received += bytes.length - at;
    return -1;
  }

  #parseHeader(at: number): void {
    const infoSize = this.#view.getUint32(14, true);
    if (this.#neededBytes === minHeaderBytes) {
      const isCore = infoSize === coreHeaderBytes;
      if (!isCore && (infoSize < minInfoHeaderBytes || infoSize > maxInfoHeaderBytes)) {
        throw new ImageError(at - 4, `a BMP says that its second header is ${infoSize} bytes long`);
      }
      this.#neededBytes =
        infoSize < parsedHeaderBytes - 14
          ? 14 + (isCore ? coreHeaderBytes : minInfoHeaderBytes)
          : parsedHeaderBytes;
      return;
    }
    const declaredSize = this.#view.getUint32(2, true);
    const computedSize = this.#computeSize(infoSize);
    if (computedSize === undefined && declaredSize <= Math.max(this.#pixelOffset, 14 + infoSize)) {
      throw new ImageError(at - this.#received + 2, `a BMP says it is ${declaredSize} bytes long`);
    }
    this.#size = Math.max(declaredSize, computedSize ?? 0);
    this.#state = State.pixels;
    if (this.#size > this.#maxBytes) throw new ImageTooLargeError();
  }

  /** Where the pixels begin. */
  get #pixelOffset(): number {
    return this.#view.getUint32(10, true);
  }

  /** The size of the file by its pixels, if they are not compressed and all is in order. */
  #computeSize(infoSize: number): number | undefined {
    const isCore = infoSize === coreHeaderBytes;
    const width = isCore ? this.#view.getUint16(18, true) : this.#view.getInt32(18, true);
    const height = isCore ? this.#view.getUint16(20, true) : this.#view.getInt32(22, true);
    const bits = this.#view.getUint16(isCore ? 24 : 28, true);
    // A header too short to say has no compression.
    const compression =
      this.#neededBytes === parsedHeaderBytes ? this.#view.getUint32(30, true) : 0;
    // Masks say what lies where in a pixel; of one bit, 3 is the fax compression of OS/2.
    const hasMasks = (compression === 3 || compression === 6) && (bits === 16 || bits === 32);
    if (width <= 0 || height === 0 || this.#pixelOffset < 14 + infoSize) return undefined;
    if (![1, 2, 4, 8, 16, 24, 32, 64].includes(bits)) return undefined;
    if (compression !== 0 && !hasMasks) return undefined;
    // Rows fill whole words; a negative height is that of an image from the top down.
    const rowBytes = Math.ceil((width * bits) / 32) * 4;
    return this.#pixelOffset + rowBytes * Math.abs(height);
  }
}
