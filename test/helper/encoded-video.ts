// Clips of H.264 and H.265 for tests, and independent splits of them by ffmpeg.

import { copyFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { AccessUnitSplitter } from "../../src/video/access-units.ts";
import type { VideoCodec } from "../../src/video/nal-units.ts";
import { ffmpeg } from "./ffmpeg.ts";
import { temporaryFolder } from "./program.ts";

const scene = "testsrc2=size=176x144:rate=30,noise=alls=20:allf=t";

/** How ffmpeg encodes each kind of clip. */
export const encodings: Readonly<Record<string, readonly [VideoCodec, ...string[]]>> = {
  baseline: ["h264", "-profile:v", "baseline", "-pix_fmt", "yuv420p"],
  main: ["h264", "-profile:v", "main", "-bf", "0", "-pix_fmt", "yuv420p"],
  high: ["h264", "-profile:v", "high", "-bf", "0", "-pix_fmt", "yuv420p"],
  slices: ["h264", "-bf", "0", "-slices", "4", "-aud", "1", "-pix_fmt", "yuv420p"],
  "H.265 main": [
    "h265",
    "-x265-params",
    "log-level=none:scenecut=0:bframes=0",
    "-pix_fmt",
    "yuv420p",
  ],
  "B-frames": ["h264", "-bf", "3", "-b_strategy", "0", "-pix_fmt", "yuv420p"],
  "H.265 with B-frames and open GOP": [
    "h265",
    "-x265-params",
    "log-level=none:scenecut=0:open-gop=1",
  ],
  "open GOP": ["h264", "-bf", "2", "-x264-params", "open-gop=1", "-pix_fmt", "yuv420p"],
  interlaced: ["h264", "-bf", "0", "-flags", "+ilme+ildct", "-pix_fmt", "yuv420p"],
  "intra refresh": ["h264", "-bf", "0", "-intra-refresh", "1", "-pix_fmt", "yuv420p"],
  "4:2:2 with 10 bits": ["h264", "-bf", "0", "-pix_fmt", "yuv422p10le"],
};

/** Pictures from one key frame to the next: a second. */
export const groupLength = 30;

/** Clips of this test file by the arguments of ffmpeg, each encoded once. */
const encoded = new Map<string, Promise<string>>();

/** Encodes a clip into `file`, with a key frame every `groupLength` pictures. */
export async function encode(
  file: string,
  kind: keyof typeof encodings,
  pictures = 75,
  input: readonly string[] = ["-f", "lavfi", "-i", scene],
): Promise<void> {
  const [codec, ...words] = encodings[kind]!;
  const encoder = codec === "h264" ? "libx264" : "libx265";
  const rate = [
    "-preset",
    "veryfast",
    "-g",
    `${groupLength}`,
    "-sc_threshold",
    "0",
    "-frames:v",
    `${pictures}`,
  ];
  const args = [...input, "-c:v", encoder, ...rate, ...words];
  const kept = `${Bun.hash(args.join())}${extname(file)}`;
  let clip = encoded.get(kept);
  if (clip === undefined) {
    const path = join(temporaryFolder(), kept);
    clip = ffmpeg(...args, path).then(() => path);
    encoded.set(kept, clip);
  }
  await copyFile(await clip, file);
}

/** Returns the MD5 of each access unit of a file in Annex B, as ffmpeg copies them. */
export async function unitHashes(file: string, codec: VideoCodec): Promise<string[]> {
  const filter = codec === "h264" ? "h264_mp4toannexb" : "hevc_mp4toannexb";
  const copy = ["-map", "0:v:0", "-c", "copy", "-copyinkf", "-bsf:v", filter];
  return hashesIn(await ffmpeg("-i", file, ...copy, "-f", "framemd5", "-"));
}

/** Returns the MD5 of each decoded picture of a file, in the order in which they are shown. */
export async function pictureHashes(file: string): Promise<string[]> {
  return hashesIn(
    await ffmpeg("-i", file, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"),
  );
}

/** Encodes a clip as a container, and returns the place of each access unit's picture in the video. */
export async function displayOrder(
  file: string,
  kind: keyof typeof encodings,
  pictures: number,
  input: readonly string[],
): Promise<number[]> {
  await encode(file, kind, pictures, input);
  const listing = await ffmpeg("-i", file, "-map", "0:v:0", "-c", "copy", "-f", "framemd5", "-");
  const lines = listing.toString().split("\n");
  // Stream, decoding time, time of the picture.
  const times = lines.filter((line) => /^\d/.test(line)).map((line) => Number(line.split(",")[2]));
  const sorted = times.toSorted((one, other) => one - other);
  return times.map((time) => sorted.indexOf(time));
}

function hashesIn(listing: Buffer): string[] {
  const lines = listing.toString().split("\n");
  return lines
    .filter((line) => /^\d/.test(line))
    .map((line) => /, *([0-9a-f]{32})(?:,|$)/.exec(line)![1]!);
}

export function md5(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("md5").update(bytes).digest("hex");
}

/** Encodes a clip and returns its access units, with parameter sets in each key frame. */
export async function unitsOf(
  folder: string,
  kind: keyof typeof encodings,
  pictures?: number,
  input?: readonly string[],
): Promise<Uint8Array[]> {
  const [codec] = encodings[kind]!;
  const file = join(folder, `units-${Bun.hash(`${kind}${input?.join()}`)}.${codec}`);
  await encode(file, kind, pictures, input);
  return splitUnits(await Bun.file(file).bytes(), codec);
}

function splitUnits(bytes: Uint8Array, codec: VideoCodec): Uint8Array[] {
  const splitter = new AccessUnitSplitter(codec, 1 << 24);
  const units = [...splitter.push(bytes), ...splitter.end()];
  return units.filter((unit): unit is Uint8Array => typeof unit !== "number");
}

/** A clip without B-frames. */
export interface Clip {
  readonly codec: VideoCodec;
  /** Path of its file in Annex B. */
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly units: readonly Uint8Array[];
}

/** Encodes a clip of a moving picture, with a key frame every `groupLength` pictures. */
export async function makeClip(
  codec: VideoCodec,
  pictures: number,
  size = "160x120",
): Promise<Clip> {
  const path = join(temporaryFolder(), `clip.${codec}`);
  const input = ["-f", "lavfi", "-i", `testsrc2=size=${size}:rate=30`];
  await encode(path, codec === "h264" ? "main" : "H.265 main", pictures, input);
  const bytes = await Bun.file(path).bytes();
  return { codec, path, bytes, units: splitUnits(bytes, codec) };
}

/** Returns a clip of H.264 whose access units are `bytes` longer, by filler that decoders skip. */
export function padded(clip: Clip, bytes: number): Clip {
  const filler = Buffer.concat([
    Buffer.from([0, 0, 0, 1, 0x0c]),
    Buffer.alloc(bytes, 0xff),
    Buffer.from([0x80]),
  ]);
  return { ...clip, units: clip.units.map((unit) => Buffer.concat([unit, filler])) };
}

/**
 * Whether what a picture needs was taken. Leading pictures need what was before their key frame, and
 * no picture needs leading ones of an earlier key frame.
 *
 * @param letters pictures from number 1 on: key frames `K`, leading pictures `l`, recovery points `r`,
 * and others
 */
export function isDecodable(number: number, letters: string, taken: ReadonlySet<number>): boolean {
  const letter = letters[number - 1];
  if (letter === "K" || letter === "r") return true;
  const isTakenUpTo = (last: number) => {
    let before = last;
    while (letters[before - 1] === "l" && !taken.has(before)) before--;
    return before === 0 || taken.has(before);
  };
  if (letter !== "l") return isTakenUpTo(number - 1);
  return taken.has(number - 1) && isTakenUpTo(letters.lastIndexOf("K", number - 1));
}
