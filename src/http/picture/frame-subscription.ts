/** Sends the newest frames of one source, or all pictures of a video, to one streaming client. */
import type { LiveSources } from "../live/live-sources.ts";
import type { SourceStats } from "../live/source-stats.ts";
import type { StreamClient } from "../stream-clients.ts";
import type { CachedFrame, NewestFrameCache } from "./newest-frames.ts";
import {
  type FollowedPicture,
  newestOf,
  VideoFollower,
  type VideoStore,
} from "./video-follower.ts";
import type { VideoCodec } from "../../video/nal-units.ts";

/** Limit of unread bytes per client. Above it nothing is sent. */
const maxBufferedBytes = 4 << 20;

/** Where the frames of a subscription go. */
export interface FrameTarget {
  readonly client: StreamClient;
  /** Returns whether the client takes the next frame now. */
  readonly isReady: () => boolean;
  /** @param skipped frames that arrived after the previous one and are not sent */
  readonly send: (cached: CachedFrame, skipped: number) => void;
}

/** A source that a client watches. */
export interface SourceSubscription {
  /** Sends the next frame, unless there is none or the client is not ready. */
  send(): Promise<void>;
  close(): void;
}

/** Sends the newest frame, whichever it is. */
export class FrameSubscription implements SourceSubscription {
  readonly #stats: SourceStats;
  readonly #newestFrames: NewestFrameCache;
  readonly #target: FrameTarget;
  readonly #unsubscribe: () => void;
  /** Value of the source's frame count at the last frame sent. */
  #serial = 0;
  #isReading = false;
  #isClosed = false;

  constructor(
    stats: SourceStats,
    {
      liveSources,
      newestFrames,
    }: { readonly liveSources: LiveSources; readonly newestFrames: NewestFrameCache },
    target: FrameTarget,
  ) {
    this.#stats = stats;
    this.#newestFrames = newestFrames;
    this.#target = target;
    this.#unsubscribe = liveSources.subscribe(stats, () => void this.send());
  }

  /** Sends the newest frame, unless it was sent already or the client is not ready. */
  async send(): Promise<void> {
    const stats = this.#stats;
    if (this.#isReading || this.#isClosed || stats.frames === this.#serial) return;
    if (!this.#hasRoomFor(0) || !this.#target.isReady()) return;
    this.#isReading = true;
    const seenFrames = stats.frames;
    const cached = await this.#newestFrames.newest(stats);
    this.#isReading = false;
    if (this.#isClosed) return;
    if (cached === undefined || cached.serial <= this.#serial) {
      // The frame was removed or is too large. Waits for the next one.
      this.#serial = seenFrames;
      return;
    }
    // Sent later, when the buffer has drained or with a newer frame.
    if (!this.#hasRoomFor(cached.bytes.length)) return;
    const skipped = this.#serial === 0 ? 0 : cached.serial - this.#serial - 1;
    this.#target.client.countDropped(skipped);
    this.#serial = cached.serial;
    this.#target.send(cached, skipped);
  }

  #hasRoomFor(bytes: number): boolean {
    const { client } = this.#target;
    return client.bufferedBytes() <= maxBufferedBytes && client.hasRoomFor(bytes);
  }

  close(): void {
    this.#isClosed = true;
    this.#unsubscribe();
  }
}

/** Sends the pictures of a video one after the other, from a key frame on. */
export class VideoSubscription implements SourceSubscription {
  readonly #follower: VideoFollower;
  readonly #target: FrameTarget;
  readonly #unsubscribe: () => void;
  /** A picture for which the client had no room. */
  #waiting: FollowedPicture | undefined;
  #isReading = false;
  #isClosed = false;

  constructor(stats: SourceStats, codec: VideoCodec, store: VideoStore, target: FrameTarget) {
    this.#follower = new VideoFollower(store, stats, codec);
    this.#target = target;
    this.#unsubscribe = store.liveSources.subscribe(stats, () => void this.send());
  }

  async send(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      while (await this.#sendNext());
    } finally {
      this.#isReading = false;
    }
  }

  /** Returns whether a picture was sent, so that the next one can be tried. */
  async #sendNext(): Promise<boolean> {
    const { client, isReady, send } = this.#target;
    if (this.#isClosed || !isReady()) return false;
    this.#waiting ??= await this.#follower.next();
    const picture = this.#waiting;
    if (picture === undefined || this.#isClosed || !isReady()) return false;
    const { record, bytes, skipped } = picture;
    if (!client.hasRoomFor(bytes.length)) return false;
    this.#waiting = undefined;
    client.countDropped(skipped);
    send({ newest: newestOf(record), bytes, serial: 0 }, skipped);
    return true;
  }

  close(): void {
    this.#isClosed = true;
    this.#unsubscribe();
  }
}
