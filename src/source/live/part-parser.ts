/** Parses a pipe of frames with headers, as `frames help pipes` specifies it. */
import { FramesError } from "../../errors.ts";
import type { Capture } from "./iterable-source.ts";
import {
  parsePartHeader,
  partError,
  partFrame,
  type PartHeader,
  partName,
  partSize,
  partSource,
} from "./part-header.ts";

/** Bytes of a part's boundary and headers, line ends included, at most. */
const maxHeaderBytes = 64 << 10;

/** A frame of the pipe, or one that is lost. */
export interface Part {
  /** `undefined` if its header names none. */
  readonly source: string | undefined;
  readonly capture: Capture;
}

/** The frame whose bytes are arriving. */
interface OpenPart {
  readonly header: PartHeader;
  /** Its bytes; `undefined` if it is too large. */
  readonly bytes: Uint8Array | undefined;
  readonly size: number;
  received: number;
}

/** Copies each byte once, from the chunk into the frame. */
export class PartParser {
  readonly #maxFrameBytes: number;
  /** Lines of the current header, and the part of a line that has arrived. */
  #lines: string[] = [];
  #line = Buffer.alloc(0);
  #headerBytes = 0;
  #open: OpenPart | undefined;
  #hasEnded = false;

  /** @param maxFrameBytes larger frames are lost */
  constructor(maxFrameBytes: number) {
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Whether the line that ends the pipe has come. Without it, the writer may have been killed. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /**
   * Takes the next bytes and yields the frames that they complete.
   *
   * @throws {FramesError} `damaged` if the bytes are not in the format: the end of the current frame
   * is not known, so no later frame can be read
   */
  *push(chunk: Uint8Array): Generator<Part, undefined> {
    let at = 0;
    while (at < chunk.length && !this.#hasEnded) {
      if (this.#open === undefined) at = this.#parseLine(chunk, at);
      else at = this.#takeBytes(this.#open, chunk, at);
      if (this.#open?.received === this.#open?.size && this.#open !== undefined) {
        yield toPart(this.#open, this.#maxFrameBytes);
        this.#open = undefined;
      }
    }
    return undefined;
  }

  /**
   * Ends the pipe. Returns the loss of a frame that did not arrive completely.
   *
   * @throws {FramesError} `damaged` if the pipe ends in a header
   */
  end(): Part | undefined {
    if (this.#open !== undefined) {
      const { header, size, received } = this.#open;
      const message = `the pipe ended after ${received} of its ${size} bytes`;
      return { source: partSource(header), capture: lost(header, "unreadable", message) };
    }
    // The line of the end needs no line end.
    if (this.#line.length > 0) this.#endLine(this.#line.toString());
    if (this.#lines.length > 0) {
      throw partError("a frame after the header", undefined);
    }
    return undefined;
  }

  /** Reads to the end of the line. Returns the offset after it. */
  #parseLine(chunk: Uint8Array, from: number): number {
    const end = chunk.indexOf(0x0a, from);
    const to = end < 0 ? chunk.length : end + 1;
    this.#headerBytes += to - from;
    if (this.#headerBytes > maxHeaderBytes) {
      throw partError(`a header of at most ${maxHeaderBytes} bytes`, this.#lines[0]);
    }
    this.#line = Buffer.concat([this.#line, chunk.subarray(from, to)]);
    if (end < 0) return to;
    const line = this.#line.toString().replace(/\r?\n$/, "");
    this.#line = Buffer.alloc(0);
    this.#endLine(line);
    return to;
  }

  #endLine(line: string): void {
    if (this.#lines.length === 0) {
      // An empty line ends the part before.
      if (line === "") return;
      if (!line.startsWith("--")) throw partError("a line that begins with --", line);
      this.#hasEnded = /^--.+--$/.test(line);
      if (this.#hasEnded) return;
    }
    if (line !== "") return void this.#lines.push(line);
    const header = parsePartHeader(this.#lines.slice(1));
    const size = partSize(header);
    const bytes = size > this.#maxFrameBytes ? undefined : new Uint8Array(size);
    this.#open = { header, bytes, size, received: 0 };
    this.#lines = [];
    this.#headerBytes = 0;
  }

  #takeBytes(part: OpenPart, chunk: Uint8Array, from: number): number {
    const length = Math.min(chunk.length - from, part.size - part.received);
    part.bytes?.set(chunk.subarray(from, from + length), part.received);
    part.received += length;
    return from + length;
  }
}

function toPart({ header, bytes, size }: OpenPart, maxBytes: number): Part {
  const source = partSource(header);
  if (bytes === undefined) {
    const message = `it has ${size} bytes, the limit is ${maxBytes}`;
    return { source, capture: lost(header, "too-large", message) };
  }
  try {
    return { source, capture: { ...partFrame(header, size), bytes } };
  } catch (error) {
    if (!(error instanceof FramesError)) throw error;
    return { source, capture: lost(header, "unreadable", error.message) };
  }
}

function lost(header: PartHeader, code: "unreadable" | "too-large", message: string): Capture {
  const name = partName(header);
  return { error: new FramesError(code, message), ...(name === undefined ? {} : { name }) };
}
