/** Limits asynchronous actions that are in progress at a time. */

/**
 * Calls `act` for each item, with at most `maxConcurrent` calls in progress. Resolves when all are done.
 * Rejects with the first error, while the other items are still processed in the background.
 */
export async function forEachConcurrent<Item>(
  items: Iterable<Item>,
  maxConcurrent: number,
  act: (item: Item) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const work = async () => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) {
      await act(next.value);
    }
  };
  await Promise.all(Array.from({ length: maxConcurrent }, work));
}

/** Lets a limited number of actions be in progress. The others wait in order of their calls. */
export class ConcurrencyLimit {
  readonly #max: number;
  #runningCount = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #idleWaiters: (() => void)[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  async run<T>(act: () => Promise<T>): Promise<T> {
    if (this.#runningCount < this.#max) this.#runningCount++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await act();
    } finally {
      const next = this.#waiting.shift();
      if (next !== undefined) next();
      else if (--this.#runningCount === 0) {
        for (const resolve of this.#idleWaiters.splice(0)) resolve();
      }
    }
  }

  /** Resolves when no action is in progress. */
  async whenIdle(): Promise<void> {
    if (this.#runningCount === 0) return;
    await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
  }
}
