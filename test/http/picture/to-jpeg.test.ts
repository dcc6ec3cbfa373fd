import { expect, test } from "bun:test";
import { deflateSync } from "node:zlib";
import type { RawShape } from "../../../src/frame.ts";
import { convertToJpeg } from "../../../src/http/picture/to-jpeg.ts";
import { ascii, chunk, join, pngSignature } from "../../source/image/images.ts";

/** Returns a black PNG, which is small whatever its sides. */
function blackPng(side: number, depth: number, colourType: number, samples: number): Uint8Array {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([depth, colourType], 8);
  const rows = new Uint8Array((1 + (side * samples * depth) / 8) * side);
  const data = deflateSync(rows, { level: 1 });
  return join(pngSignature, chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", ""));
}

async function convert(bytes: Uint8Array, raw?: RawShape) {
  return await convertToJpeg(new Uint8Array(bytes), raw);
}

test("a picture of so many pixels that converting it would take too much memory is refused", async () => {
  const large: [Uint8Array, RawShape?][] = [
    [blackPng(4100, 8, 6, 4)],
    [blackPng(2500, 16, 0, 1)],
    [ascii("P6 4100 4100 255\n")],
    [ascii("P5 2500 2500 65535\n")],
    [new Uint8Array(9), { width: 4100, height: 4100, format: "rgb24" }],
    [new Uint8Array(9), { width: 2500, height: 2500, format: "gray16le" }],
  ];
  for (const [bytes, raw] of large) {
    const { jpeg, failure } = await convert(bytes, raw);
    expect(jpeg).toBeUndefined();
    expect(failure).toMatch(/pixels/i);
  }
});

test("pictures of common cameras are converted", async () => {
  const small = [blackPng(1000, 8, 6, 4), blackPng(1000, 16, 0, 1), blackPng(1000, 16, 4, 2)];
  for (const bytes of small) {
    const { jpeg, failure } = await convert(bytes);
    expect(failure).toBeUndefined();
    expect(await new Bun.Image(jpeg!).metadata()).toMatchObject({ width: 1000, height: 1000 });
  }
});
