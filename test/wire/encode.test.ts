// Covers: wire/messages.ts

import { describe, expect, test } from "bun:test";
import {
  dataPrefixBytes,
  encodeControl,
  encodeReceipt,
  maxFramePrefixBytes,
  writeDataPrefix,
  writeFramePrefix,
  sealFrame,
} from "../../src/wire/encode.ts";
import type { ControlType } from "../../src/wire/messages.ts";
import {
  conversations,
  type DecodedMessage,
  type,
  type Vector,
  vectors,
  videoVectors,
} from "./vectors.ts";

const MORE = 0x01;
const KEY = 0x02;

/** Encodes one message, at offset `at` where the encoder supports that. */
function encode(message: DecodedMessage, at: number): Uint8Array {
  if ("json" in message) {
    return encodeControl(message.type as ControlType, message.source, message.json as never);
  }
  if ("frames" in message) return encodeReceipt(message.frames);
  if (!("payload" in message)) throw new Error(`no encoder for type ${message.type}`);
  const payload = Uint8Array.from(Buffer.from(message.payload, "hex"));
  const more = (message.flags & MORE) !== 0;
  // Filled with garbage, because the encoder's buffer is never cleared between messages.
  const dirty = (length: number) => new Uint8Array(at + length).fill(0xa5);
  if (message.type === type.FRAME && "name" in message) {
    const into = dirty(maxFramePrefixBytes(message) + payload.length);
    const payloadAt = writeFramePrefix(into, at, message);
    const placed = into.subarray(payloadAt, payloadAt + payload.length);
    placed.set(payload);
    const isKey = (message.flags & KEY) !== 0;
    sealFrame(into, at, message.source, more, payloadAt, placed, isKey);
    return into.subarray(at, payloadAt + payload.length);
  }
  const into = dirty(dataPrefixBytes + payload.length);
  writeDataPrefix(into, at, message.source, more, message.payloadCrc, payload.length);
  into.set(payload, at + dataPrefixBytes);
  return into.subarray(at);
}

function check(vector: Vector, at: number): void {
  const bytes = Buffer.concat(vector.messages.map((message) => encode(message, at)));
  const expected = Buffer.from(vector.hex.replaceAll(" ", ""), "hex");
  // Avoids an unreadable diff for vectors of a mebibyte.
  if (expected.length > 5000) expect(bytes.equals(expected)).toBe(true);
  else expect(bytes.toString("hex")).toBe(expected.toString("hex"));
}

describe("encoder and vectors", () => {
  for (const vector of [...vectors, ...videoVectors]) {
    if (vector.decodeOnly) continue;
    test(`the encoder writes the vector byte for byte: ${vector.name} (SPEC section ${vector.section})`, () => {
      check(vector, 0);
      check(vector, 7);
    });
  }
});

test("the encoder writes every message that a server sends in the conversations", () => {
  for (const { server } of conversations) check(server, 0);
});

describe("encoder limits", () => {
  const frame = { name: "a", sequence: 1, captured: 0n, size: 0, metadata: "" };
  const into = new Uint8Array(10_000);

  test("the encoder refuses a name of 256 bytes, counted in bytes", () => {
    const name = "ä".repeat(128);
    expect(() => writeFramePrefix(into, 0, { ...frame, name })).toThrow("too long");
  });

  test("the encoder refuses a frame without a name", () => {
    expect(() => writeFramePrefix(into, 0, { ...frame, name: "" })).toThrow();
  });

  test("the encoder refuses metadata of 4,097 bytes", () => {
    const metadata = `{"x":"${"m".repeat(4089)}"}`;
    expect(() => writeFramePrefix(into, 0, { ...frame, metadata })).toThrow("too long");
  });

  test("the encoder refuses JSON of more than 65,536 bytes", () => {
    const cursor = "x".repeat(65_536);
    expect(() => encodeControl(type.CURSOR, 0, { cursor })).toThrow("JSON");
  });
});
