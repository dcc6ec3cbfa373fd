import { describe, expect, test } from "bun:test";
import { Splitter } from "../../../src/source/image/splitter.ts";
import { refusal } from "../../helper/refusal.ts";
import { longestArrayOf } from "../../wire/fuzz.ts";
import {
  ascii,
  baseline,
  bmp,
  chunk,
  complaint,
  images,
  join,
  linesOf,
  pgm,
  pieces,
  png,
  pngSignature,
  segment,
  split,
} from "./images.ts";

describe("unreadable input", () => {
  const start = pgm.length;
  const soi = [0xff, 0xd8];
  const sos = segment(0xda, [1, 1, 0, 0, 0x3f, 0]);
  const expected = "expected a JPEG, PNG, PNM or BMP image, received";
  const hint = "; for raw frames add --raw WxH:FORMAT, for H.264 --raw h264";
  const brokenSignature = [0x89, 0x50, 0x4e, 0x47, 0x0a, 0x1a, 0x0a];
  const wrong: [string, Uint8Array, number, string][] = [
    [
      "input of an unknown format",
      ascii("GIF89a\x01\x9b[2J"),
      0,
      `${expected} "GIF89a\\u0001\\u009b[2J"${hint}`,
    ],
    [
      "a PNG with converted newlines",
      join(brokenSignature),
      0,
      `${expected} "\\u0089PNG\\n\\u001a\\n"${hint}`,
    ],
    [
      "a JPEG without its start marker",
      join([0xff, 0xda]),
      0,
      `${expected} "\\u00ff\\u00da"${hint}`,
    ],
    ["a PNM of an unknown kind", ascii("P8 1"), 0, `${expected} "P8 1"${hint}`],
    ["a word that begins like a PNM", ascii("P5x"), 0, `${expected} "P5x"${hint}`],
    ["a word that begins like a BMP", ascii("BX"), 0, `${expected} "BX"${hint}`],
    ["whitespace between frames", ascii("\n"), 0, `${expected} "\\n"${hint}`],
    [
      "a JPEG without a marker at the start of a segment",
      join(soi, [0x12]),
      2,
      "a JPEG has 12 where a marker must begin with FF",
    ],
    [
      "a JPEG with an invalid marker",
      join(soi, [0xff, 0x4f]),
      2,
      "a JPEG has the marker FF 4F, which is not allowed",
    ],
    [
      "a JPEG with an invalid marker in its coded data",
      join(soi, sos, [5, 0xff, 2]),
      13,
      "a JPEG has the marker FF 02 in its coded data, which is not allowed",
    ],
    [
      "a JPEG with too short a segment",
      join(soi, [0xff, 0xe0, 0, 1]),
      4,
      "the JPEG segment FF E0 says it is 1 bytes long, expected 2 or more",
    ],
    [
      "a JPEG without an end",
      join(soi, sos, [1, 2], baseline),
      14,
      "a new JPEG begins before the one before it has ended",
    ],
    [
      "a PNG chunk with an impossible length",
      join(pngSignature, [255, 255, 255, 255]),
      8,
      "a PNG chunk says it is 4294967295 bytes long",
    ],
    [
      "a PNG chunk with an invalid type",
      join(pngSignature, [0, 0, 0, 0], "a\x1b]b"),
      12,
      'a PNG chunk has the type "a\\u001b]b", which is not four letters',
    ],
    [
      "a PNG chunk with a wrong CRC-32",
      join(pngSignature, [0, 0, 0, 1], "tEXt", [0, 0, 0, 0, 0]),
      17,
      "the CRC-32 of the PNG chunk tEXt does not match",
    ],
    ["a PNM without a width", ascii("P5 \n 12x 4"), 5, 'a PGM has "12x" for its width'],
    ["a PNM without a height", ascii("P6 1 0 255 "), 5, 'a PPM has "0" for its height'],
    [
      "a PNM with too large samples",
      ascii("P6 1 1 65536\n"),
      7,
      'a PPM has "65536" for its maximum',
    ],
    ["a PFM without a scale", ascii("PF 1 1 e\n"), 7, 'a PFM has "e" for its scale'],
    [
      "a PNM with an endless width",
      ascii(`P5 ${"0".repeat(60)}`),
      3,
      `a PGM has "${"0".repeat(33)}" and more in its header`,
    ],
    [
      "a PAM with an unknown header line",
      ascii("P7\nWIDTH 1\nDEEP 3\n"),
      11,
      'a PAM has the line "DEEP 3" in its header',
    ],
    [
      "a PAM with a missing header line",
      ascii("P7\nWIDTH 1\nHEIGHT 1\nMAXVAL 1\nENDHDR\n"),
      29,
      "a PAM has no DEPTH in its header",
    ],
    [
      "a BMP with an unknown header size",
      bmp({ information: 12 }).with(14, 13),
      14,
      "a BMP says that its second header is 13 bytes long",
    ],
    [
      "a BMP with its pixels inside the header and no size",
      bmp({ offset: 20, said: 0 }),
      2,
      "a BMP says it is 0 bytes long",
    ],
    [
      "a BMP with an endless header",
      bmp().with(15, 255),
      14,
      "a BMP says that its second header is 65320 bytes long",
    ],
    [
      "a compressed BMP without a size",
      bmp({ compression: 1, said: 0 }),
      2,
      "a BMP says it is 0 bytes long",
    ],
    [
      "a BMP without pixels and without a size",
      bmp({ width: 0, said: 54 }),
      2,
      "a BMP says it is 54 bytes long",
    ],
  ];
  for (const [name, bytes, at, what] of wrong) {
    test(`the splitter reports ${name}, after the frame before it`, () => {
      expect(complaint(join(pgm, bytes))).toEqual([
        1,
        "unreadable",
        `Cannot read frame 2 at byte ${start + at} of the input: ${what}`,
      ]);
    });
  }

  test("the error of the splitter quotes the beginning of the input, for any size of chunks", () => {
    const { error } = split(pieces(join(pgm, brokenSignature), 1));
    expect(error?.message).toEndWith(`${expected} "\\u0089PNG\\n"${hint}`);
  });

  test("the splitter reports input without any data, or of zeros only", () => {
    expect(complaint(new Uint8Array(0))).toEqual([
      0,
      "unreadable",
      "Cannot read frames from the input: it ended without a byte; check the program that writes to it",
    ]);
    expect(complaint(new Uint8Array(9))).toEqual([
      0,
      "unreadable",
      "Cannot read frames from the input: it had 9 bytes, all of them zero",
    ]);
  });

  for (const [name, , bytes] of images) {
    test(`the splitter reports input that ends inside ${name}, at any byte`, () => {
      const isText = /text/.test(name);
      // In a text image, a truncation inside the last sample or line end is not detectable.
      const end = isText ? bytes.length - 15 : bytes.length;
      for (let length = 1; length < end; length++) {
        const { frames, error } = split([png, bytes.subarray(0, length)]);
        expect(linesOf(frames)).toEqual([`png ${png.toHex()}`]);
        expect(error?.code).toBe("unreadable");
        expect(error?.message).toMatch(
          new RegExp(
            `^Cannot read frame 2 at byte ${png.length + length} of the input: the input ended inside a .*, after ${length} (bytes?|of its ${bytes.length} bytes)$`,
          ),
        );
      }
    });
  }
});

describe("too large frames", () => {
  const soi = [0xff, 0xd8];
  const sos = segment(0xda, [1, 1, 0, 0, 0x3f, 0]);

  test("the splitter accepts a frame of exactly the size limit", () => {
    for (const [name, , bytes] of images) {
      for (const size of [1, 1000]) {
        const { frames, error } = split(pieces(bytes, size), { maxFrameBytes: bytes.length });
        expect([name, error, frames.length]).toEqual([name, undefined, 1]);
      }
    }
  });

  test("the splitter refuses a frame over the size limit in every format", () => {
    for (const [, , bytes] of images) {
      expect(complaint(bytes, bytes.length - 1).slice(0, 2)).toEqual([0, "too-large"]);
    }
  });

  test("the splitter refuses a frame over the limit as soon as its header gives the size", () => {
    const most = "is longer than the limit of 1048576 bytes";
    const said: [Uint8Array, string][] = [
      [join(pngSignature, [0x7f, 255, 255, 255]), `a PNG ${most}`],
      [ascii("P6 40000 40000 65535\n"), `a PPM of 9600000021 bytes ${most}`],
      [ascii("P1 1024 1024\n"), `a PBM ${most}`],
      [ascii("Pf 1000000 100000 1\n"), `a PFM of 400000000020 bytes ${most}`],
      [bmp({ said: 0xffff_ffff }).subarray(0, 34), `a BMP of 4294967295 bytes ${most}`],
      [
        bmp({ width: 1e6, height: 1e6, said: 0 }).subarray(0, 34),
        `a BMP of 3000000000054 bytes ${most}`,
      ],
    ];
    for (const [bytes, what] of said) {
      expect(complaint(join(pgm, bytes))).toEqual([
        1,
        "too-large",
        `Cannot read frame 2 at byte 15 of the input: ${what}`,
      ]);
    }
  });

  test("the splitter refuses a header only if the smallest size it allows is over the limit", () => {
    const header = chunk("IHDR", new Uint8Array(13));
    const sizes: [Uint8Array, number][] = [
      [join(pngSignature, header, [0, 0, 0, 100]), 8 + 25 + 12 + 100],
      [ascii("P2 100 1 9\n"), 11 + 199],
      [ascii("P1 100 1\n"), 9 + 100],
      [ascii("P4 9 3\n"), 7 + 6],
      [bmp().subarray(0, 34), 78],
    ];
    for (const [begin, size] of sizes) {
      for (const cut of [1, 100]) {
        const codes = [size, size - 1].map(
          (largest) => split(pieces(begin, cut), { maxFrameBytes: largest }).error?.code,
        );
        expect(codes).toEqual(["unreadable", "too-large"]);
      }
    }
  });

  const endless: [string, Uint8Array, Uint8Array][] = [
    ["the coded data of a JPEG", join(soi, sos), new Uint8Array(5000).fill(7)],
    ["the segments of a JPEG", join(soi), segment(0xe0, new Uint8Array(5000))],
    ["the fill bytes of a JPEG", join(soi), new Uint8Array(5000).fill(0xff)],
    ["the restarts of a JPEG", join(soi, sos), join([0xff, 0xd0, 0xff, 0xd1])],
    ["the chunks of a PNG", join(pngSignature), chunk("IDAT", new Uint8Array(5000))],
    ["the empty chunks of a PNG", join(pngSignature), chunk("IDAT", "")],
    ["a comment of a PNM", ascii("P5 # "), ascii("and so on ")],
    ["the blanks of a PNM", ascii("P5 "), ascii(" \n")],
    ["the comments of a PAM", ascii("P7\n"), ascii("#\n")],
    ["the blanks of a text", ascii("P2 2 1 9 1 "), ascii(" \n")],
    ["the last number of a text", ascii("P2 1 1 9 "), ascii("0123456789")],
  ];
  for (const [name, begin, more] of endless) {
    test(`the splitter refuses a frame when ${name} never ends, and buffers at most the limit`, () => {
      const largest = 100_000;
      const { longest, value } = longestArrayOf(() => {
        const splitter = new Splitter({ maxFrameBytes: largest });
        let pushed = 0;
        const push = (bytes: Uint8Array): void => {
          pushed += bytes.length;
          for (const item of splitter.push(bytes)) {
            if ("error" in item) throw item.error;
            throw new Error(`it gave ${item.extension}`);
          }
        };
        const error = refusal(() => {
          push(begin);
          for (;;) push(more);
        });
        return { error, pushed };
      });
      expect(value.error.code).toBe("too-large");
      expect(value.pushed).toBeGreaterThan(largest - 2 * more.length - 30);
      expect(value.pushed).toBeLessThanOrEqual(largest + more.length);
      expect(longest).toBeLessThanOrEqual(largest);
    });
  }

  test("the splitter refuses endless zeros between frames", () => {
    const between = join(pgm, new Uint8Array(200), pgm, new Uint8Array(200));
    expect(split([between], { maxFrameBytes: 300 }).error).toBeUndefined();
    const { frames, error } = split([pgm, new Uint8Array(200), new Uint8Array(200)], {
      maxFrameBytes: 300,
    });
    expect(frames.length).toBe(1);
    expect(error).toMatchObject({
      code: "unreadable",
      message: "Cannot read frame 2 at byte 315 of the input: 301 bytes arrived without an image",
    });
  });
});

describe("Splitter after an error", () => {
  test("the splitter gives up when no image comes within the size of the largest frame", () => {
    const splitter = new Splitter({ maxFrameBytes: 1000 });
    expect([...splitter.push(ascii("nothing"))]).toMatchObject([{ error: { code: "unreadable" } }]);
    const error = refusal(() => [...splitter.push(new Uint8Array(1001))]);
    expect(error.message).toEndWith("1001 bytes arrived without an image");
    expect(refusal(() => [...splitter.push(pgm)])).toBe(error);
    expect(refusal(() => [...splitter.end()])).toBe(error);
  });

  test("the splitter throws if frames of the previous chunk were not all taken", () => {
    const splitter = new Splitter({ maxFrameBytes: 1000 });
    for (const _ of splitter.push(join(pgm, pgm))) break;
    expect(refusal(() => [...splitter.push(pgm)]).code).toBe("internal");
    expect(refusal(() => splitter.end()).code).toBe("internal");
  });

  test("the splitter throws if the frames of a chunk were never requested", () => {
    const splitter = new Splitter({ maxFrameBytes: 1000 });
    splitter.push(pgm);
    expect(refusal(() => splitter.push(pgm)).code).toBe("internal");
  });
});
