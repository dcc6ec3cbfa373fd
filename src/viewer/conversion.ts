/** A JPEG of a frame that is none: what a thermal camera saw is scaled first, or it would be almost black. */
import type { RawShape } from "../frame.ts";
import { decodeGrey, greyKind, greyRange, mostPixels, stretch } from "./grey.ts";
import { bitmap, readColours } from "./bitmap.ts";

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
const quality = 85;

/** Never throws. */
export async function convert({ id, bytes, raw }: ConversionRequest): Promise<ConversionResult> {
  try {
    const jpeg = (await jpegOf(bytes, raw)) as Uint8Array<ArrayBuffer>;
    // It is moved to the other thread whole.
    return { id, jpeg: jpeg.byteLength === jpeg.buffer.byteLength ? jpeg : jpeg.slice() };
  } catch (error) {
    return { id, failure: error instanceof Error ? error.message : String(error) };
  }
}

async function jpegOf(bytes: Uint8Array<ArrayBuffer>, raw: RawShape | undefined) {
  return await new Bun.Image(await readable(bytes, raw), { maxPixels: mostPixels })
    .jpeg({ quality })
    .bytes();
}

/** The frame in a format that Bun reads. */
async function readable(bytes: Uint8Array<ArrayBuffer>, raw: RawShape | undefined) {
  if (greyKind(bytes, raw) !== undefined) {
    const grey = await decodeGrey(bytes, raw);
    const { width, height, samples, maximum } = grey;
    // Eight bits are what a screen shows anyway.
    const isPlain = samples instanceof Uint8Array && maximum === 0xff;
    const values = isPlain ? samples : stretch(grey, greyRange(grey));
    return bitmap({ width, height, values, channels: [0, 0, 0] });
  }
  const colours = readColours(bytes, raw);
  return colours === undefined ? bytes : bitmap(colours);
}
