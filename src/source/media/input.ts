/** Recognizes the command-line PATHs that ffmpeg reads, and makes the arguments for them. */
import { realpathSync, type Stats, statSync } from "node:fs";
import { extname } from "node:path";
import { FramesError } from "../../errors.ts";

/**
 * URL schemes, and the protocols that ffmpeg may use for each. The limit keeps a playlist from
 * making ffmpeg read local files.
 */
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

/** Extensions of files that contain one image, which need no demuxing. */
const imageExtensions = new Set([
  ...[".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm"],
  ...[".tif", ".tiff", ".webp", ".gif", ".jls", ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".exr"],
  ...[".dng", ".tga", ".qoi", ".hdr"],
]);

/** Extensions of videos. A path with one counts as a video even if the file does not exist. */
const videoExtensions = new Set([
  ...[".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mjpeg", ".mjpg", ".ts", ".m2ts", ".mts"],
  ...[".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".nut", ".y4m", ".h264", ".h265"],
  ...[".264", ".265", ".hevc", ".av1", ".ivf", ".vob", ".dv"],
]);

/** An input, classified. */
export type MediaInput =
  | { readonly kind: "image" | "file"; readonly path: string }
  | { readonly kind: "device"; readonly path: string }
  | { readonly kind: "url"; readonly url: string; readonly allowedProtocols: readonly string[] };

/**
 * Returns whether a PATH of the command line is a video, an image, a device or a URL, not a
 * directory.
 */
export function isMedia(path: string): boolean {
  return parseInput(path) !== undefined;
}

/** Returns the stats of a path, or undefined if there is none. */
function statPath(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    // A part of the path is a file or may not be entered. The caller reports the error.
    return undefined;
  }
}

/**
 * Classifies `path`. Returns `undefined` for a directory, and for a missing path that is not named
 * like a video.
 */
export function parseInput(path: string): MediaInput | undefined {
  const protocol = /^([a-z][a-z0-9+.-]*):\/\//i.exec(path)?.[1]?.toLowerCase();
  const allowedProtocols = protocol === undefined ? undefined : protocols.get(protocol);
  if (allowedProtocols !== undefined) return { kind: "url", url: path, allowedProtocols };
  const stats = statPath(path);
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

/** Settings requested from a camera. */
export interface CameraMode {
  readonly size?: string;
  /** ffmpeg's name of a pixel format or codec. */
  readonly format?: string;
  readonly rate?: string;
}

/**
 * Parses a mode such as `640x512:gray16le@30`. Each part may be missing.
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
      `Cannot read --camera: expected WIDTHxHEIGHT:FORMAT@RATE or a part of it, such as 640x512:gray16le@30, current value is ${JSON.stringify(text)}`,
    );
  }
  return {
    ...(size === undefined ? {} : { size }),
    ...(format === undefined ? {} : { format: format.toLowerCase() }),
    ...(rate === undefined ? {} : { rate }),
  };
}

/** Returns the ffmpeg and ffprobe arguments that select an input. */
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
      // Lost UDP packets corrupt frames, so prefer TCP. Cameras that support only UDP still work.
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
