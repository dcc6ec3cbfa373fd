// Covers: source/image/bmp.ts, source/image/image-parser.ts, source/image/jpeg.ts,
//   source/image/png.ts, source/image/pnm-text.ts, source/image/pnm.ts

import { describe, expect, test } from "bun:test";
import { Splitter } from "../../../src/source/image/splitter.ts";
import { encodePng } from "../../helper/png.ts";
import { refusal } from "../../helper/refusal.ts";
import { longestArrayOf, Random } from "../../wire/fuzz.ts";
import {
  ascii,
  complaint,
  images,
  join,
  linesOf,
  pgm,
  pieces,
  png,
  pngSignature,
  progressive,
  split,
  bmp,
} from "./images.ts";

describe("Splitter", () => {
  for (const [name, ending, bytes] of images) {
    test(`the splitter returns ${name} unchanged, wherever the input is cut`, () => {
      const input = join(pgm, bytes, pgm);
      const expected = [`pgm ${pgm.toHex()}`, `${ending} ${bytes.toHex()}`, `pgm ${pgm.toHex()}`];
      expect(linesOf(split([input]).frames)).toEqual(expected);
      expect(linesOf(split(pieces(input, 1)).frames)).toEqual(expected);
      for (let at = 0; at <= input.length; at++) {
        const { frames, error } = split([input.subarray(0, at), input.subarray(at)]);
        expect(error).toBeUndefined();
        expect(linesOf(frames)).toEqual(expected);
      }
    });
  }

  test("the splitter handles all formats in one input, with and without zeros between them", () => {
    for (const zeros of [0, 1, 513]) {
      const input = join(...images.flatMap(([, , bytes]) => [new Uint8Array(zeros), bytes]));
      const expected = images.map(([, ending, bytes]) => `${ending} ${bytes.toHex()}`);
      for (const size of [1, 2, 7, 64, input.length]) {
        const { frames, error } = split(pieces(input, size));
        expect(error).toBeUndefined();
        expect(linesOf(frames)).toEqual(expected);
      }
    }
  });

  test("the splitter ignores zeros after the last image", () => {
    expect(split([join(png, new Uint8Array(4096))])).toMatchObject({
      frames: [{ extension: "png" }],
    });
  });

  test("the splitter returns real baseline and progressive JPEG and real PNG unchanged", async () => {
    const random = new Random(1);
    const pixels = random.bytes(61 * 47 * 3);
    const picture = encodePng({ width: 61, height: 47, colour: "rgb8", pixels });
    const made = [picture];
    for (const progressive of [false, true]) {
      for (const quality of [5, 80, 100]) {
        made.push(await new Bun.Image(picture).jpeg({ quality, progressive }).bytes());
      }
    }
    const input = join(...made);
    for (let round = 0; round < 20; round++) {
      const { frames, error } = split(pieces(input, 1 + random.below(5000)));
      expect(error).toBeUndefined();
      expect(frames.map(({ bytes }) => bytes.toHex())).toEqual(made.map((one) => one.toHex()));
    }
  });
});

describe("text images", () => {
  const text = ascii("P2 2 1 255 12 34");

  test("a text image is complete if the input ends after its last digit", () => {
    for (const size of [1, 100]) {
      expect(linesOf(split(pieces(text, size)).frames)).toEqual([`pgm ${text.toHex()}`]);
    }
  });

  test("a text image ends before other data on its last line", () => {
    const input = join(text, " \t", png, text, "\0", text);
    expect(linesOf(split([input]).frames)).toEqual(
      [join(text, " \t"), png, text, text].map(
        (bytes, index) => `${index === 1 ? "png" : "pgm"} ${bytes.toHex()}`,
      ),
    );
  });

  test("blank lines after a text image belong to no frame", () => {
    const input = join(text, "\r\n\r\n \n", png, text, "\n\n");
    const lines = [join(text, "\r\n"), png, join(text, "\n")].map((bytes) => bytes.toHex());
    expect(split([input]).frames.map(({ bytes }) => bytes.toHex())).toEqual(lines);
  });

  test("a text image may reach the size limit although only the next byte shows its end", () => {
    const options = { maxFrameBytes: text.length };
    for (const rest of ["", "\0", "P2 1 1 255 1"]) {
      const { frames, error } = split([join(text, rest)], options);
      expect(error).toBeUndefined();
      expect(frames[0]!.bytes.toHex()).toBe(text.toHex());
    }
    expect(complaint(join(text, "5 "), text.length)).toEqual([
      0,
      "too-large",
      "Cannot read frame 1 at byte 0 of the input: a PGM is longer than the limit of 16 bytes",
    ]);
  });

  test("a text image with missing or invalid samples is an error", () => {
    expect(complaint(ascii("P3 1 1 255 1 2"))[2]).toEndWith(
      "at byte 14 of the input: the input ended inside a PPM, after 14 bytes",
    );
    expect(complaint(ascii("P2 2 1 255 1 x"))[2]).toEndWith(
      'at byte 13 of the input: a PNM has "x" where a sample is a number',
    );
    expect(complaint(ascii("P1 2 1 12"))[2]).toEndWith(
      'at byte 8 of the input: a PNM has "2" where a sample is 0 or 1',
    );
  });
});

describe("raw frames", () => {
  const raw = { width: 3, height: 2, format: "gray16le" };

  test("raw frames are cut by their size alone, zeros included", () => {
    const input = Uint8Array.from({ length: 36 }, (_, index) => (index < 20 ? 0 : index));
    for (let size = 1; size <= 36; size++) {
      const { frames, error } = split(pieces(input, size), { raw });
      expect(error).toBeUndefined();
      expect(linesOf(frames)).toEqual(
        [0, 12, 24].map((at) => `3x2.gray16le ${input.subarray(at, at + 12).toHex()}`),
      );
    }
  });

  test("an incomplete raw frame at the end of the input is an error", () => {
    const { frames, error } = split([new Uint8Array(17)], { raw });
    expect(frames.length).toBe(1);
    expect(error?.message).toBe(
      "Cannot read frame 2 at byte 17 of the input: the input ended inside a raw frame, after 5 of its 12 bytes",
    );
  });

  test("the splitter refuses a raw shape whose frames are over the size limit", () => {
    expect(refusal(() => new Splitter({ maxFrameBytes: 11, raw }))).toMatchObject({
      code: "too-large",
      message: "Cannot read raw frames of 3x2 in gray16le: they have 12 bytes, the limit is 11",
    });
  });
});

describe("memory of the splitter", () => {
  test("the splitter allocates memory for received bytes, not for sizes in headers", () => {
    const largest = 1 << 30;
    const promise = [
      ascii("P6 10000 10000 255\n"),
      join(pngSignature, [0x3f, 0, 0, 0], "IDAT"),
      bmp({ said: 1 << 30 }),
    ];
    for (const begin of promise) {
      const { longest } = longestArrayOf(() => {
        const splitter = new Splitter({ maxFrameBytes: largest });
        for (const bytes of [begin, new Uint8Array(1000)]) [...splitter.push(bytes)];
      });
      expect(longest).toBeLessThanOrEqual(4000);
    }
  });

  test("a frame from the splitter uses at most a third more memory than its bytes", () => {
    const random = new Random(7);
    for (let round = 0; round < 50; round++) {
      const made = Array.from({ length: 5 }, () => {
        const height = 1 + random.below(random.pick([10, 1000, 20_000]));
        return join(`P5 1 ${height} 255\n`, new Uint8Array(height));
      });
      const { frames } = split(pieces(join(...made), 1 + random.below(3000)));
      expect(frames.map(({ bytes }) => bytes.length)).toEqual(made.map(({ length }) => length));
      for (const { bytes } of frames) {
        expect(bytes.buffer.byteLength).toBeLessThanOrEqual(Math.ceil((bytes.length * 4) / 3));
      }
    }
  });

  test("the splitter cuts a chunk of a million tiny frames", () => {
    const splitter = new Splitter({
      maxFrameBytes: 100,
      raw: { width: 1, height: 1, format: "gray" },
    });
    const cut = splitter.push(new Uint8Array(1_000_000));
    expect(cut.next().value).toMatchObject({ bytes: new Uint8Array(1) });
    let frames = 1;
    for (const _ of cut) frames++;
    expect(frames).toBe(1_000_000);
  });

  test("each frame has its own memory, for any kind of input array", () => {
    const input = Buffer.from(join(pgm, pgm, progressive));
    const frames = [...new Splitter({ maxFrameBytes: 1000 }).push(input)].filter(
      (item) => "bytes" in item,
    );
    input.fill(0);
    expect(frames.map(({ bytes }) => bytes.toHex())).toEqual(
      [pgm, pgm, progressive].map((bytes) => bytes.toHex()),
    );
    expect(new Set(frames.map(({ bytes }) => bytes.buffer)).size).toBe(3);
  });
});
