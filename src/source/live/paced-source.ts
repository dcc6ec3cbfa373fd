/** A source that releases frames at a fixed rate or at the intervals of their capture. */
import type { FramesError } from "../../errors.ts";
import type { Frame, FrameSource, Loss, RawShape } from "../../frame.ts";

/** Decides when frames are released. Times are milliseconds of one monotonic clock. */
export interface Pacer {
  /** Returns when to request the next frame. A frame requested later is fresher. */
  requestAt(): number;
  /** Returns when a requested frame may be released. */
  releaseAt(frame: Frame, now: number): number;
}

/** Releases frames evenly, at most at a given rate. */
export class RatePacer implements Pacer {
  readonly #intervalMs: number;
  #nextTime = 0;

  /** @param rate frames per second */
  constructor(rate: number) {
    this.#intervalMs = 1000 / rate;
  }

  requestAt(): number {
    return this.#nextTime;
  }

  releaseAt(_frame: Frame, now: number): number {
    // Catches up after a delay shorter than one interval; after a longer one, restarts without a
    // burst.
    this.#nextTime =
      (now - this.#nextTime < this.#intervalMs ? this.#nextTime : now) + this.#intervalMs;
    return now;
  }
}

/** Releases frames at the intervals of their capture. All sources of a recording share one. */
export class ReplayPacer implements Pacer {
  #start: { captured: bigint; at: number } | undefined;

  requestAt(): number {
    return 0;
  }

  releaseAt({ captured }: Frame, now: number): number {
    this.#start ??= { captured, at: now };
    return this.#start.at + Number(captured - this.#start.captured) / 1e6;
  }
}

/** Longest delay of a timer, in milliseconds. */
const maxTimerMs = 2 ** 31 - 1;

export class PacedSource implements FrameSource {
  readonly name: string;
  readonly type: string | undefined;
  readonly raw: RawShape | undefined;
  readonly isLive: boolean | undefined;
  readonly usesLiveWindow: boolean | undefined;
  readonly stopCapture: FrameSource["stopCapture"];
  readonly startCapture: FrameSource["startCapture"];
  readonly onConnected: FrameSource["onConnected"];
  readonly onDisconnected: FrameSource["onDisconnected"];
  readonly onSettled: FrameSource["onSettled"];
  readonly remove: FrameSource["remove"];
  readonly keepCopy: FrameSource["keepCopy"];
  readonly #source: FrameSource;
  readonly #pacer: Pacer;
  readonly #now: () => number;
  #cancelWait = () => {};
  /** The frame that waits to be released. */
  #held: Frame | undefined;
  #hasStopped = false;

  /** @param now returns milliseconds of the clock that `pacer` uses */
  constructor(source: FrameSource, pacer: Pacer, now: () => number) {
    this.name = source.name;
    this.type = source.type;
    this.raw = source.raw;
    this.isLive = source.isLive;
    this.usesLiveWindow = source.usesLiveWindow;
    this.stopCapture = source.stopCapture && (() => this.#stop());
    this.startCapture = source.startCapture?.bind(source);
    this.onConnected = source.onConnected?.bind(source);
    this.onDisconnected = source.onDisconnected && ((frames) => this.#onDisconnected(frames));
    this.onSettled = source.onSettled?.bind(source);
    this.remove = source.remove?.bind(source);
    this.keepCopy = source.keepCopy?.bind(source);
    this.#source = source;
    this.#pacer = pacer;
    this.#now = now;
  }

  get total(): number | undefined {
    return this.#source.total;
  }

  get capturedCount(): number {
    return this.#source.capturedCount ?? 0;
  }

  get unreportedLosses(): readonly Loss[] {
    return this.#source.unreportedLosses ?? [];
  }

  async next(): Promise<Frame | Loss | undefined> {
    for (;;) {
      await this.#waitUntil(this.#pacer.requestAt());
      const item = await this.#source.next(false);
      if (item === undefined || "error" in item) return item;
      this.#held = item;
      await this.#waitUntil(this.#pacer.releaseAt(item, this.#now()));
      // Otherwise the source has taken it back, and returns it again.
      const isHeld = this.#held === item;
      this.#held = undefined;
      if (isHeld) return item;
    }
  }

  #onDisconnected(frames: readonly Frame[]): readonly Frame[] {
    const held = this.#held;
    if (held === undefined) return this.#source.onDisconnected!(frames);
    const kept = this.#source.onDisconnected!([...frames, held]);
    if (!kept.includes(held)) this.#held = undefined;
    return kept.filter((frame) => frame !== held);
  }

  /** Waits until `time`, or until the source stops. Frames captured before the stop go at once. */
  async #waitUntil(time: number): Promise<void> {
    for (let waitMs; (waitMs = time - this.#now()) > 0 && !this.#hasStopped;) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#cancelWait = resolve;
      const timer = setTimeout(resolve, Math.min(waitMs, maxTimerMs));
      await promise;
      clearTimeout(timer);
    }
  }

  retry(frame: Frame, error: FramesError): Frame | Loss {
    return this.#source.retry(frame, error);
  }

  #stop(): void {
    this.#hasStopped = true;
    this.#cancelWait();
    this.#source.stopCapture!();
  }

  close(): void {
    this.#hasStopped = true;
    this.#cancelWait();
    this.#source.close();
  }
}
