/**
 * Server side of a client that speaks FRAMES/1. Reads HELLO and receives from a sender. Hands a
 * client that receives over to a `PlaybackConnection`.
 */
import { allowsStream, type KeyEntry } from "../auth/key.ts";
import { asFramesError, FramesError, truncateMessage } from "../errors.ts";
import type { FrameDescription, Outcome, RunSlice } from "../frame.ts";
import type { ServerConnection, ServerContext } from "./server-context.ts";
import { monotonicNow } from "../common/clock.ts";
import type { Connection, ConnectionHandler } from "../net/connection.ts";
import { PlaybackConnection } from "./playback-connection.ts";
import { Receiver } from "../protocol/receive/receiver.ts";
import type { KeyVerifier } from "../protocol/handshake.ts";
import type { FlushSnapshot, WelcomeFields } from "../protocol/receive/receiver-events.ts";
import { StoreBackpressure } from "./store-backpressure.ts";
import { replyToWrongProtocol } from "./wrong-protocol.ts";
import { software } from "../version.ts";
import type { Decoder } from "../wire/decode.ts";
import { type Done, type Hello, videoFeature } from "../wire/messages.ts";

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

/** A connected client, until it is handed over or closed. */
export class IngestConnection implements ConnectionHandler, ServerConnection {
  readonly #server: ServerContext;
  readonly peer: string;
  readonly since = new Date();
  readonly #receiver: Receiver;
  readonly #closed = Promise.withResolvers<void>();
  readonly #isFull: boolean;
  readonly #backpressure: StoreBackpressure;
  #key: KeyEntry | undefined;
  /** Takes over after WELCOME if the client wants to receive. */
  #playback: PlaybackConnection | undefined;
  #isHandedOver = false;
  /** Whether HELLO came, and a valid proof if the server requires a key. */
  #isIdentified = false;
  #connection: Connection | undefined;
  #failure: FramesError | undefined;
  #isReported = false;
  /** Whether data came since the last turn of the event loop. */
  #hasNewData = false;
  #hasReceived = false;
  /** Whether the sender has closed its sending side. */
  #hasInputEnded = false;
  /** The PING of a pending alive check. `#lastDataAt` is when the sender last sent data. */
  #pendingPing: { time: string; resolve: (isAlive: boolean) => void } | undefined;
  #aliveCheck: Promise<boolean> | undefined;
  /** Frames refused because they were stored before and moved away since. */
  #movedAwayCount = 0;
  #lastDataAt = 0;

  /**
   * @param exporter exported keying material of the TLS channel (RFC 9266), if the server requires
   * a key
   */
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
        onHandOver: (decoder) => this.#handOverToPlayback(decoder),
        runSlice: this.#runSlice,
        isTurnOver: () => server.workQueue.isTurnOver,
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
          if (this.#isHandedOver) return;
          // The receiver may have processed buffered data meanwhile.
          this.#updateBufferedBytes();
          this.#connection!.wake();
          server.flushLater(this);
        },
        onError: (error) => this.fail(asFramesError(error, "internal")),
      },
      this.#keyVerifier(exporter),
    );
  }

  /** Runs costly work for this client until it is gone. */
  readonly #runSlice: RunSlice = (slice) =>
    this.#server.workQueue.run(this, () => {
      if (this.#failure !== undefined || this.#connection!.isClosed) {
        throw new FramesError("network", "The client closed the connection");
      }
      return slice();
    });

  /** Returns the verifier for the sender's key; undefined if the server requires none. */
  #keyVerifier(exporter: Uint8Array | undefined): KeyVerifier | undefined {
    const { keys } = this.#server;
    if (keys === undefined) return undefined;
    if (exporter === undefined) throw new FramesError("internal", "A key is required without TLS");
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

  /** The key that the client has proved. */
  get key(): KeyEntry | undefined {
    return this.#isIdentified ? this.#key : undefined;
  }

  #checkStream(stream: string): void {
    if (this.#key === undefined || allowsStream(this.#key, stream)) return;
    const { name, streams } = this.#key;
    throw new FramesError(
      "wrong-stream",
      `The key ${name} allows streams called ${streams}, not ${stream}; on the server run frames key new NAME --streams GLOB`,
    );
  }

  get session(): string | undefined {
    return this.#isIdentified ? this.#receiver.hello?.session : undefined;
  }

  /** Whether the connection failed, ended or closed. */
  get isFinished(): boolean {
    return this.#failure !== undefined || this.#receiver.isDone || this.#connection!.isClosed;
  }

  /** Resolves when the connection is closed or handed over. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get timeoutMs(): number {
    return this.#server.timeoutMs;
  }

  get isPaused(): boolean {
    const isQueueFull = this.#connection!.queuedBytes > maxQueuedBytes;
    return isQueueFull || this.#receiver.isPaused || this.#backpressure.isBlocked;
  }

  onOpen(connection: Connection): void {
    this.#connection = connection;
    this.#server.add(this);
    if (this.#isFull) this.fail(new FramesError("full"));
  }

  #peerAndStream(): { peer: string; stream: string } {
    return { peer: this.peer, stream: this.#receiver.hello!.stream };
  }

  #onHello(hello: Hello): WelcomeFields | Promise<WelcomeFields> {
    this.#isIdentified = true;
    this.#connection!.markIdentified();
    if (this.#key !== undefined && this.#key.role !== "both" && this.#key.role !== hello.role) {
      const { name, role } = this.#key;
      const hint = `on the server run frames key new NAME --role ${hello.role}`;
      const message = `The key ${name} allows ${role}, not ${hello.role}; ${hint}`;
      throw new FramesError("wrong-role", message);
    }
    this.#checkStream(hello.stream);
    if (hello.role === "receive") return this.#preparePlayback(hello);
    const proved = this.#key === undefined ? {} : { key: this.#key.name, keyId: this.#key.key.id };
    this.#server.store.checkSession?.({ session: hello.session, ...proved });
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

  /** Prepares the playback and the WELCOME of a client that receives. */
  async #preparePlayback(hello: Hello): Promise<WelcomeFields> {
    const { journalTail, store } = this.#server;
    const { reader } = journalTail;
    const playback = (this.#playback = new PlaybackConnection(this.#server, this, hello));
    const identity = reader.property("identity");
    const { isResumed } = playback;
    return {
      fresh: !(await this.#runSlice(() => reader.has(hello))),
      features: ["until", videoFeature],
      sources: await playback.firstSources(this.#runSlice),
      store: store.location,
      software,
      ...(identity === undefined ? {} : { identity }),
      ...(isResumed === undefined ? {} : { resumed: isResumed }),
    };
  }

  #handOverToPlayback(decoder: Decoder): void {
    const connection = this.#connection!;
    const playback = this.#playback!;
    this.transmit();
    this.#isHandedOver = true;
    this.#server.remove(this);
    playback.start(decoder);
    connection.setHandler(playback);
    playback.onOpen(connection);
    this.#server.setBufferedBytes(playback, this.#receiver.bufferedBytes);
    this.#closed.resolve();
  }

  #onFrameEnded(source: string, frame: FrameDescription, outcome: Outcome): void {
    if (outcome instanceof FramesError && outcome.code === "moved-away") this.#movedAwayCount++;
    else if (outcome instanceof FramesError) {
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

  onData(chunk: Uint8Array, now: number): void {
    if (!this.#hasReceived) {
      this.#hasReceived = true;
      const wrongProtocol = replyToWrongProtocol(chunk, this.#server);
      if (wrongProtocol !== undefined) {
        this.#connection!.send(wrongProtocol.bytes);
        return this.fail(wrongProtocol.error);
      }
    }
    if (this.#failure !== undefined) return;
    if (this.#backpressure.defer(chunk)) return;
    this.#hasNewData = true;
    if (this.#pendingPing !== undefined) this.#lastDataAt = now;
    this.#receiver.receive(chunk, now);
    if (this.#isHandedOver) return;
    this.#updateBufferedBytes();
    if (this.#receiver.needsFlush) this.#server.flushLater(this);
  }

  #updateBufferedBytes(): void {
    const { bufferedBytes, isQueued } = this.#receiver;
    this.#server.setBufferedBytes(this, bufferedBytes, isQueued);
  }

  /** Whether to flush now: the input was idle in this turn, or the receipt is due. */
  isFlushDue(): boolean {
    const isInputIdle = !this.#hasNewData;
    this.#hasNewData = false;
    return isInputIdle || this.#receiver.isReceiptDue;
  }

  /** Frames and answers that a flush starting now will cover. */
  get flushable(): FlushSnapshot {
    return this.#receiver.flushSnapshot;
  }

  /** Sends receipts after a flush. `flushed` is the value of `flushable` before that flush. */
  ack(flushed: FlushSnapshot): void {
    if (this.#connection!.isClosed) return;
    this.#receiver.ack(monotonicNow(), flushed);
    this.transmit();
    if (this.#failure !== undefined) return;
    const { isDone, isEnding } = this.#receiver;
    // After its FIN a sender cannot send END any more. If END came, DONE may still wait for the
    // store.
    const isAllRead =
      this.#hasInputEnded && !this.#receiver.isPaused && !this.#backpressure.isBlocked;
    if (isAllRead && !isDone && !isEnding) this.#connection!.finish();
    if (!isDone || this.#isReported) return;
    this.#isReported = true;
    this.#releaseSources();
    // The sender closes after reading DONE, which takes time on a slow link.
    this.#connection!.finish(this.#server.timeoutMs);
    this.#server.emit({
      type: "delivered",
      ...this.#peerAndStream(),
      session: this.session!,
      counts: this.#counts,
      found: this.#receiver.foundCount + this.#movedAwayCount,
    });
  }

  /** Frames that ended. Frames moved away from the store count as found, and not as refused. */
  get #counts(): Done {
    const { counts } = this.#receiver;
    return { ...counts, refused: counts.refused - this.#movedAwayCount };
  }

  /** Releases the client's sources for other senders. */
  #releaseSources(): void {
    for (const { stream, name } of this.#receiver.sources) {
      this.#server.releaseSource(stream, name, this);
    }
  }

  transmit(): void {
    for (const bytes of this.#receiver.drain(monotonicNow())) this.#connection!.send(bytes);
  }

  /** Processes the chunks that were deferred until the store was ready. */
  #onStoreReady(chunks: readonly Uint8Array[]): void {
    this.#connection!.run(() => {
      for (const chunk of chunks) this.onData(chunk, monotonicNow());
    });
    if (this.#hasInputEnded) this.#server.flushLater(this);
  }

  /**
   * Checks whether the sender answers a PING. Older data from its system's send buffer is no
   * answer, but the PONG may follow it.
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
    this.transmit();
    const isSilent = () => monotonicNow() - this.#lastDataAt >= pingTimeoutMs;
    const timer = setInterval(() => {
      if (this.#receiver.isPaused || this.#backpressure.isBlocked) {
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
    if (this.#failure !== undefined || this.#receiver.isDone) return;
    this.#receiver.tick(now, this.#backpressure.isBlocked);
  }

  onEnd(): void {
    // A sender may close its sending side after END and still wait for DONE.
    this.#hasInputEnded = true;
    void this.#server.flushAndAck(this);
  }

  fail(error: FramesError): void {
    if (this.#isHandedOver) return this.#playback!.fail(error);
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#playback?.release();
    this.#playback = undefined;
    this.#receiver.stop(error);
    this.#releaseSources();
    this.#server.setBufferedBytes(this, 0);
    this.#pendingPing?.resolve(false);
    void this.#finishWithError(error);
  }

  /**
   * Acknowledges the frames that ended before the error, so that the sender need not resend them.
   * Then sends ERROR.
   */
  async #finishWithError(error: FramesError): Promise<void> {
    await this.#server.flushAndAck(this);
    const delayMs = error.code === "not-let-in" ? this.#server.authFailureDelayMs(this.peer) : 0;
    if (delayMs > 0) await Bun.sleep(delayMs);
    this.#receiver.fail(error);
    this.transmit();
    this.#connection!.finish();
    this.#report(error);
  }

  /** Reports the failure once, with the counts so far. */
  #report(error: FramesError): void {
    if (this.#isReported) return;
    this.#isReported = true;
    this.#server.emit({
      type: "failed",
      peer: this.peer,
      session: this.session,
      // Values from an unauthenticated peer are not logged.
      stream: this.#isIdentified ? this.#receiver.hello?.stream : undefined,
      counts: this.#counts,
      error: this.#errorForLog(error),
    });
  }

  /** Returns the error with the path of the key file, which an unknown peer does not get. */
  #errorForLog(error: FramesError): FramesError {
    const path = this.#server.keys?.path;
    const hasKey = this.#receiver.hello?.key !== undefined;
    if (error.code !== "not-let-in" || !hasKey || path === undefined) return error;
    const hint = "run frames key here, and paste its output there into frames key save";
    return new FramesError(error.code, `refused: its key is not in ${path}; ${hint}`);
  }

  onClose(error: FramesError | undefined): void {
    this.#receiver.close();
    this.#playback?.release();
    this.#pendingPing?.resolve(false);
    this.#releaseSources();
    this.#server.remove(this);
    if (this.#receiver.hello !== undefined || error !== undefined) {
      this.#report(
        error ?? new FramesError("network", "The sender closed the connection before it was done"),
      );
    }
    this.#closed.resolve();
  }
}
