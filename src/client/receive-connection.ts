/** One connection of a receiving client: joins a `Receiver`, a `ReceiveTarget` and a socket. */
import type { Key } from "../auth/key.ts";
import {
  keyRequiredError,
  brokenError,
  closedEarlyError,
  translateError,
} from "./connection-errors.ts";
import { asFramesError, FramesError } from "../errors.ts";
import type { ReceiveTarget } from "../frame.ts";
import { type Address, formatAddress } from "../net/address.ts";
import { connect } from "../net/connect.ts";
import { monotonicNow } from "../common/clock.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { ClientHandshake } from "../protocol/handshake.ts";
import { Receiver } from "../protocol/receive/receiver.ts";
import type { ReceiverEvents, ReceiverLimits } from "../protocol/receive/receiver-events.ts";
import type { Done, Hello, Welcome } from "../wire/messages.ts";

/** Times are in milliseconds. */
export interface ReceiveConnectionOptions {
  readonly grants: ReceiverLimits;
  readonly timeout: number;
  readonly connectTimeout: number;
  /** Key to prove over TLS 1.3; without one the connection is plain. */
  readonly key: Key | undefined;
}

export interface ReceiveConnectionEvents extends Pick<
  ReceiverEvents,
  "onWelcome" | "onFrameEnded" | "onLost" | "onGone" | "trace"
> {
  /** Called before the target is used. An error thrown here ends the connection. */
  checkWelcome(welcome: Welcome): void;
  /** Called about once a second; an error thrown here ends the connection. */
  onTick(): void;
  /** A cursor was saved that covers the first `endedFrames` frames of this connection. */
  onCursorSaved(endedFrames: number): void;
}

/** Result of a connection that ended without an error. */
export interface ReceiveConnectionResult {
  readonly counts: Readonly<Done>;
  /** Whether the server sent END; false if the client stopped first. */
  readonly isComplete: boolean;
}

/** A received cursor that is saved once the frames before it are stored. */
interface PendingCursor {
  readonly save: () => void;
  /** Frames that had ended on this connection when the cursor arrived. */
  readonly endedFrames: number;
}

/** Time that frames in flight have to arrive after `interrupt`. */
const stopTimeoutMs = 10_000;

export class ReceiveConnection implements ConnectionHandler {
  readonly #address: Address;
  readonly #target: ReceiveTarget;
  readonly #options: ReceiveConnectionOptions;
  readonly #events: ReceiveConnectionEvents;
  readonly #receiver: Receiver;
  readonly #finished = Promise.withResolvers<ReceiveConnectionResult>();
  /** In the order of arrival. */
  readonly #pendingCursors: PendingCursor[] = [];
  #connection: Connection | undefined;
  #isWelcomed = false;
  #isPaused = false;
  #isEnded = false;
  #hasReceived = false;
  /** Whether data arrived since the last turn of the event loop. */
  #hasNewData = false;
  #isFlushing = false;
  #needsFlush = false;
  #deadline: NodeJS.Timeout | undefined;
  /** Set at the orderly end; `run` returns it when the socket is closed. */
  #result: ReceiveConnectionResult | undefined;

  constructor(
    address: Address,
    hello: Hello,
    target: ReceiveTarget,
    options: ReceiveConnectionOptions,
    events: ReceiveConnectionEvents,
  ) {
    this.#address = address;
    this.#target = target;
    this.#options = options;
    this.#events = events;
    const { grants, timeout, key } = options;
    const handshake = new ClientHandshake(hello, key);
    this.#receiver = new Receiver(
      target,
      grants,
      timeout,
      monotonicNow(),
      {
        ...events,
        onHello: () => {
          throw new FramesError("internal");
        },
        onWelcome: (welcome) => {
          events.checkWelcome(welcome);
          const location = `${welcome.store ?? "a store"} on ${this.#peer}`;
          target.onConnected(welcome.identity, location, welcome.fresh !== true);
          this.#checkResumed(hello, welcome);
          this.#isWelcomed = true;
          events.onWelcome?.(welcome);
        },
        acquireSource: (stream) => {
          if (stream === hello.stream) return;
          throw new FramesError("protocol", `Cannot accept SOURCE: it belongs to another stream`);
        },
        onCursor: (cursor, endedFrames) =>
          this.#pendingCursors.push({ save: target.onCursor(cursor), endedFrames }),
        onFlushNeeded: () => {
          this.#resume();
          this.#scheduleFlush();
        },
        onError: (error) => {
          // Other errors come from the caller's callback: pass them on, and do not tell the server.
          if (error instanceof FramesError) this.fail(error);
          else this.#fail(error);
        },
      },
      handshake,
    );
  }

  /** Frames that have ended on this connection, by outcome. */
  get counts(): Readonly<Done> {
    return this.#receiver.counts;
  }

  get #peer(): string {
    return formatAddress(this.#address);
  }

  /** @throws {FramesError} `other-store` if a target without a record would get all frames twice */
  #checkResumed({ cursor }: Hello, { resumed }: Welcome): void {
    if (cursor === undefined || resumed !== false || this.#target.isPersistent) return;
    throw new FramesError(
      "other-store",
      `${this.#peer} cannot resume this stream: its journal has another order, and frames would arrive twice; receive into a directory`,
    );
  }

  /**
   * Connects and receives until END, or until `interrupt` has let the frames in flight finish.
   *
   * @throws {FramesError} if the connection failed
   */
  async run(): Promise<ReceiveConnectionResult> {
    const { connectTimeout, key } = this.#options;
    try {
      const connecting = connect(this.#address, this, connectTimeout, key !== undefined);
      // Race `#finished` while connecting too, so that `interrupt` need not wait for it.
      return await Promise.race([
        connecting.then(() => this.#finished.promise),
        this.#finished.promise,
      ]);
    } catch (error) {
      this.#end();
      this.#receiver.close();
      throw error;
    }
  }

  /** Finishes the frames that have begun, and ends; before WELCOME it fails at once. */
  interrupt(): void {
    if (this.#isEnded || this.#deadline !== undefined) return;
    if (!this.#isWelcomed) {
      return this.#fail(
        new FramesError("interrupted", `Interrupted before ${this.#peer} sent frames`),
      );
    }
    this.#deadline = setTimeout(() => {
      const message = "Interrupted: the frames in flight did not arrive in time";
      this.#fail(new FramesError("interrupted", message));
    }, stopTimeoutMs);
    this.#receiver.shutDown();
    this.#scheduleFlush();
  }

  get tickIntervalMs(): number {
    return Math.min(1000, this.#options.timeout / 4);
  }

  onOpen(connection: Connection): void {
    this.#connection = connection;
    if (this.#isEnded) return connection.terminate();
    this.#receiver.onConnected(monotonicNow(), connection.exporter);
    this.#send();
  }

  #send(): void {
    const connection = this.#connection!;
    for (const bytes of this.#receiver.drain(monotonicNow())) connection.send(bytes);
  }

  onData(chunk: Uint8Array): void {
    if (this.#isEnded) return;
    if (!this.#hasReceived && this.#options.key === undefined) {
      const keyRequired = keyRequiredError(chunk, this.#peer);
      if (keyRequired !== undefined) return this.#fail(keyRequired);
    }
    this.#hasReceived = true;
    this.#hasNewData = true;
    const receiver = this.#receiver;
    receiver.receive(chunk, monotonicNow());
    if (receiver.isPaused || this.#target.isFull) this.#pause();
    if (receiver.needsFlush || receiver.isShutDown || this.#pendingCursors.length > 0)
      this.#scheduleFlush();
    this.#send();
  }

  /** Stops reading until the receiver and the target accept more. */
  #pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#connection!.pause();
  }

  #resume(): void {
    if (!this.#isPaused || this.#receiver.isPaused || this.#target.isFull) return;
    this.#isPaused = false;
    this.#connection!.resume();
  }

  /** Flushes when a turn of the event loop brings no more data, or when a receipt is due. */
  #scheduleFlush(): void {
    this.#needsFlush = true;
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    setImmediate(() => void this.#flushWhenDue());
  }

  async #flushWhenDue(): Promise<void> {
    try {
      while (this.#needsFlush && !this.#isEnded) {
        const isIdle = !this.#hasNewData;
        this.#hasNewData = false;
        if (isIdle || this.#receiver.isReceiptDue || this.#receiver.isShutDown) {
          this.#needsFlush = false;
          await this.#flushNow();
        }
        if (this.#needsFlush) await new Promise((resolve) => setImmediate(resolve));
      }
    } catch (error) {
      this.fail(asFramesError(error, "store"));
    } finally {
      this.#isFlushing = false;
    }
  }

  async #flushNow(): Promise<void> {
    const receiver = this.#receiver;
    const { flushSnapshot: flushable } = receiver;
    let cursor: PendingCursor | undefined;
    while ((this.#pendingCursors[0]?.endedFrames ?? Infinity) <= flushable.frames)
      cursor = this.#pendingCursors.shift();
    cursor?.save();
    await this.#target.flush();
    if (cursor !== undefined) this.#events.onCursorSaved(cursor.endedFrames);
    if (this.#isEnded || this.#connection!.isClosed) return;
    receiver.ack(monotonicNow(), flushable);
    this.#send();
    const hasLeft = receiver.isShutDown && receiver.unreceipted === 0;
    if (!receiver.isDone && !hasLeft) return;
    const isComplete = receiver.isDone;
    const counts = { ...receiver.counts };
    this.#end();
    // Send the last messages before the FIN; `onClose` then resolves with the result.
    this.#connection!.finish();
    this.#result = { counts, isComplete };
  }

  onDrain(): void {}

  tick(): void {
    if (this.#isEnded) return;
    this.#events.onTick();
    this.#receiver.tick(monotonicNow(), this.#isPaused);
    this.#resume();
    this.#send();
  }

  onEnd(): void {
    if (!this.#isEnded) this.#fail(closedEarlyError(this.#peer, this.#isWelcomed, "received"));
  }

  fail(failure: FramesError): void {
    const { error, wireError } = translateError(failure, this.#peer, {
      hasKey: this.#options.key !== undefined,
      isWelcomed: this.#isWelcomed,
      timeoutMs: this.#options.timeout,
    });
    this.#fail(error, wireError);
  }

  onClose(error: FramesError | undefined): void {
    if (this.#result !== undefined) return this.#finished.resolve(this.#result);
    if (error === undefined) return this.onEnd();
    this.#fail(brokenError(this.#peer, error));
  }

  /** @param wireError sent to the server as ERROR; default `error`, if that is a FramesError */
  #fail(error: unknown, wireError?: FramesError): void {
    if (this.#isEnded) return;
    this.#end();
    const connection = this.#connection;
    if (connection !== undefined && !connection.isClosed) {
      const reason = wireError ?? (error instanceof FramesError ? error : undefined);
      // Errors with wire code 0 are local and never sent.
      if (reason !== undefined && reason.wireCode !== 0) this.#receiver.fail(reason);
      this.#send();
      connection.finish();
    }
    this.#finished.reject(error);
  }

  #end(): void {
    this.#isEnded = true;
    clearTimeout(this.#deadline);
  }
}
