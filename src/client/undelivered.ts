/** Numbers that were not delivered, by source, and what a delivery says of them. */
import type { ErrorName } from "../errors.ts";
import type { SourceProgress, Undelivered } from "../protocol/send/outgoing-source.ts";
import { type PerSource, settingFor } from "../source/per-source.ts";

/** Numbers of one source that are missing, and why. */
export interface UndeliveredRange {
  readonly first: number;
  last: number;
  readonly error: ErrorName;
}

/** Ranges of one source that are kept: a run of years may have any number of them. */
const maxRangesPerSource = 1000;

/** How one source fared. */
export interface SourceReport {
  readonly progress: SourceProgress;
  /** Frames that were given a number. */
  readonly captured: number;
  /** Numbers that were not delivered; beyond a thousand ranges the others are only counted. */
  readonly gaps: readonly UndeliveredRange[];
  readonly moreGaps: number;
  /** Seconds that it was delivered for. */
  readonly seconds: number;
}

/** What decides whether dropped frames count as not delivered. */
interface DropRules {
  readonly policy?: PerSource;
  readonly failOnGap?: boolean;
}

/** Undelivered frames that a summary names: there may be a million. */
const maxListed = 1000;

/** Everything of a delivery that was not delivered, whichever dialect it speaks. */
export class UndeliveredReport {
  readonly undelivered: Undelivered[] = [];
  readonly reasons: Partial<Record<ErrorName, number>> = {};
  /** Frames that were dropped by a policy that was chosen. */
  dropped = 0;
  readonly #ranges = new UndeliveredRanges();
  readonly #options: DropRules;

  constructor(options: DropRules) {
    this.#options = options;
  }

  add(undelivered: Undelivered): void {
    const { source, first, last, error } = undelivered;
    const frames = last - first + 1;
    this.#ranges.add(undelivered);
    if (this.undelivered.length < maxListed) this.undelivered.push(undelivered);
    const { policy, failOnGap } = this.#options;
    const isChosen = error.code === "dropped" && settingFor(policy, source) !== undefined;
    if (isChosen) this.dropped += frames;
    if (isChosen && failOnGap !== true) return;
    this.reasons[error.code] = (this.reasons[error.code] ?? 0) + frames;
  }

  /** @param started in milliseconds since 1970 */
  sourceReports(sources: readonly SourceProgress[], started: number): SourceReport[] {
    const seconds = (Date.now() - started) / 1000;
    return sources.map((progress) => {
      const { gaps, more } = this.#ranges.forSource(progress.name);
      return { progress, captured: progress.capturedCount, gaps, moreGaps: more, seconds };
    });
  }
}

/** Adjoining numbers are one range. */
export class UndeliveredRanges {
  readonly #bySource = new Map<string, { gaps: UndeliveredRange[]; more: number }>();

  add({ source, first, last, error: { code: error } }: Undelivered): void {
    const entry = this.#bySource.get(source) ?? { gaps: [], more: 0 };
    this.#bySource.set(source, entry);
    const previous = entry.gaps.at(-1);
    if (previous?.last === first - 1 && previous.error === error && entry.more === 0) {
      previous.last = last;
    } else if (entry.gaps.length < maxRangesPerSource) {
      entry.gaps.push({ first, last, error });
    } else {
      entry.more++;
    }
  }

  /** Those of a source, and how many ranges there are beside. */
  forSource(source: string): { readonly gaps: readonly UndeliveredRange[]; readonly more: number } {
    return this.#bySource.get(source) ?? { gaps: [], more: 0 };
  }
}
