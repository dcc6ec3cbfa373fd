/** Finds the end of a PNG: follows chunks by length to IEND and checks the CRC-32 of each. */
import { crc32 } from "../../common/checksum.ts";
import {
  ImageError,
  type ImageParser,
  quoteBytes,
  ImageTooLargeError,
  UnknownImageError,
} from "./image-parser.ts";

const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/** Limit for the data of a chunk in bytes, from the PNG specification. */
const maxChunkBytes = 0x7fff_ffff;

/** Bytes of a chunk besides its data: length, type and CRC-32. */
const chunkOverheadBytes = 12;

const State = { signature: 0, length: 1, type: 2, data: 3, crc: 4 } as const;
type State = (typeof State)[keyof typeof State];

/** Parses PNG. An animated PNG is one image. */
export class PngParser implements ImageParser {
  readonly label = "a PNG";
  readonly extension = "png";
  readonly size = undefined;
  readonly isComplete = false;
  readonly embeddedBytes = 0;
  /** Size of the signature and of the chunks with a correct CRC-32; 1 before these. */
  trustedBytes = 1;
  readonly #maxBytes: number;
  #state: State = State.signature;
  /** Bytes received of the current field. */
  #received = 0;
  /** Bytes of the image before the current piece. */
  #consumed = 0;
  #number = 0;
  #type = new Uint8Array(4);
  #crc = 0;
  /** Bytes of chunk data still to come. */
  #remaining = 0;

  /** @param maxBytes largest allowed image, in bytes */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  parse(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length) {
      if (this.#state === State.data) {
        const data = bytes.subarray(at, at + this.#remaining);
        this.#crc = crc32(data, this.#crc);
        this.#remaining -= data.length;
        at += data.length;
        if (this.#remaining === 0) this.#enterState(State.crc);
        continue;
      }
      this.#parseByte(bytes[at]!, at);
      at++;
      // A signature or a chunk has ended.
      if (this.#state === State.length && this.#received === 0)
        this.trustedBytes = this.#consumed + at;
      if (this.#state === State.signature && this.#received === 0) return at;
    }
    this.#consumed += at;
    return -1;
  }

  #parseByte(byte: number, at: number): void {
    switch (this.#state) {
      case State.signature:
        if (byte !== signature[this.#received]) throw new UnknownImageError(at);
        if (++this.#received === signature.length) this.#enterState(State.length);
        return;
      case State.length:
        this.#number = this.#number * 256 + byte;
        if (++this.#received === 4) this.#checkLength(at);
        return;
      case State.type:
        this.#type[this.#received] = byte;
        if (++this.#received === 4) this.#checkType(at);
        return;
      case State.crc:
        this.#number = this.#number * 256 + byte;
        if (++this.#received === 4) this.#checkCrc(at);
        return;
    }
  }

  #enterState(state: State): void {
    this.#state = state;
    this.#received = 0;
    this.#number = 0;
  }

  #checkLength(at: number): void {
    const length = this.#number;
    if (length > maxChunkBytes) {
      throw new ImageError(at - 3, `a PNG chunk says it is ${length} bytes long`);
    }
    this.#remaining = length;
    if (this.#consumed + at - 3 + chunkOverheadBytes + length > this.#maxBytes)
      throw new ImageTooLargeError();
    this.#enterState(State.type);
  }

  #checkType(at: number): void {
    if (!this.#type.every(isLetter)) {
      const type = quoteBytes(this.#type);
      throw new ImageError(at - 3, `a PNG chunk has the type ${type}, which is not four letters`);
    }
    this.#crc = crc32(this.#type);
    this.#enterState(this.#remaining === 0 ? State.crc : State.data);
  }

  #checkCrc(at: number): void {
    if (this.#number !== this.#crc) {
      const type = Buffer.from(this.#type).toString("latin1");
      throw new ImageError(at - 3, `the CRC-32 of the PNG chunk ${type} does not match`);
    }
    this.#enterState(this.#isEndChunk ? State.signature : State.length);
  }

  get #isEndChunk(): boolean {
    const [first, second, third, fourth] = this.#type;
    return first === 0x49 && second === 0x45 && third === 0x4e && fourth === 0x44;
  }
}

function isLetter(byte: number): boolean {
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x7a;
}
