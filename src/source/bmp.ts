/** The end of a BMP: the size in its header, or where that cannot be, the size of its pixels. */
import { Flaw, type ImageReader, TooLarge, UnknownStart } from "./reader.ts";

const State = { header: 0, pixels: 1 } as const;
type State = (typeof State)[keyof typeof State];

/** The file header and, after it, the size of the information header. */
const shortest = 18;
/** The information header of the first kind, which has 16-bit sizes and no compression. */
const coreHeader = 12;
/** The least that one of a later kind may have: sizes and bits, but no compression. */
const briefHeader = 16;
/** As far as a header says how the pixels are compressed. */
const informed = 34;

/** The longest information header there is has 124 bytes; a larger one is for a later day. */
const longestInformation = 1024;

/** Reads BMP. */
export class BmpReader implements ImageReader {
  readonly kind = "a BMP";
  readonly ending = "bmp";
  readonly isWhole = false;
  readonly #largest: number;
  #state: State = State.header;
  readonly #header = new Uint8Array(informed);
  readonly #view = new DataView(this.#header.buffer);
  #need = shortest;
  #came = 0;
  #size = 0;

  /** @param largest bytes that an image may have */
  constructor(largest: number) {
    this.#largest = largest;
  }

  get size(): number | undefined {
    return this.#state === State.pixels ? this.#size : undefined;
  }

  read(bytes: Uint8Array): number {
    let at = 0;
    while (this.#state === State.header) {
      if (at === bytes.length) return -1;
      const byte = bytes[at]!;
      if (this.#came < 2 && byte !== (this.#came === 0 ? 0x42 : 0x4d)) throw new UnknownStart(at);
      this.#header[this.#came++] = byte;
      at++;
      if (this.#came === this.#need) this.#headed(at);
    }
    const missing = this.#size - this.#came;
    if (bytes.length - at >= missing) return at + missing;
    this.#came += bytes.length - at;
    return -1;
  }

  #headed(at: number): void {
    const information = this.#view.getUint32(14, true);
    if (this.#need === shortest) {
      const isCore = information === coreHeader;
      if (!isCore && (information < briefHeader || information > longestInformation)) {
        throw new Flaw(at - 4, `a BMP says that its second header is ${information} bytes long`);
      }
      this.#need =
        information < informed - 14 ? 14 + (isCore ? coreHeader : briefHeader) : informed;
      return;
    }
    const said = this.#view.getUint32(2, true);
    const measured = this.#measured(information);
    if (measured === undefined && said <= Math.max(this.#offset, 14 + information)) {
      throw new Flaw(at - this.#came + 2, `a BMP says it is ${said} bytes long`);
    }
    this.#size = Math.max(said, measured ?? 0);
    this.#state = State.pixels;
    if (this.#size > this.#largest) throw new TooLarge();
  }

  /** Where the pixels begin. */
  get #offset(): number {
    return this.#view.getUint32(10, true);
  }

  /** The size of the file by its pixels, if they are not compressed and all is in order. */
  #measured(information: number): number | undefined {
    const isCore = information === coreHeader;
    const width = isCore ? this.#view.getUint16(18, true) : this.#view.getInt32(18, true);
    const height = isCore ? this.#view.getUint16(20, true) : this.#view.getInt32(22, true);
    const bits = this.#view.getUint16(isCore ? 24 : 28, true);
    // A header too short to say has no compression.
    const compression = this.#need === informed ? this.#view.getUint32(30, true) : 0;
    // Masks say what lies where in a pixel; of one bit, 3 is the fax compression of OS/2.
    const hasMasks = (compression === 3 || compression === 6) && (bits === 16 || bits === 32);
    if (width <= 0 || height === 0 || this.#offset < 14 + information) return undefined;
    if (![1, 2, 4, 8, 16, 24, 32, 64].includes(bits)) return undefined;
    if (compression !== 0 && !hasMasks) return undefined;
    // Rows fill whole words; a negative height is that of an image from the top down.
    const row = Math.ceil((width * bits) / 32) * 4;
    return this.#offset + row * Math.abs(height);
  }
}
