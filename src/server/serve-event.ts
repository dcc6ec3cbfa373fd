/** Events that a server reports to the calling program. */
import type { FramesError } from "../errors.ts";
import type { FrameDescription } from "../frame.ts";
import type { KeysEvent } from "../keys/key-file.ts";
import type { PlaybackCounts } from "../protocol/playback/playback.ts";
import type { RetentionReport } from "../store/directory/retention.ts";
import type { Done } from "../wire/messages.ts";

/** A frame that was stored. */
export interface StoredEvent {
  readonly peer: string;
  readonly stream: string;
  readonly source: string;
  readonly frame: FrameDescription;
}

/** An event of a server. `peer` is the address of the client. */
export type ServeEvent =
  | { type: "recovered"; unfinished: number; replaced: number }
  | {
      type: "session";
      peer: string;
      session: string;
      stream: string;
      software: string;
      /** Name of the proved key. */
      key: string | undefined;
    }
  /** A client started to receive. `key` is the name of the proved key. */
  | { type: "receiving"; peer: string; stream: string; software: string; key: string | undefined }
  /** A receiving client has all frames it asked for, or closed its sending side. */
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
      /** Frames that the store had already, so they were not sent. */
      found: number;
    }
  | {
      type: "failed";
      peer: string;
      session: string | undefined;
      stream: string | undefined;
      /** Outcomes of the frames before the error. */
      counts: Done;
      error: FramesError;
    }
  /** The port of the page is in use. The server runs without the page. */
  | { type: "no-page"; error: FramesError }
  /** Rejected connections of an address within a minute that were not reported individually. */
  | { type: "peers-rejected"; host: string; count: number }
  /**
   * Frames removed by retention, `passedOver` of them before a receiving client had them. The files
   * of `undeletable` frames could not be deleted.
   */
  | ({ type: "removed" } & RetentionReport);
