/** Where a provider's frames come from: what a store holds, in the order in which it came. */
import type { FramesError } from "../../errors.ts";
import type { Frame, RawShape } from "../../frame.ts";

/** What frames have in common that are of one source and came in one session. */
export interface PlaybackSource {
  readonly name: string;
  readonly session: string;
  readonly raw: RawShape | undefined;
}

/** What comes next. */
export type PlaybackItem = {
  readonly source: PlaybackSource;
  /** Its place in the order; where frames were passed over, that of the last. */
  readonly position: number;
  /** What a client says to go on behind it; nothing where nobody can go on. */
  readonly cursor: string | undefined;
} & (
  | { readonly type: "frame"; readonly frame: Frame }
  /** The frame is no longer there. */
  | { readonly type: "gone"; readonly sequence: number; readonly name: string }
  /** The frame cannot be sent, or frames were passed over. */
  | {
      readonly type: "lost";
      readonly first: number;
      readonly last: number;
      readonly error: FramesError;
    }
);

/** A frame that comes next. */
export type PlaybackFrame = Extract<PlaybackItem, { type: "frame" }>;

export interface Playback {
  /** What comes next; nothing if there is nothing for now, or it must be looked for a while: see `isBusy`. */
  next(): PlaybackItem | undefined;
  /** Has what `next` gave last given again. */
  unshift(item: PlaybackItem): void;
  /** The place of the last that was given, or passed over; where the newest alone count, beyond all. */
  readonly position: number;
  /** Whether there may be more at once, although `next` gave nothing: others have their turn first. */
  readonly isBusy: boolean;
  /** Whether nothing more will come. */
  readonly isEnded: boolean;
  /**
   * A frame could not be read: what is said instead. Nothing if it need not be sent any more, or comes
   * again by `next`.
   */
  onReadError(item: PlaybackFrame, error: FramesError): PlaybackItem | undefined;
}

/** What went to a client. */
export interface PlaybackCounts {
  /** Frames that it has settled, and their bytes. */
  readonly frames: number;
  readonly bytes: number;
  /** Frames that were no longer there, that could not be read or were too large, and that were passed over. */
  readonly gone: number;
  readonly unread: number;
  readonly dropped: number;
  /** Frames that it refused. */
  readonly refused: number;
}
