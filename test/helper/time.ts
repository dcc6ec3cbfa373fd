// The one policy for time in tests. A limit here bounds a hang; no slow or busy machine reaches it.
//
// - A test waits for an event (`within`) or polls a state (`until`). It does not sleep and hope.
// - To show that something does not happen, it waits for a later thing that does.
// - It asserts durations on a fake clock only.
// - Where a deadline of the product is under test, the test waits for what that deadline brings.
//
// preload.ts gives every test the limit `testTimeoutMs`.

/** Milliseconds for one wait. */
export const hangMs = 120_000;

/** Milliseconds for one test or hook, which may wait several times. */
export const testTimeoutMs = 600_000;

/** Waits until `condition` holds, and looks every `intervalMs`. */
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

/** Waits for `work`. After `hangMs` it throws what `late` says did not happen. */
export async function within<T>(work: Promise<T>, late: () => string): Promise<T> {
  let timer: Timer | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`After ${hangMs / 1000} s: ${late()}`)), hangMs);
  });
  return Promise.race([work, limit]).finally(() => clearTimeout(timer));
}
