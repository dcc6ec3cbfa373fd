/** Splits a stream of encoded video in Annex B into access units, each of one picture. */
import { findStartCode, isSlice, typeOf, type VideoCodec } from "./nal-units.ts";
import { ParameterSets } from "./parameter-sets.ts";

/** Bytes of a NAL unit that show whether it begins an access unit: start code, header, slice. */
const maxHeadBytes = 7;

/**
 * Finds where an access unit ends: where the next one begins (H.264 section 7.4.1.2.3, H.265 section
 * 7.4.2.4.4). Key frames get the parameter sets of the stream if they have none.
 */
export class AccessUnitSplitter {
  readonly #codec: VideoCodec;
  readonly #maxBytes: number;
  #buffer = Buffer.alloc(64 << 10);
  /** Bytes in the buffer. The access unit begins at 0. */
  #length = 0;
  /** Offset in the buffer up to which start codes were searched. */
  #searched = 0;
  /** Whether the access unit has a slice already. */
  #hasSlice = false;
  /** Bytes of the current access unit that were dropped because it is too large. */
  #dropped = 0;
  /** Whether the buffer begins with a start code. Bytes before the first one are dropped. */
  #isAligned = false;
  readonly #parameterSets: ParameterSets;

  /** @param maxBytes larger access units are dropped */
  constructor(codec: VideoCodec, maxBytes: number) {
    this.#codec = codec;
    this.#maxBytes = maxBytes;
    this.#parameterSets = new ParameterSets(codec);
  }

  /** Whether a start code has come. */
  get isAligned(): boolean {
    return this.#isAligned;
  }

  /**
   * Takes the next bytes, and yields each access unit after which another one begins. Each is a copy.
   * Yields a number, the size in bytes, for one that is too large.
   */
  *push(chunk: Uint8Array): Generator<Uint8Array | number, undefined> {
    this.#append(chunk);
    if (!this.#isAligned) this.#align();
    for (let end; (end = this.#findEnd()) >= 0;) yield* this.#take(end);
    if (this.#length <= this.#maxBytes) return undefined;
    // Keep what may be the beginning of a start code.
    const kept = Math.min(this.#length, maxHeadBytes);
    this.#dropped += this.#length - kept;
    this.#buffer.copyWithin(0, this.#length - kept, this.#length);
    this.#searched = Math.max(0, this.#searched - (this.#length - kept));
    this.#length = kept;
    return undefined;
  }

  /** Yields the last access unit, if it has a picture or is too large. */
  *end(): Generator<Uint8Array | number, undefined> {
    if (this.#hasSlice || this.#dropped > 0) yield* this.#take(this.#length);
    return undefined;
  }

  /** Drops the bytes before the first start code. */
  #align(): void {
    const at = findStartCode(this.#buffer.subarray(0, this.#length), 0);
    this.#isAligned = at >= 0;
    // The last three bytes may be the beginning of a start code of four.
    const start = at < 0 ? Math.max(0, this.#length - 3) : this.#buffer[at - 1] === 0 ? at - 1 : at;
    this.#buffer.copyWithin(0, start, this.#length);
    this.#length -= start;
  }

  #append(chunk: Uint8Array): void {
    if (this.#length + chunk.length > this.#buffer.length) {
      // No more than the limit and a chunk is ever kept.
      const doubled = Math.min(2 * this.#buffer.length, this.#maxBytes);
      const larger = Buffer.alloc(Math.max(doubled, this.#length + chunk.length));
      larger.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = larger;
    }
    this.#buffer.set(chunk, this.#length);
    this.#length += chunk.length;
  }

  /** Returns where the next access unit begins, or -1 if that is not known yet. */
  #findEnd(): number {
    const bytes = this.#buffer.subarray(0, this.#length);
    for (;;) {
      const at = findStartCode(bytes, this.#searched);
      if (at < 0) {
        this.#searched = Math.max(this.#searched, this.#length - 2);
        return -1;
      }
      if (at + maxHeadBytes > this.#length) {
        this.#searched = at;
        return -1;
      }
      this.#searched = at + 3;
      const type = typeOf(bytes[at + 3]!, this.#codec);
      if (this.#hasSlice && this.#beginsUnit(bytes, at + 3, type)) {
        this.#searched = at;
        return bytes[at - 1] === 0 ? at - 1 : at;
      }
      this.#hasSlice ||= isSlice(type, this.#codec);
    }
  }

  /** Whether a NAL unit after a slice begins the next access unit. */
  #beginsUnit(bytes: Buffer, header: number, type: number): boolean {
    // The first bit of a slice tells that it is the first one of its picture.
    if (this.#codec === "h264") {
      if (isSlice(type, "h264")) return type !== 3 && type !== 4 && bytes[header + 1]! >= 0x80;
      return (type >= 6 && type <= 9) || (type >= 14 && type <= 18);
    }
    if (isSlice(type, "h265")) return bytes[header + 2]! >= 0x80;
    return type <= 35 || type === 39 || (type >= 41 && type <= 44) || (type >= 48 && type <= 55);
  }

  *#take(end: number): Generator<Uint8Array | number, undefined> {
    const bytes = this.#buffer.subarray(0, end);
    const total = this.#dropped + end;
    if (total > this.#maxBytes) yield total;
    else yield this.#parameterSets.complete(new Uint8Array(bytes));
    this.#buffer.copyWithin(0, end, this.#length);
    this.#length -= end;
    this.#searched = Math.max(0, this.#searched - end);
    this.#hasSlice = false;
    this.#dropped = 0;
  }
}
