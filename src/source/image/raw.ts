/**
 * Raw frames: computes their size from the pixel format, and parses shapes such as
 * `640x512:gray16le`.
 */
import { FramesError, usageError } from "../../errors.ts";
import type { RawShape } from "../../frame.ts";
import type { ImageParser } from "./image-parser.ts";

/** A plane of samples: `step` bytes for each block of `across` by `down` pixels. */
interface Plane {
  readonly step: number;
  readonly across: number;
  readonly down: number;
}

/** Returns one plane without subsampling. */
function packed(step: number): readonly Plane[] {
  return [{ step, across: 1, down: 1 }];
}

/**
 * Returns three planes with `bytes` for each sample. The two chroma planes have one for each
 * `across` by `down` pixels.
 */
function planar(bytes: number, across: number, down: number): readonly Plane[] {
  const chroma = { step: bytes, across, down };
  return [...packed(bytes), chroma, chroma];
}

/** Returns a luma plane and one plane of interleaved chroma samples. */
function semiplanar(bytes: number, across: number, down: number): readonly Plane[] {
  return [...packed(bytes), { step: 2 * bytes, across, down }];
}

/** Returns both byte orders of each name. They have the same size. */
function withByteOrders(...names: readonly string[]): string[] {
  return names.flatMap((name) => [`${name}le`, `${name}be`]);
}

/** Planes of each pixel format, by ffmpeg's names as in its `-pix_fmt`. */
const formatTable: readonly (readonly [readonly string[], readonly Plane[]])[] = [
  [["monow", "monob"], [{ step: 1, across: 8, down: 1 }]],
  [["gray", "rgb8", "bgr8"], packed(1)],
  [["bayer_bggr8", "bayer_rggb8", "bayer_gbrg8", "bayer_grbg8"], packed(1)],
  [withByteOrders("gray9", "gray10", "gray12", "gray14", "gray16"), packed(2)],
  [withByteOrders("bayer_bggr16", "bayer_rggb16", "bayer_gbrg16", "bayer_grbg16"), packed(2)],
  [withByteOrders("rgb565", "bgr565", "rgb555", "bgr555", "rgb444", "bgr444"), packed(2)],
  [["ya8"], packed(2)],
  [["rgb24", "bgr24"], packed(3)],
  [["rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr"], packed(4)],
  [[...withByteOrders("grayf32", "ya16"), "x2rgb10le"], packed(4)],
  [withByteOrders("rgb48", "bgr48"), packed(6)],
  [withByteOrders("rgba64", "bgra64"), packed(8)],
  [["yuyv422", "uyvy422", "yvyu422"], [{ step: 4, across: 2, down: 1 }]],
  [["yuv410p"], planar(1, 4, 4)],
  [["yuv411p", "yuvj411p"], planar(1, 4, 1)],
  [["yuv420p", "yuvj420p"], planar(1, 2, 2)],
  [["yuv422p", "yuvj422p"], planar(1, 2, 1)],
  [["yuv440p", "yuvj440p"], planar(1, 1, 2)],
  [["yuv444p", "yuvj444p", "gbrp"], planar(1, 1, 1)],
  [withByteOrders("yuv420p10", "yuv420p12", "yuv420p14", "yuv420p16"), planar(2, 2, 2)],
  [withByteOrders("yuv422p10", "yuv422p12", "yuv422p14", "yuv422p16"), planar(2, 2, 1)],
  [withByteOrders("yuv444p10", "yuv444p12", "yuv444p14", "yuv444p16"), planar(2, 1, 1)],
  [withByteOrders("gbrp10", "gbrp12", "gbrp14", "gbrp16"), planar(2, 1, 1)],
  [withByteOrders("gbrpf32"), planar(4, 1, 1)],
  [["nv12", "nv21"], semiplanar(1, 2, 2)],
  [["nv16"], semiplanar(1, 2, 1)],
  [["nv24", "nv42"], semiplanar(1, 1, 1)],
  [withByteOrders("p010", "p016"), semiplanar(2, 2, 2)],
];

const planesByFormat = new Map(
  formatTable.flatMap(([names, layout]) => names.map((name) => [name, layout])),
);

/** ffmpeg's names for 8 bits a pixel, which mean 24 bits in ROS, and clear names for them. */
const clearNames = new Map([
  ["rgb8", "rgb332"],
  ["bgr8", "bgr332"],
]);

/** Other names of the formats: ffmpeg's, numpy's, OpenCV's and ROS's (sensor_msgs/image_encodings.hpp). */
const formatAliases = new Map([
  ["gray8", "gray"],
  ["y8", "gray"],
  ["rgb332", "rgb8"],
  ["bgr332", "bgr8"],
  ...["9", "10", "12", "14", "16"].flatMap((bits) =>
    ["le", "be"].map((order): [string, string] => [`y${bits}${order}`, `gray${bits}${order}`]),
  ),
  ["uint8", "gray"],
  ["uint16", "gray16le"],
  ["float32", "grayf32le"],
  ["8uc1", "gray"],
  ["8uc3", "bgr24"],
  ["8uc4", "bgra"],
  ["16uc1", "gray16le"],
  ["16uc3", "bgr48le"],
  ["16uc4", "bgra64le"],
  ["32fc1", "grayf32le"],
  ["mono8", "gray"],
  ["mono16", "gray16le"],
  ["rgba8", "rgba"],
  ["bgra8", "bgra"],
  ["rgb16", "rgb48le"],
  ["bgr16", "bgr48le"],
  ["rgba16", "rgba64le"],
  ["bgra16", "bgra64le"],
  ["bayer_rggb16", "bayer_rggb16le"],
  ["bayer_bggr16", "bayer_bggr16le"],
  ["bayer_gbrg16", "bayer_gbrg16le"],
  ["bayer_grbg16", "bayer_grbg16le"],
  ["yuv422", "uyvy422"],
  ["yuv422_yuy2", "yuyv422"],
]);

/**
 * Names that a user writes for what ROS means, where ffmpeg means something else: 24 bits a pixel,
 * not 8.
 */
const rosNames = new Map([
  ["rgb8", "rgb24"],
  ["bgr8", "bgr24"],
]);

/** Names of the supported pixel formats, as in ffmpeg. */
export const rawFormats: readonly string[] = [...planesByFormat.keys()];

/** Largest width and height in pixels, as in ffmpeg. */
const maxSide = 0x7fff_ffff;

/**
 * Returns the bytes of a frame of this shape, without padding between rows or planes.
 *
 * @throws {FramesError} `usage`
 */
export function rawFrameBytes({ width, height, format }: RawShape): number {
  checkDimensions(width, height, `${width}x${height}`);
  let size = 0;
  for (const { step, across, down } of planesFor(format)) {
    size += step * Math.ceil(width / across) * Math.ceil(height / down);
  }
  return size;
}

/**
 * Parses a shape such as `640x512:gray16le`. Replaces an alternative format name by the main one.
 *
 * @throws {FramesError} `usage`
 */
export function parseRawShape(text: string): RawShape {
  const match = /^(\d+)x(\d+):([a-z0-9_]+)$/i.exec(text);
  if (match === null) {
    throw usageError(
      `Cannot read the shape of raw frames: expected WIDTHxHEIGHT:FORMAT such as 640x512:gray16le, current value is ${JSON.stringify(text)}`,
    );
  }
  const [width, height] = [Number(match[1]), Number(match[2])];
  const name = match[3]!.toLowerCase();
  const format = rosNames.get(name) ?? formatAliases.get(name) ?? name;
  planesFor(format);
  checkDimensions(width, height, text);
  return { width, height, format };
}

/** Formats a shape so that `parseRawShape` returns it. */
export function formatRawShape({ width, height, format }: RawShape): string {
  return `${width}x${height}:${clearNames.get(format) ?? format}`;
}

/**
 * Checks that a frame has the size of its shape.
 *
 * @param text the shape as the user wrote it
 * @throws {FramesError} `unreadable`
 */
export function checkRawSize(size: number, shape: RawShape, text: string): void {
  const bytes = rawFrameBytes(shape);
  if (bytes === size) return;
  const name = text.slice(text.indexOf(":") + 1).toLowerCase();
  const meaning = rosNames.has(name)
    ? `; ${name} is ${shape.format} as in ROS, and ffmpeg's ${name} is ${clearNames.get(name)}`
    : "";
  throw new FramesError("unreadable", `it has ${size} bytes, and ${text} has ${bytes}${meaning}`);
}

/** Returns the file name extension of raw frames, such as `640x512.gray16le`. */
export function rawExtension({ width, height, format }: RawShape): string {
  return `${width}x${height}.${format}`;
}

function checkDimensions(width: number, height: number, text: string): void {
  const isValidSide = (side: number): boolean =>
    Number.isInteger(side) && side >= 1 && side <= maxSide;
  if (isValidSide(width) && isValidSide(height)) return;
  throw usageError(
    `Cannot read raw frames of this shape: expected sides from 1 to ${maxSide}, current value is ${JSON.stringify(text)}`,
  );
}

/** @throws {FramesError} `usage` */
function planesFor(format: string): readonly Plane[] {
  const found = planesByFormat.get(format) ?? planesByFormat.get(formatAliases.get(format) ?? "");
  if (found !== undefined) return found;
  const orderedNames = ["le", "be"].map((order) => `${format}${order}`);
  // ffmpeg uses the byte order of the machine here. The frames could be read wrongly on another
  // one.
  const hint = orderedNames.every((name) => planesByFormat.has(name))
    ? `write ${orderedNames.join(" or ")}, for the order of its bytes`
    : "write a name of ffmpeg, such as gray, gray16le, rgb24, bgr24, yuv420p, nv12, yuyv422 or bayer_rggb8";
  throw usageError(`Cannot read raw frames of the format ${JSON.stringify(format)}: ${hint}`);
}

/** Finds the end of raw frames, which all have the same size. */
export class RawParser implements ImageParser {
  readonly label = "a raw frame";
  readonly extension: string;
  readonly size: number;
  readonly isComplete = false;
  readonly embeddedBytes = 0;
  #remaining: number;

  /** @param size bytes of a frame, from `rawFrameBytes` */
  constructor(shape: RawShape, size: number) {
    this.extension = rawExtension(shape);
    this.size = size;
    this.#remaining = size;
  }

  /** Raw frames have no start that could be found again. */
  get trustedBytes(): number {
    return this.size - this.#remaining;
  }

  parse(bytes: Uint8Array): number {
    if (bytes.length >= this.#remaining) return this.#remaining;
    this.#remaining -= bytes.length;
    return -1;
  }
}
