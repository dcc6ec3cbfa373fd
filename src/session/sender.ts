/**
 * The sending end of a conversation (SPEC sections 4 to 7), as a machine without I/O: bytes and
 * times go in, bytes come out. Frames are pulled from their sources when there is room for them,
 * read straight into the outgoing buffer, and forgotten when their receipt is in.
 */
import { errorByNumber, FramesError } from "../errors.ts";
import type { Frame, FrameSource, Loss } from "../frame.ts";
import { Decoder, type MessageHandler } from "../wire/decode.ts";
import { encodeControl, largestPackedFrame } from "../wire/encode.ts";
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  type Done,
  type Hello,
  preface,
  Type,
  typeName,
  unexpected,
  type Welcome,
} from "../wire/messages.ts";
import { LargeFrame } from "./large.ts";
import { Liveness, nanoseconds } from "./liveness.ts";
import { Outlet, type SourceProgress, type Undelivered } from "./outlet.ts";
import { Transmission } from "./transmission.ts";
import { Window } from "./window.ts";

/**
 * Frames too large for one message that are read at the same time: each holds a few MiB, and the
 * small frames of other sources pass them anyway.
 */
const largeAtOnce = 2;

/** What the machine tells its host. */
export interface SenderEvents {
  /** Something can be sent that could not before: call `transmit`. */
  wake(): void;
  welcome?(welcome: Welcome): void;
  undelivered?(report: Undelivered): void;
  /** A message goes or came, for those who want to see the conversation. */
  trace?(direction: "->" | "<-", line: string): void;
}

type Phase = "greeting" | "open" | "ending" | "done" | "failed";

export class Sender implements MessageHandler {
  readonly #decoder = new Decoder(this);
  readonly #events: SenderEvents;
  readonly #outlets: readonly Outlet[];
  /** Those that may have more to send, and whose turn it is. */
  readonly #active: Outlet[];
  readonly #liveness: Liveness;
  readonly #controls: Uint8Array[] = [];
  #window = new Window<Outlet>({ bytes: 0, frames: 0 });
  #phase: Phase = "greeting";
  #welcome: Welcome | undefined;
  #turn = 0;
  #large = 0;
  /** Bytes of all frames begun so far: the measure of how long a frame has waited. */
  #begunBytes = 0;
  #now: number;
  #failed: { error: unknown } | undefined;
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
    this.#outlets = sources.map((source, index) => new Outlet(index + 1, source));
    this.#active = [...this.#outlets];
    this.#controls.push(new TextEncoder().encode(preface));
    this.#say(Type.hello, 0, hello);
  }

  /** How far each source is. */
  get progress(): readonly SourceProgress[] {
    return this.#outlets.map((outlet) => outlet.progress);
  }

  /** The server's grants, once they came. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** The server's last word, once it came. */
  get done(): Done | undefined {
    return this.#done;
  }

  /** What a source threw: the end of the delivery. */
  get failure(): { error: unknown } | undefined {
    return this.#failed;
  }

  /** Whether the sources may have more frames. */
  get mayHaveMore(): boolean {
    return this.#outlets.some((outlet) => outlet.mayHaveMore);
  }

  /** No further frame is taken from the sources; what is on its way is finished. */
  stop(): void {
    for (const outlet of this.#outlets) outlet.end();
    this.#events.wake();
  }

  /** Ends the conversation: `transmit` gives what is still to be said, ERROR last. */
  fail(error: FramesError): void {
    if (this.#phase === "done" || this.#phase === "failed") return;
    this.#say(Type.error, 0, error.reason);
    this.#phase = "failed";
  }

  /** Releases what the sources hold open. */
  close(): void {
    for (const outlet of this.#outlets) {
      outlet.large?.close();
      outlet.source.close();
    }
  }

  /** The connection has come about: deadlines count from here. */
  connected(now: number): void {
    this.#liveness.restart(now);
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
    if (this.#phase === "done" || this.#phase === "failed") return;
    const awaited =
      this.#phase === "greeting"
        ? "answer of a frames server (WELCOME)"
        : this.#phase === "ending"
          ? "DONE"
          : "receipts";
    if (!this.#liveness.tick(now, awaited)) return;
    this.#say(Type.ping, 0, { time: nanoseconds(now) });
    this.#events.wake();
  }

  /**
   * Packs what may be sent now into `into`, which is `outgoingBuffer` bytes long. Nothing to send is a
   * length of 0; when there is something again, `wake` is called.
   */
  transmit(into: Uint8Array, now: number): Transmission {
    const out = new Transmission(into);
    if (out.packAll(this.#controls) && this.#phase === "open") this.#pack(out);
    if (out.length > 0) this.#liveness.sent(now);
    return out;
  }

  /** Goes round the sources, a frame or a piece each, until nothing fits or nothing is there. */
  #pack(out: Transmission): void {
    const stuck = this.#packRound(out);
    // Who waits for receipts is next: others would take its place in the window again and again.
    if (stuck !== undefined) this.#turn = this.#active.indexOf(stuck);
    // A piece goes behind the buffer, so nothing more can go into it.
    if (this.#active.length > 0 || out.piece !== undefined) return;
    this.#phase = "ending";
    this.#say(Type.end, 0, { frames: this.#window.ended });
    if (!out.packAll(this.#controls)) this.#events.wake();
  }

  /** Returns the source whose frame waits for receipts and holds up the round, if there is one. */
  #packRound(out: Transmission): Outlet | undefined {
    const active = this.#active;
    let stuck: Outlet | undefined;
    let idle = 0;
    while (idle < active.length) {
      this.#turn %= active.length;
      const outlet = active[this.#turn]!;
      // Were others asked for frames meanwhile, each source would hold a file open. What is
      // unfinished goes on: receipts may wait for its end.
      const waits = stuck !== undefined && outlet.large === undefined;
      const step = waits ? "idle" : this.#step(outlet, out);
      if (step === "full") return stuck;
      if (step === "stuck") stuck = outlet;
      if (step === "packed") idle = 0;
      if (outlet.isExhausted) {
        active.splice(this.#turn, 1);
      } else {
        this.#turn++;
        if (step !== "packed") idle++;
      }
      if (out.piece !== undefined) return stuck;
    }
    return stuck;
  }

  #step(outlet: Outlet, out: Transmission): "packed" | "idle" | "full" | "stuck" {
    if (outlet.large === undefined) {
      outlet.ask(
        (item) => this.#take(outlet, item),
        (failure) => {
          this.#failed ??= failure;
          this.#events.wake();
        },
      );
    }
    // What has been said so far must go first: SOURCE before its frames, ABORT before a later end.
    if (!out.packAll(this.#controls)) return "full";
    if (outlet.large !== undefined) return this.#packPiece(outlet, outlet.large, out);
    const { frame } = outlet;
    if (frame === undefined) return "idle";
    const large = frame.size > largestPackedFrame;
    // A large frame that waits for receipts lets the small frames of others pass, but not for ever.
    if (!this.#window.fits(frame)) {
      outlet.waitsSince ??= this.#begunBytes;
      const passed = this.#begunBytes - outlet.waitsSince;
      return large && passed < this.#welcome!.window.bytes / 2 ? "idle" : "stuck";
    }
    const mostLarge = Math.min(largeAtOnce, this.#welcome!.limits.unfinished);
    if (large && this.#large >= mostLarge) return "idle";
    if (!out.hasRoomFor(frame, !large)) return "full";
    if (outlet.declared) this.#begin(outlet, frame, large, out);
    else this.#declare(outlet);
    return "packed";
  }

  /** Says SOURCE, once, before anything else of a source. */
  #declare(outlet: Outlet): void {
    if (outlet.declared) return;
    outlet.declared = true;
    this.#events.trace?.("->", `SOURCE ${outlet.id} ${outlet.source.name}`);
    this.#controls.push(outlet.declaration());
  }

  #take(outlet: Outlet, item: Frame | Loss): void {
    // ERROR was the last message, whatever a source gives after it.
    if (this.#phase === "failed") return;
    const loss = outlet.accept(item, this.#welcome!.limits.frame);
    if (loss === undefined) return;
    const { first, last, what, error } = loss;
    this.#declare(outlet);
    this.#say(Type.lost, outlet.id, { ranges: [[first, last]], ...error.reason });
    this.#events.undelivered?.({ source: outlet.source.name, first, last, what, error });
  }

  #begin(outlet: Outlet, frame: Frame, large: boolean, out: Transmission): void {
    outlet.frame = undefined;
    outlet.waitsSince = undefined;
    this.#begunBytes += frame.size;
    try {
      if (large) out.packBeginning(outlet.id, frame);
      else out.packFrame(outlet.id, frame);
    } catch (error) {
      return this.#again(outlet, frame, error);
    }
    this.#window.begin(frame);
    if (large) {
      this.#large++;
      outlet.large = new LargeFrame(frame, () => this.#events.wake());
    } else {
      outlet.progress.bytes += frame.size;
      this.#frameSent(outlet, frame);
    }
  }

  /** Reading failed: the source says whether to try once more. */
  #again(outlet: Outlet, frame: Frame, error: unknown): void {
    if (!(error instanceof FramesError)) throw error;
    this.#take(outlet, outlet.source.again(frame, error));
  }

  #frameSent(outlet: Outlet, frame: Frame): void {
    this.#window.end(outlet, frame, false);
    outlet.progress.sent++;
    this.#events.trace?.(
      "->",
      `FRAME ${outlet.source.name} ${frame.sequence} ${frame.name} ${frame.size} bytes`,
    );
  }

  #packPiece(outlet: Outlet, large: LargeFrame, out: Transmission): "packed" | "idle" | "full" {
    if (large.failure !== undefined) {
      this.#abort(outlet, large, large.failure);
      this.#again(outlet, large.frame, large.failure);
      return "packed";
    }
    if (!large.isReady) return "idle";
    if (!out.hasRoomForPiece) return "full";
    const { bytes, more } = out.packPiece(outlet.id, large);
    outlet.progress.bytes += bytes.length;
    outlet.progress.part = large.sent;
    outlet.progress.partOf = large.frame.size;
    if (!more) {
      this.#closeLarge(outlet, large);
      this.#frameSent(outlet, large.frame);
    }
    return "packed";
  }

  #closeLarge(outlet: Outlet, large: LargeFrame): void {
    large.close();
    outlet.large = undefined;
    this.#large--;
  }

  #abort(outlet: Outlet, large: LargeFrame, error: FramesError): void {
    this.#closeLarge(outlet, large);
    outlet.noPart();
    outlet.progress.bytes -= large.sent;
    this.#say(Type.abort, outlet.id, { sequence: large.frame.sequence, ...error.reason });
    this.#window.end(outlet, large.frame, true);
  }

  #say<T extends ControlType>(type: T, source: number, body: ControlBodies[T]): void {
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
        this.#say(Type.pong, 0, { time: message.body.time, clock: nanoseconds(this.#now) });
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
    const { sources } = welcome.limits;
    if (this.#outlets.length > sources) {
      throw new FramesError(
        "limit",
        `Cannot send ${this.#outlets.length} sources at once: the server takes ${sources}`,
      );
    }
    this.#phase = "open";
    this.#welcome = welcome;
    this.#window = new Window(welcome.window);
    this.#liveness.greeted();
    this.#events.welcome?.(welcome);
    this.#events.wake();
  }

  receipt(frames: number): void {
    this.#events.trace?.("<-", `RECEIPT ${frames}`);
    this.#expect(Type.receipt, "open", "ending");
    const { ended, settled } = this.#window;
    if (frames < settled || frames > ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept RECEIPT ${frames}: ${ended} frames were sent`,
      );
    }
    this.#settle(frames);
    this.#events.wake();
  }

  #settle(frames: number): void {
    for (const { owner, frame, aborted } of this.#window.settle(frames)) {
      if (aborted) continue;
      owner.progress.settled++;
      owner.progress.settledBytes += frame.size;
      if (frame.size > largestPackedFrame && owner.large === undefined) owner.noPart();
    }
  }

  #refused(id: number, body: ControlBodies[typeof Type.refused]): void {
    const outlet = this.#outlets[id - 1];
    if (outlet === undefined) throw unexpected(Type.refused);
    const error = new FramesError(errorByNumber(body.error), body.message);
    const { large, progress, source } = outlet;
    let frame: Frame;
    if (large?.frame.sequence === body.sequence) {
      frame = large.frame;
      this.#abort(outlet, large, error);
      progress.settled++;
    } else {
      const entry = this.#window.find(outlet, body.sequence);
      if (entry === undefined) throw unexpected(Type.refused);
      // Each try of a number may be refused; it is told once.
      if (entry.aborted || entry.isRefused) return;
      entry.isRefused = true;
      frame = entry.frame;
      progress.bytes -= frame.size;
    }
    progress.refused++;
    const { sequence, name: what } = frame;
    const report = { source: source.name, first: sequence, last: sequence, what, error };
    this.#events.undelivered?.(report);
    this.#events.wake();
  }

  #finish(done: Done): void {
    const settled = done.stored + done.present + done.refused + done.aborted;
    const { ended } = this.#window;
    if (done.frames !== ended || settled !== ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept DONE: it counts ${settled} of ${done.frames} frames, ${ended} were sent`,
      );
    }
    this.#settle(ended);
    this.#done = done;
    this.#phase = "done";
  }
}
