// Videos read with the real ffmpeg, compared with the results of running it in other ways.
//
// Covers: source/media/image-file.ts, source/media/media.ts, source/media/probe.ts,
//   source/media/transcode.ts

import { describe, expect, test } from "bun:test";
import {
  mkdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { FramesError } from "../../../src/errors.ts";
import type { CapturedFrame } from "../../../src/source/live/iterable-source.ts";
import { isMedia, type MediaOptions, openMedia } from "../../../src/source/media/media.ts";
import { framesIn } from "../image/images.ts";
import { ffmpeg, framesOf, inFolder, inTime, needs, packetsOf } from "../../helper/ffmpeg.ts";

const largest = 64 << 20;
const picture = ["-f", "lavfi", "-i", "testsrc2=size=174x130:rate=30000/1001"];
const noisy = ["-f", "lavfi", "-i", "testsrc2=size=174x130:rate=25,noise=alls=40:allf=t"];
const test_ = test.skipIf(needs !== "");

/** Opens `path`, which must succeed. */
function open(path: string, options: Partial<MediaOptions> = {}) {
  return inTime(openMedia(path, { maxFrameBytes: largest, ...options }), `opening ${path}`);
}

/** Returns the error of opening `path`. */
async function failure(path: string, options: Partial<MediaOptions> = {}): Promise<FramesError> {
  const media = await open(path, options).catch((error: unknown) => error);
  expect(media).toBeInstanceOf(Error);
  return media as FramesError;
}

function bytesOf(frames: readonly CapturedFrame[]): Buffer {
  return Buffer.concat(frames.map(({ bytes }) => bytes));
}

/** Returns the milliseconds from the first frame to each. */
function spacing(frames: readonly CapturedFrame[]): number[] {
  return frames.map(({ captured }) => Number(captured! - frames[0]!.captured!) / 1e6);
}

/** Returns all frames of a file, which must have no error. */
async function all(path: string, options: Partial<MediaOptions> = {}): Promise<CapturedFrame[]> {
  const { frames, error } = await framesOf(await open(path, options));
  expect(error).toBeUndefined();
  return frames;
}

describe("lossy video files", () => {
  test_(`${needs}a lossy video becomes JPEG, with every frame and the file's own times`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mp4");
      const created = ["-metadata", "creation_time=2026-11-22T07:12:03.000Z"];
      await ffmpeg(...picture, "-frames:v", "45", "-c:v", "libx264", "-bf", "2", ...created, file);
      const media = await open(file);
      expect(media.isLive).toBe(false);
      expect(media.type).toBe("image/jpeg");
      expect(media.description).toMatch(
        /^174x130 h264 at 29\.97 fps, becomes JPEG of quality 2, about \d+(?:\.\d+)? [kM]B\/s \(--copy-video: about \d+ kB\/s\)$/,
      );
      const { frames, error } = await framesOf(media);
      expect(error).toBeUndefined();
      expect(frames.length).toBe(45);
      expect(frames.every(({ extension, name }) => extension === "jpg" && name === undefined)).toBe(
        true,
      );
      const start = BigInt(Date.parse("2026-11-22T07:12:03.000Z")) * 1_000_000n;
      expect(frames.map(({ captured }) => captured! - start)).toEqual(
        frames.map((_, index) => (BigInt(index) * 1001n * 1_000_000_000n) / 30_000n),
      );
      // ffmpeg run directly gives the same bytes.
      const made = await ffmpeg(
        ...["-i", file, "-fps_mode", "passthrough", "-c:v", "mjpeg", "-q:v", "2"],
        ...["-pix_fmt", "yuvj420p", "-f", "mjpeg", "-"],
      );
      expect(bytesOf(frames).equals(made)).toBe(true);
    }),
  );

  test_(`${needs}a video without a creation time is dated from its file's modification time`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mp4");
      await ffmpeg(...noisy, "-frames:v", "50", "-c:v", "libx264", file);
      utimesSync(file, 1_800_000_000, 1_800_000_000);
      const frames = await all(file);
      expect(frames[0]!.captured).toBe(1_799_999_998_000_000_000n);
      expect(frames.at(-1)!.captured).toBe(1_799_999_999_960_000_000n);
    }),
  );

  test_(`${needs}a video of variable frame rate keeps the times of all its frames`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "varying.mkv");
      // Frame times are the squares of their numbers, in hundredths of a second.
      const times = ["-vf", "settb=1/100,setpts=N*N", "-fps_mode", "passthrough"];
      await ffmpeg(...noisy, "-frames:v", "12", ...times, "-enc_time_base", "1/100", file);
      const expected = Array.from({ length: 12 }, (_, index) => index * index * 10);
      expect(
        (await packetsOf(file))
          .map(({ seconds }) => Math.round(seconds * 1000))
          .sort((one, other) => one - other),
      ).toEqual(expected);
      expect(spacing(await all(file))).toEqual(expected);
      expect(spacing(await all(file, { lossless: true }))).toEqual(expected);
    }),
  );

  test_(`${needs}a video track may begin later than the audio track, and end earlier`, () =>
    inFolder(async (folder) => {
      const [clip, sound] = [join(folder, "clip.mkv"), join(folder, "sound.wav")];
      await ffmpeg(...noisy, "-frames:v", "25", "-c:v", "libx264", clip);
      await ffmpeg("-f", "lavfi", "-i", "sine=duration=4", sound);
      for (const ending of ["mkv", "mov", "ts"]) {
        const file = join(folder, `late.${ending}`);
        const input = ["-itsoffset", "1", "-i", clip, "-i", sound];
        await ffmpeg(...input, "-c:v", "copy", "-c:a", "mp2", file);
        const media = await open(file);
        utimesSync(file, 1_800_000_000, 1_800_000_000);
        const { frames, error } = await framesOf(media);
        expect([ending, frames.length, error]).toEqual([ending, 25, undefined]);
        // The recording starts with the audio track, before the video.
        const start = Number(frames[0]!.captured!) / 1e9 - 1_800_000_000;
        expect(start).toBeGreaterThan(-3.2);
        expect(start).toBeLessThan(-2.8);
      }
    }),
  );

  test_(`${needs}a video becomes smaller JPEG at a lower quality, and PNG without loss`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mp4");
      await ffmpeg(...noisy, "-frames:v", "5", "-c:v", "libx264", "-pix_fmt", "yuv444p", file);
      const [fine, coarse] = [await all(file), await all(file, { quality: 20 })];
      expect(bytesOf(coarse).length).toBeLessThan(bytesOf(fine).length / 2);
      const frames = await all(file, { lossless: true });
      expect(frames.map(({ extension }) => extension)).toEqual(new Array<string>(5).fill("png"));
      const rgb = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"];
      const decoded = await ffmpeg("-i", file, ...rgb);
      writeFileSync(join(folder, "frames.png"), bytesOf(frames));
      const back = await ffmpeg("-f", "png_pipe", "-i", join(folder, "frames.png"), ...rgb);
      expect(back.equals(decoded)).toBe(true);
      expect((await failure(file, { quality: 1 })).code).toBe("usage");
    }),
  );

  test_(`${needs}a video file can have any name`, () =>
    inFolder(async (folder) => {
      const odd = join(folder, "-i http:%03d 'a\"b;c|d[e]\n$(touch x).mp4");
      const made = join(folder, "clip.mp4");
      await ffmpeg(...noisy, "-frames:v", "3", "-c:v", "libx264", made);
      writeFileSync(odd, readFileSync(made));
      expect((await all(odd)).length).toBe(3);
    }),
  );
});

describe("MJPEG files", () => {
  for (const [container, more] of [
    ["avi", []],
    ["mkv", []],
    ["mov", []],
    ["avi without Huffman tables", ["-bsf:v", "mjpeg2jpeg"]],
  ] as const) {
    test_(`${needs}MJPEG in ${container} is copied byte for byte, with its own times`, () =>
      inFolder(async (folder) => {
        const file = join(folder, `clip.${container.slice(0, 3)}`);
        const raw = join(folder, "frames.mjpeg");
        const encode = ["-frames:v", "30", "-c:v", "mjpeg", "-q:v", "4", "-huffman", "default"];
        await ffmpeg(...noisy, ...encode, raw);
        let expected = framesIn(readFileSync(raw)).map(({ bytes }) => bytes);
        if (more.length > 0) {
          expected = expected.map(withoutTables);
          writeFileSync(raw, Buffer.concat(expected));
        }
        await ffmpeg("-framerate", "25", "-i", raw, "-c", "copy", file);
        const packets = await packetsOf(file);
        expect(packets.map(({ size }) => size)).toEqual(expected.map(({ length }) => length));
        const media = await open(file, { lossless: true, quality: 9 });
        expect(media.description).toMatch(/mjpeg at \d+ fps, copied as it is, about/);
        const { frames, error } = await framesOf(media);
        expect(error).toBeUndefined();
        expect(frames.length).toBe(30);
        expect(frames.every(({ bytes }, at) => Buffer.from(bytes).equals(expected[at]!))).toBe(
          true,
        );
        expect(spacing(frames)).toEqual(expected.map((_, index) => index * 40));
      }),
    );
  }
});

describe("samples of more than 8 bits", () => {
  test_(`${needs}16-bit grey video becomes PNG with unchanged samples`, () =>
    inFolder(async (folder) => {
      const raw = await ramps(join(folder, "thermal.gray16le"));
      const shape = ["-f", "rawvideo", "-pix_fmt", "gray16le", "-video_size", "256x128"];
      const input = [...shape, "-framerate", "25", "-i", join(folder, "thermal.gray16le")];
      for (const codec of ["ffv1", "rawvideo", "png"]) {
        const file = join(folder, `thermal-${codec}.nut`);
        await ffmpeg(...input, "-c:v", codec, file);
        const frames = await all(file);
        expect(frames.length).toBe(4);
        writeFileSync(join(folder, "frames.png"), bytesOf(frames));
        const back = await ffmpeg(
          ...["-f", "png_pipe", "-i", join(folder, "frames.png")],
          ...["-f", "rawvideo", "-pix_fmt", "gray16le", "-"],
        );
        expect(back.equals(raw)).toBe(true);
        // Bit depth and colour type, from the PNG header.
        expect(frames.map(({ bytes }) => [bytes[24], bytes[25]])).toEqual(
          frames.map(() => [16, 0]),
        );
      }
    }),
  );

  test_(
    `${needs}colour of more than 8 bits stays 16-bit in PNG from lossless video, or with lossless set`,
    () =>
      inFolder(async (folder) => {
        const exact = join(folder, "exact.mkv");
        const lossy = join(folder, "lossy.mkv");
        const few = [...noisy, "-frames:v", "2"];
        await ffmpeg(...few, "-c:v", "ffv1", "-pix_fmt", "gbrp16le", exact);
        await ffmpeg(...few, "-c:v", "libx264", "-pix_fmt", "yuv422p10le", lossy);
        const kinds = async (file: string, lossless: boolean) =>
          (await all(file, { lossless })).map(
            ({ extension, bytes }) => `${extension} ${bytes[24]}`,
          );
        expect(await kinds(exact, false)).toEqual(["png 16", "png 16"]);
        expect(await kinds(lossy, true)).toEqual(["png 16", "png 16"]);
        expect((await all(lossy)).map(({ extension }) => extension)).toEqual(["jpg", "jpg"]);
      }),
  );

  test_(`${needs}PNG in a container is copied byte for byte`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mov");
      await ffmpeg(...noisy, "-frames:v", "6", "-c:v", "png", "-pix_fmt", "rgb48be", file);
      const copied = await ffmpeg("-i", file, "-c", "copy", "-f", "image2pipe", "-");
      const frames = await all(file);
      expect(frames.length).toBe(6);
      expect(bytesOf(frames).equals(copied)).toBe(true);
    }),
  );
});

describe("media files", () => {
  test_(`${needs}a truncated video file gives every frame before the end, then an error`, () =>
    inFolder(async (folder) => {
      const whole = join(folder, "whole.mkv");
      await ffmpeg(...noisy, "-frames:v", "60", "-c:v", "mjpeg", "-q:v", "4", whole);
      const expected = (await all(whole)).map(({ bytes }) => Buffer.from(bytes));
      for (const ending of ["mkv", "avi", "mov"]) {
        const cut = join(folder, `cut.${ending}`);
        await ffmpeg("-i", whole, "-c", "copy", "-movflags", "+faststart", cut);
        truncateSync(cut, Math.floor(statSync(cut).size * 0.5));
        const { frames, error } = await framesOf(await open(cut));
        expect(frames.length).toBeGreaterThan(20);
        expect(frames.length).toBeLessThan(35);
        expect(frames.every(({ bytes }, at) => expected[at]!.equals(bytes))).toBe(true);
        expect((error as FramesError).code).toBe("unreadable");
        expect((error as FramesError).message).toMatch(
          /^Cannot read .* to its end: it ended after \d+ frames, at [\d.]+ of 2\.40 s; ffmpeg printed: [^\n]+$/,
        );
      }
    }),
  );

  test_(`${needs}a file without video is unreadable, with ffprobe's reason in the error`, () =>
    inFolder(async (folder) => {
      const broken = join(folder, "broken.mp4");
      await ffmpeg(...noisy, "-frames:v", "9", "-c:v", "libx264", broken);
      truncateSync(broken, 700);
      const text = join(folder, "notes.txt");
      writeFileSync(text, "Bring milk\n");
      const sound = join(folder, "sound.wav");
      await ffmpeg("-f", "lavfi", "-i", "sine=duration=1", sound);
      const empty = join(folder, "empty.mkv");
      writeFileSync(empty, "");
      for (const [path, words] of [
        [broken, /moov atom not found/],
        [text, /Invalid data found/],
        [empty, /./],
        [sound, /it contains no video; to send files that are not videos, name their directory/],
      ] as const) {
        expect(isMedia(path)).toBe(true);
        const error = await failure(path);
        expect([path, error.code]).toEqual([path, "unreadable"]);
        expect(error.message).toMatch(words);
        expect(error.message).not.toMatch(/[\n\r\x1b]/);
      }
    }),
  );

  test("a media file that does not exist is an error with the code missing", async () => {
    const path = "/nowhere/clip.mp4";
    expect(isMedia(path)).toBe(true);
    const error = await failure(path);
    expect([error.code, error.message]).toEqual([
      "missing",
      "Cannot read /nowhere/clip.mp4: no such file or directory",
    ]);
    expect((await failure("/dev/video250")).code).toBe("missing");
  });

  test("an image file is one frame with its own bytes and name, and needs no ffmpeg", () =>
    inFolder(async (folder) => {
      const file = join(folder, "7.png");
      writeFileSync(file, Buffer.from("89504e470d0a1a0a00", "hex"));
      utimesSync(file, 1_800_000_000, 1_800_000_000);
      const media = await withPath(folder, () => open(file));
      expect(media.description).toBe("one image of 1 kB, as it is");
      expect((await framesOf(media)).frames).toEqual([
        { bytes: readFileSync(file), name: "7.png", captured: 1_800_000_000_000_000_000n },
      ]);
      const { error } = await framesOf(await open(file, { maxFrameBytes: 8 }));
      expect((error as FramesError).code).toBe("too-large");
    }));

  test_(
    `${needs}a file of images without a container is split into frames, and a single image keeps its name`,
    () =>
      inFolder(async (folder) => {
        const file = join(folder, "clip.mjpeg");
        await ffmpeg(...noisy, "-frames:v", "12", "-c:v", "mjpeg", file);
        const images = framesIn(readFileSync(file));
        const frames = await all(file);
        expect(
          frames.map(({ bytes, extension: ending, name }) => ({ bytes, ending, name })),
        ).toEqual(images.map(({ bytes }) => ({ bytes, ending: "jpg", name: undefined })));
        truncateSync(file, statSync(file).size - 9);
        const cut = await framesOf(await open(file));
        expect([cut.frames.length, cut.error]).toEqual([11, undefined]);
        expect(cut.losses.map((loss) => loss.error.code)).toEqual(["unreadable"]);
        // The first image is not lost with the second.
        const [first, second, third] = images.map(({ bytes }) => bytes);
        writeFileSync(file, Buffer.concat([first!, second!.subarray(0, -1), third!]));
        const media = await open(file);
        const damaged = await framesOf(media);
        expect(damaged.frames.map(({ bytes, name }) => ({ bytes, name }))).toEqual([
          { bytes: first!, name: undefined },
          { bytes: third!, name: undefined },
        ]);
        expect(damaged.losses[0]!.error.message).toStartWith(`${file}: Cannot read frame 2`);
        const one = join(folder, "picture");
        writeFileSync(one, images[0]!.bytes);
        expect((await all(one)).map(({ bytes, name }) => ({ bytes, name }))).toEqual([
          { bytes: images[0]!.bytes, name: "picture" },
        ]);
      }),
  );

  test_(
    `${needs}frames of a media file over the size limit are lost by name, and the file is read to its end`,
    () =>
      inFolder(async (folder) => {
        const file = join(folder, "clip.avi");
        await ffmpeg(...noisy, "-frames:v", "3", "-c:v", "mjpeg", file);
        const media = await open(file, { maxFrameBytes: 1000 });
        const { frames, losses, error } = await framesOf(media);
        expect([frames, error]).toEqual([[], undefined]);
        expect(losses.map((loss) => loss.error.code)).toEqual(new Array(3).fill("too-large"));
      }),
  );
});

test_(`${needs}without ffmpeg the error says what to install`, () =>
  inFolder(async (folder) => {
    const file = join(folder, "clip.avi");
    await ffmpeg(...noisy, "-frames:v", "3", "-c:v", "mjpeg", file);
    const media = await open(file);
    mkdirSync(join(folder, "nothing"));
    const first = await withPath(join(folder, "nothing"), () => failure(file));
    expect([first.code, first.message]).toEqual([
      "missing",
      "Cannot read videos, cameras and URLs: ffprobe is not installed; install ffmpeg 4.4 or later",
    ]);
    const { error } = await withPath(join(folder, "nothing"), () => framesOf(media));
    expect((error as FramesError).message).toContain("ffmpeg is not installed");
  }),
);

/** Writes four frames that together contain every 16-bit value, each in another order. */
async function ramps(path: string): Promise<Buffer> {
  const samples = new Uint16Array(4 * 256 * 128);
  for (let index = 0; index < samples.length; index++) samples[index] = index * 7 + (index >> 15);
  writeFileSync(path, samples);
  return readFileSync(path);
}

async function withPath<T>(path: string, use: () => Promise<T>): Promise<T> {
  const before = process.env["PATH"];
  process.env["PATH"] = path;
  try {
    return await use();
  } finally {
    process.env["PATH"] = before;
  }
}

/**
 * Returns a JPEG as many cameras store it in AVI: marked AVI1 and without the standard Huffman
 * tables.
 */
function withoutTables(jpeg: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [Buffer.from("ffd8ffe000104156493100" + "00".repeat(9), "hex")];
  let at = 2;
  while (jpeg[at + 1] !== 0xda) {
    const end = at + 2 + jpeg[at + 2]! * 256 + jpeg[at + 3]!;
    if (jpeg[at + 1] !== 0xc4 && jpeg[at + 1] !== 0xe0) parts.push(jpeg.subarray(at, end));
    at = end;
  }
  return Buffer.concat([...parts, jpeg.subarray(at)]);
}
