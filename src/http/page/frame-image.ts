/** An image that a canvas draws, with the values of its pixels. */
/// <reference lib="dom" />
import { type GreyImage, type GreyRange, stretch } from "../picture/grey.ts";
import { applyPalette, type PaletteName } from "../picture/palette.ts";
import type { RawShapeJson } from "./api.ts";
import { displayCount } from "./format.ts";
import type { PixelSize } from "./viewport.ts";

/** A frame as the server sends it. */
export interface EncodedFrame {
  /** Is transferred to a worker, so it must not be used again. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly type: string;
  readonly raw: RawShapeJson | null;
}

/** The frame that a smaller image was made of, and its size in pixels. */
export interface ReducedFrame extends PixelSize {
  readonly encoded: EncodedFrame;
  /** Pixels of the image for each pixel of the frame, along a side. */
  readonly scale: number;
}

/** A grey image, and how its values map to colours. */
export interface ColouredGrey {
  readonly grey: GreyImage;
  readonly range: GreyRange;
  readonly palette: PaletteName;
}

export class FrameImage {
  readonly image: ImageBitmap | VideoFrame;
  /** Size of the frame in pixels. */
  readonly width: number;
  readonly height: number;
  /** Undefined for frames in colour. */
  readonly coloured: ColouredGrey | undefined;
  /** The frame to decode for its single pixels, which the image does not have. */
  readonly reduced: ReducedFrame | undefined;

  constructor(
    image: ImageBitmap | VideoFrame,
    { coloured, reduced }: Partial<Pick<FrameImage, "coloured" | "reduced">> = {},
  ) {
    const [width, height] =
      "displayWidth" in image
        ? [image.displayWidth, image.displayHeight]
        : [image.width, image.height];
    this.image = image;
    this.width = reduced?.width ?? width;
    this.height = reduced?.height ?? height;
    this.coloured = coloured;
    this.reduced = reduced;
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
    return new FrameImage(image, { coloured: { grey, range, palette } });
  }

  /** Frees the memory. */
  close(): void {
    this.image.close();
  }
}

let onePixel: OffscreenCanvasRenderingContext2D | undefined;
