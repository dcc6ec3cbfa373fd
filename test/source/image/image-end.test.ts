import { expect, test } from "bun:test";
import { hasImageEnd } from "../../../src/source/image/image-end.ts";
import { ascii, baseline, bmp, images, join, png, pngInPng, progressive } from "./images.ts";

function judge(file: Uint8Array): boolean | undefined {
  return hasImageEnd(file.subarray(0, 64), file.subarray(-64));
}

test("hasImageEnd is true for complete JPEG and PNG files", () => {
  for (const [name, ending, bytes] of images) {
    const expected = ending === "jpg" || ending === "png" ? true : undefined;
    expect([name, judge(bytes)]).toEqual([name, expected]);
  }
});

test("hasImageEnd is false for a truncated PNG", () => {
  for (const file of [png, pngInPng]) {
    for (let length = 8; length < file.length; length++) {
      expect(judge(file.subarray(0, length))).toBe(false);
    }
  }
});

test("hasImageEnd is false for a truncated JPEG", () => {
  for (const length of [3, 20, baseline.length - 1]) {
    expect(judge(baseline.subarray(0, length))).toBe(false);
  }
  expect(judge(progressive.subarray(0, -1))).toBe(false);
});

test("hasImageEnd accepts a JPEG that is padded with zeros or ones", () => {
  expect(judge(join(progressive, new Uint8Array(50)))).toBe(true);
  expect(judge(join(progressive, new Uint8Array(9).fill(255), new Uint8Array(9)))).toBe(true);
  expect(judge(join(progressive.subarray(0, -1), new Uint8Array(50)))).toBe(false);
  expect(judge(join(progressive, "\n"))).toBe(false);
});

test("hasImageEnd is undefined for a JPEG of which only padding is visible", () => {
  expect(judge(join(progressive, new Uint8Array(64)))).toBeUndefined();
});

test("hasImageEnd is undefined for other formats and for files too short to tell", () => {
  for (const file of ["", "\xff\xd8", "\x89PNG", "GIF89a", "FF D9", "IEND\xae\x42\x60\x82"]) {
    expect(judge(ascii(file))).toBeUndefined();
  }
  expect(judge(bmp())).toBeUndefined();
});
