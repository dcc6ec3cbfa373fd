/** What is live: sources, senders and problems, as far as this server has seen them since it began. */
import type { FramesError } from "../errors.ts";
import type { FrameDescription, FrameOrigin } from "../frame.ts";
import { entries, entrySeconds, Feed } from "./feed.ts";
import { Problems } from "./problems.ts";

/** Sources that are remembered; of more, those from which something came longest ago are forgotten. */
const mostFeeds = 2000;

/** Names of sources that are told of one sender. */
const mostNamed = 100;

const tickEvery = 1000;

/** Somebody who is connected and sends. */
export interface Sender {
  readonly peer: string;
  readonly stream: string;
  readonly sources: readonly string[];
  readonly software: string;
  readonly key: string | null;
  /** Nanoseconds since 1970. */
  readonly since: bigint;
  /** Stored, of what came over this connection. */
  readonly frames: number;
  readonly bytes: number;
}

/** Who has connected. */
export interface Arrival {
  readonly peer: string;
  readonly session: string;
  readonly stream: string;
  readonly software: string;
  readonly key: string | undefined;
}

/** What one sender brings, as it is counted. */
class Delivery {
  frames = 0;
  bytes = 0;
  readonly sources = new Set<string>();
  readonly since: number;
  readonly arrival: Arrival | undefined;

  constructor(arrival: Arrival | undefined, since: number) {
    this.arrival = arrival;
    this.since = since;
  }
}

/** Where what becomes of one source's frames is noted. */
export interface LiveSource {
  /** Called for each frame that was stored. */
  stored(frame: FrameDescription, crc32: number): void;
  /** Numbers that will not come: they are there, or lost for this reason. */
  passed(first: number, last: number, error?: FramesError): void;
}

export class Live {
  readonly problems: Problems;
  readonly #clock: () => number;
  /** By stream, then by source. */
  readonly #feeds = new Map<string, Map<string, Feed>>();
  #count = 0;
  readonly #deliveries = new Map<string, Delivery>();
  readonly #watched = new Set<Feed>();
  readonly #timer: NodeJS.Timeout;
  readonly #tickers = new Set<() => void>();
  #ticks = 0;

  /** @param clock milliseconds since 1970 */
  constructor(clock: () => number = Date.now) {
    this.#clock = clock;
    this.problems = new Problems(clock);
    this.#timer = setInterval(() => this.#tick(), tickEvery);
    this.#timer.unref();
  }

  /** Where a source's frames are noted; it is remembered once there is one. */
  source(origin: FrameOrigin): LiveSource {
    const { stream, source, session } = origin;
    let feed: Feed | undefined;
    let delivery: Delivery | undefined;
    const live = () => {
      delivery ??= this.#delivery(session);
      if (delivery.sources.size < mostNamed) delivery.sources.add(source);
      return (feed = this.#feed(stream, source));
    };
    return {
      stored: (frame, crc32) => {
        const known = feed === undefined || feed.isForgotten ? live() : feed;
        known.stored(origin, frame, crc32, this.#clock());
        delivery!.frames++;
        delivery!.bytes += frame.size;
      },
      passed: (first, last, error) => live().passed(session, first, last, error !== undefined),
    };
  }

  #delivery(session: string): Delivery {
    const known = this.#deliveries.get(session);
    if (known !== undefined) return known;
    // Nobody said who it is; so nobody is told either.
    return new Delivery(undefined, this.#clock());
  }

  #feed(stream: string, source: string): Feed {
    const known = this.feed(stream, source);
    if (known !== undefined) return known;
    if (this.#count >= mostFeeds) this.#forgetOldest();
    const feed = new Feed(stream, source, this.#clock());
    let ofStream = this.#feeds.get(stream);
    if (ofStream === undefined) this.#feeds.set(stream, (ofStream = new Map()));
    ofStream.set(source, feed);
    this.#count++;
    return feed;
  }

  #forgetOldest(): void {
    let oldest: Feed | undefined;
    for (const feed of this.feeds()) {
      if (!feed.isWatched && feed.received < (oldest?.received ?? Infinity)) oldest = feed;
    }
    if (oldest === undefined) return;
    oldest.isForgotten = true;
    const ofStream = this.#feeds.get(oldest.stream)!;
    ofStream.delete(oldest.source);
    if (ofStream.size === 0) this.#feeds.delete(oldest.stream);
    this.#count--;
  }

  /** A source from which something came. */
  feed(stream: string, source: string): Feed | undefined {
    return this.#feeds.get(stream)?.get(source);
  }

  /** All of them. */
  *feeds(): Generator<Feed> {
    for (const ofStream of this.#feeds.values()) yield* ofStream.values();
  }

  /** Somebody connected, and begins to send. */
  connected(arrival: Arrival): void {
    this.#deliveries.set(arrival.session, new Delivery(arrival, this.#clock()));
  }

  /** The sender at this address has ended, or was ended. */
  left(peer: string, session: string): void {
    // Another connection may have taken the session over.
    if (this.#deliveries.get(session)?.arrival?.peer === peer) this.#deliveries.delete(session);
  }

  /** Those who are connected. */
  get senders(): Sender[] {
    return [...this.#deliveries.values()].flatMap(({ arrival, since, sources, frames, bytes }) => {
      if (arrival === undefined) return [];
      const { peer, stream, software, key } = arrival;
      return [
        {
          peer,
          stream,
          sources: [...sources],
          software,
          key: key ?? null,
          since: BigInt(since) * 1_000_000n,
          frames,
          bytes,
        },
      ];
    });
  }

  /** A source, also if nothing came from it yet. */
  known(stream: string, source: string): Feed {
    return this.#feed(stream, source);
  }

  /**
   * Has somebody told when a frame came and is in the journal.
   *
   * @returns what ends it
   */
  watch(feed: Feed, wake: () => void): () => void {
    const end = feed.watch(wake);
    this.#watched.add(feed);
    return () => {
      end();
      if (!feed.isWatched) this.#watched.delete(feed);
    };
  }

  /** What was stored is in the journal. */
  flushed(): void {
    for (const feed of this.#watched) feed.wake();
  }

  /** Is called once a second, when rates are known anew; returns what ends it. */
  onTick(ticker: () => void): () => void {
    this.#tickers.add(ticker);
    return () => void this.#tickers.delete(ticker);
  }

  #tick(): void {
    const now = this.#clock();
    const isEntry = ++this.#ticks % entrySeconds === 0;
    const forgotten = entries * entrySeconds * 1000;
    for (const feed of this.feeds()) {
      if (now - feed.received < forgotten || feed.rate > 0) feed.tick(now, isEntry);
    }
    for (const ticker of this.#tickers) ticker();
  }

  get now(): number {
    return this.#clock();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
