// Covers: common/checksum.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../src/errors.ts";
import { Decoder } from "../../src/wire/decode.ts";
import { difference, longestArrayOf, preface, Random, record, Recorder } from "./fuzz.ts";
import { decodeAll, toldOf } from "./oracle.ts";
import {
  badVectors,
  badVideoVectors,
  bytesOf,
  conversations,
  misplaced,
  type,
  type Vector,
  vectors,
  videoVectors,
} from "./vectors.ts";

function withPreface(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([preface, bytes]);
}

/** Vectors up to this length are split at every position. */
const SHORT = 1000;

/**
 * Returns where to split bytes in two: everywhere, or near all message borders and at some random
 * positions.
 */
function cutsOf(bytes: Uint8Array, ends: readonly number[], seed: number): Set<number> {
  const cuts = new Set<number>();
  if (bytes.length <= SHORT) {
    for (let cut = 1; cut < bytes.length; cut++) cuts.add(cut);
    return cuts;
  }
  const random = new Random(seed);
  for (let index = 0; index < 150; index++) cuts.add(1 + random.below(bytes.length - 1));
  for (const end of [0, ...ends]) {
    // Around the end of a message, the next header, and the bytes after it.
    for (let near = -2; near <= 60; near++) cuts.add(preface.length + end + near);
  }
  for (const cut of cuts) if (cut < 1 || cut >= bytes.length) cuts.delete(cut);
  return cuts;
}

function* everyByte(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at++) yield bytes.subarray(at, at + 1);
}

/** Checks a valid vector passed in these chunks. */
function check(expected: readonly string[], chunks: Iterable<Uint8Array>, hasVideo = false): void {
  const { told, error, atBorder } = record(chunks, hasVideo);
  if (error !== undefined) throw error;
  if (!Bun.deepEquals(told, expected)) expect(told).toEqual([...expected]);
  expect(atBorder).toBe(true);
}

describe("Decoder and valid vectors", () => {
  const all: Vector[] = [
    ...vectors,
    ...conversations.flatMap(({ client, server }) => [client, server]),
  ];
  for (const [seed, vector] of all.entries()) {
    test(`the decoder reads the vector at every split: ${vector.name} (SPEC section ${vector.section})`, () => {
      const body = bytesOf(vector.hex);
      const bytes = withPreface(body);
      const expected = toldOf({ messages: vector.messages });
      check(expected, [bytes]);
      for (const cut of cutsOf(bytes, decodeAll(body).ends, seed)) {
        check(expected, [bytes.subarray(0, cut), bytes.subarray(cut)]);
      }
      check(expected, everyByte(bytes));
    });
  }
});

describe("Decoder and invalid vectors", () => {
  for (const vector of badVectors) {
    test(`the decoder fails with \`${vector.error}\`: ${vector.name} (SPEC section ${vector.section})`, () => {
      const body = bytesOf(vector.hex);
      const decoded = decodeAll(body);
      for (const chunks of [[withPreface(body)], everyByte(withPreface(body))]) {
        const recording = record(chunks);
        expect(recording.error).toBeInstanceOf(FramesError);
        expect((recording.error as FramesError).code).toBe(vector.error as "protocol");
        expect(difference(decoded, recording)).toBeUndefined();
      }
    });
  }

  test("the decoder fails at the first byte that shows the error, and not before", () => {
    for (const vector of badVectors) {
      const body = bytesOf(vector.hex);
      const bytes = withPreface(body);
      if (bytes.length > SHORT) continue;
      for (let length = 0; length < body.length; length++) {
        const cut = bytes.subarray(0, preface.length + length);
        const wrong = difference(decodeAll(body.subarray(0, length)), record([cut]));
        if (wrong !== undefined) throw new Error(`${vector.name}: after ${length} bytes ${wrong}`);
      }
    }
  });
});

describe("Decoder and encoded video", () => {
  for (const vector of videoVectors) {
    test(`the decoder reads the vector with the feature video: ${vector.name}`, () => {
      const bytes = withPreface(bytesOf(vector.hex));
      const expected = toldOf({ messages: vector.messages });
      for (const chunks of [[bytes], everyByte(bytes)]) check(expected, chunks, true);
    });

    test(`the decoder fails without the feature video: ${vector.name}`, () => {
      const { error } = record([withPreface(bytesOf(vector.hex))]);
      expect((error as FramesError).code).toBe("protocol");
    });
  }

  for (const vector of badVideoVectors) {
    test(`the decoder fails with the feature video: ${vector.name}`, () => {
      const { error } = record([withPreface(bytesOf(vector.hex))], true);
      expect((error as FramesError).code).toBe(vector.error as "protocol");
    });
  }
});

test("the decoder leaves misplaced messages to the receiver and the sender", () => {
  for (const vector of misplaced) {
    const body = bytesOf(vector.hex);
    expect(difference(decodeAll(body), record([withPreface(body)]))).toBeUndefined();
  }
});

describe("preface", () => {
  function codeOf(text: string): string | undefined {
    const bytes = new TextEncoder().encode(text);
    const codes = [[bytes], everyByte(bytes)].map((chunks) => {
      const { error, told } = record(chunks);
      expect(told).toEqual([]);
      return error === undefined ? undefined : (error as FramesError).code;
    });
    expect(codes[0]).toBe(codes[1]);
    return codes[0];
  }

  test("the decoder distinguishes another version of FRAMES from another protocol", () => {
    for (const digit of "023456789") expect(codeOf(`FRAMES/${digit}`)).toBe("version");
    expect(codeOf("FRAMES/2 and more")).toBe("version");
    for (const other of ["FRAMES/a", "FRAMES/:", "FRAMES//", "FRAMES/ ", "FRAMES 1", "frames/1"]) {
      expect(codeOf(other)).toBe("foreign");
    }
  });

  test("the decoder fails with `foreign` at the first byte that differs from the preface", () => {
    for (const text of [
      "GET / HTTP/1.1\r\n",
      "SSH-2.0",
      "\u0016\u0003\u0001",
      "\u0000",
      "G",
      "FRAMEZ",
    ]) {
      expect(codeOf(text)).toBe("foreign");
    }
    expect(codeOf("X")).toBe("foreign");
  });

  test("the decoder waits while the bytes may still become the preface", () => {
    for (let length = 0; length <= preface.length; length++) {
      const { error, atBorder } = record([preface.subarray(0, length)]);
      expect(error).toBeUndefined();
      expect(atBorder).toBe(length === preface.length);
    }
  });

  test("the decoder fails at the first wrong byte of a random preface", () => {
    const random = new Random(1);
    for (let index = 0; index < 2000; index++) {
      const bytes = random.bytes(8);
      const keep = random.below(8);
      bytes.set(preface.subarray(0, keep));
      bytes[keep] = bytes[keep] === preface[keep] ? bytes[keep]! ^ 0x80 : bytes[keep]!;
      const { error } = record([bytes.subarray(0, keep + 1)]);
      expect(error).toBeInstanceOf(FramesError);
      const isVersion = keep === 7 && bytes[7]! >= 0x30 && bytes[7]! <= 0x39;
      expect((error as FramesError).code).toBe(isVersion ? "version" : "foreign");
    }
  });
});

describe("Decoder and memory", () => {
  const big = vectors.find(({ name }) => name.startsWith("A body of FRAME may have"))!;

  test("the decoder passes payload on as views of the chunks it came in", () => {
    const bytes = withPreface(bytesOf(big.hex));
    for (const size of [bytes.length, 65_536, 1000, 7]) {
      const chunks: Uint8Array[] = [];
      // Copies, so that each chunk has its own buffer.
      for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.slice(at, at + size));
      const { value, longest } = longestArrayOf(() => record(chunks));
      expect(value.error).toBeUndefined();
      expect(value.views.length).toBeGreaterThan(0);
      for (const { payload, chunk } of value.views) {
        expect(payload.buffer === chunk.buffer).toBe(true);
        expect(payload.byteOffset >= chunk.byteOffset).toBe(true);
      }
      expect(longest).toBeLessThanOrEqual(65_536);
    }
  });

  test("the decoder passes payload on before the message is complete", () => {
    const bytes = withPreface(bytesOf(big.hex));
    const recorder = new Recorder();
    const decoder = new Decoder(recorder);
    decoder.receive(bytes.subarray(0, 1000));
    expect(recorder.views.length).toBe(1);
    decoder.receive(bytes.subarray(1000, 2000));
    expect(recorder.views.length).toBe(2);
    expect(recorder.views[1]!.payload.length).toBe(1000);
  });

  test("the decoder keeps no bytes of a skipped message", () => {
    const header = bytesOf("c8800000 00100000 00000000");
    const chunk = new Uint8Array(1 << 16);
    const { longest } = longestArrayOf(() => {
      const decoder = new Decoder(new Recorder());
      decoder.receive(preface);
      decoder.receive(header);
      for (let index = 0; index < 15; index++) decoder.receive(chunk);
    });
    expect(longest).toBeLessThanOrEqual(65_536);
  });

  test("the decoder does not copy a message that lies within one chunk", () => {
    const { client } = conversations[0]!;
    const bytes = withPreface(bytesOf(client.hex));
    const { longest } = longestArrayOf(() => record([bytes]));
    expect(longest).toBeLessThanOrEqual(64);
  });
});

test("a PROOF that the caller keeps is not overwritten by later messages", () => {
  const proofs: Uint8Array[] = [];
  class Keeper extends Recorder {
    override onProof(bytes: Uint8Array): void {
      proofs.push(bytes);
    }
  }
  const proof = vectors.find(({ name }) => name.startsWith("A PROOF is"))!;
  const ping = vectors.find(({ name }) => name.startsWith("A PING carries"))!;
  const decoder = new Decoder(new Keeper());
  for (const byte of everyByte(withPreface(bytesOf(proof.hex + ping.hex + proof.hex)))) {
    decoder.receive(byte);
  }
  const text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
  expect(proofs.map((bytes) => Buffer.from(bytes).toString("hex"))).toEqual([text, text]);
  expect(proofs[0]!.buffer).not.toBe(proofs[1]!.buffer);
});

test("the decoder counts unfinished frames, also when a number comes again after ABORT", () => {
  const vector = vectors.find(({ name }) => name.startsWith("A frame is sent again after ABORT"))!;
  const body = bytesOf(vector.hex);
  const { ends } = decodeAll(body);
  const decoder = new Decoder(new Recorder());
  decoder.receive(preface);
  const unfinished: number[] = [];
  for (const [index, end] of ends.entries()) {
    decoder.receive(body.subarray(ends[index - 1] ?? 0, end));
    unfinished.push(decoder.unfinishedCount);
  }
  expect(unfinished).toEqual([1, 1, 0, 0, 0, 0]);
});

describe("a paused Decoder", () => {
  const messages = conversations[2]!.client;
  const bytes = withPreface(bytesOf(messages.hex));
  const expected = toldOf({ messages: messages.messages });

  /** Pauses after every message, like a receiver that waits for a decision. */
  class Pausing extends Recorder {
    decoder!: Decoder;
    override onControl(message: Parameters<Recorder["onControl"]>[0]): void {
      super.onControl(message);
      this.decoder.pause();
    }
  }

  test("a paused decoder reports nothing more until it resumes", () => {
    const ways = [[bytes], everyByte(bytes), ...[3, 11, 40].map((most) => pieces(bytes, most))];
    for (const chunks of ways) {
      const recorder = new Pausing();
      const decoder = (recorder.decoder = new Decoder(recorder));
      let resumed = 0;
      for (const chunk of chunks) {
        const before = recorder.told.length;
        decoder.receive(chunk);
        // At most one control message is emitted for each call.
        expect(recorder.told.slice(before).filter((line) => /^\d/.test(line)).length).toBeLessThan(
          2,
        );
      }
      while (recorder.told.length < expected.length) {
        if (++resumed > 100) throw new Error("it never goes on");
        decoder.resume();
      }
      expect(recorder.finish()).toEqual(expected);
      expect(decoder.isBetweenMessages).toBe(true);
    }
  });

  test("a paused decoder appends new bytes behind the bytes that wait", () => {
    const recorder = new Recorder();
    const decoder = new Decoder(recorder);
    for (const [index, chunk] of [...pieces(bytes, 7)].entries()) {
      if (index % 5 === 0) decoder.pause();
      if (index % 5 === 3) decoder.resume();
      decoder.receive(chunk);
    }
    decoder.resume();
    expect(recorder.finish()).toEqual(expected);
  });

  test("a paused decoder keeps no reference to its input chunks", () => {
    for (const way of [[bytes], [...pieces(bytes, 40)]]) {
      const recorder = new Pausing();
      const decoder = (recorder.decoder = new Decoder(recorder));
      for (const chunk of way) {
        // A Buffer, as passed by sockets; its `slice` does not copy.
        const given = Buffer.from(chunk);
        decoder.receive(given);
        given.fill(0xff);
      }
      for (let turn = 0; turn < 100; turn++) decoder.resume();
      expect(recorder.finish()).toEqual(expected);
    }
  });

  test("a paused decoder throws an error in waiting bytes only when it resumes", () => {
    const decoder = new Decoder(new Recorder());
    decoder.receive(preface);
    decoder.pause();
    const wrong = bytesOf(badVectors[0]!.hex);
    expect(() => decoder.receive(wrong)).not.toThrow();
    expect(() => decoder.resume()).toThrow(FramesError);
  });
});

/** Splits bytes into chunks of `most` bytes; the last may be shorter. */
function* pieces(bytes: Uint8Array, most: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += most) yield bytes.subarray(at, at + most);
}

describe("Decoder and incomplete messages", () => {
  const { client } = conversations[0]!;
  const body = bytesOf(client.hex);
  const { ends, messages } = decodeAll(body);

  test("the decoder tells whether the rest of a message, payload apart, is missing", () => {
    const decoder = new Decoder(new Recorder());
    decoder.receive(preface);
    expect(decoder.incompleteMessage).toBe(0);
    let at = 0;
    for (const [index, end] of ends.entries()) {
      const message = messages[index]!;
      const isPiece = message.type === type.FRAME || message.type === type.DATA;
      const payload = isPiece && "payload" in message ? message.payload.length / 2 : 0;
      for (; at < end; at++) {
        decoder.receive(body.subarray(at, at + 1));
        const isWaiting = at + 1 < end - payload;
        expect(decoder.incompleteMessage > 0).toBe(isWaiting);
        const inPayload = at + 1 >= end - payload && at + 1 < end;
        expect(decoder.payloadSource).toBe(inPayload ? message.source : undefined);
      }
    }
    expect(decoder.incompleteMessage).toBe(0);
  });

  test("the decoder counts a preface that has begun as incomplete", () => {
    const decoder = new Decoder(new Recorder());
    expect(decoder.incompleteMessage).toBe(0);
    decoder.receive(preface.subarray(0, 3));
    expect(decoder.incompleteMessage).toBeGreaterThan(0);
  });

  test("the decoder numbers an incomplete message from its first byte, and each message differently", () => {
    const decoder = new Decoder(new Recorder());
    decoder.receive(preface);
    const numbers: Set<number>[] = [];
    let at = 0;
    for (const end of ends) {
      const own = new Set<number>();
      for (; at < end; at++) {
        decoder.receive(body.subarray(at, at + 1));
        if (decoder.incompleteMessage > 0) own.add(decoder.incompleteMessage);
      }
      numbers.push(own);
    }
    expect(numbers.map(({ size }) => size)).toEqual(numbers.map(() => 1));
    expect(new Set(numbers.flatMap((own) => [...own])).size).toBe(numbers.length);
  });

  test("the decoder still names the source of a payload after its CRC-32 was wrong", () => {
    const frame = vectors.find(({ name }) => name.startsWith("A frame of one byte"))!;
    const bytes = bytesOf(frame.hex);
    bytes[bytes.length - 1]! ^= 1;
    const decoder = new Decoder(new Recorder());
    expect(() => decoder.receive(withPreface(bytes))).toThrow("CRC-32");
    expect(decoder.payloadSource).toBe(1);
  });
});
