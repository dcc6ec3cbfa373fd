/** Chooses whether the frames of a video are copied or converted, and to which format. */
import { usageError } from "../../errors.ts";
import { type VideoCodec, videoTypes } from "../../video/nal-units.ts";
import type { VideoInfo } from "./probe.ts";

/** The conversion chosen for the frames of a video. */
export interface Transcoding {
  /** ffmpeg arguments for it. */
  readonly args: readonly string[];
  /** File name extension of the frames. */
  readonly extension: string;
  /** Media type of the frames. */
  readonly type: string;
  /** Description for people, such as "becomes JPEG of quality 2". */
  readonly label: string;
  /** Estimated bytes of a frame, if known. */
  readonly frameBytes: number | undefined;
  /** Codec of the frames if they are encoded video, copied as it is. */
  readonly codec?: VideoCodec;
  /** How to choose the other one of copy and pictures, and the estimated bytes of a frame then. */
  readonly alternative?: { readonly how: string; readonly frameBytes: number | undefined };
}

/** Settings that affect the conversion. */
export interface TranscodingOptions {
  /** JPEG quality, from 2 (best) to 31. */
  readonly quality?: number;
  /** Whether no image information may be lost. */
  readonly lossless?: boolean;
  /** Whether frames arrive as they are captured. Large frames would be too slow then. */
  readonly isLive: boolean;
  /** Whether encoded video is copied: `required` if other video is an error. */
  readonly copies: boolean | "required";
}

/** Codecs whose frames are independent images, with extension and media type. */
const imageCodecs = new Map([
  ["mjpeg", { extension: "jpg", type: "image/jpeg" }],
  ["png", { extension: "png", type: "image/png" }],
  ["jpegls", { extension: "jls", type: "image/jls" }],
  ["bmp", { extension: "bmp", type: "image/bmp" }],
  ["tiff", { extension: "tiff", type: "image/tiff" }],
  ["webp", { extension: "webp", type: "image/webp" }],
]);

/** Codecs that are copied, by ffmpeg's names, with the filter that converts them to Annex B. */
const copiedCodecs = new Map<string, { codec: VideoCodec; filter: string }>([
  ["h264", { codec: "h264", filter: "h264_mp4toannexb" }],
  ["hevc", { codec: "h265", filter: "hevc_mp4toannexb" }],
]);

/**
 * Lossless codecs. Their frames are converted to a lossless format too, with exceptions for
 * cameras.
 */
const losslessCodecs = new Set([
  ...["rawvideo", "ffv1", "huffyuv", "ffvhuff", "hymt", "utvideo", "magicyuv", "lagarith", "png"],
  ...["apng", "gif", "qtrle", "rle", "zlib", "zmbv", "mszh", "cscd", "flashsv", "tscc", "fraps"],
  ...["dxtory", "cllc", "loco", "v210", "v308", "v408", "v410", "r210", "r10k", "bitpacked"],
]);

/**
 * Chooses how frames are converted. Images are copied byte for byte, and so are H.264 and H.265 if
 * `copies` is set. Grey video with more than 8 bits per sample and losslessly coded video become
 * PNG. Other video becomes JPEG.
 *
 * @throws {FramesError} `usage` if the quality is out of range, or the video cannot be copied
 */
export function chooseTranscoding(video: VideoInfo, options: TranscodingOptions): Transcoding {
  const { quality = 2 } = options;
  if (!Number.isInteger(quality) || quality < 2 || quality > 31) {
    throw usageError(
      `Cannot make JPEG of quality ${quality}: expected a whole number from 2 (best) to 31`,
    );
  }
  const image = imageCodecs.get(video.codec);
  if (image !== undefined) {
    const args = ["-c:v", "copy"];
    return { args, ...image, label: "copied as it is", frameBytes: video.frameBytes };
  }
  const copied = copiedCodecs.get(video.codec);
  const pictures = needsPng(video, options) ? toPng(video) : toJpeg(video, quality);
  if (options.copies === "required" && copied === undefined) {
    throw usageError(
      `Cannot copy the video: it is ${video.codec}, and only H.264 and H.265 are copied; leave --copy-video out`,
    );
  }
  if (copied === undefined) return pictures;
  if (options.copies !== false) return toCopy(video, copied, pictures, options.isLive);
  const alternative = { how: "--copy-video", frameBytes: video.frameBytes };
  return options.isLive ? pictures : { ...pictures, alternative };
}

function toCopy(
  { frameBytes, hasReorderedPictures }: VideoInfo,
  { codec, filter }: { codec: VideoCodec; filter: string },
  pictures: Transcoding,
  isLive: boolean,
): Transcoding {
  const advice = isLive ? ": set them to 0 at the camera" : "";
  const order = hasReorderedPictures ? `, in decoding order because of B-frames${advice}` : "";
  const otherWay = isLive ? "--convert jpeg" : "without --copy-video";
  // Cameras send no decoding times. ffmpeg guesses them, and would change the times of reordered
  // pictures to fit. Made ones count from long before the first picture.
  const filters = isLive ? `${filter},setts=pts=PTS:dts=N-1000000` : filter;
  return {
    // Without -copyinkf, ffmpeg would leave out what comes before the first key frame.
    args: ["-c:v", "copy", "-copyinkf", "-bsf:v", filters],
    extension: codec,
    type: videoTypes[codec],
    label: `copied as it is${order}`,
    frameBytes,
    codec,
    alternative: { how: otherWay, frameBytes: pictures.frameBytes },
  };
}

function needsPng(
  { codec, pixelFormat }: VideoInfo,
  { lossless, isLive }: TranscodingOptions,
): boolean {
  if (lossless === true) return true;
  const isLosslessCodec = losslessCodecs.has(codec);
  if (isGrey(pixelFormat)) return isLosslessCodec || isHighBitDepth(pixelFormat);
  // A live camera's 8-bit colour frames become JPEG even if uncompressed, because people view them.
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

/**
 * Returns arguments that keep timestamps and neither drop nor duplicate frames to reach a constant
 * rate.
 */
function timestampArgs({ timeBase, isOldFfmpeg }: VideoInfo): string[] {
  return ["-enc_time_base", timeBase, isOldFfmpeg ? "-vsync" : "-fps_mode", "passthrough"];
}

/** Returns the chroma subsampling. These three are the ones that JPEG output supports. */
function chromaSubsampling(pixelFormat: string): "420" | "422" | "444" {
  if (/444|rgb|bgr|gbr|argb|abgr|pal8|440|nv24|nv42|^xyz|v30x|ayuv/.test(pixelFormat)) return "444";
  if (/422|nv16|nv20|p21\d|y21\d/.test(pixelFormat)) return "422";
  return "420";
}

/** Returns whether samples have more than 8 bits. */
function isHighBitDepth(pixelFormat: string): boolean {
  return /(?:9|10|12|14|16|32|48|64)(?:le|be)$/.test(pixelFormat);
}

function isGrey(pixelFormat: string): boolean {
  return /^(?:gray|mono|ya\d)/.test(pixelFormat);
}

function hasAlpha(pixelFormat: string): boolean {
  return /^(?:ya\d|yuva|rgba|bgra|argb|abgr|gbrap|pal8|ayuv|vuya)/.test(pixelFormat);
}
