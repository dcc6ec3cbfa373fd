// Decoding of grey images: the supported kinds, and what is refused.
//
// Covers: http/picture/palette.ts

import { describe, expect, test } from "bun:test";
import { deflateSync } from "node:zlib";
import {
  decodeGrey,
  type GreyImage,
  greyKind,
  GreyError,
  greyRange,
  stretch,
} from "../../../src/http/picture/grey.ts";
import { applyPalette, paletteColours, paletteNames } from "../../../src/http/picture/palette.ts";
import { encodePng } from "../../helper/png.ts";
import { ascii, chunk, join, pngSignature } from "../../source/image/images.ts";

interface PngFields {
  width: number;
  height: number;
  depth?: number;
  colourType?: number;
  interlaced?: number;
  /** Rows with their filter types, before deflating. */
  rows: Uint8Array | readonly number[];
  /** Number of chunks for the data. */
  chunks?: number;
}

function pngOf(fields: PngFields): Uint8Array {
  const { width, height, depth = 8, colourType = 0, interlaced = 0, rows, chunks = 1 } = fields;
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, colourType, 0, 0, interlaced], 8);
  const data = deflateSync(Uint8Array.from(rows));
  const size = Math.ceil(data.length / chunks);
  const parts = Array.from({ length: chunks }, (_, index) =>
    chunk("IDAT", data.subarray(index * size, (index + 1) * size)),
  );
  return join(pngSignature, chunk("IHDR", header), ...parts, chunk("IEND", ""));
}

/**
 * Applies one filter to all rows, straight from the PNG specification and independent of the code
 * under test.
 */
function filtered(
  pixels: Uint8Array,
  rowBytes: number,
  step: number,
  filterOf: (row: number) => number,
): Uint8Array {
  const rows = pixels.length / rowBytes;
  const result = new Uint8Array((rowBytes + 1) * rows);
  const at = (row: number, byte: number): number =>
    row < 0 || byte < 0 ? 0 : pixels[row * rowBytes + byte]!;
  for (let row = 0; row < rows; row++) {
    const filter = filterOf(row);
    result[row * (rowBytes + 1)] = filter;
    for (let byte = 0; byte < rowBytes; byte++) {
      const [a, b, c] = [at(row, byte - step), at(row - 1, byte), at(row - 1, byte - step)];
      const p = a + b - c;
      const nearest = [a, b, c].reduce((best, next) =>
        Math.abs(p - next) < Math.abs(p - best) ? next : best,
      );
      const guess = [0, a, b, Math.floor((a + b) / 2), nearest][filter]!;
      result[row * (rowBytes + 1) + 1 + byte] = at(row, byte) - guess;
    }
  }
  return result;
}

/** Returns values without a pattern, so that different filters give different results. */
function noise(count: number): Uint8Array {
  let state = 12345;
  return Uint8Array.from({ length: count }, () => {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    return state >> 16;
  });
}

async function refusal(bytes: Uint8Array, raw?: Parameters<typeof decodeGrey>[1]): Promise<string> {
  try {
    await decodeGrey(bytes, raw);
  } catch (error) {
    expect(error).toBeInstanceOf(GreyError);
    return (error as GreyError).message;
  }
  throw new Error("it was read");
}

const adam7 = [
  "16462646",
  "77777777",
  "56565656",
  "77777777",
  "36463646",
  "77777777",
  "56565656",
  "77777777",
];

const plain = ({ width, height, samples, maximum }: GreyImage) => ({
  width,
  height,
  samples: [...samples],
  maximum,
});

describe("grey PNG", () => {
  for (const [index, name] of ["None", "Sub", "Up", "Average", "Paeth"].entries()) {
    for (const depth of [8, 16]) {
      test(`a grey PNG of ${depth} bits with the filter ${name} is decoded`, async () => {
        const step = depth / 8;
        const pixels = noise(13 * 7 * step);
        const rows = filtered(pixels, 13 * step, step, () => index);
        const { samples } = await decodeGrey(pngOf({ width: 13, height: 7, depth, rows }));
        const expected =
          depth === 8
            ? pixels
            : Array.from({ length: 91 }, (_, at) => (pixels[2 * at]! << 8) | pixels[2 * at + 1]!);
        expect([...samples]).toEqual([...expected]);
      });
    }
  }

  test("a grey PNG with all filters in turn, in many chunks, is decoded", async () => {
    const pixels = noise(40 * 50 * 2);
    const rows = filtered(pixels, 80, 2, (row) => row % 5);
    const png = pngOf({ width: 40, height: 50, depth: 16, rows, chunks: 9 });
    const once = await decodeGrey(
      encodePng({ width: 40, height: 50, colour: "grey16", pixels: pixels }),
    );
    expect(plain(await decodeGrey(png))).toEqual(plain(once));
    expect(once.maximum).toBe(65535);
  });

  for (const [width, height] of [
    [8, 8],
    [13, 7],
    [1, 1],
    [3, 1],
    [1, 9],
  ] as const) {
    for (const [colourType, kind] of [
      [0, "grey"],
      [4, "grey with alpha"],
    ] as const) {
      test(`a 16-bit ${kind} PNG of ${width}x${height} is decoded, interlaced or not`, async () => {
        const values = Array.from(noise(width * height), (value, index) => value * 200 + index);
        const pixel = (index: number) => {
          const grey = [values[index]! >> 8, values[index]! & 255];
          return colourType === 4 ? [...grey, 0x12, index & 255] : grey;
        };
        const step = colourType === 4 ? 4 : 2;
        for (const interlaced of [0, 1]) {
          // From the table of the PNG specification: the pass of each pixel of 8x8.
          const passOf = (x: number, y: number) =>
            interlaced === 0 ? 1 : Number(adam7[y % 8]![x % 8]);
          const rows = [1, 2, 3, 4, 5, 6, 7].map((pass) => {
            const lines = Array.from({ length: height }, (_, y) =>
              Array.from({ length: width }, (_, x) => x)
                .filter((x) => passOf(x, y) === pass)
                .flatMap((x) => pixel(y * width + x)),
            ).filter((line) => line.length > 0);
            const rowBytes = lines[0]?.length ?? 0;
            return filtered(Uint8Array.from(lines.flat()), rowBytes || 1, step, (row) => row % 5);
          });
          const fields = { width, height, depth: 16, colourType, interlaced, rows: join(...rows) };
          expect(plain(await decodeGrey(pngOf(fields)))).toEqual({
            width,
            height,
            samples: values,
            maximum: 65535,
          });
        }
      });
    }
  }

  test("a PNG over the pixel limit of the caller is refused", async () => {
    const png = pngOf({ width: 3, height: 1, rows: [0, 1, 2, 3] });
    expect((await decodeGrey(png, null, 3)).samples.length).toBe(3);
    const refused = decodeGrey(png, null, 2).catch((error: unknown) => error);
    expect(await refused).toBeInstanceOf(GreyError);
  });

  test("a grey PNG in the middle of a buffer is decoded", async () => {
    const png = pngOf({ width: 2, height: 1, rows: [0, 7, 9] });
    const around = join([1, 2, 3], png, [4, 5]);
    const grey = await decodeGrey(around.subarray(3, 3 + png.length));
    expect(plain(grey)).toEqual({ width: 2, height: 1, samples: [7, 9], maximum: 255 });
  });

  test("a grey PNG is distinguished from images that a browser shows by itself", () => {
    const rows = [0, 1, 2, 3];
    expect(greyKind(pngOf({ width: 3, height: 1, rows }))).toBe("png");
    for (const fields of [{ colourType: 2 }, { colourType: 4 }, { depth: 4 }, { interlaced: 1 }]) {
      expect(greyKind(pngOf({ width: 1, height: 1, rows, ...fields }))).toBeUndefined();
    }
    expect(greyKind(Uint8Array.of(0xff, 0xd8, 0xff))).toBeUndefined();
    expect(greyKind(new Uint8Array(0))).toBeUndefined();
  });

  test("a PNG that claims more pixels than it has is refused before memory is allocated", async () => {
    const rows = [0, 1, 2, 3];
    const holds = (sides: string): string =>
      `The PNG is damaged, or has fewer than its ${sides} pixels`;
    expect(await refusal(pngOf({ width: 3, height: 2, rows }))).toBe(holds("3x2"));
    expect(await refusal(pngOf({ width: 8000, height: 8000, rows }))).toBe(holds("8000x8000"));
    for (const [width, height] of [
      [0, 5],
      [0xffffffff, 0xffffffff],
      [70000, 70000],
    ] as const) {
      expect(await refusal(pngOf({ width, height, rows }))).toContain(
        `A picture of ${width}x${height} cannot be shown`,
      );
    }
  });

  test("a PNG that is cut or has an unknown filter is refused", async () => {
    const whole = pngOf({ width: 13, height: 7, rows: filtered(noise(91), 13, 1, () => 4) });
    // After the last row only a checksum and the end chunk follow, which are not needed for
    // decoding.
    for (let length = 0; length < whole.length - 24; length++) {
      await refusal(whole.subarray(0, length));
    }
    expect(await refusal(pngOf({ width: 1, height: 1, rows: [9, 1] }))).toBe(
      "The PNG has a filter 9, which is unknown",
    );
  });

  test("a PNG with flipped bits is decoded or refused", async () => {
    const whole = pngOf({ width: 13, height: 7, rows: filtered(noise(91), 13, 1, () => 3) });
    for (let at = 0; at < whole.length; at++) {
      const damaged = whole.slice();
      damaged[at]! ^= 1 << (at % 8);
      try {
        const { samples, width, height } = await decodeGrey(damaged);
        expect(samples.length).toBe(width * height);
      } catch (error) {
        expect(error).toBeInstanceOf(GreyError);
      }
    }
  });
});

describe("PGM", () => {
  test("a PGM of 8 and of 16 bits is decoded", async () => {
    expect(plain(await decodeGrey(ascii("P5 2 2 255\nabcd")))).toEqual({
      width: 2,
      height: 2,
      samples: [97, 98, 99, 100],
      maximum: 255,
    });
    const deep = join("P5\n# a camera's\n2 1\n4095\n", [0x0f, 0xff, 0x01, 0x02]);
    expect(plain(await decodeGrey(deep))).toEqual({
      width: 2,
      height: 1,
      samples: [4095, 258],
      maximum: 4095,
    });
  });

  test("a PGM whose first sample looks like white space is decoded", async () => {
    const { samples } = await decodeGrey(join("P5 3 1 255 ", [0x20, 0x0a, 0x23]));
    expect([...samples]).toEqual([0x20, 0x0a, 0x23]);
  });

  test("a PGM as text with comments is decoded", async () => {
    const text = ascii("P2 # one\n3 # two\n1\n1000\n0 # three\n\t12\r\n1000");
    expect(plain(await decodeGrey(text))).toEqual({
      width: 3,
      height: 1,
      samples: [0, 12, 1000],
      maximum: 1000,
    });
  });

  test("a PGM that is incomplete or has impossible values is refused", async () => {
    const less = "The PGM is damaged, or has fewer than its 2x2 pixels";
    expect(await refusal(ascii("P5 2 2 255\nabc"))).toBe(less);
    expect(await refusal(ascii("P5 2 2 300\nabcdefg"))).toBe(less);
    expect(await refusal(ascii("P2 2 2 255\n1 2 3"))).toBe(less);
    expect(await refusal(ascii("P2 2 2 255\n1 2 3 x  "))).toBe(less);
    expect(await refusal(ascii("P5 2 2"))).toBe("The header of the PGM is incomplete");
    expect(await refusal(ascii("P5 2 2 0\nabcd"))).toContain("is 0, expected 1 to 65535");
    expect(await refusal(ascii("P5 99999999 9 255\nabcd"))).toContain("cannot be shown");
    expect(await refusal(ascii("P5 60000 1000 255\nabcd"))).toContain("has fewer than its");
  });
});

describe("raw frame", () => {
  test("a raw frame is decoded in the byte order of its format", async () => {
    const bytes = Uint8Array.of(0x01, 0x02, 0x03, 0x00);
    const read = async (format: string) =>
      plain(await decodeGrey(bytes, { width: 2, height: 1, format }));
    expect(await read("gray16le")).toMatchObject({ samples: [0x0201, 0x0003], maximum: 65535 });
    expect(await read("gray16be")).toMatchObject({ samples: [0x0102, 0x0300], maximum: 65535 });
    expect(await read("gray12le")).toMatchObject({ samples: [0x0201, 0x0003], maximum: 4095 });
    expect(await read("gray10le")).toMatchObject({ samples: [0x0201, 0x0003], maximum: 1023 });
    const eight = await decodeGrey(bytes, { width: 2, height: 2, format: "gray" });
    expect(plain(eight)).toMatchObject({ samples: [1, 2, 3, 0], maximum: 255 });
  });

  test("a raw frame whose size does not match its shape is refused", async () => {
    const shape = { width: 2, height: 1, format: "gray16le" };
    expect(await refusal(new Uint8Array(5), shape)).toBe(
      "The raw frame has 5 bytes, expected 4 for 2x1 gray16le",
    );
    expect(await refusal(new Uint8Array(4), { ...shape, width: 0.5 })).toContain("cannot be shown");
    expect(await refusal(new Uint8Array(4), { ...shape, format: "nv12" })).toContain("not a grey");
  });

  test("a raw frame is not mistaken for an image that its bytes resemble", () => {
    const shape = { width: 4, height: 1, format: "nv12" };
    expect(greyKind(ascii("P5 2 2 255\nabcd"), shape)).toBeUndefined();
  });
});

describe("grey range", () => {
  test("the grey range leaves out a few outliers", () => {
    const samples = Uint16Array.from({ length: 1000 }, (_, index) => 20000 + index);
    samples[3] = 0;
    samples[500] = 65535;
    const { low, high } = greyRange({ samples });
    expect(low).toBeWithin(20000, 20010);
    expect(high).toBeWithin(20990, 21001);
  });

  test("the grey range of a few samples leaves none out", () => {
    expect(greyRange({ samples: Uint8Array.of(9, 200, 30) })).toEqual({ low: 9, high: 200 });
  });

  test("the grey range of a single value surrounds it, so that it is shown as middle grey", () => {
    const samples = new Uint16Array(100).fill(500);
    const range = greyRange({ samples });
    expect(range).toEqual({ low: 499, high: 501 });
    expect([...stretch({ samples: samples.subarray(0, 1) }, range)]).toEqual([128]);
  });

  test("the grey range is shown from black to white, and values outside it are clamped", () => {
    const samples = Uint16Array.of(0, 1000, 1500, 2000, 65535);
    expect([...stretch({ samples }, { low: 1000, high: 2000 })]).toEqual([0, 0, 128, 255, 255]);
  });
});

describe("palettes", () => {
  for (const name of paletteNames) {
    test(`the palette ${name} gets lighter from step to step`, () => {
      const table = paletteColours(name);
      expect(table.length).toBe(1024);
      let last = -1;
      for (let index = 0; index < 256; index++) {
        const [red, green, blue, alpha] = table.subarray(index * 4, index * 4 + 4);
        // Luminance by Rec. 709, with tolerance for rounding.
        const light = 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
        expect(light).toBeGreaterThan(last - 0.75);
        expect(alpha).toBe(255);
        last = Math.max(last, light);
      }
      expect(last).toBeGreaterThan(230);
    });
  }

  test("a palette gives each value its colour", () => {
    const pixels = applyPalette(Uint8Array.of(0, 255, 128), "inferno");
    expect([...pixels.subarray(0, 8)]).toEqual([0, 0, 4, 255, 252, 255, 164, 255]);
    expect([...applyPalette(Uint8Array.of(7), "grey")]).toEqual([7, 7, 7, 255]);
  });
});
