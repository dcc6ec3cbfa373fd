/** What becomes of the frames of a video: whether they are copied, and if not, what they are made. */
import { FramesError } from "../errors.ts";
import type { Probe } from "./probe.ts";

/** What frames become. */
export interface Conversion {
  /** What tells ffmpeg so. */
  readonly words: readonly string[];
  /** How their files end. */
  readonly ending: string;
  /** Their media type. */
  readonly type: string;
  /** For people: "becomes JPEG of quality 2". */
  readonly label: string;
  /** Bytes of a frame, more or less, where that can be told. */
  readonly frameSize: number | undefined;
}

/** What can be asked for. */
export interface ConversionOptions {
  /** From 2, which is the best, to 31. */
  readonly quality?: number;
  /** Nothing of the pictures is to be lost. */
  readonly lossless?: boolean;
  /** Whether the frames come as they are captured: there is no time for large ones. */
  readonly isLive: boolean;
}

/** Codecs whose frames are images of their own: ending and media type. */
const images = new Map([
  ["mjpeg", { ending: "jpg", type: "image/jpeg" }],
  ["png", { ending: "png", type: "image/png" }],
  ["jpegls", { ending: "jls", type: "image/jls" }],
  ["bmp", { ending: "bmp", type: "image/bmp" }],
  ["tiff", { ending: "tiff", type: "image/tiff" }],
  ["webp", { ending: "webp", type: "image/webp" }],
]);

/** Codecs that lose nothing of a picture, and so neither may what becomes of it. */
const exact = new Set([
  ...["rawvideo", "ffv1", "huffyuv", "ffvhuff", "hymt", "utvideo", "magicyuv", "lagarith", "png"],
  ...["apng", "gif", "qtrle", "rle", "zlib", "zmbv", "mszh", "cscd", "flashsv", "tscc", "fraps"],
  ...["dxtory", "cllc", "loco", "v210", "v308", "v408", "v410", "r210", "r10k", "bitpacked"],
]);

/**
 * Decides what the frames become. Images are copied byte for byte; what has more than 8 bits a sample and
 * is grey, or was not compressed with losses, keeps them in PNG; other video becomes JPEG.
 *
 * @throws {FramesError} `usage` if the quality is none
 */
export function convert(found: Probe, options: ConversionOptions): Conversion {
  const { quality = 2 } = options;
  if (!Number.isInteger(quality) || quality < 2 || quality > 31) {
    throw new FramesError(
      "usage",
      `Cannot make JPEG of quality ${quality}: expected a whole number from 2, which is the best, to 31`,
    );
  }
  const image = images.get(found.codec);
  if (image !== undefined) {
    const words = ["-c:v", "copy"];
    return { words, ...image, label: "copied as it is", frameSize: found.frameSize };
  }
  return isPng(found, options) ? toPng(found) : toJpeg(found, quality);
}

function isPng({ codec, pixelFormat }: Probe, { lossless, isLive }: ConversionOptions): boolean {
  if (lossless === true) return true;
  const isExact = exact.has(codec);
  if (isGrey(pixelFormat)) return isExact || isDeep(pixelFormat);
  // A camera that compresses nothing is no reason to keep every bit of its noise: it has pictures for people.
  return isExact && (!isLive || isDeep(pixelFormat));
}

function toPng(found: Probe): Conversion {
  const { pixelFormat, width, height } = found;
  const [grey, deep, clear] = [isGrey(pixelFormat), isDeep(pixelFormat), hasAlpha(pixelFormat)];
  let format: string;
  if (/^mono[wb]$/.test(pixelFormat)) format = "monob";
  else if (grey) format = deep ? (clear ? "ya16be" : "gray16be") : clear ? "ya8" : "gray";
  else format = deep ? (clear ? "rgba64be" : "rgb48be") : clear ? "rgba" : "rgb24";
  const samples = (grey ? 1 : 3) + (clear ? 1 : 0);
  return {
    words: [...decoded(found), "-c:v", "png", "-compression_level", "3", "-pix_fmt", format],
    ending: "png",
    type: "image/png",
    label: `becomes PNG of ${grey ? "grey" : "colour"} with ${deep ? 16 : 8} bits`,
    frameSize: width * height * samples * (deep ? 1.5 : 0.75),
  };
}

function toJpeg(found: Probe, quality: number): Conversion {
  const chroma = chromaOf(found.pixelFormat);
  const samples = { "420": 1.5, "422": 2, "444": 3 }[chroma];
  return {
    words: [
      ...decoded(found),
      ...["-c:v", "mjpeg", "-q:v", `${quality}`, "-pix_fmt", `yuvj${chroma}p`],
    ],
    ending: "jpg",
    type: "image/jpeg",
    label: `becomes JPEG of quality ${quality}`,
    frameSize: (found.width * found.height * samples * 0.12) / Math.sqrt(quality - 1),
  };
}

/** Frames keep their times, and none is left out or shown twice to fill a rate. */
function decoded({ timeBase, isOld }: Probe): string[] {
  return ["-enc_time_base", timeBase, isOld ? "-vsync" : "-fps_mode", "passthrough"];
}

/** How much of the colour is there; JPEG has no more ways than these. */
function chromaOf(pixelFormat: string): "420" | "422" | "444" {
  if (/444|rgb|bgr|gbr|argb|abgr|pal8|440|nv24|nv42|^xyz|v30x|ayuv/.test(pixelFormat)) return "444";
  if (/422|nv16|nv20|p21\d|y21\d/.test(pixelFormat)) return "422";
  return "420";
}

/** More than 8 bits a sample. */
function isDeep(pixelFormat: string): boolean {
  return /(?:9|10|12|14|16|32|48|64)(?:le|be)$/.test(pixelFormat);
}

function isGrey(pixelFormat: string): boolean {
  return /^(?:gray|mono|ya\d)/.test(pixelFormat);
}

function hasAlpha(pixelFormat: string): boolean {
  return /^(?:ya\d|yuva|rgba|bgra|argb|abgr|gbrap|pal8|ayuv|vuya)/.test(pixelFormat);
}
