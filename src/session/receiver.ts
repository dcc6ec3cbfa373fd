/**
 * The receiving end of a conversation (SPEC sections 4 to 7), as a machine without I/O: bytes and
 * times go in, bytes come out, and frames go to a store as they arrive. When a receipt may leave is
 * the host's part: it flushes the store first, once for all its connections.
 */
import { errorByNumber, FramesError } from "../errors.ts";
import type { FrameDescription, FrameStore, FrameWriter, Outcome, SourceStore } from "../frame.ts";
import { Decoder, type MessageHandler } from "../wire/decode.ts";
import { encodeControl, encodeReceipt } from "../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  type Hello,
  preface,
  type SourceDeclaration,
  Type,
  unexpected,
  type Welcome,
} from "../wire/messages.ts";
import { Liveness, nanoseconds } from "./liveness.ts";
import { tooLargeError } from "./outlet.ts";

/** When a receipt is due although frames keep coming (SPEC section 6). */
const receiptEvery = { milliseconds: 100, bytes: 16 << 20, frames: 1000 } as const;

/** What the machine tells its host. */
export interface ReceiverEvents {
  /** HELLO came. What it throws ends the connection with that error. */
  hello(hello: Hello): Pick<Welcome, "fresh" | "store" | "software">;
  /** A frame ended, and what became of it. */
  ended?(source: string, frame: FrameDescription, outcome: Outcome): void;
  lost?(source: string, frames: number, error: FramesError): void;
  /** A frame was settled outside `receive`: flush the store. */
  wake?(): void;
  /** The store failed outside `receive`: hand the error to `fail`. */
  failed?(error: unknown): void;
}

/** What a receiver grants; announced in WELCOME. */
export type ReceiverLimits = Pick<Welcome, "window" | "limits">;

/** What an id stands for: a source, or why it is refused. */
interface Inlet {
  readonly name: string;
  readonly store: SourceStore | FramesError;
  unfinished: Unfinished | undefined;
}

interface Unfinished {
  readonly description: FrameDescription;
  /** Where its bytes go, or why it is refused. */
  writer: FrameWriter | FramesError;
}

/** A frame that ended and whose outcome is not known yet. */
interface Pending {
  outcome: Outcome | "aborted" | undefined;
}

type Phase = "greeting" | "open" | "ending" | "done" | "failed";

export class Receiver implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #store: FrameStore;
  readonly #grants: ReceiverLimits;
  readonly #events: ReceiverEvents;
  readonly #liveness: Liveness;
  readonly #inlets = new Map<number, Inlet>();
  readonly #pending: Pending[] = [];
  readonly #counts: Done = { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 };
  #outgoing: Uint8Array[] = [];
  #phase: Phase = "greeting";
  #hello: Hello | undefined;
  #now: number;
  #greeted = false;
  #unsettledBytes = 0;
  #receipted = 0;
  #receiptedAt: number;

  /** @param now milliseconds since 1970 by a clock that never jumps, as everywhere here */
  constructor(
    store: FrameStore,
    grants: ReceiverLimits,
    timeout: number,
    now: number,
    events: ReceiverEvents,
  ) {
    this.#store = store;
    this.#grants = grants;
    this.#events = events;
    this.#liveness = new Liveness(now, timeout);
    this.#now = now;
    this.#receiptedAt = now;
  }

  /** The sender's HELLO, once it came. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /** How the frames of this connection ended. */
  get counts(): Readonly<Done> {
    return this.#counts;
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
    return this.#counts.frames - this.#receipted;
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
    return this.isEnding || this.unreceipted > 0;
  }

  /**
   * Takes bytes from the sender.
   *
   * @throws {FramesError} if the conversation has failed: hand it to `fail`
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    this.#liveness.heard(now);
    if (this.#phase === "failed") return;
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
    const awaited = this.#phase === "greeting" ? "HELLO" : "frames";
    if (this.#liveness.tick(now, awaited)) this.#say(Type.ping, 0, { time: nanoseconds(now) });
  }

  /** The bytes to send now, if any. */
  take(now: number): Uint8Array[] {
    const outgoing = this.#outgoing;
    if (outgoing.length === 0) return outgoing;
    this.#liveness.sent(now);
    this.#outgoing = [];
    return outgoing;
  }

  /** Frames that a flush of the store which begins now will settle: hand it to `settle`. */
  get flushable(): number {
    return this.#counts.frames - this.#pending.length;
  }

  /**
   * The store was flushed: says that the frames which were `flushable` before are settled, and DONE
   * if these are all.
   */
  settle(now: number, flushed = this.flushable): void {
    if (this.#phase === "failed") return;
    if (flushed > this.#receipted) {
      this.#receipted = flushed;
      this.#receiptedAt = now;
      this.#unsettledBytes = 0;
      this.#outgoing.push(encodeReceipt(flushed));
    }
    if (this.#phase === "ending" && flushed === this.#counts.frames) {
      this.#say(Type.done, 0, this.#counts);
      this.#phase = "done";
    }
  }

  /** Ends the conversation: discards what is unfinished and says ERROR, if that can be understood. */
  fail(error: FramesError): void {
    if (this.#phase === "failed") return;
    this.close();
    if (this.#phase === "done") return;
    if (error.code !== "foreign") {
      this.#preface();
      this.#say(Type.error, 0, error.reason);
    }
    this.#phase = "failed";
  }

  /** The connection is gone: what is unfinished is discarded. */
  close(): void {
    for (const inlet of this.#inlets.values()) {
      const writer = inlet.unfinished?.writer;
      inlet.unfinished = undefined;
      if (writer !== undefined && !(writer instanceof FramesError)) writer.discard();
    }
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
    if (message.type === Type.hello) return this.#greet(message.body);
    if (message.type === Type.error) {
      const code = errorByNumber(message.body.error);
      throw new FramesError(code, `The sender says: ${message.body.message}`);
    }
    this.#expect(message.type);
    switch (message.type) {
      case Type.source:
        return this.#declare(message.source, message.body);
      case Type.abort:
        return this.#abort(message.source, message.body.sequence);
      case Type.lost:
        return this.#lost(message.source, message.body);
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
        return;
      default:
        throw unexpected(message.type);
    }
  }

  #expect(type: number): void {
    const late = this.#phase === "ending" || this.#phase === "done";
    if (this.#phase === "open" || (late && (type === Type.ping || type === Type.pong))) return;
    throw unexpected(type);
  }

  #greet(hello: Hello): void {
    if (this.#phase !== "greeting") throw unexpected(Type.hello);
    this.#hello = hello;
    const welcome = this.#events.hello(hello);
    this.#phase = "open";
    this.#liveness.greeted();
    this.#preface();
    this.#say(Type.welcome, 0, { ...this.#grants, durable: false, features: [], ...welcome });
  }

  #declare(id: number, declaration: SourceDeclaration): void {
    const known = this.#inlets.get(id);
    if (known === undefined && this.#inlets.size >= this.#grants.limits.sources) {
      throw new FramesError(
        "limit",
        `Cannot take another source: ${this.#grants.limits.sources} are the most`,
      );
    }
    if (known?.unfinished !== undefined) throw unexpected(Type.source);
    const { session, stream } = this.#hello!;
    const store = this.#try(() =>
      this.#store.open({
        session,
        stream: declaration.stream ?? stream,
        source: declaration.name,
        ...(declaration.raw === undefined ? {} : { raw: declaration.raw }),
      }),
    );
    this.#inlets.set(id, { name: declaration.name, store, unfinished: undefined });
  }

  #inlet(id: number): Inlet {
    const inlet = this.#inlets.get(id);
    if (inlet !== undefined) return inlet;
    throw new FramesError("protocol", `Cannot accept a message of source ${id}: it has no SOURCE`);
  }

  frame(id: number, description: FrameDescription, more: boolean): void {
    this.#expect(Type.frame);
    const inlet = this.#inlet(id);
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
    let writer: FrameWriter | FramesError;
    if (inlet.store instanceof FramesError) {
      writer = inlet.store;
    } else if (description.size > limits.frame) {
      writer = tooLargeError(description.size, limits.frame);
    } else {
      writer = this.#try(() => (inlet.store as SourceStore).begin(description));
    }
    inlet.unfinished = { description, writer };
    if (writer instanceof FramesError) this.#refuse(id, inlet, description, writer);
  }

  /** A frame or source that cannot be stored is refused; an error of the store as a whole is not its own. */
  #try<T>(act: () => T): T | FramesError {
    try {
      return act();
    } catch (error) {
      if (error instanceof FramesError && isFrameError(error)) return error;
      throw error;
    }
  }

  #refuse(id: number, inlet: Inlet, description: FrameDescription, error: FramesError): void {
    const { sequence } = description;
    this.#say(Type.refused, id, { sequence, ...error.reason });
    // A conflict is no loss: something is stored under that name.
    if (error.code === "conflict" || inlet.store instanceof FramesError) return;
    inlet.store.lost(sequence, sequence, error);
  }

  payload(id: number, bytes: Uint8Array): void {
    const inlet = this.#inlet(id);
    const unfinished = inlet.unfinished;
    if (unfinished === undefined) throw unexpected(Type.data);
    this.#unsettledBytes += bytes.length;
    const { writer } = unfinished;
    if (writer instanceof FramesError) return;
    const failure = this.#try(() => writer.write(bytes));
    if (!(failure instanceof FramesError)) return;
    writer.discard();
    unfinished.writer = failure;
    this.#refuse(id, inlet, unfinished.description, failure);
  }

  complete(id: number, crc: number): void {
    const inlet = this.#inlet(id);
    const { description, writer } = inlet.unfinished!;
    inlet.unfinished = undefined;
    // What is refused already was told when it was.
    if (writer instanceof FramesError) return this.#ended(inlet, description, writer);
    const outcome = this.#try(() => writer.finish(crc));
    if (outcome instanceof Promise) {
      const pending: Pending = { outcome: undefined };
      this.#counts.frames++;
      this.#pending.push(pending);
      outcome
        .then((settled) => this.#settlePending(id, inlet, description, pending, settled))
        .catch((error: unknown) => this.#events.failed?.(error));
      return;
    }
    if (outcome instanceof FramesError) this.#refuse(id, inlet, description, outcome);
    this.#ended(inlet, description, outcome);
  }

  #settlePending(
    id: number,
    inlet: Inlet,
    description: FrameDescription,
    pending: Pending,
    outcome: Outcome,
  ): void {
    if (outcome instanceof FramesError) this.#refuse(id, inlet, description, outcome);
    pending.outcome = outcome;
    this.#events.ended?.(inlet.name, description, outcome);
    while (this.#pending[0]?.outcome !== undefined) this.#count(this.#pending.shift()!.outcome!);
    this.#events.wake?.();
  }

  /** A frame ended, and its outcome is known. */
  #ended(inlet: Inlet, description: FrameDescription, outcome: Outcome | "aborted"): void {
    this.#counts.frames++;
    if (outcome !== "aborted") this.#events.ended?.(inlet.name, description, outcome);
    // Receipts count in the order in which frames ended.
    if (this.#pending.length === 0) this.#count(outcome);
    else this.#pending.push({ outcome });
  }

  #count(outcome: Outcome | "aborted"): void {
    if (outcome instanceof FramesError) this.#counts.refused++;
    else this.#counts[outcome]++;
  }

  #abort(id: number, sequence: number): void {
    const inlet = this.#inlet(id);
    const { unfinished } = inlet;
    if (unfinished?.description.sequence !== sequence) throw unexpected(Type.abort);
    inlet.unfinished = undefined;
    const { description, writer } = unfinished;
    if (!(writer instanceof FramesError)) writer.discard();
    this.#ended(inlet, description, writer instanceof FramesError ? writer : "aborted");
  }

  #lost(id: number, body: ControlBodies[typeof Type.lost]): void {
    const inlet = this.#inlet(id);
    const error = new FramesError(errorByNumber(body.error), body.message);
    let frames = 0;
    for (const [first, last] of body.ranges) {
      frames = Math.min(frames + last - first + 1, Number.MAX_SAFE_INTEGER);
      if (!(inlet.store instanceof FramesError)) inlet.store.lost(first, last, error);
    }
    this.#events.lost?.(inlet.name, frames, error);
  }

  #end(frames: number): void {
    if (this.#decoder.unfinished > 0) throw unexpected(Type.end);
    if (frames !== this.#counts.frames) {
      throw new FramesError(
        "protocol",
        `Cannot accept END: it counts ${frames} frames, ${this.#counts.frames} came`,
      );
    }
    this.#phase = "ending";
  }

  /** A server without keys ignores a client's proof (SPEC section 10). */
  proof(): void {
    if (this.#phase !== "open" || this.#counts.frames > 0 || this.#inlets.size > 0) {
      throw unexpected(Type.proof);
    }
  }
}

/** Whether the error concerns one frame (SPEC section 11), and not the store as a whole. */
function isFrameError(error: FramesError): boolean {
  return error.wire >= 32;
}
