/** What a receiver needs of its host, and tells it. */
import type { ErrorName, FramesError } from "../../errors.ts";
import type { FrameDescription, Outcome } from "../../frame.ts";
import type { Decoder } from "../../wire/decode.ts";
import type { Hello, Welcome } from "../../wire/messages.ts";

/** What a sender has broken itself, and not the link or the server. */
export const peerFaults: ReadonlySet<ErrorName> = new Set(["protocol", "damaged", "limit"]);

/** What a server's host has to say in WELCOME. */
export type WelcomeFields = Pick<Welcome, "fresh" | "store" | "software" | "identity" | "resumed">;

/** What the machine tells its host. */
export interface ReceiverEvents {
  /** HELLO came, and the proof of its key if that is asked for. What it throws ends the connection with that error. */
  onHello(hello: Hello): WelcomeFields;
  /** A client that receives is let in: what it says next is told to somebody else. */
  onHandOver?(decoder: Decoder): void;
  /**
   * A source is about to be sent. Nothing more is read until a promise is kept; what it is rejected
   * with, or what this throws, ends the connection.
   */
  acquireSource?(stream: string, source: string): void | Promise<void>;
  /** A source will be sent no more. */
  releaseSource?(stream: string, source: string): void;
  /** A frame ended, and what became of it. */
  onFrameEnded?(source: string, frame: FrameDescription, outcome: Outcome): void;
  onLost?(
    source: string,
    frames: number,
    error: FramesError,
    ranges: readonly (readonly [first: number, last: number])[],
  ): void;
  /** The server has let this client in. */
  onWelcome?(welcome: Welcome): void;
  /** A frame is in the server's journal, and no longer there. */
  onGone?(source: string, frame: { readonly sequence: number; readonly name: string }): void;
  /** The server's position behind the first `ended` frames that ended on this connection. */
  onCursor?(cursor: string, ended: number): void;
  /** A message goes or came, for those who want to see the conversation. */
  trace?(direction: "->" | "<-", line: string): void;
  /** PONG came, to a PING of this time. */
  onPong?(time: string): void;
  /** Something was settled outside `receive`, or can be read again: flush the store. */
  onFlushNeeded?(): void;
  /** The store failed outside `receive`: hand the error to `fail`. */
  onError?(error: unknown): void;
}

/** What a receiver grants; announced in WELCOME. */
export type ReceiverLimits = Pick<Welcome, "window" | "limits">;

/** What a flush of the store that begins now will settle. */
export interface FlushSnapshot {
  readonly frames: number;
  readonly answers: number;
}
