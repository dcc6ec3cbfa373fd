/** What a connection waits for that is its store's: nothing is read from it meanwhile. */
import type { FrameStore } from "../frame.ts";

/** What a waiting connection is told. */
export interface StoreWaitHooks {
  /** What came meanwhile can be read, and whatever comes. */
  goOn(kept: readonly Uint8Array[]): void;
  /** The store failed. */
  failed(error: unknown): void;
}

export class StoreWait {
  readonly #store: FrameStore;
  readonly #hooks: StoreWaitHooks;
  /** What came before the store knew what others had put there; nothing once it does. */
  #kept: Uint8Array[] | undefined;
  #waitsForRoom = false;

  constructor(store: FrameStore, hooks: StoreWaitHooks) {
    this.#store = store;
    this.#hooks = hooks;
    if (store.refresh !== undefined) this.#kept = [];
  }

  /** Keeps what comes until the store knows what others have put there, who may have greeted the peer before. */
  keeps(chunk: Uint8Array): boolean {
    if (this.#kept === undefined) return false;
    // Its memory is given back when this returns. (slice of a Buffer would copy nothing.)
    this.#kept.push(new Uint8Array(chunk));
    if (this.#kept.length > 1) return true;
    this.#store.refresh!().then(
      () => {
        const kept = this.#kept!;
        this.#kept = undefined;
        this.#hooks.goOn(kept);
      },
      (error: unknown) => this.#hooks.failed(error),
    );
    return true;
  }

  /** Whether nothing is to be read now. */
  get isOn(): boolean {
    if (this.#waitsForRoom || (this.#kept?.length ?? 0) > 0) return true;
    const room = this.#store.room?.();
    if (room === undefined) return false;
    this.#waitsForRoom = true;
    void room.then(() => {
      this.#waitsForRoom = false;
      this.#hooks.goOn([]);
    });
    return true;
  }
}
