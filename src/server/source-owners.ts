/** The sending connection of each source. A source has at most one sender at a time. */

export class SourceOwners<Owner> {
  readonly #streams = new Map<string, Map<string, Owner>>();

  /** Returns the sender of a source. */
  ownerOf(stream: string, source: string): Owner | undefined {
    return this.#streams.get(stream)?.get(source);
  }

  set(stream: string, source: string, owner: Owner): void {
    this.#streams.getOrInsertComputed(stream, () => new Map()).set(source, owner);
  }

  delete(stream: string, source: string): void {
    const sources = this.#streams.get(stream);
    sources?.delete(source);
    if (sources?.size === 0) this.#streams.delete(stream);
  }
}
