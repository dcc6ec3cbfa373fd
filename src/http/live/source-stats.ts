/** Live statistics of one source: newest frame, rate, delay and gaps. */
import type { FrameDescription, SourceInfo, RawShape } from "../../frame.ts";
import { mediaType } from "../media-type.ts";
import { GapCounter } from "./gap-counter.ts";

/** Time over which the rate is averaged. */
const rateWindowSeconds = 5;

/** Seconds per history entry, and number of entries: five minutes in all. */
export const historyEntrySeconds = 2;
export const historyLength = 150;

/** Rate, bandwidth and gaps. */
const valuesPerEntry = 3;

/** Number of recent delays that the median is taken of. */
const maxDelaySamples = 64;

/** Upper bounds of the Prometheus histogram buckets. One more bucket counts longer delays. */
export const delayBucketsSeconds: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];
const delayBucketsMs = delayBucketsSeconds.map((seconds) => seconds * 1000);

/** The newest frame of a source. */
export interface NewestFrame {
  readonly frame: FrameDescription;
  readonly session: string;
  readonly crc32: number;
  readonly raw: RawShape | undefined;
  /** Milliseconds since 1970. */
  readonly received: number;
}

/** Current values of a live source. */
export interface SourceSnapshot {
  /** Frames per second. */
  readonly rate: number;
  /** Bytes per second. */
  readonly bandwidth: number;
  /** Delay from capture to receipt in ms, median of recent frames. */
  readonly delay: number | null;
  readonly number: number;
  readonly captured: bigint;
  readonly received: bigint;
  /** Numbers missing in the current session. */
  readonly gaps: number;
  readonly name: string;
  readonly type: string;
  /** Whether its sender has delivered everything. */
  readonly ended: boolean;
}

/** Counters at one time. */
interface CounterSample {
  readonly at: number;
  readonly frames: number;
  readonly bytes: number;
}

export class SourceStats {
  readonly stream: string;
  readonly source: string;
  /** Frames and bytes stored since the server started. */
  frames = 0;
  bytes = 0;
  /** Numbers given up by senders or the server, since the server started. */
  lost = 0;
  /** Delay histogram: frames per bucket, and the sum of all delays. */
  readonly delayCounts = new Float64Array(delayBucketsMs.length + 1);
  delaySumMs = 0;
  /** Time of the last stored frame, in ms since 1970. */
  receivedAt = 0;
  /** Whether `LiveSources` has forgotten this source. The next frame creates new statistics. */
  isEvicted = false;
  #isEnded = false;
  readonly #gapCounter = new GapCounter();
  #frame: FrameDescription | undefined;
  #info: SourceInfo | undefined;
  #crc32 = 0;
  readonly #delays = new Float32Array(maxDelaySamples);
  #samples: CounterSample[];
  #rate = 0;
  #bandwidth = 0;
  readonly #history = new Float32Array(historyLength * valuesPerEntry);
  /** History entries written so far. The next one overwrites the oldest. */
  #entryCount = 0;
  #lastEntrySample: CounterSample;
  #lastEntryMissing = 0;
  readonly #listeners = new Set<() => void>();
  #notifiedFrames = 0;

  /** @param now ms since 1970 */
  constructor(stream: string, source: string, now: number) {
    this.stream = stream;
    this.source = source;
    this.#lastEntrySample = { at: now, frames: 0, bytes: 0 };
    this.#samples = [this.#lastEntrySample];
  }

  /** Records a stored frame. Runs for each frame, so it must be fast. */
  recordStored(info: SourceInfo, frame: FrameDescription, crc32: number, now: number): void {
    const delay = now - Number(frame.captured) / 1e6;
    this.#delays[this.frames % maxDelaySamples] = delay;
    let index = 0;
    while (index < delayBucketsMs.length && delay > delayBucketsMs[index]!) index++;
    this.delayCounts[index]!++;
    if (delay > 0) this.delaySumMs += delay;
    this.frames++;
    this.bytes += frame.size;
    this.receivedAt = now;
    this.#isEnded = false;
    this.#gapCounter.add(info.session, frame.sequence);
    // A frame that was resent or came from a spool is not the newest.
    const isNewSession = this.#info?.session !== info.session;
    if (isNewSession || frame.sequence >= this.#frame!.sequence) {
      this.#frame = frame;
      this.#info = info;
      this.#crc32 = crc32;
    }
  }

  /** Records numbers that will not arrive; `isLost` if they were given up. */
  recordUnsent(session: string, first: number, last: number, isLost: boolean): void {
    if (isLost) {
      this.lost = Math.min(this.lost + last - first + 1, Number.MAX_SAFE_INTEGER);
      this.#gapCounter.addLost(session, first, last);
    } else this.#gapCounter.addPresent(session, first, last);
  }

  /** Whether the session of the newest frame has delivered everything. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** Records that a session has delivered everything. */
  recordDelivered(session: string): void {
    if (this.#info?.session === session) this.#isEnded = true;
  }

  /** The newest frame, or undefined if none has arrived. */
  get newest(): NewestFrame | undefined {
    const [frame, info] = [this.#frame, this.#info];
    if (frame === undefined || info === undefined) return undefined;
    const { session, raw } = info;
    return { frame, session, crc32: this.#crc32, raw, received: this.receivedAt };
  }

  /** Numbers missing in the current session. */
  get missing(): number {
    return this.#gapCounter.missing;
  }

  /** Returns the median delay from capture to receipt in ms, or undefined without recent frames. */
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

  /** Updates the rates. Called once a second; `isEntry` adds a history entry. */
  updateRates(now: number, isEntry: boolean): void {
    const { frames, bytes } = this;
    const sample = { at: now, frames, bytes };
    this.#samples.push(sample);
    if (this.#samples.length > rateWindowSeconds + 1) this.#samples.shift();
    const oldest = this.#samples[0]!;
    // The interval is too short if the clock was set back or the source has just begun.
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

  /** Entries of rate, bandwidth and gaps, oldest first. */
  get history(): number[][] {
    const sampleCount = Math.min(this.#entryCount, historyLength);
    return Array.from({ length: sampleCount }, (_, index) => {
      const offset = ((this.#entryCount - sampleCount + index) % historyLength) * valuesPerEntry;
      return [...this.#history.subarray(offset, offset + valuesPerEntry)].map(roundToHundredths);
    });
  }

  /** Returns the current values, or undefined if no frame has arrived. */
  snapshot(now: number): SourceSnapshot | undefined {
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
      type: mediaType(name, newest.raw),
      ended: this.#isEnded,
    };
  }

  /**
   * @param listener called often, after frames were committed; must return quickly
   * @returns a function that unsubscribes
   */
  subscribe(listener: () => void): () => void {
    if (this.#listeners.size === 0) this.#notifiedFrames = this.frames;
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  get hasListeners(): boolean {
    return this.#listeners.size > 0;
  }

  /** Calls the listeners if frames were stored since the last call. */
  notify(): void {
    if (this.#notifiedFrames === this.frames) return;
    this.#notifiedFrames = this.frames;
    for (const listener of this.#listeners) listener();
  }
}

function roundToHundredths(value: number): number {
  return Math.round(value * 100) / 100;
}
