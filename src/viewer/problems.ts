/** What went wrong lately, in words: the last hundred, and many of a kind as one. */
import type { ErrorName } from "../errors.ts";

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
const most = 100;

/** What is like one that was told goes untold for so many milliseconds, and is counted. */
const quietFor = 10_000;

/** Kinds whose times are remembered. */
const mostKinds = 1000;

/** Characters of a message that are kept. */
const longest = 500;

export class Problems {
  #last: Problem[] = [];
  readonly #told = new Map<string, { at: number; untold: number }>();
  readonly #followers = new Set<(problem: Problem) => void>();
  readonly #clock: () => number;

  /** @param clock milliseconds since 1970 */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** The last ones, the newest first. */
  get last(): readonly Problem[] {
    return this.#last;
  }

  add(code: ErrorName, message: string, stream?: string, source?: string): void {
    const now = this.#clock();
    const kind = JSON.stringify([code, stream, source]);
    const before = this.#told.get(kind);
    if (before !== undefined && now - before.at < quietFor && now >= before.at) {
      before.untold++;
      return;
    }
    this.#told.delete(kind);
    this.#told.set(kind, { at: now, untold: 0 });
    if (this.#told.size > mostKinds) this.#told.delete(this.#told.keys().next().value!);
    const untold = before?.untold ?? 0;
    const more = untold === 0 ? "" : ` (and ${untold} more before that)`;
    const problem = {
      time: BigInt(now) * 1_000_000n,
      code,
      message: `${message.slice(0, longest)}${more}`,
      stream: stream ?? null,
      source: source ?? null,
    };
    this.#last = [problem, ...this.#last].slice(0, most);
    for (const follower of this.#followers) follower(problem);
  }

  /** Tells of each from now on; returns what ends that. */
  follow(follower: (problem: Problem) => void): () => void {
    this.#followers.add(follower);
    return () => void this.#followers.delete(follower);
  }
}
