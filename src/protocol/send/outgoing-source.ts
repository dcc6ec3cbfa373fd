/** One source of a sender: what it has at hand, and how far it is. It outlives connections. */
import type { Frame, FrameDescription, FrameSource, Loss } from "../../frame.ts";
import { encodeControl } from "../../wire/encode.ts";
import { MessageType } from "../../wire/messages.ts";
import { DelayHistogram } from "../delay-histogram.ts";
import { tooLargeError } from "../frame-errors.ts";
import type { LargeFrame } from "../large-frame.ts";
import { LiveWindow } from "../live-window.ts";
import type { SourceProgress } from "../progress.ts";

/** A frame that may be stored already: it is offered before it is sent. */
export interface Candidate {
  readonly frame: Frame;
  /** CRC-32, once all of it was read. */
  crc: number | undefined;
  /** Whether it was sent on a connection that broke. */
  readonly wasSent: boolean;
}

/** Numbers that will never come, for one reason. */
export interface LostRange {
  readonly first: number;
  last: number;
  /** Number of the error, and the words for it. */
  readonly error: number;
  readonly message: string;
}

/** What takes the frames of a source on one connection. */
export interface FrameConsumer {
  /** Whether another frame is wanted. */
  wantsFrame(source: OutgoingSource): boolean;
  /** Has the frame or loss that the source gave. */
  accept(source: OutgoingSource, item: Frame | Loss): void;
  /** Something came that was waited for. */
  onAvailable(failure: { error: unknown } | undefined): void;
}

/** How often one frame may arrive damaged before it is given up. */
const maxDamagedAttempts = 3;

export class OutgoingSource {
  readonly id: number;
  readonly input: FrameSource;
  readonly progress: SourceProgress;
  /** The stream that SOURCE was sent for on this connection; nothing before it was. */
  declaredStream: string | undefined;
  /** What the stream of a frame is called; nothing where it is always HELLO's. */
  readonly #streamNameAt: ((captured: bigint) => string) | undefined;
  /** Taken from the source, and not begun. */
  frame: Frame | undefined;
  large: LargeFrame | undefined;
  /** To be offered. */
  candidates: Candidate[] = [];
  /** Offered, and wanted by the server. */
  wanted: Frame[] = [];
  /** Candidates that are offered or read for their CRC-32 now. */
  pendingCandidates = 0;
  /** Losses that the server was told of and may not have recorded. */
  unconfirmedLosses: LostRange[] = [];
  /** Losses that nobody was told of. */
  unreportedLosses: Loss[] = [];
  /** What the source threw. */
  failure: { error: unknown } | undefined;
  /** What the sender had begun in all when `frame` first found no room in the window. */
  blockedSince: number | undefined;
  /** What of it may be under way, where what is sent is to be fresh. */
  readonly liveWindow = new LiveWindow();
  readonly #damageCounts = new Map<number, number>();
  #isPulling = false;
  #isEnded = false;
  #isStopped = false;
  /** Whoever sends for it on the connection there is. */
  #consumer: FrameConsumer | undefined;

  /** @param streamNameAt what the stream is called of a frame that was captured at a time, if it changes */
  constructor(id: number, input: FrameSource, streamNameAt?: (captured: bigint) => string) {
    this.id = id;
    this.input = input;
    this.#streamNameAt = streamNameAt;
    this.progress = {
      name: input.name,
      // Some of what was counted may turn out to be no frame.
      get total() {
        return input.total;
      },
      get capturedCount() {
        return input.capturedCount ?? Math.max(this.sent, this.settled) + this.lost;
      },
      sent: 0,
      bytes: 0,
      settled: 0,
      settledBytes: 0,
      present: 0,
      removedAtServer: 0,
      refused: 0,
      conflictsSkipped: 0,
      lost: 0,
      dropped: 0,
      retried: 0,
      delays: input.isLive === true ? new DelayHistogram() : undefined,
      largeFrameSent: 0,
      largeFrameSize: 0,
    };
  }

  /** Whether nothing more will come of it. */
  get isExhausted(): boolean {
    return (
      this.#isEnded &&
      this.frame === undefined &&
      this.large === undefined &&
      this.candidates.length === 0 &&
      this.wanted.length === 0 &&
      this.pendingCandidates === 0
    );
  }

  /** Whether stopping now leaves frames unsent: what captures live just ends, when that is sent. */
  get hasUnsent(): boolean {
    if (this.input.stopCapture !== undefined) return false;
    const pending = this.candidates.length + this.wanted.length + this.pendingCandidates;
    return !this.#isEnded || (this.#isResumable && pending > 0);
  }

  /** What is left unsent is there for the next delivery. */
  get #isResumable(): boolean {
    return this.input.isResumable === true;
  }

  /** Whether the source may give frames that it has not given yet. */
  get hasMore(): boolean {
    return !this.#isEnded;
  }

  /**
   * Takes nothing more from the source, even if it was asked already; what captures live captures no more, and
   * what it has captured is still taken.
   */
  stop(): void {
    if (this.input.stopCapture !== undefined) return this.input.stopCapture();
    this.#isEnded = true;
    if (!this.#isResumable) return;
    this.#isStopped = true;
    this.candidates = [];
    this.wanted = [];
  }

  /** Whether what can be had again another time is not to be begun any more. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** A connection takes over. */
  connect(consumer: FrameConsumer): void {
    this.#consumer = consumer;
    this.input.onConnected?.();
  }

  /** Asks the source for frames and losses while the taker wants them, unless one is on its way. */
  pull(offered: boolean): void {
    while (!this.#isPulling && !this.#isEnded && this.#consumer?.wantsFrame(this) === true) {
      const next = this.input.next(offered);
      if (!(next instanceof Promise)) {
        if (next === undefined) this.#isEnded = true;
        else this.#deliver(next);
        continue;
      }
      this.#isPulling = true;
      next.then(
        (item) => {
          this.#isPulling = false;
          if (item === undefined) this.#isEnded = true;
          else if (!this.#isEnded) this.#deliver(item);
          this.#consumer?.onAvailable(undefined);
        },
        (error: unknown) => {
          this.#isPulling = false;
          this.#isEnded = true;
          this.failure = { error };
          this.#consumer?.onAvailable(this.failure);
        },
      );
    }
  }

  #deliver(item: Frame | Loss): void {
    if (this.#consumer !== undefined) this.#consumer.accept(this, item);
    else if ("error" in item) this.unreportedLosses.push(item);
    else this.requeue(item, undefined, false);
  }

  /** Counts a loss. */
  countLoss({ first, last, error }: Loss): void {
    this.progress.lost += last - first + 1;
    if (error.code === "dropped") this.progress.dropped += last - first + 1;
  }

  /** At the end: losses that no server was told of. */
  drainUnreported(): readonly Loss[] {
    const losses = [...this.unreportedLosses, ...(this.input.unreportedLosses ?? [])];
    for (const loss of losses) this.countLoss(loss);
    return losses;
  }

  /** What will never be sent: a loss, or a frame over `limit` bytes. */
  toLoss(item: Frame | Loss, limit: number): Loss | undefined {
    if ("error" in item) return item;
    return item.size > limit ? tooLargeLoss(item, limit) : undefined;
  }

  /** The frame came damaged: whether it is to be sent no more. */
  countDamage(sequence: number): boolean {
    const attempts = (this.#damageCounts.get(sequence) ?? 0) + 1;
    this.#damageCounts.set(sequence, attempts);
    return attempts >= maxDamagedAttempts;
  }

  /** A frame that was under way when its connection broke: it is offered on the next one. */
  requeue(frame: Frame, crc: number | undefined, wasSent: boolean): void {
    this.candidates.push({ frame, crc, wasSent });
  }

  /** The server has a frame that was offered, or had it. */
  countFound({ frame: { size }, wasSent }: Candidate, status: string): void {
    const { progress } = this;
    if (wasSent) {
      progress.sent++;
      progress.bytes += size;
      progress.settledBytes += size;
    } else if (status === "stored") progress.present++;
    else progress.removedAtServer++;
  }

  /** The connection broke: everything that is not settled waits in order for the next one. */
  disconnect(): void {
    this.#consumer = undefined;
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
    this.candidates.sort((a, b) => a.frame.sequence - b.frame.sequence);
    if (this.input.onDisconnected === undefined) return;
    const keptFrames = new Set(
      this.input.onDisconnected(this.candidates.map(({ frame }) => frame)),
    );
    this.candidates = this.candidates.filter(({ frame }) => keptFrames.has(frame));
  }

  /** No large frame is under way. */
  clearLargeFrame(): void {
    this.progress.largeFrameSent = 0;
    this.progress.largeFrameSize = 0;
  }

  /** The stream that a frame belongs to; empty is HELLO's. */
  streamNameOf({ captured }: Pick<Frame, "captured">): string {
    return this.#streamNameAt?.(captured) ?? "";
  }

  /** The SOURCE message that must go before everything else of this source in a stream. */
  encodeDeclaration(stream: string): Uint8Array {
    const { name, type, raw } = this.input;
    this.declaredStream = stream;
    return encodeControl(MessageType.source, this.id, {
      name,
      ...(stream === "" ? {} : { stream }),
      ...(type === undefined ? {} : { type }),
      ...(raw === undefined ? {} : { raw }),
    });
  }
}

function tooLargeLoss({ name, sequence, size }: FrameDescription, limit: number): Loss {
  return { first: sequence, last: sequence, what: name, error: tooLargeError(size, limit) };
}
