/** Events and options of a receiver, and limits that it grants. */
import type { ErrorName, FramesError } from "../../errors.ts";
import type { FrameDescription, FrameStore, Outcome, RunSlice } from "../../frame.ts";
import type { Welcome } from "../../wire/messages.ts";
import type { AdmittedClient, ClientHandshake } from "../handshake.ts";

/** Errors caused by the sender itself, and not by the link or the server. */
export const peerFaults: ReadonlySet<ErrorName> = new Set(["protocol", "damaged", "limit"]);

/** An event of the connection of a receiver. */
export type ReceiverEvent =
  /** At a client: the server has admitted it. */
  | { readonly type: "welcome"; readonly welcome: Welcome }
  /** A frame has ended and its outcome is known. Aborted frames are not reported. */
  | {
      readonly type: "frame";
      readonly source: string;
      readonly frame: FrameDescription;
      readonly outcome: Outcome;
    }
  | {
      readonly type: "lost";
      readonly source: string;
      readonly frames: number;
      readonly error: FramesError;
      readonly ranges: readonly (readonly [first: number, last: number])[];
    }
  /** A journalled frame is no longer at the server (GONE). */
  | {
      readonly type: "gone";
      readonly source: string;
      readonly sequence: number;
      readonly name: string;
    }
  /** The server's position after the first `endedFrames` frames that ended on this connection. */
  | { readonly type: "cursor"; readonly cursor: string; readonly endedFrames: number }
  /** The answer to the PING of this time. */
  | { readonly type: "pong"; readonly time: string };

/** The caller of a receiver. */
export interface ReceiverHost {
  /** An error that it throws ends the connection. */
  onEvent?(event: ReceiverEvent): void;
  /** Whether frames that were not refused are reported as well. */
  readonly reportsStored?: boolean;
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
  /** Called for every message sent or received, for verbose output. */
  readonly trace?: ((direction: "->" | "<-", line: string) => void) | undefined;
  /**
   * Called when the store should be flushed: a frame was finished asynchronously, or reading has
   * resumed.
   */
  onFlushNeeded?(): void;
  /** Called when the store failed asynchronously. Pass the error to `fail`. */
  onError?(error: unknown): void;
}

/** Options of a receiver. */
export interface ReceiverOptions extends ReceiverHost {
  readonly store: FrameStore;
  readonly grants: ReceiverLimits;
  /** A peer silent for this long counts as gone. */
  readonly timeoutMs: number;
  /** Milliseconds since 1970 of a clock that never jumps, as in all methods. */
  readonly now: number;
  /** At a server the client, whose WELCOME is queued; at a client its own handshake. */
  readonly peer: AdmittedClient | ClientHandshake;
}

/** Limits that a receiver grants. A server announces them in WELCOME. */
export type ReceiverLimits = Pick<Welcome, "window" | "limits">;

/** Frames and answers that a flush of the store will cover if it begins now. */
export interface FlushSnapshot {
  readonly frames: number;
  readonly answers: number;
}
