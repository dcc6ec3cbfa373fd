/** Plays the frames of one source at the pace of their capture. */
/// <reference lib="dom" />
import type { FrameJson } from "./api.ts";
import { toMilliseconds } from "./format.ts";

/** Speeds of playback, as factors of the time of capture. */
export const speeds = [0.1, 0.25, 0.5, 1, 2, 4, 8, 16] as const;

/** Maximum delay between two frames. Longer pauses are shortened. */
const maxDelayMs = 1_000;

/** What a player shows. */
export interface PlayerTarget {
  /** The frame shown now. */
  readonly frame: FrameJson | undefined;
  /** Returns the next frames in a direction, nearest first. */
  framesBeyond(frame: FrameJson, direction: -1 | 1): Promise<FrameJson[]>;
  showFrame(frame: FrameJson): Promise<void>;
  /** Whether something else is to be shown, so that playback ends. */
  readonly isInterrupted: boolean;
  /** Called when playback begins, changes its speed, or ends. */
  onPlayingChange(): void;
}

/** The clock that playback follows; ms. */
export interface PlayerClock {
  now(): number;
  wait(ms: number): Promise<void>;
}

export class Player {
  readonly #target: PlayerTarget;
  readonly #clock: PlayerClock;
  #speed = 1;
  #direction: -1 | 1 = 1;
  #isPlaying = false;
  /** Changes when the speed does, so that the pace is reckoned from the frame shown. */
  #paceNumber = 0;

  constructor(target: PlayerTarget, clock: PlayerClock = browserClock) {
    this.#target = target;
    this.#clock = clock;
  }

  get isPlaying(): boolean {
    return this.#isPlaying;
  }

  get speed(): number {
    return this.#speed;
  }

  set speed(value: number) {
    this.#speed = value;
    this.#onChange();
  }

  get direction(): -1 | 1 {
    return this.#direction;
  }

  set direction(value: -1 | 1) {
    this.#direction = value;
    this.#onChange();
  }

  stop(): void {
    this.#isPlaying = false;
    this.#onChange();
  }

  #onChange(): void {
    this.#paceNumber++;
    this.#target.onPlayingChange();
  }

  /** Shows one frame after the other until there is no more, or until `stop`. */
  async run(): Promise<void> {
    if (this.#isPlaying) return;
    this.#isPlaying = true;
    this.#target.onPlayingChange();
    try {
      while (this.#canGoOn()) {
        if (!(await this.#playAtPace())) break;
      }
    } finally {
      this.stop();
    }
  }

  #canGoOn(): boolean {
    return this.#isPlaying && !this.#target.isInterrupted;
  }

  /** Plays until the speed changes. Returns whether there is more. */
  async #playAtPace(): Promise<boolean> {
    const paceNumber = this.#paceNumber;
    const [speed, direction] = [this.#speed, this.#direction];
    let last = this.#target.frame;
    let startedAt = this.#clock.now();
    let elapsedMs = 0;
    let queue: FrameJson[] = [];
    while (last !== undefined && this.#canGoOn()) {
      if (paceNumber !== this.#paceNumber) return true;
      if (queue.length === 0) queue = await this.#target.framesBeyond(last, direction);
      const next = queue.shift();
      if (next === undefined) return false;
      const intervalMs = Math.abs(toMilliseconds(BigInt(next.captured) - BigInt(last.captured)));
      elapsedMs += intervalMs / speed;
      last = next;
      const waitMs = startedAt + elapsedMs - this.#clock.now();
      // A frame that is late is left out, unless it is the last one that is known.
      if (waitMs < 0 && queue.length > 0 && this.#isDue(queue[0]!, next, waitMs, speed)) continue;
      if (waitMs > maxDelayMs) startedAt -= waitMs - maxDelayMs;
      await this.#clock.wait(Math.max(0, Math.min(maxDelayMs, waitMs)));
      if (this.#canGoOn()) await this.#target.showFrame(next);
    }
    return false;
  }

  /** Whether the frame after a late one is due as well. */
  #isDue(after: FrameJson, late: FrameJson, waitMs: number, speed: number): boolean {
    const intervalMs = Math.abs(toMilliseconds(BigInt(after.captured) - BigInt(late.captured)));
    return waitMs + intervalMs / speed <= 0;
  }
}

const browserClock: PlayerClock = {
  now: () => performance.now(),
  wait: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
};
