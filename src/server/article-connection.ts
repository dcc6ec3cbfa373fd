/** Receives from one client of the article's dialect (SPEC appendix A): joins a machine and a socket. */
import { asFramesError, FramesError } from "../errors.ts";
import type { FrameDescription, Outcome } from "../frame.ts";
import type { ServerConnection } from "./server-connection.ts";
import { monotonicNow } from "../common/clock.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import type { ServerContext } from "./server-context.ts";
import { ArticleReceiver } from "../protocol/article/article-receiver.ts";
import type { FlushSnapshot } from "../protocol/receive/receiver-events.ts";

/** A client whose source another one claims gets this long, in milliseconds, to send anything. */
const aliveTimeoutMs = 5000;

/** A client that leaves so many bytes of answers unread never reads. */
const maxQueuedBytes = 1 << 20;

/** One client, as long as it is connected. */
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
  /** Calls of `data` so far. */
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
      onFlushNeeded: () => this.#advance(),
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

  get tickIntervalMs(): number {
    return Math.min(1000, this.#server.timeoutMs / 4);
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
    // What is wrong with the disk is said now, and not of each picture.
    this.#server.store.isStreamEmpty(stream);
    return this.#server.acquireSource(stream, source, this);
  }

  #onFrameEnded(frame: FrameDescription, outcome: Outcome): void {
    const { peer } = this;
    const origin = this.#receiver.headerFields!;
    if (outcome instanceof FramesError) {
      this.#server.emit({ type: "refused", peer, ...origin, frame, error: outcome });
    } else if (outcome === "stored") {
      this.#server.emitStored(() => ({ peer, ...origin, frame }));
    }
  }

  onData(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    this.#chunkCount++;
    this.#resolveAliveCheck(true);
    this.#receiver.receive(chunk, monotonicNow());
    this.#advance();
  }

  /** Sends what is due, has the store flushed if that settles something, and waits for quiet. */
  #advance(): void {
    if (this.#failure !== undefined) return;
    const answers = this.#receiver.drainAnswers();
    if (answers !== undefined) this.#connection!.send(answers);
    if (this.#connection!.queuedBytes > maxQueuedBytes) {
      return this.fail(new FramesError("limit", "The client does not read its answers"));
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
        // What came while this process was busy is read first.
        setImmediate(() => {
          if (chunkCount !== this.#chunkCount || this.#connection!.isClosed) return;
          try {
            this.#receiver.onQuiet(monotonicNow());
            this.#advance();
          } catch (error) {
            this.fail(asFramesError(error, "internal"));
          }
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
    this.#advance();
    // Without `over` nothing more can come of it.
    if (this.#hasInputEnded) this.#connection!.finish();
  }

  /** Everything came, and is stored. */
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

  /** Whoever ends has no source any more. */
  #releaseSource(): void {
    const { headerFields: origin } = this.#receiver;
    if (origin !== undefined) this.#server.releaseSource(origin.stream, origin.source, this);
  }

  onDrain(): void {}

  tick(): void {
    if (this.#failure !== undefined) return;
    this.#receiver.tick(monotonicNow());
  }

  onEnd(): void {
    this.#hasInputEnded = true;
    // Nothing can follow what it said last.
    this.#receiver.onEnd(monotonicNow());
    void this.#server.flushAndAck(this);
  }

  /** Nobody can be asked in this dialect: whoever sends on is there, and whoever waits for us. */
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
    this.#receiver.stop();
    this.#releaseSource();
    this.#resolveAliveCheck(false);
    void this.#finishWithError(error);
  }

  /** What ended before is stored; the dialect has no word for an error, so that the client just sees an end. */
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
    void this.#flushAndRemove(error);
  }

  /** A client closes as soon as it has said `over`, whether or not it has read the last answers. */
  async #flushAndRemove(error: FramesError | undefined): Promise<void> {
    if (this.#failure === undefined && this.#receiver.isOver) await this.#server.flushAndAck(this);
    this.#receiver.stop();
    this.#releaseSource();
    this.#server.remove(this);
    const reason = this.#failure ?? error;
    if (this.#receiver.headerFields !== undefined || reason !== undefined) {
      this.#report(reason ?? new FramesError("network", "The client closed before it was done"));
    }
    this.#closed.resolve();
  }
}
