/** Events of a sending client, in either protocol. */
import type { FramesError } from "../errors.ts";
import type { Frame } from "../frame.ts";
import type { SourceProgress } from "../protocol/progress.ts";
import type { FrameEvent } from "../protocol/send/sender-event.ts";
import type { SourceEvent } from "../source/source-event.ts";
import type { SourceReport } from "./undelivered.ts";

/** A delivered frame that was not removed, and why. */
export interface NotRemoved {
  readonly source: string;
  readonly frame: Frame;
  readonly error: FramesError;
}

/** An event about a frame that `move` should have removed. */
export type RemovalEvent =
  | { type: "not-removed"; notRemoved: NotRemoved }
  /** A frame whose name is taken at the server was copied, since a later one may replace it here. */
  | { type: "kept"; path: string };

/** Event of a sending client. */
export type SendEvent =
  | SourceEvent
  | FrameEvent
  | RemovalEvent
  | { type: "found"; stream: string; sources: number; frames: number | undefined }
  /** Describes the frames of a video, a camera or a URL. */
  | { type: "media"; source: string; description: string }
  | { type: "connected"; address: string; store: string | undefined }
  /** There is no connection; the next attempt is made after the pause. */
  | { type: "waiting"; reason: FramesError; milliseconds: number }
  /** Comes about once a second while there is a connection. */
  | { type: "progress"; sources: readonly SourceProgress[]; report: () => readonly SourceReport[] };
