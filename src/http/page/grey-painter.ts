/** Paints grey pictures in workers: values become colours there, and the page stays quick. */
/// <reference lib="dom" />
import { decodeGrey, type GreyImage, type GreyRange, greyRange, stretch } from "../picture/grey.ts";
import { applyPalette, type PaletteName } from "../picture/palette.ts";
import type { RawShapeJson } from "./api.ts";

/** What is to be painted. */
interface PaintRequest {
  readonly id: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly raw: RawShapeJson | null;
  /** Undefined: what fits the picture, iron for more than 8 bits. */
  readonly palette: PaletteName | undefined;
  /** The range of the picture before: `keep` takes it as it is, `follow` goes towards the new one. */
  readonly previousRange: GreyRange | undefined;
  readonly rangeMode: RangeMode;
}

/** How the range is found: anew for each picture, calmly from the one before, or not any more. */
export type RangeMode = "fresh" | "follow" | "keep";

/** A grey picture and its colours. */
export interface PaintedImage extends GreyImage {
  readonly pixels: Uint8ClampedArray<ArrayBuffer>;
  readonly range: GreyRange;
  readonly palette: PaletteName;
}

type PaintResult =
  ({ readonly id: number } & PaintedImage) | { readonly id: number; readonly error: string };

/** Part of the way that a range goes with each picture, so that one hot pixel does not make the rest flicker. */
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
  return { ...grey, range, palette: name, pixels: applyPalette(stretch(grey, range), name) };
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
  // Another scene altogether, such as after a shutter.
  if (distance > width) return newRange;
  return {
    low: previousRange.low + (newRange.low - previousRange.low) * rangeFollowShare,
    high: previousRange.high + (newRange.high - previousRange.high) * rangeFollowShare,
  };
}

/** What the worker has of its scope, which the types of a page do not know. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<PaintRequest>) => void) | null;
  postMessage(message: PaintResult, transfer: Transferable[]): void;
}

/** The other end: runs in a worker. */
export function servePaintWorker(): void {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = ({ data }) => {
    paint(data).then(
      (image) => {
        const transfer = [image.pixels.buffer, image.samples.buffer];
        scope.postMessage({ id: data.id, ...image }, transfer);
      },
      (error: Error) => scope.postMessage({ id: data.id, error: error.message }, []),
    );
  };
}

interface PendingPaint {
  resolve(image: PaintedImage): void;
  reject(error: Error): void;
}

/** A worker, and what it has still to answer. */
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
      for (const { reject } of this.#pending.values()) reject(new Error("The picture has no room"));
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

/** Paints in up to four workers. */
export class GreyPainter {
  readonly #scriptUrl: string;
  readonly #workers: PaintWorker[] = [];
  readonly #maxWorkers = Math.max(1, Math.min(4, navigator.hardwareConcurrency - 1));

  /** @param scriptUrl of the script whose worker runs `serveThermal` */
  constructor(scriptUrl: string) {
    this.#scriptUrl = scriptUrl;
  }

  /**
   * Gives the bytes away: their buffer is empty afterwards.
   *
   * @throws {Error} saying what is wrong with the picture
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
