// The policy for time in tests. Limits here only detect hangs; no slow or busy machine reaches
// them.
//
// - A test waits for an event (`within`) or polls a state (`until`). It does not sleep for a fixed
// time.
// - To show that something does not happen, it waits for a later event that does.
// - It asserts durations only on a fake clock.
// - To test a deadline of the product, it waits for the effect of the deadline.
//
// preload.ts sets the limit `testTimeoutMs` for every test.

/** Limit for one wait, in milliseconds. */
export const hangMs = 120_000;

/** Limit for one test or hook, which may wait several times, in milliseconds. */
export const testTimeoutMs = 600_000;

/** Waits until `condition` is true. Checks every `intervalMs` milliseconds. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  intervalMs = 5,
): Promise<void> {
  const end = performance.now() + hangMs;
  while (!(await condition())) {
    if (performance.now() > end) {
      throw new Error(`${what} did not come within ${hangMs / 1000} s`);
    }
    await Bun.sleep(intervalMs);
  }
}

/**
 * Waits for `work`. After `hangMs` throws the message of `late`, which says what did not happen.
 */
export async function within<T>(work: Promise<T>, late: () => string): Promise<T> {
  let timer: Timer | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`After ${hangMs / 1000} s: ${late()}`)), hangMs);
  });
  return Promise.race([work, limit]).finally(() => clearTimeout(timer));
}
