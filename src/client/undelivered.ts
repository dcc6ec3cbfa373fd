/** Collects the sequence numbers that were not delivered, for the summary and its reports. */
import type { ErrorName } from "../errors.ts";
import type { SourceProgress, Undelivered } from "../protocol/progress.ts";
import { type PerSource, settingFor } from "../source/per-source.ts";

/** Consecutive numbers of one source that are missing for the same reason. */
export interface UndeliveredRange {
  readonly first: number;
  last: number;
  readonly error: ErrorName;
}

/** Ranges listed per source. Bounds the memory of a session that runs for years. */
const maxRangesPerSource = 1000;

/** Statistics of one source. */
export interface SourceReport {
  readonly progress: SourceProgress;
  /** Frames that got a sequence number. */
  readonly captured: number;
  /** Numbers not delivered: the first 1,000 ranges; `moreGaps` counts the others. */
  readonly gaps: readonly UndeliveredRange[];
  readonly moreGaps: number;
  /** Seconds since the start of the session. */
  readonly seconds: number;
}

/** Options that decide whether dropped frames count as not delivered. */
export interface DropRules {
  readonly policy?: PerSource;
  readonly failOnGap?: boolean;
}

/** Undelivered frames that a summary lists. Bounds its memory, as there may be millions. */
const maxListed = 1000;

/** Everything that one session did not deliver, in either protocol. */
export class UndeliveredReport {
  readonly undelivered: Undelivered[] = [];
  readonly reasons: Partial<Record<ErrorName, number>> = {};
  /** Frames dropped by an explicit policy. */
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

  /** @param started start of the session, in milliseconds since 1970 */
  sourceReports(sources: readonly SourceProgress[], started: number): SourceReport[] {
    const seconds = (Date.now() - started) / 1000;
    return sources.map((progress) => {
      const { gaps, more } = this.#ranges.forSource(progress.name);
      return { progress, captured: progress.capturedCount, gaps, moreGaps: more, seconds };
    });
  }
}

/** Joins consecutive numbers of a source into ranges, if they have the same error. */
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

  /** Returns the ranges of a source; `more` counts the ranges that are not listed. */
  forSource(source: string): { readonly gaps: readonly UndeliveredRange[]; readonly more: number } {
    return this.#bySource.get(source) ?? { gaps: [], more: 0 };
  }
}
