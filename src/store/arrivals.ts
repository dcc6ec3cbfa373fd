/** Tells whoever follows a store that there is something new in its journal. */
export class Arrivals {
  readonly #followers = new Set<() => void>();

  /**
   * @param wake is called when frames were committed, often: it must only note that and return
   * @returns what ends it
   */
  follow(wake: () => void): () => void {
    this.#followers.add(wake);
    return () => void this.#followers.delete(wake);
  }

  /** Something was committed. */
  came(): void {
    for (const wake of this.#followers) wake();
  }
}
