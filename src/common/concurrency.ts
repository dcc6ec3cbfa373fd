/** Runs an asynchronous action over many items with a limit. */

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
