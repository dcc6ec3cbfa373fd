/**
 * Limits the uploads to a bucket and the memory they use. Small frames are buffered until they are
 * complete. Large frames are streamed, except for their last chunk.
 */
import { ConcurrencyLimit } from "../../common/concurrency.ts";
import { collectGarbage } from "../../common/memory.ts";
import { FramesError } from "../../errors.ts";
import type { S3, UploadResult, UploadOptions } from "./s3.ts";

/** Larger frames are streamed, in bytes. */
export const maxBufferedFrameBytes = 8 << 20;

/** Objects written concurrently. */
const maxConcurrentUploads = 32;

/**
 * Bytes in progress above which the server stops reading from senders. It resumes at half of this.
 */
const maxInFlightBytes = 24 << 20;

/** Bytes of incomplete frames in memory above which further frames are streamed. */
const maxUnfinishedBytes = 64 << 20;

/** Bytes of a streamed frame after which those that were sent are released. */
const collectAfterBytes = 32 << 20;

/** Time without progress after which an upload is aborted, in milliseconds. */
const stallTimeoutMs = 12_000;

export class UploadPool {
  readonly bufferPool = new BufferPool();
  /** Lets uploads begin when there is a slot for them. */
  readonly uploads = new ConcurrencyLimit(maxConcurrentUploads);
  #inFlightBytes = 0;
  #unfinishedBytes = 0;
  #capacity: { promise: Promise<void>; resolve: () => void } | undefined;

  /** Reserves memory for an incomplete frame. Returns false if the frame must be streamed. */
  reserve(size: number): boolean {
    if (size > maxBufferedFrameBytes || this.#unfinishedBytes + size > maxUnfinishedBytes)
      return false;
    this.#unfinishedBytes += size;
    return true;
  }

  /** Releases the memory of a frame that is complete or discarded. */
  release(size: number): void {
    this.#unfinishedBytes -= size;
  }

  /**
   * Returns undefined while there is capacity, else a promise that resolves when there is some
   * again.
   */
  waitForCapacity(): Promise<void> | undefined {
    if (this.#capacity === undefined && this.#inFlightBytes > maxInFlightBytes) {
      this.#capacity = Promise.withResolvers<void>();
    }
    return this.#capacity?.promise;
  }

  /** Adds bytes in progress, or subtracts them if negative. */
  addInFlight(bytes: number): void {
    this.#inFlightBytes += bytes;
    if (this.#capacity === undefined || this.#inFlightBytes > maxInFlightBytes / 2) return;
    this.#capacity.resolve();
    this.#capacity = undefined;
  }
}

/**
 * Rounds a size up to a multiple of an eighth of the next power of two. Buffers of similar frames
 * then have equal sizes and can be reused.
 */
function capacityFor(size: number): number {
  const granule = Math.max(4096, 2 ** Math.ceil(Math.log2(size + 1)) / 8);
  return Math.ceil(size / granule) * granule;
}

/** Bytes of unused buffers that the pool keeps. */
const maxPooledBytes = 16 << 20;

/** Reuses buffers, because allocating memory costs as much as copying into it. */
class BufferPool {
  readonly #free = new Map<number, ArrayBuffer[]>();
  #bytes = 0;

  /** Returns a buffer of `size` bytes with arbitrary content. */
  acquire(size: number): Uint8Array<ArrayBuffer> {
    const capacity = capacityFor(size);
    const buffer = this.#free.get(capacity)?.pop();
    if (buffer === undefined) return new Uint8Array(new ArrayBuffer(capacity), 0, size);
    this.#bytes -= capacity;
    return new Uint8Array(buffer, 0, size);
  }

  /** Returns a buffer to the pool. */
  release({ buffer }: Uint8Array<ArrayBuffer>): void {
    const capacity = buffer.byteLength;
    if (this.#bytes + capacity > maxPooledBytes) {
      // Frees the memory now. The garbage collector would leave many MB of it unfreed.
      buffer.transfer(0);
      return;
    }
    this.#bytes += capacity;
    this.#free.getOrInsertComputed(capacity, () => []).push(buffer);
  }
}

/**
 * Upload of a frame while it arrives. The last chunk is sent only after `finish`, so that the
 * engine stores no incomplete frame.
 */
export class StreamUpload {
  readonly #pool: UploadPool;
  readonly #abort = new AbortController();
  readonly upload: Promise<UploadResult>;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #queued: Uint8Array[] = [];
  #lastChunk: Uint8Array | undefined;
  /** Bytes copied since the last collection of garbage. */
  #copiedBytes = 0;
  #isPullPending = false;
  #isEnded = false;
  #isClosed = false;
  /**
   * Time when the engine last took data, by `performance.now`. Reset when data is queued after a
   * pause.
   */
  #progressAt = performance.now();
  readonly #stallTimer: NodeJS.Timeout;

  /**
   * @param prepare resolves to the upload options when the upload may start; chunks are queued
   * until then
   */
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
    // The caller of `finish` receives the error.
    this.upload.catch(() => {});
  }

  write(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#isClosed) return;
    this.#copiedBytes += bytes.length;
    if (this.#copiedBytes >= collectAfterBytes) {
      collectGarbage(this.#copiedBytes);
      this.#copiedBytes = 0;
    }
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

  /** Sends the last chunk, because the frame is complete. */
  finish(): Promise<UploadResult> {
    if (this.#lastChunk !== undefined) this.#enqueue(this.#lastChunk);
    this.#lastChunk = undefined;
    this.#isEnded = true;
    if (this.#isPullPending && !this.#isClosed) this.#controller.close();
    return this.upload;
  }

  /** Aborts the upload. The engine discards a body shorter than the declared length. */
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
