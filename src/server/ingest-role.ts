/** Role of a client that sends frames: joins a `Receiver`, the store and the connection. */
import { asFramesError, FramesError } from "../errors.ts";
import { monotonicNow } from "../common/clock.ts";
import type { AdmittedClient } from "../protocol/handshake.ts";
import { Receiver } from "../protocol/receive/receiver.ts";
import type { FlushSnapshot, ReceiverEvent } from "../protocol/receive/receiver-events.ts";
import type { Done } from "../wire/messages.ts";
import type { PeerConnection, ServerContext } from "./peer-connection.ts";
import type { ConnectionRole } from "./connection-role.ts";

/** Time for a sender to answer a PING after another sender claims its source, in milliseconds. */
const pingTimeoutMs = 5000;

/**
 * A sender that keeps sending data for this long without a PONG counts as alive, in milliseconds.
 */
const maxAliveCheckMs = 60_000;

/**
 * Limit of bytes that the sender has not read. Above it, the server stops reading from the sender.
 */
const maxQueuedBytes = 1 << 20;

export class IngestRole implements ConnectionRole {
  readonly peerName = "sender";
  readonly hasHello = true;
  readonly stream: string;
  readonly session: string;
  readonly #server: ServerContext;
  readonly #connection: PeerConnection;
  readonly #receiver: Receiver;
  /** Whether the store has no room, or is syncing. */
  #isStoreBlocked = false;
  /** The PING of a pending alive check. `#lastDataAt` is when the sender last sent data. */
  #pendingPing: { time: string; resolve: (isAlive: boolean) => void } | undefined;
  #aliveCheck: Promise<boolean> | undefined;
  /** Frames refused because they were stored before and moved away since. */
  #movedAwayCount = 0;
  #lastDataAt = 0;

  constructor(server: ServerContext, connection: PeerConnection, client: AdmittedClient) {
    this.#server = server;
    this.#connection = connection;
    this.stream = client.hello.stream;
    this.session = client.hello.session;
    const { store, grants, timeoutMs } = server;
    this.#receiver = new Receiver({
      store,
      grants,
      timeoutMs,
      now: monotonicNow(),
      peer: client,
      onEvent: (event) => this.#onEvent(event),
      reportsStored: server.reportsStored,
      runSlice: connection.runSlice,
      isTurnOver: () => server.workQueue.isTurnOver,
      acquireSource: (stream, source) => {
        connection.checkStream(stream);
        return server.acquireSource(stream, source, connection);
      },
      releaseSource: (stream, source) => server.releaseSource(stream, source, connection),
      onFlushNeeded: () => {
        // The receiver may have processed buffered data meanwhile.
        this.#updateBufferedBytes();
        connection.socket.wake();
        server.commits.add(connection);
      },
      onError: (error) => connection.fail(asFramesError(error, "internal")),
    });
  }

  /** Begins with what the client has sent after its handshake. */
  start(): void {
    this.#receiver.start();
    this.#onReceived();
  }

  get isDone(): boolean {
    return this.#receiver.isDone;
  }

  get isPaused(): boolean {
    const isQueueFull = this.#connection.socket.queuedBytes > maxQueuedBytes;
    return isQueueFull || this.#isBlocked;
  }

  /** Whether the receiver or the store accepts no more for now. */
  get #isBlocked(): boolean {
    return this.#receiver.isPaused || this.#checkStore();
  }

  /** Returns whether the store has no room. The connection wakes when it has. */
  #checkStore(): boolean {
    if (this.#isStoreBlocked) return true;
    const ready = this.#server.store.whenReady?.();
    if (ready === undefined) return false;
    this.#isStoreBlocked = true;
    void ready.then(() => {
      this.#isStoreBlocked = false;
      this.#connection.socket.wake();
      if (this.#connection.hasInputEnded) this.#server.commits.add(this.#connection);
    });
    return true;
  }

  #onEvent(event: ReceiverEvent): void {
    if (event.type === "pong") {
      if (event.time === this.#pendingPing?.time) this.#pendingPing.resolve(true);
      return;
    }
    if (event.type !== "frame" && event.type !== "lost") return;
    const { stream } = this;
    const { peer } = this.#connection;
    const { source } = event;
    if (event.type === "lost") {
      const { frames, error } = event;
      return this.#server.emit({ type: "lost", peer, stream, source, frames, error });
    }
    const { frame, outcome } = event;
    if (outcome instanceof FramesError && outcome.code === "moved-away") this.#movedAwayCount++;
    else if (outcome instanceof FramesError) {
      this.#server.emit({ type: "refused", peer, stream, source, frame, error: outcome });
    } else if (outcome === "stored") {
      this.#server.emitStored({ peer, stream, source, frame });
    }
  }

  receive(chunk: Uint8Array, now: number): void {
    if (this.#pendingPing !== undefined) this.#lastDataAt = now;
    this.#receiver.receive(chunk, now);
    this.#onReceived();
  }

  #onReceived(): void {
    this.#updateBufferedBytes();
    if (this.#receiver.needsFlush) this.#server.commits.add(this.#connection);
  }

  #updateBufferedBytes(): void {
    const { bufferedBytes, isQueued } = this.#receiver;
    this.#server.setBufferedBytes(this.#connection, bufferedBytes, isQueued);
  }

  isFlushDue(): boolean {
    return this.#receiver.isFlushDue();
  }

  /** Frames and answers that a flush starting now will cover. */
  get flushable(): FlushSnapshot {
    return this.#receiver.flushSnapshot;
  }

  ack(flushed: FlushSnapshot): void {
    const { socket, hasFailed, hasInputEnded } = this.#connection;
    if (socket.isClosed) return;
    this.#receiver.ack(monotonicNow(), flushed);
    this.transmit();
    if (hasFailed) return;
    const { isDone, isEnding } = this.#receiver;
    // After its FIN a sender cannot send END any more. If END came, DONE may still wait for the
    // store.
    if (hasInputEnded && !this.#isBlocked && !isDone && !isEnding) socket.finish();
    if (!isDone) return;
    this.#releaseSources();
    // The sender closes after reading DONE, which takes time on a slow link.
    socket.finish(this.#server.timeoutMs);
    this.#connection.reportDelivered(this.#receiver.foundCount + this.#movedAwayCount);
  }

  /** Frames that ended. Frames moved away from the store count as found, and not as refused. */
  get counts(): Done {
    const { counts } = this.#receiver;
    return { ...counts, refused: counts.refused - this.#movedAwayCount };
  }

  /** Releases the client's sources for other senders. */
  #releaseSources(): void {
    for (const { stream, name } of this.#receiver.sources) {
      this.#server.releaseSource(stream, name, this.#connection);
    }
  }

  transmit(): void {
    const { socket } = this.#connection;
    for (const bytes of this.#receiver.drain(monotonicNow())) socket.send(bytes);
  }

  /**
   * Checks whether the sender answers a PING. Older data from its system's send buffer is no
   * answer, but the PONG may follow it.
   */
  isAlive(): Promise<boolean> {
    return (this.#aliveCheck ??= this.#checkAlive());
  }

  async #checkAlive(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const pingedAt = monotonicNow();
    this.#lastDataAt = pingedAt;
    this.#pendingPing = { time: this.#receiver.ping(pingedAt), resolve: resolve };
    this.transmit();
    const isSilent = () => monotonicNow() - this.#lastDataAt >= pingTimeoutMs;
    const timer = setInterval(() => {
      if (this.#isBlocked) {
        // The sender is not read while blocked, so its silence is no evidence. It counts as alive
        // after the timeout, because two senders may wait for each other's source.
        this.#lastDataAt = monotonicNow();
        if (this.#lastDataAt - pingedAt >= pingTimeoutMs) resolve(true);
        return;
      }
      // Data that arrived while this process was busy is read first.
      if (isSilent()) setImmediate(() => isSilent() && resolve(false));
      else if (monotonicNow() - pingedAt >= maxAliveCheckMs) resolve(true);
    }, 100);
    const isAlive = await promise;
    clearInterval(timer);
    this.#pendingPing = this.#aliveCheck = undefined;
    return isAlive;
  }

  tick(now: number): void {
    this.#receiver.tick(now, this.#checkStore());
  }

  onEnd(): void {
    // A sender may close its sending side after END and still wait for DONE.
    void this.#server.commits.commit([this.#connection]);
  }

  closeReason(): FramesError | undefined {
    if (!this.#receiver.isPeerStopping) return undefined;
    return new FramesError("interrupted", "The sender was stopped before it was done");
  }

  stop(error?: FramesError): void {
    this.#receiver.stop(error);
    this.#releaseSources();
    this.#pendingPing?.resolve(false);
  }

  /** Acknowledges the frames that ended before the error, so that the sender need not resend them. */
  async sendError(error: FramesError): Promise<void> {
    await this.#server.commits.commit([this.#connection]);
    this.#receiver.fail(error);
    this.transmit();
    this.#connection.socket.finish();
  }
}
