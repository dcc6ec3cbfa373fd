/** A source that gives its frames at a pace: so many a second, or as far apart as they were captured. */
import type { FramesError } from "../errors.ts";
import type { Frame, FrameSource, Loss, RawShape } from "../frame.ts";

/** When frames are given, in milliseconds of one steady clock. */
export interface Pace {
  /** When the next frame may be asked for: what is asked for later is fresher. */
  askAt(): number;
  /** When a frame that was asked for may go. */
  goAt(frame: Frame, now: number): number;
}

/** At most so many frames a second, evenly. */
export class Rate implements Pace {
  readonly #every: number;
  #next = 0;

  /** @param rate frames a second */
  constructor(rate: number) {
    this.#every = 1000 / rate;
  }

  askAt(): number {
    return this.#next;
  }

  goAt(_frame: Frame, now: number): number {
    // A little late is made up for, but whoever was held up does not hurry after.
    this.#next = (now - this.#next < this.#every ? this.#next : now) + this.#every;
    return now;
  }
}

/** As the frames were captured: one for all sources of a recording. */
export class Replay implements Pace {
  #began: { captured: bigint; at: number } | undefined;

  askAt(): number {
    return 0;
  }

  goAt({ captured }: Frame, now: number): number {
    this.#began ??= { captured, at: now };
    return this.#began.at + Number(captured - this.#began.captured) / 1e6;
  }
}

/** The longest that a timer can wait, in milliseconds. */
const longestWait = 2 ** 31 - 1;

export class PacedSource implements FrameSource {
  readonly name: string;
  readonly type?: string;
  readonly raw?: RawShape;
  readonly isLive?: boolean;
  readonly keepsFresh?: boolean;
  readonly stop?: () => void;
  readonly begin?: () => void;
  readonly connected?: () => void;
  readonly disconnected?: (frames: readonly Frame[]) => readonly Frame[];
  readonly settled?: (frame: Frame) => void;
  readonly remove?: (frame: Frame, crc32: number) => Promise<void>;
  readonly #source: FrameSource;
  readonly #pace: Pace;
  readonly #now: () => number;
  #endWait = () => {};
  #hasStopped = false;

  /** @param now milliseconds of the clock that `pace` goes by */
  constructor(source: FrameSource, pace: Pace, now: () => number) {
    const { name, type, raw, isLive, keepsFresh } = source;
    this.name = name;
    if (type !== undefined) this.type = type;
    if (raw !== undefined) this.raw = raw;
    if (isLive !== undefined) this.isLive = isLive;
    if (keepsFresh !== undefined) this.keepsFresh = keepsFresh;
    if (source.stop !== undefined) this.stop = () => this.#stop();
    if (source.begin !== undefined) this.begin = () => source.begin!();
    if (source.connected !== undefined) this.connected = () => source.connected!();
    if (source.disconnected !== undefined) {
      this.disconnected = (frames) => source.disconnected!(frames);
    }
    if (source.settled !== undefined) this.settled = (frame) => source.settled!(frame);
    if (source.remove !== undefined) {
      this.remove = async (frame, crc32) => await source.remove!(frame, crc32);
    }
    this.#source = source;
    this.#pace = pace;
    this.#now = now;
  }

  get total(): number | undefined {
    return this.#source.total;
  }

  get captured(): number {
    return this.#source.captured ?? 0;
  }

  get untold(): readonly Loss[] {
    return this.#source.untold ?? [];
  }

  async next(): Promise<Frame | Loss | undefined> {
    await this.#waitUntil(this.#pace.askAt());
    const item = await this.#source.next(false);
    if (item !== undefined && !("error" in item)) {
      await this.#waitUntil(this.#pace.goAt(item, this.#now()));
    }
    return item;
  }

  /** What was captured before the end goes at once. */
  async #waitUntil(time: number): Promise<void> {
    for (let wait; (wait = time - this.#now()) > 0 && !this.#hasStopped;) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#endWait = resolve;
      const timer = setTimeout(resolve, Math.min(wait, longestWait));
      await promise;
      clearTimeout(timer);
    }
  }

  again(frame: Frame, error: FramesError): Frame | Loss {
    return this.#source.again(frame, error);
  }

  #stop(): void {
    this.#hasStopped = true;
    this.#endWait();
    this.#source.stop!();
  }

  close(): void {
    this.#hasStopped = true;
    this.#endWait();
    this.#source.close();
  }
}
