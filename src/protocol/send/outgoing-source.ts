/** Send queue and progress of one source. It outlives connections. */
import type { FramesError } from "../../errors.ts";
import { compileCheaply } from "../../common/compilation.ts";
import { defined } from "../../common/defined.ts";
import type { Frame, FrameSource, Loss, RawShape } from "../../frame.ts";
import { encodeControl } from "../../wire/encode.ts";
import { MessageType } from "../../wire/messages.ts";
import { DelayHistogram } from "../delay-histogram.ts";
import { tooLargeError } from "../frame-errors.ts";
import type { LargeFrame } from "../large-frame.ts";
import { LiveWindow } from "../live-window.ts";
import { noProgress, type SourceProgress } from "../progress.ts";
import { originalOf, Renumbering } from "./renumbering.ts";

/** A frame that the server may have stored already. It is offered before it is sent. */
export interface Candidate {
  readonly frame: Frame;
  /** CRC-32 of the frame; `undefined` until the frame was read. */
  crc: number | undefined;
  /** Whether the frame was sent on a connection that broke. */
  readonly wasSent: boolean;
}

/** Consecutive sequence numbers lost for one reason. */
export interface LostRange {
  readonly first: number;
  last: number;
  /** Error number and message, as in LOST. */
  readonly error: number;
  readonly text: string;
  /** Name of the lost frame, if it may be sent later. */
  readonly name?: string | undefined;
}

/** A frame damaged in transit this many times is given up. */
const maxDamagedAttempts = 3;

/** What SOURCE says about the frames that follow it. */
export type DeclaredFrame = Pick<Frame, "captured" | "revises" | "raw">;

export class OutgoingSource {
  readonly id: number;
  readonly input: FrameSource;
  readonly progress: SourceProgress;
  /**
   * Stream of the last SOURCE on this connection; `undefined` before the first. Empty means HELLO's
   * stream.
   */
  declaredStream: string | undefined;
  /** What the last SOURCE says about revising. */
  declaredRevises: boolean | undefined;
  /** What the last SOURCE says about the shape of raw frames. */
  #declaredRaw: RawShape | undefined;
  /**
   * Returns the stream of a frame by its capture time; `undefined` if all frames go to HELLO's
   * stream.
   */
  readonly #streamNameAt: ((captured: bigint) => string) | undefined;
  /** Next frame, taken from the source but not begun. */
  frame: Frame | undefined;
  large: LargeFrame | undefined;
  /** Frames to be offered. */
  candidates: Candidate[] = [];
  /** Frames that the server wants, after an OFFER. */
  wanted: Frame[] = [];
  /** Candidates in unanswered OFFERs or being read for their CRC-32. */
  pendingCandidates = 0;
  /** Losses sent to a server that no receipt has confirmed. */
  unconfirmedLosses: LostRange[] = [];
  /** Losses that no server was sent. */
  unreportedLosses: Loss[] = [];
  /** The error that the source threw. */
  failure: { error: unknown } | undefined;
  /**
   * Bytes begun on the connection when `frame` first did not fit the window; `undefined` while it
   * is not blocked.
   */
  blockedSince: number | undefined;
  /** Limits the frames in flight, if the source is sent with a live window. */
  readonly liveWindow = new LiveWindow();
  readonly #damageCounts = new Map<number, number>();
  /** Set once the source goes on under a new session. */
  #renumbering: Renumbering | undefined;
  /** Whether the source has been asked for an item that it provides later. */
  #isAwaiting = false;
  /** An item that the source provided later, and that `next` has not returned. */
  #arrived: Frame | Loss | undefined;
  #isEnded = false;
  #isStopped = false;
  /** Called when `next` has more to return; `undefined` while disconnected. */
  #onReady: (() => void) | undefined;

  /** @param streamNameAt returns the stream for a capture time in ns, if the stream depends on it */
  constructor(id: number, input: FrameSource, streamNameAt?: (captured: bigint) => string) {
    this.id = id;
    this.input = input;
    this.#streamNameAt = streamNameAt;
    this.progress = {
      ...noProgress,
      name: input.name,
      // A getter, because the total may fall when a counted file turns out not to be a frame.
      get total() {
        return input.total;
      },
      get capturedCount() {
        return input.capturedCount ?? Math.max(this.sent, this.settled) + this.lost;
      },
      get maybeDamaged() {
        return input.maybeDamagedCount ?? 0;
      },
      ...(input.isLive === true ? { delays: new DelayHistogram() } : {}),
    };
  }

  /** Whether the source has ended and all of its frames were sent or answered. */
  get isExhausted(): boolean {
    return (
      this.#isEnded &&
      this.#arrived === undefined &&
      this.frame === undefined &&
      this.large === undefined &&
      this.candidates.length === 0 &&
      this.wanted.length === 0 &&
      this.pendingCandidates === 0
    );
  }

  /**
   * Whether frames stay unsent if the delivery stops now. `false` for live sources, whose captured
   * frames are still sent.
   */
  get hasUnsent(): boolean {
    if (this.input.stopCapture !== undefined) return false;
    const pending = this.candidates.length + this.wanted.length + this.pendingCandidates;
    return !this.#isEnded || (this.isResumable && pending > 0);
  }

  /** Whether a later delivery can send what stays unsent. It may change while frames are taken. */
  get isResumable(): boolean {
    return this.input.isResumable === true;
  }

  /** Whether the source may provide more frames. */
  get hasMore(): boolean {
    return !this.#isEnded;
  }

  /**
   * Stops pulling from the source. Frames that a live source has already captured are still sent. A
   * resumable source drops its queue, because the next delivery sends it.
   */
  stop(): void {
    if (this.input.stopCapture !== undefined) return this.input.stopCapture();
    this.#isEnded = true;
    if (!this.isResumable) return;
    this.#isStopped = true;
    this.#arrived = undefined;
    this.candidates = [];
    this.wanted = [];
  }

  /** Whether a resumable source was stopped: no further frame is begun. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /**
   * Attaches the source to a new connection.
   *
   * @param onReady called when a pending item has come, or the source has failed
   */
  connect(onReady: () => void): void {
    this.#onReady = onReady;
    this.input.onConnected?.();
  }

  /**
   * Returns the next frame or loss. Returns `pending` if it comes later, and `end` once the source
   * has ended or failed.
   *
   * @param limit largest frame that the server accepts, in bytes; a larger one is a loss
   * @param offered whether the frame is offered before it is sent
   */
  next(limit: number, offered: boolean): Frame | Loss | "pending" | "end" {
    let item = this.#arrived;
    if (item !== undefined) {
      this.#arrived = undefined;
    } else {
      if (this.#isAwaiting) return "pending";
      if (this.#isEnded) return "end";
      const next = this.input.next(offered);
      if (next instanceof Promise) {
        this.#await(next);
        return "pending";
      }
      if (next === undefined) {
        this.#isEnded = true;
        return "end";
      }
      item = next;
    }
    if (this.#renumbering !== undefined) item = this.#renumbering.renumber(item);
    return this.limit(item, limit);
  }

  /** Returns a loss in place of a frame over `limit` bytes. */
  limit(item: Frame | Loss, limit: number): Frame | Loss {
    const result = limited(item, limit);
    if (!("error" in item) && "error" in result) this.forgetLost(item, result.error);
    return result;
  }

  /** Tells a source that takes frames back that one is lost. Otherwise it would send it again. */
  forgetLost(frame: Frame, error: FramesError): void {
    this.#renumbering?.forget(frame);
    if (this.input.onDisconnected !== undefined) this.input.retry(originalOf(frame), error);
  }

  #await(next: Promise<Frame | Loss | undefined>): void {
    this.#isAwaiting = true;
    next.then(
      (item) => {
        this.#isAwaiting = false;
        if (item === undefined) this.#isEnded = true;
        else if (!this.#isEnded) this.#arrived = item;
        if (this.#onReady !== undefined) return this.#onReady();
        this.#keepArrived();
        this.#returnToInput();
      },
      (error: unknown) => {
        this.#isAwaiting = false;
        this.#isEnded = true;
        this.failure = { error };
        this.#onReady?.();
      },
    );
  }

  /** Keeps an item for the next connection. */
  #keepArrived(): void {
    const item = this.#arrived === undefined ? "end" : this.next(Infinity, false);
    if (typeof item === "string") return;
    if ("error" in item) this.unreportedLosses.push(item);
    else this.requeue(item, undefined, false);
  }

  /** Counts a frame that the server has stored or refused, and tells the source. */
  settle(frame: Frame): void {
    this.progress.settled++;
    this.#renumbering?.forget(frame);
    this.input.onSettled?.(originalOf(frame));
  }

  /**
   * Asks the source for a frame again, or for its loss, after reading it failed.
   *
   * @param limit as in `next`
   */
  retry(frame: Frame, error: FramesError, limit: number): Frame | Loss {
    const { sequence } = frame;
    const item = this.input.retry(originalOf(frame), error);
    if (this.#renumbering === undefined) return limited(item, limit);
    if (!("error" in item)) return limited(this.#renumbering.renumberFrame(item), limit);
    this.#renumbering.forget(frame);
    return { ...item, first: sequence, last: sequence };
  }

  /**
   * Gives new numbers to all that is not settled, because a new session begins. Call it while there
   * is no connection.
   */
  beginSession(): void {
    const renumbering = (this.#renumbering = new Renumbering());
    this.#damageCounts.clear();
    this.candidates = this.candidates.map(({ frame, ...candidate }) => {
      return { ...candidate, frame: renumbering.renumberFrame(frame) };
    });
    this.unconfirmedLosses = this.unconfirmedLosses.map((loss) => {
      return { ...loss, ...renumbering.nextRange(loss) };
    });
    this.unreportedLosses = this.unreportedLosses.map((loss) => {
      return { ...loss, ...renumbering.nextRange(loss) };
    });
  }

  /** Adds a loss to the progress. */
  countLoss({ first, last, error }: Loss): void {
    this.progress.lost += last - first + 1;
    if (error.code === "dropped") this.progress.dropped += last - first + 1;
  }

  /**
   * Returns the losses that no server was sent, and counts them. Call it once at the end of the
   * delivery.
   */
  drainUnreported(): readonly Loss[] {
    const losses = [...this.unreportedLosses, ...(this.input.unreportedLosses ?? [])];
    for (const loss of losses) this.countLoss(loss);
    return losses;
  }

  /** Counts damage to a frame in transit. Returns whether the frame must be given up. */
  countDamage(sequence: number): boolean {
    const attempts = (this.#damageCounts.get(sequence) ?? 0) + 1;
    this.#damageCounts.set(sequence, attempts);
    return attempts >= maxDamagedAttempts;
  }

  /**
   * Puts a frame back that was not settled when its connection broke. It is offered on the next
   * connection.
   */
  requeue(frame: Frame, crc: number | undefined, wasSent: boolean): void {
    this.candidates.push({ frame, crc, wasSent });
  }

  /** Updates the progress for a frame that the server has, or had before it was moved away. */
  countFound({ frame: { size }, wasSent }: Candidate, status: string): void {
    const { progress } = this;
    if (wasSent) {
      progress.sent++;
      progress.bytes += size;
      progress.settledBytes += size;
    } else if (status === "stored") progress.present++;
    else progress.removedAtServer++;
  }

  /** Puts every unsettled frame back, in order of sequence number, when the connection broke. */
  disconnect(): void {
    this.#onReady = undefined;
    this.#keepArrived();
    this.liveWindow.reset();
    this.declaredStream = undefined;
    this.blockedSince = undefined;
    this.pendingCandidates = 0;
    if (this.large !== undefined) {
      this.progress.bytes -= this.large.sent;
      this.large.close();
      this.requeue(this.large.frame, undefined, true);
      this.large = undefined;
    }
    this.clearLargeFrame();
    if (this.frame !== undefined) this.requeue(this.frame, undefined, false);
    this.frame = undefined;
    for (const frame of this.wanted) this.requeue(frame, undefined, false);
    this.wanted = [];
    this.#returnToInput();
  }

  /** Sorts the candidates, and lets the source take back those that it can keep. */
  #returnToInput(): void {
    this.candidates.sort((a, b) => a.frame.sequence - b.frame.sequence);
    if (this.input.onDisconnected === undefined) return;
    const unsettled = this.candidates.map(({ frame }) => originalOf(frame));
    const remaining = new Set(this.input.onDisconnected(unsettled));
    this.candidates = this.candidates.filter(({ frame }) => remaining.has(originalOf(frame)));
  }

  /** Resets the progress of the large frame. */
  clearLargeFrame(): void {
    this.progress.largeFrameSent = 0;
    this.progress.largeFrameSize = 0;
  }

  /** Returns the stream of a frame. Empty means HELLO's stream. */
  streamNameOf({ captured }: DeclaredFrame): string {
    return this.#streamNameAt?.(captured) ?? "";
  }

  /** Returns whether the last SOURCE suits the frame. */
  isDeclaredFor(frame: DeclaredFrame): boolean {
    return (
      this.declaredStream === this.streamNameOf(frame) &&
      (frame.revises === undefined || this.declaredRevises === frame.revises) &&
      isSameShape(this.#declaredRaw, frame.raw ?? this.input.raw)
    );
  }

  /**
   * Returns the SOURCE message for a frame. It must precede all other messages of this source in the
   * stream.
   */
  encodeDeclaration(frame: DeclaredFrame): Uint8Array {
    const { name, type } = this.input;
    const { revises, raw = this.input.raw } = frame;
    const stream = this.streamNameOf(frame);
    this.declaredStream = stream;
    this.declaredRevises = revises;
    this.#declaredRaw = raw;
    return encodeControl(MessageType.source, this.id, {
      name,
      ...defined({ stream: stream === "" ? undefined : stream, type, raw, revises }),
    });
  }
}

function isSameShape(a: RawShape | undefined, b: RawShape | undefined): boolean {
  if (a === b) return true;
  return a?.width === b?.width && a?.height === b?.height && a?.format === b?.format;
}

/** Returns a loss in place of a frame over `limit` bytes. */
export function limited(item: Frame | Loss, limit: number): Frame | Loss {
  if ("error" in item || item.size <= limit) return item;
  const { name, sequence, size } = item;
  const error = tooLargeError(size, limit);
  return { first: sequence, last: sequence, what: name, name, error };
}

compileCheaply(OutgoingSource.prototype.next, limited);
