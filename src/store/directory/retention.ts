/**
 * Keeps a store to an age or a size: the frames that arrived first go, a few at a time, so that nobody who
 * sends has to wait for it.
 */
import { FramesError } from "../../errors.ts";
import type { Journal } from "../journal/journal.ts";
import type { DeletionCandidate } from "../journal/deletion-log.ts";
import type { DeletionResult, FrameDeleter } from "./frame-deleter.ts";

/** How much a store keeps: frames that arrived so long ago at most, or so many bytes of them. */
export type RetentionLimit = { readonly milliseconds: number } | { readonly bytes: number };

/** Whoever still wants frames that others may remove. */
export interface RetentionHold {
  /** Whether the frame is still to be read. */
  needs(frame: Pick<DeletionCandidate, "id" | "stream" | "source">): boolean;
}

/** What retention needs of its store. */
export interface RetentionContext {
  readonly journal: Journal;
  readonly deleter: FrameDeleter;
  readonly isDurable: boolean;
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
  /** Runs `act` while the store gives no names and replaces nothing. */
  runExclusive<T>(act: () => Promise<T>): Promise<T>;
}

/** What is done at a time, in frames and milliseconds, before others have their turn. */
const batchSize = 100;
const batchTimeMs = 10;

/** Milliseconds to the next look, and at least between two steps if there is more to do. */
const checkIntervalMs = 1000;
const minPauseMs = 5;

/** Frames that had to stay are looked at again so often, in milliseconds. */
const sweepIntervalMs = 60_000;

/** What was removed is told at once, and then summed up for so many milliseconds. */
const reportIntervalMs = 60_000;

const emptyResult: DeletionResult = { frames: 0, bytes: 0, undeletable: 0 };

/** Removes what a store is not to keep. */
export class Retention {
  /** Those who still have to read frames: what one of them awaits is not removed. */
  readonly holds = new Set<RetentionHold>();
  readonly #context: RetentionContext;
  readonly #limit: RetentionLimit;
  /** The last frame that was looked at, since `#sweptAt`. */
  #after = 0;
  #sweptAt = -Infinity;
  /** When the frame before arrived at the latest, in nanoseconds: no frame after it came earlier. */
  #latestReceived: bigint | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  #onDeleted: (result: DeletionResult) => void = () => {};
  #reportedAt = -Infinity;
  #unreported = emptyResult;

  constructor(context: RetentionContext, limit: RetentionLimit) {
    this.#context = context;
    this.#limit = limit;
  }

  /** Begins to remove what is too old or too much, now and then. `tell` hears of what was removed. */
  start(onDeleted: (result: DeletionResult) => void): void {
    this.#onDeleted = onDeleted;
    this.#timer = setTimeout(() => void this.#run(), 0);
  }

  /** Removes nothing more. */
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
      // The next flush fails as well, and every sender hears of it.
      if (!(error instanceof FramesError)) throw error;
    }
    if (this.#isStopped) return;
    const now = performance.now();
    if (!hasMore) this.#report(now);
    // Two thirds of the time are for those who send.
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
   * @returns whether there is more to do
   * @throws {FramesError} `store`
   */
  async step(): Promise<boolean> {
    return await this.#context.runExclusive(async () => {
      if (this.#isStopped) return false;
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
      // What there was no time for is chosen again.
      this.#after = done < frames.length ? frames[done - 1]!.id : last;
      this.#unreported = {
        frames: this.#unreported.frames + result.frames,
        bytes: this.#unreported.bytes + result.bytes,
        undeletable: this.#unreported.undeletable + result.undeletable,
      };
      return true;
    });
  }

  /** The next frames to be removed, and the last that was looked at. */
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

  /** Tells of one frame after the other, in the order of arrival, whether it has to go. */
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
    // A machine whose clock was wrong for a while gave times that are not in order: a frame is taken to
    // be as young as one that came before it, and a time to come says nothing.
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

  /** Losses of long ago go too: whether there is more to do. */
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
