/** Paints grey pictures in workers: values become colours there, and the page stays quick. */
/// <reference lib="dom" />
import { decodeGrey, type Grey, type GreyRange, greyRange, stretch } from "../grey.ts";
import { colour, type PaletteName } from "../palette.ts";
import type { Raw } from "./api.ts";

/** What is to be painted. */
interface Order {
  readonly id: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly raw: Raw | null;
  /** Undefined: what fits the picture, iron for more than 8 bits. */
  readonly palette: PaletteName | undefined;
  /** The range of the picture before: `keep` takes it as it is, `follow` goes towards the new one. */
  readonly before: GreyRange | undefined;
  readonly manner: RangeManner;
}

/** How the range is found: anew for each picture, calmly from the one before, or not any more. */
export type RangeManner = "fresh" | "follow" | "keep";

/** A grey picture and its colours. */
export interface Painted extends Grey {
  readonly pixels: Uint8ClampedArray<ArrayBuffer>;
  readonly range: GreyRange;
  readonly palette: PaletteName;
}

type Answer = ({ readonly id: number } & Painted) | { readonly id: number; readonly error: string };

/** Part of the way that a range goes with each picture, so that one hot pixel does not make the rest flicker. */
const pace = 0.25;

async function paint({ bytes, raw, palette, before, manner }: Order): Promise<Painted> {
  const grey = await decodeGrey(bytes, raw);
  const range = before !== undefined && manner === "keep" ? before : rangeOf(grey, before, manner);
  const name = palette ?? (grey.maximum > 0xff ? "iron" : "grey");
  return { ...grey, range, palette: name, pixels: colour(stretch(grey, range), name) };
}

function rangeOf(grey: Grey, before: GreyRange | undefined, manner: RangeManner): GreyRange {
  const found = greyRange(grey);
  if (before === undefined || manner === "fresh") return found;
  const width = before.high - before.low;
  const moved = Math.abs(found.low - before.low) + Math.abs(found.high - before.high);
  // Another scene altogether, such as after a shutter.
  if (moved > width) return found;
  return {
    low: before.low + (found.low - before.low) * pace,
    high: before.high + (found.high - before.high) * pace,
  };
}

/** What the worker has of its scope, which the types of a page do not know. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<Order>) => void) | null;
  postMessage(message: Answer, transfer: Transferable[]): void;
}

/** The other end: runs in a worker. */
export function serveThermal(): void {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = ({ data }) => {
    paint(data).then(
      (painted) => {
        const transfer = [painted.pixels.buffer, painted.samples.buffer];
        scope.postMessage({ id: data.id, ...painted }, transfer);
      },
      (error: Error) => scope.postMessage({ id: data.id, error: error.message }, []),
    );
  };
}

interface Waiting {
  resolve(painted: Painted): void;
  reject(error: Error): void;
}

/** A worker, and what it has still to answer. */
class Painter {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;

  constructor(address: string) {
    this.#worker = new Worker(address, { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ("error" in data) waiting?.reject(new Error(data.error));
      else waiting?.resolve(data);
    };
    this.#worker.onerror = () => {
      for (const { reject } of this.#waiting.values()) reject(new Error("The picture has no room"));
      this.#waiting.clear();
    };
  }

  get busy(): number {
    return this.#waiting.size;
  }

  paint(order: Omit<Order, "id">): Promise<Painted> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...order }, [order.bytes.buffer]);
    });
  }
}

/** Paints in up to four workers. */
export class Thermal {
  readonly #address: string;
  readonly #painters: Painter[] = [];
  readonly #most = Math.max(1, Math.min(4, navigator.hardwareConcurrency - 1));

  /** @param address of the script whose worker runs `serveThermal` */
  constructor(address: string) {
    this.#address = address;
  }

  /**
   * Gives the bytes away: their buffer is empty afterwards.
   *
   * @throws {Error} saying what is wrong with the picture
   */
  paint(order: Omit<Order, "id">): Promise<Painted> {
    let least = this.#painters.toSorted((one, other) => one.busy - other.busy)[0];
    if (least === undefined || (least.busy > 0 && this.#painters.length < this.#most)) {
      this.#painters.push((least = new Painter(this.#address)));
    }
    return least.paint(order);
  }
}
