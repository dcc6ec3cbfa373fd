/**
 * Converts a frame to JPEG.
 * Grey frames of more than 8 bits are stretched first, because they would be almost black.
 */
import type { RawShape } from "../../frame.ts";
import { decodeGrey, greyKind, greyRange, stretch } from "./grey.ts";
import { encodeBmp, readColourPixels } from "./bitmap.ts";
import { release } from "../../common/memory.ts";

/** The JPEG, or the reason why there is none. */
export interface ConversionResult {
  readonly jpeg?: Uint8Array<ArrayBuffer>;
  readonly failure?: string;
}

/**
 * Pixel limits, so that a conversion takes less than 100 MB. A small file may hold many pixels.
 * Grey is decoded here, which takes about 12 bytes a pixel, colour by `Bun.Image`, about 6.
 */
const maxGreyPixels = 6_000_000;
const maxColourPixels = 2 ** 24;

/** Quality from 0 to 100. */
const jpegQuality = 85;

/**
 * Converts a frame to JPEG. Never throws: a failure is part of the result.
 *
 * @param bytes the frame, which is given away
 */
export async function convertToJpeg(
  bytes: Uint8Array<ArrayBuffer>,
  raw: RawShape | undefined,
): Promise<ConversionResult> {
  // `Bun.Image` takes empty bytes for bytes that were given away.
  if (bytes.length === 0) return { failure: "the frame is empty" };
  try {
    const image = await toDecodableImage(bytes, raw);
    if (image !== bytes) release(bytes);
    const jpeg = (await encodeJpeg(image)) as Uint8Array<ArrayBuffer>;
    release(image);
    // The whole buffer is transferred to the main thread, so it must contain nothing else.
    return { jpeg: jpeg.byteLength === jpeg.buffer.byteLength ? jpeg : jpeg.slice() };
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error) };
  }
}

async function encodeJpeg(image: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return await new Bun.Image(image, { maxPixels: maxColourPixels })
    .jpeg({ quality: jpegQuality })
    .bytes();
}

/** Returns the frame in a format that `Bun.Image` decodes: the same bytes, or a copy. */
async function toDecodableImage(
  bytes: Uint8Array<ArrayBuffer>,
  raw: RawShape | undefined,
): Promise<Uint8Array<ArrayBuffer>> {
  if (greyKind(bytes, raw) !== undefined) {
    const grey = await decodeGrey(bytes, raw, maxGreyPixels);
    const { width, height, samples, maximum } = grey;
    // 8-bit samples are not stretched, because a screen shows them as they are.
    const isEightBit = samples instanceof Uint8Array && maximum === 0xff;
    const values = isEightBit ? samples : stretch(grey, greyRange(grey));
    const bmp = encodeBmp({ width, height, data: values, channels: [0, 0, 0] });
    release(values);
    if (values !== samples) release(samples);
    return bmp;
  }
  const colourPixels = readColourPixels(bytes, raw, maxColourPixels);
  return colourPixels === undefined ? bytes : encodeBmp(colourPixels);
}
