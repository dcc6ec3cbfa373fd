/** Pauses reading from a connection while the store is syncing or full. */
import type { FrameStore } from "../frame.ts";

/** Callbacks of a connection that waits for its store. */
export interface StoreBackpressureHooks {
  /** The connection can read again, beginning with the deferred chunks. */
  onReady(chunks: readonly Uint8Array[]): void;
  /** The store failed. */
  onError(error: unknown): void;
}

export class StoreBackpressure {
  readonly #store: FrameStore;
  readonly #hooks: StoreBackpressureHooks;
  /**
   * Chunks that came before the store's first refresh; undefined after it, or if the store has no
   * `refresh`.
   */
  #deferred: Uint8Array[] | undefined;
  #isWaitingForSpace = false;

  constructor(store: FrameStore, hooks: StoreBackpressureHooks) {
    this.#store = store;
    this.#hooks = hooks;
    if (store.refresh !== undefined) this.#deferred = [];
  }

  /**
   * Defers a chunk until the store has been refreshed once. Another server of the same bucket may
   * have stored frames of this session.
   *
   * @returns whether the chunk was deferred
   */
  defer(chunk: Uint8Array): boolean {
    if (this.#deferred === undefined) return false;
    // Copies the chunk, because its memory is released when this returns. `slice` of a Buffer would
    // not copy.
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

  /** Whether reading must pause. `onReady` is called when it can continue. */
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
