/** Numbers that were not delivered, by source: adjoining ones are one range. */
import type { ErrorName } from "./errors.ts";
import type { Undelivered } from "./session/outlet.ts";

/** Numbers of one source that are missing, and why. */
export interface Gap {
  readonly first: number;
  last: number;
  readonly error: ErrorName;
}

/** Ranges of one source that are kept: a run of years may have any number of them. */
const mostGaps = 1000;

export class Gaps {
  readonly #bySource = new Map<string, { gaps: Gap[]; more: number }>();

  add({ source, first, last, error: { code: error } }: Undelivered): void {
    const found = this.#bySource.get(source) ?? { gaps: [], more: 0 };
    this.#bySource.set(source, found);
    const before = found.gaps.at(-1);
    if (before?.last === first - 1 && before.error === error && found.more === 0) {
      before.last = last;
    } else if (found.gaps.length < mostGaps) {
      found.gaps.push({ first, last, error });
    } else {
      found.more++;
    }
  }

  /** Those of a source, and how many ranges there are beside. */
  of(source: string): { readonly gaps: readonly Gap[]; readonly more: number } {
    return this.#bySource.get(source) ?? { gaps: [], more: 0 };
  }
}
