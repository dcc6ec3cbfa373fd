/** One TCP connection: bytes in, bytes out through a bounded outbox, and an end that loses nothing. */
import type { Socket } from "bun";
import { monotonicNow } from "../common/clock.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { WriteQueue } from "./write-queue.ts";
import { PacedSocket } from "./paced-socket.ts";

/** What a connection tells. An error that another method throws goes to `failed`. */
export interface ConnectionHandler {
  /** The first call. */
  onOpen(connection: Connection): void;
  /** Bytes came. They are good until this returns. */
  onData(chunk: Uint8Array): void;
  /** The outbox is empty: more can be sent. */
  onDrain(): void;
  /** The peer sends nothing more. */
  onEnd(): void;
  /** Milliseconds between two calls of `tick`. */
  readonly tickIntervalMs: number;
  tick(): void;
  /** The conversation failed while the socket was open: the handler ends the connection. */
  fail(error: FramesError): void;
  /** The socket is closed; the last call. `error` says why, if the network broke it. */
  onClose(error: FramesError | undefined): void;
}

/** A peer that was sent ERROR gets this long, in milliseconds, to close as well (SPEC section 7). */
const lingerTimeoutMs = 2_000;

export class Connection {
  readonly #socket: Socket<unknown>;
  readonly #pacedSocket: PacedSocket | undefined;
  readonly #writeQueue: WriteQueue;
  #handler: ConnectionHandler;
  readonly #ticker: NodeJS.Timeout;
  /** What its TLS channel exports (RFC 9266); nothing of a plain connection. */
  readonly exporter: Uint8Array | undefined;
  /** To be called when the peer has said, and proved where that is asked for, who it is. */
  readonly markIdentified: () => void;
  #isFinishing = false;
  #lingerTimer: NodeJS.Timeout | undefined;
  #lingerTimeoutMs = Infinity;
  #isClosed = false;

  /**
   * @param markIdentified is called when it is known who the peer is
   * @param bytesPerSecond bytes a second that are sent at most
   */
  constructor(
    socket: Socket<unknown>,
    handler: ConnectionHandler,
    exporter?: Uint8Array,
    markIdentified: () => void = () => {},
    bytesPerSecond?: number,
  ) {
    this.markIdentified = markIdentified;
    this.#socket = socket;
    this.exporter = exporter;
    if (bytesPerSecond !== undefined) {
      this.#pacedSocket = new PacedSocket(socket, bytesPerSecond, monotonicNow, () =>
        this.onWritable(),
      );
    }
    this.#writeQueue = new WriteQueue(this.#pacedSocket ?? socket);
    this.#handler = handler;
    const tick = () => this.#callHandler(() => this.#handler.tick());
    this.#ticker = setInterval(tick, handler.tickIntervalMs);
  }

  /** From now on another one is told. Its `opened` is not called. */
  setHandler(handler: ConnectionHandler): void {
    this.#handler = handler;
  }

  /** Bytes that wait for the peer to read. */
  get queuedBytes(): number {
    return this.#writeQueue.queuedBytes;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Sends bytes; the caller leaves them alone until `drained`, or until `queued` is 0. */
  send(bytes: Uint8Array): void {
    if (!this.#isClosed && !this.#isFinishing) this.#writeQueue.send(bytes);
  }

  /** Stops reading: the peer is held back by TCP. */
  pause(): void {
    if (!this.#isClosed) this.#socket.pause();
  }

  resume(): void {
    if (!this.#isClosed) this.#socket.resume();
  }

  /**
   * Sends what is queued, then a FIN, and reads on until the peer closes too: closing with unread
   * bytes would reset the connection, and the peer would lose what it has not read yet.
   *
   * @param timeoutMs milliseconds that the peer may take, from each time it takes bytes. A second call
   * can shorten it.
   */
  finish(timeoutMs: number = lingerTimeoutMs): void {
    if (this.#isClosed || timeoutMs >= this.#lingerTimeoutMs) return;
    this.#lingerTimeoutMs = timeoutMs;
    this.#restartLinger();
    if (this.#isFinishing) return;
    this.#isFinishing = true;
    // The peer's FIN must be seen.
    this.#socket.resume();
    if (this.#writeQueue.queuedBytes === 0) this.#socket.shutdown();
  }

  #restartLinger(): void {
    clearTimeout(this.#lingerTimer);
    this.#lingerTimer = setTimeout(() => this.terminate(), this.#lingerTimeoutMs);
  }

  /** Closes at once. */
  terminate(): void {
    if (!this.#isClosed) this.#socket.terminate();
  }

  /** Ends it from outside, for `error`. */
  fail(error: FramesError): void {
    if (!this.#isClosed) this.#handler.fail(error);
  }

  // What the socket tells.

  onOpen(): void {
    this.#callHandler(() => this.#handler.onOpen(this));
  }

  onData(chunk: Uint8Array): void {
    this.#callHandler(() => this.#handler.onData(chunk));
    // Bun makes a new buffer for each chunk. Left to the garbage collector, a few dozen MB of them lie
    // about; given back at once, the next chunk comes in memory that the processor still has at hand.
    (chunk.buffer as ArrayBuffer).transfer(0);
  }

  onWritable(): void {
    if (this.#isClosed) return;
    if (this.#isFinishing) this.#restartLinger();
    if (!this.#writeQueue.flush()) return;
    if (this.#isFinishing) this.#socket.shutdown();
    else this.#callHandler(() => this.#handler.onDrain());
  }

  onEnd(): void {
    this.#callHandler(() => this.#handler.onEnd());
  }

  onClose(error: unknown): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#lingerTimer);
    this.#pacedSocket?.stop();
    this.#writeQueue.clear();
    this.#handler.onClose(
      error === undefined || error === null ? undefined : asFramesError(error, "network"),
    );
  }

  #callHandler(call: () => void): void {
    if (this.#isClosed) return;
    try {
      call();
    } catch (error) {
      this.#handler.fail(asFramesError(error, "internal"));
    }
  }
}

/** The handlers that lead a Bun socket's events to its Connection; a socket that came too late has none. */
export const socketEvents = {
  data(socket: Socket<Connection | undefined>, chunk: Uint8Array) {
    socket.data?.onData(chunk);
  },
  drain(socket: Socket<Connection | undefined>) {
    socket.data?.onWritable();
  },
  end(socket: Socket<Connection | undefined>) {
    socket.data?.onEnd();
  },
  close(socket: Socket<Connection | undefined>, error?: Error) {
    socket.data?.onClose(error);
  },
  error(socket: Socket<Connection | undefined>, error: Error) {
    socket.data?.onClose(error);
    socket.terminate();
  },
};
