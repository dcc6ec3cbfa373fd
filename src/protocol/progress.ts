/** What a transfer has done so far, source by source, for progress lines and summaries. */
import type { FramesError } from "../errors.ts";
import type { DelayHistogram } from "./delay-histogram.ts";

/** How far the delivery of one source is. */
export interface SourceProgress {
  readonly name: string;
  /** Frames to come in all, if that is known. */
  readonly total: number | undefined;
  /** Numbers given so far. */
  readonly capturedCount: number;
  /** Frames sent whole, and bytes of payload sent; what has to be sent again is counted once. */
  sent: number;
  bytes: number;
  /** Frames settled, those refused or not sent because they were there included. */
  settled: number;
  /** Bytes of frames that were sent and settled. */
  settledBytes: number;
  /** Frames that the server had already, so that they were not sent. */
  present: number;
  /** Likewise, but they were moved away from there since. */
  removedAtServer: number;
  refused: number;
  /** Frames that were left out because their names are taken, as it was asked for. */
  conflictsSkipped: number;
  /** Numbers that were never sent. */
  lost: number;
  /** Of these, frames that a full queue dropped. */
  dropped: number;
  /** Frames that had to be sent more than once. */
  retried: number;
  /** From capture to receipt, where frames come as they are captured. */
  readonly delays: DelayHistogram | undefined;
  /** The large frame that is under way, until its receipt: bytes sent, and in all. */
  largeFrameSent: number;
  largeFrameSize: number;
}

/** Frames that were not delivered, and why. */
export interface Undelivered {
  readonly source: string;
  readonly first: number;
  readonly last: number;
  /** Name or path of the frame. */
  readonly what: string;
  readonly error: FramesError;
}
