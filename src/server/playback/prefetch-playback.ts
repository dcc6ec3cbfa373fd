/** Playback from a remote store: fetches small frames before they are sent. */
import { crc32 } from "../../common/checksum.ts";
import { FramesError } from "../../errors.ts";
import type { PlaybackItem, PlaybackFrame, Playback } from "../../protocol/playback/playback.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { otherBytesError, vanishedError } from "../../store/read-errors.ts";
import type { StoreContents } from "../../store/store-contents.ts";
import { JournaledFrame } from "./journaled-frame.ts";
import { maxPackedFrameBytes } from "../../wire/encode.ts";

/** Resolves to a response with a frame's bytes, or to undefined if the frame does not exist. */
type Fetch = NonNullable<StoreContents["fetch"]>;

/** Limits of prefetched frames and of their bytes, per client. */
const maxPrefetchedFrames = 16;
const maxPrefetchedBytes = 8 << 20;

/** Largest piece of a large frame that is passed on at a time. */
const maxPieceBytes = 1 << 20;

interface PrefetchedItem {
  readonly item: PlaybackItem;
  readonly size: number;
  isReady: boolean;
}

export class PrefetchPlayback implements Playback {
  readonly #playback: Playback;
  readonly #fetch: Fetch;
  readonly #onReady: () => void;
  readonly #prefetched: PrefetchedItem[] = [];
  #prefetchedBytes = 0;

  /**
   * @param playback yields the items in order
   * @param onReady called when a prefetched frame can be sent
   */
  constructor(playback: Playback, fetch: Fetch, onReady: () => void) {
    this.#playback = playback;
    this.#fetch = fetch;
    this.#onReady = onReady;
  }

  /** Bytes of the frames that were fetched, or are being fetched, and not sent. */
  get prefetchedBytes(): number {
    return this.#prefetchedBytes;
  }

  get position(): number {
    const [first] = this.#prefetched;
    return first === undefined ? this.#playback.position : first.item.position - 1;
  }

  get isBusy(): boolean {
    const [first] = this.#prefetched;
    if (first?.isReady === true) return true;
    return this.#hasRoom && this.#playback.isBusy;
  }

  get isEnded(): boolean {
    return this.#prefetched.length === 0 && this.#playback.isEnded;
  }

  get #hasRoom(): boolean {
    return (
      this.#prefetched.length < maxPrefetchedFrames && this.#prefetchedBytes < maxPrefetchedBytes
    );
  }

  next(): PlaybackItem | undefined {
    while (this.#hasRoom) {
      const item = this.#playback.next();
      if (item === undefined) break;
      this.#prefetched.push(
        item.type === "frame" ? this.#prefetch(item) : { item, size: 0, isReady: true },
      );
    }
    const [first] = this.#prefetched;
    if (first?.isReady !== true) return undefined;
    this.#prefetched.shift();
    this.#prefetchedBytes -= first.size;
    return first.item;
  }

  #prefetch(item: PlaybackFrame): PrefetchedItem {
    const frame = new RemoteFrame((item.frame as JournaledFrame).record, this.#fetch);
    const isSmall = frame.size <= maxPackedFrameBytes;
    const size = isSmall ? frame.size : 0;
    const prefetched: PrefetchedItem = { item: { ...item, frame }, size, isReady: !isSmall };
    this.#prefetchedBytes += size;
    if (!isSmall) return prefetched;
    void frame.load().then(() => {
      prefetched.isReady = true;
      this.#onReady();
    });
    return prefetched;
  }

  onReadError(item: PlaybackFrame, error: FramesError): PlaybackItem | undefined {
    return this.#playback.onReadError(item, error);
  }
}

/** A frame of a remote store. */
export class RemoteFrame extends JournaledFrame {
  readonly #fetch: Fetch;
  #loaded: Uint8Array | FramesError | undefined;

  constructor(record: FrameRecord, fetch: Fetch) {
    super(record);
    this.#fetch = fetch;
  }

  /** Fetches the whole frame. Never rejects: `read` throws the error. */
  async load(): Promise<void> {
    try {
      const response = await this.#open();
      const bytes = new Uint8Array(this.size);
      let length = 0;
      for await (const chunk of response.body ?? []) {
        if (length + chunk.length > this.size) throw otherBytesError();
        bytes.set(chunk, length);
        length += chunk.length;
      }
      if (length < this.size || crc32(bytes) !== this.record.crc32) throw otherBytesError();
      this.#loaded = bytes;
    } catch (error) {
      this.#loaded = toReadError(error);
    }
  }

  async #open(): Promise<Response> {
    const response = await this.#fetch(this.record);
    if (response === undefined) throw vanishedError();
    return response;
  }

  read(into: Uint8Array): void {
    if (this.#loaded instanceof FramesError) throw this.#loaded;
    if (this.#loaded === undefined) throw new FramesError("internal", "A frame was read too early");
    into.set(this.#loaded);
  }

  /** Returns the bytes of a frame that was fetched; `undefined` for a large one, or without bytes. */
  readHead(): Uint8Array | undefined {
    return this.#loaded instanceof FramesError ? undefined : this.#loaded;
  }

  async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    try {
      const response = await this.#open();
      let [remainingBytes, crc] = [this.size, 0];
      // The last piece is withheld until size and CRC-32 are verified.
      let pending = new Uint8Array(0);
      for await (const chunk of response.body ?? []) {
        remainingBytes -= chunk.length;
        if (remainingBytes < 0) throw otherBytesError();
        crc = crc32(chunk, crc);
        if (pending.length + chunk.length <= maxPieceBytes) {
          pending = Buffer.concat([pending, chunk]);
          continue;
        }
        if (pending.length > 0) yield pending;
        pending = chunk;
      }
      if (remainingBytes !== 0 || crc !== this.record.crc32) throw otherBytesError();
      yield pending;
    } catch (error) {
      throw toReadError(error);
    }
    return undefined;
  }
}

function toReadError(error: unknown): FramesError {
  if (!(error instanceof FramesError)) {
    return new FramesError("unreadable", "the connection to the bucket broke", { cause: error });
  }
  // For the client only this frame cannot be read.
  return error.code === "store" ? new FramesError("unreadable", error.message) : error;
}
