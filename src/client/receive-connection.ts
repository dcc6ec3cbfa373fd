/** One connection of a receiving client: joins a `Receiver`, a `ReceiveTarget` and a socket. */
import { ClientConnection, type ClientConnectionOptions } from "./client-connection.ts";
import { asFramesError, FramesError } from "../errors.ts";
import { CommitLoop, type CommitMember } from "../common/commit-loop.ts";
import type { ReceiveTarget } from "../frame.ts";
import { monotonicNow } from "../common/clock.ts";
import type { Connection } from "../net/connection.ts";
import { ClientHandshake } from "../protocol/handshake.ts";
import { Receiver } from "../protocol/receive/receiver.ts";
import type {
  FlushSnapshot,
  ReceiverEvent,
  ReceiverHost,
  ReceiverLimits,
} from "../protocol/receive/receiver-events.ts";
import type { Done, Hello } from "../wire/messages.ts";

export interface ReceiveConnectionOptions extends ClientConnectionOptions {
  readonly hello: Hello;
  readonly target: ReceiveTarget;
  readonly grants: ReceiverLimits;
  /** Called with each event of the receiver. An error that it throws ends the connection. */
  readonly onEvent: (event: ReceiverEvent) => void;
  /** A cursor was saved that covers the first `endedFrames` frames of this connection. */
  readonly onCursorSaved: (endedFrames: number) => void;
  readonly trace: ReceiverHost["trace"];
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

export class ReceiveConnection
  extends ClientConnection<ReceiveConnectionResult>
  implements CommitMember<FlushSnapshot>
{
  protected readonly verb = "received";
  readonly #options: ReceiveConnectionOptions;
  readonly #target: ReceiveTarget;
  readonly #receiver: Receiver;
  readonly #commits = new CommitLoop<FlushSnapshot>(() => this.#flush());
  /** In the order of arrival. */
  readonly #pendingCursors: PendingCursor[] = [];
  #isWelcomed = false;

  constructor(options: ReceiveConnectionOptions) {
    super(options);
    this.#options = options;
    this.#target = options.target;
    const { hello, target, grants, timeout, key, trace } = options;
    this.#receiver = new Receiver({
      store: target,
      grants,
      timeoutMs: timeout,
      now: monotonicNow(),
      peer: new ClientHandshake(hello, key),
      onEvent: (event) => this.#onEvent(event),
      reportsStored: true,
      acquireSource: (stream) => {
        if (stream === hello.stream) return;
        throw new FramesError("protocol", `Cannot accept SOURCE: it belongs to another stream`);
      },
      onFlushNeeded: () => {
        this.wake();
        this.#commits.add(this);
      },
      onError: (error) => {
        // Other errors come from the caller's callback: pass them on, and do not tell the server.
        if (error instanceof FramesError) this.fail(error);
        else this.failWith(error);
      },
      trace,
    });
  }

  #onEvent(event: ReceiverEvent): void {
    if (event.type === "cursor") {
      const { cursor, endedFrames } = event;
      this.#pendingCursors.push({ save: this.#target.onCursor(cursor), endedFrames });
      return;
    }
    this.#options.onEvent(event);
    if (event.type === "welcome") this.#isWelcomed = true;
  }

  /** Frames that have ended on this connection, by outcome. */
  get counts(): Readonly<Done> {
    return this.#receiver.counts;
  }

  protected get isWelcomed(): boolean {
    return this.#isWelcomed;
  }

  /** Whether the receiver or the target accepts no more for now. */
  override get isPaused(): boolean {
    return this.#receiver.isPaused || this.#target.isFull;
  }

  /** Finishes the frames that have begun, and ends; before WELCOME it fails at once. */
  interrupt(): void {
    const late = "Interrupted: the frames in flight did not arrive in time";
    const isFirst = this.beginStop(
      new FramesError("interrupted", `Interrupted before ${this.peer} sent frames`),
      new FramesError("interrupted", late),
    );
    if (!isFirst || this.isEnded) return;
    this.#receiver.shutDown();
    this.#commits.add(this);
  }

  protected onConnected(now: number, exporter: Uint8Array | undefined): void {
    this.#receiver.onConnected(now, exporter);
  }

  protected send(connection: Connection): void {
    for (const bytes of this.#receiver.drain(monotonicNow())) connection.send(bytes);
  }

  protected receive(chunk: Uint8Array, now: number): void {
    const receiver = this.#receiver;
    receiver.receive(chunk, now);
    if (receiver.needsFlush || receiver.isShutDown || this.#pendingCursors.length > 0)
      this.#commits.add(this);
  }

  isFlushDue(): boolean {
    return this.#receiver.isFlushDue();
  }

  get flushable(): FlushSnapshot {
    return this.#receiver.flushSnapshot;
  }

  /** Flushes the target, with the last cursor that the flush covers. */
  async #flush(): Promise<boolean> {
    const { frames } = this.flushable;
    let cursor: PendingCursor | undefined;
    while ((this.#pendingCursors[0]?.endedFrames ?? Infinity) <= frames)
      cursor = this.#pendingCursors.shift();
    try {
      if (this.isEnded) return false;
      cursor?.save();
      await this.#target.flush();
    } catch (error) {
      this.fail(asFramesError(error, "store"));
      return false;
    }
    if (cursor !== undefined) this.#options.onCursorSaved(cursor.endedFrames);
    return true;
  }

  ack(flushed: FlushSnapshot): void {
    this.connection!.run(() => {
      if (this.isEnded) return;
      const receiver = this.#receiver;
      receiver.ack(monotonicNow(), flushed);
      const hasLeft = receiver.isShutDown && receiver.unreceipted === 0;
      if (!receiver.isDone && !hasLeft) return;
      // The last messages are sent before the FIN.
      this.send(this.connection!);
      this.completeWhenClosed({ counts: { ...receiver.counts }, isComplete: receiver.isDone });
    });
  }

  protected checkTimeouts(now: number): void {
    this.#receiver.tick(now, this.connection!.isPaused);
  }

  protected leave(connection: Connection, reason: FramesError | undefined): void {
    // Errors with wire code 0 are local and never sent.
    if (reason !== undefined && reason.wireCode !== 0) this.#receiver.fail(reason);
    this.send(connection);
    connection.finish();
  }

  protected release(): void {
    this.#receiver.close();
  }
}
