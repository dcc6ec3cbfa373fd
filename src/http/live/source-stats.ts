/** One source while it is live: what came last, how fast, how late, and what is missing. */
import type { FrameDescription, SourceInfo, RawShape } from "../../frame.ts";
import { GapCounter } from "./gap-counter.ts";

/** Seconds that a rate is taken over. */
const rateWindowSeconds = 5;

/** One entry of the history is for so many seconds, and there are so many entries. */
export const historyEntrySeconds = 2;
export const historyLength = 150;

/** Rate, bandwidth and gaps. */
const valuesPerEntry = 3;

/** Delays that the median is taken of. */
const maxDelaySamples = 64;

/** Upper ends of the classes of delays, in seconds, for Prometheus; what took longer is in one more. */
export const delayBucketsSeconds: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];
const delayBucketsMs = delayBucketsSeconds.map((seconds) => seconds * 1000);

/** The frame of a source that came last. */
export interface NewestFrame {
  readonly frame: FrameDescription;
  readonly session: string;
  readonly crc32: number;
  readonly raw: RawShape | undefined;
  /** Milliseconds since 1970. */
  readonly received: number;
}

/** What is shown of a live source. */
export interface SourceSnapshot {
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
interface CounterSample {
  readonly at: number;
  readonly frames: number;
  readonly bytes: number;
}

export class SourceStats {
  readonly stream: string;
  readonly source: string;
  /** Since the server began. */
  frames = 0;
  bytes = 0;
  /** Numbers that senders and server gave up, since the server began. */
  lost = 0;
  /** Of delays: frames in each class, and their sum in milliseconds. */
  readonly delayCounts = new Float64Array(delayBucketsMs.length + 1);
  delaySumMs = 0;
  /** When a frame came last, in milliseconds since 1970. */
  receivedAt = 0;
  /** Whether others took its place: the next frame begins anew. */
  isEvicted = false;
  readonly #gapCounter = new GapCounter();
  #frame: FrameDescription | undefined;
  #origin: SourceInfo | undefined;
  #crc32 = 0;
  readonly #delays = new Float32Array(maxDelaySamples);
  #samples: CounterSample[];
  #rate = 0;
  #bandwidth = 0;
  readonly #history = new Float32Array(historyLength * valuesPerEntry);
  /** Entries of the history that were written; the next one goes where the oldest is. */
  #entryCount = 0;
  #lastEntrySample: CounterSample;
  #lastEntryMissing = 0;
  readonly #listeners = new Set<() => void>();
  #notifiedFrames = 0;

  /** @param now milliseconds since 1970 */
  constructor(stream: string, source: string, now: number) {
    this.stream = stream;
    this.source = source;
    this.#lastEntrySample = { at: now, frames: 0, bytes: 0 };
    this.#samples = [this.#lastEntrySample];
  }

  /** A frame was stored: called for each, so it does little. */
  recordStored(origin: SourceInfo, frame: FrameDescription, crc32: number, now: number): void {
    const delay = now - Number(frame.captured) / 1e6;
    this.#delays[this.frames % maxDelaySamples] = delay;
    let index = 0;
    while (index < delayBucketsMs.length && delay > delayBucketsMs[index]!) index++;
    this.delayCounts[index]!++;
    if (delay > 0) this.delaySumMs += delay;
    this.frames++;
    this.bytes += frame.size;
    this.receivedAt = now;
    this.#gapCounter.add(origin.session, frame.sequence);
    // What was sent again, or waited in a spool, is not the newest.
    const isNewSession = this.#origin?.session !== origin.session;
    if (isNewSession || frame.sequence >= this.#frame!.sequence) {
      this.#frame = frame;
      this.#origin = origin;
      this.#crc32 = crc32;
    }
  }

  /** These numbers will not come; `isLost` if that is because frames were lost. */
  recordUnsent(session: string, first: number, last: number, isLost: boolean): void {
    if (isLost) {
      this.lost = Math.min(this.lost + last - first + 1, Number.MAX_SAFE_INTEGER);
      this.#gapCounter.addLost(session, first, last);
    } else this.#gapCounter.addPresent(session, first, last);
  }

  /** The frame that came last, if one did. */
  get newest(): NewestFrame | undefined {
    const [frame, origin] = [this.#frame, this.#origin];
    if (frame === undefined || origin === undefined) return undefined;
    const { session, raw } = origin;
    return { frame, session, crc32: this.#crc32, raw, received: this.receivedAt };
  }

  /** Numbers missing in this session. */
  get missing(): number {
    return this.#gapCounter.missing;
  }

  /** Milliseconds from capture to receipt: the median of the last seconds, if anything came in them. */
  medianDelay(now: number): number | undefined {
    const sampleCount = Math.min(this.frames, maxDelaySamples);
    if (sampleCount === 0 || now - this.receivedAt > rateWindowSeconds * 2000) return undefined;
    const sorted = this.#delays.slice(0, sampleCount).sort();
    return sorted[sampleCount >> 1];
  }

  get rate(): number {
    return this.#rate;
  }

  get bandwidth(): number {
    return this.#bandwidth;
  }

  /** Once a second: how fast it is. `isEntry` if it is time for an entry of the history. */
  updateRates(now: number, isEntry: boolean): void {
    const { frames, bytes } = this;
    const sample = { at: now, frames, bytes };
    this.#samples.push(sample);
    if (this.#samples.length > rateWindowSeconds + 1) this.#samples.shift();
    const oldest = this.#samples[0]!;
    // A clock that was set back, or a source that has only begun, tells nothing.
    if (now - oldest.at >= 500) {
      const elapsedSeconds = (now - oldest.at) / 1000;
      this.#rate = (frames - oldest.frames) / elapsedSeconds;
      this.#bandwidth = (bytes - oldest.bytes) / elapsedSeconds;
    }
    if (isEntry) this.#addEntry(sample);
  }

  #addEntry(sample: CounterSample): void {
    const elapsedSeconds = Math.max(0.5, (sample.at - this.#lastEntrySample.at) / 1000);
    const { missing } = this;
    this.#history.set(
      [
        (sample.frames - this.#lastEntrySample.frames) / elapsedSeconds,
        (sample.bytes - this.#lastEntrySample.bytes) / elapsedSeconds,
        Math.max(0, missing - this.#lastEntryMissing),
      ],
      (this.#entryCount % historyLength) * valuesPerEntry,
    );
    this.#entryCount++;
    this.#lastEntrySample = sample;
    this.#lastEntryMissing = missing;
  }

  /** Rate, bandwidth and gaps of the last minutes, oldest first. */
  get history(): number[][] {
    const sampleCount = Math.min(this.#entryCount, historyLength);
    return Array.from({ length: sampleCount }, (_, index) => {
      const offset = ((this.#entryCount - sampleCount + index) % historyLength) * valuesPerEntry;
      return [...this.#history.subarray(offset, offset + valuesPerEntry)].map(roundToHundredths);
    });
  }

  /** What is shown of it, if anything came. */
  snapshot(now: number, mediaTypeOf: (newest: NewestFrame) => string): SourceSnapshot | undefined {
    const { newest } = this;
    if (newest === undefined) return undefined;
    const { name, sequence, captured } = newest.frame;
    const delay = this.medianDelay(now);
    return {
      rate: roundToHundredths(this.#rate),
      bandwidth: Math.round(this.#bandwidth),
      delay: delay === undefined ? null : roundToHundredths(delay),
      number: sequence,
      captured,
      received: BigInt(newest.received) * 1_000_000n,
      gaps: this.missing,
      name,
      type: mediaTypeOf(newest),
    };
  }

  /**
   * @param listener is called when a frame came, often: it must only note that and return
   * @returns what ends it
   */
  subscribe(listener: () => void): () => void {
    if (this.#listeners.size === 0) this.#notifiedFrames = this.frames;
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  get hasListeners(): boolean {
    return this.#listeners.size > 0;
  }

  /** Tells those who watch if anything came since they were told last. */
  notify(): void {
    if (this.#notifiedFrames === this.frames) return;
    this.#notifiedFrames = this.frames;
    for (const listener of this.#listeners) listener();
  }
}

function roundToHundredths(value: number): number {
  return Math.round(value * 100) / 100;
}
