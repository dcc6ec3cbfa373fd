/**
 * What goes next on one connection (SPEC sections 5, 6 and 8): goes round the sources, a frame or a
 * piece each, within the window that the server granted.
 */
import { FramesError } from "../errors.ts";
import type { Frame, Loss } from "../frame.ts";
import { largestPackedFrame } from "../wire/encode.ts";
import { type ControlBodies, Type, unexpected, type Welcome } from "../wire/messages.ts";
import { Blame } from "./blame.ts";
import { recentWith } from "./freshness.ts";
import type { ScheduleHooks, SendPolicy } from "./hooks.ts";
import { LargeFrame } from "./large.ts";
import { Losses } from "./losses.ts";
import { Offers } from "./offers.ts";
import type { Candidate, Outlet, Taker } from "./outlet.ts";
import type { Transmission } from "./transmission.ts";
import { Window } from "./window.ts";

/**
 * Frames too large for one message that are read at the same time: each holds a few MiB, and the
 * small frames of other sources pass them anyway.
 */
const largeAtOnce = 2;

/** Bytes that may be packed before offers among them leave. */
const mostOfferedAtOnce = 32_768;

/** Losses that are taken from a source before it is the turn of the others. */
const mostLostInTurn = 1000;

export class Schedule implements Taker {
  readonly #welcome: Welcome;
  readonly #policy: SendPolicy;
  readonly #hooks: ScheduleHooks;
  readonly #outlets: readonly Outlet[];
  /** Those that may have more to send, and whose turn it is. */
  readonly #active: Outlet[];
  readonly #window: Window<Outlet>;
  readonly #recent: number;
  readonly #keepsFresh: boolean;
  /** Where the server may have frames already. */
  readonly #offers: Offers | undefined;
  readonly #losses = new Losses();
  /** Losses that came of the source whose turn it is, in this turn. */
  #lostInTurn = 0;
  readonly #blame = new Blame();
  #turn = 0;
  #large = 0;
  /** Bytes of all frames begun so far: the measure of how long a frame has waited. */
  #begunBytes = 0;
  #now = 0;
  /** Frames of this connection that were refused, and those that were aborted otherwise. */
  refusals = 0;
  aborts = 0;

  constructor(
    outlets: readonly Outlet[],
    welcome: Welcome,
    policy: SendPolicy,
    hooks: ScheduleHooks,
  ) {
    this.#outlets = outlets;
    this.#welcome = welcome;
    this.#policy = policy;
    this.#hooks = hooks;
    this.#window = new Window(welcome.window);
    this.#recent = recentWith(welcome.receipts);
    this.#keepsFresh = outlets.some(({ source }) => source.keepsFresh === true);
    const mayOffer = welcome.fresh !== true && welcome.features?.includes("offer") === true;
    if (mayOffer) this.#offers = this.#makeOffers();
    for (const outlet of outlets) this.#goOn(outlet);
    this.#active = outlets.filter((outlet) => !outlet.isExhausted);
  }

  /** A source came that was not there in the beginning. */
  add(outlet: Outlet): void {
    this.#goOn(outlet);
    if (!outlet.isExhausted) this.#active.push(outlet);
  }

  #makeOffers(): Offers {
    return new Offers(this.#policy.checksum, {
      offer: (outlet, stream, entries) => {
        const numbers = `numbers ${entries[0]![3]} to ${entries.at(-1)![3]}`;
        const line = `OFFER ${outlet.source.name} ${entries.length} frames, ${numbers}`;
        this.#declare(outlet, stream);
        this.#hooks.say(Type.offer, outlet.id, { frames: entries }, line);
      },
      answered: (outlet, candidate, standing) => this.#answered(outlet, candidate, standing),
      unreadable: (outlet, frame, error) => this.#again(outlet, frame, error),
      wake: () => this.#hooks.wake(),
    });
  }

  /** Takes up what the connection before this one left behind. */
  #goOn(outlet: Outlet): void {
    outlet.connect(this);
    const { losses, untold } = outlet;
    outlet.losses = [];
    outlet.untold = [];
    for (const range of losses) this.#losses.repeat(outlet, range);
    for (const loss of untold) this.take(outlet, loss);
    if (outlet.failure !== undefined) this.#hooks.failed(outlet.failure.error);
    const { candidates } = outlet;
    outlet.candidates = [];
    for (const candidate of candidates) {
      const { frame } = candidate;
      // This server may take less than the one before, or nobody has asked one yet.
      const loss = outlet.lossOf(frame, this.#welcome.limits.frame);
      if (loss !== undefined) this.#lose(outlet, loss);
      else if (this.#offers === undefined) outlet.wanted.push(frame);
      // An offer says nothing of metadata, and a frame must not be taken for stored without its own.
      else if (frame.metadata !== "") this.#offers.want(outlet, frame);
      else outlet.candidates.push(candidate);
    }
  }

  /** Whether nothing is under way that the server has to confirm. */
  get isIdle(): boolean {
    const { ended, settled } = this.#window;
    return ended === settled && this.#large === 0 && this.#offers?.isUnanswered !== true;
  }

  /** Frames that ended. */
  get ended(): number {
    return this.#window.ended;
  }

  /** Packs what there is; whether everything is packed that will ever come. */
  pack(out: Transmission, now: number): boolean {
    this.#now = now;
    const stuck = this.#packRound(out);
    this.#sayLosses();
    // Who waits for receipts is next: others would take its place in the window again and again.
    if (stuck !== undefined) this.#turn = this.#active.indexOf(stuck);
    // A piece goes behind the buffer, so nothing more can go into it.
    return this.#active.length === 0 && out.piece === undefined && !this.#hooks.isOpen();
  }

  /** Returns the source whose frame waits for receipts and holds up the round, if there is one. */
  #packRound(out: Transmission): Outlet | undefined {
    const active = this.#active;
    const isHeld = this.#hooks.isHeld();
    let stuck: Outlet | undefined;
    let idle = 0;
    while (idle < active.length) {
      this.#turn %= active.length;
      const outlet = active[this.#turn]!;
      // Were others asked for frames meanwhile, each source would hold a file open. What is
      // unfinished goes on: receipts may wait for its end.
      const waits = (isHeld || stuck !== undefined) && outlet.large === undefined;
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
    this.#lostInTurn = 0;
    const offered = this.#nextFrame(outlet);
    this.#sayLosses();
    // What has been said so far must go first: SOURCE before its frames, ABORT before a later end.
    if (!out.packAll(this.#hooks.controls)) return "full";
    // The server looks up what is offered while more is being found.
    if (offered && out.length > mostOfferedAtOnce) return "full";
    if (outlet.large !== undefined) return this.#packPiece(outlet, outlet.large, out);
    const { frame } = outlet;
    if (frame !== undefined && !this.#isFresh(outlet)) return "idle";
    if (frame === undefined) return offered || this.#lostInTurn > 0 ? "packed" : "idle";
    const large = frame.size > largestPackedFrame;
    // A large frame that waits for receipts lets the small frames of others pass, but not for ever.
    if (!this.#window.fits(frame)) {
      outlet.waitsSince ??= this.#begunBytes;
      const passed = this.#begunBytes - outlet.waitsSince;
      return large && passed < this.#welcome.window.bytes / 2 ? "idle" : "stuck";
    }
    const mostLarge = Math.min(largeAtOnce, this.#welcome.limits.unfinished);
    if (large && this.#large >= mostLarge) return "idle";
    if (!out.hasRoomFor(frame, !large)) return "full";
    const stream = outlet.streamOf(frame);
    if (outlet.declared === stream) this.#begin(outlet, frame, large, out);
    else this.#declare(outlet, stream);
    return "packed";
  }

  /** Sees to it that `outlet` has a frame at hand, if it can; whether something was offered. */
  #nextFrame(outlet: Outlet): boolean {
    const offers = this.#offers;
    let offered = false;
    const offersNew = this.#offersNew(outlet);
    if (offers !== undefined) {
      if (offersNew) outlet.ask(true);
      offered = offers.offer(outlet);
    }
    if (outlet.frame !== undefined || outlet.large !== undefined) return offered;
    outlet.frame = offers?.takeWanted(outlet) ?? outlet.wanted.shift();
    if (!offersNew) outlet.ask(false);
    return offered;
  }

  /** Whether what the source gives is offered before it is sent. */
  #offersNew(outlet: Outlet): boolean {
    return this.#offers !== undefined && outlet.source.resumes === true;
  }

  wants(outlet: Outlet): boolean {
    if (this.#lostInTurn >= mostLostInTurn) return false;
    if (this.#offersNew(outlet)) return this.#offers!.wantsMore(outlet);
    // What cannot be sent now would only grow old here.
    return outlet.frame === undefined && this.#isFresh(outlet);
  }

  /** Whether what begins now is fresh at the other end. All share one link: who fills it makes all old. */
  #isFresh(outlet: Outlet): boolean {
    return !this.#keepsFresh || outlet.freshness.mayBegin(this.#now, this.#recent);
  }

  /** Says SOURCE before anything else of a source in a stream. */
  #declare(outlet: Outlet, stream: string): void {
    if (outlet.declared !== stream) this.#hooks.declare(outlet, stream);
  }

  /** A source gave a frame or a loss. */
  take(outlet: Outlet, item: Frame | Loss): void {
    const loss = outlet.lossOf(item, this.#welcome.limits.frame);
    if (loss !== undefined) return this.#lose(outlet, loss);
    const frame = item as Frame;
    const isBusy = outlet.frame !== undefined;
    if (this.#offersNew(outlet) || (isBusy && this.#offers !== undefined)) {
      outlet.giveBack(frame, undefined, false);
    } else if (isBusy) outlet.wanted.push(frame);
    else outlet.frame = frame;
  }

  /** A source that was waited for gave something, or failed. */
  came(failure: { error: unknown } | undefined): void {
    if (failure !== undefined) this.#hooks.failed(failure.error);
    this.#hooks.wake();
  }

  /** A frame will never come: the server is told, and the user. */
  #lose(outlet: Outlet, loss: Loss): void {
    const { first, last, what, error } = loss;
    this.#lostInTurn++;
    outlet.count(loss);
    this.#losses.add(outlet, loss);
    this.#hooks.undelivered({ source: outlet.source.name, first, last, what, error });
  }

  #sayLosses(): void {
    const now = BigInt(Math.round(this.#now)) * 1_000_000n;
    for (const { outlet, range } of this.#losses.take(this.#window.ended)) {
      const { first, last, error, why } = range;
      // What has no time of its own belongs to what was sent last.
      this.#declare(outlet, outlet.declared ?? outlet.streamOf({ captured: now }));
      this.#hooks.say(Type.lost, outlet.id, { ranges: [[first, last]], error, message: why });
    }
  }

  #begin(outlet: Outlet, frame: Frame, large: boolean, out: Transmission): void {
    outlet.frame = undefined;
    outlet.waitsSince = undefined;
    this.#begunBytes += frame.size;
    let crc = 0;
    try {
      if (large) out.packBeginning(outlet.id, frame);
      else crc = out.packFrame(outlet.id, frame);
    } catch (error) {
      return this.#again(outlet, frame, error);
    }
    this.#window.begin(frame);
    if (this.#keepsFresh) outlet.freshness.begin();
    if (large) {
      this.#large++;
      outlet.large = new LargeFrame(frame, () => this.#hooks.wake());
    } else {
      outlet.progress.bytes += frame.size;
      this.#frameSent(outlet, frame, crc);
    }
  }

  /** Reading failed: the source says whether to try once more. */
  #again(outlet: Outlet, frame: Frame, error: unknown): void {
    if (!(error instanceof FramesError)) throw error;
    this.take(outlet, outlet.source.again(frame, error));
  }

  #frameSent(outlet: Outlet, frame: Frame, crc: number): void {
    this.#window.end(outlet, frame, crc, false);
    outlet.progress.sent++;
    this.#hooks.sent(outlet.source.name, frame);
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
      this.#frameSent(outlet, large.frame, large.crc);
    }
    return "packed";
  }

  #closeLarge(outlet: Outlet, large: LargeFrame): void {
    large.close();
    outlet.large = undefined;
    this.#large--;
  }

  #abort(outlet: Outlet, large: LargeFrame, error: FramesError, isRefused = false): void {
    if (isRefused) this.refusals++;
    else this.aborts++;
    this.#closeLarge(outlet, large);
    outlet.noPart();
    outlet.progress.bytes -= large.sent;
    this.#hooks.say(Type.abort, outlet.id, { sequence: large.frame.sequence, ...error.reason });
    this.#window.end(outlet, large.frame, large.crc, true, isRefused);
  }

  // What the server says.

  /** The first `frames` frames that ended are settled. */
  settle(frames: number, now: number): void {
    const { ended, settled } = this.#window;
    if (frames < settled || frames > ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept RECEIPT ${frames}: ${ended} frames were sent`,
      );
    }
    for (const { owner, frame, crc, aborted, isRefused } of this.#window.settle(frames)) {
      if (this.#keepsFresh) owner.freshness.settle(now);
      if (aborted) continue;
      owner.progress.settled++;
      owner.source.settled?.(frame);
      owner.progress.delays?.add(now - Number(frame.captured) / 1e6);
      if (!isRefused) owner.progress.settledBytes += frame.size;
      if (frame.size > largestPackedFrame && owner.large === undefined) owner.noPart();
      if (!isRefused) this.#hooks.delivered?.(owner.source, frame, crc);
    }
    this.#losses.settle(frames);
  }

  /** ANSWER. */
  answer(id: number, letters: string): void {
    if (this.#offers === undefined) throw unexpected(Type.answer);
    this.#offers.answer(id, letters);
  }

  #answered(outlet: Outlet, candidate: Candidate, standing: string): void {
    const { frame, crc } = candidate;
    outlet.progress.settled++;
    outlet.source.settled?.(frame);
    if (standing === "conflict") {
      const error = new FramesError("conflict", "other bytes are stored under this name");
      return this.#notTaken(outlet, frame, error);
    }
    outlet.found(candidate, standing);
    // Without a CRC-32 nobody has compared its bytes, and what was moved away nobody has.
    if (crc !== undefined && standing === "stored")
      this.#hooks.delivered?.(outlet.source, frame, crc);
  }

  /** REFUSED. */
  refused(id: number, body: ControlBodies[typeof Type.refused], error: FramesError): void {
    const outlet = this.#outlets[id - 1];
    if (outlet === undefined) throw unexpected(Type.refused);
    const { large, progress } = outlet;
    if (large?.frame.sequence === body.sequence) {
      this.#abort(outlet, large, error, true);
      progress.settled++;
      return this.#notTaken(outlet, large.frame, error);
    }
    const entry = this.#window.find(outlet, body.sequence);
    if (entry === undefined) throw unexpected(Type.refused);
    if (entry.isRefused) return;
    entry.isRefused = true;
    this.refusals++;
    // It was aborted before this was heard, and is told when its next try is refused.
    if (entry.aborted) return void this.aborts--;
    progress.bytes -= entry.frame.size;
    this.#notTaken(outlet, entry.frame, error);
  }

  #notTaken(outlet: Outlet, { sequence, name: what }: Frame, error: FramesError): void {
    if (error.code === "conflict" && this.#policy.skipConflicts) {
      outlet.progress.skipped++;
      return;
    }
    outlet.progress.refused++;
    const source = outlet.source.name;
    this.#hooks.undelivered({ source, first: sequence, last: sequence, what, error });
  }

  /** Bytes came damaged; `id` and `sequence` tell of which frame, if the server knows. */
  blame(id: number | undefined, sequence: number | undefined): void {
    if (id !== undefined && sequence !== undefined) {
      return this.#blame.put(this.#outlets[id - 1], sequence);
    }
    if (this.#offers?.isUnanswered === true) return;
    // What came before it has its receipt: it must have been the first without one.
    const [first] = this.#window.unsettled();
    if (first !== undefined) this.#blame.put(first.owner, first.frame.sequence);
  }

  /** The connection broke: what is not settled waits in its outlets for the next one. */
  abandon(): void {
    for (const { owner, frame, crc, aborted, isRefused } of this.#window.unsettled()) {
      if (aborted) continue;
      const { progress } = owner;
      if (isRefused) {
        progress.settled++;
        owner.source.settled?.(frame);
        continue;
      }
      progress.sent--;
      progress.retried++;
      progress.bytes -= frame.size;
      owner.giveBack(frame, crc, true);
    }
    this.#offers?.abandon();
    for (const outlet of this.#outlets) outlet.disconnect();
    const blamed = this.#blame.take();
    if (blamed !== undefined) {
      const { sequence, name: what } = blamed.frame;
      const error = new FramesError("garbled");
      this.#lose(blamed.outlet, { first: sequence, last: sequence, what, error });
    }
    this.#losses.abandon();
  }
}
