/**
 * Keeps a store below an age or a size. Removes the oldest arrivals first, a few at a time, so that
 * senders are not delayed.
 */
import { toNanoseconds } from "../../common/clock.ts";
import { FramesError } from "../../errors.ts";
import type { Journal } from "../journal/journal.ts";
import type { DeletionCandidate } from "../journal/deletion-log.ts";
import { ClockTrust } from "./clock-trust.ts";
import type { DeletionResult, FrameDeleter } from "./frame-deleter.ts";

/** Limit of a store: the age of its frames since arrival, or the sum of their bytes. */
export type RetentionLimit = { readonly milliseconds: number } | { readonly bytes: number };

/** A reader for which frames over the limit wait, for a bounded time and in a bounded space. */
export interface RetentionHold {
  /** Returns whether the reader still has to read the frame. */
  needs(frame: Pick<DeletionCandidate, "id" | "stream" | "source">): boolean;
  /** Called for a frame that the reader needs, and that was removed without waiting longer. */
  onPassedOver(frame: DeletionCandidate): void;
}

/** Frames that were removed. */
export interface RetentionReport extends DeletionResult {
  /** Part of `frames`: frames that a reader still had to read. */
  readonly passedOver: number;
}

/** Parts of the store that retention uses. */
export interface RetentionContext {
  readonly journal: Journal;
  readonly deleter: FrameDeleter;
  readonly isDurable: boolean;
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
  /**
   * Milliseconds for which the clock must have run evenly before frames are removed by age. Default:
   * an hour, or the limit of the store if that is less.
   */
  readonly clockTrustMs?: number | undefined;
  /** Runs `act` while no flush is in progress, so no frame is renamed or replaced meanwhile. */
  runExclusive<T>(act: () => Promise<T>): Promise<T>;
}

/** Frames and milliseconds of one step. */
const batchSize = 100;
const batchTimeMs = 10;

/** Pause when nothing is to be removed, and the least pause between steps, in milliseconds. */
const checkIntervalMs = 1000;
const minPauseMs = 5;

/** Interval after which skipped frames are considered again, in milliseconds. */
const sweepIntervalMs = 60_000;

/** Sweeps after which a frame over the limit no longer waits for a reader: 10 minutes. */
const maxHeldSweeps = 10;

/** Share of a limit by size that frames may take beyond it while they wait for readers. */
const maxHeldShare = 0.1;

/**
 * Least interval between two reports of removed frames, in milliseconds. The first report is
 * immediate.
 */
const reportIntervalMs = 60_000;

/** Sources of encoded video whose last removed picture is remembered. */
const maxCutSources = 1000;

const emptyReport: RetentionReport = { frames: 0, bytes: 0, undeletable: 0, passedOver: 0 };

/** The next frames that may be removed. */
interface Selection {
  readonly frames: readonly DeletionCandidate[];
  /** Frames over the limit that wait for a reader. */
  readonly held: readonly DeletionCandidate[];
  /** Id of the last frame considered. */
  readonly last: number;
  readonly hasMore: boolean;
}

/** Removes the frames of a store that exceed its limit. */
export class Retention {
  /** Readers of the store. A frame that one of them needs waits. */
  readonly holds = new Set<RetentionHold>();
  readonly #context: RetentionContext;
  readonly #limit: RetentionLimit;
  /** For a limit by age. */
  readonly #clockTrust: ClockTrust | undefined;
  /** Id of the last frame considered in the current sweep. */
  #after = 0;
  /** Bytes of frames up to `#after` that wait for a reader. */
  #heldBytes = 0;
  /** Id up to which frames were removed in the current sweep without regard to readers. */
  #passedAfter = 0;
  /** Last removed picture of each source of encoded video, by session and source. */
  readonly #cuts = new Map<string, DeletionCandidate>();
  /** Values of `#after` at the end of earlier sweeps; the oldest is first. */
  readonly #sweepEnds: number[] = [];
  /** Frames up to this id have waited long enough. */
  #overdueId = 0;
  #sweptAt = -Infinity;
  /**
   * Latest arrival time seen in this sweep, in nanoseconds since 1970. Later rows count as at least
   * that young.
   */
  #latestReceived: bigint | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  #onDeleted: (report: RetentionReport) => void = () => {};
  #reportedAt = -Infinity;
  #unreported = emptyReport;

  constructor(context: RetentionContext, limit: RetentionLimit) {
    this.#context = context;
    this.#limit = limit;
    if ("milliseconds" in limit) {
      this.#clockTrust = new ClockTrust(limit.milliseconds, context.clockTrustMs);
    }
  }

  /**
   * Starts to remove frames over the limit.
   *
   * @param onDeleted called with the totals since the last call
   */
  start(onDeleted: (report: RetentionReport) => void): void {
    this.#onDeleted = onDeleted;
    this.#timer = setTimeout(() => void this.#run(), 0);
  }

  /** Stops removing frames and reports the rest. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    this.#report(Infinity);
  }

  async #run(): Promise<void> {
    const startedAt = performance.now();
    let hasMore = false;
    try {
      hasMore = await this.step();
    } catch (error) {
      // The next flush fails too, and every sender receives that error.
      if (!(error instanceof FramesError)) throw error;
    }
    if (this.#isStopped) return;
    const now = performance.now();
    if (!hasMore) this.#report(now);
    // Leave two thirds of the time to senders.
    const pauseMs = hasMore ? Math.max(minPauseMs, 2 * (now - startedAt)) : checkIntervalMs;
    this.#timer = setTimeout(() => void this.#run(), pauseMs);
  }

  #report(now: number): void {
    const { frames, undeletable } = this.#unreported;
    if (frames + undeletable === 0 || now - this.#reportedAt < reportIntervalMs) return;
    this.#reportedAt = now;
    const unreported = this.#unreported;
    this.#unreported = emptyReport;
    this.#onDeleted(unreported);
  }

  /**
   * Removes a few frames.
   *
   * @returns whether more work remains
   * @throws {FramesError} `store`
   */
  async step(): Promise<boolean> {
    return await this.#context.runExclusive(async () => {
      if (this.#isStopped) return false;
      if (this.#clockTrust?.isBelieved(this.#context.clock()) === false) return false;
      const deadline = performance.now() + batchTimeMs;
      if ("bytes" in this.#limit && this.#context.journal.totalBytes === undefined) return true;
      const now = this.#context.clock();
      this.#sweepIfDue(now);
      const overdue = this.#overdueFrames();
      if (overdue.length > 0) {
        const done = await this.#delete(overdue, deadline);
        this.#passedAfter = done.at(-1)!.id;
        for (const { id, bytes } of done) if (id <= this.#after) this.#heldBytes -= bytes;
        return true;
      }
      const { frames, held, last, hasMore } = this.#nextCandidates(now);
      const done = await this.#delete(frames, deadline);
      // Frames after the deadline are selected again in the next step.
      this.#after = done.length < frames.length ? done.at(-1)!.id : last;
      for (const { id, bytes } of held) if (id <= this.#after) this.#heldBytes += bytes;
      if (frames.length > 0 || hasMore || this.#overdueFrames().length > 0) return true;
      if (await this.#trimGroups(deadline)) return true;
      return "milliseconds" in this.#limit && this.#dropLosses();
    });
  }

  /**
   * Removes frames until the deadline, and tells the readers that need them.
   *
   * @returns the frames that were removed, or could not be
   * @throws {FramesError} `store`
   */
  async #delete(
    frames: readonly DeletionCandidate[],
    deadline: number,
  ): Promise<readonly DeletionCandidate[]> {
    if (frames.length === 0) return frames;
    const { deleter, isDurable } = this.#context;
    const alsoLosses = "bytes" in this.#limit;
    const result = await deleter.delete(frames, deadline, { alsoLosses, isDurable });
    const done = frames.slice(0, result.frames + result.undeletable);
    let passedOver = 0;
    for (const frame of done) {
      if (frame.isPicture === true) this.#rememberCut(frame);
      const readers = [...this.holds].filter((hold) => hold.needs(frame));
      if (readers.length > 0) passedOver++;
      for (const reader of readers) reader.onPassedOver(frame);
    }
    this.#unreported = {
      frames: this.#unreported.frames + result.frames,
      bytes: this.#unreported.bytes + result.bytes,
      undeletable: this.#unreported.undeletable + result.undeletable,
      passedOver: this.#unreported.passedOver + passedOver,
    };
    return done;
  }

  #rememberCut(frame: DeletionCandidate): void {
    const key = `${frame.session} ${frame.stream}/${frame.source}`;
    this.#cuts.delete(key);
    this.#cuts.set(key, frame);
    if (this.#cuts.size > maxCutSources) this.#cuts.delete(this.#cuts.keys().next().value!);
  }

  /**
   * Removes pictures of encoded video that no decoder can begin with, because retention removed their
   * key frame. Returns whether there were any.
   */
  async #trimGroups(deadline: number): Promise<boolean> {
    const { deletionLog } = this.#context.journal;
    for (const [key, cut] of [...this.#cuts]) {
      if (performance.now() >= deadline) return false;
      // The others have their turn first next time.
      this.#cuts.delete(key);
      this.#cuts.set(key, cut);
      const pictures = deletionLog.beforeNextKey(cut, batchSize);
      const frames = pictures.filter((frame) => !frame.isDamaged && !this.#isNeeded(frame));
      if (frames.length === 0) continue;
      await this.#delete(frames, deadline);
      return true;
    }
    return false;
  }

  /**
   * Begins a new sweep if the last one is old.
   *
   * @param now milliseconds since 1970
   */
  #sweepIfDue(now: number): void {
    if (now - this.#sweptAt < sweepIntervalMs && now >= this.#sweptAt) return;
    if (this.#sweepEnds.push(this.#after) >= maxHeldSweeps) {
      this.#overdueId = Math.max(this.#overdueId, this.#sweepEnds.shift()!);
    }
    this.#after = this.#heldBytes = this.#passedAfter = 0;
    this.#sweptAt = now;
    this.#latestReceived = undefined;
  }

  /**
   * Returns the oldest frames that are removed whether or not a reader needs them: they have waited
   * long enough, or the frames that wait take too much space.
   */
  #overdueFrames(): DeletionCandidate[] {
    const { journal } = this.#context;
    const isBySize = "bytes" in this.#limit;
    const maxBytes = isBySize ? this.#limit.bytes : Infinity;
    let excess = isBySize ? journal.totalBytes! - maxBytes : Infinity;
    let heldBytes = this.#heldBytes;
    const isOverdue = (id: number) => {
      return excess > 0 && (heldBytes > maxBytes * maxHeldShare || id <= this.#overdueId);
    };
    const overdue: DeletionCandidate[] = [];
    if (!isOverdue(this.#passedAfter + 1)) return overdue;
    for (const frame of journal.deletionLog.candidates(this.#passedAfter, batchSize)) {
      if (!isOverdue(frame.id)) break;
      excess -= frame.bytes;
      heldBytes -= frame.bytes;
      overdue.push(frame);
    }
    return overdue;
  }

  /** Selects the next frames to remove that no reader needs. */
  #nextCandidates(now: number): Selection {
    const { journal } = this.#context;
    const found = journal.deletionLog.candidates(this.#after, batchSize);
    const isExpired = this.#expiryCheck(found, now);
    const frames: DeletionCandidate[] = [];
    const held: DeletionCandidate[] = [];
    let last = this.#after;
    for (const frame of found) {
      if (frame.isDamaged) {
        last = frame.id;
        continue;
      }
      if (!isExpired(frame)) return { frames, held, last, hasMore: false };
      last = frame.id;
      (this.#isNeeded(frame) ? held : frames).push(frame);
    }
    return { frames, held, last, hasMore: found.length === batchSize };
  }

  /**
   * Returns a function that decides whether a frame exceeds the limit. Call it for the frames in
   * order of arrival.
   *
   * @param now milliseconds since 1970
   */
  #expiryCheck(
    found: readonly DeletionCandidate[],
    now: number,
  ): (frame: DeletionCandidate) => boolean {
    if ("bytes" in this.#limit) {
      // Frames of other sources do not give way to those that wait.
      let excess = this.#context.journal.totalBytes! - this.#limit.bytes - this.#heldBytes;
      return (frame) => {
        if (excess <= 0) return false;
        excess -= frame.bytes;
        return true;
      };
    }
    const nowNs = toNanoseconds(now);
    const cutoffNs = nowNs - toNanoseconds(this.#limit.milliseconds);
    // A clock that was wrong for a while leaves arrival times out of order. A frame counts as at
    // least as young as every earlier arrival. A time in the future is ignored.
    const isBefore = ({ isDamaged, received }: DeletionCandidate) =>
      !isDamaged && received <= nowNs;
    this.#latestReceived ??= found.find(isBefore)?.received;
    return ({ received }) => {
      let latestReceived = this.#latestReceived;
      if (latestReceived === undefined) return false;
      if (received <= nowNs && received > latestReceived) latestReceived = received;
      if (latestReceived > cutoffNs) return false;
      // Only a frame that is removed counts, because those before it may be selected again.
      this.#latestReceived = latestReceived;
      return true;
    };
  }

  #isNeeded(frame: DeletionCandidate): boolean {
    for (const hold of this.holds) if (hold.needs(frame)) return true;
    return false;
  }

  /** Deletes losses older than the limit. Returns whether more may remain. */
  #dropLosses(): boolean {
    if (!("milliseconds" in this.#limit)) return false;
    const { journal, clock } = this.#context;
    const now = clock();
    const cutoffNs = toNanoseconds(now - this.#limit.milliseconds);
    const { deletionLog } = journal;
    if (!deletionLog.hasLosses(cutoffNs)) return false;
    let dropped = 0;
    journal.updateDeletions(() => {
      dropped = deletionLog.dropLosses(cutoffNs, batchSize, toNanoseconds(now));
    });
    journal.flushKeepingError();
    return dropped === batchSize;
  }
}
