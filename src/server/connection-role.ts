/** The role of a connected client, as its `PeerConnection` sees it. */
import type { CommitMember } from "../common/commit-loop.ts";
import type { FramesError } from "../errors.ts";
import type { FlushSnapshot } from "../protocol/receive/receiver-events.ts";
import type { Done } from "../wire/messages.ts";

/** Counts for a client that sent no frames. */
export const noCounts: Done = { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 };

/** One role of a client: being admitted, sending, receiving, or sending in the article's dialect. */
export interface ConnectionRole extends Partial<CommitMember<FlushSnapshot>> {
  /** Noun for messages. */
  readonly peerName: "sender" | "receiver" | "client";
  /** Whether HELLO came. A client without is not reported when it closes the connection. */
  readonly hasHello: boolean;
  /** Stream and session of the client, once it is identified. */
  readonly stream: string | undefined;
  readonly session?: string | undefined;
  /** Frames that ended, for reports. */
  readonly counts: Done;
  /** Whether the conversation is complete. */
  readonly isDone: boolean;
  /** Whether nothing is read from the client for now. */
  readonly isPaused: boolean;
  /** Processes bytes from the client. Not called after `stop`. */
  receive(chunk: Uint8Array, now: number): void;
  /** Sends what is ready. Not called after `stop`. */
  transmit(): void;
  /** Checks timeouts. */
  tick(now: number): void;
  /** The client closed its sending side. */
  onEnd(): void;
  /**
   * The conversation fails, or the socket is closed without a failure: processes nothing more, and
   * releases what others may use.
   */
  stop(error?: FramesError): void;
  /** Tells the client why, and finishes the connection. Called after `stop`. */
  sendError(error: FramesError): void | Promise<void>;
  /** The socket is closed. `stop` follows, unless it was called before. */
  onClose?(): void | Promise<void>;
  /** Returns why the client closed the connection, if the conversation tells. Called before `stop`. */
  closeReason?(): FramesError | undefined;
  /** Returns the error to report, with what only the operator may know. Default: `error`. */
  errorForLog?(error: FramesError): FramesError;
  /** Checks whether the client still answers. Default: it does. */
  isAlive?(): Promise<boolean>;
}
