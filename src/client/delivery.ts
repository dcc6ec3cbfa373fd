/** A delivery over as many connections as it takes: connects again, and resumes at the receipts. */
import { Attempts, type ClientKeys } from "./attempts.ts";
import { Dispatch } from "./dispatch.ts";
import { FramesError } from "../errors.ts";
import type { FrameSource } from "../frame.ts";
import type { Address } from "../net/address.ts";
import { Removal, type Kept } from "./removal.ts";
import { Outlet, type SourceProgress, type Undelivered } from "../session/outlet.ts";
import type { Done, Hello, Welcome } from "../wire/messages.ts";

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
  readonly keys: ClientKeys;
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
  readonly #attempts: Attempts;
  #settled = 0;
  #sent = 0;

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
    this.#outlets = [];
    for (const source of sources) this.#outlets.push(this.#outletOf(source));
    const { giveUpAfter, keys, isPatient } = options;
    const waiting = events.waiting.bind(events);
    this.#attempts = new Attempts(address, { giveUpAfter, keys, isPatient, waiting });
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
      return { ...last, retries: this.#attempts.retries, removed: this.#removal.removed };
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
    const connect = () => {
      this.#dispatch = this.#newDispatch();
      return this.#dispatch.run();
    };
    const outlets = this.#outlets;
    return await this.#attempts.run(connect, () => this.#noteProgress(), {
      isOurs: (error) => outlets.some(({ failure }) => failure?.error === error),
      get isLive() {
        return outlets.some(({ source }) => source.isLive === true);
      },
    });
  }

  #newDispatch(): Dispatch {
    const { timeout, connectWithin, checksum, move, rate } = this.#options;
    const options = {
      timeout,
      connectWithin: Math.min(connectWithin, Math.max(1, this.#attempts.patience)),
      checksum: checksum || move,
      rate,
      key: this.#attempts.key,
    };
    const { trace } = this.#events;
    return new Dispatch(this.#address, this.#hello, this.#outlets, options, {
      welcome: (welcome) => {
        this.#attempts.welcomed();
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
    if (this.#attempts.patience > 0) return;
    const reason = new FramesError("timeout", "the server confirms nothing");
    throw this.#attempts.givenUp(reason);
  }

  /** Notes whether anything was sent or settled since the last look. */
  #noteProgress(): void {
    let settled = 0;
    let sent = 0;
    for (const { progress } of this.#outlets) {
      settled += progress.settled + progress.lost;
      sent += progress.bytes;
    }
    const isIdle = this.#dispatch?.isIdle === true;
    if (settled > this.#settled || sent > this.#sent || isIdle) {
      this.#attempts.progressed(settled > this.#settled);
    }
    this.#settled = settled;
    this.#sent = sent;
  }

  #stop(): void {
    this.#attempts.interrupt();
    this.#removal.stop();
    this.#dispatch?.interrupt();
  }
}
