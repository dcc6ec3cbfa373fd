/** A delivery over as many connections as it takes: connects again, and resumes at the receipts. */
import type { Key } from "./auth/key.ts";
import { Dispatch } from "./dispatch.ts";
import { FramesError } from "./errors.ts";
import type { FrameSource } from "./frame.ts";
import { type Address, formatAddress } from "./net/address.ts";
import { steadyNow } from "./net/connection.ts";
import { Removal, type Kept } from "./removal.ts";
import { Outlet, type SourceProgress, type Undelivered } from "./session/outlet.ts";
import type { Done, Hello, Welcome } from "./wire/messages.ts";

/** Times are in milliseconds. */
export interface DeliveryOptions {
  readonly timeout: number;
  readonly connectWithin: number;
  /** How long nothing may be settled before the delivery is given up; without it, for ever. */
  readonly giveUpAfter: number | undefined;
  /** Whether frames that may be there are always compared by CRC-32. */
  readonly checksum: boolean;
  /** Whether frames are removed once the server has them for good. */
  readonly move: boolean;
  readonly keys: SenderKeys;
  /** What the stream of live frames is called at a time, if that changes. */
  readonly streamAt: ((captured: bigint) => string) | undefined;
  /** Bytes a second that are sent at most. */
  readonly rate: number | undefined;
  /** Whether a server may be away from the beginning on, since frames are kept meanwhile. */
  readonly isPatient: boolean;
  /** Whether sources may come later, by `add`, until `closeSources`. */
  readonly isOpen: boolean;
  /** Aborting it stops the delivery: what is on its way is finished, for 10 s at most. */
  readonly signal: AbortSignal | undefined;
}

/** How a server is spoken to: in the clear, with one of these keys, or in the clear until it asks for one. */
export interface SenderKeys {
  readonly use: "never" | "always" | "if-asked";
  /**
   * In the order in which they are tried.
   *
   * @throws {FramesError} `usage` or `missing` if they cannot be read
   */
  keys(): readonly Key[];
}

/** What a delivery tells. */
export interface DeliveryEvents {
  welcome(welcome: Welcome): void;
  /** There is no connection, for this reason; the next try is so many milliseconds away. */
  waiting(reason: FramesError, milliseconds: number): void;
  undelivered(report: Undelivered): void;
  /** A frame that was to be moved stays. */
  kept(kept: Kept): void;
  /** About once a second while there is a connection. */
  tick(sources: readonly SourceProgress[]): void;
  trace?(direction: "->" | "<-", line: string): void;
}

/** How a delivery ended that was completed. */
export interface Delivered {
  readonly done: Done;
  readonly welcome: Welcome;
  /** Connections after the first. */
  readonly retries: number;
  /** Frames removed here. */
  readonly removed: number;
}

/** Milliseconds before the second try, which double up to the most. */
const firstPause = 1000;
const longestPause = 30_000;

/** What is captured meanwhile grows old: whoever sends live looks for the server all the time. */
const livePause = 500;

/** Errors that may come of a flipped byte end a delivery when they come so often without progress. */
const mostDoubts = 3;

/** What a server says of one key, and may not say of the next. */
const keyFails = new Set(["not-let-in", "key-revoked", "wrong-role", "wrong-stream"]);

/** Only a frames server says this, or whatever lies on the way to one does it. */
const saidByServers = new Set(["store", "stopping", "full", "damaged"]);

export class Delivery {
  readonly #address: Address;
  readonly #hello: Hello;
  readonly #options: DeliveryOptions;
  readonly #events: DeliveryEvents;
  readonly #outlets: Outlet[];
  /** Whether more sources may come. */
  #isOpen: boolean;
  readonly #removal: Removal;
  #dispatch: Dispatch | undefined;
  /** The key that is in use. */
  #key: number | undefined;
  #keys: readonly Key[] = [];
  #interrupted = false;
  #endPause: () => void = () => {};
  #retries = 0;
  /** Whether a server has taken this delivery up. */
  #welcomed = false;
  /** Pauses, and errors that a flipped byte may have caused, since anything was settled. */
  #pauses = 0;
  #doubts = 0;
  #settled = 0;
  #sent = 0;
  #progressAt = steadyNow();

  constructor(
    address: Address,
    hello: Hello,
    sources: readonly FrameSource[],
    options: DeliveryOptions,
    events: DeliveryEvents,
  ) {
    this.#address = address;
    this.#hello = hello;
    this.#options = options;
    this.#events = events;
    this.#isOpen = options.isOpen;
    this.#welcomed = options.isPatient;
    this.#outlets = [];
    for (const source of sources) this.#outlets.push(this.#outletOf(source));
    if (options.keys.use === "always") {
      this.#keys = options.keys.keys();
      this.#key = 0;
    }
    this.#removal = new Removal(
      (kept) => events.kept(kept),
      () => this.#dispatch?.wake(),
    );
  }

  /** What is not live belongs to the stream that it began with. */
  #outletOf(source: FrameSource): Outlet {
    const { streamAt } = this.#options;
    return new Outlet(
      this.#outlets.length + 1,
      source,
      source.stop === undefined ? undefined : streamAt,
    );
  }

  /** Another source came. */
  add(source: FrameSource): void {
    const outlet = this.#outletOf(source);
    this.#outlets.push(outlet);
    this.#dispatch?.added(outlet);
  }

  /** No more sources will come. */
  closeSources(): void {
    this.#isOpen = false;
    this.#dispatch?.wake();
  }

  /** How far each source is. */
  get progress(): readonly SourceProgress[] {
    return this.#outlets.map((outlet) => outlet.progress);
  }

  /** Whether it was stopped before everything was sent. */
  get isInterrupted(): boolean {
    return this.#dispatch?.isInterrupted === true;
  }

  /**
   * Resolves when the server has said DONE, over however many connections.
   *
   * @throws {FramesError} if the delivery as a whole failed
   */
  async run(): Promise<Delivered> {
    const { signal } = this.#options;
    const stop = () => this.#stop();
    try {
      if (signal?.aborted) throw new FramesError("interrupted");
      signal?.addEventListener("abort", stop);
      for (const { source } of this.#outlets) source.begin?.();
      const last = await this.#runConnections();
      await this.#removal.finish();
      return { ...last, retries: this.#retries, removed: this.#removal.removed };
    } catch (error) {
      this.#tellUntold();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      try {
        // What the server has is removed, however the delivery ended.
        await this.#removal.finish();
      } finally {
        for (const { large, source } of this.#outlets) {
          large?.close();
          source.close();
        }
      }
    }
  }

  /** What was lost while there was no server is told here at least. */
  #tellUntold(): void {
    for (const outlet of this.#outlets) {
      const source = outlet.source.name;
      for (const loss of outlet.abandon()) this.#events.undelivered({ source, ...loss });
    }
  }

  async #runConnections(): Promise<{ done: Done; welcome: Welcome }> {
    for (;;) {
      const progressAt = this.#progressAt;
      try {
        this.#dispatch = this.#newDispatch();
        return await this.#dispatch.run();
      } catch (error) {
        this.#noteProgress();
        if (this.#nextKey(error)) continue;
        const reason = this.#mayRetry(error);
        // What was sent a second time without being confirmed was sent in vain.
        if (this.#pauses > 0) this.#progressAt = progressAt;
        await this.#pause(reason);
      }
      this.#retries++;
    }
  }

  /** Whether there is another key to try, now that the server did not take the last one, or asked for one. */
  #nextKey(error: unknown): boolean {
    const { use, keys } = this.#options.keys;
    if (!(error instanceof FramesError) || this.#interrupted) return false;
    const asked = error.code === "no-key" && use === "if-asked" && this.#key === undefined;
    if (!asked && !keyFails.has(error.code)) return false;
    // Keys that nobody asked for are no reason to fail, so they are read only now.
    if (asked) this.#keys = keys();
    const next = asked ? 0 : (this.#key ?? this.#keys.length) + 1;
    if (next >= this.#keys.length) return false;
    this.#key = next;
    return true;
  }

  #newDispatch(): Dispatch {
    const { timeout, connectWithin, checksum, move, rate } = this.#options;
    const options = {
      timeout,
      connectWithin: Math.min(connectWithin, Math.max(1, this.#patience())),
      checksum: checksum || move,
      rate,
      key: this.#key === undefined ? undefined : this.#keys[this.#key],
    };
    const { trace } = this.#events;
    return new Dispatch(this.#address, this.#hello, this.#outlets, options, {
      welcome: (welcome) => {
        this.#welcomed = true;
        this.#events.welcome(welcome);
      },
      undelivered: (report) => this.#events.undelivered(report),
      tick: () => this.#tick(),
      isHeld: () => this.#removal.isBehind,
      isOpen: () => this.#isOpen,
      ...(move ? { delivered: (...frame) => this.#removal.add(...frame) } : {}),
      ...(trace === undefined ? {} : { trace: (...line) => trace(...line) }),
    });
  }

  #tick(): void {
    this.#events.tick(this.progress);
    this.#noteProgress();
    if (this.#patience() > 0) return;
    const reason = new FramesError("timeout", "the server confirms nothing");
    throw this.#givenUp(reason);
  }

  /** Notes whether anything was sent or settled since the last look. */
  #noteProgress(): void {
    let settled = 0;
    let sent = 0;
    for (const { progress } of this.#outlets) {
      settled += progress.settled + progress.lost;
      sent += progress.bytes;
    }
    if (settled > this.#settled) this.#pauses = this.#doubts = 0;
    const isIdle = this.#dispatch?.isIdle === true;
    if (settled > this.#settled || sent > this.#sent || isIdle) this.#progressAt = steadyNow();
    this.#settled = settled;
    this.#sent = sent;
  }

  /** Milliseconds until the delivery is given up. */
  #patience(): number {
    const { giveUpAfter } = this.#options;
    if (giveUpAfter === undefined) return Infinity;
    return this.#progressAt + giveUpAfter - steadyNow();
  }

  #givenUp(reason: FramesError): FramesError {
    const seconds = this.#options.giveUpAfter! / 1000;
    return new FramesError("given-up", `Gave up after ${seconds} s: ${reason.message}`);
  }

  /**
   * Whether it is worth while to connect again.
   *
   * @throws what ends the delivery
   */
  #mayRetry(error: unknown): FramesError {
    const isFromSource = this.#outlets.some(({ failure }) => failure?.error === error);
    if (!(error instanceof FramesError) || isFromSource) throw error;
    const { code, retry } = error;
    if (this.#interrupted && retry !== undefined) {
      throw new FramesError("interrupted", `Interrupted: ${error.message}`);
    }
    if (retry === undefined || !(this.#welcomed || saidByServers.has(code))) throw error;
    if (retry === "thrice" && ++this.#doubts >= mostDoubts) throw error;
    return error;
  }

  /** Waits before the next try, each time longer, and not for as long as all others who wait. */
  async #pause(reason: FramesError): Promise<void> {
    const patience = this.#patience();
    if (patience <= 0) throw this.#givenUp(reason);
    const isLive = this.#outlets.some(({ source }) => source.isLive === true);
    const longest = isLive ? livePause : longestPause;
    const pause = Math.min(firstPause * 2 ** this.#pauses++, longest);
    const jittered = Math.min(pause * (0.75 + Math.random() / 4), patience);
    this.#events.waiting(reason, jittered);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#endPause = resolve;
    const timer = setTimeout(resolve, jittered);
    await promise;
    clearTimeout(timer);
    if (this.#interrupted) {
      const where = formatAddress(this.#address);
      throw new FramesError("interrupted", `Interrupted while there was no connection to ${where}`);
    }
    if (this.#patience() <= 0) throw this.#givenUp(reason);
  }

  #stop(): void {
    this.#interrupted = true;
    this.#removal.stop();
    this.#dispatch?.interrupt();
    this.#endPause();
  }
}
