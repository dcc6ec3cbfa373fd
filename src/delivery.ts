/** One delivery over one connection: joins a sender and a socket. */
import { FramesError } from "./errors.ts";
import type { FrameSource } from "./frame.ts";
import { type Address, formatAddress } from "./net/address.ts";
import { connect } from "./net/connect.ts";
import { type Connection, type ConnectionHandler, steadyNow } from "./net/connection.ts";
import type { SourceProgress } from "./session/outlet.ts";
import { Sender, type SenderEvents } from "./session/sender.ts";
import { outgoingBuffer } from "./session/transmission.ts";
import type { Done, Hello, Welcome } from "./wire/messages.ts";

/** Times are in milliseconds. */
export interface DeliveryOptions {
  readonly timeout: number;
  readonly connectWithin: number;
  /** Aborting it stops the delivery: what is on its way is finished, for 10 s at most. */
  readonly signal: AbortSignal | undefined;
}

/** What a delivery tells. */
export interface DeliveryEvents extends Omit<SenderEvents, "wake"> {
  /** About once a second. */
  tick(sources: readonly SourceProgress[]): void;
}

/** What is on its way when a delivery is stopped gets this long, in milliseconds. */
const stopWithin = 10_000;

/** One connection's delivery. */
export class Delivery implements ConnectionHandler {
  readonly #address: Address;
  readonly #options: DeliveryOptions;
  readonly #events: DeliveryEvents;
  readonly #sender: Sender;
  readonly #buffer = new Uint8Array(outgoingBuffer);
  readonly #finished = Promise.withResolvers<{ done: Done; welcome: Welcome }>();
  #connection: Connection | undefined;
  #pumping = false;
  #ended = false;
  #interrupted = false;

  constructor(
    address: Address,
    hello: Hello,
    sources: readonly FrameSource[],
    options: DeliveryOptions,
    events: DeliveryEvents,
  ) {
    this.#address = address;
    this.#options = options;
    this.#events = events;
    this.#sender = new Sender(sources, hello, options.timeout, steadyNow(), {
      ...events,
      wake: () => this.#pump(),
    });
  }

  get progress(): readonly SourceProgress[] {
    return this.#sender.progress;
  }

  /** Whether it was stopped before everything was sent. */
  get isInterrupted(): boolean {
    return this.#interrupted;
  }

  async run(): Promise<{ done: Done; welcome: Welcome }> {
    const { signal, connectWithin } = this.#options;
    const stop = () => this.#stop();
    try {
      if (signal?.aborted) throw new FramesError("interrupted");
      signal?.addEventListener("abort", stop);
      const connecting = connect(this.#address, this, connectWithin);
      // Whichever fails first is told: when the delivery is stopped, nobody waits for a connection.
      return await Promise.race([
        connecting.then(() => this.#finished.promise),
        this.#finished.promise,
      ]);
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#sender.close();
    }
  }

  #stop(): void {
    this.#interrupted = this.#sender.stop();
    // Nothing is on its way yet.
    if (this.#sender.welcome === undefined) return this.#fail(new FramesError("interrupted"));
    setTimeout(() => {
      this.#fail(new FramesError("interrupted", "Stopped: the server did not confirm in time"));
    }, stopWithin).unref();
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    if (this.#ended) return connection.terminate();
    this.#sender.connected(steadyNow());
    this.#pump();
  }

  /** Sends what there is, until the socket is full or nothing is ready. */
  #pump(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#pumping || this.#ended) return;
    this.#pumping = true;
    try {
      // The buffer is free again as soon as nothing of it is queued.
      while (connection.queued === 0 && !connection.isClosed) {
        const { length, piece } = this.#sender.transmit(this.#buffer, steadyNow());
        if (length === 0) break;
        connection.send(this.#buffer.subarray(0, length));
        if (piece !== undefined) connection.send(piece);
      }
    } catch (error) {
      this.failed(
        error instanceof FramesError ? error : new FramesError("internal", String(error)),
      );
    } finally {
      this.#pumping = false;
    }
    if (this.#sender.failure !== undefined) this.#fail(this.#sender.failure.error);
  }

  data(chunk: Uint8Array): void {
    if (this.#ended) return;
    this.#sender.receive(chunk, steadyNow());
    const { done, welcome } = this.#sender;
    if (done === undefined || welcome === undefined) return this.#pump();
    this.#ended = true;
    this.#connection!.finish();
    this.#finished.resolve({ done, welcome });
  }

  drained(): void {
    this.#pump();
  }

  tick(): void {
    if (this.#ended) return;
    this.#events.tick(this.#sender.progress);
    this.#sender.tick(steadyNow());
  }

  ended(): void {
    this.failed(new FramesError("network", `${this.#where()} closed the connection too early`));
  }

  failed(error: FramesError): void {
    if (error.code !== "foreign") return this.#fail(error);
    const message = `${this.#where()} is no frames server: ${error.message}`;
    this.#fail(new FramesError("foreign", message));
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#finished.reject(error);
    this.#connection?.terminate();
  }

  closed(error: FramesError | undefined): void {
    const why = error?.message ?? "closed the connection too early";
    this.#fail(new FramesError("network", `The connection to ${this.#where()} broke: ${why}`));
  }

  #where(): string {
    return formatAddress(this.#address);
  }
}
