/** The server's view of a connected client, the same for each dialect. */
import type { KeyEntry } from "../auth/key.ts";
import type { FramesError } from "../errors.ts";
import type { FlushSnapshot } from "../protocol/receive/receiver-events.ts";

/** A connected client, as the server sees it. */
export interface ServerConnection {
  readonly peer: string;
  /** When the client connected. */
  readonly since: Date;
  /** The key that the client has proved, and the session that it sends. */
  readonly key: KeyEntry | undefined;
  readonly session: string | undefined;
  /** Whether the connection failed, ended or closed. */
  readonly isFinished: boolean;
  /** Resolves when the connection is closed. */
  readonly closed: Promise<void>;
  /** Whether to flush now: no more data came in this turn, or the receipt is due. */
  isFlushDue(): boolean;
  /** Frames and answers that a flush starting now will cover. */
  readonly flushable: FlushSnapshot;
  /** Acknowledges after a flush. `flushed` is the value of `flushable` before that flush. */
  ack(flushed: FlushSnapshot): void;
  /** Checks whether the client still answers. */
  isAlive(): Promise<boolean>;
  /** Ends the connection with `error`. */
  fail(error: FramesError): void;
}
