// The size of an image by its header.

import { expect, test } from "bun:test";
import { readImageSize } from "../../../src/http/page/image-size.ts";
import { encodePng } from "../../helper/png.ts";

const pixels = Buffer.alloc(7 * 5 * 3, 90);
const png = encodePng({ width: 7, height: 5, colour: "rgb8", pixels });

test("the size of a PNG and of a JPEG is that of its header", async () => {
  expect(readImageSize(png)).toEqual({ width: 7, height: 5 });
  const jpeg = await new Bun.Image(png).jpeg().bytes();
  expect(readImageSize(jpeg)).toEqual({ width: 7, height: 5 });
  // Segments and fill bytes before the start of frame.
  const comment = [0xff, 0xfe, 0, 6, 1, 2, 3, 4];
  const table = [0xff, 0xc4, 0, 9, 1, 2, 3, 4, 5, 6, 7];
  const before = Buffer.from([...comment, ...table, 0xff]);
  const filled = Buffer.concat([jpeg.subarray(0, 2), before, jpeg.subarray(2)]);
  expect(readImageSize(filled)).toEqual({ width: 7, height: 5 });
});

test("an image that is cut off or of another kind has no size", async () => {
  const jpeg = await new Bun.Image(png).jpeg().bytes();
  expect(readImageSize(jpeg.subarray(0, 20))).toBeUndefined();
  expect(readImageSize(png.subarray(0, 20))).toBeUndefined();
  expect(readImageSize(new Uint8Array(0))).toBeUndefined();
  expect(readImageSize(Buffer.from("GIF89a"))).toBeUndefined();
  expect(readImageSize(Buffer.from([0xff, 0xd8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))).toBeUndefined();
});
