/**
 * Frames on their way into a bucket: many at a time, and no more bytes of them in memory than there is room
 * for. Small ones are held until they are whole; large ones go on as they come, all but their last bytes.
 */
import { FramesError } from "../../errors.ts";
import type { S3, UploadResult, UploadOptions } from "./s3.ts";

/** Larger frames are sent on as they come. */
export const maxBufferedFrameBytes = 8 << 20;

/** Objects that are written at the same time. */
const maxConcurrentUploads = 32;

/** With more bytes under way nothing more is read from senders; they read on when it is half of that. */
const maxInFlightBytes = 24 << 20;

/** With more bytes of unfinished frames in memory, others are sent on as they come, like large ones. */
const maxUnfinishedBytes = 64 << 20;

/** An engine that takes nothing for so long, in milliseconds, has stopped. */
const stallTimeoutMs = 12_000;

export class UploadPool {
  readonly bufferPool = new BufferPool();
  readonly #s3: S3;
  #activeCount = 0;
  readonly #queue: (() => void)[] = [];
  #inFlightBytes = 0;
  #unfinishedBytes = 0;
  #capacity: { promise: Promise<void>; resolve: () => void } | undefined;
  #idleWaiters: (() => void)[] = [];

  constructor(s3: S3) {
    this.#s3 = s3;
  }

  /** Whether another frame of this size may be held in memory until it is whole; then it is charged. */
  reserve(size: number): boolean {
    if (size > maxBufferedFrameBytes || this.#unfinishedBytes + size > maxUnfinishedBytes)
      return false;
    this.#unfinishedBytes += size;
    return true;
  }

  /** It is whole, or will never be. */
  release(size: number): void {
    this.#unfinishedBytes -= size;
  }

  /** Nothing while there is room; else what is settled when there is some again. */
  waitForCapacity(): Promise<void> | undefined {
    if (this.#capacity === undefined && this.#inFlightBytes > maxInFlightBytes) {
      this.#capacity = Promise.withResolvers<void>();
    }
    return this.#capacity?.promise;
  }

  /** So many bytes more, or less, are under way. */
  addInFlight(bytes: number): void {
    this.#inFlightBytes += bytes;
    if (this.#capacity === undefined || this.#inFlightBytes > maxInFlightBytes / 2) return;
    this.#capacity.resolve();
    this.#capacity = undefined;
  }

  /** Stores a frame, when it is its turn. */
  async put(path: string, bytes: Uint8Array, options: UploadOptions): Promise<UploadResult> {
    return this.runLimited(() => this.#s3.put(path, bytes, options));
  }

  /** Does something with the bucket, when it is its turn. */
  async runLimited<T>(act: () => Promise<T>): Promise<T> {
    if (this.#activeCount >= maxConcurrentUploads)
      await new Promise<void>((resolve) => this.#queue.push(resolve));
    else this.#activeCount++;
    try {
      return await act();
    } finally {
      const next = this.#queue.shift();
      if (next !== undefined) next();
      else if (--this.#activeCount === 0)
        for (const resolve of this.#idleWaiters.splice(0)) resolve();
    }
  }

  /** Settled when nothing is under way. */
  async whenIdle(): Promise<void> {
    if (this.#activeCount > 0)
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
  }
}

/** Sizes of the memory that frames are gathered in are multiples of an eighth of the next power of two. */
function capacityFor(size: number): number {
  const granule = Math.max(4096, 2 ** Math.ceil(Math.log2(size + 1)) / 8);
  return Math.ceil(size / granule) * granule;
}

/** Bytes of memory that wait for the next frames. */
const maxPooledBytes = 16 << 20;

/** Memory that is used again: fresh memory costs as much as copying into it. */
class BufferPool {
  readonly #free = new Map<number, ArrayBuffer[]>();
  #bytes = 0;

  /** So many bytes, whatever is in them. */
  acquire(size: number): Uint8Array<ArrayBuffer> {
    const capacity = capacityFor(size);
    const buffer = this.#free.get(capacity)?.pop();
    if (buffer === undefined) return new Uint8Array(new ArrayBuffer(capacity), 0, size);
    this.#bytes -= capacity;
    return new Uint8Array(buffer, 0, size);
  }

  /** They are needed no more. */
  release({ buffer }: Uint8Array<ArrayBuffer>): void {
    const capacity = buffer.byteLength;
    if (this.#bytes + capacity > maxPooledBytes) {
      // Left to the garbage collector, many MB of it lie about.
      buffer.transfer(0);
      return;
    }
    this.#bytes += capacity;
    const free = this.#free.get(capacity);
    if (free === undefined) this.#free.set(capacity, [buffer]);
    else free.push(buffer);
  }
}

/** A frame that is sent on as it comes. Its end is held back until it is known to be whole. */
export class StreamUpload {
  readonly #pool: UploadPool;
  readonly #abort = new AbortController();
  readonly upload: Promise<UploadResult>;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #queued: Uint8Array[] = [];
  #lastChunk: Uint8Array | undefined;
  #isPullPending = false;
  #isEnded = false;
  #isClosed = false;
  /** When the engine took something, or had nothing to wait for. */
  #progressAt = performance.now();
  readonly #stallTimer: NodeJS.Timeout;

  /** @param prepare tells when it may begin, and on which condition; what comes before that is kept */
  constructor(
    pool: UploadPool,
    s3: S3,
    path: string,
    size: number,
    prepare: () => Promise<UploadOptions>,
  ) {
    this.#pool = pool;
    const body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.#controller = controller),
        pull: () => this.#onPull(),
      },
      { highWaterMark: 0 },
    );
    this.#stallTimer = setInterval(() => this.#checkStall(), 1000);
    const streamOptions = { stream: { size, body }, signal: this.#abort.signal };
    this.upload = prepare()
      .then((options) => {
        this.#progressAt = performance.now();
        return s3.put(path, new Uint8Array(), { ...options, ...streamOptions });
      })
      .finally(() => this.#close());
    // Whoever finishes the frame hears of it.
    this.upload.catch(() => {});
  }

  write(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#isClosed) return;
    if (this.#lastChunk !== undefined) this.#enqueue(this.#lastChunk);
    this.#lastChunk = new Uint8Array(bytes);
  }

  #enqueue(bytes: Uint8Array): void {
    if (this.#isPullPending) {
      this.#isPullPending = false;
      this.#progressAt = performance.now();
      this.#controller.enqueue(bytes);
      return;
    }
    if (this.#queued.length === 0) this.#progressAt = performance.now();
    this.#queued.push(bytes);
    this.#pool.addInFlight(bytes.length);
  }

  #onPull(): void {
    this.#progressAt = performance.now();
    const next = this.#queued.shift();
    if (next === undefined) {
      if (this.#isEnded) this.#controller.close();
      else this.#isPullPending = true;
      return;
    }
    this.#pool.addInFlight(-next.length);
    this.#controller.enqueue(next);
  }

  #checkStall(): void {
    const waitsForEngine = this.#isEnded || this.#queued.length > 0;
    if (waitsForEngine && performance.now() - this.#progressAt > stallTimeoutMs)
      this.#abort.abort();
  }

  /** The frame is whole. */
  finish(): Promise<UploadResult> {
    if (this.#lastChunk !== undefined) this.#enqueue(this.#lastChunk);
    this.#lastChunk = undefined;
    this.#isEnded = true;
    if (this.#isPullPending && !this.#isClosed) this.#controller.close();
    return this.upload;
  }

  /** It never will be: the engine discards what is shorter than was said. */
  abort(): void {
    this.#abort.abort(new FramesError("stopped"));
    this.#close();
  }

  #close(): void {
    this.#isClosed = true;
    clearInterval(this.#stallTimer);
    for (const bytes of this.#queued.splice(0)) this.#pool.addInFlight(-bytes.length);
    this.#lastChunk = undefined;
  }
}
