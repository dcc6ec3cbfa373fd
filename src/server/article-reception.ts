/** Receives from one client of the article's dialect (SPEC appendix A): joins a machine and a socket. */
import { asFramesError, FramesError } from "../errors.ts";
import type { FrameDescription, Outcome } from "../frame.ts";
import type { Guest } from "./guest.ts";
import { type Connection, type ConnectionHandler, steadyNow } from "../net/connection.ts";
import type { Host } from "./host.ts";
import { ArticleReceiver } from "../session/article-receiver.ts";
import type { Flushable } from "../session/receiving.ts";

/** A client whose source another one claims gets this long, in milliseconds, to send anything. */
const goesOnWithin = 5000;

/** A client that leaves so many bytes of answers unread never reads. */
const mostQueued = 1 << 20;

/** One client, as long as it is connected. */
export class ArticleReception implements ConnectionHandler, Guest {
  readonly #server: Host;
  readonly peer: string;
  readonly since = new Date();
  readonly key = undefined;
  readonly #receiver: ArticleReceiver;
  readonly #session = crypto.randomUUID().replaceAll("-", "");
  readonly #gone = Promise.withResolvers<void>();
  readonly #isFull: boolean;
  #connection: Connection | undefined;
  #failure: FramesError | undefined;
  #reported = false;
  /** Whether the client has closed its sending side. */
  #hasEnded = false;
  /** Calls of `data` so far. */
  #chunks = 0;
  #quietTimer: NodeJS.Timeout | undefined;
  #probe: Promise<boolean> | undefined;
  #endProbe: (isThere: boolean) => void = () => {};

  constructor(server: Host, peer: string, isFull: boolean) {
    this.#server = server;
    this.peer = peer;
    this.#isFull = isFull;
    const conversation = {
      session: this.#session,
      limits: server.grants.limits,
      timeout: server.timeout,
      clock: Date.now,
    };
    this.#receiver = new ArticleReceiver(server.store, conversation, steadyNow(), {
      header: (stream, source) => this.#header(stream, source),
      ended: (frame, outcome) => this.#ended(frame, outcome),
      wake: () => this.#goOn(),
      failed: (error) => this.failed(asFramesError(error, "internal")),
    });
  }

  get session(): string | undefined {
    return this.#receiver.origin === undefined ? undefined : this.#session;
  }

  get isOver(): boolean {
    return this.#failure !== undefined || this.#receiver.isDone || this.#connection!.isClosed;
  }

  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  get tickEvery(): number {
    return Math.min(1000, this.#server.timeout / 4);
  }

  opened(connection: Connection): void {
    this.#connection = connection;
    this.#server.add(this);
    if (this.#isFull) this.failed(new FramesError("full"));
  }

  #header(stream: string, source: string): void | Promise<void> {
    this.#connection!.known();
    this.#server.tell({
      type: "session",
      peer: this.peer,
      session: this.#session,
      stream,
      software: `${source}, in the article's dialect`,
      key: undefined,
    });
    const { store } = this.#server;
    if (store.refresh === undefined) return this.#claim(stream, source);
    return store.refresh().then(() => this.#claim(stream, source));
  }

  #claim(stream: string, source: string): void | Promise<void> {
    // What is wrong with the disk is said now, and not of each picture.
    this.#server.store.isFresh(stream);
    return this.#server.claim(stream, source, this);
  }

  #ended(frame: FrameDescription, outcome: Outcome): void {
    const { peer } = this;
    const origin = this.#receiver.origin!;
    if (outcome instanceof FramesError) {
      this.#server.tell({ type: "refused", peer, ...origin, frame, error: outcome });
    } else if (outcome === "stored") {
      this.#server.tellStored(() => ({ peer, ...origin, frame }));
    }
  }

  data(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    this.#chunks++;
    this.#endProbe(true);
    this.#receiver.receive(chunk, steadyNow());
    this.#goOn();
  }

  /** Sends what is due, has the store flushed if that settles something, and waits for quiet. */
  #goOn(): void {
    if (this.#failure !== undefined) return;
    const answers = this.#receiver.take();
    if (answers !== undefined) this.#connection!.send(answers);
    if (this.#connection!.queued > mostQueued) {
      return this.failed(new FramesError("limit", "The client does not read its answers"));
    }
    if (this.#receiver.wantsFlush) this.#server.settleLater(this);
    if (this.#receiver.isDone) this.#done();
    this.#awaitQuiet();
  }

  #awaitQuiet(): void {
    clearTimeout(this.#quietTimer);
    const { quietAt } = this.#receiver;
    if (quietAt === undefined) return;
    const chunks = this.#chunks;
    this.#quietTimer = setTimeout(
      () => {
        // What came while this process was busy is read first.
        setImmediate(() => {
          if (chunks !== this.#chunks || this.#connection!.isClosed) return;
          try {
            this.#receiver.quiet(steadyNow());
            this.#goOn();
          } catch (error) {
            this.failed(asFramesError(error, "internal"));
          }
        });
      },
      Math.max(1, Math.ceil(quietAt - steadyNow())),
    );
  }

  isDue(): boolean {
    return true;
  }

  get flushable(): Flushable {
    return this.#receiver.flushable;
  }

  settle(flushed: Flushable): void {
    this.#receiver.settle(flushed);
    this.#goOn();
    // Without `over` nothing more can come of it.
    if (this.#hasEnded) this.#connection!.finish();
  }

  /** Everything came, and is stored. */
  #done(): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#release();
    this.#connection!.finish();
    this.#server.tell({
      type: "delivered",
      peer: this.peer,
      session: this.#session,
      stream: this.#receiver.origin!.stream,
      counts: { ...this.#receiver.counts },
      found: 0,
    });
  }

  /** Whoever ends has no source any more. */
  #release(): void {
    const { origin } = this.#receiver;
    if (origin !== undefined) this.#server.unclaim(origin.stream, origin.source, this);
  }

  drained(): void {}

  tick(): void {
    if (this.#failure !== undefined) return;
    this.#receiver.tick(steadyNow());
  }

  ended(): void {
    this.#hasEnded = true;
    // Nothing can follow what it said last.
    this.#receiver.end(steadyNow());
    void this.#server.settleLast(this);
  }

  /** Nobody can be asked in this dialect: whoever sends on is there, and whoever waits for us. */
  isThere(): Promise<boolean> {
    if (this.isOver) return Promise.resolve(false);
    if (this.#receiver.owes) return Promise.resolve(true);
    return (this.#probe ??= this.#watch());
  }

  async #watch(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#endProbe = resolve;
    const timer = setTimeout(() => setImmediate(() => resolve(false)), goesOnWithin);
    const isThere = await promise;
    clearTimeout(timer);
    this.#probe = undefined;
    return isThere;
  }

  failed(error: FramesError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#receiver.stop();
    this.#release();
    this.#endProbe(false);
    void this.#end(error);
  }

  /** What ended before is stored; the dialect has no word for an error, so that the client just sees an end. */
  async #end(error: FramesError): Promise<void> {
    await this.#server.settleLast(this);
    this.#connection!.finish();
    this.#report(error);
  }

  #report(error: FramesError): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#server.tell({
      type: "failed",
      peer: this.peer,
      session: this.session,
      stream: this.#receiver.origin?.stream,
      counts: { ...this.#receiver.counts },
      error,
    });
  }

  closed(error: FramesError | undefined): void {
    clearTimeout(this.#quietTimer);
    this.#endProbe(false);
    void this.#leave(error);
  }

  /** A client closes as soon as it has said `over`, whether or not it has read the last answers. */
  async #leave(error: FramesError | undefined): Promise<void> {
    if (this.#failure === undefined && this.#receiver.isOver) await this.#server.settleLast(this);
    this.#receiver.stop();
    this.#release();
    this.#server.remove(this);
    const reason = this.#failure ?? error;
    if (this.#receiver.origin !== undefined || reason !== undefined) {
      this.#report(reason ?? new FramesError("network", "The client closed before it was done"));
    }
    this.#gone.resolve();
  }
}
