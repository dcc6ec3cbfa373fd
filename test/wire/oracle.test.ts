import { describe, expect, test } from "bun:test";
import { decodeAll, misplacement, WindowModel } from "./oracle.ts";
import {
  badVectors,
  badVideoVectors,
  bytesOf,
  conversations,
  type DecodedMessage,
  misplaced,
  type,
  vectors,
  videoVectors,
} from "./vectors.ts";

/** Vectors up to this length are tried at every length. */
const SHORT = 2000;

describe("oracle and valid vectors", () => {
  for (const vector of vectors) {
    test(`the oracle reads the vector: ${vector.name} (SPEC section ${vector.section})`, () => {
      const bytes = bytesOf(vector.hex);
      const result = decodeAll(bytes);
      expect(result.error).toBeUndefined();
      expect(result.messages).toEqual(vector.messages);
      expect(result.consumed).toBe(bytes.length);
      expect(result.ends.length).toBe(result.messages.length);
      expect(result.open).toBeUndefined();
    });
  }

  test("the oracle reads a vector cut anywhere as its first messages and no error", () => {
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

describe("oracle and encoded video", () => {
  for (const vector of videoVectors) {
    test(`the oracle reads the vector with the feature video only: ${vector.name}`, () => {
      const bytes = bytesOf(vector.hex);
      expect(decodeAll(bytes, true).messages).toEqual(vector.messages);
      expect(decodeAll(bytes).error).toBe("protocol");
    });
  }

  for (const vector of badVideoVectors) {
    test(`the oracle fails with the feature video: ${vector.name}`, () => {
      expect(decodeAll(bytesOf(vector.hex), true).error).toBe(vector.error);
    });
  }
});

describe("oracle and invalid vectors", () => {
  for (const vector of badVectors) {
    test(`the oracle fails with \`${vector.error}\`: ${vector.name} (SPEC section ${vector.section})`, () => {
      expect(decodeAll(bytesOf(vector.hex)).error).toBe(vector.error);
    });
  }

  for (const vector of misplaced) {
    test(`the oracle finds the misplaced message: ${vector.name} (SPEC section ${vector.section})`, () => {
      const { messages, error } = decodeAll(bytesOf(vector.hex));
      expect(error).toBeUndefined();
      expect(misplacement(messages)).toBe(messages.at(-1)!);
    });
  }

  test("the oracle refuses a fatal message whatever follows it, and keeps the messages before it", () => {
    const before = vectors.find((vector) => vector.section === "5" && vector.messages.length > 2);
    const whole = bytesOf(before?.hex ?? "");
    for (const vector of badVectors) {
      const fatal = bytesOf(vector.hex);
      const result = decodeAll(Buffer.concat([whole, fatal, whole]));
      expect(result.error).toBeDefined();
      expect(result.messages.slice(0, before?.messages.length)).toEqual(before?.messages ?? []);
    }
  });

  test("the oracle reads no frame in which a single bit is flipped", () => {
    const frame = vectors.find((vector) => vector.name.startsWith("A frame of one byte"));
    const intact = bytesOf(frame?.hex ?? "");
    for (let bit = 0; bit < intact.length * 8; bit++) {
      const bytes = intact.slice();
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const result = decodeAll(bytes);
      // A larger length is no error yet: the decoder waits for the missing bytes.
      expect(result.messages).toEqual([]);
    }
  });
});

describe("oracle and conversations", () => {
  for (const { name, client, server } of conversations) {
    test(`the oracle follows the conversation: ${name}`, () => {
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
      // Only END has to wait for the answers.
      for (const message of others) {
        if (message.type === type.END) {
          const isAnswer = (one: DecodedMessage) => one.type === type.ANSWER;
          for (const answer of answers.filter(isAnswer)) model.heard(answer);
        }
        model.said(message);
      }
      for (const message of answers) if (message.type !== type.ANSWER) model.heard(message);
      expect([model.frames, model.bytes]).toEqual([0, 0]);
    });
  }
});

describe("WindowModel", () => {
  const json = (number: number, source: number, object: object): DecodedMessage => {
    return { type: number, flags: 0, source, json: object };
  };
  const welcome = (fields: object) =>
    json(type.WELCOME, 0, {
      ...{ window: { bytes: 9, frames: 9 }, limits: { frame: 9, sources: 9, unfinished: 9 } },
      ...{ fresh: false, features: ["offer"], ...fields },
    });
  const offer = (source: number, count: number, crc: number[] = []) =>
    json(type.OFFER, source, {
      frames: Array.from({ length: count }, () => ["f", 1, "0", 1, ...crc]),
    });
  const answer = (source: number, answers: string) => json(type.ANSWER, source, { answers });

  /** Returns a function in which the sender sends and receives these messages in order. */
  function follow(fields: object, ...messages: DecodedMessage[]): () => void {
    return () => {
      const model = new WindowModel();
      model.said(json(type.HELLO, 0, {}));
      model.heard(welcome(fields));
      for (const source of [1, 2]) model.said(json(type.SOURCE, source, { name: "a" }));
      for (const message of messages) {
        if (message.type === type.ANSWER) model.heard(message);
        else model.said(message);
      }
    };
  }

  test("the window model accepts offers and answers that follow the rules", () => {
    const messages = [offer(1, 5), offer(2, 1, [7]), answer(1, "wsmcx"), answer(2, "x")];
    expect(follow({}, ...messages, json(type.END, 0, { frames: 0 }))).not.toThrow();
    expect(follow({}, ...Array(8).fill(offer(1, 1024)))).not.toThrow();
  });

  test("the window model rejects offers and answers that break the rules", () => {
    const end = json(type.END, 0, { frames: 0 });
    for (const [wrong, fields, ...messages] of [
      ["may not be", { fresh: true }, offer(1, 1)],
      ["may not be", { features: [] }, offer(1, 1)],
      ["END before", {}, offer(1, 1), end],
      ["8193 frames", {}, ...Array<DecodedMessage>(8).fill(offer(1, 1024)), offer(2, 1)],
      ["to no OFFER", {}, answer(1, "s")],
      ["to no OFFER", {}, offer(1, 1), offer(2, 1), answer(2, "s")],
      ["another length", {}, offer(1, 2), answer(1, "s")],
      ["the answer z", {}, offer(1, 2), answer(1, "sz")],
      ["c to a CRC-32", {}, offer(1, 1, [7]), answer(1, "c")],
    ] as [string, object, ...DecodedMessage[]][]) {
      expect(follow(fields, ...messages)).toThrow(wrong);
    }
  });
});

test("all vectors have unique names", () => {
  const names = [...vectors, ...badVectors, ...misplaced].map((vector) => vector.name);
  expect(new Set(names).size).toBe(names.length);
});
