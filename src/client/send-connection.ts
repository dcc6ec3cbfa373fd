/** One connection of a sending client: joins a `Sender` and a socket. */
import type { Key } from "../auth/key.ts";
import {
  keyRequiredError,
  brokenError,
  closedEarlyError,
  translateError,
} from "./connection-errors.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { connect } from "../net/connect.ts";
import { monotonicNow } from "../common/clock.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { OutgoingSource } from "../protocol/send/outgoing-source.ts";
import { Sender } from "../protocol/send/sender.ts";
import type { SenderEvent } from "../protocol/send/sender-event.ts";
import type { SenderOptions } from "../protocol/send/sender-options.ts";
import { outgoingBufferBytes } from "../protocol/send/write-batch.ts";
import type { Done, Welcome } from "../wire/messages.ts";

/** Times are in milliseconds. */
export interface SendConnectionOptions extends Omit<
  SenderOptions,
  "timeoutMs" | "now" | "onWritable"
> {
  readonly address: Address;
  readonly timeout: number;
  readonly connectTimeout: number;
  /** Key to prove over TLS 1.3; without one the connection is plain. */
  readonly key: Key | undefined;
  /** Bandwidth limit in bytes a second. */
  readonly maxBytesPerSecond: number | undefined;
  /** Called with each event of the sender. */
  readonly onEvent: (event: SenderEvent) => void;
  /** Called about once a second; an error thrown here ends the connection. */
  readonly onTick: () => void;
}

/**
 * Time in milliseconds after which other events have their turn, because the socket of a fast link
 * may never be full.
 */
const maxPumpMs = 20;

/** Time that the server has to confirm frames in flight after a stop. */
const stopTimeoutMs = 10_000;

export class SendConnection implements ConnectionHandler {
  readonly #options: SendConnectionOptions;
  readonly #sources: readonly OutgoingSource[];
  readonly #sender: Sender;
  readonly #buffer = new Uint8Array(outgoingBufferBytes);
  readonly #finished = Promise.withResolvers<{ done: Done; welcome: Welcome }>();
  #connection: Connection | undefined;
  #isPumping = false;
  #isEnded = false;
  #isInterrupted = false;
  #isReceiving = false;
  #hasReceived = false;
  /** Error of a source; `run` rejects with it once the frames before it are confirmed. */
  #sourceFailure: { error: unknown } | undefined;
  #deadline: NodeJS.Timeout | undefined;

  constructor(options: SendConnectionOptions) {
    this.#options = options;
    this.#sources = options.sources;
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

  /**
   * Connects and sends until DONE.
   *
   * @throws {FramesError} if the connection failed; unsettled frames are back in their sources
   */
  async run(): Promise<{ done: Done; welcome: Welcome }> {
    try {
      const connecting = connect(
        this.#options.address,
        this,
        this.#options.connectTimeout,
        this.#options.key !== undefined,
        this.#options.maxBytesPerSecond,
      );
      // Race `#finished` while connecting too, so that `interrupt` need not wait for it.
      return await Promise.race([
        connecting.then(() => this.#finished.promise),
        this.#finished.promise,
      ]);
    } catch (error) {
      this.#end();
      this.#sender.returnToSources();
      this.#emitEvents();
      throw error;
    }
  }

  /** Sends what has become ready, such as after `isPaused` ended. */
  wake(): void {
    this.#pump();
  }

  /** Adds a source; fails the connection if the server accepts no more of them. */
  addSource(source: OutgoingSource): void {
    if (this.#isEnded) return;
    try {
      this.#sender.addSource(source);
    } catch (error) {
      this.fail(asFramesError(error, "internal"));
    }
  }

  /** Finishes the frames in flight, and ends; before WELCOME it fails at once. */
  interrupt(): void {
    this.#stop();
  }

  /** @param error of a source; without one the caller stops the connection */
  #stop(error?: unknown): void {
    if (this.#isInterrupted || this.#sourceFailure !== undefined) return;
    // Set the reason first, because `source.stop` may pump, and so fail with the source's error.
    if (error === undefined) this.#isInterrupted = this.#sources.some((one) => one.hasUnsent);
    else this.#sourceFailure = { error };
    for (const source of this.#sources) source.stop();
    // Before WELCOME no frame is in flight.
    if (this.#sender.welcome === undefined) {
      const message = `Interrupted before ${this.#peer()} accepted frames`;
      return this.#fail(error ?? new FramesError("interrupted", message));
    }
    this.#deadline = setTimeout(() => {
      const message = `Interrupted: ${this.#peer()} did not confirm the last frames in time`;
      this.#fail(error ?? new FramesError("interrupted", message));
    }, stopTimeoutMs);
    this.#pump();
  }

  get tickIntervalMs(): number {
    return Math.min(1000, this.#options.timeout / 4);
  }

  onOpen(connection: Connection): void {
    this.#connection = connection;
    if (this.#isEnded) return connection.terminate();
    this.#sender.onConnected(monotonicNow(), connection.exporter);
    this.#pump();
  }

  /** Sends until the socket is full or no message is ready. */
  #pump(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#isPumping || this.#isReceiving || this.#isEnded) return;
    this.#isPumping = true;
    try {
      const pauseAt = monotonicNow() + maxPumpMs;
      // The buffer can be reused only when the socket has accepted all of it.
      while (connection.queuedBytes === 0 && !connection.isClosed) {
        const now = monotonicNow();
        if (now > pauseAt) return void setImmediate(() => this.#pump());
        const { length, piece } = this.#sender.transmit(this.#buffer, now);
        this.#emitEvents();
        if (length === 0) break;
        connection.send(this.#buffer.subarray(0, length));
        if (piece !== undefined) connection.send(piece);
      }
    } catch (error) {
      this.fail(asFramesError(error, "internal"));
    } finally {
      this.#isPumping = false;
    }
    const { failure } = this.#sender;
    // A source may fail because it was stopped; ignore that.
    if (failure !== undefined && !this.#isInterrupted) this.#stop(failure.error);
  }

  onData(chunk: Uint8Array): void {
    if (this.#isEnded) return;
    if (!this.#hasReceived && this.#options.key === undefined) {
      const keyRequired = keyRequiredError(chunk, this.#peer());
      if (keyRequired !== undefined) return this.#fail(keyRequired);
    }
    this.#hasReceived = true;
    // The sender may call `onWritable` several times for one chunk; pump once, afterwards.
    this.#isReceiving = true;
    try {
      this.#sender.receive(chunk, monotonicNow());
    } finally {
      this.#isReceiving = false;
      this.#emitEvents();
    }
    const { done, welcome } = this.#sender;
    if (done === undefined || welcome === undefined) return this.#pump();
    this.#end();
    this.#connection!.finish();
    if (this.#sourceFailure === undefined) this.#finished.resolve({ done, welcome });
    else this.#finished.reject(this.#sourceFailure.error);
  }

  onDrain(): void {
    this.#pump();
  }

  tick(): void {
    if (this.#isEnded) return;
    this.#options.onTick();
    this.#sender.tick(monotonicNow());
  }

  onEnd(): void {
    this.#fail(closedEarlyError(this.#peer(), this.#sender.welcome !== undefined, "delivered"));
  }

  fail(failure: FramesError): void {
    const { error, wireError } = translateError(failure, this.#peer(), {
      hasKey: this.#options.key !== undefined,
      isWelcomed: this.#sender.welcome !== undefined,
      timeoutMs: this.#options.timeout,
    });
    this.#fail(error, wireError);
  }

  onClose(error: FramesError | undefined): void {
    if (error === undefined) return this.onEnd();
    this.#fail(brokenError(this.#peer(), error));
  }

  /** @param wireError sent to the server as ERROR; default `error`, if that is a FramesError */
  #fail(error: unknown, wireError?: FramesError): void {
    if (this.#isEnded) return;
    this.#end();
    this.#finished.reject(error);
    const connection = this.#connection;
    if (connection === undefined) return;
    const reason = wireError ?? (error instanceof FramesError ? error : undefined);
    // Send ERROR only if no bytes are queued, because the server would have to read them first.
    if (reason === undefined || connection.queuedBytes > 0 || connection.isClosed) {
      return connection.terminate();
    }
    this.#sender.fail(reason);
    const { length } = this.#sender.transmit(this.#buffer, monotonicNow());
    this.#emitEvents();
    connection.send(this.#buffer.subarray(0, length));
    connection.finish();
  }

  #emitEvents(): void {
    for (const event of this.#sender.takeEvents()) this.#options.onEvent(event);
  }

  #end(): void {
    this.#isEnded = true;
    clearTimeout(this.#deadline);
  }

  #peer(): string {
    return formatAddress(this.#options.address);
  }
}
