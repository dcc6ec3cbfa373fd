/**
 * Decides what is sent next on one connection (SPEC sections 5, 6 and 8). Visits the sources in
 * turn and sends one frame or piece of each, within the window that the server granted.
 */
import { compileCheaply } from "../../common/compilation.ts";
import { FramesError } from "../../errors.ts";
import type { Frame, Loss } from "../../frame.ts";
import { maxPackedFrameBytes } from "../../wire/encode.ts";
import {
  type ControlBodies,
  MessageType,
  unexpectedMessage,
  videoFeature,
  type Welcome,
} from "../../wire/messages.ts";
import { recentPeriodMs } from "../live-window.ts";
import { LargeFrame } from "../large-frame.ts";
import { LossReports, SuspectFrame } from "./loss-reports.ts";
import { type FoundStatus, Offers, toOfferEntry } from "./offers.ts";
import type { Candidate, OutgoingSource } from "./outgoing-source.ts";
import { originalOf } from "./renumbering.ts";
import type { SenderOptions } from "./sender-options.ts";
import type { SenderOutput } from "./sender-output.ts";
import type { WriteBatch } from "./write-batch.ts";
import { SendWindow } from "./send-window.ts";

/**
 * Large frames read at the same time. Each buffers a few MiB, and small frames of other sources
 * pass them.
 */
const maxConcurrentLarge = 2;

/**
 * Packed bytes after which a batch with an OFFER is sent, so that the server can begin to answer.
 */
const maxPackedBytesWithOffers = 32_768;

/** Losses in a batch after which no source is asked for more, so that the batch is sent. */
const maxLossesPerBatch = 1000;

export class Scheduler {
  readonly #welcome: Welcome;
  /** Whether a name conflict counts as skipped instead of failed. */
  readonly #skipsConflicts: boolean;
  readonly #output: SenderOutput;
  readonly #onWritable: () => void;
  readonly #sources: readonly OutgoingSource[];
  /** Sources that may have more to send. */
  readonly #active: OutgoingSource[];
  readonly #window: SendWindow<OutgoingSource>;
  readonly #recentMs: number;
  /** Whether the server knows the flag KEY. */
  readonly #knowsKeys: boolean;
  #usesLiveWindow = false;
  /**
   * Asks the server which frames it has; `undefined` if the server does not take OFFERs or has an
   * empty stream.
   */
  readonly #offers: Offers | undefined;
  readonly #lossReports = new LossReports();
  /** Losses reported since the batch began. */
  #lossesInBatch = 0;
  readonly #suspect = new SuspectFrame();
  #turn = 0;
  #largeCount = 0;
  /** Payload bytes of all frames begun so far. Measures how long a blocked frame has waited. */
  #begunBytes = 0;
  #now = 0;
  /** Frames of this connection that were refused, and frames aborted for another reason. */
  refusals = 0;
  aborts = 0;
  /** The error that a source threw. */
  failure: { error: unknown } | undefined;

  constructor(options: SenderOptions, welcome: Welcome, output: SenderOutput) {
    const { sources, hello, checksum, onWritable } = options;
    this.#sources = sources;
    this.#welcome = welcome;
    this.#skipsConflicts = hello.conflict === "skip";
    this.#output = output;
    this.#onWritable = onWritable;
    this.#window = new SendWindow(welcome.window);
    compileCheaply(this.#packNext, this.#begin, this.ack, this.#nextFrame, this.#sendLosses);
    compileCheaply(this.#onFrameSent, this.#ask, this.#packRound);
    this.#recentMs = recentPeriodMs(welcome.receipts);
    this.#knowsKeys = welcome.features?.includes(videoFeature) === true;
    for (const { input: source } of sources)
      this.#usesLiveWindow ||= source.usesLiveWindow === true;
    const canOffer = welcome.fresh !== true && welcome.features?.includes("offer") === true;
    if (canOffer) {
      this.#offers = new Offers(checksum, (source, frame, failure) => {
        if (failure !== undefined) this.#retry(source, frame, failure);
        onWritable();
      });
    }
    for (const source of sources) this.#resume(source);
    this.#active = sources.filter((source) => !source.isExhausted);
  }

  /** Adds a source after the connection was opened. */
  add(source: OutgoingSource): void {
    if (source.input.usesLiveWindow === true) this.#useLiveWindow();
    this.#resume(source);
    if (!source.isExhausted) this.#active.push(source);
  }

  /** Begins to limit the frames in flight. Those that are in flight already count. */
  #useLiveWindow(): void {
    if (this.#usesLiveWindow) return;
    this.#usesLiveWindow = true;
    for (const { owner } of this.#window.unsettled()) owner.liveWindow.begin();
    for (const { large, liveWindow } of this.#sources) if (large !== undefined) liveWindow.begin();
  }

  /** Takes over what an earlier connection left in the source. */
  #resume(source: OutgoingSource): void {
    source.connect(() => this.#onReady(source));
    const { unconfirmedLosses, unreportedLosses } = source;
    source.unconfirmedLosses = [];
    source.unreportedLosses = [];
    for (const range of unconfirmedLosses) this.#lossReports.requeue(source, range);
    for (const loss of unreportedLosses) this.#reportLoss(source, loss);
    this.failure ??= source.failure;
    const { candidates } = source;
    source.candidates = [];
    for (const candidate of candidates) {
      const { frame } = candidate;
      // This server's limit may be lower than that of the server before, or no limit was known yet.
      const item = source.limit(frame, this.#welcome.limits.frame);
      if ("error" in item) this.#reportLoss(source, item);
      else if (this.#offers === undefined) source.wanted.push(frame);
      // OFFER does not carry metadata, so a stored frame with other metadata would count as equal.
      // A picture of encoded video that is sent after its ANSWER would come behind newer ones.
      else if (frame.metadata !== "" || frame.isKey !== undefined)
        this.#offers.addWanted(source, frame);
      else source.candidates.push(candidate);
    }
  }

  /** Whether no frame is in flight and no OFFER is unanswered. */
  get isIdle(): boolean {
    const { ended, settled } = this.#window;
    return ended === settled && this.#largeCount === 0 && this.#offers?.hasUnanswered !== true;
  }

  /** Frames that have ended. */
  get ended(): number {
    return this.#window.ended;
  }

  /**
   * Packs what can be sent now. Returns whether all sources are exhausted and END can follow.
   *
   * @param isPaused whether no further frame may begin for now
   */
  pack(out: WriteBatch, now: number, isPaused: boolean): boolean {
    this.#now = now;
    this.#lossesInBatch = 0;
    const blocked = this.#packRound(out, isPaused);
    this.#sendLosses();
    // The blocked source is next. Otherwise the others would take the freed window again and again.
    if (blocked !== undefined) this.#turn = this.#active.indexOf(blocked);
    // A piece follows the buffer, so nothing more can be packed after it.
    if (out.piece !== undefined) return false;
    return out.packAll(this.#output.messages) && this.#active.length === 0;
  }

  /** Returns the source that blocks the round, because its frame does not fit the window. */
  #packRound(out: WriteBatch, isPaused: boolean): OutgoingSource | undefined {
    const active = this.#active;
    let blocked: OutgoingSource | undefined;
    let idle = 0;
    while (idle < active.length) {
      this.#turn %= active.length;
      const source = active[this.#turn]!;
      // While a source is blocked, the others are not asked for frames, because each would keep a
      // file open. Unfinished frames continue, because receipts may wait for their end.
      const mustWait = (isPaused || blocked !== undefined) && source.large === undefined;
      const step = mustWait ? "idle" : this.#packNext(source, out);
      if (step === "full") return blocked;
      if (step === "stuck") blocked = source;
      if (step === "packed") idle = 0;
      if (source.isExhausted) {
        active.splice(this.#turn, 1);
      } else {
        this.#turn++;
        if (step !== "packed") idle++;
      }
      if (out.piece !== undefined) return blocked;
    }
    return blocked;
  }

  #packNext(source: OutgoingSource, out: WriteBatch): "packed" | "idle" | "full" | "stuck" {
    const losses = this.#lossesInBatch;
    const offered = this.#nextFrame(source);
    // The receipt of a later frame confirms a LOST, so it goes before the next one.
    if (this.#lossesInBatch > losses) this.#sendLosses();
    // Queued control messages go first: SOURCE must precede its frames, and ABORT must precede
    // later ends.
    if (!out.packAll(this.#output.messages)) return "full";
    // The OFFER is sent now, so that the server compares frames while the sender looks for more.
    if (offered && out.length > maxPackedBytesWithOffers) return "full";
    if (source.large !== undefined) return this.#packPiece(source, source.large, out);
    const { frame } = source;
    if (frame !== undefined && !this.#canBegin(source)) return "idle";
    if (frame === undefined) return offered || this.#lossesInBatch > losses ? "packed" : "idle";
    const large = frame.size > maxPackedFrameBytes || frame.needsPieces === true;
    // Small frames of other sources may pass a large frame that waits for receipts, up to half of
    // the window.
    if (!this.#window.fits(frame)) {
      source.blockedSince ??= this.#begunBytes;
      const passedBytes = this.#begunBytes - source.blockedSince;
      return large && passedBytes < this.#welcome.window.bytes / 2 ? "idle" : "stuck";
    }
    const maxLarge = Math.min(maxConcurrentLarge, this.#welcome.limits.unfinished);
    if (large && this.#largeCount >= maxLarge) return "idle";
    if (!out.hasRoomFor(frame, !large)) return "full";
    if (source.isDeclaredFor(frame)) this.#begin(source, frame, large, out);
    else this.#output.declareSource(source, frame);
    return "packed";
  }

  /**
   * Makes sure that the source has its next frame, if it can provide one. Returns whether an OFFER
   * was sent.
   */
  #nextFrame(source: OutgoingSource): boolean {
    const offers = this.#offers;
    let offered = false;
    if (offers !== undefined) {
      this.#findCandidates(source, offers);
      const candidates = offers.offer(source);
      offered = candidates.length > 0;
      if (offered) this.#sendOffer(source, candidates);
    }
    if (source.frame !== undefined || source.large !== undefined) return offered;
    if (offers?.mustWait(source) === true) return offered;
    if (source.wanted.length > 0) {
      source.frame = source.wanted.shift();
      offers?.onWantedTaken();
    } else if (!this.#offersFirst(source) && this.#canBegin(source)) {
      // A frame taken too early would grow old while it waits here.
      source.frame = this.#ask(source, false);
    }
    return offered;
  }

  /** Whether frames of this source are offered before they are sent. */
  #offersFirst(source: OutgoingSource): boolean {
    return this.#offers !== undefined && source.isResumable;
  }

  #findCandidates(source: OutgoingSource, offers: Offers): void {
    // A watched folder has files that may be at the server only at first.
    while (source.isResumable && offers.wantsCandidates(source)) {
      const frame = this.#ask(source, true);
      if (frame === undefined) return;
      source.requeue(frame, undefined, false);
    }
  }

  /** @param candidates frames that one SOURCE suits */
  #sendOffer(source: OutgoingSource, candidates: readonly Candidate[]): void {
    const frames = candidates.map(toOfferEntry);
    const numbers = `numbers ${frames[0]![3]} to ${frames.at(-1)![3]}`;
    const line = `OFFER ${source.input.name} ${frames.length} frames, ${numbers}`;
    const [{ frame }] = candidates as [Candidate];
    if (!source.isDeclaredFor(frame)) this.#output.declareSource(source, frame);
    this.#output.send(MessageType.offer, source.id, { frames }, line);
  }

  /** Asks a source for a frame, and reports the losses before it. */
  #ask(source: OutgoingSource, offered: boolean): Frame | undefined {
    while (this.#lossesInBatch < maxLossesPerBatch) {
      const item = source.next(this.#welcome.limits.frame, offered);
      if (typeof item === "string") return undefined;
      if (!("error" in item)) return item;
      this.#reportLoss(source, item);
    }
    return undefined;
  }

  /**
   * Returns whether a frame sent now arrives while it is still fresh. All sources share one link,
   * so a single source without this limit would delay all of them.
   */
  #canBegin(source: OutgoingSource): boolean {
    return !this.#usesLiveWindow || source.liveWindow.canBegin(this.#now, this.#recentMs);
  }

  /** Called when a source has more to provide, or has failed. */
  #onReady({ failure }: OutgoingSource): void {
    this.failure ??= failure;
    this.#onWritable();
  }

  /** Reports a loss to the server and to the user. */
  #reportLoss(source: OutgoingSource, loss: Loss): void {
    this.#lossesInBatch++;
    source.countLoss(loss);
    this.#lossReports.add(source, loss);
    this.#emitUndelivered(source, loss);
  }

  #emitUndelivered(source: OutgoingSource, { first, last, what, error }: Loss): void {
    const report = { source: source.input.name, first, last, what, error };
    this.#output.emit({ type: "undelivered", report });
  }

  #sendLosses(): void {
    for (const { source, range } of this.#lossReports.drain(this.#window.ended)) {
      const { first, last, error, text, name } = range;
      // A loss has no capture time, so it is reported in the stream that was declared last.
      if (source.declaredStream === undefined) {
        const captured = BigInt(Math.round(this.#now)) * 1_000_000n;
        this.#output.declareSource(source, { captured });
      }
      this.#output.send(MessageType.lost, source.id, {
        ranges: [[first, last]],
        error,
        message: text,
        ...(name !== undefined && { name }),
      });
    }
  }

  #begin(source: OutgoingSource, frame: Frame, large: boolean, out: WriteBatch): void {
    source.frame = undefined;
    source.blockedSince = undefined;
    this.#begunBytes += frame.size;
    let crc = 0;
    try {
      if (large) out.packFrameStart(source.id, frame, this.#knowsKeys);
      else crc = out.packFrame(source.id, frame, this.#knowsKeys);
    } catch (error) {
      return this.#retry(source, frame, error);
    }
    this.#window.begin(frame);
    if (this.#usesLiveWindow) source.liveWindow.begin();
    if (large) {
      this.#largeCount++;
      source.large = new LargeFrame(frame, this.#onWritable);
    } else {
      source.progress.bytes += frame.size;
      this.#onFrameSent(source, frame, crc);
    }
  }

  /** Asks the source whether to try again after reading a frame failed. */
  #retry(source: OutgoingSource, frame: Frame, error: unknown): void {
    if (!(error instanceof FramesError)) throw error;
    const item = source.retry(frame, error, this.#welcome.limits.frame);
    if ("error" in item) this.#reportLoss(source, item);
    else if (this.#offersFirst(source) || source.frame !== undefined) {
      source.requeue(item, undefined, false);
    } else source.frame = item;
  }

  #onFrameSent(source: OutgoingSource, frame: Frame, crc: number): void {
    this.#window.end(source, frame, crc, false);
    source.progress.sent++;
    if (this.#output.reports.messages !== true) return;
    const { sequence, name, size } = frame;
    this.#output.trace("->", `FRAME ${source.input.name} ${sequence} ${name} ${size} bytes`);
  }

  #packPiece(
    source: OutgoingSource,
    large: LargeFrame,
    out: WriteBatch,
  ): "packed" | "idle" | "full" {
    if (large.isReady && !out.hasRoomForPiece) return "full";
    const piece = large.isReady ? out.packPiece(source.id, large) : undefined;
    if (piece !== undefined) {
      source.progress.bytes += piece.bytes.length;
      source.progress.largeFrameSent = large.sent;
      source.progress.largeFrameSize = large.frame.size;
      if (piece.more) return "packed";
      this.#closeLarge(source, large);
      this.#onFrameSent(source, large.frame, large.crc);
      return "packed";
    }
    if (large.failure === undefined) return "idle";
    this.#abort(source, large, large.failure);
    this.#retry(source, large.frame, large.failure);
    return "packed";
  }

  #closeLarge(source: OutgoingSource, large: LargeFrame): void {
    large.close();
    source.large = undefined;
    this.#largeCount--;
  }

  #abort(source: OutgoingSource, large: LargeFrame, error: FramesError, isRefused = false): void {
    if (isRefused) this.refusals++;
    else this.aborts++;
    this.#closeLarge(source, large);
    source.clearLargeFrame();
    source.progress.bytes -= large.sent;
    this.#output.send(MessageType.abort, source.id, {
      sequence: large.frame.sequence,
      ...error.wireFields,
    });
    this.#window.end(source, large.frame, large.crc, true, isRefused);
  }

  // Messages of the server.

  /**
   * Settles the first `frames` frames that ended.
   *
   * @throws {FramesError} `protocol` if `frames` is below the last receipt or above the frames that
   * ended
   */
  ack(frames: number, now: number): void {
    const { ended, settled } = this.#window;
    if (frames < settled || frames > ended) {
      throw new FramesError(
        "protocol",
        `Cannot accept RECEIPT ${frames}: ${ended} frames were sent`,
      );
    }
    for (let entry; (entry = this.#window.settleNext(frames)) !== undefined;) {
      const { owner, frame, crc, isAborted, isRefused } = entry;
      if (this.#usesLiveWindow) owner.liveWindow.ack(now);
      if (isAborted) continue;
      this.#settle(owner, frame);
      owner.progress.delays?.add(now - Number(frame.captured) / 1e6);
      if (!isRefused) owner.progress.settledBytes += frame.size;
      if (owner.large === undefined) owner.clearLargeFrame();
      if (!isRefused) this.#emitCompared("stored", owner, frame, crc);
    }
    this.#lossReports.ack(frames);
  }

  #settle(source: OutgoingSource, frame: Frame): void {
    source.settle(frame);
    if (this.#output.reports.settled !== true) return;
    const { sequence, name } = frame;
    this.#output.emit({ type: "settled", source: source.input.name, sequence, name });
  }

  /** Reports how the bytes of a frame compare with those of the server, on demand. */
  #emitCompared(
    type: "stored" | "conflict",
    source: OutgoingSource,
    frame: Frame,
    crc: number,
  ): void {
    if (this.#output.reports.stored !== true) return;
    this.#output.emit({ type, source: source.input, frame: originalOf(frame), crc });
  }

  /** Handles ANSWER. */
  onAnswer(id: number, letters: string): void {
    if (this.#offers === undefined) throw unexpectedMessage(MessageType.answer);
    for (const { source, candidate, status } of this.#offers.onAnswer(id, letters)) {
      this.#onFound(source, candidate, status);
    }
  }

  /** Settles an offered frame that the server does not want. */
  #onFound(source: OutgoingSource, candidate: Candidate, status: FoundStatus): void {
    const { frame, crc } = candidate;
    if (status === "conflict") {
      const error = new FramesError("conflict", "other bytes are stored under this name");
      this.#onRejected(source, frame, error, crc);
      return this.#settle(source, frame);
    }
    this.#settle(source, frame);
    source.countFound(candidate, status);
    // Without a CRC-32 the bytes were not compared, so the frame must not count as delivered.
    if (crc !== undefined && status === "stored") this.#emitCompared("stored", source, frame, crc);
  }

  /** Handles REFUSED. */
  onRefused(id: number, body: ControlBodies[typeof MessageType.refused], error: FramesError): void {
    const source = this.#sources[id - 1];
    if (source === undefined) throw unexpectedMessage(MessageType.refused);
    const { large, progress } = source;
    if (large?.frame.sequence === body.sequence) {
      this.#abort(source, large, error, true);
      this.#onRejected(source, large.frame, error);
      return this.#settle(source, large.frame);
    }
    const entry = this.#window.find(source, body.sequence);
    if (entry === undefined) throw unexpectedMessage(MessageType.refused);
    if (entry.isRefused) return;
    entry.isRefused = true;
    this.refusals++;
    // The frame was aborted before its REFUSED arrived. It is reported when its next attempt is
    // refused.
    if (entry.isAborted) return void this.aborts--;
    progress.bytes -= entry.frame.size;
    this.#onRejected(source, entry.frame, error, entry.crc);
  }

  #onRejected(source: OutgoingSource, frame: Frame, error: FramesError, crc?: number): void {
    if (error.code === "moved-away") {
      source.progress.removedAtServer++;
      return;
    }
    const { sequence, name: what } = frame;
    if (error.code === "conflict" && this.#skipsConflicts) {
      source.progress.conflictsSkipped++;
      return;
    }
    source.progress.refused++;
    if (error.code === "conflict" && crc !== undefined) {
      this.#emitCompared("conflict", source, frame, crc);
    }
    this.#emitUndelivered(source, { first: sequence, last: sequence, what, error });
  }

  /**
   * Notes which frame was damaged in transit, when the server reports `damaged`.
   *
   * @param id id of the frame's source, if the server knows it
   */
  onDamaged(id: number | undefined, sequence: number | undefined): void {
    if (id !== undefined && sequence !== undefined) {
      return this.#suspect.set(this.#sources[id - 1], sequence);
    }
    if (this.#offers?.hasUnanswered === true) return;
    // The server stops at the damaged frame, so it is the first frame without a receipt.
    const [first] = this.#window.unsettled();
    if (first !== undefined) this.#suspect.set(first.owner, first.frame.sequence);
  }

  /** Returns unsettled frames and unconfirmed losses to their sources when the connection broke. */
  returnToSources(): void {
    for (const { owner, frame, crc, isAborted, isRefused } of this.#window.unsettled()) {
      if (isAborted) continue;
      const { progress } = owner;
      if (isRefused) {
        this.#settle(owner, frame);
        continue;
      }
      progress.sent--;
      progress.retried++;
      progress.bytes -= frame.size;
      owner.requeue(frame, crc, true);
    }
    this.#offers?.returnToSources();
    for (const source of this.#sources) source.disconnect();
    const suspect = this.#suspect.removeIfRepeated();
    if (suspect !== undefined) {
      const { sequence, name: what } = suspect.frame;
      const error = new FramesError("garbled");
      suspect.source.forgetLost(suspect.frame, error);
      this.#reportLoss(suspect.source, { first: sequence, last: sequence, what, error });
    }
    this.#lossReports.returnToSources();
  }
}
