/** One TCP connection: bytes in, bytes out through a bounded outbox, and an end that loses nothing. */
import type { Socket } from "bun";
import { asFramesError, FramesError } from "../errors.ts";
import { Outbox } from "./outbox.ts";
import { PacedSocket } from "./pace.ts";

/** Milliseconds since 1970 by a clock that never jumps. */
export function steadyNow(): number {
  return performance.timeOrigin + performance.now();
}

/** What a connection tells. An error that another method throws goes to `failed`. */
export interface ConnectionHandler {
  /** The first call. */
  opened(connection: Connection): void;
  /** Bytes came. They are good until this returns. */
  data(chunk: Uint8Array): void;
  /** The outbox is empty: more can be sent. */
  drained(): void;
  /** The peer sends nothing more. */
  ended(): void;
  /** Milliseconds between two calls of `tick`. */
  readonly tickEvery: number;
  tick(): void;
  /** The conversation failed while the socket was open: the handler ends the connection. */
  failed(error: FramesError): void;
  /** The socket is closed; the last call. `error` says why, if the network broke it. */
  closed(error: FramesError | undefined): void;
}

/** A peer that was sent ERROR gets this long, in milliseconds, to close as well (SPEC section 7). */
const lingerFor = 2_000;

export class Connection {
  readonly #socket: Socket<unknown>;
  readonly #pace: PacedSocket | undefined;
  readonly #outbox: Outbox;
  #handler: ConnectionHandler;
  readonly #ticker: NodeJS.Timeout;
  /** What its TLS channel exports (RFC 9266); nothing of a plain connection. */
  readonly exporter: Uint8Array | undefined;
  /** To be called when the peer has said, and proved where that is asked for, who it is. */
  readonly known: () => void;
  #finishing = false;
  #linger: NodeJS.Timeout | undefined;
  #lingerWithin = Infinity;
  #closed = false;

  /**
   * @param known is called when it is known who the peer is
   * @param rate bytes a second that are sent at most
   */
  constructor(
    socket: Socket<unknown>,
    handler: ConnectionHandler,
    exporter?: Uint8Array,
    known: () => void = () => {},
    rate?: number,
  ) {
    this.known = known;
    this.#socket = socket;
    this.exporter = exporter;
    if (rate !== undefined) {
      this.#pace = new PacedSocket(socket, rate, steadyNow, () => this.writable());
    }
    this.#outbox = new Outbox(this.#pace ?? socket);
    this.#handler = handler;
    const tick = () => this.#guard(() => this.#handler.tick());
    this.#ticker = setInterval(tick, handler.tickEvery);
  }

  /** From now on another one is told. Its `opened` is not called. */
  handOver(handler: ConnectionHandler): void {
    this.#handler = handler;
  }

  /** Bytes that wait for the peer to read. */
  get queued(): number {
    return this.#outbox.queued;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Sends bytes; the caller leaves them alone until `drained`, or until `queued` is 0. */
  send(bytes: Uint8Array): void {
    if (!this.#closed && !this.#finishing) this.#outbox.send(bytes);
  }

  /** Stops reading: the peer is held back by TCP. */
  pause(): void {
    if (!this.#closed) this.#socket.pause();
  }

  resume(): void {
    if (!this.#closed) this.#socket.resume();
  }

  /**
   * Sends what is queued, then a FIN, and reads on until the peer closes too: closing with unread
   * bytes would reset the connection, and the peer would lose what it has not read yet.
   *
   * @param within milliseconds that the peer may take, from each time it takes bytes. A second call
   * can shorten it.
   */
  finish(within: number = lingerFor): void {
    if (this.#closed || within >= this.#lingerWithin) return;
    this.#lingerWithin = within;
    this.#lingerOn();
    if (this.#finishing) return;
    this.#finishing = true;
    // The peer's FIN must be seen.
    this.#socket.resume();
    if (this.#outbox.queued === 0) this.#socket.shutdown();
  }

  #lingerOn(): void {
    clearTimeout(this.#linger);
    this.#linger = setTimeout(() => this.terminate(), this.#lingerWithin);
  }

  /** Closes at once. */
  terminate(): void {
    if (!this.#closed) this.#socket.terminate();
  }

  /** Ends it from outside, for `error`. */
  fail(error: FramesError): void {
    if (!this.#closed) this.#handler.failed(error);
  }

  // What the socket tells.

  opened(): void {
    this.#guard(() => this.#handler.opened(this));
  }

  received(chunk: Uint8Array): void {
    this.#guard(() => this.#handler.data(chunk));
    // Bun makes a new buffer for each chunk. Left to the garbage collector, a few dozen MB of them lie
    // about; given back at once, the next chunk comes in memory that the processor still has at hand.
    (chunk.buffer as ArrayBuffer).transfer(0);
  }

  writable(): void {
    if (this.#closed) return;
    if (this.#finishing) this.#lingerOn();
    if (!this.#outbox.flush()) return;
    if (this.#finishing) this.#socket.shutdown();
    else this.#guard(() => this.#handler.drained());
  }

  endReceived(): void {
    this.#guard(() => this.#handler.ended());
  }

  closeReceived(error: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#linger);
    this.#pace?.stop();
    this.#outbox.clear();
    this.#handler.closed(
      error === undefined || error === null ? undefined : asFramesError(error, "network"),
    );
  }

  #guard(act: () => void): void {
    if (this.#closed) return;
    try {
      act();
    } catch (error) {
      this.#handler.failed(asFramesError(error, "internal"));
    }
  }
}

/** The handlers that lead a Bun socket's events to its Connection; a socket that came too late has none. */
export const socketEvents = {
  data(socket: Socket<Connection | undefined>, chunk: Uint8Array) {
    socket.data?.received(chunk);
  },
  drain(socket: Socket<Connection | undefined>) {
    socket.data?.writable();
  },
  end(socket: Socket<Connection | undefined>) {
    socket.data?.endReceived();
  },
  close(socket: Socket<Connection | undefined>, error?: Error) {
    socket.data?.closeReceived(error);
  },
  error(socket: Socket<Connection | undefined>, error: Error) {
    socket.data?.closeReceived(error);
    socket.terminate();
  },
};
