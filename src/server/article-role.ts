/**
 * Role of a client that sends in the article's dialect (SPEC appendix A): joins an `ArticleReceiver`,
 * the store and the connection.
 */
import { asFramesError, FramesError } from "../errors.ts";
import type { FrameDescription, Outcome } from "../frame.ts";
import type { PeerConnection, ServerContext } from "./peer-connection.ts";
import type { ConnectionRole } from "./connection-role.ts";
import { monotonicNow } from "../common/clock.ts";
import { ArticleReceiver } from "../protocol/article/article-receiver.ts";
import type { FlushSnapshot } from "../protocol/receive/receiver-events.ts";
import type { Done } from "../wire/messages.ts";

/** Time for a client to send any data after another client claims its source, in milliseconds. */
const aliveTimeoutMs = 5000;

/** Limit of unsent answer bytes. A client that exceeds it never reads its answers. */
const maxQueuedBytes = 1 << 20;

/**
 * Limit of bytes that are still processed when the client has closed: `over`, which clients send
 * before they close.
 */
const maxLastBytes = 1024;

export class ArticleRole implements ConnectionRole {
  readonly peerName = "client";
  readonly #server: ServerContext;
  readonly #connection: PeerConnection;
  readonly #receiver: ArticleReceiver;
  readonly #session = crypto.randomUUID().replaceAll("-", "");
  /** Bytes that wait for a slice of work. Nothing is read from the client meanwhile. */
  #waitingBytes: Uint8Array | undefined;
  /** Calls of `onData` so far. */
  #chunkCount = 0;
  #quietTimer: NodeJS.Timeout | undefined;
  #aliveCheck: Promise<boolean> | undefined;
  #resolveAliveCheck: (isAlive: boolean) => void = () => {};

  constructor(server: ServerContext, connection: PeerConnection) {
    this.#server = server;
    this.#connection = connection;
    const options = {
      session: this.#session,
      limits: server.grants.limits,
      timeoutMs: server.timeoutMs,
      clock: Date.now,
    };
    this.#receiver = new ArticleReceiver(server.store, options, monotonicNow(), {
      onHeader: (stream, source) => this.#onHeader(stream, source),
      onFrameEnded: (frame, outcome) => this.#onFrameEnded(frame, outcome),
      onFlushNeeded: () => connection.socket.wake(),
      onError: (error) => connection.fail(asFramesError(error, "internal")),
    });
  }

  get session(): string | undefined {
    return this.#receiver.headerFields === undefined ? undefined : this.#session;
  }

  get hasHello(): boolean {
    return this.#receiver.headerFields !== undefined;
  }

  get stream(): string | undefined {
    return this.#receiver.headerFields?.stream;
  }

  get counts(): Done {
    return { ...this.#receiver.counts };
  }

  get isDone(): boolean {
    return this.#receiver.isDone;
  }

  get isPaused(): boolean {
    return this.#waitingBytes !== undefined;
  }

  #onHeader(stream: string, source: string): void | Promise<void> {
    this.#connection.socket.markIdentified();
    this.#server.emit({
      type: "session",
      peer: this.#connection.peer,
      session: this.#session,
      stream,
      software: `${source}, in the article's dialect`,
      key: undefined,
    });
    const { store } = this.#server;
    if (store.refresh === undefined) return this.#acquireSource(stream, source);
    return store.refresh().then(() => this.#acquireSource(stream, source));
  }

  #acquireSource(stream: string, source: string): void | Promise<void> {
    // Fails now if the disk cannot store frames, instead of refusing each picture.
    this.#server.store.isStreamEmpty(stream);
    return this.#server.acquireSource(stream, source, this.#connection);
  }

  #onFrameEnded(frame: FrameDescription, outcome: Outcome): void {
    const { peer } = this.#connection;
    const headerFields = this.#receiver.headerFields!;
    if (outcome instanceof FramesError) {
      this.#server.emit({ type: "refused", peer, ...headerFields, frame, error: outcome });
    } else if (outcome === "stored") {
      this.#server.emitStored({ peer, ...headerFields, frame });
    }
  }

  receive(chunk: Uint8Array): void {
    this.#chunkCount++;
    this.#resolveAliveCheck(true);
    if (this.#waitingBytes === undefined) this.#receive(chunk);
    else this.#setWaitingBytes(Buffer.concat([this.#waitingBytes, chunk]));
  }

  /** Processes bytes until the turn is over. The rest waits for a slice of work. */
  #receive(chunk: Uint8Array): void {
    const { workQueue } = this.#server;
    const length = this.#receiver.receive(chunk, monotonicNow(), () => workQueue.isTurnOver);
    if (length < chunk.length) {
      this.#setWaitingBytes(new Uint8Array(chunk.subarray(length)));
      const { socket } = this.#connection;
      void workQueue.run(this.#connection, () => socket.run(() => this.#receiveWaiting()));
    }
  }

  #setWaitingBytes(bytes: Uint8Array | undefined): void {
    this.#waitingBytes = bytes;
    this.#server.setBufferedBytes(this.#connection, bytes?.length ?? 0, true);
  }

  #receiveWaiting(): void {
    const bytes = this.#waitingBytes;
    if (bytes === undefined) return;
    this.#setWaitingBytes(undefined);
    this.#receive(bytes);
    if (this.#waitingBytes === undefined && this.#connection.hasInputEnded) this.onEnd();
  }

  /** Sends due answers, requests a flush if frames wait for it, and restarts the quiet timer. */
  transmit(): void {
    const { socket } = this.#connection;
    const answers = this.#receiver.drainAnswers();
    if (answers !== undefined) socket.send(answers);
    if (socket.queuedBytes > maxQueuedBytes) {
      throw new FramesError("limit", "The client does not read the server's answers");
    }
    if (this.#receiver.needsFlush) this.#server.commits.add(this.#connection);
    if (this.#receiver.isDone) this.#complete();
    this.#startQuietTimer();
  }

  #startQuietTimer(): void {
    clearTimeout(this.#quietTimer);
    const { quietAt } = this.#receiver;
    if (quietAt === undefined) return;
    const chunkCount = this.#chunkCount;
    this.#quietTimer = setTimeout(
      () => {
        // Data that arrived while this process was busy is read first.
        setImmediate(() => {
          if (chunkCount !== this.#chunkCount) return;
          this.#connection.socket.run(() => this.#receiver.onQuiet(monotonicNow()));
        });
      },
      Math.max(1, Math.ceil(quietAt - monotonicNow())),
    );
  }

  isFlushDue(): boolean {
    return true;
  }

  get flushable(): FlushSnapshot {
    return this.#receiver.flushSnapshot;
  }

  ack(flushed: FlushSnapshot): void {
    const { socket, hasFailed } = this.#connection;
    this.#receiver.ack(flushed);
    if (socket.isClosed && !hasFailed && this.isDone) this.#complete();
    socket.wake();
    // After its FIN the client cannot send `over` any more.
    if (this.#connection.hasInputEnded) socket.finish();
  }

  /** Reports the delivery once all pictures are stored. */
  #complete(): void {
    this.#releaseSource();
    this.#connection.socket.finish();
    this.#connection.reportDelivered(0);
  }

  /** Releases the client's source for other senders. */
  #releaseSource(): void {
    const { headerFields } = this.#receiver;
    if (headerFields === undefined) return;
    this.#server.releaseSource(headerFields.stream, headerFields.source, this.#connection);
  }

  tick(now: number): void {
    this.#receiver.tick(now);
  }

  onEnd(): void {
    if (this.#waitingBytes !== undefined) return;
    // The FIN ends the text that the client sent last.
    this.#receiver.onEnd(monotonicNow());
    void this.#server.commits.commit([this.#connection]);
  }

  /** The dialect has no ping. A client counts as alive if it sends data or waits for our answer. */
  isAlive(): Promise<boolean> {
    if (this.#receiver.isClientWaiting) return Promise.resolve(true);
    return (this.#aliveCheck ??= this.#waitForData());
  }

  async #waitForData(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#resolveAliveCheck = resolve;
    const timer = setTimeout(() => setImmediate(() => resolve(false)), aliveTimeoutMs);
    const isAlive = await promise;
    clearTimeout(timer);
    this.#aliveCheck = undefined;
    return isAlive;
  }

  stop(): void {
    this.#setWaitingBytes(undefined);
    this.#receiver.stop();
    this.#releaseSource();
    this.#resolveAliveCheck(false);
  }

  /**
   * Stores the complete pictures, then closes. The dialect has no error message, so the client only
   * sees the end of the connection.
   */
  async sendError(): Promise<void> {
    await this.#server.commits.commit([this.#connection]);
    this.#connection.socket.finish();
  }

  /**
   * Flushes first if the client sent `over`, because it may close before it has read the last
   * answers.
   */
  async onClose(): Promise<void> {
    clearTimeout(this.#quietTimer);
    try {
      if ((this.#waitingBytes?.length ?? Infinity) <= maxLastBytes) this.#receiveWaiting();
    } catch (error) {
      this.#connection.fail(asFramesError(error, "internal"));
    }
    if (!this.#connection.hasFailed && this.#receiver.isOver) {
      await this.#server.commits.commit([this.#connection]);
    }
  }
}
