import { expect, test } from "bun:test";
import { hasImageEnd } from "../../../src/source/image/image-end.ts";
import { ascii, baseline, bmp, images, join, png, pngInPng, progressive } from "./images.ts";

function judge(file: Uint8Array): boolean | undefined {
  return hasImageEnd(file.subarray(0, 64), file.subarray(-64));
}

test("a JPEG or a PNG that is there from start to end is whole", () => {
  for (const [name, ending, bytes] of images) {
    const expected = ending === "jpg" || ending === "png" ? true : undefined;
    expect([name, judge(bytes)]).toEqual([name, expected]);
  }
});

test("a PNG of which bytes are missing is not whole", () => {
  for (const file of [png, pngInPng]) {
    for (let length = 8; length < file.length; length++) {
      expect(judge(file.subarray(0, length))).toBe(false);
    }
  }
});

test("a JPEG of which bytes are missing is not whole", () => {
  for (const length of [3, 20, baseline.length - 1]) {
    expect(judge(baseline.subarray(0, length))).toBe(false);
  }
  expect(judge(progressive.subarray(0, -1))).toBe(false);
});

test("a JPEG may be filled up with zeros or with ones", () => {
  expect(judge(join(progressive, new Uint8Array(50)))).toBe(true);
  expect(judge(join(progressive, new Uint8Array(9).fill(255), new Uint8Array(9)))).toBe(true);
  expect(judge(join(progressive.subarray(0, -1), new Uint8Array(50)))).toBe(false);
  expect(judge(join(progressive, "\n"))).toBe(false);
});

test("nothing is said of a JPEG that is only filling as far as it is seen", () => {
  expect(judge(join(progressive, new Uint8Array(64)))).toBeUndefined();
});

test("nothing is said of other files, nor of those that have hardly begun", () => {
  for (const file of ["", "\xff\xd8", "\x89PNG", "GIF89a", "FF D9", "IEND\xae\x42\x60\x82"]) {
    expect(judge(ascii(file))).toBeUndefined();
  }
  expect(judge(bmp())).toBeUndefined();
});
