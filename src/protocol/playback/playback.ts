/** Source of the frames that a playback sender sends: the frames of a store, in journal order. */
import type { FramesError } from "../../errors.ts";
import type { Frame, RawShape } from "../../frame.ts";

/** What frames of one source and one session have in common. */
export interface PlaybackSource {
  readonly name: string;
  readonly session: string;
  /** Media type of encoded video. */
  readonly type?: string | undefined;
  readonly raw: RawShape | undefined;
}

/** The next item to send. */
export type PlaybackItem = {
  readonly source: PlaybackSource;
  /** Journal position of the item. For skipped frames, the position of the last one. */
  readonly position: number;
  /**
   * Cursor with which a client resumes after the item; `undefined` if playback cannot resume there.
   */
  readonly cursor: string | undefined;
} & (
  | {
      readonly type: "frame";
      readonly frame: Frame;
      /** Whether a picture of encoded video on which it may depend is not sent. */
      readonly isAfterHole?: boolean;
    }
  /** The frame is journalled but no longer stored. Sent as GONE. */
  | { readonly type: "gone"; readonly sequence: number; readonly name: string }
  /** The frame cannot be sent, or frames were skipped. Sent as LOST. */
  | {
      readonly type: "lost";
      readonly first: number;
      readonly last: number;
      /** Name of the frame, if it may be sent later. */
      readonly name?: string;
      readonly error: FramesError;
    }
);

/** An item that is a frame. */
export type PlaybackFrame = Extract<PlaybackItem, { type: "frame" }>;

export interface Playback {
  /**
   * Returns the next item. Returns `undefined` if none is available now; see `isBusy` and
   * `isEnded`.
   */
  next(): PlaybackItem | undefined;
  /**
   * Journal position of the last item returned or skipped. `Infinity` if only the latest frames are
   * sent.
   */
  readonly position: number;
  /**
   * Whether more items may be available at once although `next` returned none. The caller serves
   * other clients before it asks again.
   */
  readonly isBusy: boolean;
  /** Whether no more items will follow. */
  readonly isEnded: boolean;
  /**
   * Called when reading a frame failed. Returns the item to send instead; `undefined` if `next`
   * returns the frame again or nothing has to be sent.
   */
  onReadError(item: PlaybackFrame, error: FramesError): PlaybackItem | undefined;
}

/** What was sent to a client. */
export interface PlaybackCounts {
  /** Frames that the client has settled, and their payload bytes. */
  readonly frames: number;
  readonly bytes: number;
  /** Frames that were not sent: no longer stored, unreadable or too large, and skipped. */
  readonly gone: number;
  readonly unread: number;
  readonly dropped: number;
  /** Frames that the client refused. */
  readonly refused: number;
}
