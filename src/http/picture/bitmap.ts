/** Encodes pixels as BMP, which `Bun.Image` can decode, unlike raw and PPM frames. */
import type { RawShape } from "../../frame.ts";

/** Pixels row by row from the top. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
  /** Byte offsets of blue, green and red within a pixel. */
  readonly channels: readonly [number, number, number];
  /** Bytes per pixel; default 1. */
  readonly bytesPerPixel?: number;
}

const headerBytes = 54;

/**
 * Raw colour formats by ffmpeg's names: byte offsets of blue, green and red, and bytes per pixel.
 */
const rawColourFormats = new Map<string, { channels: Pixels["channels"]; bytesPerPixel: number }>([
  ["rgb24", { channels: [2, 1, 0], bytesPerPixel: 3 }],
  ["bgr24", { channels: [0, 1, 2], bytesPerPixel: 3 }],
  ["rgba", { channels: [2, 1, 0], bytesPerPixel: 4 }],
  ["rgb0", { channels: [2, 1, 0], bytesPerPixel: 4 }],
  ["bgra", { channels: [0, 1, 2], bytesPerPixel: 4 }],
  ["bgr0", { channels: [0, 1, 2], bytesPerPixel: 4 }],
]);

/**
 * Returns the pixels of a raw colour frame or an 8-bit binary PPM. Undefined for other images.
 *
 * @param pixelLimit pixels that the frame may have at most
 * @throws {Error} if the frame is truncated or too large, or its raw format is not supported
 */
export function readColourPixels(
  bytes: Uint8Array,
  raw: RawShape | undefined,
  pixelLimit: number,
): Pixels | undefined {
  if (raw !== undefined) {
    const format = rawColourFormats.get(raw.format);
    if (format === undefined) throw new Error(`Raw ${raw.format} is not shown as a picture`);
    return checkSize({ width: raw.width, height: raw.height, data: bytes, ...format }, pixelLimit);
  }
  const header = new TextDecoder("latin1").decode(bytes.subarray(0, 1000));
  const whitespace = String.raw`(?:\s|#[^\n]*\n)+`;
  const pattern = new RegExp(
    `^P6${whitespace}(\\d{1,9})${whitespace}(\\d{1,9})${whitespace}255\\s`,
  );
  const match = pattern.exec(header);
  if (match === null) return undefined;
  return checkSize(
    {
      width: Number(match[1]),
      height: Number(match[2]),
      data: bytes.subarray(match[0].length),
      channels: [2, 1, 0],
      bytesPerPixel: 3,
    },
    pixelLimit,
  );
}

function checkSize(pixels: Pixels & { bytesPerPixel: number }, pixelLimit: number): Pixels {
  const { width, height, data, bytesPerPixel } = pixels;
  if (width * height > pixelLimit) {
    throw new Error(
      `A picture of ${width}x${height} cannot be shown: the limit is ${pixelLimit} pixels`,
    );
  }
  if (width >= 1 && height >= 1 && data.length >= width * height * bytesPerPixel) return pixels;
  throw new Error(`The frame has fewer than its ${width}x${height} pixels`);
}

/** Encodes pixels as a 24-bit BMP. */
export function encodeBmp({
  width,
  height,
  data,
  channels,
  bytesPerPixel = 1,
}: Pixels): Uint8Array<ArrayBuffer> {
  const rowBytes = (width * 3 + 3) & ~3;
  const file = new Uint8Array(headerBytes + rowBytes * height);
  const view = new DataView(file.buffer);
  view.setUint16(0, 0x424d);
  view.setUint32(2, file.length, true);
  view.setUint32(10, headerBytes, true);
  view.setUint32(14, 40, true);
  view.setInt32(18, width, true);
  // A negative height means that rows start at the top.
  view.setInt32(22, -height, true);
  view.setUint16(26, 1, true);
  view.setUint16(28, 24, true);
  const [blue, green, red] = channels;
  let offset = 0;
  for (let y = 0; y < height; y++) {
    let rowOffset = headerBytes + y * rowBytes;
    for (let x = 0; x < width; x++, offset += bytesPerPixel) {
      file[rowOffset++] = data[offset + blue]!;
      file[rowOffset++] = data[offset + green]!;
      file[rowOffset++] = data[offset + red]!;
    }
  }
  return file;
}
