/** Writes a frame to a bucket. */
import { checksumOf } from "../../common/checksum.ts";
import { FramesError } from "../../errors.ts";
import type { FrameDescription, SourceInfo, FrameWriter, Outcome } from "../../frame.ts";
import type { SessionLog } from "./session-log.ts";
import { mediaTypeOf } from "../../common/media-types.ts";
import { type LocalIndex, toLogSource } from "./local-index.ts";
import {
  conflictError,
  hasSameBytes,
  isEarlierVersion,
  isRepeated,
  existingOutcome,
  mayReplaceOthers,
  type StoredBytes,
  type StoredFrameInfo,
} from "../conflict.ts";
import type { S3, UploadResult, UploadOptions } from "./s3.ts";
import { frameFacts } from "../journal/schema.ts";
import { framePath } from "../paths.ts";
import type { UploadPlace } from "./upload-order.ts";
import { StreamUpload, type UploadPool } from "./upload-pool.ts";

/** Parts of the store that the writers of all frames share. */
export interface BucketContext {
  readonly s3: S3;
  readonly localIndex: LocalIndex;
  readonly uploadPool: UploadPool;
  /** Last unfinished frame of each path. Frames of one path are written one after the other. */
  readonly lastByPath: Map<string, Promise<unknown>>;
  /** Current time in nanoseconds since 1970. */
  now(): bigint;
  sessionLog(sourceInfo: SourceInfo): SessionLog;
}

/** Attempts to write an object that other nodes keep changing. */
const maxUploadAttempts = 10;

/** Size and ETag of an object. */
type ObjectHead = NonNullable<Awaited<ReturnType<S3["head"]>>>;

/** The object of one frame. */
export class FrameObject {
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

  /** Accounts for the number, because the frame gets no row but is not lost. */
  protected markAccounted(): void {
    const { sequence } = this.description;
    const log = this.context.sessionLog(this.sourceInfo);
    log.markAccounted(toLogSource(this.sourceInfo), sequence, sequence, this.context.now());
  }

  /**
   * Returns whether an object has the bytes of this frame. Compares the MD5 if `bytes` are in
   * memory, else reads the object.
   *
   * @throws {FramesError} `store`
   */
  protected async isSame(head: ObjectHead, crc: number, bytes?: Uint8Array): Promise<boolean> {
    if (head.size !== this.description.size) return false;
    if (bytes !== undefined && head.etag === md5(bytes)) return true;
    return (await this.readChecksum()) === crc;
  }

  /**
   * Reads the object and returns its CRC-32, or undefined if it is missing.
   *
   * @throws {FramesError} `store`
   */
  protected async readChecksum(): Promise<number | undefined> {
    const response = await this.context.s3.get(this.path, this.description.size);
    if (response === undefined) return undefined;
    try {
      return await checksumOf(response.body ?? []);
    } catch (error) {
      throw new FramesError("store", `Cannot read ${this.path} in the bucket`, { cause: error });
    }
  }

  /**
   * Returns the outcome of a frame whose name has a row in the journal.
   *
   * @throws {FramesError} `store`
   */
  async compareStored(stored: StoredFrameInfo, crc: number): Promise<Outcome> {
    const { sourceInfo, description } = this;
    const isOwn = isRepeated(stored, sourceInfo, description);
    if (!isOwn) this.markAccounted();
    return existingOutcome(sourceInfo, await this.#existingBytes(stored, crc), isOwn);
  }

  async #existingBytes(stored: StoredFrameInfo, crc: number): Promise<StoredBytes> {
    if (!hasSameBytes(stored, this.description, crc)) return "other";
    // The sender may have no other copy, so the object is read before it counts as stored.
    if (this.sourceInfo.verifyStored !== true) return "same";
    const found = await this.readChecksum();
    if (found === undefined) return "gone";
    return found === crc ? "same" : "other";
  }
}

/** Writer for a frame that is uploaded. */
export class BucketFrameWriter extends FrameObject implements FrameWriter {
  /** Version of the local index when the name had no row; -1 if it had one. */
  readonly #indexVersion: number;
  #bytes: Uint8Array<ArrayBuffer> | undefined;
  #written = 0;
  #isBuffered = false;
  #stream: StreamUpload | undefined;
  /** Session log in which this upload is announced. */
  #log: SessionLog | undefined;
  /** Place among the uploads of its source. */
  #place: UploadPlace | undefined;
  /** Lets the next frame of the same path start. */
  #releasePath: (() => void) | undefined;

  /** @param isNew whether the journal has no frame of this name */
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

  /** Waits until a streamed upload may start, and returns its condition. */
  async #options(): Promise<UploadOptions> {
    await this.#waitForPath();
    return {
      ...this.#type,
      condition: this.#mayReplace() ? await this.#replaceCondition() : "new",
    };
  }

  get #type(): { type: string } {
    return { type: mediaTypeOf(this.description.name) };
  }

  /** Waits for the previous frame of the same path. */
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
    const { stream, source } = this.sourceInfo;
    this.#log = this.context.sessionLog(this.sourceInfo);
    this.#log.beginUpload();
    this.#place = this.#log.uploadOrder.join(framePath(stream, source, ""));
    try {
      return await (this.#stream === undefined
        ? this.#store(crc)
        : this.#finishStream(this.#stream, crc));
    } catch (error) {
      this.#place.fail(error);
      throw error;
    } finally {
      this.#place.leave();
      this.#endUpload();
      this.#releasePath?.();
    }
  }

  /** Ends the announced upload in the session log. */
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
      upload = await uploadPool.uploads.run(() => this.#put(bytes, crc));
      // Not released after an error, because an aborted request may still read the buffer.
      uploadPool.bufferPool.release(bytes);
    } finally {
      uploadPool.addInFlight(-size);
    }
    if (typeof upload === "string" || upload instanceof FramesError) return upload;
    return this.#record(upload.etag, crc, upload.outcome);
  }

  /**
   * Records the frame in the session log after its upload, behind the earlier frames of its source.
   * Resolves when its log object is written.
   */
  async #record(etag: string, crc: number, outcome: "stored" | "present"): Promise<Outcome> {
    await this.#place!.turn;
    const facts = frameFacts(this.description, crc, this.context.now());
    const logSource = toLogSource(this.sourceInfo);
    const added = this.#log!.add({ kind: "frame", logSource, etag, ...facts }, facts.bytes);
    this.#place!.leave();
    this.#endUpload();
    await added;
    return outcome;
  }

  /** Returns whether the frame may replace the stored one, as far as the local index knows. */
  #mayReplace(): boolean {
    const { sourceInfo } = this;
    if (sourceInfo.conflict !== "replace" && sourceInfo.replacesOwn !== true) return false;
    const stored = this.#stored();
    if (stored === null) return sourceInfo.conflict === "replace";
    if (isEarlierVersion(stored, sourceInfo, this.description)) return true;
    return mayReplaceOthers(stored, sourceInfo);
  }

  #stored(): StoredFrameInfo | null {
    // A query would double the cost of a small frame. It is skipped while the index is unchanged.
    if (this.#indexVersion === this.context.localIndex.version) return null;
    const { stream, source } = this.sourceInfo;
    return this.context.localIndex.find(stream, source, this.description.name);
  }

  /** Returns the upload condition for replacing the object that exists now, or for creating it. */
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
      // Another sender stored the frame first. With `resendRemoved` it is uploaded again, because
      // the object may have been moved away.
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
    throw new FramesError("store", `Cannot store ${this.path}: other servers keep changing it`);
  }

  /**
   * Returns the outcome for an object that already has these bytes. An earlier attempt, another
   * node or a killed process wrote it.
   */
  async #existingResult(etag: string, crc: number, isOwn: boolean) {
    const stored = this.#stored();
    if (stored !== null && hasSameBytes(stored, this.description, crc))
      return this.compareStored(stored, crc);
    return { etag, outcome: isOwn ? ("stored" as const) : ("present" as const) };
  }

  /**
   * Returns whether the engine stored the bytes that were sent. Only an insecure transport needs
   * the check. The ETag of a plain object is its MD5; that of an encrypted object is not, so the
   * object is read. A wrong object is removed.
   *
   * @throws {FramesError} `store`
   */
  async #isIntact(etag: string, bytes: Uint8Array, crc: number): Promise<boolean> {
    if (this.context.s3.isSecureTransport) return true;
    if (etag === md5(bytes) || (await this.readChecksum()) === crc) return true;
    await this.context.s3.remove(this.path);
    return false;
  }

  /**
   * Ends a streamed upload and returns its outcome.
   *
   * @throws {FramesError} `store`
   */
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
      throw new FramesError(
        "store",
        `Cannot store ${this.path}: another server changed it at the same time`,
      );
    }
    this.markAccounted();
    return conflictError();
  }
}

function md5(bytes: Uint8Array): string {
  return Bun.CryptoHasher.hash("md5", bytes, "hex");
}
