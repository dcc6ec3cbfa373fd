/** Notifies readers of a store that new rows were committed to its journal. */
export class CommitSignal {
  readonly #listeners = new Set<() => void>();

  /**
   * @param listener called after each commit, often many times a second. It must return quickly.
   * @returns a function that unsubscribes
   */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  notify(): void {
    for (const listener of this.#listeners) listener();
  }
}
