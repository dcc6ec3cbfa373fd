/** The most recent problems, with repeated ones merged. */
import type { ErrorName } from "../../errors.ts";
import { redact } from "../../safe-text.ts";

/** An error that a user should see. */
export interface Problem {
  /** Nanoseconds since 1970. */
  readonly time: bigint;
  readonly code: ErrorName;
  readonly message: string;
  readonly stream: string | null;
  readonly source: string | null;
}

/** Limit of remembered problems. */
const maxProblems = 100;

/** Problems of the same kind within this time are only counted. */
const suppressionMs = 10_000;

/** Limit of kinds (code, stream and source) whose last report is remembered. */
const maxKinds = 1000;

/** Limit of a message, in UTF-16 code units. */
const maxMessageLength = 500;

export class ProblemLog {
  #recent: Problem[] = [];
  readonly #reported = new Map<string, { at: number; suppressed: number }>();
  readonly #listeners = new Set<(problem: Problem) => void>();
  readonly #clock: () => number;

  /** @param clock returns ms since 1970 */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** Remembered problems, newest first. */
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
      message: `${redact(message).slice(0, maxMessageLength)}${suffix}`,
      stream: stream ?? null,
      source: source ?? null,
    };
    this.#recent = [problem, ...this.#recent].slice(0, maxProblems);
    for (const listener of this.#listeners) listener(problem);
  }

  /** Calls `listener` for each new problem. Returns a function that unsubscribes. */
  subscribe(listener: (problem: Problem) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
