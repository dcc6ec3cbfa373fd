/** Source ids of a playback connection (SPEC section 4, SOURCE). */
import type { PlaybackSource } from "./playback.ts";

/**
 * Maximum of ids. When all are in use, the least recently used one is declared again (SPEC section
 * 9).
 */
const maxIds = 1000;

export class SourceIds {
  /** Ids by source name, the most recently used last. */
  readonly #ids = new Map<string, { readonly id: number; declared: string }>();

  /** Returns the id of a source. `isNew` means that SOURCE must be sent before the id is used. */
  idFor({ name: source, session, type = "", raw }: PlaybackSource): {
    readonly id: number;
    readonly isNew: boolean;
  } {
    const declared =
      raw === undefined
        ? session + type
        : `${session}${type} ${raw.width}x${raw.height}.${raw.format}`;
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
