/**
 * Server side of a client that sends in the article's dialect (SPEC appendix A). Connects an
 * `ArticleReceiver` to a socket.
 */
import { asFramesError, FramesError } from "../errors.ts";
import type { FrameDescription, Outcome } from "../frame.ts";
import type { ServerConnection, ServerContext } from "./server-context.ts";
import { monotonicNow } from "../common/clock.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { ArticleReceiver } from "../protocol/article/article-receiver.ts";
import type { FlushSnapshot } from "../protocol/receive/receiver-events.ts";

/** Time for a client to send any data after another client claims its source, in milliseconds. */
const aliveTimeoutMs = 5000;

/** Limit of unsent answer bytes. A client that exceeds it never reads its answers. */
const maxQueuedBytes = 1 << 20;

/**
 * Limit of bytes that are still processed when the client has closed: `over`, which clients send
 * before they close.
 */
const maxLastBytes = 1024;

/** A connected client of the article's dialect. */
export class ArticleConnection implements ConnectionHandler, ServerConnection {
  readonly #server: ServerContext;
  readonly peer: string;
  readonly since = new Date();
  readonly key = undefined;
  readonly #receiver: ArticleReceiver;
  readonly #session = crypto.randomUUID().replaceAll("-", "");
  readonly #closed = Promise.withResolvers<void>();
  readonly #isFull: boolean;
  #connection: Connection | undefined;
  #failure: FramesError | undefined;
  #isReported = false;
  /** Whether the client has closed its sending side. */
  #hasInputEnded = false;
  /** Bytes that wait for a slice of work. Nothing is read from the client meanwhile. */
  #waitingBytes: Uint8Array | undefined;
  /** Calls of `onData` so far. */
  #chunkCount = 0;
  #quietTimer: NodeJS.Timeout | undefined;
  #aliveCheck: Promise<boolean> | undefined;
  #resolveAliveCheck: (isAlive: boolean) => void = () => {};

  constructor(server: ServerContext, peer: string, isFull: boolean) {
    this.#server = server;
    this.peer = peer;
    this.#isFull = isFull;
    const options = {
      session: this.#session,
      limits: server.grants.limits,
      timeoutMs: server.timeoutMs,
      clock: Date.now,
    };
    this.#receiver = new ArticleReceiver(server.store, options, monotonicNow(), {
      onHeader: (stream, source) => this.#onHeader(stream, source),
      onFrameEnded: (frame, outcome) => this.#onFrameEnded(frame, outcome),
      onFlushNeeded: () => this.#connection!.wake(),
      onError: (error) => this.fail(asFramesError(error, "internal")),
    });
  }

  get session(): string | undefined {
    return this.#receiver.headerFields === undefined ? undefined : this.#session;
  }

  get isFinished(): boolean {
    return this.#failure !== undefined || this.#receiver.isDone || this.#connection!.isClosed;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get timeoutMs(): number {
    return this.#server.timeoutMs;
  }

  get isPaused(): boolean {
    return this.#waitingBytes !== undefined;
  }

  onOpen(connection: Connection): void {
    this.#connection = connection;
    this.#server.add(this);
    if (this.#isFull) this.fail(new FramesError("full"));
  }

  #onHeader(stream: string, source: string): void | Promise<void> {
    this.#connection!.markIdentified();
    this.#server.emit({
      type: "session",
      peer: this.peer,
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
    return this.#server.acquireSource(stream, source, this);
  }

  #onFrameEnded(frame: FrameDescription, outcome: Outcome): void {
    const { peer } = this;
    const headerFields = this.#receiver.headerFields!;
    if (outcome instanceof FramesError) {
      this.#server.emit({ type: "refused", peer, ...headerFields, frame, error: outcome });
    } else if (outcome === "stored") {
      this.#server.emitStored(() => ({ peer, ...headerFields, frame }));
    }
  }

  onData(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
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
      void workQueue.run(this, () => this.#connection!.run(() => this.#receiveWaiting()));
    }
  }

  #setWaitingBytes(bytes: Uint8Array | undefined): void {
    this.#waitingBytes = bytes;
    this.#server.setBufferedBytes(this, bytes?.length ?? 0, true);
  }

  #receiveWaiting(): void {
    const bytes = this.#waitingBytes;
    if (bytes === undefined || this.#failure !== undefined) return;
    this.#setWaitingBytes(undefined);
    this.#receive(bytes);
    if (this.#waitingBytes === undefined && this.#hasInputEnded) this.onEnd();
  }

  /** Sends due answers, requests a flush if frames wait for it, and restarts the quiet timer. */
  transmit(): void {
    if (this.#failure !== undefined) return;
    const answers = this.#receiver.drainAnswers();
    if (answers !== undefined) this.#connection!.send(answers);
    if (this.#connection!.queuedBytes > maxQueuedBytes) {
      return this.fail(new FramesError("limit", "The client does not read the server's answers"));
    }
    if (this.#receiver.needsFlush) this.#server.flushLater(this);
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
          this.#connection!.run(() => this.#receiver.onQuiet(monotonicNow()));
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
    this.#receiver.ack(flushed);
    this.transmit();
    // After its FIN the client cannot send `over` any more.
    if (this.#hasInputEnded) this.#connection!.finish();
  }

  /** Reports the delivery once all pictures are stored. */
  #complete(): void {
    if (this.#isReported) return;
    this.#isReported = true;
    this.#releaseSource();
    this.#connection!.finish();
    this.#server.emit({
      type: "delivered",
      peer: this.peer,
      session: this.#session,
      stream: this.#receiver.headerFields!.stream,
      counts: { ...this.#receiver.counts },
      found: 0,
    });
  }

  /** Releases the client's source for other senders. */
  #releaseSource(): void {
    const { headerFields } = this.#receiver;
    if (headerFields === undefined) return;
    this.#server.releaseSource(headerFields.stream, headerFields.source, this);
  }

  tick(now: number): void {
    if (this.#failure === undefined) this.#receiver.tick(now);
  }

  onEnd(): void {
    this.#hasInputEnded = true;
    if (this.#waitingBytes !== undefined) return;
    // The FIN ends the text that the client sent last.
    this.#receiver.onEnd(monotonicNow());
    void this.#server.flushAndAck(this);
  }

  /** The dialect has no ping. A client counts as alive if it sends data or waits for our answer. */
  isAlive(): Promise<boolean> {
    if (this.isFinished) return Promise.resolve(false);
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

  fail(error: FramesError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#setWaitingBytes(undefined);
    this.#receiver.stop();
    this.#releaseSource();
    this.#resolveAliveCheck(false);
    void this.#finishWithError(error);
  }

  /**
   * Stores the complete pictures, then closes. The dialect has no error message, so the client only
   * sees the end of the connection.
   */
  async #finishWithError(error: FramesError): Promise<void> {
    await this.#server.flushAndAck(this);
    this.#connection!.finish();
    this.#report(error);
  }

  #report(error: FramesError): void {
    if (this.#isReported) return;
    this.#isReported = true;
    this.#server.emit({
      type: "failed",
      peer: this.peer,
      session: this.session,
      stream: this.#receiver.headerFields?.stream,
      counts: { ...this.#receiver.counts },
      error,
    });
  }

  onClose(error: FramesError | undefined): void {
    clearTimeout(this.#quietTimer);
    this.#resolveAliveCheck(false);
    try {
      if ((this.#waitingBytes?.length ?? Infinity) <= maxLastBytes) this.#receiveWaiting();
    } catch (thrown) {
      this.fail(asFramesError(thrown, "internal"));
    }
    void this.#flushAndRemove(error);
  }

  /**
   * Flushes first if the client sent `over`, because it may close before it has read the last
   * answers.
   */
  async #flushAndRemove(error: FramesError | undefined): Promise<void> {
    if (this.#failure === undefined && this.#receiver.isOver) await this.#server.flushAndAck(this);
    this.#receiver.stop();
    this.#releaseSource();
    this.#server.remove(this);
    const reason = this.#failure ?? error;
    if (this.#receiver.headerFields !== undefined || reason !== undefined) {
      this.#report(
        reason ?? new FramesError("network", "The client closed the connection before it was done"),
      );
    }
    this.#closed.resolve();
  }
}
