/** Sends a session over any number of connections; each one resumes at the last receipt. */
import type { ClientKeys } from "./client-keys.ts";
import { Reconnector } from "./reconnect.ts";
import { SendConnection } from "./send-connection.ts";
import type { Plan } from "./plan/options.ts";
import type { SendEvent } from "./send-event.ts";
import type { SendOptions } from "./send-options.ts";
import type { Transfer } from "./transfer.ts";
import { FramesError, truncateMessage } from "../errors.ts";
import type { FrameSource } from "../frame.ts";
import { SentFileRemover } from "./sent-file-remover.ts";
import { OutgoingSource } from "../protocol/send/outgoing-source.ts";
import type { SourceProgress } from "../protocol/progress.ts";
import type { SenderEvent } from "../protocol/send/sender-event.ts";
import type { Done, Hello, Welcome } from "../wire/messages.ts";

export interface SendSessionOptions {
  readonly plan: Plan;
  readonly transfer: Transfer<SendEvent>;
  readonly options: SendOptions;
  readonly hello: Hello;
  readonly keys: ClientKeys;
}

/** Result of a session that the server confirmed with DONE. */
export interface SendResult {
  readonly done: Done;
  readonly welcome: Welcome;
  /** Connections after the first. */
  readonly retries: number;
  /** Frames removed here by `move`, and frames that it left in place. */
  readonly removed: number;
  readonly notRemoved: number;
}

export class SendSession {
  #hello: Hello;
  readonly #plan: Plan;
  readonly #transfer: Transfer<SendEvent>;
  readonly #options: SendOptions;
  readonly #sources: OutgoingSource[] = [];
  /** Whether `addSource` may add sources until `closeSources`. */
  #canAddSources: boolean;
  readonly #remover: SentFileRemover;
  #connection: SendConnection | undefined;
  readonly #reconnector: Reconnector;

  constructor({ plan, transfer, options, hello, keys }: SendSessionOptions) {
    this.#hello = hello;
    this.#plan = plan;
    this.#transfer = transfer;
    this.#options = options;
    this.#canAddSources = plan.watch !== undefined || plan.pipe !== undefined;
    for (const source of plan.sources) this.#sources.push(this.#createOutgoing(source));
    this.#reconnector = new Reconnector(transfer, keys, plan.spool !== undefined);
    this.#remover = new SentFileRemover(transfer.emit, () => this.#connection?.wake());
  }

  /** Only live sources change the stream name; others stay in the stream they began with. */
  #createOutgoing(source: FrameSource): OutgoingSource {
    const { streamNameAt, spool } = this.#plan;
    const outgoing = new OutgoingSource(
      this.#sources.length + 1,
      source,
      source.stopCapture === undefined ? undefined : streamNameAt,
    );
    // Another key began the session for which the spool numbered the frames.
    if (spool?.isSessionEnded === true) outgoing.beginSession();
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
    let isDelivered = false;
    try {
      if (signal?.aborted) throw new FramesError("interrupted");
      signal?.addEventListener("abort", stop);
      // With a spool, a report may be requested before the first connection.
      if (this.#plan.spool !== undefined) this.#emitProgress();
      for (const { input: source } of this.#sources) source.startCapture?.();
      const result = await this.#runConnections();
      await this.#remover.finish();
      const { removed, notRemoved } = this.#remover;
      isDelivered = true;
      return { ...result, retries: this.#reconnector.retries, removed, notRemoved };
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
        if (!isDelivered) this.#emitUnreportedLosses();
      }
    }
  }

  /** Emits losses that no LOST message reported, because there was no connection. */
  #emitUnreportedLosses(): void {
    for (const outgoing of this.#sources) {
      const source = outgoing.input.name;
      for (const loss of outgoing.drainUnreported()) {
        this.#transfer.emit({ type: "undelivered", report: { source, ...loss } });
      }
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
    this.#plan.spool?.endSession();
  }

  #createConnection(): SendConnection {
    const { checksum, move, receipts, onMessage, maxBytesPerSecond } = this.#options;
    return new SendConnection({
      ...this.#reconnector.connectionOptions,
      hello: this.#hello,
      sources: this.#sources,
      checksum: checksum === true || move === true,
      maxBytesPerSecond,
      reports: {
        settled: receipts === true,
        stored: move === true,
        messages: onMessage !== undefined,
      },
      onEvent: (event) => this.#onSenderEvent(event),
      onTick: () => this.#tick(),
      isPaused: () => this.#remover.isBehind,
      canAddSources: () => this.#canAddSources,
    });
  }

  /** Handles the events that concern the connection, and passes on those about frames. */
  #onSenderEvent(event: SenderEvent): void {
    switch (event.type) {
      case "welcome": {
        const { store } = event.welcome;
        this.#reconnector.onWelcome();
        this.#transfer.emit({
          type: "connected",
          address: this.#transfer.peer,
          store: store === undefined ? undefined : truncateMessage(store),
        });
        return this.#emitProgress();
      }
      case "stored":
        return this.#remover.add(event);
      case "conflict":
        return this.#remover.keep(event);
      case "message":
        return this.#options.onMessage?.(event.direction, event.line);
      default:
        this.#transfer.emit(event);
    }
  }

  #emitProgress(): void {
    this.#transfer.emitProgress(() => this.progress);
  }

  #tick(): void {
    this.#emitProgress();
    this.#updateProgress();
    this.#reconnector.checkProgress("the server confirmed no frame");
  }

  #updateProgress(): void {
    this.#reconnector.updateProgress(this.progress, this.#connection?.isIdle === true);
  }

  #stop(): void {
    this.#reconnector.interrupt();
    this.#remover.stop();
    this.#connection?.interrupt();
  }
}
