/** Decodes frames in workers, so that the page stays responsive. */
/// <reference lib="dom" />
import type { DecodedFrame, DecodeOptions, DecodeRequest, DecodeResult } from "./decode-worker.ts";
import { type EncodedFrame, FrameImage } from "./frame-image.ts";

interface PendingFrame {
  resolve(frame: DecodedFrame): void;
  reject(error: Error): void;
}

/** A worker and its unanswered requests. */
class WorkerQueue {
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

  decode(frame: EncodedFrame, options: DecodeOptions): Promise<DecodedFrame> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      const request: DecodeRequest = { id, ...frame, ...options };
      this.#worker.postMessage(request, [frame.bytes.buffer]);
    });
  }
}

/** Distributes frames over up to four workers. */
export class FrameDecoder {
  readonly #scriptUrl: string;
  readonly #workers: WorkerQueue[] = [];
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
  async decode(frame: EncodedFrame, options: DecodeOptions): Promise<FrameImage> {
    let leastBusy = this.#workers.toSorted(
      (one, other) => one.pendingCount - other.pendingCount,
    )[0];
    if (
      leastBusy === undefined ||
      (leastBusy.pendingCount > 0 && this.#workers.length < this.#maxWorkers)
    ) {
      this.#workers.push((leastBusy = new WorkerQueue(this.#scriptUrl)));
    }
    const decoded = await leastBusy.decode(frame, options);
    return new FrameImage(decoded.image, decoded);
  }
}
