/**
 * Parses packets written by two ffmpeg muxers in turn: a line of `framecrc`, then the bytes it
 * describes.
 */
import { FramesError } from "../../errors.ts";
import type { LostCapture } from "../live/iterable-source.ts";

/** A packet from ffmpeg: one frame, or what its container stores as one. */
export interface Packet {
  /** A copy that the parser does not change afterwards. */
  readonly bytes: Uint8Array;
  /** Presentation time in nanoseconds since the start of the input; `undefined` if unknown. */
  readonly time: bigint | undefined;
  /** Duration in nanoseconds; 0 if unknown. */
  readonly duration: bigint;
}

/** A packet that is too large. */
export type LostPacket = LostCapture & Omit<Packet, "bytes">;

/** Limit for a line in characters. Real lines have fewer than 200. */
const maxLineLength = 4096;

const newline = 0x0a;

/** Start of a packet line: stream, decoding time, presentation time, duration, bytes. */
const packetLinePattern = /^\d+, *(?:-?\d+|NOPTS), *(-?\d+|NOPTS), *(-?\d+), *(\d+), /;

/** Value that some ffmpeg versions write for a packet without a time. */
const noTimestamp = -(1n << 63n);

/**
 * Splits the output of ffmpeg into packets. The length of each packet precedes it, so an oversized
 * packet is passed over without buffering it.
 */
export class PacketParser {
  readonly #maxPacketBytes: number;
  #line = "";
  #packet: Omit<Packet, "bytes"> | undefined;
  #bytes = new Uint8Array(0);
  #received = 0;
  /** Bytes of an oversized packet still to come. */
  #skipping = 0;
  /** Nanoseconds in one unit of time, as a fraction. */
  #timeBase = { numerator: 1_000_000_000n, denominator: 1n };

  /** @param maxPacketBytes largest allowed packet, in bytes */
  constructor(maxPacketBytes: number) {
    this.#maxPacketBytes = maxPacketBytes;
  }

  /**
   * Takes the next bytes and yields the packets they complete, and a loss for each packet that is
   * too large. The caller must take all of these before the next call.
   *
   * @throws {FramesError} `unreadable` if the output of ffmpeg has another format
   */
  *push(chunk: Uint8Array): Generator<Packet | LostPacket, undefined> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#skipping > 0) {
        const count = Math.min(this.#skipping, chunk.length - at);
        this.#skipping -= count;
        at += count;
      } else if (this.#packet === undefined) {
        const end = chunk.indexOf(newline, at);
        const piece = chunk.subarray(at, end < 0 ? chunk.length : end);
        at += piece.length + (end < 0 ? 0 : 1);
        if (this.#line.length + piece.length > maxLineLength) this.#fail();
        this.#line += Buffer.from(piece.buffer, piece.byteOffset, piece.length).toString("latin1");
        if (end < 0) return undefined;
        const loss = this.#parseLine(this.#line);
        this.#line = "";
        if (loss !== undefined) yield loss;
      } else {
        const piece = chunk.subarray(at, at + this.#bytes.length - this.#received);
        this.#bytes.set(piece, this.#received);
        this.#received += piece.length;
        at += piece.length;
      }
      if (this.#packet !== undefined && this.#received === this.#bytes.length) {
        const packet = { ...this.#packet, bytes: this.#bytes };
        this.#packet = undefined;
        // Some containers have empty packets where the camera skipped a frame.
        if (packet.bytes.length > 0) yield packet;
      }
    }
    return undefined;
  }

  /** Returns the loss of a packet that is too large. */
  #parseLine(line: string): LostPacket | undefined {
    if (line.startsWith("#")) {
      const [, numerator, denominator] = /^#tb 0: (\d+)\/(\d+)/.exec(line) ?? [];
      if (numerator === undefined || denominator === undefined) return undefined;
      this.#timeBase = {
        numerator: BigInt(numerator) * 1_000_000_000n,
        denominator: BigInt(denominator),
      };
      return undefined;
    }
    const [, time, duration, length] = packetLinePattern.exec(line) ?? [];
    if (time === undefined || duration === undefined || length === undefined) this.#fail();
    const size = Number(length);
    const isTimed = time !== "NOPTS" && BigInt(time) !== noTimestamp;
    const packet = {
      time: isTimed ? this.#toNanoseconds(time) : undefined,
      duration: this.#toNanoseconds(duration),
    };
    if (size > this.#maxPacketBytes) {
      this.#skipping = size;
      const limit = `the limit is ${this.#maxPacketBytes}`;
      const message = `Cannot read a frame: it is ${size} bytes long, ${limit}`;
      return { ...packet, error: new FramesError("too-large", message) };
    }
    this.#packet = packet;
    this.#bytes = new Uint8Array(size);
    this.#received = 0;
    return undefined;
  }

  #toNanoseconds(units: string): bigint {
    return (BigInt(units) * this.#timeBase.numerator) / this.#timeBase.denominator;
  }

  #fail(): never {
    throw new FramesError(
      "unreadable",
      "Cannot read the output of ffmpeg: its format is unknown; install ffmpeg 4.4 or later",
    );
  }
}
