/** What can be given to ffmpeg: which PATHs of a command line, and with which words it is told of them. */
import { realpathSync, statSync } from "node:fs";
import { extname } from "node:path";
import { FramesError } from "../../errors.ts";

/** Protocols of a URL, and those that ffmpeg may use for it: a playlist must not lead it to our files. */
const protocols = new Map<string, readonly string[]>([
  ["http", ["http", "https", "httpproxy", "tcp", "tls", "crypto", "data"]],
  ["https", ["http", "https", "httpproxy", "tcp", "tls", "crypto", "data"]],
  ["rtsp", ["rtp", "srtp", "udp", "tcp", "tls", "http", "https", "httpproxy"]],
  ["rtsps", ["rtp", "srtp", "udp", "tcp", "tls", "http", "https", "httpproxy"]],
  ["rtmp", ["rtmp", "rtmpt", "ffrtmphttp", "http", "tcp"]],
  ["rtmps", ["rtmps", "rtmpts", "ffrtmphttp", "https", "tls", "tcp"]],
  ["rtp", ["rtp", "udp"]],
  ["udp", ["udp"]],
  ["srt", ["srt"]],
  ["tcp", ["tcp"]],
]);

/** Files that are one image: nothing has to be taken apart. */
const imageExtensions = new Set([
  ...[".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm"],
  ...[".tif", ".tiff", ".webp", ".gif", ".jls", ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".exr"],
  ...[".dng", ".tga", ".qoi", ".hdr"],
]);

/** Endings of files that are videos, whether they are there or not. */
const videoExtensions = new Set([
  ...[".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mjpeg", ".mjpg", ".ts", ".m2ts", ".mts"],
  ...[".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".nut", ".y4m", ".h264", ".h265"],
  ...[".264", ".265", ".hevc", ".av1", ".ivf", ".vob", ".dv"],
]);

/** What a user gave, understood. */
export type MediaInput =
  | { readonly kind: "image" | "file"; readonly path: string }
  | { readonly kind: "device"; readonly path: string }
  | { readonly kind: "url"; readonly url: string; readonly allowedProtocols: readonly string[] };

/** Whether a PATH of the command line is a video, an image, a device or a URL rather than a directory. */
export function isMedia(path: string): boolean {
  return parseInput(path) !== undefined;
}

/** What `path` is; `undefined` for a directory, and for what is not there and not called like a video. */
export function parseInput(path: string): MediaInput | undefined {
  const protocol = /^([a-z][a-z0-9+.-]*):\/\//i.exec(path)?.[1]?.toLowerCase();
  const allowedProtocols = protocol === undefined ? undefined : protocols.get(protocol);
  if (allowedProtocols !== undefined) return { kind: "url", url: path, allowedProtocols };
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) {
    if (path.startsWith("/dev/video")) return { kind: "device", path };
    return videoExtensions.has(extname(path).toLowerCase()) ? { kind: "file", path } : undefined;
  }
  if (stats.isFile()) {
    return { kind: imageExtensions.has(extname(path).toLowerCase()) ? "image" : "file", path };
  }
  const isDevice = stats.isCharacterDevice() && realpathSync(path).startsWith("/dev/video");
  return isDevice ? { kind: "device", path } : undefined;
}

/** What is asked of a camera. */
export interface CameraMode {
  readonly size?: string;
  /** ffmpeg's name of a pixel format, or of a codec. */
  readonly format?: string;
  readonly rate?: string;
}

/**
 * Reads `640x512:gray16le@30`, of which each part may be left out.
 *
 * @throws {FramesError} `usage`
 */
export function parseCameraMode(text: string): CameraMode {
  const match =
    /^(?<size>[1-9]\d{0,4}x[1-9]\d{0,4})?(?::?(?<format>[a-z][a-z0-9_]*))?(?:@(?<rate>\d{1,6}(?:\.\d{1,6}|\/\d{1,6})?))?$/i.exec(
      text,
    );
  const { size, format, rate } = match?.groups ?? {};
  if (size === undefined && format === undefined && rate === undefined) {
    throw new FramesError(
      "usage",
      `Cannot read what to ask of the camera: expected WIDTHxHEIGHT:FORMAT@RATE or a part of it, such as 640x512:gray16le@30, current value is ${JSON.stringify(text)}`,
    );
  }
  return {
    ...(size === undefined ? {} : { size }),
    ...(format === undefined ? {} : { format: format.toLowerCase() }),
    ...(rate === undefined ? {} : { rate }),
  };
}

/** The words that tell ffmpeg and ffprobe of an input, each an argument of its own. */
export function inputArgs(input: MediaInput, mode: CameraMode): string[] {
  switch (input.kind) {
    case "image":
    case "file":
      return ["-protocol_whitelist", "file", "-i", `file:${input.path}`];
    case "device":
      return [
        ...["-f", "v4l2"],
        ...(mode.size === undefined ? [] : ["-video_size", mode.size]),
        ...(mode.format === undefined ? [] : ["-input_format", mode.format]),
        ...(mode.rate === undefined ? [] : ["-framerate", mode.rate]),
        ...["-i", input.path],
      ];
    case "url": {
      const isRtsp = /^rtsps?:/i.test(input.url);
      // Over UDP what is lost tears pictures. A camera that speaks nothing else is still heard.
      const transport = isRtsp ? ["-rtsp_flags", "prefer_tcp"] : [];
      return [
        "-protocol_whitelist",
        input.allowedProtocols.join(","),
        ...transport,
        "-i",
        input.url,
      ];
    }
  }
}
