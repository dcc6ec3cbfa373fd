/** Who sends which source of which stream: one at a time. */

export class Claims<Holder> {
  readonly #streams = new Map<string, Map<string, Holder>>();

  /** Who sends it. */
  holderOf(stream: string, source: string): Holder | undefined {
    return this.#streams.get(stream)?.get(source);
  }

  set(stream: string, source: string, holder: Holder): void {
    const sources = this.#streams.get(stream) ?? new Map<string, Holder>();
    this.#streams.set(stream, sources.set(source, holder));
  }

  delete(stream: string, source: string): void {
    const sources = this.#streams.get(stream);
    sources?.delete(source);
    if (sources?.size === 0) this.#streams.delete(stream);
  }
}
