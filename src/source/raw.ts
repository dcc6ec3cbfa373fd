/** Raw frames: what a pixel format makes of a width and a height, and how people write a shape. */
import { FramesError } from "../errors.ts";
import type { RawShape } from "../frame.ts";
import type { ImageReader } from "./reader.ts";

/** Samples that lie together: `step` bytes for each block of `across` by `down` pixels. */
interface Plane {
  readonly step: number;
  readonly across: number;
  readonly down: number;
}

/** One plane without subsampling. */
function packed(step: number): readonly Plane[] {
  return [{ step, across: 1, down: 1 }];
}

/** Three planes of `bytes` a sample, of which two have a sample for each `across` by `down` pixels. */
function planar(bytes: number, across: number, down: number): readonly Plane[] {
  const chroma = { step: bytes, across, down };
  return [...packed(bytes), chroma, chroma];
}

/** A plane of luma, and one of both chroma in turn. */
function semiplanar(bytes: number, across: number, down: number): readonly Plane[] {
  return [...packed(bytes), { step: 2 * bytes, across, down }];
}

/** Both byte orders of each name, which have the same size. */
function ordered(...names: readonly string[]): string[] {
  return names.flatMap((name) => [`${name}le`, `${name}be`]);
}

/** Formats by their planes: ffmpeg's names, which its `-pix_fmt` takes. */
const table: readonly (readonly [readonly string[], readonly Plane[]])[] = [
  [["monow", "monob"], [{ step: 1, across: 8, down: 1 }]],
  [["gray", "rgb8", "bgr8"], packed(1)],
  [["bayer_bggr8", "bayer_rggb8", "bayer_gbrg8", "bayer_grbg8"], packed(1)],
  [ordered("gray9", "gray10", "gray12", "gray14", "gray16"), packed(2)],
  [ordered("bayer_bggr16", "bayer_rggb16", "bayer_gbrg16", "bayer_grbg16"), packed(2)],
  [ordered("rgb565", "bgr565", "rgb555", "bgr555", "rgb444", "bgr444"), packed(2)],
  [["ya8"], packed(2)],
  [["rgb24", "bgr24"], packed(3)],
  [["rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr"], packed(4)],
  [[...ordered("grayf32", "ya16"), "x2rgb10le"], packed(4)],
  [ordered("rgb48", "bgr48"), packed(6)],
  [ordered("rgba64", "bgra64"), packed(8)],
  [["yuyv422", "uyvy422", "yvyu422"], [{ step: 4, across: 2, down: 1 }]],
  [["yuv410p"], planar(1, 4, 4)],
  [["yuv411p", "yuvj411p"], planar(1, 4, 1)],
  [["yuv420p", "yuvj420p"], planar(1, 2, 2)],
  [["yuv422p", "yuvj422p"], planar(1, 2, 1)],
  [["yuv440p", "yuvj440p"], planar(1, 1, 2)],
  [["yuv444p", "yuvj444p", "gbrp"], planar(1, 1, 1)],
  [ordered("yuv420p10", "yuv420p12", "yuv420p14", "yuv420p16"), planar(2, 2, 2)],
  [ordered("yuv422p10", "yuv422p12", "yuv422p14", "yuv422p16"), planar(2, 2, 1)],
  [ordered("yuv444p10", "yuv444p12", "yuv444p14", "yuv444p16"), planar(2, 1, 1)],
  [ordered("gbrp10", "gbrp12", "gbrp14", "gbrp16"), planar(2, 1, 1)],
  [ordered("gbrpf32"), planar(4, 1, 1)],
  [["nv12", "nv21"], semiplanar(1, 2, 2)],
  [["nv16"], semiplanar(1, 2, 1)],
  [["nv24", "nv42"], semiplanar(1, 1, 1)],
  [ordered("p010", "p016"), semiplanar(2, 2, 2)],
];

const planes = new Map(table.flatMap(([names, layout]) => names.map((name) => [name, layout])));

/** Other names that ffmpeg takes. */
const aliases = new Map([
  ["gray8", "gray"],
  ["y8", "gray"],
  ...["9", "10", "12", "14", "16"].flatMap((bits) =>
    ["le", "be"].map((order): [string, string] => [`y${bits}${order}`, `gray${bits}${order}`]),
  ),
]);

/** Names of the pixel formats whose frames can be cut, as ffmpeg has them. */
export const rawFormats: readonly string[] = [...planes.keys()];

/** Pixels across or down: as many as ffmpeg's own sizes allow. */
const longestSide = 0x7fff_ffff;

/**
 * Bytes of a frame of this shape, without padding between rows or planes.
 *
 * @throws {FramesError} `usage`
 */
export function rawFrameSize({ width, height, format }: RawShape): number {
  checkSides(width, height, `${width}x${height}`);
  let size = 0;
  for (const { step, across, down } of planesOf(format)) {
    size += step * Math.ceil(width / across) * Math.ceil(height / down);
  }
  return size;
}

/**
 * Reads a shape such as `640x512:gray16le`. A second name of a format becomes its first.
 *
 * @throws {FramesError} `usage`
 */
export function parseRawShape(text: string): RawShape {
  const match = /^(\d+)x(\d+):([a-z0-9_]+)$/i.exec(text);
  if (match === null) {
    throw new FramesError(
      "usage",
      `Cannot read the shape of raw frames: expected WIDTHxHEIGHT:FORMAT such as 640x512:gray16le, current value is ${JSON.stringify(text)}`,
    );
  }
  const [width, height] = [Number(match[1]), Number(match[2])];
  const given = match[3]!.toLowerCase();
  const format = aliases.get(given) ?? given;
  planesOf(format);
  checkSides(width, height, text);
  return { width, height, format };
}

function checkSides(width: number, height: number, text: string): void {
  const isSide = (side: number): boolean =>
    Number.isInteger(side) && side >= 1 && side <= longestSide;
  if (isSide(width) && isSide(height)) return;
  throw new FramesError(
    "usage",
    `Cannot read raw frames of this shape: expected sides from 1 to ${longestSide}, current value is ${JSON.stringify(text)}`,
  );
}

/** @throws {FramesError} `usage` */
function planesOf(format: string): readonly Plane[] {
  const found = planes.get(aliases.get(format) ?? format);
  if (found !== undefined) return found;
  const ordering = ["le", "be"].map((order) => `${format}${order}`);
  // What ffmpeg takes for the order of this machine would be read wrongly on another.
  const advice = ordering.every((name) => planes.has(name))
    ? `${ordering.join(" or ")} says in which order its bytes are`
    : "known are the names of ffmpeg, such as gray, gray16le, rgb24, bgr24, yuv420p, nv12, yuyv422 and bayer_rggb8";
  throw new FramesError(
    "usage",
    `Cannot read raw frames of the format ${JSON.stringify(format)}: ${advice}`,
  );
}

/** Reads raw frames, which are of one size. */
export class RawReader implements ImageReader {
  readonly kind = "a raw frame";
  readonly ending: string;
  readonly size: number;
  readonly isWhole = false;
  #left: number;

  /** @param size as `rawFrameSize` says it of the shape */
  constructor({ width, height, format }: RawShape, size: number) {
    this.ending = `${width}x${height}.${format}`;
    this.size = size;
    this.#left = size;
  }

  read(bytes: Uint8Array): number {
    if (bytes.length >= this.#left) return this.#left;
    this.#left -= bytes.length;
    return -1;
  }
}
