// The codec strings by which the page asks a browser whether it can decode a video.
//
// Covers: http/page/recorded-video.ts, http/page/stored-picture.ts

import { expect, test } from "bun:test";
import { codecName } from "../../../src/http/page/video-player.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text.replaceAll(" ", ""), "hex");

test("the codec string of H.264 has profile, constraints and level of the first parameter set", () => {
  const key = bytes("00000001 0910 00000001 67 640028 acd9 00000001 68ebe3 000001 6588");
  expect(codecName(key, "h264")).toBe("avc1.640028");
  expect(codecName(bytes("00000001 67 42c01e"), "h264")).toBe("avc1.42c01e");
});

test("the codec string of H.265 is read behind the bytes that keep start codes out", () => {
  const main = bytes("00000001 4201 01 01 600000 0300 9000 000300 0003 005d a0 000001 2601");
  expect(codecName(main, "h265")).toBe("hev1.1.6.L93.90");
  const high = bytes("00000001 4201 01 22 200000 0300 b000 000300 0003 0099 a0");
  expect(codecName(high, "h265")).toBe("hev1.2.4.H153.b0");
});

test("an access unit without a whole parameter set has no codec string", () => {
  expect(codecName(bytes("00000001 6588"), "h264")).toBeUndefined();
  expect(codecName(bytes("00000001 67 64"), "h264")).toBeUndefined();
  expect(codecName(bytes("00000001 4201 01 01"), "h265")).toBeUndefined();
  expect(codecName(bytes("ffd8ffe0"), "h264")).toBeUndefined();
});
