/**
 * The receiving end of a conversation (SPEC sections 4 to 8), as a machine without I/O: bytes and
 * times go in, bytes come out, and frames go to a store as they arrive. When a receipt may leave is
 * the host's part: it flushes the store first, once for all its connections.
 */
import { ServerProof } from "../auth/handshake.ts";
import { errorByNumber, type ErrorName, FramesError, heard } from "../errors.ts";
import type { FrameDescription, FrameStore } from "../frame.ts";
import { Decoder, type MessageHandler } from "../wire/decode.ts";
import { encodeControl, encodeProof, encodeReceipt } from "../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  type Hello,
  mostOffered,
  type OfferEntry,
  preface,
  type SourceDeclaration,
  Type,
  unexpected,
} from "../wire/messages.ts";
import { Liveness, nanoseconds } from "./liveness.ts";
import type { Flushable, Gate, ReceiverEvents, ReceiverLimits } from "./receiving.ts";
import { Inlets, type InletSender } from "./inlets.ts";
import { Tally } from "./tally.ts";
import { Throttle } from "./throttle.ts";

/** When a receipt is due although frames keep coming (SPEC section 6). */
const receiptEvery = { milliseconds: 100, bytes: 16 << 20, frames: 1000 } as const;

/** What a sender has broken itself, and not the link or the server. */
const faults: ReadonlySet<ErrorName> = new Set(["protocol", "damaged", "limit"]);

type Phase = "greeting" | "proving" | "open" | "ending" | "done" | "failed";

export class Receiver implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #store: FrameStore;
  readonly #grants: ReceiverLimits;
  readonly #events: ReceiverEvents;
  readonly #liveness: Liveness;
  readonly #inlets: Inlets;
  readonly #gate: Gate | undefined;
  #proof: ServerProof | undefined;
  readonly #tally = new Tally();
  /** Answers that hold once the store is flushed, and the frames they are for. */
  readonly #answers: { bytes: Uint8Array; frames: number }[] = [];
  #offered = 0;
  #waitsForClaim = false;
  readonly #throttle: Throttle;
  #outgoing: Uint8Array[] = [];
  #phase: Phase = "greeting";
  #hello: Hello | undefined;
  #now: number;
  #greeted = false;
  #unsettledBytes = 0;
  #isStopped = false;
  #isBroken = false;
  /** The frame that was being read when the conversation was stopped. */
  #reading: { source?: number; sequence?: number } = {};
  #receipted = 0;
  #receiptedAt: number;

  /**
   * @param now milliseconds since 1970 by a clock that never jumps, as everywhere here
   * @param gate whom a sender must prove its key to, if it must
   */
  constructor(
    store: FrameStore,
    grants: ReceiverLimits,
    timeout: number,
    now: number,
    events: ReceiverEvents,
    gate?: Gate,
  ) {
    this.#gate = gate;
    if (gate !== undefined) this.#proof = new ServerProof(gate.exporter);
    this.#store = store;
    this.#grants = grants;
    this.#events = events;
    this.#liveness = new Liveness(now, timeout);
    this.#throttle = new Throttle(now);
    this.#now = now;
    this.#receiptedAt = now;
    this.#inlets = new Inlets(store, grants.limits, this.#tally, this.#sender(), {
      refuse: (id, sequence, error) => this.#say(Type.refused, id, { sequence, ...error.reason }),
      ended: (...frame) => events.ended?.(...frame),
      lost: (...loss) => events.lost?.(...loss),
      settled: () => events.wake?.(),
      failed: (error) => events.failed?.(error),
    });
  }

  /** The sender's HELLO, once it came. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  #sender(): InletSender {
    const hello = () => this.#hello!;
    const key = () => this.#gate?.name;
    return {
      get hello() {
        return hello();
      },
      get key() {
        return key();
      },
    };
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
    return this.#tally.ended - this.#receipted;
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
    return this.#decoder.held + (this.#proof?.held ?? 0);
  }

  /** Whether a receipt must leave although more may be coming in. */
  get isReceiptDue(): boolean {
    return (
      this.unreceipted >= receiptEvery.frames ||
      this.#unsettledBytes >= receiptEvery.bytes ||
      (this.unreceipted > 0 && this.#now - this.#receiptedAt >= receiptEvery.milliseconds)
    );
  }

  /** Whether there is something that a flush of the store would settle. */
  get wantsFlush(): boolean {
    const hasMore = this.#answers.length > 0 || this.#inlets.hasUnsavedLosses;
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
    this.#proof?.heard(chunk);
    this.#decoder.receive(chunk);
  }

  /**
   * To be called about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    this.#now = now;
    if (this.#phase === "failed" || this.#phase === "done") return;
    // Whoever is not read cannot be heard.
    if (this.isPaused) this.#liveness.heard(now);
    const isGreeting = this.#phase === "greeting" || this.#phase === "proving";
    const awaited = isGreeting ? "HELLO" : "frames";
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
    return { frames: this.#tally.known, answers: this.#answers.length };
  }

  /**
   * The store was flushed: says that what was `flushable` before is settled, and DONE if that is all.
   */
  settle(now: number, { frames, answers } = this.flushable): void {
    if (this.#phase === "failed") return;
    this.#inlets.hasUnsavedLosses = false;
    for (const answer of this.#answers.splice(0, answers)) {
      this.#offered -= answer.frames;
      this.#outgoing.push(answer.bytes);
    }
    if (frames > this.#receipted) {
      this.#receipted = frames;
      this.#receiptedAt = now;
      this.#unsettledBytes = 0;
      this.#outgoing.push(encodeReceipt(frames));
    }
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
    this.#proof = undefined;
    this.#decoder.discard();
    this.#inlets.close();
  }

  #preface(): void {
    if (this.#greeted) return;
    this.#greeted = true;
    this.#outgoing.push(new TextEncoder().encode(preface));
  }

  #say<T extends ControlType>(type: T, source: number, body: ControlBodies[T]): void {
    // ERROR was the last message, whatever the store finishes after it.
    if (this.#phase === "failed") return;
    this.#outgoing.push(encodeControl(type, source, body));
  }

  // What the decoder tells.

  control(message: ControlMessage): void {
    this.#throttle.count();
    if (this.#throttle.isClosed) this.#decoder.pause();
    if (message.type === Type.hello) return this.#greet(message.body);
    if (message.type === Type.error) {
      const code = errorByNumber(message.body.error, "end");
      throw new FramesError(code, `The sender says: ${heard(message.body.message)}`);
    }
    this.#expect(message.type);
    switch (message.type) {
      case Type.source:
        return this.#declare(message.source, message.body);
      case Type.abort:
        return this.#inlets.abort(message.source, message.body.sequence);
      case Type.lost:
        return this.#inlets.lost(message.source, message.body);
      case Type.offer:
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
      default:
        throw unexpected(message.type);
    }
  }

  #expect(type: number): void {
    if (this.#phase === "proving") throw new FramesError("not-let-in");
    const late = this.#phase === "ending" || this.#phase === "done";
    if (this.#phase === "open" || (late && (type === Type.ping || type === Type.pong))) return;
    throw unexpected(type);
  }

  #greet(hello: Hello): void {
    if (this.#phase !== "greeting") throw unexpected(Type.hello);
    this.#hello = hello;
    if (this.#gate === undefined) return this.#welcome(hello);
    if (hello.key === undefined) {
      throw new FramesError("not-let-in", "The server lets nobody in without a key");
    }
    this.#phase = "proving";
  }

  #welcome(hello: Hello): void {
    const welcome = this.#events.hello(hello);
    this.#phase = "open";
    this.#liveness.greeted();
    this.#preface();
    const durable = hello.durable === true || this.#store.isDurable;
    const features = ["offer", "replace"];
    this.#say(Type.welcome, 0, { ...this.#grants, durable, features, ...welcome });
  }

  #declare(id: number, declaration: SourceDeclaration): void {
    const former = this.#inlets.checkDeclaration(id);
    if (former !== undefined) this.#events.unclaim?.(former.stream, former.name);
    const stream = declaration.stream ?? this.#hello!.stream;
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
    const { limits, window } = this.#grants;
    if (this.unreceipted + this.#decoder.unfinished >= window.frames) {
      throw new FramesError("limit", `Cannot take another frame: ${window.frames} are unsettled`);
    }
    if (more && this.#decoder.unfinished >= limits.unfinished) {
      throw new FramesError(
        "limit",
        `Cannot begin another frame: ${limits.unfinished} are unfinished`,
      );
    }
    this.#inlets.begin(id, description);
  }

  payload(id: number, bytes: Uint8Array): void {
    this.#unsettledBytes += bytes.length;
    this.#inlets.payload(id, bytes);
  }

  complete(id: number, crc: number): void {
    this.#inlets.complete(id, crc);
  }

  #offer(id: number, offered: readonly OfferEntry[]): void {
    this.#offered += offered.length;
    if (this.#offered > mostOffered) {
      throw new FramesError("limit", `Cannot answer more than ${mostOffered} offered frames`);
    }
    const answers = this.#inlets.answer(id, offered);
    const bytes = encodeControl(Type.answer, id, { answers });
    this.#answers.push({ bytes, frames: offered.length });
  }

  #end(frames: number): void {
    if (this.#decoder.unfinished > 0 || this.#answers.length > 0) throw unexpected(Type.end);
    const { ended } = this.#tally;
    if (frames !== ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept END: it counts ${frames} frames, ${ended} came`,
      );
    }
    this.#phase = "ending";
  }

  proof(bytes: Uint8Array): void {
    if (this.#phase === "proving") return this.#checkProof(bytes);
    // A server without keys ignores a client's proof (SPEC section 10).
    if (this.#gate !== undefined || this.#phase !== "open" || !this.#inlets.isEmpty) {
      throw unexpected(Type.proof);
    }
  }

  #checkProof(bytes: Uint8Array): void {
    const hello = this.#hello!;
    const said = new TextEncoder().encode(preface);
    const proof = this.#proof!.answer(this.#gate!.find(hello.key!), bytes, said);
    this.#proof = undefined;
    this.#preface();
    this.#outgoing.push(encodeProof(proof));
    this.#welcome(hello);
  }
}
