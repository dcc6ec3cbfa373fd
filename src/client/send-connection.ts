/** What one connection sends of a delivery: joins a sender and a socket. */
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
import { Sender, type SenderEvents } from "../protocol/send/sender.ts";
import { outgoingBufferBytes } from "../protocol/send/write-batch.ts";
import type { Done, Hello, Welcome } from "../wire/messages.ts";

/** How one connection goes. Times are in milliseconds. */
export interface SendConnectionOptions {
  readonly timeout: number;
  readonly connectTimeout: number;
  /** Is proved over TLS 1.3; without it the connection is plain. */
  readonly key: Key | undefined;
  /** Whether every frame that may be there is compared by CRC-32. */
  readonly checksum: boolean;
  /** Bytes a second that are sent at most. */
  readonly maxBytesPerSecond: number | undefined;
}

/** What a dispatch tells. */
export interface SendConnectionEvents extends Omit<SenderEvents, "onWritable"> {
  /** About once a second. What it throws ends the connection. */
  onTick(): void;
}

/** What is on its way when a delivery is stopped gets this long, in milliseconds. */
const stopTimeoutMs = 10_000;

/** What one connection sends of a delivery. */
export class SendConnection implements ConnectionHandler {
  readonly #address: Address;
  readonly #options: SendConnectionOptions;
  readonly #events: SendConnectionEvents;
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
  /** What a source threw: told when what it gave before is safe. */
  #sourceFailure: { error: unknown } | undefined;
  #deadline: NodeJS.Timeout | undefined;

  constructor(
    address: Address,
    hello: Hello,
    sources: readonly OutgoingSource[],
    options: SendConnectionOptions,
    events: SendConnectionEvents,
  ) {
    this.#address = address;
    this.#options = options;
    this.#events = events;
    this.#sources = sources;
    this.#sender = new Sender(
      sources,
      hello,
      options,
      options.timeout,
      monotonicNow(),
      {
        ...events,
        onWritable: () => this.wake(),
      },
      options.key,
    );
  }

  /** Whether it was stopped before everything was sent. */
  get isInterrupted(): boolean {
    return this.#isInterrupted;
  }

  /** Whether the server owes no receipt and no answer. */
  get isIdle(): boolean {
    return this.#sender.isIdle;
  }

  /**
   * Connects and sends until DONE.
   *
   * @throws {FramesError} if the connection failed; what is not settled is back in its outlets
   */
  async run(): Promise<{ done: Done; welcome: Welcome }> {
    try {
      const connecting = connect(
        this.#address,
        this,
        this.#options.connectTimeout,
        this.#options.key !== undefined,
        this.#options.maxBytesPerSecond,
      );
      // Whichever fails first is told: when the delivery is stopped, nobody waits for a connection.
      return await Promise.race([
        connecting.then(() => this.#finished.promise),
        this.#finished.promise,
      ]);
    } catch (error) {
      this.#end();
      this.#sender.returnToSources();
      throw error;
    }
  }

  /** Something can be sent that could not before. */
  wake(): void {
    this.#pump();
  }

  /** Another source came. */
  addSource(source: OutgoingSource): void {
    if (this.#isEnded) return;
    try {
      this.#sender.addSource(source);
    } catch (error) {
      this.fail(asFramesError(error, "internal"));
    }
  }

  /** Sends nothing more than what is on its way. */
  interrupt(): void {
    this.#stop();
  }

  /** Finishes what is on its way, for `error` if there is one. */
  #stop(error?: unknown): void {
    if (this.#isInterrupted || this.#sourceFailure !== undefined) return;
    // First what it is for: stopping sends on, and may meet the source's error on the way.
    if (error === undefined) this.#isInterrupted = this.#sources.some((one) => one.hasUnsent);
    else this.#sourceFailure = { error };
    for (const source of this.#sources) source.stop();
    // Nothing is on its way yet.
    if (this.#sender.welcome === undefined) {
      const message = `Interrupted before ${this.#peer()} took the frames`;
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

  /** Sends what there is, until the socket is full or nothing is ready. */
  #pump(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#isPumping || this.#isReceiving || this.#isEnded) return;
    this.#isPumping = true;
    try {
      // The buffer is free again as soon as nothing of it is queued.
      while (connection.queuedBytes === 0 && !connection.isClosed) {
        const { length, piece } = this.#sender.transmit(this.#buffer, monotonicNow());
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
    // What a source throws when it was told to stop says nothing new.
    if (failure !== undefined && !this.#isInterrupted) this.#stop(failure.error);
  }

  onData(chunk: Uint8Array): void {
    if (this.#isEnded) return;
    if (!this.#hasReceived && this.#options.key === undefined) {
      const keyRequired = keyRequiredError(chunk, this.#peer());
      if (keyRequired !== undefined) return this.#fail(keyRequired);
    }
    this.#hasReceived = true;
    // The machine may wake us several times for one chunk.
    this.#isReceiving = true;
    try {
      this.#sender.receive(chunk, monotonicNow());
    } finally {
      this.#isReceiving = false;
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
    this.#events.onTick();
    this.#sender.tick(monotonicNow());
  }

  onEnd(): void {
    this.#fail(closedEarlyError(this.#peer(), this.#sender.welcome !== undefined, "delivered"));
  }

  fail(failure: FramesError): void {
    const hasKey = this.#options.key !== undefined;
    const { error, wireError } = translateError(failure, this.#peer(), hasKey);
    this.#fail(error, wireError);
  }

  onClose(error: FramesError | undefined): void {
    if (error === undefined) return this.onEnd();
    this.#fail(brokenError(this.#peer(), error));
  }

  /** @param wireError what the server is told, if it can be */
  #fail(error: unknown, wireError?: FramesError): void {
    if (this.#isEnded) return;
    this.#end();
    this.#finished.reject(error);
    const connection = this.#connection;
    if (connection === undefined) return;
    const reason = wireError ?? (error instanceof FramesError ? error : undefined);
    // Only behind a whole message: what waits already would have to be read first.
    if (reason === undefined || connection.queuedBytes > 0 || connection.isClosed) {
      return connection.terminate();
    }
    this.#sender.fail(reason);
    const { length } = this.#sender.transmit(this.#buffer, monotonicNow());
    connection.send(this.#buffer.subarray(0, length));
    connection.finish();
  }

  #end(): void {
    this.#isEnded = true;
    clearTimeout(this.#deadline);
  }

  #peer(): string {
    return formatAddress(this.#address);
  }
}
