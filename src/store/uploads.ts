/**
 * Frames on their way into a bucket: many at a time, and no more bytes of them in memory than there is room
 * for. Small ones are held until they are whole; large ones go on as they come, all but their last bytes.
 */
import { FramesError } from "../errors.ts";
import type { S3, Upload, UploadOptions } from "./s3.ts";

/** Larger frames are sent on as they come. */
export const largestHeld = 8 << 20;

/** Objects that are written at the same time. */
const mostAtOnce = 32;

/** With more bytes under way nothing more is read from senders; they read on when it is half of that. */
const mostUnderWay = 24 << 20;

/** With more bytes of unfinished frames in memory, others are sent on as they come, like large ones. */
const mostUnfinished = 64 << 20;

/** An engine that takes nothing for so long, in milliseconds, has stopped. */
const stallAfter = 12_000;

export class Uploads {
  readonly spares = new Spares();
  readonly #s3: S3;
  #running = 0;
  readonly #queue: (() => void)[] = [];
  #underWay = 0;
  #unfinished = 0;
  #room: { promise: Promise<void>; resolve: () => void } | undefined;
  #idle: (() => void)[] = [];

  constructor(s3: S3) {
    this.#s3 = s3;
  }

  /** Whether another frame of this size may be held in memory until it is whole; then it is charged. */
  hold(size: number): boolean {
    if (size > largestHeld || this.#unfinished + size > mostUnfinished) return false;
    this.#unfinished += size;
    return true;
  }

  /** It is whole, or will never be. */
  letGo(size: number): void {
    this.#unfinished -= size;
  }

  /** Nothing while there is room; else what is settled when there is some again. */
  room(): Promise<void> | undefined {
    if (this.#room === undefined && this.#underWay > mostUnderWay) {
      this.#room = Promise.withResolvers<void>();
    }
    return this.#room?.promise;
  }

  /** So many bytes more, or less, are under way. */
  charge(bytes: number): void {
    this.#underWay += bytes;
    if (this.#room === undefined || this.#underWay > mostUnderWay / 2) return;
    this.#room.resolve();
    this.#room = undefined;
  }

  /** Stores a frame, when it is its turn. */
  async put(path: string, bytes: Uint8Array, options: UploadOptions): Promise<Upload> {
    return this.inTurn(() => this.#s3.put(path, bytes, options));
  }

  /** Does something with the bucket, when it is its turn. */
  async inTurn<T>(act: () => Promise<T>): Promise<T> {
    if (this.#running >= mostAtOnce)
      await new Promise<void>((resolve) => this.#queue.push(resolve));
    else this.#running++;
    try {
      return await act();
    } finally {
      const next = this.#queue.shift();
      if (next !== undefined) next();
      else if (--this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve();
    }
  }

  /** Settled when nothing is under way. */
  async finished(): Promise<void> {
    if (this.#running > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
}

/** Sizes of the memory that frames are gathered in are multiples of an eighth of the next power of two. */
function capacityFor(size: number): number {
  const granule = Math.max(4096, 2 ** Math.ceil(Math.log2(size + 1)) / 8);
  return Math.ceil(size / granule) * granule;
}

/** Bytes of memory that wait for the next frames. */
const mostSpare = 16 << 20;

/** Memory that is used again: fresh memory costs as much as copying into it. */
class Spares {
  readonly #free = new Map<number, ArrayBuffer[]>();
  #bytes = 0;

  /** So many bytes, whatever is in them. */
  take(size: number): Uint8Array<ArrayBuffer> {
    const capacity = capacityFor(size);
    const spare = this.#free.get(capacity)?.pop();
    if (spare === undefined) return new Uint8Array(new ArrayBuffer(capacity), 0, size);
    this.#bytes -= capacity;
    return new Uint8Array(spare, 0, size);
  }

  /** They are needed no more. */
  give({ buffer }: Uint8Array<ArrayBuffer>): void {
    const capacity = buffer.byteLength;
    if (this.#bytes + capacity > mostSpare) {
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
export class StreamedUpload {
  readonly #uploads: Uploads;
  readonly #aborted = new AbortController();
  readonly upload: Promise<Upload>;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #queued: Uint8Array[] = [];
  #last: Uint8Array | undefined;
  #wants = false;
  #isEnded = false;
  #isClosed = false;
  /** When the engine took something, or had nothing to wait for. */
  #movedAt = performance.now();
  readonly #watch: NodeJS.Timeout;

  /** @param begin tells when it may begin, and on which condition; what comes before that is kept */
  constructor(
    uploads: Uploads,
    s3: S3,
    path: string,
    size: number,
    begin: () => Promise<UploadOptions>,
  ) {
    this.#uploads = uploads;
    const body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.#controller = controller),
        pull: () => this.#pulled(),
      },
      { highWaterMark: 0 },
    );
    this.#watch = setInterval(() => this.#look(), 1000);
    const more = { stream: { size, body }, signal: this.#aborted.signal };
    this.upload = begin()
      .then((options) => {
        this.#movedAt = performance.now();
        return s3.put(path, new Uint8Array(), { ...options, ...more });
      })
      .finally(() => this.#close());
    // Whoever finishes the frame hears of it.
    this.upload.catch(() => {});
  }

  write(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#isClosed) return;
    if (this.#last !== undefined) this.#pass(this.#last);
    this.#last = new Uint8Array(bytes);
  }

  #pass(bytes: Uint8Array): void {
    if (this.#wants) {
      this.#wants = false;
      this.#movedAt = performance.now();
      this.#controller.enqueue(bytes);
      return;
    }
    if (this.#queued.length === 0) this.#movedAt = performance.now();
    this.#queued.push(bytes);
    this.#uploads.charge(bytes.length);
  }

  #pulled(): void {
    this.#movedAt = performance.now();
    const next = this.#queued.shift();
    if (next === undefined) {
      if (this.#isEnded) this.#controller.close();
      else this.#wants = true;
      return;
    }
    this.#uploads.charge(-next.length);
    this.#controller.enqueue(next);
  }

  #look(): void {
    const waitsForEngine = this.#isEnded || this.#queued.length > 0;
    if (waitsForEngine && performance.now() - this.#movedAt > stallAfter) this.#aborted.abort();
  }

  /** The frame is whole. */
  finish(): Promise<Upload> {
    if (this.#last !== undefined) this.#pass(this.#last);
    this.#last = undefined;
    this.#isEnded = true;
    if (this.#wants && !this.#isClosed) this.#controller.close();
    return this.upload;
  }

  /** It never will be: the engine discards what is shorter than was said. */
  abort(): void {
    this.#aborted.abort(new FramesError("stopped"));
    this.#close();
  }

  #close(): void {
    this.#isClosed = true;
    clearInterval(this.#watch);
    for (const bytes of this.#queued.splice(0)) this.#uploads.charge(-bytes.length);
    this.#last = undefined;
  }
}
