/** The server as its connections see it, and a connection as the server sees it. */
import type { KeyEntry } from "../auth/key.ts";
import type { CommitLoop, CommitMember } from "../common/commit-loop.ts";
import type { WorkQueue } from "../common/work-queue.ts";
import type { FramesError } from "../errors.ts";
import type { FrameStore } from "../frame.ts";
import type { KeyRing } from "../keys/key-file.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import type { FlushSnapshot, ReceiverLimits } from "../protocol/receive/receiver-events.ts";
import type { JournalTail } from "./playback/journal-tail.ts";
import type { Done } from "../wire/messages.ts";

/** Counts for a client that sent no frames. */
export const noCounts: Done = { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 };

/** The server, as its connections see it. */
export interface ServerContext {
  readonly store: FrameStore;
  /** Keys that clients must prove; undefined if none is required. */
  readonly keys: KeyRing | undefined;
  readonly grants: ReceiverLimits;
  /** Milliseconds of silence after which a client is disconnected. */
  readonly timeoutMs: number;
  /** `HOST:PORT`, in the form that `send` accepts. */
  readonly address: string;
  /** Runs the costly work of all peers. */
  readonly workQueue: WorkQueue<unknown>;
  /** Reads stored frames for receiving clients. */
  readonly journalTail: JournalTail;
  /** Flushes the store for clients that send, and acknowledges their frames. */
  readonly commits: CommitLoop<FlushSnapshot, ServerConnection>;
  emit(event: ServeEvent): void;
  /** Whether `emitStored` has an effect. */
  readonly reportsStored: boolean;
  emitStored(event: StoredEvent): void;
  /** Delay in milliseconds before a failed proof is answered; 0 for a peer that rarely fails. */
  authFailureDelayMs(peer: string): number;
  add(connection: ServerConnection): void;
  remove(connection: ServerConnection): void;
  supersede(session: string, newer: ServerConnection): void;
  /**
   * Makes `owner` the only sender of a source. If another connection owns it, first checks whether
   * that client is still alive.
   *
   * @throws {FramesError} `busy` if the other client is alive; the promise then rejects
   */
  acquireSource(stream: string, source: string, owner: ServerConnection): void | Promise<void>;
  /** Releases a source, so that another sender can acquire it. */
  releaseSource(stream: string, source: string, owner: ServerConnection): void;
  /**
   * Sets the number of received bytes that a connection has buffered.
   *
   * @param isQueued whether they wait for the server's own work, not for the client or another peer
   */
  setBufferedBytes(connection: ServerConnection, bytes: number, isQueued?: boolean): void;
  /** Sets the number of bytes held for a receiving client until it reads; 0 when it has. */
  setUnreadBytes(connection: ServerConnection, bytes: number): void;
}

/** A connected client, as the server sees it. */
export interface ServerConnection extends CommitMember<FlushSnapshot> {
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
  /** Checks whether the client still answers. */
  isAlive(): Promise<boolean>;
  /** Ends the connection with `error`. */
  fail(error: FramesError): void;
}
