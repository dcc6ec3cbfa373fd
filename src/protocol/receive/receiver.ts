/**
 * The receiving end of a connection (SPEC sections 4 to 9), without I/O: bytes and times go in,
 * bytes come out, and frames go to a store. Used by the server, and by clients that receive. It
 * sends no receipt on its own: the caller flushes the store, once for all its connections, and then
 * calls `ack`.
 */
import { runAtOnce } from "../../common/work-queue.ts";
import { FramesError } from "../../errors.ts";
import type { FrameDescription } from "../../frame.ts";
import { Decoder, type MessageHandler } from "../../wire/decode.ts";
import { encodeControl } from "../../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  type Hello,
  type OfferEntry,
  type SourceDeclaration,
  MessageType,
  typeName,
  unexpectedMessage,
  videoFeature,
  type Welcome,
} from "../../wire/messages.ts";
import { peerError } from "../frame-errors.ts";
import { Keepalive, toWireTime } from "../keepalive.ts";
import { type FlushSnapshot, peerFaults, type ReceiverOptions } from "./receiver-events.ts";
import { type AdmittedClient, ClientHandshake } from "../handshake.ts";
import { IncomingSources, lossesPerSlice } from "./incoming-sources.ts";
import { Receipts } from "./receipts.ts";
import { OutcomeCounts } from "./outcome-counts.ts";
import { RateLimiter } from "../rate-limiter.ts";

/** `handshake`: only at a client. */
type Phase = "handshake" | "open" | "ending" | "done" | "failed";

export class Receiver implements MessageHandler {
  readonly #decoder: Decoder;
  readonly #options: ReceiverOptions;
  readonly #keepalive: Keepalive;
  readonly #sources: IncomingSources;
  /** At a server the client's, at a client its own. */
  readonly #hello: Hello;
  /** Exactly one of the two is set: the first at a server, the second at a client. */
  readonly #admitted: AdmittedClient | undefined;
  readonly #handshake: ClientHandshake | undefined;
  readonly #outcomes = new OutcomeCounts();
  /** Work that must end before the next message is processed. */
  #waitCount = 0;
  #isWaitingForSource = false;
  readonly #rateLimiter: RateLimiter;
  #outgoing: Uint8Array[] = [];
  #phase: Phase;
  #now: number;
  #isStopped = false;
  /** Whether data came since the last call of `isFlushDue`. */
  #hasNewData = false;
  #isShuttingDown = false;
  #isPeerAtFault = false;
  #isPeerStopping = false;
  /**
   * The frame whose payload was being received when the connection stopped; sent in ERROR
   * `damaged`.
   */
  #interruptedFrame: { source?: number; sequence?: number } = {};
  readonly #receipts: Receipts;

  constructor(options: ReceiverOptions) {
    const { peer, timeoutMs, now } = options;
    if (peer instanceof ClientHandshake) this.#handshake = peer;
    else this.#admitted = peer;
    this.#hello = peer.hello;
    this.#phase = this.#admitted === undefined ? "handshake" : "open";
    this.#decoder = this.#admitted?.decoder ?? new Decoder(this);
    this.#decoder.setHandler(this);
    this.#options = options;
    this.#keepalive = new Keepalive(now, timeoutMs);
    this.#rateLimiter = new RateLimiter(now);
    if (this.#admitted !== undefined) {
      this.#keepalive.onHandshakeDone();
      // HELLO was the client's first message.
      this.#rateLimiter.count();
    }
    this.#now = now;
    this.#receipts = new Receipts(now);
    this.#sources = new IncomingSources(options, this.#outcomes, (id, sequence, error) =>
      this.#send(MessageType.refused, id, { sequence, ...error.wireFields }),
    );
  }

  /** How the frames of this connection ended. */
  get counts(): Readonly<Done> {
    return this.#outcomes.counts;
  }

  /** Frames offered on this connection that the sender does not have to send. */
  get foundCount(): number {
    return this.#sources.foundCount;
  }

  /** Whether DONE was sent. The sender closes the connection next. */
  get isDone(): boolean {
    return this.#phase === "done";
  }

  /** Whether END has arrived and DONE was not sent yet. */
  get isEnding(): boolean {
    return this.#phase === "ending";
  }

  /** Whether a user has stopped the sender, or END has arrived, so that it may close before DONE. */
  get isPeerStopping(): boolean {
    return this.#isPeerStopping || this.isEnding;
  }

  /** Frames that have ended and are not covered by a receipt. */
  get unreceipted(): number {
    return this.#outcomes.endedCount - this.#receipts.frames;
  }

  /** Whether the caller must stop reading from the sender. */
  get isPaused(): boolean {
    return this.#waitCount > 0 || this.#rateLimiter.isOverLimit;
  }

  /** Whether buffered bytes wait for work of this end, and not for a peer. */
  get isQueued(): boolean {
    return this.#waitCount > 0 && !this.#isWaitingForSource;
  }

  /** The sources declared on this connection now. */
  get sources(): Iterable<{ readonly stream: string; readonly name: string }> {
    return this.#sources.declared;
  }

  /**
   * Received bytes buffered until the rest of their message or picture arrives or reading resumes,
   * and those of HELLO, which is kept.
   */
  get bufferedBytes(): number {
    const helloBytes = this.#admitted?.helloBytes ?? 0;
    return this.#decoder.bufferedBytes + helloBytes + this.#sources.bufferedBytes;
  }

  /** Whether a `shutDown` has completed: every frame begun before it has ended. */
  get isShutDown(): boolean {
    return this.#isShuttingDown && this.#isStopped;
  }

  /**
   * Whether to flush now: no data came since the last call, the receipt is due, or a `shutDown` has
   * completed. Call it once in a turn of the event loop.
   */
  isFlushDue(): boolean {
    const isInputIdle = !this.#hasNewData;
    this.#hasNewData = false;
    const isReceiptDue = this.#receipts.isDue(this.#outcomes.endedCount, this.#now);
    return isInputIdle || isReceiptDue || this.isShutDown;
  }

  /** Whether a flush of the store would allow a receipt, an answer or DONE. */
  get needsFlush(): boolean {
    const hasMore = this.#receipts.answers > 0 || this.#sources.hasUnsavedLosses;
    return this.isEnding || this.unreceipted > 0 || hasMore;
  }

  /** Begins with what the decoder has kept after the handshake. Call it once, at a server. */
  start(): void {
    this.#decoder.resume();
    this.#waitForTurn();
  }

  /**
   * Processes bytes from the sender.
   *
   * @throws {FramesError} if the connection has failed; pass the error to `fail`
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    this.#hasNewData = true;
    this.#keepalive.onReceived(now);
    if (this.#isStopped) return;
    this.#handshake?.onReceived(chunk);
    this.#decoder.receive(chunk);
    this.#waitForTurn();
  }

  /**
   * Processes no further message until `work` has ended. Then calls `onDone` and continues, in a
   * slice of work.
   */
  #waitFor(work: Promise<unknown>, onDone: () => void = () => {}): void {
    this.#waitCount++;
    this.#decoder.pause();
    const run = this.#options.runSlice ?? runAtOnce;
    const proceed = () => {
      this.#waitCount--;
      if (this.#isStopped) return;
      onDone();
      this.#resume();
    };
    work
      .then(() => run(proceed))
      .catch((error: unknown) => {
        if (!this.#isStopped) this.#options.onError?.(error);
      });
  }

  /** Pauses after a message if the turn is over. */
  #checkTurn(): void {
    if (this.#options.isTurnOver?.() === true) this.#decoder.pause();
  }

  /** Waits for a slice if decoding was paused because the turn is over. */
  #waitForTurn(): void {
    if (this.isPaused || this.#isStopped) return;
    if (this.#decoder.hasPausedBytes) this.#waitFor(Promise.resolve());
    else this.#decoder.resume();
  }

  /**
   * Checks timeouts. Call it about once a second.
   *
   * @param isUnread whether the caller has paused reading from the peer
   * @throws {FramesError} `timeout`
   */
  tick(now: number, isUnread = false): void {
    this.#now = now;
    if (this.#phase === "failed" || this.#phase === "done") return;
    // A paused peer cannot be heard, so its silence does not count.
    if (isUnread || this.isPaused) this.#keepalive.onReceived(now);
    const awaited = this.#phase === "handshake" ? this.#handshake!.awaited : "frames";
    if (this.#keepalive.tick(now, awaited, this.#decoder.incompleteMessage)) this.ping(now);
    if (this.#rateLimiter.refill(now)) this.#resume();
  }

  /** Resumes decoding, unless the connection is paused or stopped. */
  #resume(): void {
    if (this.isPaused || this.#isStopped) return;
    this.#decoder.resume();
    this.#waitForTurn();
    this.#options.onFlushNeeded?.();
  }

  /** Sends PING. Returns its time, which the PONG repeats. */
  ping(now: number): string {
    const time = toWireTime(now);
    this.#send(MessageType.ping, 0, { time });
    return time;
  }

  /** Returns the messages to send now, and clears the queue. */
  drain(now: number): Uint8Array[] {
    const outgoing = this.#outgoing;
    if (outgoing.length === 0) return outgoing;
    this.#keepalive.onSent(now);
    this.#outgoing = [];
    return outgoing;
  }

  /** What a flush that begins now will cover. Pass it to `ack` when that flush is done. */
  get flushSnapshot(): FlushSnapshot {
    return { frames: this.#outcomes.knownCount, answers: this.#receipts.answers };
  }

  /**
   * Sends receipt and answers after a flush of the store. Sends DONE if the flush covered every
   * frame before END.
   */
  ack(now: number, { frames, answers } = this.flushSnapshot): void {
    if (this.#phase === "failed") return;
    this.#sources.hasUnsavedLosses = false;
    this.#outgoing.push(...this.#receipts.ack(frames, answers, now));
    if (this.#phase === "ending" && frames === this.#outcomes.endedCount && !this.#isPeerAtFault) {
      this.#send(MessageType.done, 0, this.#outcomes.counts);
      this.#phase = "done";
    }
  }

  /**
   * Stops receiving and discards unfinished frames. Ended frames can still be acknowledged, with
   * DONE if they are all. No DONE follows if `error` is the sender's own fault, so that the sender
   * gets the ERROR.
   */
  stop(error?: FramesError): void {
    this.#isPeerAtFault = error !== undefined && peerFaults.has(error.code);
    this.#decoder.pause();
    const source = this.#decoder.payloadSource;
    const sequence = source === undefined ? undefined : this.#sources.unfinishedSequence(source);
    if (source !== undefined && sequence !== undefined)
      this.#interruptedFrame = { source, sequence };
    this.close();
  }

  /**
   * Ends the connection: discards unfinished frames, and queues ERROR unless the peer does not
   * speak FRAMES/1.
   */
  fail(error: FramesError): void {
    if (this.#phase === "failed") return;
    this.stop();
    if (this.#phase === "done") return;
    if (error.code !== "foreign") {
      const frame = error.code === "damaged" ? this.#interruptedFrame : {};
      this.#send(MessageType.error, 0, { ...error.wireFields, ...frame });
    }
    this.#phase = "failed";
  }

  /** Releases everything after the connection is closed: unfinished frames and buffers. */
  close(): void {
    this.#isStopped = true;
    this.#decoder.discard();
    this.#sources.close();
  }

  /**
   * Starts the handshake of a client once its connection is established.
   *
   * @param exporter keying material of the TLS channel; `undefined` on plain TCP
   * @throws {FramesError} `plaintext` if there is a key but no TLS channel
   */
  onConnected(now: number, exporter: Uint8Array | undefined): void {
    this.#keepalive.restart(now);
    const sentMessages = this.#handshake!.openingMessages();
    this.#options.trace?.("->", `HELLO ${JSON.stringify(this.#hello)}`);
    const proof = this.#handshake!.createProof(exporter, sentMessages);
    this.#outgoing.push(...sentMessages, ...(proof === undefined ? [] : [proof]));
  }

  /** Stops receiving once the unfinished frames have ended. */
  shutDown(): void {
    this.#isShuttingDown = true;
    this.#stopIfComplete();
  }

  #stopIfComplete(): void {
    const { unfinishedCount: unfinished, payloadSource: payloadOf } = this.#decoder;
    if (!this.#isShuttingDown || unfinished > 0 || payloadOf !== undefined) return;
    this.#isStopped = true;
    this.#decoder.pause();
  }

  #send<T extends ControlType>(type: T, source: number, body: ControlBodies[T]): void {
    // ERROR is the last message, even if the store finishes frames later.
    if (this.#phase === "failed") return;
    this.#options.trace?.("->", `${typeName(type)} ${JSON.stringify(body)}`);
    this.#outgoing.push(encodeControl(type, source, body));
  }

  // Callbacks of the decoder.

  onControl(message: ControlMessage): void {
    this.#options.trace?.("<-", `${typeName(message.type)} ${JSON.stringify(message.body)}`);
    this.#rateLimiter.count();
    if (this.#rateLimiter.isOverLimit) this.#decoder.pause();
    else if (this.#phase === "open") this.#checkTurn();
    if (message.type === MessageType.error) {
      throw peerError(this.#handshake === undefined ? "sender" : "server", message.body);
    }
    if (message.type === MessageType.welcome) return this.#onWelcome(message.body);
    this.#checkPhase(message.type);
    switch (message.type) {
      case MessageType.source:
        return this.#declareSource(message.source, message.body);
      case MessageType.abort:
        this.#sources.abortFrame(message.source, message.body.sequence);
        return this.#stopIfComplete();
      case MessageType.lost:
        return this.#onLost(message.source, message.body);
      case MessageType.offer:
        if (this.#handshake !== undefined) throw unexpectedMessage(MessageType.offer);
        return this.#onOffer(message.source, message.body.frames);
      case MessageType.end:
        return this.#onEnd(message.body.frames);
      case MessageType.ping:
        this.#isPeerStopping ||= message.body.stopping === true;
        // This PING crossed DONE. Nothing may be sent after DONE.
        if (this.#phase === "done") return;
        return this.#send(MessageType.pong, 0, {
          time: message.body.time,
          clock: toWireTime(this.#now),
        });
      case MessageType.pong:
        return this.#options.onEvent?.({ type: "pong", time: message.body.time });
      case MessageType.gone:
        if (this.#handshake === undefined) throw unexpectedMessage(MessageType.gone);
        return this.#options.onEvent?.({
          type: "gone",
          source: this.#sources.sourceName(message.source),
          ...message.body,
        });
      case MessageType.cursor:
        if (this.#handshake === undefined) throw unexpectedMessage(MessageType.cursor);
        return this.#options.onEvent?.({
          type: "cursor",
          cursor: message.body.cursor,
          endedFrames: this.#outcomes.endedCount,
        });
      default:
        throw unexpectedMessage(message.type);
    }
  }

  #checkPhase(type: number): void {
    const isLate = this.#phase === "ending" || this.#phase === "done";
    if (
      this.#phase === "open" ||
      (isLate && (type === MessageType.ping || type === MessageType.pong))
    )
      return;
    throw unexpectedMessage(type);
  }

  #onWelcome(welcome: Welcome): void {
    if (this.#phase !== "handshake" || this.#handshake === undefined)
      throw unexpectedMessage(MessageType.welcome);
    this.#handshake.checkWelcome();
    this.#phase = "open";
    this.#keepalive.onHandshakeDone();
    const isKnown = ({ features }: Hello | Welcome) => features?.includes(videoFeature) === true;
    if (isKnown(this.#hello) && isKnown(welcome)) this.#decoder.acceptKeyFlag();
    this.#options.onEvent?.({ type: "welcome", welcome });
  }

  #declareSource(id: number, declaration: SourceDeclaration): void {
    const previous = this.#sources.checkDeclaration(id);
    if (previous !== undefined) this.#options.releaseSource?.(previous.stream, previous.name);
    const stream = declaration.stream ?? this.#hello.stream;
    const acquired = this.#options.acquireSource?.(stream, declaration.name);
    const declare = () => {
      if (!this.#isStopped) return this.#sources.declare(id, stream, declaration);
      this.#options.releaseSource?.(stream, declaration.name);
    };
    if (!(acquired instanceof Promise)) return void declare();
    this.#isWaitingForSource = true;
    this.#waitFor(acquired.then(declare), () => (this.#isWaitingForSource = false));
  }

  #onLost(id: number, body: ControlBodies[typeof MessageType.lost]): void {
    if (body.ranges.length <= lossesPerSlice) return this.#sources.recordLoss(id, body);
    const run = this.#options.runSlice ?? runAtOnce;
    this.#waitFor(this.#sources.recordLossInSlices(id, body, run));
  }

  onFrame(id: number, description: FrameDescription, more: boolean): void {
    this.#checkPhase(MessageType.frame);
    const { unfinishedCount: unfinished } = this.#decoder;
    this.#receipts.checkWindow(this.unreceipted + unfinished, this.#options.grants.window.frames);
    if (more) this.#sources.checkUnfinishedLimit(unfinished);
    this.#options.trace?.("<-", this.#sources.describeFrame(id, description));
    this.#sources.beginFrame(id, description);
  }

  onPayload(id: number, bytes: Uint8Array): void {
    this.#receipts.onPayload(bytes.length);
    this.#sources.writePayload(id, bytes);
  }

  onFrameComplete(id: number, crc: number): void {
    this.#sources.finishFrame(id, crc);
    this.#checkTurn();
    if (this.#isShuttingDown) this.#stopIfComplete();
  }

  #onOffer(id: number, offered: readonly OfferEntry[]): void {
    this.#receipts.addOffered(offered.length);
    const answered = this.#sources
      .answerOffer(id, offered, this.#options.runSlice ?? runAtOnce)
      .then((answers) => {
        const message = encodeControl(MessageType.answer, id, { answers });
        this.#receipts.queueAnswer(message, offered.length);
      });
    this.#waitFor(answered);
  }

  #onEnd(frames: number): void {
    if (this.#decoder.unfinishedCount > 0 || this.#receipts.answers > 0)
      throw unexpectedMessage(MessageType.end);
    this.#outcomes.checkEnd(frames);
    this.#sources.end();
    this.#phase = "ending";
  }

  onProof(bytes: Uint8Array): void {
    if (this.#handshake !== undefined) {
      if (this.#phase !== "handshake") throw unexpectedMessage(MessageType.proof);
      return this.#handshake.checkProof(bytes);
    }
    // A server without keys ignores a client's proof (SPEC section 10).
    const isIgnored = !this.#admitted!.requiresKey && this.#phase === "open";
    if (!isIgnored || !this.#sources.isEmpty) throw unexpectedMessage(MessageType.proof);
  }
}
