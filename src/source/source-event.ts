/** Events of sources, and of the search for them. They reach the caller of the library unchanged. */
import type { FramesError } from "../errors.ts";

/** An entry of a directory that is not sent, and the reason. */
export interface SkippedPath {
  readonly path: string;
  readonly why: string;
}

export type SourceEvent =
  /** A link or special file, which is never followed. */
  | { type: "skipped"; skipped: SkippedPath }
  /** A file is sent with the nearest possible capture time, because its own is out of range. */
  | { type: "time-clamped"; path: string }
  /** Says what is unusual about encoded video, such as a stream without key frames. */
  | { type: "notice"; source: string; message: string }
  /** A directory, camera, URL or spool failed, and is tried again. */
  | { type: "retry"; error: FramesError };

/** Called with each event. */
export type OnSourceEvent = (event: SourceEvent) => void;
