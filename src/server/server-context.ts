/** What those who are connected to a server need of it. */
import type { FrameStore } from "../frame.ts";
import type { ServerConnection } from "./server-connection.ts";
import type { KeyRing } from "../keys/key-file.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import type { ReceiverLimits } from "../protocol/receive/receiver-events.ts";
import type { JournalTail } from "./playback/journal-tail.ts";

/** The server that a guest belongs to. */
export interface ServerContext {
  readonly store: FrameStore;
  /** The keys that it asks for, if it asks. */
  readonly keys: KeyRing | undefined;
  readonly grants: ReceiverLimits;
  /** Milliseconds after which a silent sender counts as gone. */
  readonly timeoutMs: number;
  /** `HOST:PORT`, as `send` takes it. */
  readonly address: string;
  /** Reads back what the store has. */
  readonly journalTail: JournalTail;
  emit(event: ServeEvent): void;
  emitStored(makeEvent: () => StoredEvent): void;
  /** Milliseconds that a peer waits to hear that it did not prove a key. */
  authFailureDelayMs(peer: string): number;
  add(connection: ServerConnection): void;
  remove(connection: ServerConnection): void;
  supersede(session: string, newer: ServerConnection): void;
  /**
   * Gives a source of a stream to one sender: at once, or when it is known that who has it is gone.
   *
   * @throws {FramesError} `busy`, perhaps later
   */
  acquireSource(stream: string, source: string, owner: ServerConnection): void | Promise<void>;
  /** It sends this one no more. */
  releaseSource(stream: string, source: string, owner: ServerConnection): void;
  /** So many bytes are held of what came from it. */
  setBufferedBytes(connection: ServerConnection, bytes: number): void;
  /** Frames came in: flush the store and call `settle`, when `isDue` or at the end of the input. */
  flushLater(connection: ServerConnection): void;
  /** Likewise, but at once: nothing more will come. */
  flushAndAck(connection: ServerConnection): Promise<void>;
}
