/** What happens at a server. */
import type { FramesError } from "../errors.ts";
import type { FrameDescription } from "../frame.ts";
import type { KeysEvent } from "../keys/key-file.ts";
import type { PlaybackCounts } from "../protocol/playback/playback.ts";
import type { DeletionResult } from "../store/directory/frame-deleter.ts";
import type { Done } from "../wire/messages.ts";

/** A frame that was stored. */
export interface StoredEvent {
  readonly peer: string;
  readonly stream: string;
  readonly source: string;
  readonly frame: FrameDescription;
}

/** What happens at a server. `peer` is the sender's address. */
export type ServeEvent =
  | { type: "recovered"; unfinished: number; replaced: number }
  | {
      type: "session";
      peer: string;
      session: string;
      stream: string;
      software: string;
      /** Name of the key that was proved. */
      key: string | undefined;
    }
  /** Somebody receives; `key` is the name of the key that was proved. */
  | { type: "receiving"; peer: string; stream: string; software: string; key: string | undefined }
  /** It has what it wanted, or went away. */
  | { type: "received"; peer: string; stream: string; counts: PlaybackCounts }
  | KeysEvent
  | {
      type: "refused";
      peer: string;
      stream: string;
      source: string;
      frame: FrameDescription;
      error: FramesError;
    }
  | {
      type: "lost";
      peer: string;
      stream: string;
      source: string;
      frames: number;
      error: FramesError;
    }
  | {
      type: "delivered";
      peer: string;
      session: string;
      stream: string;
      counts: Done;
      /** Frames that were there, so that they were not sent. */
      found: number;
    }
  | {
      type: "failed";
      peer: string;
      session: string | undefined;
      stream: string | undefined;
      /** How the frames before that ended. */
      counts: Done;
      error: FramesError;
    }
  /** The port of the page is taken: the server runs without it. */
  | { type: "no-page"; error: FramesError }
  /** More of one address, within a minute, than were told one by one before they were let in. */
  | { type: "peers-rejected"; host: string; count: number }
  /** Frames that were not to be kept longer; of those that are `stuck` the files cannot be removed. */
  | ({ type: "removed" } & DeletionResult);
