/** What is told once a second of everything that is live, and of one source when it is asked for. */
import type { DiskSpace } from "../store/room.ts";
import type { KeptFrames } from "../store/kept.ts";
import type { Sums } from "../store/sums.ts";
import type { Visitor } from "./access.ts";
import { jsonText } from "./answers.ts";
import type { Feed, LiveState } from "./feed.ts";
import type { Live } from "./live.ts";
import { mediaType } from "./media.ts";

/** Sources that are told of in one state: those from which something came last. */
const mostTold = 500;

/** A source is live for so many milliseconds after its last frame. */
const liveFor = 300_000;

/** What the store holds, and what room it has. */
export interface StoreState {
  readonly place: string;
  readonly frames: number;
  readonly bytes: number;
  readonly free: number | null;
  readonly total: number | null;
}

export class States {
  readonly #live: Live;
  readonly #sums: Sums;
  readonly #kept: KeptFrames;
  readonly #connections: () => number;
  /** The state of now, as text, for those who may see everything. */
  #text: string | undefined;
  #space: DiskSpace | undefined;
  #spaceAt = -Infinity;
  readonly #endTick: () => void;

  constructor(live: Live, sums: Sums, kept: KeptFrames, connections: () => number) {
    this.#live = live;
    this.#sums = sums;
    this.#kept = kept;
    this.#connections = connections;
    this.#endTick = live.onTick(() => (this.#text = undefined));
  }

  /** What is told once a second, as JSON. */
  textFor(visitor: Visitor): string {
    if (!visitor.seesAll) return jsonText(this.#state(visitor));
    return (this.#text ??= jsonText(this.#state(visitor)));
  }

  #state(visitor: Visitor) {
    const { now } = this.#live;
    const isOpen = visitor.seesAll;
    return {
      time: BigInt(now) * 1_000_000n,
      connections: isOpen ? this.#connections() : null,
      store: isOpen ? this.store() : null,
      sources: this.#sources(visitor, now),
      senders: isOpen ? this.#live.senders : [],
    };
  }

  #sources(visitor: Visitor, now: number) {
    const feeds = [...this.#live.feeds()].filter(
      ({ stream, source, received }) => now - received < liveFor && visitor.maySee(stream, source),
    );
    if (feeds.length > mostTold) {
      feeds.sort((a, b) => b.received - a.received);
      feeds.length = mostTold;
    }
    return feeds.flatMap((feed) => {
      const state = feed.state(now, typeOf);
      if (state === undefined) return [];
      const { stream, source } = feed;
      const { frames, bytes, lost } = this.#sumsOf(feed);
      return [{ stream, source, ...state, frames, bytes, lost }];
    });
  }

  /** Of everything that is stored, once that was summed up; before, of what came since the server began. */
  #sumsOf(feed: Feed): { frames: number; bytes: number; lost: number } {
    if (!this.#sums.isWhole) return feed;
    return this.#sums.source(feed.stream, feed.source) ?? feed;
  }

  /** One source, if it is live, with the last minutes. */
  liveOf(stream: string, source: string): (LiveState & { history: number[][] }) | null {
    const feed = this.#live.feed(stream, source);
    const { now } = this.#live;
    if (feed === undefined || now - feed.received >= liveFor) return null;
    const state = feed.state(now, typeOf);
    return state === undefined ? null : { ...state, history: feed.history };
  }

  /** What the store holds. */
  store(): StoreState {
    const { now } = this.#live;
    if (Math.abs(now - this.#spaceAt) >= 1000) {
      this.#spaceAt = now;
      this.#space = this.#measure();
    }
    const { place } = this.#kept;
    const { frames, bytes } = this.#sums;
    return {
      place,
      frames,
      bytes,
      free: this.#space?.free ?? null,
      total: this.#space?.total ?? null,
    };
  }

  /** A disk that cannot be asked is told of where frames are to be stored. */
  #measure(): DiskSpace | undefined {
    try {
      return this.#kept.space();
    } catch {
      return undefined;
    }
  }

  close(): void {
    this.#endTick();
  }
}

function typeOf({ frame, raw }: { frame: { name: string }; raw: Parameters<typeof mediaType>[1] }) {
  return mediaType(frame.name, raw);
}
