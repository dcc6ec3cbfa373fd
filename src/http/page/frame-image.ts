/** Decodes a frame into an image that a canvas draws, with the values of its pixels. */
/// <reference lib="dom" />
import { type GreyImage, type GreyRange, greyKind, stretch } from "../picture/grey.ts";
import { applyPalette, type PaletteName } from "../picture/palette.ts";
import type { RawShapeJson } from "./api.ts";
import { displayCount } from "./format.ts";
import type { GreyPainter, RangeMode } from "./grey-painter.ts";
import { readImageSize } from "./image-size.ts";
import type { PixelSize } from "./viewport.ts";

/** Image types that browsers decode. Other types could contain code. */
const displayableType = /^image\/(?:jpeg|png|webp|gif|bmp|avif)$/;

/** Limit of pixels, for the memory of a browser tab. */
const maxColourPixels = 2 ** 26;

/** A frame as the server sends it. */
export interface EncodedFrame {
  /** May be transferred to a worker, so it must not be used again. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly type: string;
  readonly raw: RawShapeJson | null;
}

/** A grey image, and how its values map to colours. */
export interface ColouredGrey {
  readonly grey: GreyImage;
  readonly range: GreyRange;
  readonly palette: PaletteName;
}

/** How a grey frame is coloured. */
export interface ColourChoice {
  /** Undefined selects the default. */
  readonly palette: PaletteName | undefined;
  /** Range of the frame before it. */
  readonly previousRange: GreyRange | undefined;
  readonly rangeMode: RangeMode;
}

export class FrameImage {
  readonly image: ImageBitmap | VideoFrame;
  readonly width: number;
  readonly height: number;
  /** Undefined for frames in colour. */
  readonly coloured: ColouredGrey | undefined;

  constructor(image: ImageBitmap | VideoFrame, coloured?: ColouredGrey) {
    this.image = image;
    this.width = "displayWidth" in image ? image.displayWidth : image.width;
    this.height = "displayHeight" in image ? image.displayHeight : image.height;
    this.coloured = coloured;
  }

  /** Describes the value of a pixel: the sample of a grey frame, or red, green and blue. */
  valueAt(x: number, y: number): string {
    if (this.coloured !== undefined) {
      return displayCount(this.coloured.grey.samples[y * this.width + x] ?? 0);
    }
    // Reads from a 1x1 canvas, because reading the visible canvas would make drawing on it slow.
    onePixel ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })!;
    onePixel.drawImage(this.image, x, y, 1, 1, 0, 0, 1, 1);
    const [red, green, blue] = onePixel.getImageData(0, 0, 1, 1).data;
    return `${red} ${green} ${blue}`;
  }

  /** Returns the same grey frame in another palette. Undefined for frames in colour. */
  async recolour(palette: PaletteName): Promise<FrameImage | undefined> {
    if (this.coloured === undefined) return undefined;
    const { grey, range } = this.coloured;
    const pixels = applyPalette(stretch(grey, range), palette);
    const image = await createImageBitmap(new ImageData(pixels, grey.width, grey.height));
    return new FrameImage(image, { grey, range, palette });
  }

  /** Frees the memory. */
  close(): void {
    this.image.close();
  }
}

let onePixel: OffscreenCanvasRenderingContext2D | undefined;

/** @throws {Error} with a message for the user if the frame cannot be shown */
export async function decodeFrame(
  { bytes, type, raw }: EncodedFrame,
  painter: GreyPainter,
  choice: ColourChoice,
): Promise<FrameImage> {
  if (greyKind(bytes, raw) !== undefined) {
    const { image, range, palette, ...grey } = await painter.paint({ bytes, raw, ...choice });
    return new FrameImage(image, { grey, range, palette });
  }
  if (raw !== null || !displayableType.test(type)) {
    const kind = raw === null ? type : `raw ${raw.format}`;
    throw new Error(`This page cannot show ${kind}; the stored frame can be downloaded`);
  }
  checkSize(readImageSize(bytes));
  try {
    return new FrameImage(await createImageBitmap(new Blob([bytes], { type })));
  } catch {
    throw new Error("The frame is damaged, or is not a picture");
  }
}

function checkSize(size: PixelSize | undefined): void {
  if (size === undefined || size.width * size.height <= maxColourPixels) return;
  throw new Error(
    `This page cannot show ${size.width}x${size.height} pixels; the stored frame can be downloaded`,
  );
}
