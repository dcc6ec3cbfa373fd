/** Maps grey images to colours in workers, so that the page stays responsive. */
/// <reference lib="dom" />
import { decodeGrey, type GreyImage, type GreyRange, greyRange, stretch } from "../picture/grey.ts";
import { applyPalette, type PaletteName } from "../picture/palette.ts";
import type { RawShapeJson } from "./api.ts";

/** An image to paint. */
interface PaintRequest {
  readonly id: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly raw: RawShapeJson | null;
  /** Undefined selects the default: iron for more than 8 bits, otherwise grey. */
  readonly palette: PaletteName | undefined;
  /**
   * Range of the previous image. `keep` uses it unchanged, `follow` moves it towards the new one.
   */
  readonly previousRange: GreyRange | undefined;
  readonly rangeMode: RangeMode;
}

/** How the range is chosen: per image, smoothed from the previous one, or fixed. */
export type RangeMode = "fresh" | "follow" | "keep";

/** A grey image with its colours. */
export interface PaintedImage extends GreyImage {
  readonly image: ImageBitmap;
  readonly range: GreyRange;
  readonly palette: PaletteName;
}

type PaintResult =
  ({ readonly id: number } & PaintedImage) | { readonly id: number; readonly error: string };

/** Share by which the range moves per image, so that one hot pixel does not cause flicker. */
const rangeFollowShare = 0.25;

async function paint({
  bytes,
  raw,
  palette,
  previousRange,
  rangeMode,
}: PaintRequest): Promise<PaintedImage> {
  const grey = await decodeGrey(bytes, raw);
  const range =
    previousRange !== undefined && rangeMode === "keep"
      ? previousRange
      : chooseRange(grey, previousRange, rangeMode);
  const name = palette ?? (grey.maximum > 0xff ? "iron" : "grey");
  const pixels = applyPalette(stretch(grey, range), name);
  const image = await createImageBitmap(new ImageData(pixels, grey.width, grey.height));
  return { ...grey, range, palette: name, image };
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
  onmessage: ((event: MessageEvent<PaintRequest>) => void) | null;
  postMessage(message: PaintResult, transfer: Transferable[]): void;
}

/** Handles paint requests inside the worker. */
export function servePaintWorker(): void {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = ({ data }) => {
    paint(data).then(
      (painted) => {
        const transfer = [painted.image, painted.samples.buffer];
        scope.postMessage({ id: data.id, ...painted }, transfer);
      },
      (error: Error) => scope.postMessage({ id: data.id, error: error.message }, []),
    );
  };
}

interface PendingPaint {
  resolve(image: PaintedImage): void;
  reject(error: Error): void;
}

/** A worker and its unanswered requests. */
class PaintWorker {
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingPaint>();
  #lastId = 0;

  constructor(scriptUrl: string) {
    this.#worker = new Worker(scriptUrl, { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<PaintResult>) => {
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

  paint(request: Omit<PaintRequest, "id">): Promise<PaintedImage> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...request }, [request.bytes.buffer]);
    });
  }
}

/** Distributes paint requests over up to four workers. */
export class GreyPainter {
  readonly #scriptUrl: string;
  readonly #workers: PaintWorker[] = [];
  readonly #maxWorkers = Math.max(1, Math.min(4, navigator.hardwareConcurrency - 1));

  /** @param scriptUrl script that calls `servePaintWorker` when run as a worker */
  constructor(scriptUrl: string) {
    this.#scriptUrl = scriptUrl;
  }

  /**
   * Paints an image in the least busy worker. Transfers `request.bytes`, so its buffer is empty
   * afterwards.
   *
   * @throws {Error} with a message for the user if the image cannot be decoded
   */
  paint(request: Omit<PaintRequest, "id">): Promise<PaintedImage> {
    let leastBusy = this.#workers.toSorted(
      (one, other) => one.pendingCount - other.pendingCount,
    )[0];
    if (
      leastBusy === undefined ||
      (leastBusy.pendingCount > 0 && this.#workers.length < this.#maxWorkers)
    ) {
      this.#workers.push((leastBusy = new PaintWorker(this.#scriptUrl)));
    }
    return leastBusy.paint(request);
  }
}
