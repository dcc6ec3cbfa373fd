/** Recognizes the command-line PATHs that ffmpeg reads, and makes the arguments for them. */
import { realpathSync, type Stats, statSync } from "node:fs";
import { extname } from "node:path";
import { defined } from "../../common/defined.ts";
import { usageError } from "../../errors.ts";

/**
 * URL schemes, and the protocols that ffmpeg may use for each. The limit keeps a playlist from
 * making ffmpeg read local files.
 */
const protocols = new Map<string, readonly string[]>([
  ["http", words("http https httpproxy tcp tls crypto data")],
  ["https", words("http https httpproxy tcp tls crypto data")],
  ["rtsp", words("rtp srtp udp tcp tls http https httpproxy")],
  ["rtsps", words("rtp srtp udp tcp tls http https httpproxy")],
  ["rtmp", words("rtmp rtmpt ffrtmphttp http tcp")],
  ["rtmps", words("rtmps rtmpts ffrtmphttp https tls tcp")],
  ["rtp", ["rtp", "udp"]],
  ["udp", ["udp"]],
  ["srt", ["srt"]],
  ["tcp", ["tcp"]],
]);

/**
 * Demuxers that read nothing but the bytes they are given, by ffmpeg's names. Playlists such as HLS,
 * DASH, concat, SDP and numbered images would open other files, whatever the name of the file is.
 */
const plainFormats = [
  ...words(`
    mov,mp4,m4a,3gp,3g2,mj2 matroska,webm avi mpegts mpeg mpegvideo flv asf ogg mxf nut
    yuv4mpegpipe h261 h263 h264 hevc m4v obu av1 ivf vc1 dirac cavsvideo dv mjpeg
    mjpeg_2000 mpjpeg smjpeg gif apng rm swf wtv gxf lxf nsv dhav ingenient image2pipe
  `),
  // Without pictures, so that the message says that there is no video.
  ...words("wav w64 aiff caf aac flac mp3"),
  ...words(`
    bmp dds dpx exr gem gif hdr j2k jpeg jpegls jpegxl pam pbm pcx pfm pgm pgmyuv pgx phm
    photocd pictor png ppm psd qdraw qoi sgi sunrast tiff vbn webp xbm xpm xwd
  `).map((name) => `${name}_pipe`),
];

/** Demuxers for URLs. What a playlist may open is limited by the protocols. */
const networkFormats = [...plainFormats, "hls", "dash", "rtsp", "sdp", "rtp", "live_flv"];

/** Extensions of files that contain one image, which need no demuxing. */
const imageExtensions = new Set(
  words(`
    .jpg .jpeg .jpe .png .bmp .pbm .pgm .ppm .pnm .pam .pfm .tif .tiff .webp .gif .jls .jp2 .j2k
    .jxl .avif .heic .exr .dng .tga .qoi .hdr .mpo .jps .pcx .sgi .dpx .xwd .xbm .xpm .ras .j2c
    .jpc .dds .psd
  `),
);

/** Extensions of videos. A path with one counts as a video even if the file does not exist. */
const videoExtensions = new Set(
  words(`
    .mp4 .m4v .mov .mkv .webm .avi .mjpeg .mjpg .ts .m2ts .mts .mpg .mpeg .wmv .flv .3gp .ogv .mxf
    .nut .y4m .h264 .h265 .264 .265 .hevc .av1 .ivf .vob .dv
  `),
);

function words(text: string): string[] {
  return text.trim().split(/\s+/);
}

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

/** @throws {FramesError} `usage`, without the URL, because a part after a space may be a password */
function checkUrl(url: string): void {
  if (!/[\s\p{Cc}]/u.test(url)) return;
  throw usageError(
    "Cannot read the URL of a camera: it contains a space or a control character; write %20 for a space",
  );
}

/**
 * Classifies `path`. Returns `undefined` for a directory, and for a missing path that is not named
 * like a video.
 *
 * @throws {FramesError} `usage` for a URL with spaces
 */
export function parseInput(path: string): MediaInput | undefined {
  const protocol = /^([a-z][a-z0-9+.-]*):\/\//i.exec(path)?.[1]?.toLowerCase();
  const allowedProtocols = protocol === undefined ? undefined : protocols.get(protocol);
  if (allowedProtocols !== undefined) {
    checkUrl(path);
    return { kind: "url", url: path, allowedProtocols };
  }
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
    throw usageError(
      `Cannot read --camera: expected WIDTHxHEIGHT:FORMAT@RATE or a part of it, such as 640x512:gray16le@30, current value is ${JSON.stringify(text)}`,
    );
  }
  return defined({ size, format: format?.toLowerCase(), rate });
}

/** How ffmpeg and ffprobe get an input. */
export interface InputArguments {
  readonly args: readonly string[];
  /** Text for standard input. It contains the URL if that is a secret, because ps shows arguments. */
  readonly script?: string;
}

/** @param isSecret whether the URL must not appear in arguments, if that can be avoided */
export function inputArguments(
  input: MediaInput,
  mode: CameraMode,
  isSecret = false,
): InputArguments {
  if (input.kind === "url" && isSecret && !isHttp(input.url)) return scriptArguments(input);
  return { args: inputArgs(input, mode) };
}

/** Returns whether a URL is read by HTTP. ffmpeg cannot tell the length of such a file in a script. */
export function isHttp(url: string): boolean {
  return /^https?:/i.test(url);
}

/** Passes the URL in a script of the concat demuxer, which runs as if it were the input itself. */
function scriptArguments({ url, allowedProtocols }: MediaInput & { kind: "url" }): InputArguments {
  const lines = ["ffconcat version 1.0", `file '${url.replaceAll("'", String.raw`'\''`)}'`];
  if (isRtsp(url)) lines.push("option rtsp_flags prefer_tcp", "option fflags +discardcorrupt");
  return {
    args: [
      ...["-protocol_whitelist", ["pipe", ...allowedProtocols].join(",")],
      ...["-format_whitelist", ["concat", ...networkFormats].join(",")],
      ...["-f", "concat", "-safe", "0", "-i", "pipe:0"],
    ],
    script: `${lines.join("\n")}\n`,
  };
}

function isRtsp(url: string): boolean {
  return /^rtsps?:/i.test(url);
}

/** Returns the ffmpeg and ffprobe arguments that select an input. */
function inputArgs(input: MediaInput, mode: CameraMode): string[] {
  switch (input.kind) {
    case "image":
    case "file":
      return [
        ...["-protocol_whitelist", "file", "-format_whitelist", plainFormats.join(",")],
        ...["-i", `file:${input.path}`],
      ];
    case "device":
      return [
        ...["-f", "v4l2"],
        ...(mode.size === undefined ? [] : ["-video_size", mode.size]),
        ...(mode.format === undefined ? [] : ["-input_format", mode.format]),
        ...(mode.rate === undefined ? [] : ["-framerate", mode.rate]),
        ...["-i", input.path],
      ];
    case "url": {
      // Lost UDP packets corrupt frames, so prefer TCP. Cameras that support only UDP still work.
      const transport = isRtsp(input.url) ? ["-rtsp_flags", "prefer_tcp"] : [];
      return [
        ...["-protocol_whitelist", input.allowedProtocols.join(",")],
        ...["-format_whitelist", networkFormats.join(",")],
        ...transport,
        ...["-i", input.url],
      ];
    }
  }
}
