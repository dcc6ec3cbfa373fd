/** The end of a PNG: chunks by their lengths, each held to its CRC-32, up to IEND. */
import { crc32 } from "node:zlib";
import { Flaw, type ImageReader, quoted, TooLarge, UnknownStart } from "./reader.ts";

const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/** Bytes of a chunk's data, by the specification of PNG. */
const longestChunk = 0x7fff_ffff;

/** A chunk's length, type and CRC-32. */
const chunkFrame = 12;

const State = { signature: 0, length: 1, type: 2, data: 3, crc: 4 } as const;
type State = (typeof State)[keyof typeof State];

/** Reads PNG; an animated one is one image. */
export class PngReader implements ImageReader {
  readonly kind = "a PNG";
  readonly ending = "png";
  readonly size = undefined;
  readonly isWhole = false;
  readonly #largest: number;
  #state: State = State.signature;
  /** Bytes that came of the part being read. */
  #came = 0;
  /** Bytes of the image before the piece being read. */
  #before = 0;
  #number = 0;
  #type = new Uint8Array(4);
  #crc = 0;
  /** Bytes of data to come. */
  #left = 0;

  /** @param largest bytes that an image may have */
  constructor(largest: number) {
    this.#largest = largest;
  }

  read(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length) {
      if (this.#state === State.data) {
        const data = bytes.subarray(at, at + this.#left);
        this.#crc = crc32(data, this.#crc);
        this.#left -= data.length;
        at += data.length;
        if (this.#left === 0) this.#enter(State.crc);
        continue;
      }
      this.#byte(bytes[at]!, at);
      at++;
      if (this.#state === State.signature && this.#came === 0) return at;
    }
    this.#before += at;
    return -1;
  }

  #byte(byte: number, at: number): void {
    switch (this.#state) {
      case State.signature:
        if (byte !== signature[this.#came]) throw new UnknownStart(at);
        if (++this.#came === signature.length) this.#enter(State.length);
        return;
      case State.length:
        this.#number = this.#number * 256 + byte;
        if (++this.#came === 4) this.#length(at);
        return;
      case State.type:
        this.#type[this.#came] = byte;
        if (++this.#came === 4) this.#typed(at);
        return;
      case State.crc:
        this.#number = this.#number * 256 + byte;
        if (++this.#came === 4) this.#check(at);
        return;
    }
  }

  #enter(state: State): void {
    this.#state = state;
    this.#came = 0;
    this.#number = 0;
  }

  #length(at: number): void {
    const length = this.#number;
    if (length > longestChunk) {
      throw new Flaw(at - 3, `a PNG chunk says it is ${length} bytes long`);
    }
    this.#left = length;
    if (this.#before + at - 3 + chunkFrame + length > this.#largest) throw new TooLarge();
    this.#enter(State.type);
  }

  #typed(at: number): void {
    if (!this.#type.every(isLetter)) {
      const type = quoted(this.#type);
      throw new Flaw(at - 3, `a PNG chunk has the type ${type}, which is not four letters`);
    }
    this.#crc = crc32(this.#type);
    this.#enter(this.#left === 0 ? State.crc : State.data);
  }

  #check(at: number): void {
    if (this.#number !== this.#crc) {
      const type = Buffer.from(this.#type).toString("latin1");
      throw new Flaw(at - 3, `the CRC-32 of the PNG chunk ${type} does not match`);
    }
    this.#enter(this.#isLast ? State.signature : State.length);
  }

  get #isLast(): boolean {
    const [first, second, third, fourth] = this.#type;
    return first === 0x49 && second === 0x45 && third === 0x4e && fourth === 0x44;
  }
}

function isLetter(byte: number): boolean {
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x7a;
}
