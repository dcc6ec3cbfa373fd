/** Events of a sending client, in either protocol. */
import type { FramesError } from "../errors.ts";
import type { Frame } from "../frame.ts";
import type { FrameEvent } from "../protocol/send/sender-event.ts";
import type { SourceEvent } from "../source/source-event.ts";
import type { TransferEvent } from "./transfer.ts";

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
  | TransferEvent
  | SourceEvent
  | FrameEvent
  | RemovalEvent
  | { type: "found"; stream: string; sources: number; frames: number | undefined }
  /** Describes the frames of a video, a camera or a URL. */
  | { type: "media"; source: string; description: string }
  | { type: "connected"; address: string; store: string | undefined };
