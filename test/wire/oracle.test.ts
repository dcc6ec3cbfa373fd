import { describe, expect, test } from "bun:test";
import { decodeAll, misplacement, WindowModel } from "./oracle.ts";
import { badVectors, conversations, misplaced, vectors } from "./vectors.ts";

function bytesOf(hex: string): Uint8Array {
  const plain = hex.replaceAll(" ", "");
  const bytes = Uint8Array.from(Buffer.from(plain, "hex"));
  // Buffer stops quietly at what is not hexadecimal, and a vector cut short would prove nothing.
  if (bytes.length * 2 !== plain.length) throw new Error(`not hexadecimal: ${hex.slice(0, 80)}`);
  return bytes;
}

/** Above this a vector is not tried at every length. */
const SHORT = 2000;

describe("the oracle reads", () => {
  for (const vector of vectors) {
    test(`section ${vector.section}: ${vector.name}`, () => {
      const bytes = bytesOf(vector.hex);
      const result = decodeAll(bytes);
      expect(result.error).toBeUndefined();
      expect(result.messages).toEqual(vector.messages);
      expect(result.consumed).toBe(bytes.length);
      expect(result.ends.length).toBe(result.messages.length);
      expect(result.open).toBeUndefined();
    });
  }

  test("a vector cut anywhere as its first messages and no error", () => {
    for (const vector of vectors) {
      const bytes = bytesOf(vector.hex);
      for (let length = 0; length < Math.min(bytes.length, SHORT); length++) {
        const result = decodeAll(bytes.subarray(0, length));
        expect(result.error).toBeUndefined();
        expect(result.consumed).toBeLessThanOrEqual(length);
        expect(result.messages).toEqual(vector.messages.slice(0, result.messages.length));
      }
    }
  });
});

describe("the oracle refuses", () => {
  for (const vector of badVectors) {
    test(`section ${vector.section}: ${vector.name}`, () => {
      expect(decodeAll(bytesOf(vector.hex)).error).toBe(vector.error);
    });
  }

  for (const vector of misplaced) {
    test(`section ${vector.section}: ${vector.name}`, () => {
      const { messages, error } = decodeAll(bytesOf(vector.hex));
      expect(error).toBeUndefined();
      expect(misplacement(messages)).toBe(messages.at(-1)!);
    });
  }

  test("a fatal message whatever follows it, and keeps the messages before it", () => {
    const before = vectors.find((vector) => vector.section === "5" && vector.messages.length > 2);
    const whole = bytesOf(before?.hex ?? "");
    for (const vector of badVectors) {
      const fatal = bytesOf(vector.hex);
      const result = decodeAll(Buffer.concat([whole, fatal, whole]));
      expect(result.error).toBeDefined();
      expect(result.messages.slice(0, before?.messages.length)).toEqual(before?.messages ?? []);
    }
  });

  test("any single flipped bit in a frame", () => {
    const frame = vectors.find((vector) => vector.name.startsWith("A frame of one byte"));
    const intact = bytesOf(frame?.hex ?? "");
    for (let bit = 0; bit < intact.length * 8; bit++) {
      const bytes = intact.slice();
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const result = decodeAll(bytes);
      // A longer length is no error yet: the decoder waits for bytes that never come.
      expect(result.messages).toEqual([]);
    }
  });
});

describe("the oracle follows the conversation", () => {
  for (const { name, client, server } of conversations) {
    test(name, () => {
      const [said, answered] = [client, server].map((side) => decodeAll(bytesOf(side.hex)));
      for (const [decoded, side] of [
        [said, client],
        [answered, server],
      ] as const) {
        expect(decoded?.error).toBeUndefined();
        expect(decoded?.messages).toEqual(side.messages);
        expect(misplacement(side.messages)).toBeUndefined();
      }
      const model = new WindowModel();
      const [hello, ...others] = client.messages;
      const [welcome, ...answers] = server.messages;
      model.said(hello!);
      model.heard(welcome!);
      for (const message of others) model.said(message);
      for (const message of answers) model.heard(message);
      expect([model.frames, model.bytes]).toEqual([0, 0]);
    });
  }
});

test("names of vectors are unique", () => {
  const names = [...vectors, ...badVectors, ...misplaced].map((vector) => vector.name);
  expect(new Set(names).size).toBe(names.length);
});
