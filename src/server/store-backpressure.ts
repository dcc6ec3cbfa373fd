/** What a connection waits for that is its store's: nothing is read from it meanwhile. */
import type { FrameStore } from "../frame.ts";

/** What a waiting connection is told. */
export interface StoreBackpressureHooks {
  /** What came meanwhile can be read, and whatever comes. */
  onReady(chunks: readonly Uint8Array[]): void;
  /** The store failed. */
  onError(error: unknown): void;
}

export class StoreBackpressure {
  readonly #store: FrameStore;
  readonly #hooks: StoreBackpressureHooks;
  /** What came before the store knew what others had put there; nothing once it does. */
  #deferred: Uint8Array[] | undefined;
  #isWaitingForSpace = false;

  constructor(store: FrameStore, hooks: StoreBackpressureHooks) {
    this.#store = store;
    this.#hooks = hooks;
    if (store.refresh !== undefined) this.#deferred = [];
  }

  /** Keeps what comes until the store knows what others have put there, who may have greeted the peer before. */
  defer(chunk: Uint8Array): boolean {
    if (this.#deferred === undefined) return false;
    // Its memory is given back when this returns. (slice of a Buffer would copy nothing.)
    this.#deferred.push(new Uint8Array(chunk));
    if (this.#deferred.length > 1) return true;
    this.#store.refresh!().then(
      () => {
        const chunks = this.#deferred!;
        this.#deferred = undefined;
        this.#hooks.onReady(chunks);
      },
      (error: unknown) => this.#hooks.onError(error),
    );
    return true;
  }

  /** Whether nothing is to be read now. */
  get isBlocked(): boolean {
    if (this.#isWaitingForSpace || (this.#deferred?.length ?? 0) > 0) return true;
    const space = this.#store.whenReady?.();
    if (space === undefined) return false;
    this.#isWaitingForSpace = true;
    void space.then(() => {
      this.#isWaitingForSpace = false;
      this.#hooks.onReady([]);
    });
    return true;
  }
}
