/**
 * The sending end of a conversation (SPEC sections 4 to 7), as a machine without I/O: bytes and
 * times go in, bytes come out. Frames are pulled from their sources when there is room for them,
 * read straight into the outgoing buffer, and forgotten when their receipt is in.
 */
import { crc32 } from "node:zlib";
import { errorByNumber, FramesError } from "../errors.ts";
import type { Frame, FrameSource, Loss } from "../frame.ts";
import { Decoder, type MessageHandler } from "../wire/decode.ts";
import {
  dataPrefix,
  encodeControl,
  framePrefixBound,
  largestPackedFrame,
  largestPiece,
  placeData,
  placeFrame,
  sealFrame,
} from "../wire/encode.ts";
import {
  type ControlMessage,
  type Done,
  type Hello,
  preface,
  Size,
  Type,
  typeName,
  type Welcome,
} from "../wire/messages.ts";
import { Liveness, nanoseconds } from "./liveness.ts";

/** Bytes of the outgoing buffer: room for the largest message, or for many small ones. */
export const outgoingBuffer = Size.header + Size.body;

/**
 * Frames too large for one message that are read at the same time: each holds a few MiB, and the
 * small frames of other sources pass them anyway.
 */
const largeAtOnce = 2;

/** How far the delivery of one source is. */
export interface SourceProgress {
  readonly name: string;
  /** Frames to come in all, if that is known. */
  readonly total: number | undefined;
  /** Frames sent whole, and bytes of payload sent. */
  sent: number;
  bytes: number;
  /** Frames settled, refused ones included. */
  settled: number;
  refused: number;
  lost: number;
  /** Part of the large frame that is on its way, from 0 to 1. */
  part: number;
}

/** A frame that was not delivered, and why. */
export interface Undelivered {
  readonly source: string;
  readonly first: number;
  readonly last: number;
  /** Name or path of the frame. */
  readonly what: string;
  readonly error: FramesError;
}

/** What the machine tells its host. */
export interface SenderEvents {
  /** Something can be sent that could not before: call `transmit`. */
  wake(): void;
  welcome?(welcome: Welcome): void;
  /** A frame was sent whole. */
  sent?(source: string, frame: Frame): void;
  undelivered?(report: Undelivered): void;
  /** A message went or came, for those who want to see the conversation. */
  trace?(direction: "->" | "<-", line: string): void;
}

/** A frame too large for one message, on its way. */
interface Large {
  readonly frame: Frame;
  readonly pieces: AsyncIterator<Uint8Array, undefined>;
  sent: number;
  crc: number;
  /** Read, and not sent yet. */
  ready: Uint8Array | undefined;
  failure: FramesError | undefined;
  charge: number;
}

interface Outlet {
  readonly id: number;
  readonly source: FrameSource;
  readonly progress: SourceProgress;
  declared: boolean;
  /** The source was asked for a frame and has not answered. */
  asked: boolean;
  frame: Frame | undefined;
  large: Large | undefined;
  ended: boolean;
}

/** A frame that ended on the connection and has no receipt. */
interface Unsettled {
  readonly outlet: Outlet;
  readonly frame: Frame;
  readonly charge: number;
  readonly aborted: boolean;
}

type Phase = "greeting" | "open" | "ending" | "done";

/** What `transmit` wants sent: the buffer's first `length` bytes, then `piece`. */
export interface Transmission {
  length: number;
  piece: Uint8Array | undefined;
}

export class Sender implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #events: SenderEvents;
  readonly #outlets: Outlet[];
  readonly #liveness: Liveness;
  readonly #controls: Uint8Array[] = [];
  readonly #unsettled: Unsettled[] = [];
  /** Entries of `#unsettled` that are settled already, cut off in batches. */
  #settledHead = 0;
  #unsettledBytes = 0;
  #unsettledFrames = 0;
  #phase: Phase = "greeting";
  #welcome: Welcome | undefined;
  #turn = 0;
  #large = 0;
  #ended = 0;
  #receipted = 0;
  #stopped = false;
  #now: number;
  #failed: unknown;
  #done: Done | undefined;

  /** @param now milliseconds since 1970 by a clock that never jumps, as everywhere here */
  constructor(
    sources: readonly FrameSource[],
    hello: Hello,
    timeout: number,
    now: number,
    events: SenderEvents,
  ) {
    this.#events = events;
    this.#now = now;
    this.#liveness = new Liveness(now, timeout);
    this.#outlets = sources.map((source, index) => ({
      id: index + 1,
      source,
      progress: {
        name: source.name,
        total: source.total,
        sent: 0,
        bytes: 0,
        settled: 0,
        refused: 0,
        lost: 0,
        part: 0,
      },
      declared: false,
      asked: false,
      frame: undefined,
      large: undefined,
      ended: false,
    }));
    this.#controls.push(new TextEncoder().encode(preface));
    this.#control(Type.hello, 0, hello);
  }

  /** How far each source is. */
  get progress(): readonly SourceProgress[] {
    return this.#outlets.map((outlet) => outlet.progress);
  }

  /** The server's last word, once it came. */
  get done(): Done | undefined {
    return this.#done;
  }

  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /**
   * No further frame is taken from the sources; what is on its way is finished. Returns whether
   * there may have been more.
   */
  stop(): boolean {
    const more = this.#outlets.some((outlet) => !outlet.ended);
    this.#stopped = true;
    // Nobody waits for a source that has been asked already.
    for (const outlet of this.#outlets) if (outlet.asked) outlet.ended = true;
    this.#events.wake();
    return more;
  }

  /**
   * Takes bytes from the server.
   *
   * @throws {FramesError} if the conversation has failed; the machine is then of no more use
   */
  receive(chunk: Uint8Array, now: number): void {
    this.#now = now;
    this.#liveness.heard(now);
    this.#decoder.receive(chunk);
  }

  /**
   * To be called about once a second.
   *
   * @throws {FramesError} `timeout`
   */
  tick(now: number): void {
    if (this.#phase === "done") return;
    if (this.#liveness.tick(now, this.#awaited())) {
      this.#control(Type.ping, 0, { time: nanoseconds(now) });
      this.#events.wake();
    }
  }

  #awaited(): string {
    if (this.#phase === "greeting") return "WELCOME";
    return this.#phase === "ending" ? "DONE" : "receipts";
  }

  /**
   * Packs what may be sent now into `into` (`outgoingBuffer` bytes long). Nothing to send is a
   * length of 0; after more has become possible, `wake` is called.
   */
  transmit(into: Uint8Array, now: number): Transmission {
    const out = { length: 0, piece: undefined };
    if (this.#packControls(into, out) && this.#phase === "open") this.#pack(into, out);
    if (out.length > 0) this.#liveness.sent(now);
    return out;
  }

  /** Packs the control messages that wait; whether all found room. */
  #packControls(into: Uint8Array, out: Transmission): boolean {
    let bytes: Uint8Array | undefined;
    while ((bytes = this.#controls[0]) !== undefined) {
      if (out.length + bytes.length > into.length) return false;
      into.set(bytes, out.length);
      out.length += bytes.length;
      this.#controls.shift();
    }
    return true;
  }

  /** Goes round the sources, a frame or a piece each, until nothing fits or nothing is there. */
  #pack(into: Uint8Array, out: Transmission): void {
    const outlets = this.#outlets;
    for (let idle = 0; idle < outlets.length;) {
      const outlet = outlets[this.#turn % outlets.length]!;
      const step = this.#step(outlet, into, out);
      if (step === "full") return;
      this.#turn = (this.#turn + 1) % outlets.length;
      if (out.piece !== undefined) return;
      idle = step === "packed" ? 0 : idle + 1;
    }
    if (this.#large > 0 || outlets.some((outlet) => !outlet.ended)) return;
    this.#phase = "ending";
    this.#control(Type.end, 0, { frames: this.#ended });
    if (!this.#packControls(into, out)) this.#events.wake();
  }

  #step(outlet: Outlet, into: Uint8Array, out: Transmission): "packed" | "idle" | "full" {
    if (outlet.large === undefined && outlet.frame === undefined) this.#ask(outlet);
    // What has been said so far must go first: SOURCE before its frames, ABORT before a later end.
    if (!this.#packControls(into, out)) return "full";
    if (outlet.large !== undefined) return this.#piece(outlet, outlet.large, into, out);
    const frame = outlet.frame;
    if (frame === undefined) return "idle";
    if (!this.#fitsWindow(frame)) return "idle";
    const large = frame.size > largestPackedFrame;
    if (large && this.#large >= largeAtOnce) return "idle";
    const room = into.length - out.length;
    let declaration: Uint8Array | undefined;
    if (!outlet.declared) {
      const { name, type, raw } = outlet.source;
      declaration = encodeControl(Type.source, outlet.id, {
        name,
        ...(type === undefined ? {} : { type }),
        ...(raw === undefined ? {} : { raw }),
      });
    }
    const needed = framePrefixBound(frame) + (large ? 0 : frame.size) + (declaration?.length ?? 0);
    if (needed > room && out.length > 0) return "full";
    if (declaration !== undefined) {
      into.set(declaration, out.length);
      out.length += declaration.length;
      outlet.declared = true;
      this.#events.trace?.("->", `SOURCE ${outlet.id} ${outlet.source.name}`);
    }
    if (large) this.#beginLarge(outlet, frame, into, out);
    else this.#packFrame(outlet, frame, into, out);
    return "packed";
  }

  /** Takes the next frame from a source, if it has one at hand. */
  #ask(outlet: Outlet): void {
    while (!outlet.asked && !outlet.ended && outlet.frame === undefined) {
      if (this.#stopped) {
        outlet.ended = true;
        return;
      }
      const next = outlet.source.next();
      if (next instanceof Promise) {
        outlet.asked = true;
        next.then(
          (item) => {
            outlet.asked = false;
            if (!outlet.ended) this.#take(outlet, item);
            this.#events.wake();
          },
          (error: unknown) => {
            outlet.asked = false;
            outlet.ended = true;
            this.#failed = error;
            this.#events.wake();
          },
        );
      } else {
        this.#take(outlet, next);
      }
    }
  }

  /** A source that broke is the end of the delivery: its host must hear of it. */
  get failure(): unknown {
    return this.#failed;
  }

  #take(outlet: Outlet, item: Frame | Loss | undefined): void {
    if (item === undefined) {
      outlet.ended = true;
    } else if ("error" in item) {
      this.#lose(outlet, item);
    } else if (item.size > this.#welcome!.limits.frame) {
      const limit = this.#welcome!.limits.frame;
      const { name: what, sequence, size } = item;
      const error = new FramesError(
        "too-large",
        `the frame has ${size} bytes, the server takes ${limit} (frames serve --max-frame)`,
      );
      this.#lose(outlet, { first: sequence, last: sequence, what, error });
    } else {
      outlet.frame = item;
    }
  }

  #lose(outlet: Outlet, loss: Loss): void {
    const { first, last, what, error } = loss;
    outlet.progress.lost += last - first + 1;
    if (!outlet.declared) {
      const { name } = outlet.source;
      this.#control(Type.source, outlet.id, { name });
      outlet.declared = true;
    }
    this.#control(Type.lost, outlet.id, {
      ranges: [[first, last]],
      error: error.wire,
      message: error.message.slice(0, 1000),
    });
    this.#events.undelivered?.({ source: outlet.source.name, first, last, what, error });
  }

  /** A frame counts with at most half of the window, so that one always fits (SPEC section 6). */
  #charge(frame: Frame): number {
    return Math.min(frame.size, Math.floor(this.#welcome!.window.bytes / 2));
  }

  #fitsWindow(frame: Frame): boolean {
    const { bytes, frames } = this.#welcome!.window;
    return this.#unsettledFrames < frames && this.#unsettledBytes + this.#charge(frame) <= bytes;
  }

  #packFrame(outlet: Outlet, frame: Frame, into: Uint8Array, out: Transmission): void {
    outlet.frame = undefined;
    const at = out.length;
    try {
      const payload = placeFrame(into, at, frame);
      if (frame.size > 0) frame.read(into.subarray(payload, payload + frame.size));
      sealFrame(into, at, outlet.id, false, payload, frame.size);
      out.length = payload + frame.size;
    } catch (error) {
      return this.#again(outlet, frame, error);
    }
    const charge = this.#charge(frame);
    this.#unsettledBytes += charge;
    this.#unsettledFrames++;
    outlet.progress.bytes += frame.size;
    this.#endFrame(outlet, frame, charge, false);
  }

  /** Reading failed: the source says whether to try once more. */
  #again(outlet: Outlet, frame: Frame, error: unknown): void {
    if (!(error instanceof FramesError)) throw error;
    this.#take(outlet, outlet.source.again(frame, error));
  }

  #endFrame(outlet: Outlet, frame: Frame, charge: number, aborted: boolean): void {
    this.#ended++;
    this.#unsettled.push({ outlet, frame, charge, aborted });
    if (aborted) return;
    outlet.progress.sent++;
    this.#events.sent?.(outlet.source.name, frame);
    this.#events.trace?.(
      "->",
      `FRAME ${outlet.source.name} ${frame.sequence} ${frame.name} ${frame.size} bytes`,
    );
  }

  #beginLarge(outlet: Outlet, frame: Frame, into: Uint8Array, out: Transmission): void {
    outlet.frame = undefined;
    const payload = placeFrame(into, out.length, frame);
    sealFrame(into, out.length, outlet.id, true, payload, 0);
    out.length = payload;
    const charge = this.#charge(frame);
    this.#unsettledBytes += charge;
    this.#unsettledFrames++;
    this.#large++;
    const pieces = frame.pieces();
    outlet.large = {
      frame,
      pieces,
      sent: 0,
      crc: 0,
      ready: undefined,
      failure: undefined,
      charge,
    };
    this.#readOn(outlet.large);
  }

  #readOn(large: Large): void {
    large.pieces.next().then(
      ({ value }) => {
        large.ready = value;
        if (value === undefined) {
          large.failure = new FramesError("changed", "the file became shorter while it was read");
        }
        this.#events.wake();
      },
      (error: unknown) => {
        large.failure =
          error instanceof FramesError
            ? error
            : new FramesError("unreadable", undefined, { cause: error });
        this.#events.wake();
      },
    );
  }

  #piece(
    outlet: Outlet,
    large: Large,
    into: Uint8Array,
    out: Transmission,
  ): "packed" | "idle" | "full" {
    if (large.failure !== undefined) {
      this.#abort(outlet, large, large.failure);
      this.#again(outlet, large.frame, large.failure);
      return "packed";
    }
    if (large.ready === undefined) return "idle";
    if (out.length + dataPrefix > into.length) return "full";
    const piece = large.ready.subarray(0, largestPiece);
    large.ready =
      piece.length < large.ready.length ? large.ready.subarray(piece.length) : undefined;
    const { frame } = large;
    large.sent += piece.length;
    large.crc = crc32(piece, large.crc);
    const more = large.sent < frame.size;
    placeData(into, out.length, outlet.id, more, large.crc, piece.length);
    out.length += dataPrefix;
    out.piece = piece;
    outlet.progress.bytes += piece.length;
    outlet.progress.part = more ? large.sent / frame.size : 0;
    if (!more) {
      this.#closeLarge(outlet, large);
      this.#endFrame(outlet, frame, large.charge, false);
    } else if (large.ready === undefined) {
      this.#readOn(large);
    }
    return "packed";
  }

  #closeLarge(outlet: Outlet, large: Large): void {
    outlet.large = undefined;
    this.#large--;
    void large.pieces.return?.();
  }

  #abort(outlet: Outlet, large: Large, error: FramesError): void {
    this.#closeLarge(outlet, large);
    outlet.progress.part = 0;
    outlet.progress.bytes -= large.sent;
    this.#control(Type.abort, outlet.id, {
      sequence: large.frame.sequence,
      error: error.wire,
      message: error.message.slice(0, 1000),
    });
    this.#endFrame(outlet, large.frame, large.charge, true);
  }

  /** Releases what the sources hold open. */
  close(): void {
    for (const outlet of this.#outlets) {
      if (outlet.large !== undefined) void outlet.large.pieces.return?.();
      outlet.source.close();
    }
  }

  #control<T extends Parameters<typeof encodeControl>[0]>(
    type: T,
    source: number,
    body: Parameters<typeof encodeControl<T>>[2],
  ): void {
    this.#events.trace?.("->", `${typeName(type)} ${JSON.stringify(body)}`);
    this.#controls.push(encodeControl(type, source, body));
  }

  // What the decoder tells.

  control(message: ControlMessage): void {
    this.#events.trace?.("<-", `${typeName(message.type)} ${JSON.stringify(message.body)}`);
    switch (message.type) {
      case Type.error: {
        const code = errorByNumber(message.body.error);
        throw new FramesError(code, `The server says: ${message.body.message}`);
      }
      case Type.welcome:
        return this.#greeted(message.body);
      case Type.ping:
        this.#expect(message.type, "open", "ending");
        this.#control(Type.pong, 0, { time: message.body.time, clock: nanoseconds(this.#now) });
        return this.#events.wake();
      case Type.pong:
        return this.#expect(message.type, "open", "ending");
      case Type.refused:
        this.#expect(message.type, "open", "ending");
        return this.#refused(message.source, message.body);
      case Type.done:
        this.#expect(message.type, "ending");
        return this.#finish(message.body);
      default:
        throw unexpected(message.type);
    }
  }

  #expect(type: number, ...phases: Phase[]): void {
    if (!phases.includes(this.#phase)) throw unexpected(type);
  }

  #greeted(welcome: Welcome): void {
    this.#expect(Type.welcome, "greeting");
    if (this.#outlets.length > welcome.limits.sources) {
      throw new FramesError(
        "limit",
        `Cannot send ${this.#outlets.length} sources: the server takes ${welcome.limits.sources}`,
      );
    }
    this.#phase = "open";
    this.#welcome = welcome;
    this.#liveness.greeted();
    this.#events.welcome?.(welcome);
    this.#events.wake();
  }

  receipt(frames: number): void {
    this.#events.trace?.("<-", `RECEIPT ${frames}`);
    this.#expect(Type.receipt, "open", "ending");
    if (frames < this.#receipted || frames > this.#ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept RECEIPT ${frames}: ${this.#ended} frames were sent`,
      );
    }
    for (; this.#receipted < frames; this.#receipted++) {
      const { outlet, charge, aborted } = this.#unsettled[this.#settledHead++]!;
      this.#unsettledBytes -= charge;
      this.#unsettledFrames--;
      if (!aborted) outlet.progress.settled++;
    }
    // A queue with a head: cutting off one by one would cost the square of its length.
    if (this.#settledHead * 2 >= this.#unsettled.length) {
      this.#unsettled.splice(0, this.#settledHead);
      this.#settledHead = 0;
    }
    this.#events.wake();
  }

  #refused(id: number, body: { sequence: number; error: number; message: string }): void {
    const outlet = this.#outlets[id - 1];
    if (outlet === undefined) throw unexpected(Type.refused);
    const error = new FramesError(errorByNumber(body.error), body.message);
    const { large } = outlet;
    let frame: Frame;
    if (large?.frame.sequence === body.sequence) {
      frame = large.frame;
      this.#abort(outlet, large, error);
    } else {
      const found = this.#unsettled.find(
        (entry, index) =>
          index >= this.#settledHead &&
          entry.outlet === outlet &&
          entry.frame.sequence === body.sequence,
      );
      if (found === undefined) throw unexpected(Type.refused);
      frame = found.frame;
    }
    outlet.progress.refused++;
    this.#events.undelivered?.({
      source: outlet.source.name,
      first: frame.sequence,
      last: frame.sequence,
      what: frame.name,
      error,
    });
    this.#events.wake();
  }

  #finish(done: Done): void {
    const settled = done.stored + done.present + done.refused + done.aborted;
    if (done.frames !== this.#ended || settled !== done.frames) {
      throw new FramesError(
        "protocol",
        `Cannot accept DONE: it counts ${settled} of ${done.frames} frames, ${this.#ended} were sent`,
      );
    }
    if (this.#receipted < this.#ended) this.receipt(this.#ended);
    this.#done = done;
    this.#phase = "done";
    this.#events.wake();
  }

  frame(): void {
    throw unexpected(Type.frame);
  }

  payload(): void {
    throw unexpected(Type.data);
  }

  complete(): void {
    throw unexpected(Type.data);
  }

  proof(): void {
    throw unexpected(Type.proof);
  }
}

function unexpected(type: number): FramesError {
  return new FramesError("protocol", `Cannot accept ${typeName(type)} now`);
}
