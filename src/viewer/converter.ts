/** Has frames converted in another thread, which is there while it is needed. */
import type { RawShape } from "../frame.ts";
import type { ConversionResult } from "./conversion.ts";

/** A conversion that takes longer, in milliseconds, is given up, with the thread that does it. */
const within = 10_000;

/** The thread goes when nothing was converted for so many milliseconds. */
const idleFor = 30_000;

interface Waiting {
  resolve(result: ConversionResult): void;
  readonly timer: NodeJS.Timeout;
}

export class Converter {
  readonly #makeWorker: () => Worker;
  #worker: Worker | undefined;
  readonly #waiting = new Map<number, Waiting>();
  #ids = 0;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(makeWorker: () => Worker) {
    this.#makeWorker = makeWorker;
  }

  /** A JPEG of the frame, or why there is none. Never rejects. */
  convert(bytes: Uint8Array<ArrayBuffer>, raw: RawShape | undefined): Promise<ConversionResult> {
    const id = ++this.#ids;
    clearTimeout(this.#idleTimer);
    return new Promise((resolve) => {
      const late = () => this.#restart(`The conversion took longer than ${within / 1000} s`);
      this.#waiting.set(id, { resolve, timer: setTimeout(late, within) });
      const worker = (this.#worker ??= this.#start());
      worker.postMessage({ id, bytes, raw });
    });
  }

  #start(): Worker {
    const worker = this.#makeWorker();
    worker.onmessage = ({ data }: MessageEvent<ConversionResult>) => this.#done(data);
    worker.onerror = ({ message }) => this.#restart(message);
    // The types of the page, whose workers have no such thing, hold here too.
    (worker as Worker & { unref(): void }).unref();
    return worker;
  }

  #done(result: ConversionResult): void {
    const waiting = this.#waiting.get(result.id);
    if (waiting === undefined) return;
    this.#waiting.delete(result.id);
    clearTimeout(waiting.timer);
    waiting.resolve(result);
    if (this.#waiting.size > 0) return;
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => this.close(), idleFor);
    this.#idleTimer.unref();
  }

  #restart(failure: string): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    for (const id of [...this.#waiting.keys()]) this.#done({ id, failure });
  }

  close(): void {
    clearTimeout(this.#idleTimer);
    this.#restart("The server is being stopped");
    clearTimeout(this.#idleTimer);
  }
}
