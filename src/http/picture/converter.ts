/** Converts frames to JPEG in a worker. The worker starts on demand and stops when idle. */
import type { RawShape } from "../../frame.ts";
import type { ConversionResult } from "./to-jpeg.ts";

/**
 * Time limit of a conversion. After it the worker is terminated and all pending conversions fail.
 */
const conversionTimeoutMs = 10_000;

/** Time without conversions after which the worker is terminated. */
const idleTimeoutMs = 30_000;

interface PendingConversion {
  resolve(result: ConversionResult): void;
  readonly timer: NodeJS.Timeout;
}

export class Converter {
  readonly #createWorker: () => Worker;
  #worker: Worker | undefined;
  readonly #pending = new Map<number, PendingConversion>();
  #lastId = 0;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(createWorker: () => Worker) {
    this.#createWorker = createWorker;
  }

  /** Converts a frame to JPEG. Never rejects: a failure is part of the result. */
  convert(bytes: Uint8Array<ArrayBuffer>, raw: RawShape | undefined): Promise<ConversionResult> {
    const id = ++this.#lastId;
    clearTimeout(this.#idleTimer);
    return new Promise((resolve) => {
      const onTimeout = () =>
        this.#abortAll(`The conversion took longer than ${conversionTimeoutMs / 1000} s`);
      this.#pending.set(id, { resolve, timer: setTimeout(onTimeout, conversionTimeoutMs) });
      const worker = (this.#worker ??= this.#startWorker());
      worker.postMessage({ id, bytes, raw });
    });
  }

  #startWorker(): Worker {
    const worker = this.#createWorker();
    worker.onmessage = ({ data }: MessageEvent<ConversionResult>) => this.#onResult(data);
    worker.onerror = ({ message }) => this.#abortAll(message);
    // The DOM types of the page apply here too, and their Worker has no `unref`.
    (worker as Worker & { unref(): void }).unref();
    return worker;
  }

  #onResult(result: ConversionResult): void {
    const pending = this.#pending.get(result.id);
    if (pending === undefined) return;
    this.#pending.delete(result.id);
    clearTimeout(pending.timer);
    pending.resolve(result);
    if (this.#pending.size > 0) return;
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.close(), idleTimeoutMs);
    this.#idleTimer.unref();
  }

  #abortAll(failure: string): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    for (const id of [...this.#pending.keys()]) this.#onResult({ id, failure });
  }

  close(): void {
    clearTimeout(this.#idleTimer);
    this.#abortAll("The server is stopping");
    clearTimeout(this.#idleTimer);
  }
}
