/** Receives from one sender: joins a receiver and a socket. */
import { allowsStream, type KeyEntry } from "../auth/key.ts";
import { asFramesError, FramesError, truncateMessage } from "../errors.ts";
import type { FrameDescription, Outcome } from "../frame.ts";
import type { ServerConnection } from "./server-connection.ts";
import type { ServerContext } from "./server-context.ts";
import { monotonicNow } from "../common/clock.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { PlaybackConnection } from "./playback-connection.ts";
import { Receiver } from "../protocol/receive/receiver.ts";
import type {
  FlushSnapshot,
  KeyVerifier,
  WelcomeFields,
} from "../protocol/receive/receiver-events.ts";
import { StoreBackpressure } from "./store-backpressure.ts";
import { replyToWrongProtocol } from "./wrong-protocol.ts";
import { software } from "../version.ts";
import type { Hello } from "../wire/messages.ts";

/** A sender whose source another one claims gets this long, in milliseconds, to answer a PING. */
const pingTimeoutMs = 5000;

/** One that goes on sending for so long, in milliseconds, is there, whatever it answers. */
const maxAliveCheckMs = 60_000;

/** More than this many bytes that a sender does not read: nothing more is read from it. */
const maxQueuedBytes = 1 << 20;

/** One sender, as long as it is connected. */
export class IngestConnection implements ConnectionHandler, ServerConnection {
  readonly #server: ServerContext;
  readonly peer: string;
  /** When it connected. */
  readonly since = new Date();
  readonly #receiver: Receiver;
  readonly #closed = Promise.withResolvers<void>();
  readonly #isFull: boolean;
  readonly #backpressure: StoreBackpressure;
  #key: KeyEntry | undefined;
  /** What gives frames out, if that is wanted. */
  #playback: PlaybackConnection | undefined;
  /** Whether HELLO came, and the proof of its key if that is asked for. */
  #isIdentified = false;
  #connection: Connection | undefined;
  #isPaused = false;
  #failure: FramesError | undefined;
  #isReported = false;
  /** Whether anything came since the last turn of the event loop. */
  #hasNewData = false;
  #hasReceived = false;
  /** Whether the sender has closed its sending side. */
  #hasInputEnded = false;
  /** The PING that somebody waits for the answer to, and when anything came last. */
  #pendingPing: { time: string; resolve: (isAlive: boolean) => void } | undefined;
  #aliveCheck: Promise<boolean> | undefined;
  #lastDataAt = 0;

  /** @param exporter what the TLS channel exports, where the server asks for a key */
  constructor(
    server: ServerContext,
    peer: string,
    isFull: boolean,
    exporter: Uint8Array | undefined,
  ) {
    this.#server = server;
    this.peer = peer;
    this.#isFull = isFull;
    this.#backpressure = new StoreBackpressure(server.store, {
      onReady: (chunks) => this.#onStoreReady(chunks),
      onError: (error) => this.fail(asFramesError(error, "store")),
    });
    this.#receiver = new Receiver(
      server.store,
      server.grants,
      server.timeoutMs,
      monotonicNow(),
      {
        onHello: (hello) => this.#onHello(hello),
        onHandOver: (decoder) => this.#playback!.start(decoder),
        acquireSource: (stream, source) => {
          this.#checkStream(stream);
          return server.acquireSource(stream, source, this);
        },
        releaseSource: (stream, source) => server.releaseSource(stream, source, this),
        onPong: (time) => {
          if (time === this.#pendingPing?.time) this.#pendingPing.resolve(true);
        },
        onFrameEnded: (source, frame, outcome) => this.#onFrameEnded(source, frame, outcome),
        onLost: (source, frames, error) =>
          server.emit({ type: "lost", ...this.#peerAndStream(), source, frames, error }),
        onFlushNeeded: () => {
          // What waited may have been read meanwhile.
          server.setBufferedBytes(this, this.#receiver.bufferedBytes);
          this.#resumeReading();
          server.flushLater(this);
        },
        onError: (error) => this.fail(asFramesError(error, "internal")),
      },
      this.#keyVerifier(exporter),
    );
  }

  /** Whom the sender proves its key to. */
  #keyVerifier(exporter: Uint8Array | undefined): KeyVerifier | undefined {
    const { keys } = this.#server;
    if (keys === undefined) return undefined;
    if (exporter === undefined)
      throw new FramesError("internal", "A key was asked for without TLS");
    const keyName = () => this.#key?.name;
    return {
      exporter,
      findKey: (id) => {
        this.#key = keys.find(id);
        return this.#key?.key;
      },
      get keyName() {
        return keyName();
      },
    };
  }

  /** The key that it has proved. */
  get key(): KeyEntry | undefined {
    return this.#isIdentified ? this.#key : undefined;
  }

  #checkStream(stream: string): void {
    if (this.#key === undefined || allowsStream(this.#key, stream)) return;
    const { name, streams } = this.#key;
    throw new FramesError(
      "wrong-stream",
      `The key ${name} is for streams called ${streams}, and not for ${stream}`,
    );
  }

  get session(): string | undefined {
    return this.#isIdentified ? this.#receiver.hello?.session : undefined;
  }

  /** Whether nothing more comes of it. */
  get isFinished(): boolean {
    return this.#failure !== undefined || this.#receiver.isDone || this.#connection!.isClosed;
  }

  /** Settled when the connection is closed. */
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

  #peerAndStream(): { peer: string; stream: string } {
    return { peer: this.peer, stream: this.#receiver.hello!.stream };
  }

  #onHello(hello: Hello): WelcomeFields {
    this.#isIdentified = true;
    this.#connection!.markIdentified();
    if (this.#key !== undefined && this.#key.role !== "both" && this.#key.role !== hello.role) {
      const { name, role } = this.#key;
      throw new FramesError("wrong-role", `The key ${name} may only ${role}, not ${hello.role}`);
    }
    this.#checkStream(hello.stream);
    if (hello.role === "receive") return this.#preparePlayback(hello);
    this.#server.supersede(hello.session, this);
    this.#server.emit({
      type: "session",
      ...this.#peerAndStream(),
      session: hello.session,
      software: truncateMessage(hello.software ?? "unknown software"),
      key: this.#key?.name,
    });
    const { store } = this.#server;
    return { fresh: store.isStreamEmpty(hello.stream), store: store.location, software };
  }

  /** From WELCOME on somebody else looks after whoever receives. */
  #preparePlayback(hello: Hello): WelcomeFields {
    const { journalTail, store } = this.#server;
    this.#playback = new PlaybackConnection(this.#server, this, hello);
    const identity = journalTail.catalog.property("identity");
    const { isResumed } = this.#playback;
    return {
      fresh: !journalTail.catalog.has(hello),
      store: store.location,
      software,
      ...(identity === undefined ? {} : { identity }),
      ...(isResumed === undefined ? {} : { resumed: isResumed }),
    };
  }

  #handOverToPlayback(): void {
    const connection = this.#connection!;
    this.#server.remove(this);
    connection.setHandler(this.#playback!);
    this.#playback!.onOpen(connection);
    this.#closed.resolve();
  }

  #onFrameEnded(source: string, frame: FrameDescription, outcome: Outcome): void {
    if (outcome instanceof FramesError) {
      this.#server.emit({
        type: "refused",
        ...this.#peerAndStream(),
        source,
        frame,
        error: outcome,
      });
    } else if (outcome === "stored") {
      this.#server.emitStored(() => ({ ...this.#peerAndStream(), source, frame }));
    }
  }

  onData(chunk: Uint8Array): void {
    if (!this.#hasReceived) {
      this.#hasReceived = true;
      const wrongProtocol = replyToWrongProtocol(chunk, this.#server);
      if (wrongProtocol !== undefined) {
        this.#connection!.send(wrongProtocol.bytes);
        return this.fail(wrongProtocol.error);
      }
    }
    if (this.#failure !== undefined) return;
    if (this.#backpressure.defer(chunk)) return this.#pauseReading();
    this.#hasNewData = true;
    if (this.#pendingPing !== undefined) this.#lastDataAt = monotonicNow();
    this.#receiver.receive(chunk, monotonicNow());
    if (this.#receiver.isPaused || this.#backpressure.isBlocked) this.#pauseReading();
    this.#server.setBufferedBytes(this, this.#receiver.bufferedBytes);
    if (this.#receiver.needsFlush) this.#server.flushLater(this);
    this.#flushOutput();
    if (this.#playback !== undefined) this.#handOverToPlayback();
  }

  /** Whether a receipt must leave now: nothing came in this turn, or enough waits. */
  isFlushDue(): boolean {
    const isInputIdle = !this.#hasNewData;
    this.#hasNewData = false;
    return isInputIdle || this.#receiver.isReceiptDue;
  }

  /** Frames that a flush of the store which begins now will settle. */
  get flushable(): FlushSnapshot {
    return this.#receiver.flushSnapshot;
  }

  /** The store was flushed; `flushed` is what was `flushable` before. */
  ack(flushed: FlushSnapshot): void {
    if (this.#connection!.isClosed) return;
    this.#receiver.ack(monotonicNow(), flushed);
    this.#flushOutput();
    if (this.#failure !== undefined) return;
    const { isDone, isEnding } = this.#receiver;
    // Without END nothing more can come of it; after END, DONE may still wait for the store.
    const isAllRead =
      this.#hasInputEnded && !this.#receiver.isPaused && !this.#backpressure.isBlocked;
    if (isAllRead && !isDone && !isEnding) this.#connection!.finish();
    if (!isDone || this.#isReported) return;
    this.#isReported = true;
    this.#releaseSources();
    // The sender closes when it has read DONE, however slow its link is.
    this.#connection!.finish(this.#server.timeoutMs);
    this.#server.emit({
      type: "delivered",
      ...this.#peerAndStream(),
      session: this.session!,
      counts: { ...this.#receiver.counts },
      found: this.#receiver.foundCount,
    });
  }

  /** Whoever ends has no source any more. */
  #releaseSources(): void {
    for (const { stream, name } of this.#receiver.sources) {
      this.#server.releaseSource(stream, name, this);
    }
  }

  #flushOutput(): void {
    const connection = this.#connection!;
    for (const bytes of this.#receiver.drain(monotonicNow())) connection.send(bytes);
    if (connection.queuedBytes > maxQueuedBytes) this.#pauseReading();
  }

  /** Reads nothing more for now. */
  #pauseReading(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#connection!.pause();
  }

  /** Reads on, if nothing is against it. */
  #resumeReading(): void {
    const isQueueFull = this.#connection!.queuedBytes > maxQueuedBytes;
    if (!this.#isPaused || isQueueFull || this.#receiver.isPaused || this.#backpressure.isBlocked)
      return;
    this.#isPaused = false;
    this.#connection!.resume();
  }

  /** The store is ready for what came meanwhile, and for more. */
  #onStoreReady(chunks: readonly Uint8Array[]): void {
    try {
      for (const chunk of chunks) this.onData(chunk);
    } catch (error) {
      return this.fail(asFramesError(error, "internal"));
    }
    this.#resumeReading();
    if (this.#hasInputEnded) this.#server.flushLater(this);
  }

  onDrain(): void {
    this.#resumeReading();
  }

  /**
   * Whether the sender answers a PING. What its system had still to send is no answer, but while that
   * comes the answer may be behind it.
   */
  isAlive(): Promise<boolean> {
    if (this.isFinished) return Promise.resolve(false);
    return (this.#aliveCheck ??= this.#checkAlive());
  }

  async #checkAlive(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const pingedAt = monotonicNow();
    this.#lastDataAt = pingedAt;
    this.#pendingPing = { time: this.#receiver.ping(pingedAt), resolve: resolve };
    this.#flushOutput();
    const isSilent = () => monotonicNow() - this.#lastDataAt >= pingTimeoutMs;
    const timer = setInterval(() => {
      if (this.#receiver.isPaused || this.#backpressure.isBlocked) {
        // It waits for a source itself and is not read meanwhile; but two may wait for each other.
        this.#lastDataAt = monotonicNow();
        if (this.#lastDataAt - pingedAt >= pingTimeoutMs) resolve(true);
        return;
      }
      // What came while this process was busy is read first.
      if (isSilent()) setImmediate(() => isSilent() && resolve(false));
      else if (monotonicNow() - pingedAt >= maxAliveCheckMs) resolve(true);
    }, 100);
    const isAlive = await promise;
    clearInterval(timer);
    this.#pendingPing = this.#aliveCheck = undefined;
    return isAlive;
  }

  tick(): void {
    if (this.#failure !== undefined || this.#receiver.isDone) return;
    this.#receiver.tick(monotonicNow(), this.#backpressure.isBlocked);
    this.#flushOutput();
  }

  onEnd(): void {
    // A sender may close its sending side after END: its DONE is still on the way.
    this.#hasInputEnded = true;
    void this.#server.flushAndAck(this);
  }

  fail(error: FramesError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#playback?.release();
    this.#receiver.stop(error);
    this.#releaseSources();
    this.#server.setBufferedBytes(this, 0);
    this.#pendingPing?.resolve(false);
    void this.#finishWithError(error);
  }

  /** What ended before is settled first: the sender need not send it again. */
  async #finishWithError(error: FramesError): Promise<void> {
    await this.#server.flushAndAck(this);
    const delayMs = error.code === "not-let-in" ? this.#server.authFailureDelayMs(this.peer) : 0;
    if (delayMs > 0) await Bun.sleep(delayMs);
    this.#receiver.fail(error);
    this.#flushOutput();
    this.#connection!.finish();
    this.#report(error);
  }

  /** What is wrong with a sender is said once, with what it had delivered. */
  #report(error: FramesError): void {
    if (this.#isReported) return;
    this.#isReported = true;
    this.#server.emit({
      type: "failed",
      peer: this.peer,
      session: this.session,
      // What somebody says who was not let in is not worth a line in a log.
      stream: this.#isIdentified ? this.#receiver.hello?.stream : undefined,
      counts: { ...this.#receiver.counts },
      error,
    });
  }

  onClose(error: FramesError | undefined): void {
    this.#receiver.close();
    this.#playback?.release();
    this.#pendingPing?.resolve(false);
    this.#releaseSources();
    this.#server.remove(this);
    if (this.#receiver.hello !== undefined || error !== undefined) {
      this.#report(error ?? new FramesError("network", "The sender closed before it was done"));
    }
    this.#closed.resolve();
  }
}
