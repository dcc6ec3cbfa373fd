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

/** Consecutive frames that were not delivered, for one reason. */
export interface Undelivered {
  readonly source: string;
  readonly first: number;
  readonly last: number;
  /** Name or path of the frame. */
  readonly what: string;
  readonly error: FramesError;
}
