/** Decodes frames in a worker. */
/// <reference lib="dom" />
import {
  decodeGrey,
  type GreyImage,
  type GreyRange,
  greyKind,
  greyRange,
  stretch,
} from "../picture/grey.ts";
import { applyPalette, type PaletteName } from "../picture/palette.ts";
import type { ColouredGrey, EncodedFrame, ReducedFrame } from "./frame-image.ts";
import { readImageSize } from "./image-size.ts";
import type { PixelSize } from "./viewport.ts";

/** Image types that browsers decode. Other types could contain code. */
const displayableType = /^image\/(?:jpeg|png|webp|gif|bmp|avif)$/;

/** Limit of pixels, for the memory of a browser tab. */
const maxColourPixels = 2 ** 26;

/**
 * Scale up to which an image is reduced to its room. Thumbnails of 4K pictures would otherwise take
 * 33 MB each. Larger ones are left as they are, because they take little and reducing takes time.
 */
const maxReducedScale = 0.25;

/** How the range of grey values is chosen: per image, smoothed from the one before, or fixed. */
type RangeMode = "fresh" | "follow" | "keep";

/** How a frame is decoded. The first three are for grey frames. */
export interface DecodeOptions {
  /** Undefined selects the default: iron for more than 8 bits, otherwise grey. */
  readonly palette: PaletteName | undefined;
  /** Range of the frame before it. `keep` uses it unchanged, `follow` moves it to the new one. */
  readonly previousRange: GreyRange | undefined;
  readonly rangeMode: RangeMode;
  /** Device pixels that the whole frame is shown in. Undefined if its single pixels are needed. */
  readonly room: PixelSize | undefined;
}

/** An image with its values if it is grey, or with its frame if it is smaller than that. */
export interface DecodedFrame {
  readonly image: ImageBitmap;
  readonly coloured?: ColouredGrey;
  readonly reduced?: ReducedFrame;
}

/** A frame to decode, and the id of its answer. */
export type DecodeRequest = EncodedFrame & DecodeOptions & { readonly id: number };

/** The decoded frame, or a message for the user. */
export type DecodeResult =
  ({ readonly id: number } & DecodedFrame) | { readonly id: number; readonly error: string };

/** Share by which the range moves per image, so that one hot pixel does not cause flicker. */
const rangeFollowShare = 0.25;

async function decode(request: DecodeRequest): Promise<DecodedFrame> {
  const { bytes, type, raw, room } = request;
  if (greyKind(bytes, raw) !== undefined) return await decodeGreyFrame(request);
  if (raw !== null || !displayableType.test(type)) {
    const kind = raw === null ? type : `raw ${raw.format}`;
    throw new Error(`This page cannot show ${kind}; the stored frame can be downloaded`);
  }
  const size = readImageSize(bytes);
  checkSize(size);
  try {
    const blob = new Blob([bytes], { type });
    const reduced = size === undefined ? undefined : await reduce(blob, size, room);
    if (reduced === undefined) return { image: await createImageBitmap(blob) };
    const { image, ...facts } = reduced;
    return { image, reduced: { ...facts, encoded: { bytes, type, raw } } };
  } catch {
    throw new Error("The frame is damaged, or is not a picture");
  }
}

/** Decodes an image to fill its room. Undefined if it is not much larger than that. */
async function reduce(
  blob: Blob,
  { width, height }: PixelSize,
  room: PixelSize | undefined,
): Promise<(Omit<ReducedFrame, "encoded"> & { readonly image: ImageBitmap }) | undefined> {
  const scale = room === undefined ? Infinity : Math.min(room.width / width, room.height / height);
  if (scale > maxReducedScale) return undefined;
  const resizeWidth = Math.ceil(width * scale);
  const image = await createImageBitmap(blob, { resizeWidth, resizeQuality: "high" });
  // The browser has turned the image, as its metadata says, so it does not fill the room.
  const isTurned = width > height !== image.width > image.height;
  if (!isTurned) return { image, width, height, scale: image.width / width };
  image.close();
  return undefined;
}

function checkSize(size: PixelSize | undefined): void {
  if (size === undefined || size.width * size.height <= maxColourPixels) return;
  throw new Error(
    `This page cannot show ${size.width}x${size.height} pixels; the stored frame can be downloaded`,
  );
}

async function decodeGreyFrame({
  bytes,
  raw,
  palette,
  previousRange,
  rangeMode,
}: DecodeRequest): Promise<DecodedFrame> {
  const grey = await decodeGrey(bytes, raw);
  const range =
    previousRange !== undefined && rangeMode === "keep"
      ? previousRange
      : chooseRange(grey, previousRange, rangeMode);
  const name = palette ?? (grey.maximum > 0xff ? "iron" : "grey");
  const pixels = applyPalette(stretch(grey, range), name);
  const image = await createImageBitmap(new ImageData(pixels, grey.width, grey.height));
  return { image, coloured: { grey, range, palette: name } };
}

function chooseRange(
  grey: GreyImage,
  previousRange: GreyRange | undefined,
  rangeMode: RangeMode,
): GreyRange {
  const newRange = greyRange(grey);
  if (previousRange === undefined || rangeMode === "fresh") return newRange;
  const width = previousRange.high - previousRange.low;
  const distance =
    Math.abs(newRange.low - previousRange.low) + Math.abs(newRange.high - previousRange.high);
  // The scene changed completely, for example after a shutter, so smoothing would only delay.
  if (distance > width) return newRange;
  return {
    low: previousRange.low + (newRange.low - previousRange.low) * rangeFollowShare,
    high: previousRange.high + (newRange.high - previousRange.high) * rangeFollowShare,
  };
}

/** The worker's global scope, which the DOM types do not describe. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<DecodeRequest>) => void) | null;
  postMessage(message: DecodeResult, transfer: Transferable[]): void;
}

/** Handles requests inside the worker. */
export function serveDecodeWorker(): void {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = ({ data }) => {
    decode(data).then(
      (decoded) => {
        const { image, coloured, reduced } = decoded;
        const buffers = [coloured?.grey.samples.buffer, reduced?.encoded.bytes.buffer];
        const transfer = [image, ...buffers.filter((buffer) => buffer !== undefined)];
        scope.postMessage({ id: data.id, ...decoded }, transfer);
      },
      (error: Error) => scope.postMessage({ id: data.id, error: error.message }, []),
    );
  };
}
