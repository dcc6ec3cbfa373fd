/** Events that a server reports to the calling program. */
import type { FramesError } from "../errors.ts";
import type { FrameDescription } from "../frame.ts";
import type { KeysEvent } from "../keys/key-file.ts";
import type { PlaybackCounts } from "../protocol/playback/playback.ts";
import type { RetentionReport } from "../store/directory/retention.ts";
import type { Done } from "../wire/messages.ts";

/** A client, by its address, and the stream that it sends or receives. */
interface ClientStream {
  readonly peer: string;
  readonly stream: string;
}

/** A frame that was stored. */
export interface StoredEvent extends ClientStream {
  readonly source: string;
  readonly frame: FrameDescription;
}

/** A client that has begun. `key` is the name of the proved key. */
interface ClientBegun extends ClientStream {
  readonly software: string;
  readonly key: string | undefined;
}

/** An event of a server. */
export type ServeEvent =
  | { type: "recovered"; unfinished: number; replaced: number }
  | ({ type: "session"; session: string } & ClientBegun)
  /** A client started to receive. */
  | ({ type: "receiving" } & ClientBegun)
  /** A receiving client has all frames it asked for, or closed its sending side. */
  | ({ type: "received"; counts: PlaybackCounts } & ClientStream)
  | KeysEvent
  | ({ type: "refused"; error: FramesError } & StoredEvent)
  | ({ type: "lost"; source: string; frames: number; error: FramesError } & ClientStream)
  /** `found` frames were not sent, because the store had them already. */
  | ({ type: "delivered"; session: string; counts: Done; found: number } & ClientStream)
  /** `counts` has the outcomes of the frames before the error. */
  | {
      type: "failed";
      peer: string;
      session: string | undefined;
      stream: string | undefined;
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
