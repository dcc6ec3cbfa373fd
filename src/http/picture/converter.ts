/**
 * Converts frames to JPEG in a worker, one at a time, because each conversion takes much memory.
 * Keys take turns. The worker starts on demand and stops when idle.
 */
import { FramesError } from "../../errors.ts";
import type { RawShape } from "../../frame.ts";
import { collectGarbage } from "../../common/memory.ts";
import type { ConversionResult } from "./to-jpeg.ts";

/** Time limit of a conversion. After it the worker is terminated, and the conversion fails. */
const conversionTimeoutMs = 10_000;

/** Time without conversions after which the worker is terminated. */
const idleTimeoutMs = 30_000;

/** Conversions of one key that may wait. A key has no more viewers than that. */
const maxWaiting = 256;

const closedFailure = "the server is stopping";

/** A frame with its shape, if it is raw. */
export interface FrameToConvert {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly raw: RawShape | undefined;
}

/** A conversion that waits for its turn. */
interface WaitingConversion {
  readonly read: () => Promise<FrameToConvert | undefined>;
  resolve(result: ConversionResult | undefined): void;
}

export class Converter {
  readonly #createWorker: () => Worker;
  #worker: Worker | undefined;
  /** Waiting conversions by key. The first key is the next one. */
  readonly #waiting = new Map<string, WaitingConversion[]>();
  #isConverting = false;
  #isClosed = false;
  /** Ends the conversion that the worker does now. */
  #finish: ((result: ConversionResult) => void) | undefined;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(createWorker: () => Worker) {
    this.#createWorker = createWorker;
  }

  /**
   * Converts a frame to JPEG. A picture that cannot be converted is part of the result.
   *
   * @param keyId id of the viewer's key
   * @param read reads the frame when its turn has come, so that waiting takes no memory
   * @returns undefined if `read` returns no frame
   * @throws {FramesError} `full` if too many frames of this key wait
   */
  convert(
    keyId: string,
    read: () => Promise<FrameToConvert | undefined>,
  ): Promise<ConversionResult | undefined> {
    const waiting = this.#waiting.get(keyId) ?? [];
    if (waiting.length >= maxWaiting) {
      const message = `Cannot show the picture: ${maxWaiting} pictures of this key wait; try again`;
      return Promise.reject(new FramesError("full", message));
    }
    this.#waiting.set(keyId, waiting);
    return new Promise((resolve) => {
      waiting.push({ read, resolve });
      if (!this.#isConverting) void this.#convertAll();
    });
  }

  async #convertAll(): Promise<void> {
    clearTimeout(this.#idleTimer);
    this.#isConverting = true;
    for (let next = this.#takeNext(); next !== undefined; next = this.#takeNext()) {
      next.resolve(await this.#convertFrame(next.read));
    }
    this.#isConverting = false;
    this.#idleTimer = setTimeout(() => this.#stopWorker(), idleTimeoutMs);
    this.#idleTimer.unref();
  }

  /** Takes the next conversion. Its key goes behind all others. */
  #takeNext(): WaitingConversion | undefined {
    const [first] = this.#waiting;
    if (first === undefined) return undefined;
    const [keyId, waiting] = first;
    const next = waiting.shift();
    this.#waiting.delete(keyId);
    if (waiting.length > 0) this.#waiting.set(keyId, waiting);
    return next;
  }

  async #convertFrame(read: WaitingConversion["read"]): Promise<ConversionResult | undefined> {
    const frame = await read().catch(() => undefined);
    if (frame === undefined) return undefined;
    if (this.#isClosed) return { failure: closedFailure };
    let timer: NodeJS.Timeout | undefined;
    const { promise, resolve } = Promise.withResolvers<ConversionResult>();
    this.#finish = resolve;
    try {
      collectGarbage(frame.bytes.length);
      this.#worker ??= this.#startWorker();
      // Others share the frame's bytes. A copy that is given away is one copy less than a clone takes.
      const bytes = frame.bytes.slice();
      this.#worker.postMessage({ bytes, raw: frame.raw }, [bytes.buffer]);
      const seconds = conversionTimeoutMs / 1000;
      const failure = `the conversion took longer than ${seconds} s`;
      timer = setTimeout(() => this.#abort(failure), conversionTimeoutMs);
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#finish = undefined;
    }
  }

  #startWorker(): Worker {
    const worker = this.#createWorker();
    worker.onmessage = ({ data }: MessageEvent<ConversionResult>) => this.#finish?.(data);
    worker.onerror = ({ message }) => this.#abort(message);
    // The DOM types of the page apply here too, and their Worker has no `unref`.
    (worker as Worker & { unref(): void }).unref();
    return worker;
  }

  #abort(failure: string): void {
    this.#stopWorker();
    this.#finish?.({ failure });
  }

  #stopWorker(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#idleTimer);
    const waiting = [...this.#waiting.values()].flat();
    this.#waiting.clear();
    for (const { resolve } of waiting) resolve({ failure: closedFailure });
    this.#abort(closedFailure);
  }
}
