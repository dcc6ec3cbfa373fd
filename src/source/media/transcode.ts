/** What becomes of the frames of a video: whether they are copied, and if not, what they are made. */
import { FramesError } from "../../errors.ts";
import type { VideoInfo } from "./probe.ts";

/** What frames become. */
export interface Transcoding {
  /** What tells ffmpeg so. */
  readonly args: readonly string[];
  /** How their files end. */
  readonly extension: string;
  /** Their media type. */
  readonly type: string;
  /** For people: "becomes JPEG of quality 2". */
  readonly label: string;
  /** Bytes of a frame, more or less, where that can be told. */
  readonly frameBytes: number | undefined;
}

/** What can be asked for. */
export interface TranscodingOptions {
  /** From 2, which is the best, to 31. */
  readonly quality?: number;
  /** Nothing of the pictures is to be lost. */
  readonly lossless?: boolean;
  /** Whether the frames come as they are captured: there is no time for large ones. */
  readonly isLive: boolean;
}

/** Codecs whose frames are images of their own: ending and media type. */
const imageCodecs = new Map([
  ["mjpeg", { extension: "jpg", type: "image/jpeg" }],
  ["png", { extension: "png", type: "image/png" }],
  ["jpegls", { extension: "jls", type: "image/jls" }],
  ["bmp", { extension: "bmp", type: "image/bmp" }],
  ["tiff", { extension: "tiff", type: "image/tiff" }],
  ["webp", { extension: "webp", type: "image/webp" }],
]);

/** Codecs that lose nothing of a picture, and so neither may what becomes of it. */
const losslessCodecs = new Set([
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
export function chooseTranscoding(video: VideoInfo, options: TranscodingOptions): Transcoding {
  const { quality = 2 } = options;
  if (!Number.isInteger(quality) || quality < 2 || quality > 31) {
    throw new FramesError(
      "usage",
      `Cannot make JPEG of quality ${quality}: expected a whole number from 2, which is the best, to 31`,
    );
  }
  const image = imageCodecs.get(video.codec);
  if (image !== undefined) {
    const args = ["-c:v", "copy"];
    return { args, ...image, label: "copied as it is", frameBytes: video.frameBytes };
  }
  return needsPng(video, options) ? toPng(video) : toJpeg(video, quality);
}

function needsPng(
  { codec, pixelFormat }: VideoInfo,
  { lossless, isLive }: TranscodingOptions,
): boolean {
  if (lossless === true) return true;
  const isLosslessCodec = losslessCodecs.has(codec);
  if (isGrey(pixelFormat)) return isLosslessCodec || isHighBitDepth(pixelFormat);
  // A camera that compresses nothing is no reason to keep every bit of its noise: it has pictures for people.
  return isLosslessCodec && (!isLive || isHighBitDepth(pixelFormat));
}

function toPng(video: VideoInfo): Transcoding {
  const { pixelFormat, width, height } = video;
  const [grey, deep, alpha] = [
    isGrey(pixelFormat),
    isHighBitDepth(pixelFormat),
    hasAlpha(pixelFormat),
  ];
  let format: string;
  if (/^mono[wb]$/.test(pixelFormat)) format = "monob";
  else if (grey) format = deep ? (alpha ? "ya16be" : "gray16be") : alpha ? "ya8" : "gray";
  else format = deep ? (alpha ? "rgba64be" : "rgb48be") : alpha ? "rgba" : "rgb24";
  const samples = (grey ? 1 : 3) + (alpha ? 1 : 0);
  return {
    args: [...timestampArgs(video), "-c:v", "png", "-compression_level", "3", "-pix_fmt", format],
    extension: "png",
    type: "image/png",
    label: `becomes PNG of ${grey ? "grey" : "colour"} with ${deep ? 16 : 8} bits`,
    frameBytes: width * height * samples * (deep ? 1.5 : 0.75),
  };
}

function toJpeg(video: VideoInfo, quality: number): Transcoding {
  const chroma = chromaSubsampling(video.pixelFormat);
  const samples = { "420": 1.5, "422": 2, "444": 3 }[chroma];
  return {
    args: [
      ...timestampArgs(video),
      ...["-c:v", "mjpeg", "-q:v", `${quality}`, "-pix_fmt", `yuvj${chroma}p`],
    ],
    extension: "jpg",
    type: "image/jpeg",
    label: `becomes JPEG of quality ${quality}`,
    frameBytes: (video.width * video.height * samples * 0.12) / Math.sqrt(quality - 1),
  };
}

/** Frames keep their times, and none is left out or shown twice to fill a rate. */
function timestampArgs({ timeBase, isOldFfmpeg }: VideoInfo): string[] {
  return ["-enc_time_base", timeBase, isOldFfmpeg ? "-vsync" : "-fps_mode", "passthrough"];
}

/** How much of the colour is there; JPEG has no more ways than these. */
function chromaSubsampling(pixelFormat: string): "420" | "422" | "444" {
  if (/444|rgb|bgr|gbr|argb|abgr|pal8|440|nv24|nv42|^xyz|v30x|ayuv/.test(pixelFormat)) return "444";
  if (/422|nv16|nv20|p21\d|y21\d/.test(pixelFormat)) return "422";
  return "420";
}

/** More than 8 bits a sample. */
function isHighBitDepth(pixelFormat: string): boolean {
  return /(?:9|10|12|14|16|32|48|64)(?:le|be)$/.test(pixelFormat);
}

function isGrey(pixelFormat: string): boolean {
  return /^(?:gray|mono|ya\d)/.test(pixelFormat);
}

function hasAlpha(pixelFormat: string): boolean {
  return /^(?:ya\d|yuva|rgba|bgra|argb|abgr|gbrap|pal8|ayuv|vuya)/.test(pixelFormat);
}
