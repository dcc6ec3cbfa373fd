/** What one connection sends of a delivery: joins a sender and a socket. */
import type { Key } from "../auth/key.ts";
import { asksForKey, broken, closedEarly, conversationError } from "./errors.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { connect } from "../net/connect.ts";
import { type Connection, type ConnectionHandler, steadyNow } from "../net/connection.ts";
import type { Outlet } from "../session/outlet.ts";
import { Sender, type SenderEvents } from "../session/sender.ts";
import { outgoingBuffer } from "../session/transmission.ts";
import type { Done, Hello, Welcome } from "../wire/messages.ts";

/** How one connection goes. Times are in milliseconds. */
export interface DispatchOptions {
  readonly timeout: number;
  readonly connectWithin: number;
  /** Is proved over TLS 1.3; without it the connection is plain. */
  readonly key: Key | undefined;
  /** Whether every frame that may be there is compared by CRC-32. */
  readonly checksum: boolean;
  /** Bytes a second that are sent at most. */
  readonly rate: number | undefined;
}

/** What a dispatch tells. */
export interface DispatchEvents extends Omit<SenderEvents, "wake"> {
  /** About once a second. What it throws ends the connection. */
  tick(): void;
}

/** What is on its way when a delivery is stopped gets this long, in milliseconds. */
const stopWithin = 10_000;

/** What one connection sends of a delivery. */
export class Dispatch implements ConnectionHandler {
  readonly #address: Address;
  readonly #options: DispatchOptions;
  readonly #events: DispatchEvents;
  readonly #outlets: readonly Outlet[];
  readonly #sender: Sender;
  readonly #buffer = new Uint8Array(outgoingBuffer);
  readonly #finished = Promise.withResolvers<{ done: Done; welcome: Welcome }>();
  #connection: Connection | undefined;
  #pumping = false;
  #ended = false;
  #interrupted = false;
  #receiving = false;
  #heard = false;
  /** What a source threw: told when what it gave before is safe. */
  #failure: { error: unknown } | undefined;
  #deadline: NodeJS.Timeout | undefined;

  constructor(
    address: Address,
    hello: Hello,
    outlets: readonly Outlet[],
    options: DispatchOptions,
    events: DispatchEvents,
  ) {
    this.#address = address;
    this.#options = options;
    this.#events = events;
    this.#outlets = outlets;
    this.#sender = new Sender(
      outlets,
      hello,
      options,
      options.timeout,
      steadyNow(),
      {
        ...events,
        wake: () => this.wake(),
      },
      options.key,
    );
  }

  /** Whether it was stopped before everything was sent. */
  get isInterrupted(): boolean {
    return this.#interrupted;
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
        this.#options.connectWithin,
        this.#options.key !== undefined,
        this.#options.rate,
      );
      // Whichever fails first is told: when the delivery is stopped, nobody waits for a connection.
      return await Promise.race([
        connecting.then(() => this.#finished.promise),
        this.#finished.promise,
      ]);
    } catch (error) {
      this.#end();
      this.#sender.abandon();
      throw error;
    }
  }

  /** Something can be sent that could not before. */
  wake(): void {
    this.#pump();
  }

  /** Another source came. */
  added(outlet: Outlet): void {
    if (this.#ended) return;
    try {
      this.#sender.added(outlet);
    } catch (error) {
      this.failed(asFramesError(error, "internal"));
    }
  }

  /** Sends nothing more than what is on its way. */
  interrupt(): void {
    this.#stop();
  }

  /** Finishes what is on its way, for `error` if there is one. */
  #stop(error?: unknown): void {
    if (this.#interrupted || this.#failure !== undefined) return;
    // First what it is for: stopping sends on, and may meet the source's error on the way.
    if (error === undefined) this.#interrupted = this.#outlets.some((one) => one.isCutShort);
    else this.#failure = { error };
    for (const outlet of this.#outlets) outlet.stop();
    // Nothing is on its way yet.
    if (this.#sender.welcome === undefined) {
      const message = `Interrupted before ${this.#where()} took the frames`;
      return this.#fail(error ?? new FramesError("interrupted", message));
    }
    this.#deadline = setTimeout(() => {
      const message = `Interrupted: ${this.#where()} did not confirm the last frames in time`;
      this.#fail(error ?? new FramesError("interrupted", message));
    }, stopWithin);
    this.#pump();
  }

  get tickEvery(): number {
    return Math.min(1000, this.#options.timeout / 4);
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    if (this.#ended) return connection.terminate();
    this.#sender.connected(steadyNow(), connection.exporter);
    this.#pump();
  }

  /** Sends what there is, until the socket is full or nothing is ready. */
  #pump(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#pumping || this.#receiving || this.#ended) return;
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
      this.failed(asFramesError(error, "internal"));
    } finally {
      this.#pumping = false;
    }
    const { failure } = this.#sender;
    // What a source throws when it was told to stop says nothing new.
    if (failure !== undefined && !this.#interrupted) this.#stop(failure.error);
  }

  data(chunk: Uint8Array): void {
    if (this.#ended) return;
    if (!this.#heard && this.#options.key === undefined) {
      const asks = asksForKey(chunk, this.#where());
      if (asks !== undefined) return this.#fail(asks);
    }
    this.#heard = true;
    // The machine may wake us several times for one chunk.
    this.#receiving = true;
    try {
      this.#sender.receive(chunk, steadyNow());
    } finally {
      this.#receiving = false;
    }
    const { done, welcome } = this.#sender;
    if (done === undefined || welcome === undefined) return this.#pump();
    this.#end();
    this.#connection!.finish();
    if (this.#failure === undefined) this.#finished.resolve({ done, welcome });
    else this.#finished.reject(this.#failure.error);
  }

  drained(): void {
    this.#pump();
  }

  tick(): void {
    if (this.#ended) return;
    this.#events.tick();
    this.#sender.tick(steadyNow());
  }

  ended(): void {
    this.#fail(closedEarly(this.#where(), this.#sender.welcome !== undefined, "delivered"));
  }

  failed(failure: FramesError): void {
    const hasKey = this.#options.key !== undefined;
    const { error, said } = conversationError(failure, this.#where(), hasKey);
    this.#fail(error, said);
  }

  closed(error: FramesError | undefined): void {
    if (error === undefined) return this.ended();
    this.#fail(broken(this.#where(), error));
  }

  /** @param said what the server is told, if it can be */
  #fail(error: unknown, said?: FramesError): void {
    if (this.#ended) return;
    this.#end();
    this.#finished.reject(error);
    const connection = this.#connection;
    if (connection === undefined) return;
    const reason = said ?? (error instanceof FramesError ? error : undefined);
    // Only behind a whole message: what waits already would have to be read first.
    if (reason === undefined || connection.queued > 0 || connection.isClosed) {
      return connection.terminate();
    }
    this.#sender.fail(reason);
    const { length } = this.#sender.transmit(this.#buffer, steadyNow());
    connection.send(this.#buffer.subarray(0, length));
    connection.finish();
  }

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#deadline);
  }

  #where(): string {
    return formatAddress(this.#address);
  }
}
