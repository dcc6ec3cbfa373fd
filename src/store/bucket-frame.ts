/** A frame on its way into a bucket. */
import { crc32 } from "node:zlib";
import { FramesError } from "../errors.ts";
import type { FrameDescription, FrameOrigin, FrameWriter, Outcome } from "../frame.ts";
import type { Chain } from "./chain.ts";
import { typeOf } from "./image-type.ts";
import type { StoredFrame } from "./journal.ts";
import { type Mirror, originOf } from "./mirror.ts";
import { conflict, isAnothers, isRevised, isSame } from "./partial.ts";
import type { S3, Upload, UploadOptions } from "./s3.ts";
import { pathOfFrame } from "./tree.ts";
import { StreamedUpload, type Uploads } from "./uploads.ts";

/** What the frames of a bucket share. */
export interface BucketParts {
  readonly s3: S3;
  readonly mirror: Mirror;
  readonly uploads: Uploads;
  /** The last frame under way of each path. */
  readonly underWay: Map<string, Promise<unknown>>;
  /** Nanoseconds since 1970. */
  now(): bigint;
  chainOf(session: string): Chain;
}

/** Others may change an object so often while it is to be written. */
const mostTries = 10;

/** Bytes of what an object was found to have. */
type Lies = NonNullable<Awaited<ReturnType<S3["head"]>>>;

abstract class Writer {
  protected readonly parts: BucketParts;
  protected readonly origin: FrameOrigin;
  protected readonly description: FrameDescription;
  protected readonly path: string;

  constructor(parts: BucketParts, origin: FrameOrigin, description: FrameDescription) {
    this.parts = parts;
    this.origin = origin;
    this.description = description;
    this.path = pathOfFrame(origin.stream, origin.source, description.name);
  }

  /** The frame gets no row, and is not lost either: only what is shown of gaps depends on it. */
  protected account(): void {
    const { sequence } = this.description;
    const origin = originOf(this.origin);
    const chain = this.parts.chainOf(this.origin.session);
    const added = chain.add({
      kind: "account",
      origin,
      first: sequence,
      last: sequence,
      at: this.parts.now(),
    });
    added.catch(() => {});
  }

  /** Whether an object has these bytes, which are perhaps here. */
  protected async isSame(lies: Lies, crc: number, bytes?: Uint8Array): Promise<boolean> {
    if (lies.size !== this.description.size) return false;
    if (bytes !== undefined && lies.etag === md5(bytes)) return true;
    return (await this.checksum()) === crc;
  }

  /** CRC-32 of what lies in the bucket. */
  protected async checksum(): Promise<number | undefined> {
    const response = await this.parts.s3.get(this.path, this.description.size);
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
  protected async compare(stored: StoredFrame, crc: number): Promise<Outcome> {
    const { origin, description } = this;
    const isOwn = stored.session === origin.session && stored.seq === description.sequence;
    if (!isOwn) this.account();
    if (!isSame(stored, description, crc)) return conflict();
    // Its sender may have no other copy.
    if (origin.durable === true && (await this.checksum()) !== crc) return conflict();
    return "present";
  }
}

/** A frame whose name is in the journal: nothing is written, only compared. */
export class KnownFrameWriter extends Writer implements FrameWriter {
  readonly #stored: StoredFrame;

  constructor(
    parts: BucketParts,
    origin: FrameOrigin,
    description: FrameDescription,
    stored: StoredFrame,
  ) {
    super(parts, origin, description);
    this.#stored = stored;
  }

  write(): void {}

  finish(crc: number): Promise<Outcome> {
    return this.compare(this.#stored, crc);
  }

  discard(): void {}
}

/** A frame that is written. */
export class BucketFrame extends Writer implements FrameWriter {
  /** What the journal had when it said that nothing has this name; -1 if something has. */
  readonly #versionBefore: number;
  #bytes: Uint8Array<ArrayBuffer> | undefined;
  #written = 0;
  #isHeld = false;
  #stream: StreamedUpload | undefined;
  /** The chain that waits for it. */
  #chain: Chain | undefined;
  /** Ends the turn of this frame among those of the same path. */
  #ended: (() => void) | undefined;

  /** @param isNew whether the journal says that nothing has this name */
  constructor(
    parts: BucketParts,
    origin: FrameOrigin,
    description: FrameDescription,
    isNew: boolean,
  ) {
    super(parts, origin, description);
    this.#versionBefore = isNew ? parts.mirror.version : -1;
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
    const { parts, path } = this;
    this.#isHeld = parts.uploads.hold(size);
    if (this.#isHeld) this.#bytes = parts.uploads.spares.take(size);
    else
      this.#stream = new StreamedUpload(parts.uploads, parts.s3, path, size, () => this.#options());
  }

  /** When a frame that is sent on as it comes may begin, and on which condition. */
  async #options(): Promise<UploadOptions> {
    await this.#turn();
    return { ...this.#type, only: this.#mayReplace() ? await this.#place() : "new" };
  }

  get #type(): { type: string } {
    return { type: typeOf(this.description.name) };
  }

  /** Waits for the frame before that has the same path. */
  async #turn(): Promise<void> {
    const { underWay } = this.parts;
    const before = underWay.get(this.path);
    const { promise, resolve } = Promise.withResolvers<void>();
    underWay.set(this.path, promise);
    this.#ended = () => {
      if (underWay.get(this.path) === promise) underWay.delete(this.path);
      resolve();
    };
    if (before !== undefined) await before;
  }

  discard(): void {
    this.#letGo();
    if (this.#bytes !== undefined) this.parts.uploads.spares.give(this.#bytes);
    this.#bytes = undefined;
    this.#stream?.abort();
    this.#ended?.();
  }

  #letGo(): void {
    if (this.#isHeld) this.parts.uploads.letGo(this.description.size);
    this.#isHeld = false;
  }

  async finish(crc: number): Promise<Outcome> {
    this.#letGo();
    this.#chain = this.parts.chainOf(this.origin.session);
    this.#chain.begin();
    try {
      return await (this.#stream === undefined ? this.#store(crc) : this.#end(this.#stream, crc));
    } finally {
      this.#hasUploaded();
      this.#ended?.();
    }
  }

  /** The chain need not wait for it any more. */
  #hasUploaded(): void {
    this.#chain?.end();
    this.#chain = undefined;
  }

  async #store(crc: number): Promise<Outcome> {
    const { uploads } = this.parts;
    const { size } = this.description;
    const bytes = this.#bytes ?? uploads.spares.take(0);
    this.#bytes = undefined;
    uploads.charge(size);
    let upload: Outcome | { etag: string; outcome: "stored" | "present" };
    try {
      await this.#turn();
      upload = await uploads.inTurn(() => this.#put(bytes, crc));
      // Of a request that was given up nobody knows whether it still reads them.
      uploads.spares.give(bytes);
    } finally {
      uploads.charge(-size);
    }
    if (typeof upload === "string" || upload instanceof FramesError) return upload;
    return this.#record(upload.etag, crc, upload.outcome);
  }

  /** The frame is in the bucket: its row goes into the journal. */
  async #record(etag: string, crc: number, outcome: "stored" | "present"): Promise<Outcome> {
    const { name, sequence: seq, size: bytes, captured, metadata } = this.description;
    const chain = this.parts.chainOf(this.origin.session);
    const meta = metadata === "" ? null : metadata;
    const origin = originOf(this.origin);
    const received = this.parts.now();
    const added = chain.add(
      { kind: "frame", origin, name, seq, bytes, crc32: crc, captured, received, etag, meta },
      bytes,
    );
    this.#hasUploaded();
    await added;
    return outcome;
  }

  /** Whether what is stored may be replaced, as far as is known. */
  #mayReplace(): boolean {
    const { origin } = this;
    if (origin.conflict !== "replace" && origin.revises !== true) return false;
    const stored = this.#stored();
    if (stored === null) return origin.conflict === "replace";
    if (isRevised(stored, origin, this.description)) return true;
    return origin.conflict === "replace" && !isAnothers(stored, origin);
  }

  #stored(): StoredFrame | null {
    // Asking costs as much as all else that is done for a small frame here.
    if (this.#versionBefore === this.parts.mirror.version) return null;
    const { stream, source } = this.origin;
    return this.parts.mirror.find(stream, source, this.description.name);
  }

  /** The condition on which the object there now is replaced, if there is one. */
  async #place(): Promise<"new" | { etag: string }> {
    const lies = await this.parts.s3.head(this.path);
    return lies === undefined ? "new" : { etag: lies.etag };
  }

  async #put(
    bytes: Uint8Array,
    crc: number,
  ): Promise<Outcome | { etag: string; outcome: "stored" | "present" }> {
    const { s3 } = this.parts;
    for (let tries = 0; tries < mostTries; tries++) {
      const stored = this.#stored();
      const mayReplace = this.#mayReplace();
      // Another sender was first; what was moved away since may come again.
      if (stored !== null && !mayReplace && this.origin.again !== true)
        return this.compare(stored, crc);
      let only: UploadOptions["only"] = "new";
      if (mayReplace) {
        const lies = await s3.head(this.path);
        if (lies !== undefined) {
          if (await this.isSame(lies, crc, bytes)) return this.#isThere(lies.etag, crc, false);
          only = { etag: lies.etag };
        }
      }
      const upload = await s3.put(this.path, bytes, { ...this.#type, only });
      if (upload.outcome === "stored") {
        if (await this.#isIntact(upload.etag, bytes, crc)) return upload;
        continue;
      }
      const lies = await s3.head(this.path);
      if (lies === undefined) continue;
      if (await this.isSame(lies, crc, bytes)) return this.#isThere(lies.etag, crc, upload.isOwn);
      if (mayReplace) continue;
      this.account();
      return conflict();
    }
    throw new FramesError("store", `Cannot store ${this.path}: others change it again and again`);
  }

  /** The bytes are there already: by a try of our own, by another node, or by one that was killed. */
  async #isThere(etag: string, crc: number, isOwn: boolean) {
    const stored = this.#stored();
    if (stored !== null && isSame(stored, this.description, crc)) return this.compare(stored, crc);
    return { etag, outcome: isOwn ? ("stored" as const) : ("present" as const) };
  }

  /**
   * Whether the engine has what was sent to it, where nothing else would have found a flipped bit: of a plain
   * object the ETag is the MD5, of an encrypted one it is not, and then the object is read. One that is wrong is
   * removed again.
   */
  async #isIntact(etag: string, bytes: Uint8Array, crc: number): Promise<boolean> {
    if (this.parts.s3.isSafeWay) return true;
    if (etag === md5(bytes) || (await this.checksum()) === crc) return true;
    await this.parts.s3.remove(this.path);
    return false;
  }

  /** The end of a frame that was sent on as it came. */
  async #end(stream: StreamedUpload, crc: number): Promise<Outcome> {
    const upload: Upload = await stream.finish();
    if (upload.outcome === "stored") return this.#record(upload.etag, crc, "stored");
    const stored = this.#stored();
    if (stored !== null && !this.#mayReplace()) return this.compare(stored, crc);
    const lies = await this.parts.s3.head(this.path);
    if (lies !== undefined && (await this.isSame(lies, crc))) {
      const there = await this.#isThere(lies.etag, crc, false);
      if (typeof there === "string" || there instanceof FramesError) return there;
      return this.#record(there.etag, crc, "present");
    }
    if (lies === undefined || this.#mayReplace()) {
      throw new FramesError("store", `Cannot store ${this.path}: others changed it meanwhile`);
    }
    this.account();
    return conflict();
  }
}

function md5(bytes: Uint8Array): string {
  return Bun.CryptoHasher.hash("md5", bytes, "hex");
}
