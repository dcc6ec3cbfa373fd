/** One connection of a sending client: joins a `Sender` and a socket. */
import { ClientConnection, type ClientConnectionOptions } from "./client-connection.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { monotonicNow } from "../common/clock.ts";
import type { Connection } from "../net/connection.ts";
import type { OutgoingSource } from "../protocol/send/outgoing-source.ts";
import { Sender } from "../protocol/send/sender.ts";
import type { SenderEvent } from "../protocol/send/sender-event.ts";
import type { SenderOptions } from "../protocol/send/sender-options.ts";
import { outgoingBufferBytes } from "../protocol/send/write-batch.ts";
import type { Done, Welcome } from "../wire/messages.ts";

export interface SendConnectionOptions
  extends ClientConnectionOptions, Omit<SenderOptions, "timeoutMs" | "now" | "onWritable"> {
  /** Called with each event of the sender. */
  readonly onEvent: (event: SenderEvent) => void;
}

/** What the server said when everything was delivered. */
export interface SendConnectionResult {
  readonly done: Done;
  readonly welcome: Welcome;
}

/**
 * Time in milliseconds after which other events have their turn, because the socket of a fast link
 * may never be full.
 */
const maxPumpMs = 20;

export class SendConnection extends ClientConnection<SendConnectionResult> {
  protected readonly verb = "delivered";
  readonly #options: SendConnectionOptions;
  readonly #sender: Sender;
  readonly #buffer = new Uint8Array(outgoingBufferBytes);
  #isInterrupted = false;
  /** Error of a source; `run` rejects with it once the frames before it are confirmed. */
  #sourceFailure: { error: unknown } | undefined;

  constructor(options: SendConnectionOptions) {
    super(options);
    this.#options = options;
    this.#sender = new Sender({
      ...options,
      timeoutMs: options.timeout,
      now: monotonicNow(),
      onWritable: () => this.wake(),
    });
  }

  /** Whether `interrupt` was called before all frames were sent. */
  get isInterrupted(): boolean {
    return this.#isInterrupted;
  }

  /** Whether no receipt and no answer of the server is outstanding. */
  get isIdle(): boolean {
    return this.#sender.isIdle;
  }

  protected get isWelcomed(): boolean {
    return this.#sender.welcome !== undefined;
  }

  /** Adds a source; fails the connection if the server accepts no more of them. */
  addSource(source: OutgoingSource): void {
    if (this.isEnded) return;
    try {
      this.#sender.addSource(source);
    } catch (error) {
      this.fail(asFramesError(error, "internal"));
    }
  }

  /** Finishes the frames in flight, and ends; before WELCOME it fails at once. */
  interrupt(): void {
    const early = `Interrupted before ${this.peer} accepted frames`;
    const late = `Interrupted: ${this.peer} did not confirm the last frames in time`;
    const isFirst = this.beginStop(
      new FramesError("interrupted", early),
      new FramesError("interrupted", late),
    );
    if (!isFirst) return;
    this.#isInterrupted = this.#options.sources.some((source) => source.hasUnsent);
    this.#sender.announceStop(monotonicNow());
    this.#stopSources();
  }

  /** Finishes the frames before the error of a source, and fails with it. */
  #stopAt(error: unknown): void {
    if (!this.beginStop(error, error)) return;
    this.#sourceFailure = { error };
    this.#stopSources();
  }

  #stopSources(): void {
    for (const source of this.#options.sources) source.stop();
    this.wake();
  }

  protected onConnected(now: number, exporter: Uint8Array | undefined): void {
    this.#sender.onConnected(now, exporter);
  }

  /** Sends until the socket is full or no message is ready. */
  protected send(connection: Connection): void {
    const pauseAt = monotonicNow() + maxPumpMs;
    // The buffer can be reused only when the socket has accepted all of it.
    while (connection.queuedBytes === 0 && !connection.isClosed) {
      const now = monotonicNow();
      if (now > pauseAt) {
        setImmediate(() => this.wake());
        break;
      }
      const { length, piece } = this.#sender.transmit(this.#buffer, now);
      this.#emitEvents();
      if (length === 0) break;
      connection.send(this.#buffer.subarray(0, length));
      if (piece !== undefined) connection.send(piece);
    }
    const { failure } = this.#sender;
    // Ignored after `interrupt`, because a source may fail because it was stopped.
    if (failure !== undefined) this.#stopAt(failure.error);
  }

  protected receive(chunk: Uint8Array, now: number): void {
    try {
      this.#sender.receive(chunk, now);
    } finally {
      this.#emitEvents();
    }
    const { done, welcome } = this.#sender;
    if (done === undefined || welcome === undefined) return;
    if (this.#sourceFailure === undefined) this.complete({ done, welcome });
    else this.failWith(this.#sourceFailure.error);
  }

  protected checkTimeouts(now: number): void {
    this.#sender.tick(now);
  }

  protected leave(connection: Connection, reason: FramesError | undefined): void {
    if (this.#sender.done !== undefined) return connection.finish();
    // ERROR is sent only if no bytes are queued, because the server would have to read them first.
    if (reason === undefined || connection.queuedBytes > 0) return connection.terminate();
    this.#sender.fail(reason);
    const { length } = this.#sender.transmit(this.#buffer, monotonicNow());
    this.#emitEvents();
    connection.send(this.#buffer.subarray(0, length));
    connection.finish();
  }

  protected release(): void {
    this.#sender.returnToSources();
    this.#emitEvents();
  }

  #emitEvents(): void {
    for (const event of this.#sender.takeEvents()) this.#options.onEvent(event);
  }
}
