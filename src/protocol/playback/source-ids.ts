/** Which id stands for which source on a connection (SPEC section 4, SOURCE). */
import type { PlaybackSource } from "./playback.ts";

/** Ids in use: the one that was not used for longest then stands for another source (SPEC section 9). */
const maxIds = 1000;

export class SourceIds {
  /** By source, the one used last at the end. */
  readonly #ids = new Map<string, { readonly id: number; declared: string }>();

  /** The id of a source; `isNew` if it must be declared before it is used. */
  idFor({ name: source, session, raw }: PlaybackSource): {
    readonly id: number;
    readonly isNew: boolean;
  } {
    const declared =
      raw === undefined ? session : `${session} ${raw.width}x${raw.height}.${raw.format}`;
    const known = this.#ids.get(source);
    if (known !== undefined) {
      if (this.#ids.size === maxIds) {
        this.#ids.delete(source);
        this.#ids.set(source, known);
      }
      const isNew = known.declared !== declared;
      known.declared = declared;
      return { id: known.id, isNew };
    }
    let id = this.#ids.size + 1;
    if (id > maxIds) {
      const [oldest, entry] = this.#ids.entries().next().value!;
      this.#ids.delete(oldest);
      id = entry.id;
    }
    this.#ids.set(source, { id, declared });
    return { id, isNew: true };
  }
}
