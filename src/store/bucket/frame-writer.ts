/** A frame on its way into a bucket. */
import { crc32 } from "node:zlib";
import { FramesError } from "../../errors.ts";
import type { FrameDescription, SourceInfo, FrameWriter, Outcome } from "../../frame.ts";
import type { SessionLog } from "./session-log.ts";
import { imageMediaType } from "./image-type.ts";
import { type LocalIndex, toLogSource } from "./local-index.ts";
import {
  conflictError,
  hasOtherKey,
  isEarlierVersion,
  hasSameBytes,
  type StoredFrameInfo,
} from "../conflict.ts";
import type { S3, UploadResult, UploadOptions } from "./s3.ts";
import { framePath } from "../paths.ts";
import { StreamUpload, type UploadPool } from "./upload-pool.ts";

/** What the frames of a bucket share. */
export interface BucketContext {
  readonly s3: S3;
  readonly localIndex: LocalIndex;
  readonly uploadPool: UploadPool;
  /** The last frame under way of each path. */
  readonly lastByPath: Map<string, Promise<unknown>>;
  /** Nanoseconds since 1970. */
  now(): bigint;
  sessionLog(session: string): SessionLog;
}

/** Others may change an object so often while it is to be written. */
const maxUploadAttempts = 10;

/** Bytes of what an object was found to have. */
type ObjectHead = NonNullable<Awaited<ReturnType<S3["head"]>>>;

abstract class BucketWriter {
  protected readonly context: BucketContext;
  protected readonly sourceInfo: SourceInfo;
  protected readonly description: FrameDescription;
  protected readonly path: string;

  constructor(context: BucketContext, sourceInfo: SourceInfo, description: FrameDescription) {
    this.context = context;
    this.sourceInfo = sourceInfo;
    this.description = description;
    this.path = framePath(sourceInfo.stream, sourceInfo.source, description.name);
  }

  /** The frame gets no row, and is not lost either: only what is shown of gaps depends on it. */
  protected markAccounted(): void {
    const { sequence } = this.description;
    const logSource = toLogSource(this.sourceInfo);
    const log = this.context.sessionLog(this.sourceInfo.session);
    const added = log.add({
      kind: "account",
      logSource,
      first: sequence,
      last: sequence,
      at: this.context.now(),
    });
    added.catch(() => {});
  }

  /** Whether an object has these bytes, which are perhaps here. */
  protected async isSame(head: ObjectHead, crc: number, bytes?: Uint8Array): Promise<boolean> {
    if (head.size !== this.description.size) return false;
    if (bytes !== undefined && head.etag === md5(bytes)) return true;
    return (await this.readChecksum()) === crc;
  }

  /** CRC-32 of what lies in the bucket. */
  protected async readChecksum(): Promise<number | undefined> {
    const response = await this.context.s3.get(this.path, this.description.size);
    if (response === undefined) return undefined;
    let crc = 0;
    try {
      for await (const chunk of response.body ?? []) crc = crc32(chunk, crc);
    } catch (error) {
      throw new FramesError("store", `Cannot read ${this.path} in the bucket`, { cause: error });
    }
    return crc;
  }

  /** What comes of a frame whose name is taken by one in the journal. */
  protected async compareStored(stored: StoredFrameInfo, crc: number): Promise<Outcome> {
    const { sourceInfo, description } = this;
    const isOwn = stored.session === sourceInfo.session && stored.seq === description.sequence;
    if (!isOwn) this.markAccounted();
    if (!hasSameBytes(stored, description, crc)) return conflictError();
    // Its sender may have no other copy.
    if (sourceInfo.durable === true && (await this.readChecksum()) !== crc) return conflictError();
    return "present";
  }
}

/** A frame whose name is in the journal: nothing is written, only compared. */
export class ExistingObjectWriter extends BucketWriter implements FrameWriter {
  readonly #stored: StoredFrameInfo;

  constructor(
    context: BucketContext,
    sourceInfo: SourceInfo,
    description: FrameDescription,
    stored: StoredFrameInfo,
  ) {
    super(context, sourceInfo, description);
    this.#stored = stored;
  }

  write(): void {}

  finish(crc: number): Promise<Outcome> {
    return this.compareStored(this.#stored, crc);
  }

  discard(): void {}
}

/** A frame that is written. */
export class BucketFrameWriter extends BucketWriter implements FrameWriter {
  /** What the journal had when it said that nothing has this name; -1 if something has. */
  readonly #indexVersion: number;
  #bytes: Uint8Array<ArrayBuffer> | undefined;
  #written = 0;
  #isBuffered = false;
  #stream: StreamUpload | undefined;
  /** The chain that waits for it. */
  #log: SessionLog | undefined;
  /** Ends the turn of this frame among those of the same path. */
  #releasePath: (() => void) | undefined;

  /** @param isNew whether the journal says that nothing has this name */
  constructor(
    context: BucketContext,
    sourceInfo: SourceInfo,
    description: FrameDescription,
    isNew: boolean,
  ) {
    super(context, sourceInfo, description);
    this.#indexVersion = isNew ? context.localIndex.version : -1;
  }

  write(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const { size } = this.description;
    if (this.#written === 0) this.#begin(size);
    if (this.#stream !== undefined) this.#stream.write(bytes);
    else this.#bytes!.set(bytes, this.#written);
    this.#written += bytes.length;
  }

  #begin(size: number): void {
    const { context, path } = this;
    this.#isBuffered = context.uploadPool.reserve(size);
    if (this.#isBuffered) this.#bytes = context.uploadPool.bufferPool.acquire(size);
    else
      this.#stream = new StreamUpload(context.uploadPool, context.s3, path, size, () =>
        this.#options(),
      );
  }

  /** When a frame that is sent on as it comes may begin, and on which condition. */
  async #options(): Promise<UploadOptions> {
    await this.#waitForPath();
    return {
      ...this.#type,
      condition: this.#mayReplace() ? await this.#replaceCondition() : "new",
    };
  }

  get #type(): { type: string } {
    return { type: imageMediaType(this.description.name) };
  }

  /** Waits for the frame before that has the same path. */
  async #waitForPath(): Promise<void> {
    const { lastByPath } = this.context;
    const previous = lastByPath.get(this.path);
    const { promise, resolve } = Promise.withResolvers<void>();
    lastByPath.set(this.path, promise);
    this.#releasePath = () => {
      if (lastByPath.get(this.path) === promise) lastByPath.delete(this.path);
      resolve();
    };
    if (previous !== undefined) await previous;
  }

  discard(): void {
    this.#releaseReservation();
    if (this.#bytes !== undefined) this.context.uploadPool.bufferPool.release(this.#bytes);
    this.#bytes = undefined;
    this.#stream?.abort();
    this.#releasePath?.();
  }

  #releaseReservation(): void {
    if (this.#isBuffered) this.context.uploadPool.release(this.description.size);
    this.#isBuffered = false;
  }

  async finish(crc: number): Promise<Outcome> {
    this.#releaseReservation();
    this.#log = this.context.sessionLog(this.sourceInfo.session);
    this.#log.beginUpload();
    try {
      return await (this.#stream === undefined
        ? this.#store(crc)
        : this.#finishStream(this.#stream, crc));
    } finally {
      this.#endUpload();
      this.#releasePath?.();
    }
  }

  /** The chain need not wait for it any more. */
  #endUpload(): void {
    this.#log?.endUpload();
    this.#log = undefined;
  }

  async #store(crc: number): Promise<Outcome> {
    const { uploadPool } = this.context;
    const { size } = this.description;
    const bytes = this.#bytes ?? uploadPool.bufferPool.acquire(0);
    this.#bytes = undefined;
    uploadPool.addInFlight(size);
    let upload: Outcome | { etag: string; outcome: "stored" | "present" };
    try {
      await this.#waitForPath();
      upload = await uploadPool.runLimited(() => this.#put(bytes, crc));
      // Of a request that was given up nobody knows whether it still reads them.
      uploadPool.bufferPool.release(bytes);
    } finally {
      uploadPool.addInFlight(-size);
    }
    if (typeof upload === "string" || upload instanceof FramesError) return upload;
    return this.#record(upload.etag, crc, upload.outcome);
  }

  /** The frame is in the bucket: its row goes into the journal. */
  async #record(etag: string, crc: number, outcome: "stored" | "present"): Promise<Outcome> {
    const { name, sequence: seq, size: bytes, captured, metadata } = this.description;
    const log = this.context.sessionLog(this.sourceInfo.session);
    const meta = metadata === "" ? null : metadata;
    const logSource = toLogSource(this.sourceInfo);
    const received = this.context.now();
    const added = log.add(
      { kind: "frame", logSource, name, seq, bytes, crc32: crc, captured, received, etag, meta },
      bytes,
    );
    this.#endUpload();
    await added;
    return outcome;
  }

  /** Whether what is stored may be replaced, as far as is known. */
  #mayReplace(): boolean {
    const { sourceInfo } = this;
    if (sourceInfo.conflict !== "replace" && sourceInfo.replacesOwn !== true) return false;
    const stored = this.#stored();
    if (stored === null) return sourceInfo.conflict === "replace";
    if (isEarlierVersion(stored, sourceInfo, this.description)) return true;
    return sourceInfo.conflict === "replace" && !hasOtherKey(stored, sourceInfo);
  }

  #stored(): StoredFrameInfo | null {
    // Asking costs as much as all else that is done for a small frame here.
    if (this.#indexVersion === this.context.localIndex.version) return null;
    const { stream, source } = this.sourceInfo;
    return this.context.localIndex.find(stream, source, this.description.name);
  }

  /** The condition on which the object there now is replaced, if there is one. */
  async #replaceCondition(): Promise<"new" | { etag: string }> {
    const head = await this.context.s3.head(this.path);
    return head === undefined ? "new" : { etag: head.etag };
  }

  async #put(
    bytes: Uint8Array,
    crc: number,
  ): Promise<Outcome | { etag: string; outcome: "stored" | "present" }> {
    const { s3 } = this.context;
    for (let attempt = 0; attempt < maxUploadAttempts; attempt++) {
      const stored = this.#stored();
      const mayReplace = this.#mayReplace();
      // Another sender was first; what was moved away since may come again.
      if (stored !== null && !mayReplace && this.sourceInfo.resendRemoved !== true)
        return this.compareStored(stored, crc);
      let condition: UploadOptions["condition"] = "new";
      if (mayReplace) {
        const head = await s3.head(this.path);
        if (head !== undefined) {
          if (await this.isSame(head, crc, bytes))
            return this.#existingResult(head.etag, crc, false);
          condition = { etag: head.etag };
        }
      }
      const upload = await s3.put(this.path, bytes, { ...this.#type, condition });
      if (upload.outcome === "stored") {
        if (await this.#isIntact(upload.etag, bytes, crc)) return upload;
        continue;
      }
      const head = await s3.head(this.path);
      if (head === undefined) continue;
      if (await this.isSame(head, crc, bytes))
        return this.#existingResult(head.etag, crc, upload.isOwn);
      if (mayReplace) continue;
      this.markAccounted();
      return conflictError();
    }
    throw new FramesError("store", `Cannot store ${this.path}: others change it again and again`);
  }

  /** The bytes are there already: by a try of our own, by another node, or by one that was killed. */
  async #existingResult(etag: string, crc: number, isOwn: boolean) {
    const stored = this.#stored();
    if (stored !== null && hasSameBytes(stored, this.description, crc))
      return this.compareStored(stored, crc);
    return { etag, outcome: isOwn ? ("stored" as const) : ("present" as const) };
  }

  /**
   * Whether the engine has what was sent to it, where nothing else would have found a flipped bit: of a plain
   * object the ETag is the MD5, of an encrypted one it is not, and then the object is read. One that is wrong is
   * removed again.
   */
  async #isIntact(etag: string, bytes: Uint8Array, crc: number): Promise<boolean> {
    if (this.context.s3.isSecureTransport) return true;
    if (etag === md5(bytes) || (await this.readChecksum()) === crc) return true;
    await this.context.s3.remove(this.path);
    return false;
  }

  /** The end of a frame that was sent on as it came. */
  async #finishStream(stream: StreamUpload, crc: number): Promise<Outcome> {
    const upload: UploadResult = await stream.finish();
    if (upload.outcome === "stored") return this.#record(upload.etag, crc, "stored");
    const stored = this.#stored();
    if (stored !== null && !this.#mayReplace()) return this.compareStored(stored, crc);
    const head = await this.context.s3.head(this.path);
    if (head !== undefined && (await this.isSame(head, crc))) {
      const existing = await this.#existingResult(head.etag, crc, false);
      if (typeof existing === "string" || existing instanceof FramesError) return existing;
      return this.#record(existing.etag, crc, "present");
    }
    if (head === undefined || this.#mayReplace()) {
      throw new FramesError("store", `Cannot store ${this.path}: others changed it meanwhile`);
    }
    this.markAccounted();
    return conflictError();
  }
}

function md5(bytes: Uint8Array): string {
  return Bun.CryptoHasher.hash("md5", bytes, "hex");
}
