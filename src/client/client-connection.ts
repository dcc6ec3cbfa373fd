/** One connection of a client: connects, stops with a deadline, and words failures for the user. */
import type { Key } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { connect } from "../net/connect.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import {
  brokenError,
  closedEarlyError,
  keyRequiredError,
  translateError,
} from "./connection-errors.ts";

/** Times are in milliseconds. */
export interface ClientConnectionOptions {
  readonly address: Address;
  readonly timeout: number;
  readonly connectTimeout: number;
  /** Key to prove over TLS 1.3; without one the connection is plain. */
  readonly key?: Key | undefined;
  /** Bandwidth limit in bytes a second. */
  readonly maxBytesPerSecond?: number | undefined;
  /** Called about once a second; an error thrown here ends the connection. */
  readonly onTick: () => void;
}

/** Time that frames in flight have after a stop, in milliseconds. */
const stopTimeoutMs = 10_000;

/** @typeParam Result what `run` resolves to */
export abstract class ClientConnection<Result> implements ConnectionHandler {
  /** Past participle for messages: what happens to the frames. */
  protected abstract readonly verb: "delivered" | "received";
  /** `HOST:PORT` of the server. */
  protected readonly peer: string;
  readonly #options: ClientConnectionOptions;
  readonly #finished = Promise.withResolvers<Result>();
  #connection: Connection | undefined;
  #isEnded = false;
  #hasReceived = false;
  #isStopping = false;
  #deadline: NodeJS.Timeout | undefined;
  /** Set by `completeWhenClosed`. */
  #result: { readonly value: Result } | undefined;

  constructor(options: ClientConnectionOptions) {
    this.#options = options;
    this.peer = formatAddress(options.address);
  }

  /** Begins the conversation; the connection is open. */
  protected abstract onConnected(now: number, exporter: Uint8Array | undefined): void;
  /** Processes bytes from the server. */
  protected abstract receive(chunk: Uint8Array, now: number): void;
  /** Sends what is ready; called while the connection is open. */
  protected abstract send(connection: Connection): void;
  /** Checks the timeouts of the conversation. */
  protected abstract checkTimeouts(now: number): void;
  /**
   * Tells the server why the connection ends, and closes it.
   *
   * @param reason undefined if the server is not told
   */
  protected abstract leave(connection: Connection, reason: FramesError | undefined): void;
  /** Releases frames after the connection failed. */
  protected abstract release(): void;
  /** Whether the server has sent WELCOME. */
  protected abstract readonly isWelcomed: boolean;

  get timeoutMs(): number {
    return this.#options.timeout;
  }

  get isPaused(): boolean {
    return false;
  }

  /** Whether the connection has completed or failed. */
  protected get isEnded(): boolean {
    return this.#isEnded;
  }

  /** The open connection; undefined before it is open. */
  protected get connection(): Connection | undefined {
    return this.#connection;
  }

  /**
   * Connects, and runs until `complete`.
   *
   * @throws {FramesError} if the connection failed
   */
  async run(): Promise<Result> {
    const { address, connectTimeout, key, maxBytesPerSecond } = this.#options;
    const isSecure = key !== undefined;
    try {
      const connecting = connect(address, this, connectTimeout, isSecure, maxBytesPerSecond);
      // Races `#finished` while connecting too, so that a stop need not wait for it.
      return await Promise.race([
        connecting.then(() => this.#finished.promise),
        this.#finished.promise,
      ]);
    } catch (error) {
      this.#end();
      this.release();
      throw error;
    }
  }

  /** Sends what has become ready, and reads again if nothing hinders it. */
  wake(): void {
    this.#connection?.wake();
  }

  /**
   * Begins to stop. Fails at once before WELCOME, because no frame is in flight then. Otherwise fails if
   * the connection has not completed in time.
   *
   * @param early error before WELCOME
   * @param late error when the time is over
   * @returns whether this is the first call
   */
  protected beginStop(early: unknown, late: unknown): boolean {
    if (this.#isStopping) return false;
    this.#isStopping = true;
    if (!this.isWelcomed) this.failWith(early);
    if (!this.#isEnded) this.#deadline = setTimeout(() => this.failWith(late), stopTimeoutMs);
    return true;
  }

  onOpen(connection: Connection, now: number): void {
    this.#connection = connection;
    if (this.#isEnded) return connection.terminate();
    this.onConnected(now, connection.exporter);
  }

  onData(chunk: Uint8Array, now: number): void {
    if (this.#isEnded) return;
    if (!this.#hasReceived && this.#options.key === undefined) {
      const keyRequired = keyRequiredError(chunk, this.peer);
      if (keyRequired !== undefined) return this.failWith(keyRequired);
    }
    this.#hasReceived = true;
    this.receive(chunk, now);
  }

  transmit(): void {
    if (!this.#isEnded) this.send(this.#connection!);
  }

  tick(now: number): void {
    if (this.#isEnded) return;
    this.#options.onTick();
    this.checkTimeouts(now);
  }

  onEnd(): void {
    this.failWith(this.closedError());
  }

  /** Returns the error for a server that closes the connection too early. */
  protected closedError(): FramesError {
    return closedEarlyError(this.peer, this.isWelcomed, this.verb);
  }

  fail(failure: FramesError): void {
    const { error, wireError } = translateError(failure, this.peer, {
      hasKey: this.#options.key !== undefined,
      isWelcomed: this.isWelcomed,
      timeoutMs: this.#options.timeout,
    });
    this.failWith(error, wireError);
  }

  onClose(error: FramesError | undefined): void {
    if (this.#result !== undefined) return this.#finished.resolve(this.#result.value);
    if (error === undefined) return this.onEnd();
    this.failWith(brokenError(this.peer, error));
  }

  /** Fails with `error` as it is. @param wireError sent as ERROR; default `error` */
  protected failWith(error: unknown, wireError?: FramesError): void {
    if (this.#isEnded) return;
    this.#end();
    this.#finished.reject(error);
    const reason = wireError ?? (error instanceof FramesError ? error : undefined);
    if (this.#connection?.isClosed === false) this.leave(this.#connection, reason);
  }

  /** Ends the connection with a result. @param closeTimeoutMs time for the server to close */
  protected complete(result: Result, closeTimeoutMs?: number): void {
    this.#end();
    this.#connection!.finish(closeTimeoutMs);
    this.#finished.resolve(result);
  }

  /** Ends the connection; `run` resolves when the server has got the last messages, and closed. */
  protected completeWhenClosed(result: Result): void {
    this.#end();
    this.#result = { value: result };
    this.#connection!.finish();
  }

  #end(): void {
    this.#isEnded = true;
    clearTimeout(this.#deadline);
  }
}
