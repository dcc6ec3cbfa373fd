/** Finds the end of a BMP by the size in its header, or else by the size of its pixels. */
import {
  ImageError,
  type ImageParser,
  ImageTooLargeError,
  UnknownImageError,
} from "./image-parser.ts";

const State = { header: 0, pixels: 1 } as const;
type State = (typeof State)[keyof typeof State];

/** Size of the file header and of the length field of the information header. */
const minHeaderBytes = 18;
/**
 * Size of the first version of the information header, with 16-bit dimensions and no compression.
 */
const coreHeaderBytes = 12;
/** Size of the shortest later information header: dimensions and bit depth, but no compression. */
const minInfoHeaderBytes = 16;
/** End of the compression field, the last one that is read. */
const parsedHeaderBytes = 34;

/** Limit for the information header. The longest one defined has 124 bytes. */
const maxInfoHeaderBytes = 1024;

/** Parses BMP. */
export class BmpParser implements ImageParser {
  readonly label = "a BMP";
  readonly extension = "bmp";
  readonly isComplete = false;
  readonly trustedBytes = 1;
  readonly embeddedBytes = 0;
  readonly #maxBytes: number;
  #state: State = State.header;
  readonly #header = new Uint8Array(parsedHeaderBytes);
  readonly #view = new DataView(this.#header.buffer);
  #neededBytes = minHeaderBytes;
  #received = 0;
  #size = 0;

  /** @param maxBytes largest allowed image, in bytes */
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

  /** Offset of the pixels in the file. */
  get #pixelOffset(): number {
    return this.#view.getUint32(10, true);
  }

  /**
   * Returns the file size computed from the dimensions, or `undefined` for compressed or invalid
   * images.
   */
  #computeSize(infoSize: number): number | undefined {
    const isCore = infoSize === coreHeaderBytes;
    const width = isCore ? this.#view.getUint16(18, true) : this.#view.getInt32(18, true);
    const height = isCore ? this.#view.getUint16(20, true) : this.#view.getInt32(22, true);
    const bits = this.#view.getUint16(isCore ? 24 : 28, true);
    // A header too short for this field means no compression.
    const compression =
      this.#neededBytes === parsedHeaderBytes ? this.#view.getUint32(30, true) : 0;
    // 3 and 6 mean bit masks, which do not change the size. With 1 bit, 3 is the fax compression of
    // OS/2.
    const hasMasks = (compression === 3 || compression === 6) && (bits === 16 || bits === 32);
    if (width <= 0 || height === 0 || this.#pixelOffset < 14 + infoSize) return undefined;
    if (![1, 2, 4, 8, 16, 24, 32, 64].includes(bits)) return undefined;
    if (compression !== 0 && !hasMasks) return undefined;
    // Rows are padded to 4 bytes. A negative height means that rows run from top to bottom.
    const rowBytes = Math.ceil((width * bits) / 32) * 4;
    return this.#pixelOffset + rowBytes * Math.abs(height);
  }
}
