/** Finds the end of a JPEG: follows segments by length, and scan data by its byte stuffing. */
import { ImageError, type ImageParser, UnknownImageError } from "./image-parser.ts";

const State = {
  start: 0,
  /** The FF byte before a marker code. */
  marker: 1,
  code: 2,
  /** The two length bytes of a segment. */
  length: 3,
  segment: 4,
  /** Entropy-coded data. */
  scan: 5,
  /** After an FF byte in entropy-coded data. */
  scanMarker: 6,
} as const;
type State = (typeof State)[keyof typeof State];

const MarkerCode = {
  temporary: 0x01,
  /** Frame headers, Huffman tables and arithmetic conditioning. */
  firstOfFrame: 0xc0,
  lastOfFrame: 0xcf,
  firstRestart: 0xd0,
  lastRestart: 0xd7,
  startOfImage: 0xd8,
  endOfImage: 0xd9,
  startOfScan: 0xda,
  restartInterval: 0xdd,
  /** Segments of these markers may contain a thumbnail: Exif, MPF, Photoshop. */
  firstWithThumbnail: 0xe1,
  lastWithThumbnail: 0xef,
  /** The frame header of JPEG-LS. */
  startOfFrameLs: 0xf7,
} as const;

const newJpegMessage = "a new JPEG begins before the one before it has ended";

/** Parses JPEG with or without Huffman tables: sequential, progressive, lossless or JPEG-LS. */
export class JpegParser implements ImageParser {
  readonly label = "a JPEG";
  readonly extension = "jpg";
  readonly size = undefined;
  readonly isComplete = false;
  #state: State = State.start;
  /** Bytes received of the signature or of a length. */
  #received = 0;
  #code = 0;
  #length = 0;
  /** Bytes of the segment still to come. */
  #remaining = 0;
  /** Bytes of the image before the current piece. */
  #consumed = 0;
  /** Offset of the last marker, in the image. */
  #markerAt = 1;
  /** End of the last segment by its length, in the image. */
  #segmentEnd = 0;
  /** Last byte of the segment so far, if it is short. */
  #lastByte = 0;
  /** JPEG-LS stuffs a bit instead of a byte: after FF, values below 80 are data. */
  #isJpegLs = false;

  /** A marker after a segment shows that the length of the segment is right. */
  get trustedBytes(): number {
    // Scan data contains no start of an image, because that would be a marker.
    return this.#state === State.scan ? this.#consumed : this.#markerAt;
  }

  get embeddedBytes(): number {
    const hasThumbnail =
      this.#code >= MarkerCode.firstWithThumbnail && this.#code <= MarkerCode.lastWithThumbnail;
    return hasThumbnail ? this.#segmentEnd : 0;
  }

  parse(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length) {
      switch (this.#state) {
        case State.scan:
          at = this.#skipScanData(bytes, at);
          break;
        case State.scanMarker:
          this.#state = this.#afterScanMarker(bytes[at]!, at);
          at++;
          if (this.#state === State.start) return at;
          break;
        case State.segment: {
          const count = Math.min(this.#remaining, bytes.length - at);
          if (this.#isShortSegment) this.#checkSegment(bytes.subarray(at, at + count), at);
          at += count;
          this.#remaining -= count;
          if (this.#remaining > 0) break;
          this.#state = this.#code === MarkerCode.startOfScan ? this.#scanState : State.marker;
          break;
        }
        case State.start:
          this.#parseStart(bytes[at]!, at);
          at++;
          break;
        case State.marker:
          if (bytes[at] !== 0xff) {
            throw new ImageError(
              at,
              `a JPEG has ${hex(bytes[at]!)} where a marker must begin with FF`,
            );
          }
          at++;
          this.#state = State.code;
          break;
        case State.code:
          this.#state = this.#afterCode(bytes[at]!, at);
          at++;
          if (this.#state === State.start) return at;
          break;
        case State.length:
          this.#addLength(bytes[at]!, at);
          at++;
          break;
      }
    }
    this.#consumed += at;
    return -1;
  }

  #parseStart(byte: number, at: number): void {
    if (byte !== (this.#received === 0 ? 0xff : MarkerCode.startOfImage))
      throw new UnknownImageError(at);
    if (++this.#received === 2) this.#state = State.marker;
  }

  /** Returns the offset after the next FF byte that may begin a marker, or the end of `bytes`. */
  #skipScanData(bytes: Uint8Array, from: number): number {
    let at = from;
    // Hot loop: nearly every FF byte is followed by its stuffed zero in the same piece.
    do {
      const found = bytes.indexOf(0xff, at);
      if (found < 0) return bytes.length;
      at = found + 2;
    } while (bytes[at - 1] === 0);
    this.#state = State.scanMarker;
    return at - 1;
  }

  #afterScanMarker(code: number, at: number): State {
    const isData = code === 0 || isRestart(code) || (this.#isJpegLs && code < 0x80);
    return isData ? State.scan : this.#afterCode(code, at, State.scanMarker);
  }

  /** Returns the state after a marker with this code, or `start` at the end of the image. */
  #afterCode(code: number, at: number, fillState: State = State.code): State {
    // Any number of FF bytes may precede a marker code.
    if (code === 0xff) return fillState;
    if (code === MarkerCode.endOfImage) return State.start;
    // In scan data every marker is trusted, elsewhere one that may follow a segment.
    if (code >= 0xc0 || fillState === State.scanMarker) this.#markerAt = this.#consumed + at - 1;
    if (code === MarkerCode.startOfImage) {
      throw new ImageError(at - 1, newJpegMessage);
    }
    if (code === MarkerCode.temporary || isRestart(code)) return State.marker;
    if (code < 0xc0) {
      const where = fillState === State.scanMarker ? " in its coded data" : "";
      throw new ImageError(
        at - 1,
        `a JPEG has the marker FF ${hex(code)}${where}, which is not allowed`,
      );
    }
    if (code === MarkerCode.startOfFrameLs) this.#isJpegLs = true;
    this.#code = code;
    this.#length = 0;
    this.#received = 0;
    return State.length;
  }

  /** Whether no segment of this kind can contain FF D8: frame header, Huffman tables, scan header. */
  get #isShortSegment(): boolean {
    const { firstOfFrame, lastOfFrame, startOfScan, restartInterval } = MarkerCode;
    const code = this.#code;
    return (
      (code >= firstOfFrame && code <= lastOfFrame) ||
      code === startOfScan ||
      code === restartInterval
    );
  }

  /** State at the start of scan data. A cut scan header may end with the first byte of a marker. */
  get #scanState(): State {
    return this.#lastByte === 0xff ? State.scanMarker : State.scan;
  }

  /** Throws if the image was cut off in this segment and the next image has begun. */
  #checkSegment(bytes: Uint8Array, at: number): void {
    let last = this.#lastByte;
    for (let index = 0; index < bytes.length; index++) {
      const byte = bytes[index]!;
      if (last === 0xff && byte === MarkerCode.startOfImage) {
        throw new ImageError(at + index - 1, newJpegMessage);
      }
      last = byte;
    }
    this.#lastByte = last;
  }

  #addLength(byte: number, at: number): void {
    this.#length = this.#length * 256 + byte;
    if (++this.#received < 2) return;
    // The length includes its own two bytes.
    if (this.#length < 2) {
      const segment = `the JPEG segment FF ${hex(this.#code)}`;
      throw new ImageError(
        at - 1,
        `${segment} says it is ${this.#length} bytes long, expected 2 or more`,
      );
    }
    this.#remaining = this.#length - 2;
    this.#lastByte = this.#length & 0xff;
    this.#segmentEnd = this.#consumed + at + 1 + this.#remaining;
    this.#state = State.segment;
  }
}

function isRestart(code: number): boolean {
  return code >= MarkerCode.firstRestart && code <= MarkerCode.lastRestart;
}

function hex(byte: number): string {
  return byte.toString(16).toUpperCase().padStart(2, "0");
}
