/** A TCP connection with a write queue. Closes without losing bytes that are queued. */
import type { Socket } from "bun";
import { monotonicNow } from "../common/clock.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { WriteQueue } from "./write-queue.ts";
import { PacedSocket } from "./paced-socket.ts";

/** Callbacks of a connection. An error that a callback throws is passed to `fail`. */
export interface ConnectionHandler {
  /** The first call. */
  onOpen(connection: Connection): void;
  /** Bytes arrived. The chunk is valid only until this returns. */
  onData(chunk: Uint8Array): void;
  /** The write queue is empty, so more can be sent. */
  onDrain(): void;
  /** The peer closed its sending side. */
  onEnd(): void;
  /** Milliseconds between two calls of `tick`. */
  readonly tickIntervalMs: number;
  tick(): void;
  /** A callback threw, or the caller ends the connection. The handler must finish it. */
  fail(error: FramesError): void;
  /** The socket is closed; the last call. `error` is set if the network broke the connection. */
  onClose(error: FramesError | undefined): void;
}

/** Time for a peer to close after ERROR was sent, in milliseconds (SPEC section 7). */
const lingerTimeoutMs = 2_000;

export class Connection {
  readonly #socket: Socket<unknown>;
  readonly #pacedSocket: PacedSocket | undefined;
  readonly #writeQueue: WriteQueue;
  #handler: ConnectionHandler;
  readonly #ticker: NodeJS.Timeout;
  /** Exported keying material of the TLS channel (RFC 9266); undefined without TLS. */
  readonly exporter: Uint8Array | undefined;
  /** The handler calls this once the peer has sent HELLO and any required proof. */
  readonly markIdentified: () => void;
  #isFinishing = false;
  #lingerTimer: NodeJS.Timeout | undefined;
  #lingerTimeoutMs = Infinity;
  #isClosed = false;

  /**
   * @param markIdentified called by the handler once the peer is identified
   * @param bytesPerSecond limit of the sending rate
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

  /** Replaces the handler. `onOpen` of the new handler is not called. */
  setHandler(handler: ConnectionHandler): void {
    this.#handler = handler;
  }

  /** Bytes that the socket has not accepted. */
  get queuedBytes(): number {
    return this.#writeQueue.queuedBytes;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Sends bytes. The caller must not change them until `onDrain`, or until `queuedBytes` is 0. */
  send(bytes: Uint8Array): void {
    if (!this.#isClosed && !this.#isFinishing) this.#writeQueue.send(bytes);
  }

  /** Stops reading, so that TCP flow control stops the peer. */
  pause(): void {
    if (!this.#isClosed) this.#socket.pause();
  }

  resume(): void {
    if (!this.#isClosed) this.#socket.resume();
  }

  /**
   * Sends the queued bytes and a FIN, then reads until the peer closes too. Closing with unread
   * bytes would reset the connection, and the peer would lose data that it has not read.
   *
   * @param timeoutMs milliseconds until the connection is terminated; restarts when the peer
   * accepts bytes. A second call can only shorten it.
   */
  finish(timeoutMs: number = lingerTimeoutMs): void {
    if (this.#isClosed || timeoutMs >= this.#lingerTimeoutMs) return;
    this.#lingerTimeoutMs = timeoutMs;
    this.#restartLinger();
    if (this.#isFinishing) return;
    this.#isFinishing = true;
    // A paused socket would not see the peer's FIN.
    this.#socket.resume();
    if (this.#writeQueue.queuedBytes === 0) this.#socket.shutdown();
  }

  #restartLinger(): void {
    clearTimeout(this.#lingerTimer);
    this.#lingerTimer = setTimeout(() => this.terminate(), this.#lingerTimeoutMs);
  }

  /** Closes at once and drops queued bytes. */
  terminate(): void {
    if (!this.#isClosed) this.#socket.terminate();
  }

  /** Passes `error` to the handler, which ends the connection. */
  fail(error: FramesError): void {
    if (!this.#isClosed) this.#handler.fail(error);
  }

  // Events of the socket.

  onOpen(): void {
    this.#callHandler(() => this.#handler.onOpen(this));
  }

  onData(chunk: Uint8Array): void {
    this.#callHandler(() => this.#handler.onData(chunk));
    // Bun allocates a new buffer for each chunk. Left to the garbage collector, a few dozen MB of
    // them accumulate. After an immediate release the next chunk reuses memory that is still in the
    // processor's cache.
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

/**
 * Passes the events of a Bun socket to its Connection. A socket that opened after its deadline has
 * none.
 */
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
