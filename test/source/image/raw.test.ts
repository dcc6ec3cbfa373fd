import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  checkRawSize,
  formatRawShape,
  parseRawShape,
  rawFormats,
  rawFrameBytes,
} from "../../../src/source/image/raw.ts";
import { refusal } from "../../helper/refusal.ts";

const needs = Bun.which("ffmpeg") === null ? "skipped: needs ffmpeg: " : "";

describe("RawShape", () => {
  test("the shape of raw frames is parsed from WIDTHxHEIGHT:FORMAT in any case", () => {
    expect(parseRawShape("640x512:gray16le")).toEqual({
      width: 640,
      height: 512,
      format: "gray16le",
    });
    expect(parseRawShape("1X1:RGB24")).toEqual({ width: 1, height: 1, format: "rgb24" });
  });

  test("the format of raw frames is stored under ffmpeg's first name for it", () => {
    for (const alias of ["gray", "gray8", "y8"]) {
      expect(parseRawShape(`2x2:${alias}`).format).toBe("gray");
      expect(rawFrameBytes({ width: 2, height: 2, format: alias })).toBe(4);
    }
    expect(parseRawShape("2x2:y16le").format).toBe("gray16le");
  });

  test("a format name with two meanings means what ROS means by it, and the error names both", () => {
    for (const [name, wide, narrow] of [
      ["rgb8", "rgb24", "rgb332"],
      ["BGR8", "bgr24", "bgr332"],
    ] as const) {
      const shape = parseRawShape(`2x2:${name}`);
      expect(shape.format).toBe(wide);
      expect(refusal(() => checkRawSize(4, shape, `2x2:${name}`)).message).toBe(
        `it has 4 bytes, and 2x2:${name} has 12; ${name.toLowerCase()} is ${wide} as in ROS, and ffmpeg's ${name.toLowerCase()} is ${narrow}`,
      );
      expect(rawFrameBytes(parseRawShape(`2x2:${wide}`))).toBe(12);
      expect(rawFrameBytes(parseRawShape(`2x2:${narrow}`))).toBe(4);
      // Stores have frames with ffmpeg's name. It is written so that it is read as ffmpeg means it.
      const stored = { width: 2, height: 2, format: name.toLowerCase() };
      expect(rawFrameBytes(stored)).toBe(4);
      expect(formatRawShape(stored)).toBe(`2x2:${narrow}`);
      expect(parseRawShape(formatRawShape(stored))).toEqual(stored);
    }
  });

  test("the names of ROS, OpenCV and numpy stand for ffmpeg's", () => {
    // sensor_msgs/image_encodings.hpp of ROS 2, and cv_bridge's names of OpenCV's types.
    const names = {
      mono8: "gray",
      mono16: "gray16le",
      rgba8: "rgba",
      bgra8: "bgra",
      rgb16: "rgb48le",
      bgr16: "bgr48le",
      "8UC1": "gray",
      "8UC3": "bgr24",
      "16UC1": "gray16le",
      "32FC1": "grayf32le",
      yuv422: "uyvy422",
      yuv422_yuy2: "yuyv422",
      bayer_rggb8: "bayer_rggb8",
      bayer_rggb16: "bayer_rggb16le",
      uint16: "gray16le",
      float32: "grayf32le",
    };
    for (const [name, format] of Object.entries(names)) {
      expect([name, parseRawShape(`2x2:${name}`).format]).toEqual([name, format]);
    }
  });

  const wrong: [string, string][] = [
    [
      "640x512",
      'Cannot read the shape of raw frames: expected WIDTHxHEIGHT:FORMAT such as 640x512:gray16le, current value is "640x512"',
    ],
    [
      "640:gray\x1b",
      'Cannot read the shape of raw frames: expected WIDTHxHEIGHT:FORMAT such as 640x512:gray16le, current value is "640:gray\\u001b"',
    ],
    [
      "640x0:gray",
      'Cannot read raw frames of this shape: expected sides from 1 to 2147483647, current value is "640x0:gray"',
    ],
    [
      "9999999999x1:gray",
      'Cannot read raw frames of this shape: expected sides from 1 to 2147483647, current value is "9999999999x1:gray"',
    ],
    [
      "640x512:gray16",
      'Cannot read raw frames of the format "gray16": write gray16le or gray16be, for the order of its bytes',
    ],
    [
      "640x512:grey",
      'Cannot read raw frames of the format "grey": write a name of ffmpeg, such as gray, gray16le, rgb24, bgr24, yuv420p, nv12, yuyv422 or bayer_rggb8',
    ],
  ];
  for (const [text, message] of wrong) {
    test(`the shape ${JSON.stringify(text)} of raw frames is refused`, () => {
      expect(refusal(() => parseRawShape(text))).toMatchObject({ code: "usage", message });
    });
  }

  test("a shape with an invalid size or format is refused if a program passes it", () => {
    for (const shape of [
      { width: 1.5, height: 1, format: "gray" },
      { width: 1, height: NaN, format: "gray" },
      { width: 1, height: 1, format: "constructor" },
    ]) {
      expect(refusal(() => rawFrameBytes(shape)).code).toBe("usage");
    }
  });
});

describe("rawFrameBytes", () => {
  test("a raw frame has the bytes of its planes, with chroma sizes rounded up", () => {
    const sizes = { gray: 15, gray16le: 30, rgb24: 45, rgba64be: 120, yuv420p: 27, nv16: 33 };
    for (const [format, size] of Object.entries(sizes)) {
      expect([format, rawFrameBytes({ width: 5, height: 3, format })]).toEqual([format, size]);
    }
  });

  for (const [width, height] of [
    [5, 3],
    [64, 48],
    [9, 1],
  ] as const) {
    const behaviour = `a raw frame of ${width}x${height} has as many bytes as ffmpeg reads, in every format`;
    test.skipIf(needs !== "")(`${needs}${behaviour}`, async () => {
      // Copied without conversion, because ffmpeg cannot convert some formats.
      const sizes = await ffmpegSizes((format) => ({
        input: ["-f", "rawvideo", "-pixel_format", format, "-video_size", `${width}x${height}`],
        from: "/dev/zero",
        output: ["-c:v", "copy"],
      }));
      for (const format of rawFormats) {
        const size = rawFrameBytes({ width, height, format });
        expect([format, size]).toEqual([format, sizes.get(format)!]);
      }
    });
  }

  test.skipIf(needs !== "")(
    `${needs}a raw frame has as many bytes as an image that ffmpeg converts to its format`,
    async () => {
      const listed = await Bun.$`ffmpeg -v error -hide_banner -pix_fmts`.text();
      const made = new Set([...listed.matchAll(/^.O\S* (\w+)/gm)].map(([, name]) => name!));
      const formats = rawFormats.filter((format) => made.has(format));
      expect(formats.length).toBeGreaterThan(60);
      const sizes = await ffmpegSizes(
        (format) => ({
          input: ["-f", "lavfi"],
          from: "testsrc=size=5x3",
          output: ["-pix_fmt", format],
        }),
        formats,
      );
      for (const format of formats) {
        const size = rawFrameBytes({ width: 5, height: 3, format });
        expect([format, size]).toEqual([format, sizes.get(format)!]);
      }
    },
  );
});

/** Returns the bytes of one raw frame in each format according to ffmpeg. */
async function ffmpegSizes(
  wordsFor: (format: string) => { input: string[]; from: string; output: string[] },
  formats: readonly string[] = rawFormats,
): Promise<Map<string, number>> {
  const place = mkdtempSync(join(tmpdir(), "frames-raw-"));
  try {
    const inputs: string[] = [];
    const outputs: string[] = [];
    for (const [index, format] of formats.entries()) {
      const { input, from, output } = wordsFor(format);
      inputs.push(...input, "-i", from);
      const file = join(place, format);
      outputs.push("-map", `${index}:v`, "-frames:v", "1", ...output, "-f", "rawvideo", file);
    }
    const words = ["ffmpeg", "-v", "error", "-nostdin", ...inputs, ...outputs];
    const child = Bun.spawn(words, { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
    const [code, said] = await Promise.all([child.exited, new Response(child.stderr).text()]);
    if (code !== 0) throw new Error(`ffmpeg ended with ${code}: ${said.trim()}`);
    return new Map(formats.map((format) => [format, statSync(join(place, format)).size]));
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}
