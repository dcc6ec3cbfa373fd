/** What went wrong lately, in words: the last hundred, and many of a kind as one. */
import type { ErrorName } from "../../errors.ts";

/** Something that went wrong. */
export interface Problem {
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  readonly code: ErrorName;
  readonly message: string;
  readonly stream: string | null;
  readonly source: string | null;
}

/** So many are remembered. */
const maxProblems = 100;

/** What is like one that was told goes untold for so many milliseconds, and is counted. */
const suppressionMs = 10_000;

/** Kinds whose times are remembered. */
const maxKinds = 1000;

/** Characters of a message that are kept. */
const maxMessageLength = 500;

export class ProblemLog {
  #recent: Problem[] = [];
  readonly #reported = new Map<string, { at: number; suppressed: number }>();
  readonly #listeners = new Set<(problem: Problem) => void>();
  readonly #clock: () => number;

  /** @param clock milliseconds since 1970 */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** The last ones, the newest first. */
  get recent(): readonly Problem[] {
    return this.#recent;
  }

  add(code: ErrorName, message: string, stream?: string, source?: string): void {
    const now = this.#clock();
    const kind = JSON.stringify([code, stream, source]);
    const previous = this.#reported.get(kind);
    if (previous !== undefined && now - previous.at < suppressionMs && now >= previous.at) {
      previous.suppressed++;
      return;
    }
    this.#reported.delete(kind);
    this.#reported.set(kind, { at: now, suppressed: 0 });
    if (this.#reported.size > maxKinds) this.#reported.delete(this.#reported.keys().next().value!);
    const suppressed = previous?.suppressed ?? 0;
    const suffix = suppressed === 0 ? "" : ` (and ${suppressed} more before that)`;
    const problem = {
      time: BigInt(now) * 1_000_000n,
      code,
      message: `${message.slice(0, maxMessageLength)}${suffix}`,
      stream: stream ?? null,
      source: source ?? null,
    };
    this.#recent = [problem, ...this.#recent].slice(0, maxProblems);
    for (const listener of this.#listeners) listener(problem);
  }

  /** Tells of each from now on; returns what ends that. */
  subscribe(listener: (problem: Problem) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
