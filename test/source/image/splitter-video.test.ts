// Compares the splitter with ffmpeg on ffmpeg's own output.

import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rawFrameBytes } from "../../../src/source/image/raw.ts";
import { Random } from "../../wire/fuzz.ts";
import { pieces, split } from "./images.ts";

const needs = Bun.which("ffmpeg") === null ? "skipped: needs ffmpeg: " : "";

/** Image codecs, the extension from the splitter, and further ffmpeg arguments. */
const kinds: [string, string, string, string[]][] = [
  ["JPEG", "mjpeg", "jpg", ["-q:v", "3"]],
  [
    "JPEG with restarts",
    "mjpeg",
    "jpg",
    ["-q:v", "2", "-thread_type", "slice", "-slices", "4", "-threads", "4"],
  ],
  ["JPEG of high quality", "mjpeg", "jpg", ["-q:v", "1", "-pix_fmt", "yuvj444p"]],
  ["JPEG-LS", "jpegls", "jpg", ["-pix_fmt", "gray16le"]],
  ["PNG of 8 bits", "png", "png", ["-pix_fmt", "rgb24"]],
  ["PNG of 16 bits", "png", "png", ["-pix_fmt", "gray16be"]],
  ["PBM", "pbm", "pbm", []],
  ["PGM of 8 bits", "pgm", "pgm", ["-pix_fmt", "gray"]],
  ["PGM of 16 bits", "pgm", "pgm", ["-pix_fmt", "gray16be"]],
  ["PPM of 8 bits", "ppm", "ppm", []],
  ["PPM of 16 bits", "ppm", "ppm", ["-pix_fmt", "rgb48be"]],
  ["PAM", "pam", "pam", ["-pix_fmt", "rgba64be"]],
  ["PFM", "pfm", "pfm", []],
  ["BMP of 24 bits", "bmp", "bmp", ["-pix_fmt", "bgr24"]],
  ["BMP of 16 bits", "bmp", "bmp", ["-pix_fmt", "rgb565le"]],
  ["BMP of 8 bits", "bmp", "bmp", ["-pix_fmt", "gray"]],
];

const frames = 8;
// Odd dimensions, and noise so that all byte values occur.
const picture = ["-f", "lavfi", "-i", "testsrc=size=173x131,noise=alls=40:allf=t"];
const always = ["-v", "error", "-nostdin"];
const made = ["-frames:v", `${frames}`, "-bitexact"];

for (const [name, codec, ending, more] of kinds) {
  test.skipIf(needs !== "")(`${needs}the splitter cuts ffmpeg's ${name} into frames`, async () => {
    const encode = [...always, ...picture, ...made, "-c:v", codec, ...more];
    const place = mkdtempSync(join(tmpdir(), "frames-video-"));
    try {
      const [input] = await Promise.all([
        ffmpeg([...encode, "-f", "image2pipe", "-"]),
        ffmpeg([...encode, "-f", "image2", join(place, `%d.${codec}`)]),
      ]);
      const files = Array.from({ length: frames }, (_, index) =>
        readFileSync(join(place, `${index + 1}.${codec}`)),
      );
      expect(readdirSync(place).length).toBe(frames);
      const random = new Random(1);
      for (const most of [65_536, 65_536, 5000, 700, 40]) {
        const { frames: found, error } = split(pieces(input, 1 + random.below(most)));
        expect(error).toBeUndefined();
        expect(found.map((frame) => frame.extension)).toEqual(files.map(() => ending));
        expect(found.every(({ bytes }, index) => files[index]!.equals(bytes))).toBe(true);
      }
    } finally {
      rmSync(place, { recursive: true, force: true });
    }
  });
}

test.skipIf(needs !== "")(`${needs}the splitter cuts ffmpeg's raw video into frames`, async () => {
  const raw = { width: 173, height: 131, format: "yuv420p" };
  const size = rawFrameBytes(raw);
  const encode = [...always, ...picture, ...made, "-pix_fmt", raw.format];
  const input = await ffmpeg([...encode, "-f", "rawvideo", "-"]);
  const { frames: found, error } = split(pieces(input, 4099), { raw });
  expect(error).toBeUndefined();
  expect(found.map(({ bytes }) => bytes.length)).toEqual(new Array<number>(frames).fill(size));
  expect(Buffer.concat(found.map(({ bytes }) => bytes)).equals(input)).toBe(true);
});

async function ffmpeg(words: string[]): Promise<Uint8Array> {
  const child = Bun.spawn(["ffmpeg", ...words], { stdin: "ignore", stderr: "pipe" });
  const [code, bytes, said] = await Promise.all([
    child.exited,
    new Response(child.stdout).bytes(),
    new Response(child.stderr).text(),
  ]);
  if (code !== 0) throw new Error(`ffmpeg ended with ${code}: ${said.trim()}`);
  return bytes;
}
