/** Numbers that were not delivered, by source, and what a delivery says of them. */
import type { ErrorName } from "../errors.ts";
import type { SourceProgress, Undelivered } from "../session/outlet.ts";
import { type PerSource, settingFor } from "../source/settings.ts";

/** Numbers of one source that are missing, and why. */
export interface Gap {
  readonly first: number;
  last: number;
  readonly error: ErrorName;
}

/** Ranges of one source that are kept: a run of years may have any number of them. */
const mostGaps = 1000;

/** How one source fared. */
export interface SourceReport {
  readonly progress: SourceProgress;
  /** Frames that were given a number. */
  readonly captured: number;
  /** Numbers that were not delivered; beyond a thousand ranges the others are only counted. */
  readonly gaps: readonly Gap[];
  readonly moreGaps: number;
  /** Seconds that it was delivered for. */
  readonly seconds: number;
}

/** What decides whether dropped frames count as not delivered. */
interface DropOptions {
  readonly policy?: PerSource;
  readonly failOnGap?: boolean;
}

/** Undelivered frames that a summary names: there may be a million. */
const mostReported = 1000;

/** Everything of a delivery that was not delivered, whichever dialect it speaks. */
export class Shortfall {
  readonly undelivered: Undelivered[] = [];
  readonly reasons: Partial<Record<ErrorName, number>> = {};
  /** Frames that were dropped by a policy that was chosen. */
  dropped = 0;
  readonly #gaps = new Gaps();
  readonly #options: DropOptions;

  constructor(options: DropOptions) {
    this.#options = options;
  }

  add(one: Undelivered): void {
    const { source, first, last, error } = one;
    const frames = last - first + 1;
    this.#gaps.add(one);
    if (this.undelivered.length < mostReported) this.undelivered.push(one);
    const { policy, failOnGap } = this.#options;
    const isChosen = error.code === "dropped" && settingFor(policy, source) !== undefined;
    if (isChosen) this.dropped += frames;
    if (isChosen && failOnGap !== true) return;
    this.reasons[error.code] = (this.reasons[error.code] ?? 0) + frames;
  }

  /** @param started in milliseconds since 1970 */
  reportOn(sources: readonly SourceProgress[], started: number): SourceReport[] {
    const seconds = (Date.now() - started) / 1000;
    return sources.map((progress) => {
      const { gaps, more } = this.#gaps.of(progress.name);
      return { progress, captured: progress.captured, gaps, moreGaps: more, seconds };
    });
  }
}

/** Adjoining numbers are one range. */
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
