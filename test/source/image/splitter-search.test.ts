// After a damaged image the splitter goes on at the next start of an image.

import { describe, expect, spyOn, test } from "bun:test";
import { PngParser } from "../../../src/source/image/png.ts";
import { Splitter } from "../../../src/source/image/splitter.ts";
import { Random } from "../../wire/fuzz.ts";
import {
  ascii,
  baseline,
  bmp,
  chunk,
  join,
  jpegLs,
  pgm,
  pieces,
  png,
  pngInPng,
  pngSignature,
  progressive,
  segment,
  type Split,
  split,
  thumbnail,
} from "./images.ts";

const soi = [0xff, 0xd8];
const tables = segment(0xdb, new Uint8Array(65).fill(7));
const scan = segment(0xda, [1, 1, 0, 0, 0x3f, 0]);
/** A JPEG of a webcam: no thumbnail, several tables. */
const webcam = join(
  soi,
  segment(0xe0, "JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
  tables,
  segment(0xc0, [8, 0, 1, 0, 1, 1, 1, 0x11, 0]),
  segment(0xc4, new Uint8Array(50).fill(3)),
  scan,
  new Uint8Array(300).fill(0x55),
  [0xff, 0xd9],
);

/** Where its first table begins. */
const header = webcam.indexOf(0xdb) - 1;

/** Splits the input in pieces of several sizes, which must not matter. */
function splitAnyhow(input: Uint8Array, options: { maxFrameBytes?: number } = {}): Split {
  const whole = split([input], options);
  for (const size of [1, 7, 64]) {
    const cut = split(pieces(input, size), options);
    expect(hexes(cut)).toEqual(hexes(whole));
    expect(cut.errors.map(({ code }) => code)).toEqual(whole.errors.map(({ code }) => code));
  }
  return whole;
}

function hexes({ frames, later }: Split): string[] {
  return [...frames, ...later].map(({ bytes }) => bytes.toHex());
}

/** Expects these frames and this number of lost images. */
function expectSplit(input: Uint8Array, frames: readonly Uint8Array[], lost: number): void {
  const found = splitAnyhow(input);
  expect(hexes(found)).toEqual(frames.map((bytes) => bytes.toHex()));
  expect(found.errors.map(({ message }) => message).length).toBe(lost);
}

describe("an image after a damaged one", () => {
  test("a JPEG that ends at any byte costs no other image", () => {
    // Otherwise the rest of a segment could end where a segment of the next image ends.
    const next = join(soi, segment(0xfe, new Uint8Array(200)), webcam.subarray(2));
    // Two bytes before the end of a segment, the start of the next image completes the segment.
    const ambiguous = [tables.length, 0].map((more) => more + header - 2);
    for (let length = 2; length < webcam.length; length++) {
      if (ambiguous.includes(length)) continue;
      const input = join(webcam, webcam.subarray(0, length), next, webcam);
      expectSplit(input, [webcam, next, webcam], 1);
    }
  });

  test("a PNG that ends at any byte costs no other image", () => {
    for (const next of [png, webcam, pgm, bmp()]) {
      for (let length = 1; length < png.length; length++) {
        expectSplit(join(png, png.subarray(0, length), next, png), [png, next, png], 1);
      }
    }
  });

  test("several damaged images in a row are as many losses", () => {
    const cut = webcam.subarray(0, 150);
    expectSplit(join(webcam, cut, cut, cut, webcam), [webcam, webcam], 3);
    const damaged = png.with(png.length - 20, png.at(-20)! ^ 1);
    expectSplit(join(png, damaged, damaged, png), [png, png], 2);
  });

  const damages: [string, Uint8Array][] = [
    ["with an invalid marker in its scan data", webcam.with(-5, 0xff).with(-4, 0x12)],
    ["that is only a start", join(soi)],
    [
      "with bytes between its segments",
      join(webcam.subarray(0, header), "\x124", webcam.subarray(header)),
    ],
    ["with bytes missing from a segment", join(webcam.subarray(0, 30), webcam.subarray(40))],
    ["with a length that reaches over the next images", webcam.with(header + 2, 7)],
    ["with a length of zero", webcam.with(header + 2, 0).with(header + 3, 0)],
    ["that is text instead", ascii("HTTP/1.1 200 OK\r\nServer: P5 BM camera\r\n\r\n")],
    ["that is random bytes instead", new Random(3).bytes(5000).with(0, 1)],
    ["that is a PNM with a wrong header", ascii("P5 640x480 255\n")],
    ["that is a BMP with a wrong header", bmp().with(14, 13)],
  ];
  for (const [what, damaged] of damages) {
    test(`the images around one ${what} are whole`, () => {
      expectSplit(join(webcam, damaged, webcam, png, webcam), [webcam, webcam, png, webcam], 1);
    });
  }

  test("an image that is too large costs no other image", () => {
    const maxFrameBytes = 1000;
    const large: Uint8Array[] = [
      join(soi, scan, new Uint8Array(3000).fill(0x55), [0xff, 0xd9]),
      join(
        pngSignature,
        chunk("IHDR", new Uint8Array(13)),
        chunk("IDAT", new Uint8Array(3000)),
        chunk("IEND", ""),
      ),
      join("P5 60 50 255\n", new Uint8Array(3000).fill(9)),
      bmp({ pixels: 3000 }),
    ];
    for (const bytes of large) {
      const found = splitAnyhow(join(webcam, bytes, webcam), { maxFrameBytes });
      expect(hexes(found)).toEqual([webcam.toHex(), webcam.toHex()]);
      expect(found.errors.map(({ code }) => code)).toEqual(["too-large"]);
    }
  });

  test("endless padding is one loss, and the images after it are whole", () => {
    const found = splitAnyhow(join(pgm, new Uint8Array(5000), pgm), { maxFrameBytes: 1000 });
    expect(hexes(found)).toEqual([pgm.toHex(), pgm.toHex()]);
    expect(found.errors.map(({ message }) => message)).toEqual([
      "Cannot read frame 2 at byte 1015 of the input: 1001 bytes arrived without an image",
    ]);
  });

  test("an input that begins within an image is read from the next one on", () => {
    expectSplit(join(webcam.subarray(200), webcam, webcam), [webcam, webcam], 1);
  });

  test("the last image is found although the one before it was cut off around its start", () => {
    const withComment = join(soi, segment(0xfe, new Uint8Array(2000)));
    const input = join(webcam, withComment.subarray(0, 100), webcam);
    expectSplit(input, [webcam, webcam], 1);
  });

  test("any flipped bit costs at most the image it is in and one more", () => {
    const random = new Random(5);
    for (const bytes of [webcam, progressive, png, pngInPng]) {
      for (let round = 0; round < 200; round++) {
        const damaged = new Uint8Array(bytes);
        damaged[random.below(bytes.length)]! ^= 1 << random.below(8);
        const found = split([join(bytes, damaged, bytes, bytes, bytes)]);
        const whole = hexes(found).filter((hex) => hex === bytes.toHex()).length;
        expect(whole).toBeGreaterThanOrEqual(3);
      }
    }
  });
});

describe("a thumbnail in a damaged JPEG", () => {
  const exif = segment(0xe1, join("Exif\0\0", thumbnail, "more"));

  test("a thumbnail is no frame when what follows its segment is damaged", () => {
    const damaged = join(soi, exif, [0x12, 0x34], tables, scan, [1, 2, 3, 0xff, 0xd9]);
    expectSplit(join(webcam, damaged, webcam), [webcam, webcam], 1);
  });

  test("a thumbnail is no frame when the coded data is damaged", () => {
    const damaged = join(soi, exif, tables, scan, [1, 2, 0xff, 0x12, 3, 0xff, 0xd9]);
    expectSplit(join(webcam, damaged, webcam), [webcam, webcam], 1);
  });

  test("a thumbnail that is cut off is no loss of its own", () => {
    for (const length of [14, 20, 28]) {
      const input = join(webcam, soi, exif.subarray(0, length), webcam, webcam);
      expectSplit(input, [webcam, webcam, webcam], 1);
    }
  });
});

describe("fill bytes before an image", () => {
  test("any number of FF bytes before a JPEG belongs to no frame", () => {
    for (const count of [1, 2, 3, 500]) {
      const fill = new Uint8Array(count).fill(0xff);
      const input = join(fill, webcam, fill, jpegLs, fill, [0, 0], fill, progressive, fill, [0]);
      expectSplit(input, [webcam, jpegLs, progressive], 0);
    }
  });

  test("FF bytes before another image belong to no frame", () => {
    expectSplit(join(baseline, [0xff, 0xff, 0], png, [0xff, 0], pgm), [baseline, png, pgm], 0);
  });
});

test("a stream of starts of images costs a bounded number of searches, and images after it are found", () => {
  const maxFrameBytes = 4096;
  const start = join(pngSignature, [0, 0, 0x0f, 0], "IDAT");
  const splitter = new Splitter({ maxFrameBytes });
  const parse = spyOn(PngParser.prototype, "parse");
  const found: string[] = [];
  const take = (bytes: Uint8Array) => {
    for (const item of splitter.push(bytes)) if ("bytes" in item) found.push(item.bytes.toHex());
  };
  const count = 5000;
  take(webcam);
  for (let done = 0; done < count; done++) take(start);
  const parsed = parse.mock.calls.reduce((sum, [bytes]) => sum + bytes.length, 0);
  parse.mockRestore();
  expect(parsed).toBeLessThan(count * start.length + 18 * maxFrameBytes);
  // What is left of the last start is lost with it.
  for (let done = 0; done < 300; done++) take(webcam);
  expect(found.at(-1)).toBe(webcam.toHex());
});
