/**
 * Drives a conversation over a TCP connection: reads, writes, ticks, pauses and fails. Closes without
 * losing bytes that are queued.
 */
import type { Socket } from "bun";
import { monotonicNow } from "../common/clock.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { WriteQueue } from "./write-queue.ts";
import { PacedSocket } from "./paced-socket.ts";

/**
 * One end of a conversation, which a connection drives. An error that a method throws is passed to
 * `fail`.
 */
export interface ConnectionHandler {
  /** Milliseconds of silence after which the peer counts as gone. */
  readonly timeoutMs: number;
  /**
   * Whether nothing is read from the peer for now, so that TCP flow control stops it. Read after each
   * call of the handler.
   */
  readonly isPaused: boolean;
  /** The first call. Times are in milliseconds by `monotonicNow`. */
  onOpen(connection: Connection, now: number): void;
  /** Bytes arrived. The chunk is valid only until this returns. */
  onData(chunk: Uint8Array, now: number): void;
  /** The peer closed its sending side. */
  onEnd(): void;
  /** Checks timeouts. Called about once a second. */
  tick(now: number): void;
  /** Sends what is ready. Called after the calls above, and when the write queue becomes empty. */
  transmit(): void;
  /** A method threw, or the caller ends the connection. The handler must finish it. */
  fail(error: FramesError): void;
  /** The socket is closed; the last call. `error` is set if the network broke the connection. */
  onClose(error: FramesError | undefined): void;
}

const maxTickIntervalMs = 1000;

/** Time for a peer to close after ERROR was sent, in milliseconds (SPEC section 7). */
const lingerTimeoutMs = 2_000;

export class Connection {
  readonly #socket: Socket<unknown>;
  readonly #pacedSocket: PacedSocket | undefined;
  readonly #writeQueue: WriteQueue;
  readonly #handler: ConnectionHandler;
  readonly #ticker: NodeJS.Timeout;
  /** Exported keying material of the TLS channel (RFC 9266); undefined without TLS. */
  readonly exporter: Uint8Array | undefined;
  /** The handler calls this once the peer has sent HELLO and any required proof. */
  readonly markIdentified: () => void;
  #isPaused = false;
  /** Whether the handler is being called. It transmits afterwards. */
  #isRunning = false;
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
    const tick = () => this.run(() => handler.tick(monotonicNow()));
    this.#ticker = setInterval(tick, Math.min(maxTickIntervalMs, handler.timeoutMs / 4));
  }

  /** Bytes that the socket has not accepted. */
  get queuedBytes(): number {
    return this.#writeQueue.queuedBytes;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Sends bytes. The caller must not change them until `queuedBytes` is 0. */
  send(bytes: Uint8Array): void {
    if (!this.#isClosed && !this.#isFinishing) this.#writeQueue.send(bytes);
  }

  /** Whether nothing is read from the peer. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /**
   * Runs a step of the handler that no event of the socket caused. Then sends what is ready, and reads
   * from the peer or stops reading, as after each event.
   */
  run(step: () => void): void {
    if (this.#isClosed) return;
    // A step within another one, such as a wake while bytes are processed.
    if (this.#isRunning) return step();
    this.#isRunning = true;
    try {
      step();
      this.#handler.transmit();
    } catch (error) {
      this.#handler.fail(asFramesError(error, "internal"));
    } finally {
      this.#isRunning = false;
    }
    this.#pauseOrResume();
  }

  /** Sends what has become ready, and reads again if the handler is no longer paused. */
  wake(): void {
    this.run(doNothing);
  }

  #pauseOrResume(): void {
    // A finishing connection reads on, to see the peer's FIN.
    if (this.#isClosed || this.#isFinishing) return;
    const { isPaused } = this.#handler;
    if (isPaused === this.#isPaused) return;
    this.#isPaused = isPaused;
    if (isPaused) this.#socket.pause();
    else this.#socket.resume();
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
    this.run(() => this.#handler.onOpen(this, monotonicNow()));
  }

  onData(chunk: Uint8Array): void {
    this.run(() => this.#handler.onData(chunk, monotonicNow()));
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
    else this.wake();
  }

  onEnd(): void {
    this.run(() => this.#handler.onEnd());
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
}

function doNothing(): void {}

/** A socket, and its connection once there is one. */
export type ConnectionSocket = Socket<Connection | undefined>;

/**
 * Passes the events of a Bun socket to its Connection. A socket that opened after its deadline has
 * none.
 */
export const socketEvents = {
  data(socket: ConnectionSocket, chunk: Uint8Array) {
    socket.data?.onData(chunk);
  },
  drain(socket: ConnectionSocket) {
    socket.data?.onWritable();
  },
  end(socket: ConnectionSocket) {
    socket.data?.onEnd();
  },
  close(socket: ConnectionSocket, error?: Error) {
    socket.data?.onClose(error);
  },
  error(socket: ConnectionSocket, error: Error) {
    socket.data?.onClose(error);
    socket.terminate();
  },
};
