/** Decodes frames in workers, so that the page stays responsive. */
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
import type { RawShapeJson } from "./api.ts";
import { type ColouredGrey, FrameImage } from "./frame-image.ts";
import { readImageSize } from "./image-size.ts";
import type { PixelSize } from "./viewport.ts";

/** Image types that browsers decode. Other types could contain code. */
const displayableType = /^image\/(?:jpeg|png|webp|gif|bmp|avif)$/;

/** Limit of pixels, for the memory of a browser tab. */
const maxColourPixels = 2 ** 26;

/** A frame as the server sends it. */
export interface EncodedFrame {
  /** Is transferred to a worker, so it must not be used again. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly type: string;
  readonly raw: RawShapeJson | null;
}

/** How the range of grey values is chosen: per image, smoothed from the one before, or fixed. */
export type RangeMode = "fresh" | "follow" | "keep";

/** How a grey frame is coloured. */
export interface ColourChoice {
  /** Undefined selects the default: iron for more than 8 bits, otherwise grey. */
  readonly palette: PaletteName | undefined;
  /** Range of the frame before it. `keep` uses it unchanged, `follow` moves it to the new one. */
  readonly previousRange: GreyRange | undefined;
  readonly rangeMode: RangeMode;
}

/** An image, and its values if it is grey. */
interface DecodedFrame {
  readonly image: ImageBitmap;
  readonly coloured: ColouredGrey | undefined;
}

type DecodeRequest = EncodedFrame & ColourChoice & { readonly id: number };

type DecodeResult =
  ({ readonly id: number } & DecodedFrame) | { readonly id: number; readonly error: string };

/** Share by which the range moves per image, so that one hot pixel does not cause flicker. */
const rangeFollowShare = 0.25;

async function decode(request: DecodeRequest): Promise<DecodedFrame> {
  const { bytes, type, raw } = request;
  if (greyKind(bytes, raw) !== undefined) return await decodeGreyFrame(request);
  if (raw !== null || !displayableType.test(type)) {
    const kind = raw === null ? type : `raw ${raw.format}`;
    throw new Error(`This page cannot show ${kind}; the stored frame can be downloaded`);
  }
  checkSize(readImageSize(bytes));
  try {
    const image = await createImageBitmap(new Blob([bytes], { type }));
    return { image, coloured: undefined };
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
      ({ image, coloured }) => {
        const samples = coloured === undefined ? [] : [coloured.grey.samples.buffer];
        scope.postMessage({ id: data.id, image, coloured }, [image, ...samples]);
      },
      (error: Error) => scope.postMessage({ id: data.id, error: error.message }, []),
    );
  };
}

interface PendingFrame {
  resolve(frame: DecodedFrame): void;
  reject(error: Error): void;
}

/** A worker and its unanswered requests. */
class DecodeWorker {
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingFrame>();
  #lastId = 0;

  constructor(scriptUrl: string) {
    this.#worker = new Worker(scriptUrl, { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<DecodeResult>) => {
      const pending = this.#pending.get(data.id);
      this.#pending.delete(data.id);
      if ("error" in data) pending?.reject(new Error(data.error));
      else pending?.resolve(data);
    };
    this.#worker.onerror = () => {
      for (const { reject } of this.#pending.values())
        reject(new Error("The page has no space for the picture"));
      this.#pending.clear();
    };
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  decode(frame: EncodedFrame, choice: ColourChoice): Promise<DecodedFrame> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...frame, ...choice }, [frame.bytes.buffer]);
    });
  }
}

/** Distributes frames over up to four workers. */
export class FrameDecoder {
  readonly #scriptUrl: string;
  readonly #workers: DecodeWorker[] = [];
  readonly #maxWorkers = Math.max(1, Math.min(4, navigator.hardwareConcurrency - 1));

  /** @param scriptUrl script that calls `serveDecodeWorker` when run as a worker */
  constructor(scriptUrl: string) {
    this.#scriptUrl = scriptUrl;
  }

  /**
   * Decodes a frame in the least busy worker.
   *
   * @throws {Error} with a message for the user if the frame cannot be shown
   */
  async decode(frame: EncodedFrame, choice: ColourChoice): Promise<FrameImage> {
    let leastBusy = this.#workers.toSorted(
      (one, other) => one.pendingCount - other.pendingCount,
    )[0];
    if (
      leastBusy === undefined ||
      (leastBusy.pendingCount > 0 && this.#workers.length < this.#maxWorkers)
    ) {
      this.#workers.push((leastBusy = new DecodeWorker(this.#scriptUrl)));
    }
    const { image, coloured } = await leastBusy.decode(frame, choice);
    return new FrameImage(image, coloured);
  }
}
