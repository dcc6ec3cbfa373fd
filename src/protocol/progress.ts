/** Progress of a transfer for each source, as shown in progress lines and summaries. */
import type { FramesError } from "../errors.ts";
import type { DelayHistogram } from "./delay-histogram.ts";

/** Progress of one source. */
export interface SourceProgress {
  readonly name: string;
  /** Frames in total, if the source knows it. */
  readonly total: number | undefined;
  /** Sequence numbers assigned so far. */
  readonly capturedCount: number;
  /** Frames sent completely, and payload bytes sent. A frame sent again counts once. */
  sent: number;
  bytes: number;
  /** Frames settled. Includes refused frames, and frames not sent because the server had them. */
  settled: number;
  /** Payload bytes of frames that were sent and settled. */
  settledBytes: number;
  /** Frames not sent because the server had stored them already. */
  present: number;
  /** Frames not sent because the server had stored them and they were moved away since. */
  removedAtServer: number;
  refused: number;
  /** Frames not stored because of a name conflict, with `--on-conflict skip`. */
  conflictsSkipped: number;
  /** Sequence numbers that were never sent. */
  lost: number;
  /** Part of `lost`: frames dropped by a full queue. */
  dropped: number;
  /** Pictures of encoded video that may be damaged, because others were dropped before them. */
  readonly maybeDamaged?: number;
  /** Frames sent more than once, because a connection broke before their receipt. */
  retried: number;
  /** Delays from capture to receipt; only for live sources. */
  readonly delays: DelayHistogram | undefined;
  /** Bytes sent and total size of the large frame in flight; 0 when there is none. */
  largeFrameSent: number;
  largeFrameSize: number;
}

/** Counts of a source before its first frame. */
export const noProgress = {
  sent: 0,
  bytes: 0,
  settled: 0,
  settledBytes: 0,
  present: 0,
  removedAtServer: 0,
  refused: 0,
  conflictsSkipped: 0,
  lost: 0,
  dropped: 0,
  retried: 0,
  delays: undefined,
  largeFrameSent: 0,
  largeFrameSize: 0,
} as const satisfies Partial<SourceProgress>;

/** Consecutive frames that were not delivered, for one reason. */
export interface Undelivered {
  readonly source: string;
  readonly first: number;
  readonly last: number;
  /** Name or path of the frame. */
  readonly what: string;
  readonly error: FramesError;
}

/** Adds up all sources, as one named `total`. */
export function totalProgress(sources: readonly SourceProgress[]): SourceProgress {
  const { delays, ...none } = noProgress;
  const counts: Record<keyof typeof none | "capturedCount", number> = { ...none, capturedCount: 0 };
  let total: number | undefined = 0;
  // Two half-sent frames count as one frame, regardless of their sizes.
  let partialFrames = 0;
  for (const source of sources) {
    for (const name of Object.keys(counts) as (keyof typeof counts)[]) counts[name] += source[name];
    total = total === undefined || source.total === undefined ? undefined : total + source.total;
    if (source.largeFrameSize > 0) partialFrames += source.largeFrameSent / source.largeFrameSize;
  }
  const largeFrameSize = partialFrames > 0 ? counts.largeFrameSent / partialFrames : 0;
  return { ...counts, name: "total", total, delays, largeFrameSize };
}

/** Frames that the receiving side has now: without those that it refused, skipped or moved away. */
export function deliveredCount(progress: SourceProgress): number {
  const { settled, refused, removedAtServer, conflictsSkipped } = progress;
  return settled - refused - removedAtServer - conflictsSkipped;
}
