/** Receives over as many connections as it takes: connects again, and goes on where it was. */
import { Attempts, type ClientKeys } from "./attempts.ts";
import { FramesError } from "./errors.ts";
import type { FrameDescription, FrameKeeper, Outcome } from "./frame.ts";
import type { Address } from "./net/address.ts";
import { Pickup } from "./pickup.ts";
import { Delays } from "./session/delays.ts";
import type { SourceProgress, Undelivered } from "./session/outlet.ts";
import type { ReceiverLimits } from "./session/receiving.ts";
import type { Hello, Welcome } from "./wire/messages.ts";

/** Times are in milliseconds. */
export interface RetrievalOptions {
  readonly timeout: number;
  readonly connectWithin: number;
  readonly giveUpAfter: number | undefined;
  readonly keys: ClientKeys;
  readonly grants: ReceiverLimits;
  /** Frames after which it is over. */
  readonly first: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/** What it tells. */
export interface RetrievalEvents {
  welcome(welcome: Welcome): void;
  waiting(reason: FramesError, milliseconds: number): void;
  undelivered(report: Undelivered): void;
  /** About once a second while there is a connection. */
  tick(): void;
  trace?(direction: "->" | "<-", line: string): void;
}

/** How it ended, if it did not fail. */
export interface Retrieved {
  readonly isComplete: boolean;
  /** Connections after the first. */
  readonly retries: number;
}

/** Frames since the last cursor that are remembered, since they may come again: the server tells one sooner. */
const mostRecent = 10_000;

export class Retrieval {
  readonly #address: Address;
  readonly #hello: Hello;
  readonly #keeper: FrameKeeper;
  readonly #options: RetrievalOptions;
  readonly #events: RetrievalEvents;
  readonly #attempts: Attempts;
  readonly #sources = new Map<
    string,
    { -readonly [K in keyof SourceProgress]: SourceProgress[K] }
  >();
  /**
   * What came since the last cursor and may come again, and how many frames had ended on the connection then: no
   * cursor tells of what came on one before, until it has come again.
   */
  readonly #recent = new Map<string, number>();
  #pickup: Pickup | undefined;
  /** Frames that ended before the cursor with which the connection began, and behind it. */
  #before = 0;
  #counted = 0;
  #settled = 0;
  #bytes = 0;
  #isLeaving = false;

  /** @param hello without cursor and first */
  constructor(
    address: Address,
    hello: Hello,
    keeper: FrameKeeper,
    options: RetrievalOptions,
    events: RetrievalEvents,
  ) {
    this.#address = address;
    this.#hello = hello;
    this.#keeper = keeper;
    this.#options = options;
    this.#events = events;
    const { giveUpAfter, keys } = options;
    const waiting = events.waiting.bind(events);
    this.#attempts = new Attempts(address, { giveUpAfter, keys, isPatient: false, waiting });
  }

  /** How far each source is. */
  get progress(): readonly SourceProgress[] {
    return [...this.#sources.values()];
  }

  /** @throws {FramesError} if it failed as a whole */
  async run(): Promise<Retrieved> {
    const { signal } = this.#options;
    const stop = () => this.#stop();
    if (signal?.aborted) throw new FramesError("interrupted");
    signal?.addEventListener("abort", stop);
    try {
      const connect = () => this.#connect();
      const isComplete = await this.#attempts.run(connect, () => this.#noteBreak(), {
        isOurs: () => false,
        isLive: this.#hello.follow === true,
      });
      return { isComplete, retries: this.#attempts.retries };
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async #connect(): Promise<boolean> {
    const { timeout, connectWithin, grants, first } = this.#options;
    const left = first === undefined ? undefined : first - this.#before;
    if (left === 0) return true;
    const { cursor } = this.#keeper;
    const hello: Hello = {
      ...this.#hello,
      ...(cursor === undefined || this.#hello.latest === true ? {} : { cursor }),
      ...(left === undefined ? {} : { first: left }),
    };
    const options = {
      grants,
      timeout,
      connectWithin: Math.min(connectWithin, Math.max(1, this.#attempts.patience)),
      key: this.#attempts.key,
    };
    const { trace } = this.#events;
    const before = this.#before;
    this.#counted = before;
    for (const key of this.#recent.keys()) this.#recent.set(key, Infinity);
    this.#pickup = new Pickup(this.#address, hello, this.#keeper, options, {
      welcome: (welcome) => {
        this.#attempts.welcomed();
        this.#events.welcome(welcome);
      },
      ended: (...frame) => this.#ended(...frame),
      lost: (source, _, error, ranges) => {
        for (const [first, last] of ranges) {
          this.#lost({ source, first, last, what: "", error });
        }
      },
      gone: (source, { sequence, name }) => {
        const error = new FramesError("vanished", "it is no longer in the store");
        this.#lost({ source, first: sequence, last: sequence, what: name, error });
      },
      kept: (ended) => {
        this.#counted = before + ended;
        for (const [key, after] of this.#recent) {
          if (after <= ended) this.#recent.delete(key);
        }
      },
      tick: () => this.#tick(),
      ...(trace === undefined ? {} : { trace: (...line) => trace(...line) }),
    });
    return (await this.#pickup.run()).isComplete;
  }

  /** A connection broke. */
  #noteBreak(): void {
    this.#noteProgress();
    // Without cursors nothing comes again.
    if (this.#hello.latest === true) this.#before += this.#pickup?.counts.frames ?? 0;
    else this.#before = this.#counted;
  }

  #tick(): void {
    this.#events.tick();
    this.#noteProgress();
    // Whoever follows waits for as long as nothing comes.
    if (this.#hello.follow === true) this.#attempts.progressed(false);
    if (this.#attempts.patience > 0 || this.#isLeaving) return;
    throw this.#attempts.givenUp(new FramesError("timeout", "the server sends nothing"));
  }

  #noteProgress(): void {
    let settled = 0;
    let bytes = 0;
    for (const source of this.#sources.values()) {
      settled += source.settled + source.lost;
      bytes += source.bytes;
    }
    if (settled > this.#settled || bytes > this.#bytes) this.#attempts.progressed(true);
    this.#settled = settled;
    this.#bytes = bytes;
  }

  #of(name: string) {
    const known = this.#sources.get(name);
    if (known !== undefined) return known;
    const isLive = this.#hello.follow === true;
    const fresh = {
      name,
      total: undefined,
      get captured() {
        return this.settled + this.lost;
      },
      sent: 0,
      bytes: 0,
      settled: 0,
      settledBytes: 0,
      present: 0,
      moved: 0,
      refused: 0,
      skipped: 0,
      lost: 0,
      dropped: 0,
      retried: 0,
      delays: isLive ? new Delays() : undefined,
      part: 0,
      partOf: 0,
    };
    this.#sources.set(name, fresh);
    return fresh;
  }

  /** Whether it did not come on a connection before, behind the last cursor. */
  #isNew(key: string): boolean {
    const isNew = !this.#recent.has(key);
    if (!isNew || this.#recent.size < mostRecent) {
      this.#recent.set(key, this.#pickup!.counts.frames);
    }
    return isNew;
  }

  #ended(source: string, frame: FrameDescription, outcome: Outcome): void {
    const { sequence, name, size } = frame;
    const progress = this.#of(source);
    const isAgain = outcome === "present" && !this.#keeper.isLasting;
    if (isAgain || !this.#isNew(`${source} ${sequence} ${name}`)) return void progress.retried++;
    progress.settled++;
    if (outcome instanceof FramesError) {
      progress.refused++;
      const range = { source, first: sequence, last: sequence };
      return this.#events.undelivered({ ...range, what: name, error: outcome });
    }
    if (outcome === "present") return void progress.present++;
    progress.sent++;
    progress.bytes += size;
    progress.settledBytes += size;
    progress.delays?.add(Date.now() - Number(frame.captured) / 1e6);
  }

  #lost(report: Undelivered): void {
    const { source, first, last, error } = report;
    const progress = this.#of(source);
    if (!this.#isNew(`${source} lost ${first} ${last}`)) return;
    progress.lost += last - first + 1;
    if (error.code === "dropped") progress.dropped += last - first + 1;
    this.#events.undelivered(report);
  }

  #stop(): void {
    this.#isLeaving = true;
    this.#attempts.interrupt();
    this.#pickup?.interrupt();
  }
}
