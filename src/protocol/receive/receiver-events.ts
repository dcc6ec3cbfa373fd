/** Events and limits of a receiver: what it reports to its caller, and what it grants. */
import type { ErrorName, FramesError } from "../../errors.ts";
import type { FrameDescription, Outcome, RunSlice } from "../../frame.ts";
import type { Welcome } from "../../wire/messages.ts";

/** Errors caused by the sender itself, and not by the link or the server. */
export const peerFaults: ReadonlySet<ErrorName> = new Set(["protocol", "damaged", "limit"]);

/** Callbacks of a receiver. */
export interface ReceiverEvents {
  /** Runs costly work. Default: runs it at once. */
  readonly runSlice?: RunSlice;
  /** Returns whether further messages must wait for a slice of work. Default: never. */
  isTurnOver?(): boolean;
  /**
   * Called for each SOURCE. While a returned promise is pending, nothing is read from the peer. An
   * error, thrown or rejected, ends the connection.
   */
  acquireSource?(stream: string, source: string): void | Promise<void>;
  /** Called when a source id is declared for another source. */
  releaseSource?(stream: string, source: string): void;
  /** Called when a frame has ended and its outcome is known. Not called for aborted frames. */
  onFrameEnded?(source: string, frame: FrameDescription, outcome: Outcome): void;
  onLost?(
    source: string,
    frames: number,
    error: FramesError,
    ranges: readonly (readonly [first: number, last: number])[],
  ): void;
  /** Called on a client when the server has admitted it. */
  onWelcome?(welcome: Welcome): void;
  /** Called for GONE: a journalled frame that is no longer at the server. */
  onGone?(source: string, frame: { readonly sequence: number; readonly name: string }): void;
  /**
   * Called for CURSOR, the server's position after the first `ended` frames that ended on this
   * connection.
   */
  onCursor?(cursor: string, ended: number): void;
  /** Called for every message sent or received, for verbose output. */
  trace?(direction: "->" | "<-", line: string): void;
  /** Called for PONG, with the time of the PING that it answers. */
  onPong?(time: string): void;
  /**
   * Called when the store should be flushed: a frame was finished asynchronously, or reading has
   * resumed.
   */
  onFlushNeeded?(): void;
  /** Called when the store failed asynchronously. Pass the error to `fail`. */
  onError?(error: unknown): void;
}

/** Limits that a receiver grants. A server announces them in WELCOME. */
export type ReceiverLimits = Pick<Welcome, "window" | "limits">;

/** Frames and answers that a flush of the store will cover if it begins now. */
export interface FlushSnapshot {
  readonly frames: number;
  readonly answers: number;
}
