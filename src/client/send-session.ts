/** A delivery over as many connections as it takes: connects again, and resumes at the receipts. */
import { Reconnector, type ClientKeys } from "./reconnect.ts";
import { SendConnection } from "./send-connection.ts";
import { FramesError } from "../errors.ts";
import type { FrameSource } from "../frame.ts";
import type { Address } from "../net/address.ts";
import { SentFileRemover, type NotRemoved } from "./sent-file-remover.ts";
import {
  OutgoingSource,
  type SourceProgress,
  type Undelivered,
} from "../protocol/send/outgoing-source.ts";
import type { Done, Hello, Welcome } from "../wire/messages.ts";

/** Times are in milliseconds. */
export interface SendSessionOptions {
  readonly timeout: number;
  readonly connectTimeout: number;
  /** How long nothing may be settled before the delivery is given up; without it, for ever. */
  readonly giveUpAfter: number | undefined;
  /** Whether frames that may be there are always compared by CRC-32. */
  readonly checksum: boolean;
  /** Whether frames are removed once the server has them for good. */
  readonly move: boolean;
  readonly keys: ClientKeys;
  /** What the stream of live frames is called at a time, if that changes. */
  readonly streamNameAt: ((captured: bigint) => string) | undefined;
  /** Bytes a second that are sent at most. */
  readonly maxBytesPerSecond: number | undefined;
  /** Whether a server may be away from the beginning on, since frames are kept meanwhile. */
  readonly canStartOffline: boolean;
  /** Whether sources may come later, by `add`, until `closeSources`. */
  readonly canAddSources: boolean;
  /** Aborting it stops the delivery: what is on its way is finished, for 10 s at most. */
  readonly signal: AbortSignal | undefined;
}

/** What a delivery tells. */
export interface SendSessionEvents {
  onWelcome(welcome: Welcome): void;
  /** There is no connection, for this reason; the next try is so many milliseconds away. */
  onWaiting(reason: FramesError, milliseconds: number): void;
  onUndelivered(report: Undelivered): void;
  /** A frame that was to be moved stays. */
  onNotRemoved(kept: NotRemoved): void;
  /** About once a second while there is a connection. */
  onTick(sources: readonly SourceProgress[]): void;
  trace?(direction: "->" | "<-", line: string): void;
}

/** How a delivery ended that was completed. */
export interface SendResult {
  readonly done: Done;
  readonly welcome: Welcome;
  /** Connections after the first. */
  readonly retries: number;
  /** Frames removed here. */
  readonly removed: number;
}

export class SendSession {
  readonly #address: Address;
  readonly #hello: Hello;
  readonly #options: SendSessionOptions;
  readonly #events: SendSessionEvents;
  readonly #sources: OutgoingSource[];
  /** Whether more sources may come. */
  #canAddSources: boolean;
  readonly #remover: SentFileRemover;
  #connection: SendConnection | undefined;
  readonly #reconnector: Reconnector;
  #finishedFrames = 0;
  #sentBytes = 0;

  constructor(
    address: Address,
    hello: Hello,
    sources: readonly FrameSource[],
    options: SendSessionOptions,
    events: SendSessionEvents,
  ) {
    this.#address = address;
    this.#hello = hello;
    this.#options = options;
    this.#events = events;
    this.#canAddSources = options.canAddSources;
    this.#sources = [];
    for (const source of sources) this.#sources.push(this.#createOutgoing(source));
    const { giveUpAfter, keys, canStartOffline } = options;
    const onWaiting = events.onWaiting.bind(events);
    this.#reconnector = new Reconnector(address, { giveUpAfter, keys, canStartOffline, onWaiting });
    this.#remover = new SentFileRemover(
      (notRemoved) => events.onNotRemoved(notRemoved),
      () => this.#connection?.wake(),
    );
  }

  /** What is not live belongs to the stream that it began with. */
  #createOutgoing(source: FrameSource): OutgoingSource {
    const { streamNameAt } = this.#options;
    return new OutgoingSource(
      this.#sources.length + 1,
      source,
      source.stopCapture === undefined ? undefined : streamNameAt,
    );
  }

  /** Another source came. */
  addSource(source: FrameSource): void {
    const outgoing = this.#createOutgoing(source);
    this.#sources.push(outgoing);
    this.#connection?.addSource(outgoing);
  }

  /** No more sources will come. */
  closeSources(): void {
    this.#canAddSources = false;
    this.#connection?.wake();
  }

  /** How far each source is. */
  get progress(): readonly SourceProgress[] {
    return this.#sources.map((outgoing) => outgoing.progress);
  }

  /** Whether it was stopped before everything was sent. */
  get isInterrupted(): boolean {
    return this.#connection?.isInterrupted === true;
  }

  /**
   * Resolves when the server has said DONE, over however many connections.
   *
   * @throws {FramesError} if the delivery as a whole failed
   */
  async run(): Promise<SendResult> {
    const { signal } = this.#options;
    const stop = () => this.#stop();
    try {
      if (signal?.aborted) throw new FramesError("interrupted");
      signal?.addEventListener("abort", stop);
      for (const { input: source } of this.#sources) source.startCapture?.();
      const result = await this.#runConnections();
      await this.#remover.finish();
      return { ...result, retries: this.#reconnector.retries, removed: this.#remover.removed };
    } catch (error) {
      this.#emitUnreportedLosses();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      try {
        // What the server has is removed, however the delivery ended.
        await this.#remover.finish();
      } finally {
        for (const { large, input: source } of this.#sources) {
          large?.close();
          source.close();
        }
      }
    }
  }

  /** What was lost while there was no server is told here at least. */
  #emitUnreportedLosses(): void {
    for (const outgoing of this.#sources) {
      const source = outgoing.input.name;
      for (const loss of outgoing.drainUnreported())
        this.#events.onUndelivered({ source, ...loss });
    }
  }

  async #runConnections(): Promise<{ done: Done; welcome: Welcome }> {
    const connect = () => {
      this.#connection = this.#createConnection();
      return this.#connection.run();
    };
    const sources = this.#sources;
    return await this.#reconnector.run(connect, () => this.#updateProgress(), {
      isLocalError: (error) => sources.some(({ failure }) => failure?.error === error),
      get isLive() {
        return sources.some(({ input: source }) => source.isLive === true);
      },
    });
  }

  #createConnection(): SendConnection {
    const { timeout, connectTimeout, checksum, move, maxBytesPerSecond } = this.#options;
    const options = {
      timeout,
      connectTimeout: Math.min(connectTimeout, Math.max(1, this.#reconnector.remainingMs)),
      checksum: checksum || move,
      maxBytesPerSecond,
      key: this.#reconnector.key,
    };
    const { trace } = this.#events;
    return new SendConnection(this.#address, this.#hello, this.#sources, options, {
      onWelcome: (welcome) => {
        this.#reconnector.onWelcome();
        this.#events.onWelcome(welcome);
      },
      onUndelivered: (report) => this.#events.onUndelivered(report),
      onTick: () => this.#tick(),
      isPaused: () => this.#remover.isBehind,
      canAddSources: () => this.#canAddSources,
      ...(move ? { onDelivered: (...frame) => this.#remover.add(...frame) } : {}),
      ...(trace === undefined ? {} : { trace: (...line) => trace(...line) }),
    });
  }

  #tick(): void {
    this.#events.onTick(this.progress);
    this.#updateProgress();
    if (this.#reconnector.remainingMs > 0) return;
    const reason = new FramesError("timeout", "the server confirms nothing");
    throw this.#reconnector.giveUpError(reason);
  }

  /** Notes whether anything was sent or settled since the last look. */
  #updateProgress(): void {
    let finishedFrames = 0;
    let sentBytes = 0;
    for (const { progress } of this.#sources) {
      finishedFrames += progress.settled + progress.lost;
      sentBytes += progress.bytes;
    }
    const isIdle = this.#connection?.isIdle === true;
    if (finishedFrames > this.#finishedFrames || sentBytes > this.#sentBytes || isIdle) {
      this.#reconnector.onProgress(finishedFrames > this.#finishedFrames);
    }
    this.#finishedFrames = finishedFrames;
    this.#sentBytes = sentBytes;
  }

  #stop(): void {
    this.#reconnector.interrupt();
    this.#remover.stop();
    this.#connection?.interrupt();
  }
}
