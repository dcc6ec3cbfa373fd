/** Packets as two muxers of ffmpeg write them in turn: a line of `framecrc`, then the bytes it tells of. */
import { FramesError } from "../../errors.ts";

/** What ffmpeg gave out in one piece: a frame, or what its container has as one. */
export interface Packet {
  /** Its own: nothing else changes them. */
  readonly bytes: Uint8Array;
  /** When it is to be shown, in nanoseconds since the start of its input; `undefined` if nothing says so. */
  readonly time: bigint | undefined;
  /** For how long, in nanoseconds; 0 if nothing says so. */
  readonly duration: bigint;
}

/** Characters of a line: they have fewer than 200. */
const maxLineLength = 4096;

const newline = 0x0a;

/** How the line of a packet begins: stream, when to decode, when to show, for how long, bytes. */
const packetLinePattern = /^\d+, *(?:-?\d+|NOPTS), *(-?\d+|NOPTS), *(-?\d+), *(\d+), /;

/** How some versions write that a packet has no time. */
const noTimestamp = -(1n << 63n);

/**
 * Cuts what ffmpeg writes into packets. The length of each comes before it, so that nothing is guessed
 * from its bytes, and what is too large is known before any of it is kept.
 */
export class PacketParser {
  readonly #maxPacketBytes: number;
  #line = "";
  #packet: Omit<Packet, "bytes"> | undefined;
  #bytes = new Uint8Array(0);
  #received = 0;
  /** Nanoseconds of one unit of time, as a fraction. */
  #timeBase = { numerator: 1_000_000_000n, denominator: 1n };

  /** @param maxPacketBytes bytes that a packet may have */
  constructor(maxPacketBytes: number) {
    this.#maxPacketBytes = maxPacketBytes;
  }

  /**
   * Takes the next bytes and gives the packets that are whole now. All must be taken before the next call.
   *
   * @throws {FramesError} `too-large`, or `unreadable` if ffmpeg writes something else
   */
  *push(chunk: Uint8Array): Generator<Packet, undefined> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#packet === undefined) {
        const end = chunk.indexOf(newline, at);
        const piece = chunk.subarray(at, end < 0 ? chunk.length : end);
        at += piece.length + (end < 0 ? 0 : 1);
        if (this.#line.length + piece.length > maxLineLength) this.#fail();
        this.#line += Buffer.from(piece.buffer, piece.byteOffset, piece.length).toString("latin1");
        if (end < 0) return undefined;
        this.#parseLine(this.#line);
        this.#line = "";
      } else {
        const piece = chunk.subarray(at, at + this.#bytes.length - this.#received);
        this.#bytes.set(piece, this.#received);
        this.#received += piece.length;
        at += piece.length;
      }
      if (this.#packet !== undefined && this.#received === this.#bytes.length) {
        const packet = { ...this.#packet, bytes: this.#bytes };
        this.#packet = undefined;
        // Some containers have empty packets where a camera left out a frame.
        if (packet.bytes.length > 0) yield packet;
      }
    }
    return undefined;
  }

  #parseLine(line: string): void {
    if (line.startsWith("#")) {
      const [, numerator, denominator] = /^#tb 0: (\d+)\/(\d+)/.exec(line) ?? [];
      if (numerator === undefined || denominator === undefined) return;
      this.#timeBase = {
        numerator: BigInt(numerator) * 1_000_000_000n,
        denominator: BigInt(denominator),
      };
      return;
    }
    const [, time, duration, length] = packetLinePattern.exec(line) ?? [];
    if (time === undefined || duration === undefined || length === undefined) this.#fail();
    const size = Number(length);
    if (size > this.#maxPacketBytes) {
      const limit = `${this.#maxPacketBytes} are the most`;
      throw new FramesError("too-large", `Cannot read a frame: it is ${size} bytes long, ${limit}`);
    }
    const isTimed = time !== "NOPTS" && BigInt(time) !== noTimestamp;
    this.#packet = {
      time: isTimed ? this.#toNanoseconds(time) : undefined,
      duration: this.#toNanoseconds(duration),
    };
    this.#bytes = new Uint8Array(size);
    this.#received = 0;
  }

  #toNanoseconds(units: string): bigint {
    return (BigInt(units) * this.#timeBase.numerator) / this.#timeBase.denominator;
  }

  #fail(): never {
    throw new FramesError("unreadable", "Cannot read what ffmpeg writes: it is not as expected");
  }
}
