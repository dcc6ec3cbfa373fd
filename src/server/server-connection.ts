/** Who is connected to a server, in whichever dialect. */
import type { KeyEntry } from "../auth/key.ts";
import type { FramesError } from "../errors.ts";
import type { FlushSnapshot } from "../protocol/receive/receiver-events.ts";

/** Whoever is connected, as the server sees it. */
export interface ServerConnection {
  readonly peer: string;
  /** When it connected. */
  readonly since: Date;
  /** The key that it has proved, and the session that it sends. */
  readonly key: KeyEntry | undefined;
  readonly session: string | undefined;
  /** Whether nothing more comes of it. */
  readonly isFinished: boolean;
  /** Settled when the connection is closed. */
  readonly closed: Promise<void>;
  /** Whether what came in must be settled now: nothing more came in this turn, or enough waits. */
  isFlushDue(): boolean;
  /** What a flush of the store which begins now will settle. */
  readonly flushable: FlushSnapshot;
  /** The store was flushed; `flushed` is what was `flushable` before. */
  ack(flushed: FlushSnapshot): void;
  /** Whether it is still at the other end. */
  isAlive(): Promise<boolean>;
  /** Ends it for `error`. */
  fail(error: FramesError): void;
}
