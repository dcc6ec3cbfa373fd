/** What those who are connected to a server need of it. */
import type { FrameStore } from "../frame.ts";
import type { Guest } from "./guest.ts";
import type { KeyRing } from "../keys.ts";
import type { ServeEvent, StoredEvent } from "./serve-event.ts";
import type { ReceiverLimits } from "../session/receiving.ts";
import type { StoreReader } from "./store-reader.ts";

/** The server that a guest belongs to. */
export interface Host {
  readonly store: FrameStore;
  /** The keys that it asks for, if it asks. */
  readonly keys: KeyRing | undefined;
  readonly grants: ReceiverLimits;
  /** Milliseconds after which a silent sender counts as gone. */
  readonly timeout: number;
  /** `HOST:PORT`, as `send` takes it. */
  readonly address: string;
  /** Reads back what the store has. */
  readonly reader: StoreReader;
  tell(event: ServeEvent): void;
  tellStored(makeEvent: () => StoredEvent): void;
  /** Milliseconds that a peer waits to hear that it did not prove a key. */
  penanceOf(peer: string): number;
  add(guest: Guest): void;
  remove(guest: Guest): void;
  supersede(session: string, by: Guest): void;
  /**
   * Gives a source of a stream to one sender: at once, or when it is known that who has it is gone.
   *
   * @throws {FramesError} `busy`, perhaps later
   */
  claim(stream: string, source: string, by: Guest): void | Promise<void>;
  /** It sends this one no more. */
  unclaim(stream: string, source: string, by: Guest): void;
  /** So many bytes are held of what came from it. */
  noteHeld(guest: Guest, bytes: number): void;
  /** Frames came in: flush the store and call `settle`, when `isDue` or at the end of the input. */
  settleLater(guest: Guest): void;
  /** Likewise, but at once: nothing more will come. */
  settleLast(guest: Guest): Promise<void>;
}
