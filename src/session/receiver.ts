/**
 * The receiving end of a conversation (SPEC sections 4 to 9), as a machine without I/O: bytes and times go
 * in, bytes come out, and frames go to a store as they arrive. When a receipt may leave is the host's part:
 * it flushes the store first, once for all its connections. It is the server's end, or that of a client.
 */
import { errorByNumber, FramesError, heard } from "../errors.ts";
import type { FrameDescription, FrameStore } from "../frame.ts";
import { Decoder, type MessageHandler } from "../wire/decode.ts";
import { encodeControl } from "../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  type Hello,
  type OfferEntry,
  type SourceDeclaration,
  Type,
  typeName,
  unexpected,
  type Welcome,
} from "../wire/messages.ts";
import { Liveness, nanoseconds } from "./liveness.ts";
import { faults, type Flushable, type Gate } from "./receiving.ts";
import type { ReceiverEvents, ReceiverLimits } from "./receiving.ts";
import { ClientGreeting, encodePreface, ServerGreeting } from "./greeting.ts";
import { Inlets, originOf } from "./inlets.ts";
import { Receipts } from "./receipts.ts";
import { Tally } from "./tally.ts";
import { Throttle } from "./throttle.ts";

/** `handed`: a client that receives was let in, and somebody else sends to it. */
type Phase = "greeting" | "open" | "ending" | "done" | "failed" | "handed";

export class Receiver implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #store: FrameStore;
  readonly #grants: ReceiverLimits;
  readonly #events: ReceiverEvents;
  readonly #liveness: Liveness;
  readonly #inlets: Inlets;
  /** One of them, as this is the server's end or the client's. */
  readonly #server: ServerGreeting | undefined;
  readonly #client: ClientGreeting | undefined;
  readonly #tally = new Tally();
  #waitsForClaim = false;
  readonly #throttle: Throttle;
  #outgoing: Uint8Array[] = [];
  #phase: Phase = "greeting";
  #now: number;
  #greeted = false;
  #isStopped = false;
  #isLeaving = false;
  #isBroken = false;
  /** The frame that was being read when the conversation was stopped. */
  #reading: { source?: number; sequence?: number } = {};
  readonly #receipts: Receipts;

  /**
   * @param now milliseconds since 1970 by a clock that never jumps, as everywhere here
   * @param greeting whom a sender must prove its key to, if it must; or how a client greets
   */
  constructor(
    store: FrameStore,
    grants: ReceiverLimits,
    timeout: number,
    now: number,
    events: ReceiverEvents,
    greeting?: Gate | ClientGreeting,
  ) {
    if (greeting instanceof ClientGreeting) this.#client = greeting;
    else this.#server = new ServerGreeting(greeting);
    this.#store = store;
    this.#grants = grants;
    this.#events = events;
    this.#liveness = new Liveness(now, timeout);
    this.#throttle = new Throttle(now);
    this.#now = now;
    this.#receipts = new Receipts(now);
    this.#inlets = new Inlets(store, grants.limits, this.#tally, {
      originOf: (stream, source) => originOf(this.hello!, this.#server?.key, stream, source),
      refuse: (id, sequence, error) => this.#say(Type.refused, id, { sequence, ...error.reason }),
      ended: (...frame) => events.ended?.(...frame),
      lost: (...loss) => events.lost?.(...loss),
      settled: () => events.wake?.(),
      failed: (error) => events.failed?.(error),
    });
  }

  get #greeting(): ServerGreeting | ClientGreeting {
    return (this.#client ?? this.#server)!;
  }

  /** The sender's HELLO, once it came; or the client's own. */
  get hello(): Hello | undefined {
    return this.#greeting.hello;
  }

  /** How the frames of this connection ended. */
  get counts(): Readonly<Done> {
    return this.#tally.counts;
  }

  /** Frames that were offered on this connection and need not be sent. */
  get found(): number {
    return this.#inlets.found;
  }

  /** Whether DONE is said: the sender closes now. */
  get isDone(): boolean {
    return this.#phase === "done";
  }

  /** Whether END came, and DONE is not said yet. */
  get isEnding(): boolean {
    return this.#phase === "ending";
  }

  /** Frames that ended and have no receipt. */
  get unreceipted(): number {
    return this.#tally.ended - this.#receipts.frames;
  }

  /** Whether nothing is read for now: the sender must be held back. */
  get isPaused(): boolean {
    return this.#waitsForClaim || this.#throttle.isClosed;
  }

  /** What was declared on this connection, and is declared still. */
  get sources(): Iterable<{ readonly stream: string; readonly name: string }> {
    return this.#inlets.declared;
  }

  /** Bytes that are kept of what came, until the rest of it has come or can be read. */
  get held(): number {
    return this.#decoder.held + (this.#server?.held ?? 0);
  }

  /** Whether it has taken leave, and what was unfinished then is whole. */
  get hasLeft(): boolean {
    return this.#isLeaving && this.#isStopped;
  }

  /** Whether a receipt must leave although more may be coming in. */
  get isReceiptDue(): boolean {
    return this.#receipts.isDue(this.#tally.ended, this.#now);
  }

  /** Whether there is something that a flush of the store would settle. */
  get wantsFlush(): boolean {
    const hasMore = this.#receipts.answers > 0 || this.#inlets.hasUnsavedLosses;
    return this.isEnding || this.unreceipted > 0 || hasMore;
  }

  /**
   * Takes bytes from the sender.
   *
   * @throws {FramesError} if the conversation has failed: hand it to `fail`
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    this.#liveness.heard(now);
    if (this.#isStopped) return;
    this.#greeting.heard(chunk);
    this.#decoder.receive(chunk);
  }

  /**
   * To be called about once a second.
   *
   * @param isUnread whether the host reads nothing of the peer for now
   * @throws {FramesError} `timeout`
   */
  tick(now: number, isUnread = false): void {
    this.#now = now;
    if (this.#phase === "failed" || this.#phase === "done") return;
    // Whoever is not read cannot be heard.
    if (isUnread || this.isPaused) this.#liveness.heard(now);
    const awaited = this.#phase === "greeting" ? this.#greeting.awaited : "frames";
    if (this.#liveness.tick(now, awaited, this.#decoder.incomplete)) this.ping(now);
    if (this.#throttle.opens(now)) this.#readOn();
  }

  /** Decodes on, if nothing is against it. */
  #readOn(): void {
    if (this.isPaused || this.#isStopped) return;
    this.#decoder.resume();
    this.#events.wake?.();
  }

  /** Asks whether the sender is still there, and returns the time that its answer repeats. */
  ping(now: number): string {
    const time = nanoseconds(now);
    this.#say(Type.ping, 0, { time });
    return time;
  }

  /** The bytes to send now, if any. */
  take(now: number): Uint8Array[] {
    const outgoing = this.#outgoing;
    if (outgoing.length === 0) return outgoing;
    this.#liveness.sent(now);
    this.#outgoing = [];
    return outgoing;
  }

  /** To be handed to `settle` when a flush of the store that begins now is done. */
  get flushable(): Flushable {
    return { frames: this.#tally.known, answers: this.#receipts.answers };
  }

  /**
   * The store was flushed: says that what was `flushable` before is settled, and DONE if that is all.
   */
  settle(now: number, { frames, answers } = this.flushable): void {
    if (this.#phase === "failed") return;
    this.#inlets.hasUnsavedLosses = false;
    this.#outgoing.push(...this.#receipts.settle(frames, answers, now));
    if (this.#phase === "ending" && frames === this.#tally.ended && !this.#isBroken) {
      this.#say(Type.done, 0, this.#tally.counts);
      this.#phase = "done";
    }
  }

  /**
   * Takes nothing more: what is unfinished is discarded. What ended can still be settled, with DONE if that
   * is all, unless `error` is the sender's own fault: then it is to hear that.
   */
  stop(error?: FramesError): void {
    this.#isBroken = error !== undefined && faults.has(error.code);
    this.#decoder.pause();
    const source = this.#decoder.payloadOf;
    const sequence = source === undefined ? undefined : this.#inlets.unfinishedOf(source);
    if (source !== undefined && sequence !== undefined) this.#reading = { source, sequence };
    this.close();
  }

  /** Ends the conversation: discards what is unfinished and says ERROR, if that can be understood. */
  fail(error: FramesError): void {
    if (this.#phase === "failed") return;
    this.stop();
    if (this.#phase === "done") return;
    if (error.code !== "foreign") {
      this.#preface();
      const frame = error.code === "damaged" ? this.#reading : {};
      this.#say(Type.error, 0, { ...error.reason, ...frame });
    }
    this.#phase = "failed";
  }

  /** The connection is gone: what is unfinished is discarded. */
  close(): void {
    this.#isStopped = true;
    this.#server?.close();
    this.#decoder.discard();
    this.#inlets.close();
  }

  /**
   * The connection of a client has come about: deadlines count from here.
   *
   * @param exporter what its TLS channel exports, if it is one
   * @throws {FramesError} `plaintext`
   */
  connected(now: number, exporter: Uint8Array | undefined): void {
    this.#liveness.restart(now);
    this.#greeted = true;
    const said = this.#client!.opening();
    this.#events.trace?.("->", `HELLO ${JSON.stringify(this.hello)}`);
    const proof = this.#client!.prove(exporter, said);
    this.#outgoing.push(...said, ...(proof === undefined ? [] : [proof]));
  }

  /** Takes what is unfinished to its end, and nothing after it. */
  leave(): void {
    this.#isLeaving = true;
    this.#stopIfWhole();
  }

  #stopIfWhole(): void {
    const { unfinished, payloadOf } = this.#decoder;
    if (!this.#isLeaving || unfinished > 0 || payloadOf !== undefined) return;
    this.#isStopped = true;
    this.#decoder.pause();
  }

  #preface(): void {
    if (!this.#greeted) this.#outgoing.push(encodePreface());
    this.#greeted = true;
  }

  #say<T extends ControlType>(type: T, source: number, body: ControlBodies[T]): void {
    // ERROR was the last message, whatever the store finishes after it.
    if (this.#phase === "failed") return;
    this.#events.trace?.("->", `${typeName(type)} ${JSON.stringify(body)}`);
    this.#outgoing.push(encodeControl(type, source, body));
  }

  // What the decoder tells.

  control(message: ControlMessage): void {
    this.#events.trace?.("<-", `${typeName(message.type)} ${JSON.stringify(message.body)}`);
    this.#throttle.count();
    if (this.#throttle.isClosed) this.#decoder.pause();
    if (message.type === Type.hello) return this.#greet(message.body);
    if (message.type === Type.error) {
      const code = errorByNumber(message.body.error, "end");
      const peer = this.#client === undefined ? "sender" : "server";
      throw new FramesError(code, `The ${peer} says: ${heard(message.body.message)}`);
    }
    if (message.type === Type.welcome) return this.#welcomed(message.body);
    this.#expect(message.type);
    switch (message.type) {
      case Type.source:
        return this.#declare(message.source, message.body);
      case Type.abort:
        this.#inlets.abort(message.source, message.body.sequence);
        return this.#stopIfWhole();
      case Type.lost:
        return this.#inlets.lost(message.source, message.body);
      case Type.offer:
        if (this.#client !== undefined) throw unexpected(Type.offer);
        return this.#offer(message.source, message.body.frames);
      case Type.end:
        return this.#end(message.body.frames);
      case Type.ping:
        // It crossed DONE, after which nothing is said.
        if (this.#phase === "done") return;
        return this.#say(Type.pong, 0, {
          time: message.body.time,
          clock: nanoseconds(this.#now),
        });
      case Type.pong:
        return this.#events.answered?.(message.body.time);
      case Type.gone:
        if (this.#client === undefined) throw unexpected(Type.gone);
        return this.#events.gone?.(this.#inlets.nameOf(message.source), message.body);
      case Type.cursor:
        if (this.#client === undefined) throw unexpected(Type.cursor);
        return this.#events.cursor?.(message.body.cursor, this.#tally.ended);
      default:
        throw unexpected(message.type);
    }
  }

  #expect(type: number): void {
    if (this.#server?.isProving === true) throw new FramesError("not-let-in");
    const late = this.#phase === "ending" || this.#phase === "done";
    if (this.#phase === "open" || (late && (type === Type.ping || type === Type.pong))) return;
    throw unexpected(type);
  }

  #greet(hello: Hello): void {
    const server = this.#server;
    if (this.#phase !== "greeting" || server === undefined || server.hello !== undefined) {
      throw unexpected(Type.hello);
    }
    if (server.greet(hello)) this.#letIn(hello);
  }

  #letIn(hello: Hello): void {
    const welcome = this.#events.hello(hello);
    const isSender = hello.role === "send";
    this.#phase = isSender ? "open" : "handed";
    this.#liveness.greeted();
    this.#preface();
    const durable = isSender && (hello.durable === true || this.#store.isDurable);
    const features = ["offer", "replace"];
    const { receiptsEvery: receipts } = this.#store;
    const pace = receipts === undefined ? {} : { receipts };
    this.#say(Type.welcome, 0, { ...this.#grants, durable, features, ...pace, ...welcome });
    if (!isSender) this.#events.handOver?.(this.#decoder);
  }

  #welcomed(welcome: Welcome): void {
    if (this.#phase !== "greeting" || this.#client === undefined) throw unexpected(Type.welcome);
    this.#client.checkWelcome();
    this.#phase = "open";
    this.#liveness.greeted();
    this.#events.welcome?.(welcome);
  }

  #declare(id: number, declaration: SourceDeclaration): void {
    const former = this.#inlets.checkDeclaration(id);
    if (former !== undefined) this.#events.unclaim?.(former.stream, former.name);
    const stream = declaration.stream ?? this.hello!.stream;
    const claim = this.#events.claim?.(stream, declaration.name);
    if (!(claim instanceof Promise)) return this.#inlets.open(id, stream, declaration);
    this.#waitsForClaim = true;
    this.#decoder.pause();
    claim
      .then(() => {
        this.#waitsForClaim = false;
        if (this.#isStopped) return;
        this.#inlets.open(id, stream, declaration);
        this.#readOn();
      })
      .catch((error: unknown) => this.#events.failed?.(error));
  }

  frame(id: number, description: FrameDescription, more: boolean): void {
    this.#expect(Type.frame);
    const { unfinished } = this.#decoder;
    this.#receipts.checkRoom(this.unreceipted + unfinished, this.#grants.window.frames);
    if (more) this.#inlets.checkRoom(unfinished);
    this.#events.trace?.("<-", this.#inlets.lineOf(id, description));
    this.#inlets.begin(id, description);
  }

  payload(id: number, bytes: Uint8Array): void {
    this.#receipts.came(bytes.length);
    this.#inlets.payload(id, bytes);
  }

  complete(id: number, crc: number): void {
    this.#inlets.complete(id, crc);
    if (this.#isLeaving) this.#stopIfWhole();
  }

  #offer(id: number, offered: readonly OfferEntry[]): void {
    this.#receipts.offered(offered.length);
    const answers = this.#inlets.answer(id, offered);
    this.#receipts.answer(encodeControl(Type.answer, id, { answers }), offered.length);
  }

  #end(frames: number): void {
    if (this.#decoder.unfinished > 0 || this.#receipts.answers > 0) throw unexpected(Type.end);
    this.#tally.checkEnd(frames);
    this.#inlets.end();
    this.#phase = "ending";
  }

  proof(bytes: Uint8Array): void {
    if (this.#client !== undefined) {
      if (this.#phase !== "greeting") throw unexpected(Type.proof);
      return this.#client.check(bytes);
    }
    const server = this.#server!;
    if (server.isProving) {
      const answer = server.answer(bytes);
      this.#preface();
      this.#outgoing.push(answer);
      return this.#letIn(server.hello!);
    }
    // A server without keys ignores a client's proof (SPEC section 10).
    if (!server.isOpen || this.#phase !== "open" || !this.#inlets.isEmpty) {
      throw unexpected(Type.proof);
    }
  }
}
