/** A JPEG of a frame that is none: what a thermal camera saw is scaled first, or it would be almost black. */
import type { RawShape } from "../../frame.ts";
import { decodeGrey, greyKind, greyRange, maxPixels, stretch } from "./grey.ts";
import { encodeBmp, readColourPixels } from "./bitmap.ts";

/** A frame to be converted. */
export interface ConversionRequest {
  readonly id: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly raw: RawShape | undefined;
}

/** What came of it: a JPEG, or why there is none. */
export interface ConversionResult {
  readonly id: number;
  readonly jpeg?: Uint8Array<ArrayBuffer>;
  readonly failure?: string;
}

/** Of a scale to 100. */
const jpegQuality = 85;

/** Never throws. */
export async function convertToJpeg({
  id,
  bytes,
  raw,
}: ConversionRequest): Promise<ConversionResult> {
  try {
    const jpeg = (await encodeJpeg(bytes, raw)) as Uint8Array<ArrayBuffer>;
    // It is moved to the other thread whole.
    return { id, jpeg: jpeg.byteLength === jpeg.buffer.byteLength ? jpeg : jpeg.slice() };
  } catch (error) {
    return { id, failure: error instanceof Error ? error.message : String(error) };
  }
}

async function encodeJpeg(bytes: Uint8Array<ArrayBuffer>, raw: RawShape | undefined) {
  return await new Bun.Image(await toDecodableImage(bytes, raw), { maxPixels })
    .jpeg({ quality: jpegQuality })
    .bytes();
}

/** The frame in a format that Bun reads. */
async function toDecodableImage(bytes: Uint8Array<ArrayBuffer>, raw: RawShape | undefined) {
  if (greyKind(bytes, raw) !== undefined) {
    const grey = await decodeGrey(bytes, raw);
    const { width, height, samples, maximum } = grey;
    // Eight bits are what a screen shows anyway.
    const isEightBit = samples instanceof Uint8Array && maximum === 0xff;
    const values = isEightBit ? samples : stretch(grey, greyRange(grey));
    return encodeBmp({ width, height, data: values, channels: [0, 0, 0] });
  }
  const colourPixels = readColourPixels(bytes, raw);
  return colourPixels === undefined ? bytes : encodeBmp(colourPixels);
}
