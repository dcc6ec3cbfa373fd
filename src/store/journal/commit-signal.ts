/** Tells whoever follows a store that there is something new in its journal. */
export class CommitSignal {
  readonly #listeners = new Set<() => void>();

  /**
   * @param listener is called when frames were committed, often: it must only note that and return
   * @returns what ends it
   */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Something was committed. */
  notify(): void {
    for (const listener of this.#listeners) listener();
  }
}
