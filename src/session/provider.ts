/**
 * The server's end of a conversation with a client that receives (SPEC section 9), as a machine without
 * I/O. Frames go one after the other in the order in which they came, large ones too, so that one position
 * tells how far a client is.
 */
import { errorByNumber, FramesError, heard } from "../errors.ts";
import type { Frame } from "../frame.ts";
import type { Decoder, MessageHandler } from "../wire/decode.ts";
import { encodeControl, largestPackedFrame } from "../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  type Hello,
  Type,
  unexpected,
} from "../wire/messages.ts";
import { Bookmark } from "./bookmark.ts";
import { Freshness } from "./freshness.ts";
import { LargeFrame } from "./large.ts";
import { Liveness, nanoseconds } from "./liveness.ts";
import type { Provided, Supplied, SuppliedFrame, Supply } from "./supply.ts";
import { SourceIds } from "./source-ids.ts";
import { Throttle } from "./throttle.ts";
import type { Transmission } from "./transmission.ts";
import { Window } from "./window.ts";

/** What a client grants that does not say so (SPEC section 9). */
const usualWindow = { bytes: 64 << 20, frames: 8192 } as const;

/** PONGs that wait to be sent: whoever sends more PINGs meanwhile has the answers to those. */
const mostPongs = 1000;

type Phase = "open" | "ending" | "done" | "failed";

type Sized = Pick<Frame, "size" | "sequence">;

/** A frame on its way in pieces. */
interface Large {
  readonly frame: LargeFrame;
  readonly item: SuppliedFrame;
  readonly id: number;
}

/** What the machine tells its host. */
export interface ProviderEvents {
  /** Something can be sent that could not before: call `transmit`. */
  wake(): void;
}

export class Provider implements MessageHandler {
  readonly #decoder: Decoder;
  readonly #supply: Supply;
  readonly #events: ProviderEvents;
  readonly #liveness: Liveness;
  readonly #throttle: Throttle;
  readonly #window: Window<number, Sized>;
  readonly #ids = new SourceIds();
  readonly #controls: Uint8Array[] = [];
  /** Bytes of a frame that the client takes at most. */
  readonly #limit: number;
  /** What may be under way, where what is sent is to be fresh. */
  readonly #freshness: Freshness | undefined;
  /** Frames that are still to be sent. */
  #left: number;
  /** Whether a PROOF would be ignored, and none has come. */
  #ignoresProof: boolean;
  #phase: Phase = "open";
  #now: number;
  /** Taken from the supply, and not begun. */
  #item: Supplied | undefined;
  #large: Large | undefined;
  /** The next one, of which the beginning is read already. */
  #ahead: LargeFrame | undefined;
  readonly #bookmark: Bookmark;
  #pongs = 0;
  #refusals = 0;
  #aborts = 0;
  #settled = { position: 0, frames: 0, bytes: 0 };
  readonly #missing = { gone: 0, unread: 0, dropped: 0 };

  /**
   * @param decoder has read the client's greeting
   * @param isGated whether the client had to prove a key
   * @param now milliseconds since 1970 by a clock that never jumps, as everywhere here
   */
  constructor(
    hello: Hello,
    decoder: Decoder,
    supply: Supply,
    timeout: number,
    isGated: boolean,
    now: number,
    events: ProviderEvents,
  ) {
    this.#decoder = decoder;
    this.#supply = supply;
    this.#events = events;
    this.#now = now;
    this.#liveness = new Liveness(now, timeout);
    this.#liveness.greeted();
    this.#throttle = new Throttle(now);
    this.#window = new Window(hello.window ?? usualWindow);
    this.#limit = hello.limits?.frame ?? Infinity;
    this.#left = hello.first ?? Infinity;
    if (hello.latest === true) this.#freshness = new Freshness();
    this.#ignoresProof = !isGated;
    this.#bookmark = new Bookmark(now);
    decoder.handOver(this);
  }

  /** Whether the client has said DONE. */
  get isDone(): boolean {
    return this.#phase === "done";
  }

  /** What went to the client so far. */
  get provided(): Provided {
    const { frames, bytes } = this.#settled;
    return { frames, bytes, ...this.#missing, refused: this.#refusals };
  }

  /** The place in the order of the last frame that the client has settled; 0 before. */
  get position(): number {
    return this.#settled.position;
  }

  /** Whether anything is under way that the client has not settled. */
  get isAwaiting(): boolean {
    const { ended, settled } = this.#window;
    return ended > settled || this.#large !== undefined || this.#item !== undefined;
  }

  /** Whether nothing is read for now: the client must be held back. */
  get isPaused(): boolean {
    return this.#throttle.isClosed;
  }

  /**
   * Takes bytes from the client.
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
    if (this.#phase === "done" || this.#phase === "failed") return;
    if (this.isPaused) this.#liveness.heard(now);
    const awaited = this.#phase === "ending" ? "DONE" : "receipts";
    if (this.#liveness.tick(now, awaited, this.#decoder.incomplete)) {
      this.#say(Type.ping, 0, { time: nanoseconds(now) });
      this.#events.wake();
    }
    if (this.#throttle.opens(now)) {
      this.#decoder.resume();
      this.#events.wake();
    }
    if (this.#bookmark.isBehind) this.#events.wake();
  }

  /** Ends the conversation: `transmit` gives what is still to be said, ERROR last. */
  fail(error: FramesError): void {
    if (this.#phase === "done" || this.#phase === "failed") return;
    this.#say(Type.error, 0, error.reason);
    this.#phase = "failed";
    this.close();
  }

  /** The connection is gone. */
  close(): void {
    this.#decoder.discard();
    this.#large?.frame.close();
    this.#ahead?.close();
    this.#large = this.#ahead = undefined;
  }

  /**
   * Packs what may be sent now. Nothing is a length of 0; when there is something again, `wake` is called,
   * or the supply is busy.
   */
  transmit(out: Transmission, now: number): void {
    this.#now = now;
    if (out.packAll(this.#controls)) {
      this.#pongs = 0;
      if (this.#phase === "open") this.#pack(out);
    }
    if (out.length > 0) this.#liveness.sent(now);
  }

  #pack(out: Transmission): void {
    while (out.packAll(this.#controls)) {
      if (this.#large !== undefined) {
        this.#readAhead();
        if (!this.#packPiece(out, this.#large)) return;
        continue;
      }
      if (this.#left === 0) return this.#end(out);
      if (this.#freshness?.mayBegin(this.#now) === false) return;
      this.#item ??= this.#supply.next();
      if (this.#item === undefined) {
        if (this.#supply.isOver) return this.#end(out);
        if (this.#bookmark.isDue(this.#now)) this.#tellCursor();
        return void out.packAll(this.#controls);
      }
      const item = this.#item;
      if (item.type !== "frame") this.#tellMissing(item);
      else if (item.frame.size > this.#limit) this.#item = tooLarge(item, this.#limit);
      else if (!this.#packFrame(out, item)) return;
    }
  }

  /** Nothing more will be sent. */
  #end(out: Transmission): void {
    this.#tellCursor();
    this.#say(Type.end, 0, { frames: this.#window.ended });
    this.#phase = "ending";
    if (!out.packAll(this.#controls)) this.#events.wake();
  }

  /** Whether it may go on. */
  #packFrame(out: Transmission, item: SuppliedFrame): boolean {
    const { frame } = item;
    if (!this.#window.fits(frame)) return false;
    const isLarge = frame.size > largestPackedFrame;
    if (!out.hasRoomFor(frame, !isLarge)) return false;
    const id = this.#declare(item);
    // What was declared goes first.
    if (this.#controls.length > 0) return true;
    this.#item = undefined;
    let crc = 0;
    try {
      if (this.#ahead?.failure !== undefined) throw this.#ahead.failure;
      if (isLarge) out.packBeginning(id, frame);
      else crc = out.packFrame(id, frame);
    } catch (error) {
      this.#failed(item, error);
      return true;
    }
    this.#window.begin(frame);
    this.#freshness?.begin();
    if (isLarge) {
      const large = this.#ahead ?? new LargeFrame(frame, () => this.#events.wake());
      this.#ahead = undefined;
      this.#large = { frame: large, item, id };
    } else this.#ended(item, crc);
    return true;
  }

  /** A large frame that comes next is begun to be read while the one before it is sent. */
  #readAhead(): void {
    if (this.#ahead !== undefined || this.#left <= 1 || this.#freshness !== undefined) return;
    this.#item ??= this.#supply.next();
    if (this.#item?.type !== "frame") return;
    const { frame } = this.#item;
    if (frame.size <= largestPackedFrame || frame.size > this.#limit) return;
    this.#ahead = new LargeFrame(frame, () => this.#events.wake());
  }

  /** Whether it may go on. */
  #packPiece(out: Transmission, { frame, item, id }: Large): boolean {
    if (frame.failure !== undefined) {
      this.#abort(frame.failure);
      this.#failed(item, frame.failure);
      return true;
    }
    if (!frame.isReady || !out.hasRoomForPiece) return false;
    const { more } = out.packPiece(id, frame);
    if (!more) {
      frame.close();
      this.#large = undefined;
      this.#ended(item, frame.crc);
    }
    // A piece goes behind the buffer, so nothing more can go into it.
    return false;
  }

  #failed(item: SuppliedFrame, error: unknown): void {
    if (!(error instanceof FramesError)) throw error;
    // What was read ahead comes behind it.
    if (this.#item !== undefined) this.#supply.putBack(this.#item);
    this.#ahead?.close();
    this.#ahead = undefined;
    this.#item = this.#supply.failed(item, error);
  }

  /** A frame was sent whole. */
  #ended(item: SuppliedFrame, crc: number): void {
    this.#window.end(item.position, sizeOf(item), crc, false);
    this.#left--;
    if (this.#bookmark.passed(item, item.frame.size)) this.#tellCursor();
  }

  /** @param isRefused whether the client has refused it */
  #abort(error: FramesError, isRefused = false): void {
    const { frame: large, item, id } = this.#large!;
    large.close();
    this.#large = undefined;
    if (isRefused) this.#refusals++;
    else this.#aborts++;
    const { sequence } = item.frame;
    this.#say(Type.abort, id, { sequence, ...error.reason });
    this.#window.end(item.position, sizeOf(item), large.crc, true, isRefused);
  }

  #tellCursor(): void {
    const cursor = this.#bookmark.take(this.#now);
    if (cursor !== undefined) this.#say(Type.cursor, 0, { cursor });
  }

  #tellMissing(item: Exclude<Supplied, SuppliedFrame>): void {
    this.#item = undefined;
    const id = this.#declare(item);
    if (item.type === "gone") {
      this.#missing.gone++;
      this.#say(Type.gone, id, { sequence: item.sequence, name: item.name });
    } else {
      const { first, last } = item;
      const { error, message } = item.error.reason;
      const isDropped = item.error.code === "dropped";
      this.#missing[isDropped ? "dropped" : "unread"] += last - first + 1;
      this.#say(Type.lost, id, { ranges: [[first, last]], error, message });
    }
    if (this.#bookmark.passed(item, 0)) this.#tellCursor();
  }

  /** The id of the source of an item, which is declared first if it stands for something else. */
  #declare({ origin }: Supplied): number {
    const { id, isNew } = this.#ids.of(origin);
    if (!isNew) return id;
    const { source: name, session, raw } = origin;
    this.#say(Type.source, id, { name, session, ...(raw === undefined ? {} : { raw }) });
    return id;
  }

  #say<T extends ControlType>(type: T, source: number, body: ControlBodies[T]): void {
    // ERROR was the last message.
    if (this.#phase !== "failed") this.#controls.push(encodeControl(type, source, body));
  }

  // What the decoder tells.

  control(message: ControlMessage): void {
    this.#throttle.count();
    if (this.#throttle.isClosed) this.#decoder.pause();
    // It may have crossed what the client said last.
    if (this.#phase === "done") throw unexpected(message.type);
    switch (message.type) {
      case Type.error: {
        const { error, message: said } = message.body;
        throw new FramesError(errorByNumber(error, "end"), `The receiver says: ${heard(said)}`);
      }
      case Type.ping:
        if (++this.#pongs > mostPongs) return;
        this.#say(Type.pong, 0, { time: message.body.time, clock: nanoseconds(this.#now) });
        return this.#events.wake();
      case Type.pong:
        return;
      case Type.refused:
        return this.#refused(message.source, message.body);
      case Type.done:
        return this.#finish(message.body);
      default:
        throw unexpected(message.type);
    }
  }

  receipt(frames: number): void {
    const { ended, settled } = this.#window;
    if (this.#phase === "done" || frames < settled || frames > ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept RECEIPT ${frames}: ${ended} frames were sent`,
      );
    }
    this.#settle(frames);
    this.#events.wake();
  }

  #settle(frames: number): void {
    for (const { owner, frame, aborted, isRefused } of this.#window.settle(frames)) {
      this.#freshness?.settle(this.#now);
      if (aborted) continue;
      this.#settled.position = owner;
      if (isRefused) continue;
      this.#settled.frames++;
      this.#settled.bytes += frame.size;
    }
  }

  #refused(id: number, { sequence, error, message }: ControlBodies[typeof Type.refused]): void {
    const large = this.#large;
    if (large?.id === id && large.item.frame.sequence === sequence) {
      this.#abort(new FramesError(errorByNumber(error, "refusal"), heard(message)), true);
      return this.#events.wake();
    }
    const entry = this.#window.unsettledOf(sequence);
    if (entry === undefined) throw unexpected(Type.refused);
    if (entry.aborted) this.#aborts--;
    entry.isRefused = true;
    this.#refusals++;
  }

  #finish(done: Done): void {
    const { frames, stored, present, refused, aborted } = done;
    const { ended } = this.#window;
    const isRight = frames === ended && stored + present + refused + aborted === ended;
    if (this.#phase !== "ending") throw unexpected(Type.done);
    if (!isRight || refused !== this.#refusals || aborted !== this.#aborts) {
      throw new FramesError(
        "protocol",
        "Cannot accept DONE: it counts other frames than were sent",
      );
    }
    this.#settle(ended);
    this.#phase = "done";
  }

  proof(): void {
    // A server without keys ignores a client's proof (SPEC section 10).
    if (!this.#ignoresProof) throw unexpected(Type.proof);
    this.#ignoresProof = false;
  }
}

/** What is remembered of a frame that is under way: there may be thousands. */
function sizeOf({ frame: { size, sequence } }: SuppliedFrame): Sized {
  return { size, sequence };
}

/** What is said of a frame that is over the client's limit. */
function tooLarge({ origin, position, cursor, frame }: SuppliedFrame, limit: number): Supplied {
  const { sequence, size } = frame;
  const message = `the frame has ${size} bytes, the receiver takes ${limit}`;
  const error = new FramesError("too-large", message);
  return { type: "lost", origin, position, cursor, first: sequence, last: sequence, error };
}
