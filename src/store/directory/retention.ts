/**
 * Keeps a store below an age or a size. Removes the oldest arrivals first, a few at a time, so that
 * senders are not delayed.
 */
import { FramesError } from "../../errors.ts";
import type { Journal } from "../journal/journal.ts";
import type { DeletionCandidate } from "../journal/deletion-log.ts";
import { ClockTrust } from "./clock-trust.ts";
import type { DeletionResult, FrameDeleter } from "./frame-deleter.ts";

/** Limit of a store: the age of its frames since arrival, or the sum of their bytes. */
export type RetentionLimit = { readonly milliseconds: number } | { readonly bytes: number };

/** A reader whose next frames must not be removed. */
export interface RetentionHold {
  /** Returns whether the reader still has to read the frame. */
  needs(frame: Pick<DeletionCandidate, "id" | "stream" | "source">): boolean;
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

/**
 * Least interval between two reports of removed frames, in milliseconds. The first report is
 * immediate.
 */
const reportIntervalMs = 60_000;

const emptyResult: DeletionResult = { frames: 0, bytes: 0, undeletable: 0 };

/** Removes the frames of a store that exceed its limit. */
export class Retention {
  /** Readers of the store. A frame that one of them needs is not removed. */
  readonly holds = new Set<RetentionHold>();
  readonly #context: RetentionContext;
  readonly #limit: RetentionLimit;
  /** For a limit by age. */
  readonly #clockTrust: ClockTrust | undefined;
  /** Id of the last frame considered in the current sweep. */
  #after = 0;
  #sweptAt = -Infinity;
  /**
   * Latest arrival time seen in this sweep, in nanoseconds since 1970. Later rows count as at least
   * that young.
   */
  #latestReceived: bigint | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  #onDeleted: (result: DeletionResult) => void = () => {};
  #reportedAt = -Infinity;
  #unreported = emptyResult;

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
  start(onDeleted: (result: DeletionResult) => void): void {
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
    this.#unreported = emptyResult;
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
      const { frames, last, hasMore } = this.#nextCandidates();
      const isByAge = "milliseconds" in this.#limit;
      if (frames.length === 0) {
        this.#after = last;
        return hasMore || (isByAge && this.#dropLosses());
      }
      const { deleter, isDurable } = this.#context;
      const result = await deleter.delete(frames, deadline, { alsoLosses: !isByAge, isDurable });
      const done = result.frames + result.undeletable;
      // Frames after the deadline are selected again in the next step.
      this.#after = done < frames.length ? frames[done - 1]!.id : last;
      this.#unreported = {
        frames: this.#unreported.frames + result.frames,
        bytes: this.#unreported.bytes + result.bytes,
        undeletable: this.#unreported.undeletable + result.undeletable,
      };
      return true;
    });
  }

  /**
   * Selects the next frames to remove.
   *
   * @returns the frames, the id of the last one considered, and whether more may follow
   */
  #nextCandidates(): { frames: DeletionCandidate[]; last: number; hasMore: boolean } {
    const now = this.#context.clock();
    if (now - this.#sweptAt >= sweepIntervalMs || now < this.#sweptAt) {
      this.#after = 0;
      this.#sweptAt = now;
      this.#latestReceived = undefined;
    }
    const { journal } = this.#context;
    const found = journal.deletionLog.candidates(this.#after, batchSize);
    const isExpired = this.#expiryCheck(found, now);
    const frames: DeletionCandidate[] = [];
    let last = this.#after;
    for (const frame of found) {
      if (!isExpired(frame)) return { frames, last, hasMore: frames.length > 0 };
      last = frame.id;
      if (!this.#isNeeded(frame)) frames.push(frame);
    }
    return { frames, last, hasMore: found.length === batchSize };
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
      let excess = this.#context.journal.totalBytes! - this.#limit.bytes;
      return (frame) => {
        if (excess <= 0) return false;
        if (!this.#isNeeded(frame)) excess -= frame.bytes;
        return true;
      };
    }
    const toNanoseconds = (milliseconds: number) => BigInt(Math.floor(milliseconds * 1e6));
    const nowNs = toNanoseconds(now);
    const cutoffNs = nowNs - toNanoseconds(this.#limit.milliseconds);
    // A clock that was wrong for a while leaves arrival times out of order. A frame counts as at
    // least as young as every earlier arrival. A time in the future is ignored.
    this.#latestReceived ??= found.find(({ received }) => received <= nowNs)?.received;
    return ({ received }) => {
      const latestReceived = this.#latestReceived;
      if (latestReceived === undefined) return false;
      if (received <= nowNs && received > latestReceived) this.#latestReceived = received;
      return this.#latestReceived! <= cutoffNs;
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
    const cutoffNs = BigInt(Math.floor((now - this.#limit.milliseconds) * 1e6));
    const { deletionLog } = journal;
    if (!deletionLog.hasLosses(cutoffNs)) return false;
    let dropped = 0;
    journal.updateDeletions(() => {
      dropped = deletionLog.dropLosses(cutoffNs, batchSize, BigInt(Math.floor(now * 1e6)));
    });
    journal.flushKeepingError();
    return dropped === batchSize;
  }
}
