/**
 * Keeps a store to an age or a size: the frames that arrived first go, a few at a time, so that nobody who
 * sends has to wait for it.
 */
import { FramesError } from "../errors.ts";
import type { Journal } from "./journal.ts";
import type { OldFrame } from "./removals.ts";
import type { Removed, Remover } from "./remover.ts";

/** How much a store keeps: frames that arrived so long ago at most, or so many bytes of them. */
export type Keep = { readonly milliseconds: number } | { readonly bytes: number };

/** Whoever still wants frames that others may remove. */
export interface Follower {
  /** Whether the frame is still to be read. */
  awaits(frame: Pick<OldFrame, "id" | "stream" | "source">): boolean;
}

/** What retention needs of its store. */
export interface RetentionParts {
  readonly journal: Journal;
  readonly remover: Remover;
  readonly isDurable: boolean;
  /** Wall clock, in milliseconds since 1970. */
  readonly clock: () => number;
  /** Runs `act` while the store gives no names and replaces nothing. */
  inTurn<T>(act: () => Promise<T>): Promise<T>;
}

/** What is done at a time, in frames and milliseconds, before others have their turn. */
const atOnce = 100;
const timeAtOnce = 10;

/** Milliseconds to the next look, and at least between two steps if there is more to do. */
const lookEvery = 1000;
const pauseAtLeast = 5;

/** Frames that had to stay are looked at again so often, in milliseconds. */
const sweepEvery = 60_000;

/** What was removed is told at once, and then summed up for so many milliseconds. */
const tellEvery = 60_000;

const nothing: Removed = { frames: 0, bytes: 0, stuck: 0 };

/** Removes what a store is not to keep. */
export class Retention {
  /** Those who still have to read frames: what one of them awaits is not removed. */
  readonly followers = new Set<Follower>();
  readonly #parts: RetentionParts;
  readonly #keep: Keep;
  /** The last frame that was looked at, since `#sweptAt`. */
  #after = 0;
  #sweptAt = -Infinity;
  /** When the frame before arrived at the latest, in nanoseconds: no frame after it came earlier. */
  #arrived: bigint | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  #tell: (removed: Removed) => void = () => {};
  #told = -Infinity;
  #sum = nothing;

  constructor(parts: RetentionParts, keep: Keep) {
    this.#parts = parts;
    this.#keep = keep;
  }

  /** Begins to remove what is too old or too much, now and then. `tell` hears of what was removed. */
  start(tell: (removed: Removed) => void): void {
    this.#tell = tell;
    this.#timer = setTimeout(() => void this.#run(), 0);
  }

  /** Removes nothing more. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    this.#tellSum(Infinity);
  }

  async #run(): Promise<void> {
    const began = performance.now();
    let isMore = false;
    try {
      isMore = await this.step();
    } catch (error) {
      // The next flush fails as well, and every sender hears of it.
      if (!(error instanceof FramesError)) throw error;
    }
    if (this.#isStopped) return;
    const now = performance.now();
    if (!isMore) this.#tellSum(now);
    // Two thirds of the time are for those who send.
    const pause = isMore ? Math.max(pauseAtLeast, 2 * (now - began)) : lookEvery;
    this.#timer = setTimeout(() => void this.#run(), pause);
  }

  #tellSum(now: number): void {
    const { frames, stuck } = this.#sum;
    if (frames + stuck === 0 || now - this.#told < tellEvery) return;
    this.#told = now;
    const sum = this.#sum;
    this.#sum = nothing;
    this.#tell(sum);
  }

  /**
   * Removes a few frames.
   *
   * @returns whether there is more to do
   * @throws {FramesError} `store`
   */
  async step(): Promise<boolean> {
    return await this.#parts.inTurn(async () => {
      if (this.#isStopped) return false;
      const until = performance.now() + timeAtOnce;
      if ("bytes" in this.#keep && this.#parts.journal.bytes === undefined) return true;
      const { frames, last, isMore } = this.#choose();
      const isByAge = "milliseconds" in this.#keep;
      if (frames.length === 0) {
        this.#after = last;
        return isMore || (isByAge && this.#dropLosses());
      }
      const { remover, isDurable } = this.#parts;
      const removed = await remover.remove(frames, until, { alsoLosses: !isByAge, isDurable });
      const done = removed.frames + removed.stuck;
      // What there was no time for is chosen again.
      this.#after = done < frames.length ? frames[done - 1]!.id : last;
      this.#sum = {
        frames: this.#sum.frames + removed.frames,
        bytes: this.#sum.bytes + removed.bytes,
        stuck: this.#sum.stuck + removed.stuck,
      };
      return true;
    });
  }

  /** The next frames to be removed, and the last that was looked at. */
  #choose(): { frames: OldFrame[]; last: number; isMore: boolean } {
    const now = this.#parts.clock();
    if (now - this.#sweptAt >= sweepEvery || now < this.#sweptAt) {
      this.#after = 0;
      this.#sweptAt = now;
      this.#arrived = undefined;
    }
    const { journal } = this.#parts;
    const found = journal.removals.oldest(this.#after, atOnce);
    const isTooMuch = this.#judge(found, now);
    const frames: OldFrame[] = [];
    let last = this.#after;
    for (const frame of found) {
      if (!isTooMuch(frame)) return { frames, last, isMore: frames.length > 0 };
      last = frame.id;
      if (!this.#isAwaited(frame)) frames.push(frame);
    }
    return { frames, last, isMore: found.length === atOnce };
  }

  /** Tells of one frame after the other, in the order of arrival, whether it has to go. */
  #judge(found: readonly OldFrame[], now: number): (frame: OldFrame) => boolean {
    if ("bytes" in this.#keep) {
      let excess = this.#parts.journal.bytes! - this.#keep.bytes;
      return (frame) => {
        if (excess <= 0) return false;
        if (!this.#isAwaited(frame)) excess -= frame.bytes;
        return true;
      };
    }
    const nanoseconds = (milliseconds: number) => BigInt(Math.floor(milliseconds * 1e6));
    const latest = nanoseconds(now);
    const before = latest - nanoseconds(this.#keep.milliseconds);
    // A machine whose clock was wrong for a while gave times that are not in order: a frame is taken to
    // be as young as one that came before it, and a time to come says nothing.
    this.#arrived ??= found.find(({ received }) => received <= latest)?.received;
    return ({ received }) => {
      const arrived = this.#arrived;
      if (arrived === undefined) return false;
      if (received <= latest && received > arrived) this.#arrived = received;
      return this.#arrived! <= before;
    };
  }

  #isAwaited(frame: OldFrame): boolean {
    for (const follower of this.followers) if (follower.awaits(frame)) return true;
    return false;
  }

  /** Losses of long ago go too: whether there is more to do. */
  #dropLosses(): boolean {
    if (!("milliseconds" in this.#keep)) return false;
    const { journal, clock } = this.#parts;
    const now = clock();
    const before = BigInt(Math.floor((now - this.#keep.milliseconds) * 1e6));
    const { removals } = journal;
    if (!removals.hasLosses(before)) return false;
    let dropped = 0;
    journal.remove(() => {
      dropped = removals.dropLosses(before, atOnce, BigInt(Math.floor(now * 1e6)));
    });
    journal.flushAside();
    return dropped === atOnce;
  }
}
