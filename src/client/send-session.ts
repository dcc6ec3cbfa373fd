/** Sends a session over any number of connections; each one resumes at the last receipt. */
import { Reconnector, type ClientKeys } from "./reconnect.ts";
import { SendConnection } from "./send-connection.ts";
import { FramesError } from "../errors.ts";
import type { Frame, FrameSource } from "../frame.ts";
import type { Address } from "../net/address.ts";
import { SentFileRemover, type NotRemoved } from "./sent-file-remover.ts";
import { OutgoingSource } from "../protocol/send/outgoing-source.ts";
import type { SourceProgress, Undelivered } from "../protocol/progress.ts";
import type { Done, Hello, Welcome } from "../wire/messages.ts";

/** Times are in milliseconds. */
export interface SendSessionOptions {
  readonly timeout: number;
  readonly connectTimeout: number;
  /** Time without progress after which the session fails with `given-up`; undefined: never. */
  readonly giveUpAfter: number | undefined;
  /** Whether offered frames are always compared by CRC-32, not by size and time. */
  readonly checksum: boolean;
  /** Whether frames are removed here once the server has stored them durably. */
  readonly move: boolean;
  readonly keys: ClientKeys;
  /** Returns the stream name for live frames captured at a time; undefined if it never changes. */
  readonly streamNameAt: ((captured: bigint) => string) | undefined;
  /** Bandwidth limit in bytes a second. */
  readonly maxBytesPerSecond: number | undefined;
  /** Whether to retry when no server has been reached yet, because a spool keeps the frames. */
  readonly canStartOffline: boolean;
  /** Whether the frames were numbered for a session that another key began. */
  readonly isNewSession: boolean;
  /** Whether `addSource` may add sources until `closeSources`. */
  readonly canAddSources: boolean;
  /** Abort it to stop the session; frames in flight get up to 10 s to finish. */
  readonly signal: AbortSignal | undefined;
}

export interface SendSessionEvents {
  onWelcome(welcome: Welcome): void;
  /** Another key began the session, so what is not settled is sent under a new one. */
  onNewSession(): void;
  /** Called before each pause between connections, with the error of the last one. */
  onWaiting(reason: FramesError, milliseconds: number): void;
  onUndelivered(report: Undelivered): void;
  /** A frame that `move` should have removed was left in place. */
  onNotRemoved(notRemoved: NotRemoved): void;
  /** A frame that `move` could not deliver, because its name is taken, was copied to `path`. */
  onKept(path: string): void;
  /** The server has stored or refused a frame. Refused ones were passed to `onUndelivered` before. */
  onSettled?(source: string, frame: Frame): void;
  /** Called about once a second while there is a connection. */
  onTick(sources: readonly SourceProgress[]): void;
  trace?(direction: "->" | "<-", line: string): void;
}

/** Result of a session that the server confirmed with DONE. */
export interface SendResult {
  readonly done: Done;
  readonly welcome: Welcome;
  /** Connections after the first. */
  readonly retries: number;
  /** Frames removed here by `move`. */
  readonly removed: number;
}

export class SendSession {
  readonly #address: Address;
  #hello: Hello;
  readonly #options: SendSessionOptions;
  readonly #events: SendSessionEvents;
  readonly #sources: OutgoingSource[];
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
    this.#remover = new SentFileRemover({
      onNotRemoved: (notRemoved) => events.onNotRemoved(notRemoved),
      onKept: (path) => events.onKept(path),
      onReady: () => this.#connection?.wake(),
    });
  }

  /** Only live sources change the stream name; others stay in the stream they began with. */
  #createOutgoing(source: FrameSource): OutgoingSource {
    const { streamNameAt, isNewSession } = this.#options;
    const { onSettled } = this.#events;
    const outgoing = new OutgoingSource(
      this.#sources.length + 1,
      source,
      source.stopCapture === undefined ? undefined : streamNameAt,
      onSettled === undefined ? undefined : (frame) => onSettled(source.name, frame),
    );
    if (isNewSession) outgoing.beginSession();
    return outgoing;
  }

  /** Adds a source to the running session, and to later connections. */
  addSource(source: FrameSource): void {
    const outgoing = this.#createOutgoing(source);
    this.#sources.push(outgoing);
    this.#connection?.addSource(outgoing);
    source.startCapture?.();
  }

  /** Declares that no more sources will be added, so that the session can complete. */
  closeSources(): void {
    this.#canAddSources = false;
    this.#connection?.wake();
  }

  /** Ends the session when there is no connection, because a spool keeps its frames. */
  stopRetrying(): void {
    this.#reconnector.interrupt();
  }

  /** Progress of each source. */
  get progress(): readonly SourceProgress[] {
    return this.#sources.map((outgoing) => outgoing.progress);
  }

  /** Whether the session was stopped before all frames were sent. */
  get isInterrupted(): boolean {
    return this.#connection?.isInterrupted === true;
  }

  /**
   * Sends until the server says DONE, over any number of connections. Closes the sources.
   *
   * @throws {FramesError} if the session failed
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
        // Frames that the server confirmed are removed even if the session failed.
        await this.#remover.finish();
      } finally {
        for (const { large, input: source } of this.#sources) {
          large?.close();
          source.close();
        }
      }
    }
  }

  /** Emits losses that no LOST message reported, because there was no connection. */
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
      onStolenSession: () => this.#beginSession(),
      get isLive() {
        return sources.some(({ input: source }) => source.isLive === true);
      },
    });
  }

  /** Begins a new session, because another key began this one. */
  #beginSession(): void {
    this.#hello = { ...this.#hello, session: crypto.randomUUID().replaceAll("-", "") };
    for (const outgoing of this.#sources) outgoing.beginSession();
    this.#events.onNewSession();
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
      ...(move
        ? {
            onDelivered: (...frame) => this.#remover.add(...frame),
            onConflict: (...frame) => this.#remover.keep(...frame),
          }
        : {}),
      ...(trace === undefined ? {} : { trace: (...line) => trace(...line) }),
    });
  }

  #tick(): void {
    this.#events.onTick(this.progress);
    this.#updateProgress();
    if (this.#reconnector.remainingMs > 0) return;
    const reason = new FramesError("timeout", "the server confirmed no frame");
    throw this.#reconnector.giveUpError(reason);
  }

  /** Reports progress since the last call; an idle connection counts as progress. */
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
