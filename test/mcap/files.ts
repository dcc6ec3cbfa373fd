// MCAP files in memory, written by this software and by `@mcap/core`.

import { crc32 } from "node:zlib";
import type { RecordedFrame } from "../../src/mcap/frame-message.ts";
import { memoryInput } from "../../src/mcap/cursor.ts";
import { McapReader, type McapEvent, type McapMessage } from "../../src/mcap/reader.ts";
import { type McapOutput, McapWriter } from "../../src/mcap/writer.ts";

/** An output in memory. */
export class MemoryOutput implements McapOutput {
  #bytes = new Uint8Array(1 << 16);
  #length = 0;

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  append(bytes: Uint8Array): void {
    if (this.#length + bytes.length > this.#bytes.length) {
      const grown = new Uint8Array(2 * (this.#length + bytes.length));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  patch(position: number, bytes: Uint8Array): void {
    if (position + bytes.length > this.#length) throw new Error("a patch behind the end");
    this.#bytes.set(bytes, position);
  }

  cut(length: number): void {
    if (length > this.#length) throw new Error("a cut behind the end");
    this.#length = length;
  }
}

export type TestFrame = Omit<RecordedFrame, "size" | "crc32"> & { readonly bytes: Uint8Array };

export const session = "00112233445566778899aabbccddeeff";

/** Makes a frame with defaults for what a test does not look at. */
export function testFrame(
  sequence: number,
  bytes: Uint8Array,
  facts: Partial<TestFrame> = {},
): TestFrame {
  const captured = 1_700_000_000_000_000_000n + BigInt(sequence) * 33_333_333n;
  return {
    ...{ source: "visible", name: `${sequence}.jpg`, sequence, session, captured, metadata: "" },
    ...facts,
    bytes,
  };
}

/** Writes frames as a complete file. */
export function writeFrames(
  frames: Iterable<TestFrame>,
  knowsChecksums = false,
): Uint8Array<ArrayBuffer> {
  const output = new MemoryOutput();
  const writer = new McapWriter(output, { library: "test", stream: "run" });
  for (const { bytes, ...facts } of frames) {
    const checksum = crc32(bytes);
    writer.begin({ ...facts, size: bytes.length, ...(knowsChecksums ? { crc32: checksum } : {}) });
    writer.write(bytes);
    writer.finish(checksum);
  }
  writer.end();
  return output.bytes;
}

/** Reads all events of a file. */
export function readEvents(bytes: Uint8Array): {
  messages: McapMessage[];
  problems: string[];
  events: McapEvent[];
} {
  const events = [...new McapReader(memoryInput(bytes)).read()];
  return {
    events,
    messages: events.flatMap((event) => (event.type === "message" ? [event.message] : [])),
    problems: events.flatMap((event) => (event.type === "problem" ? [event.message] : [])),
  };
}

/** Returns bytes that differ from frame to frame and repeat nowhere. */
export function noise(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed * 2654435761 + 1;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[index] = state >>> 24;
  }
  return bytes;
}

/** What `@mcap/core`'s indexed reader needs. */
export function readable(bytes: Uint8Array) {
  return {
    size: async () => BigInt(bytes.length),
    read: async (offset: bigint, length: bigint) =>
      bytes.subarray(Number(offset), Number(offset + length)),
  };
}

/** What `@mcap/core`'s writer needs. */
export class CoreOutput {
  readonly #output = new MemoryOutput();
  #position = 0n;

  position = (): bigint => this.#position;

  write = async (bytes: Uint8Array): Promise<void> => {
    this.#output.append(bytes);
    this.#position += BigInt(bytes.length);
  };

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#output.bytes;
  }
}
