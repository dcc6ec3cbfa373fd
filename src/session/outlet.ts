/** One source of a sender: what it has at hand, and how far it is. It outlives connections. */
import { FramesError } from "../errors.ts";
import type { Frame, FrameDescription, FrameSource, Loss } from "../frame.ts";
import { encodeControl } from "../wire/encode.ts";
import { Type } from "../wire/messages.ts";
import { Delays } from "./delays.ts";
import { Freshness } from "./freshness.ts";
import type { LargeFrame } from "./large.ts";

/** How far the delivery of one source is. */
export interface SourceProgress {
  readonly name: string;
  /** Frames to come in all, if that is known. */
  readonly total: number | undefined;
  /** Numbers given so far. */
  readonly captured: number;
  /** Frames sent whole, and bytes of payload sent; what has to be sent again is counted once. */
  sent: number;
  bytes: number;
  /** Frames settled, those refused or not sent because they were there included. */
  settled: number;
  /** Bytes of frames that were sent and settled. */
  settledBytes: number;
  /** Frames that the server had already, so that they were not sent. */
  present: number;
  /** Likewise, but they were moved away from there since. */
  moved: number;
  refused: number;
  /** Frames that were left out because their names are taken, as it was asked for. */
  skipped: number;
  /** Numbers that were never sent. */
  lost: number;
  /** Of these, frames that a full queue dropped. */
  dropped: number;
  /** Frames that had to be sent more than once. */
  retried: number;
  /** From capture to receipt, where frames come as they are captured. */
  readonly delays: Delays | undefined;
  /** The large frame that is under way, until its receipt: bytes sent, and in all. */
  part: number;
  partOf: number;
}

/** Frames that were not delivered, and why. */
export interface Undelivered {
  readonly source: string;
  readonly first: number;
  readonly last: number;
  /** Name or path of the frame. */
  readonly what: string;
  readonly error: FramesError;
}

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
  readonly why: string;
}

/** What takes the frames of a source on one connection. */
export interface Taker {
  /** Whether another frame is wanted. */
  wants(outlet: Outlet): boolean;
  /** Has the frame or loss that the source gave. */
  take(outlet: Outlet, item: Frame | Loss): void;
  /** Something came that was waited for. */
  came(failure: { error: unknown } | undefined): void;
}

/** How often one frame may arrive damaged before it is given up. */
const mostDamages = 3;

export class Outlet {
  readonly id: number;
  readonly source: FrameSource;
  readonly progress: SourceProgress;
  /** The stream that SOURCE was sent for on this connection; nothing before it was. */
  declared: string | undefined;
  /** What the stream of a frame is called; nothing where it is always HELLO's. */
  readonly #streamAt: ((captured: bigint) => string) | undefined;
  /** Taken from the source, and not begun. */
  frame: Frame | undefined;
  large: LargeFrame | undefined;
  /** To be offered. */
  candidates: Candidate[] = [];
  /** Offered, and wanted by the server. */
  wanted: Frame[] = [];
  /** Candidates that are offered or read for their CRC-32 now. */
  inQuestion = 0;
  /** Losses that the server was told of and may not have recorded. */
  losses: LostRange[] = [];
  /** Losses that nobody was told of. */
  untold: Loss[] = [];
  /** What the source threw. */
  failure: { error: unknown } | undefined;
  /** What the sender had begun in all when `frame` first found no room in the window. */
  waitsSince: number | undefined;
  /** What of it may be under way, where what is sent is to be fresh. */
  readonly freshness = new Freshness();
  readonly #damages = new Map<number, number>();
  #asked = false;
  #ended = false;
  #stopped = false;
  /** Whoever sends for it on the connection there is. */
  #taker: Taker | undefined;

  /** @param streamAt what the stream is called of a frame that was captured at a time, if it changes */
  constructor(id: number, source: FrameSource, streamAt?: (captured: bigint) => string) {
    this.id = id;
    this.source = source;
    this.#streamAt = streamAt;
    this.progress = {
      name: source.name,
      // Some of what was counted may turn out to be no frame.
      get total() {
        return source.total;
      },
      get captured() {
        return source.captured ?? Math.max(this.sent, this.settled) + this.lost;
      },
      sent: 0,
      bytes: 0,
      settled: 0,
      settledBytes: 0,
      present: 0,
      moved: 0,
      refused: 0,
      skipped: 0,
      lost: 0,
      dropped: 0,
      retried: 0,
      delays: source.isLive === true ? new Delays() : undefined,
      part: 0,
      partOf: 0,
    };
  }

  /** Whether nothing more will come of it. */
  get isExhausted(): boolean {
    return (
      this.#ended &&
      this.frame === undefined &&
      this.large === undefined &&
      this.candidates.length === 0 &&
      this.wanted.length === 0 &&
      this.inQuestion === 0
    );
  }

  /** Whether stopping now leaves frames unsent: what captures live just ends, when that is sent. */
  get isCutShort(): boolean {
    if (this.source.stop !== undefined) return false;
    const waiting = this.candidates.length + this.wanted.length + this.inQuestion;
    return !this.#ended || (this.#canBeHadAgain && waiting > 0);
  }

  /** What is left unsent is there for the next delivery. */
  get #canBeHadAgain(): boolean {
    return this.source.resumes === true;
  }

  /** Whether the source may give frames that it has not given yet. */
  get givesMore(): boolean {
    return !this.#ended;
  }

  /**
   * Takes nothing more from the source, even if it was asked already; what captures live captures no more, and
   * what it has captured is still taken.
   */
  stop(): void {
    if (this.source.stop !== undefined) return this.source.stop();
    this.#ended = true;
    if (!this.#canBeHadAgain) return;
    this.#stopped = true;
    this.candidates = [];
    this.wanted = [];
  }

  /** Whether what can be had again another time is not to be begun any more. */
  get isStopped(): boolean {
    return this.#stopped;
  }

  /** A connection takes over. */
  connect(taker: Taker): void {
    this.#taker = taker;
    this.source.connected?.();
  }

  /** Asks the source for frames and losses while the taker wants them, unless one is on its way. */
  ask(offered: boolean): void {
    while (!this.#asked && !this.#ended && this.#taker?.wants(this) === true) {
      const next = this.source.next(offered);
      if (!(next instanceof Promise)) {
        if (next === undefined) this.#ended = true;
        else this.#take(next);
        continue;
      }
      this.#asked = true;
      next.then(
        (item) => {
          this.#asked = false;
          if (item === undefined) this.#ended = true;
          else if (!this.#ended) this.#take(item);
          this.#taker?.came(undefined);
        },
        (error: unknown) => {
          this.#asked = false;
          this.#ended = true;
          this.failure = { error };
          this.#taker?.came(this.failure);
        },
      );
    }
  }

  #take(item: Frame | Loss): void {
    if (this.#taker !== undefined) this.#taker.take(this, item);
    else if ("error" in item) this.untold.push(item);
    else this.giveBack(item, undefined, false);
  }

  /** Counts a loss. */
  count({ first, last, error }: Loss): void {
    this.progress.lost += last - first + 1;
    if (error.code === "dropped") this.progress.dropped += last - first + 1;
  }

  /** At the end: losses that no server was told of. */
  abandon(): readonly Loss[] {
    const losses = [...this.untold, ...(this.source.untold ?? [])];
    for (const loss of losses) this.count(loss);
    return losses;
  }

  /** What will never be sent: a loss, or a frame over `limit` bytes. */
  lossOf(item: Frame | Loss, limit: number): Loss | undefined {
    if ("error" in item) return item;
    return item.size > limit ? tooLarge(item, limit) : undefined;
  }

  /** The frame came damaged: whether it is to be sent no more. */
  damaged(sequence: number): boolean {
    const times = (this.#damages.get(sequence) ?? 0) + 1;
    this.#damages.set(sequence, times);
    return times >= mostDamages;
  }

  /** A frame that was under way when its connection broke: it is offered on the next one. */
  giveBack(frame: Frame, crc: number | undefined, wasSent: boolean): void {
    this.candidates.push({ frame, crc, wasSent });
  }

  /** The server has a frame that was offered, or had it. */
  found({ frame: { size }, wasSent }: Candidate, standing: string): void {
    const { progress } = this;
    if (wasSent) {
      progress.sent++;
      progress.bytes += size;
      progress.settledBytes += size;
    } else if (standing === "stored") progress.present++;
    else progress.moved++;
  }

  /** The connection broke: everything that is not settled waits in order for the next one. */
  disconnect(): void {
    this.#taker = undefined;
    this.freshness.abandon();
    this.declared = undefined;
    this.waitsSince = undefined;
    this.inQuestion = 0;
    if (this.large !== undefined) {
      this.progress.bytes -= this.large.sent;
      this.large.close();
      this.giveBack(this.large.frame, undefined, true);
      this.large = undefined;
    }
    this.noPart();
    if (this.frame !== undefined) this.giveBack(this.frame, undefined, false);
    this.frame = undefined;
    for (const frame of this.wanted) this.giveBack(frame, undefined, false);
    this.wanted = [];
    this.candidates.sort((a, b) => a.frame.sequence - b.frame.sequence);
    if (this.source.disconnected === undefined) return;
    const left = new Set(this.source.disconnected(this.candidates.map(({ frame }) => frame)));
    this.candidates = this.candidates.filter(({ frame }) => left.has(frame));
  }

  /** No large frame is under way. */
  noPart(): void {
    this.progress.part = 0;
    this.progress.partOf = 0;
  }

  /** The stream that a frame belongs to; empty is HELLO's. */
  streamOf({ captured }: Pick<Frame, "captured">): string {
    return this.#streamAt?.(captured) ?? "";
  }

  /** The SOURCE message that must go before everything else of this source in a stream. */
  declaration(stream: string): Uint8Array {
    const { name, type, raw } = this.source;
    this.declared = stream;
    return encodeControl(Type.source, this.id, {
      name,
      ...(stream === "" ? {} : { stream }),
      ...(type === undefined ? {} : { type }),
      ...(raw === undefined ? {} : { raw }),
    });
  }
}

/** Why a frame is over the server's limit, as both ends say it. */
export function tooLargeError(size: number, limit: number): FramesError {
  const message = `the frame has ${size} bytes, the server takes ${limit} (frames serve --max-frame)`;
  return new FramesError("too-large", message);
}

function tooLarge({ name, sequence, size }: FrameDescription, limit: number): Loss {
  return { first: sequence, last: sequence, what: name, error: tooLargeError(size, limit) };
}
