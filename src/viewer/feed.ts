/** One source while it is live: what came last, how fast, how late, and what is missing. */
import type { FrameDescription, FrameOrigin, RawShape } from "../frame.ts";
import { Numbers } from "./numbers.ts";

/** Seconds that a rate is taken over. */
const window = 5;

/** One entry of the history is for so many seconds, and there are so many entries. */
export const entrySeconds = 2;
export const entries = 150;

/** Rate, bandwidth and gaps. */
const values = 3;

/** Delays that the median is taken of. */
const delaysKept = 64;

/** Upper ends of the classes of delays, in seconds, for Prometheus; what took longer is in one more. */
export const delayClasses: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];
const classEnds = delayClasses.map((seconds) => seconds * 1000);

/** The frame of a source that came last. */
export interface Newest {
  readonly frame: FrameDescription;
  readonly session: string;
  readonly crc32: number;
  readonly raw: RawShape | undefined;
  /** Milliseconds since 1970. */
  readonly received: number;
}

/** What is shown of a live source. */
export interface LiveState {
  /** Frames a second. */
  readonly rate: number;
  /** Bytes a second. */
  readonly bandwidth: number;
  /** Milliseconds from capture to receipt, the median of the last seconds. */
  readonly delay: number | null;
  readonly number: number;
  readonly captured: bigint;
  readonly received: bigint;
  /** Numbers missing in this session. */
  readonly gaps: number;
  readonly name: string;
  readonly type: string;
}

/** Sums at a moment. */
interface Mark {
  readonly at: number;
  readonly frames: number;
  readonly bytes: number;
}

export class Feed {
  readonly stream: string;
  readonly source: string;
  /** Since the server began. */
  frames = 0;
  bytes = 0;
  /** Numbers that senders and server gave up, since the server began. */
  lost = 0;
  /** Of delays: frames in each class, and their sum in milliseconds. */
  readonly delayCounts = new Float64Array(classEnds.length + 1);
  delaySum = 0;
  /** When a frame came last, in milliseconds since 1970. */
  received = 0;
  /** Whether others took its place: the next frame begins anew. */
  isForgotten = false;
  readonly #numbers = new Numbers();
  #frame: FrameDescription | undefined;
  #origin: FrameOrigin | undefined;
  #crc32 = 0;
  readonly #delays = new Float32Array(delaysKept);
  #marks: Mark[];
  #rate = 0;
  #bandwidth = 0;
  readonly #history = new Float32Array(entries * values);
  /** Entries of the history that were written; the next one goes where the oldest is. */
  #entries = 0;
  #told: Mark;
  #missingTold = 0;
  readonly #watchers = new Set<() => void>();
  #woken = 0;

  /** @param now milliseconds since 1970 */
  constructor(stream: string, source: string, now: number) {
    this.stream = stream;
    this.source = source;
    this.#told = { at: now, frames: 0, bytes: 0 };
    this.#marks = [this.#told];
  }

  /** A frame was stored: called for each, so it does little. */
  stored(origin: FrameOrigin, frame: FrameDescription, crc32: number, now: number): void {
    const delay = now - Number(frame.captured) / 1e6;
    this.#delays[this.frames % delaysKept] = delay;
    let index = 0;
    while (index < classEnds.length && delay > classEnds[index]!) index++;
    this.delayCounts[index]!++;
    if (delay > 0) this.delaySum += delay;
    this.frames++;
    this.bytes += frame.size;
    this.received = now;
    this.#numbers.came(origin.session, frame.sequence);
    // What was sent again, or waited in a spool, is not the newest.
    const isOther = this.#origin?.session !== origin.session;
    if (isOther || frame.sequence >= this.#frame!.sequence) {
      this.#frame = frame;
      this.#origin = origin;
      this.#crc32 = crc32;
    }
  }

  /** These numbers will not come; `isLost` if that is because frames were lost. */
  passed(session: string, first: number, last: number, isLost: boolean): void {
    if (isLost) {
      this.lost = Math.min(this.lost + last - first + 1, Number.MAX_SAFE_INTEGER);
      this.#numbers.lost(session, first, last);
    } else this.#numbers.found(session, first, last);
  }

  /** The frame that came last, if one did. */
  get newest(): Newest | undefined {
    const [frame, origin] = [this.#frame, this.#origin];
    if (frame === undefined || origin === undefined) return undefined;
    const { session, raw } = origin;
    return { frame, session, crc32: this.#crc32, raw, received: this.received };
  }

  /** Numbers missing in this session. */
  get missing(): number {
    return this.#numbers.missing;
  }

  /** Milliseconds from capture to receipt: the median of the last seconds, if anything came in them. */
  delay(now: number): number | undefined {
    const count = Math.min(this.frames, delaysKept);
    if (count === 0 || now - this.received > window * 2000) return undefined;
    const sorted = this.#delays.slice(0, count).sort();
    return sorted[count >> 1];
  }

  get rate(): number {
    return this.#rate;
  }

  get bandwidth(): number {
    return this.#bandwidth;
  }

  /** Once a second: how fast it is. `isEntry` if it is time for an entry of the history. */
  tick(now: number, isEntry: boolean): void {
    const { frames, bytes } = this;
    const mark = { at: now, frames, bytes };
    this.#marks.push(mark);
    if (this.#marks.length > window + 1) this.#marks.shift();
    const since = this.#marks[0]!;
    // A clock that was set back, or a source that has only begun, tells nothing.
    if (now - since.at >= 500) {
      const seconds = (now - since.at) / 1000;
      this.#rate = (frames - since.frames) / seconds;
      this.#bandwidth = (bytes - since.bytes) / seconds;
    }
    if (isEntry) this.#addEntry(mark);
  }

  #addEntry(mark: Mark): void {
    const seconds = Math.max(0.5, (mark.at - this.#told.at) / 1000);
    const { missing } = this;
    this.#history.set(
      [
        (mark.frames - this.#told.frames) / seconds,
        (mark.bytes - this.#told.bytes) / seconds,
        Math.max(0, missing - this.#missingTold),
      ],
      (this.#entries % entries) * values,
    );
    this.#entries++;
    this.#told = mark;
    this.#missingTold = missing;
  }

  /** Rate, bandwidth and gaps of the last minutes, oldest first. */
  get history(): number[][] {
    const count = Math.min(this.#entries, entries);
    return Array.from({ length: count }, (_, index) => {
      const at = ((this.#entries - count + index) % entries) * values;
      return [...this.#history.subarray(at, at + values)].map(rounded);
    });
  }

  /** What is shown of it, if anything came. */
  state(now: number, typeOf: (newest: Newest) => string): LiveState | undefined {
    const { newest } = this;
    if (newest === undefined) return undefined;
    const { name, sequence, captured } = newest.frame;
    const delay = this.delay(now);
    return {
      rate: rounded(this.#rate),
      bandwidth: Math.round(this.#bandwidth),
      delay: delay === undefined ? null : rounded(delay),
      number: sequence,
      captured,
      received: BigInt(newest.received) * 1_000_000n,
      gaps: this.missing,
      name,
      type: typeOf(newest),
    };
  }

  /**
   * @param wake is called when a frame came, often: it must only note that and return
   * @returns what ends it
   */
  watch(wake: () => void): () => void {
    if (this.#watchers.size === 0) this.#woken = this.frames;
    this.#watchers.add(wake);
    return () => void this.#watchers.delete(wake);
  }

  get isWatched(): boolean {
    return this.#watchers.size > 0;
  }

  /** Tells those who watch if anything came since they were told last. */
  wake(): void {
    if (this.#woken === this.frames) return;
    this.#woken = this.frames;
    for (const wake of this.#watchers) wake();
  }
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}
