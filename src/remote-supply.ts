/** What a client is to get of a store that is far away: small frames are fetched before it is their turn. */
import { crc32 } from "node:zlib";
import { FramesError } from "./errors.ts";
import type { Frame } from "./frame.ts";
import type { Supplied, SuppliedFrame, Supply } from "./session/supply.ts";
import type { KeptFrame } from "./store/catalog.ts";
import type { KeptFrames } from "./store/kept.ts";
import type { StoredFrame } from "./stored-frame.ts";
import { largestPackedFrame } from "./wire/encode.ts";

/** Gives the answer with a frame's bytes, or nothing if it is not there. */
type Fetch = NonNullable<KeptFrames["fetch"]>;

/** Frames of one client that are fetched ahead, and their bytes. */
const mostAhead = 16;
const mostBytes = 8 << 20;

/** Bytes of a large frame that are given out at a time. */
const pieceSize = 1 << 20;

interface Waiting {
  readonly item: Supplied;
  readonly size: number;
  isReady: boolean;
}

export class RemoteSupply implements Supply {
  readonly #supply: Supply;
  readonly #fetch: Fetch;
  readonly #wake: () => void;
  readonly #waiting: Waiting[] = [];
  #bytes = 0;

  /**
   * @param supply says what comes
   * @param wake is called when something can be taken that was waited for
   */
  constructor(supply: Supply, fetch: Fetch, wake: () => void) {
    this.#supply = supply;
    this.#fetch = fetch;
    this.#wake = wake;
  }

  get position(): number {
    const [first] = this.#waiting;
    return first === undefined ? this.#supply.position : first.item.position - 1;
  }

  get isBusy(): boolean {
    const [first] = this.#waiting;
    if (first?.isReady === true) return true;
    return this.#hasRoom && this.#supply.isBusy;
  }

  get isOver(): boolean {
    return this.#waiting.length === 0 && this.#supply.isOver;
  }

  get #hasRoom(): boolean {
    return this.#waiting.length < mostAhead && this.#bytes < mostBytes;
  }

  next(): Supplied | undefined {
    while (this.#hasRoom) {
      const item = this.#supply.next();
      if (item === undefined) break;
      this.#waiting.push(
        item.type === "frame" ? this.#begin(item) : { item, size: 0, isReady: true },
      );
    }
    const [first] = this.#waiting;
    if (first?.isReady !== true) return undefined;
    this.#waiting.shift();
    this.#bytes -= first.size;
    return first.item;
  }

  putBack(item: Supplied): void {
    // It is there already, if it is small: see `next`.
    const isSmall = item.type === "frame" && item.frame.size <= largestPackedFrame;
    const size = isSmall ? item.frame.size : 0;
    this.#waiting.unshift({ item, size, isReady: true });
    this.#bytes += size;
  }

  #begin(item: SuppliedFrame): Waiting {
    const frame = new RemoteFrame((item.frame as StoredFrame).kept, this.#fetch);
    const isSmall = frame.size <= largestPackedFrame;
    const size = isSmall ? frame.size : 0;
    const waiting: Waiting = { item: { ...item, frame }, size, isReady: !isSmall };
    this.#bytes += size;
    if (!isSmall) return waiting;
    void frame.load().then(() => {
      waiting.isReady = true;
      this.#wake();
    });
    return waiting;
  }

  failed(item: SuppliedFrame, error: FramesError): Supplied | undefined {
    return this.#supply.failed(item, error);
  }
}

/** A frame of a store that is far away. */
export class RemoteFrame implements Frame {
  readonly kept: KeptFrame;
  readonly name: string;
  readonly sequence: number;
  readonly captured: bigint;
  readonly size: number;
  readonly metadata: string;
  readonly #fetch: Fetch;
  #loaded: Uint8Array | FramesError | undefined;

  constructor(kept: KeptFrame, fetch: Fetch) {
    this.kept = kept;
    ({
      name: this.name,
      sequence: this.sequence,
      captured: this.captured,
      size: this.size,
      metadata: this.metadata,
    } = kept);
    this.#fetch = fetch;
  }

  /** Fetches all of it. Never rejects: what is wrong is told by `read`. */
  async load(): Promise<void> {
    try {
      const response = await this.#open();
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (bytes.length !== this.size || crc32(bytes) !== this.kept.crc32) throw otherBytes();
      this.#loaded = bytes;
    } catch (error) {
      this.#loaded = readFailure(error);
    }
  }

  async #open(): Promise<Response> {
    const response = await this.#fetch(this.kept);
    if (response === undefined) throw new FramesError("vanished", "it is no longer in the store");
    return response;
  }

  read(into: Uint8Array): void {
    if (this.#loaded instanceof FramesError) throw this.#loaded;
    if (this.#loaded === undefined) throw new FramesError("internal", "A frame was read too early");
    into.set(this.#loaded);
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    try {
      const response = await this.#open();
      let [left, crc] = [this.size, 0];
      // The last is held back until all is known to be right.
      let held = new Uint8Array(0);
      for await (const chunk of response.body ?? []) {
        left -= chunk.length;
        crc = crc32(chunk, crc);
        if (held.length + chunk.length <= pieceSize) {
          held = Buffer.concat([held, chunk]);
          continue;
        }
        if (held.length > 0) yield held;
        held = chunk;
      }
      if (left !== 0 || crc !== this.kept.crc32) throw otherBytes();
      yield held;
    } catch (error) {
      throw readFailure(error);
    }
    return undefined;
  }
}

function otherBytes(): FramesError {
  const message = "its bytes are not those that came (frames verify, on the server)";
  return new FramesError("unreadable", message);
}

function readFailure(error: unknown): FramesError {
  if (!(error instanceof FramesError)) {
    return new FramesError("unreadable", "the bucket broke off", { cause: error });
  }
  // To the client it is one frame that cannot be read.
  return error.code === "store" ? new FramesError("unreadable", error.message) : error;
}
