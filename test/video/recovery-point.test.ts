import { expect, test } from "bun:test";
import { readRecoveryCount } from "../../src/video/recovery-point.ts";
import { Random } from "../wire/fuzz.ts";

/** Returns a message with a number in Exp-Golomb code, in a NAL unit without its header. */
function message(value: number, before = ""): Uint8Array {
  const digits = (value + 1).toString(2);
  const bits = `${"0".repeat(digits.length - 1)}${digits}1`;
  const body = bits.padEnd(Math.ceil(bits.length / 8) * 8, "0");
  const bytes = body.match(/.{8}/g)!.map((byte) => parseInt(byte, 2));
  return Buffer.concat([
    Buffer.from(before, "hex"),
    Buffer.from([6, bytes.length, ...bytes, 0x80]),
  ]);
}

test("a recovery point of H.264 says how many pictures may be damaged", () => {
  for (const value of [0, 1, 2, 9, 29, 250, 65_535]) {
    expect(readRecoveryCount(message(value), false)).toBe(value);
  }
});

test("a recovery point of H.265 has a number with a sign, and one in the past damages nothing", () => {
  for (const [coded, expected] of [
    [0, 0],
    [1, 1],
    [2, 0],
    [3, 2],
    [4, 0],
    [59, 30],
  ] as const) {
    expect(readRecoveryCount(message(coded), true)).toBe(expected);
  }
});

test("other messages are passed over, also long ones and those with escaped zeros", () => {
  expect(readRecoveryCount(message(5, "0503aabbcc"), false)).toBe(5);
  expect(readRecoveryCount(message(5, `05ff01${"aa".repeat(256)}`), false)).toBe(5);
  expect(readRecoveryCount(message(5, `ff0600`), false)).toBe(5);
  // Without the byte that prevents a start code, the message has three bytes.
  expect(readRecoveryCount(message(5, "050300000301"), false)).toBe(5);
  expect(readRecoveryCount(Buffer.from("0503aabbcc80", "hex"), false)).toBeUndefined();
  // A camera cannot make this take long.
  const long = `05${"ff".repeat(20)}00${"aa".repeat(20 * 255)}`;
  expect(readRecoveryCount(message(5, long), false)).toBeUndefined();
});

test("any bytes are read without an error and give a small number", () => {
  const random = new Random(23);
  for (let round = 0; round < 2000; round++) {
    const bytes = Uint8Array.from({ length: random.below(12) }, () =>
      random.below(3) === 0 ? 6 : random.below(3) === 0 ? 0 : random.below(256),
    );
    const count = readRecoveryCount(bytes, round % 2 === 0) ?? 0;
    expect(count).toBeGreaterThanOrEqual(0);
    expect(count).toBeLessThan(2 ** 18);
  }
  expect(readRecoveryCount(Buffer.from([6, 200, 0, 0, 0, 0]), false)).toBeLessThan(2 ** 18);
});
