/** Tells a program what is unusual about its sources, without repeating it all the time. */

/** Time in which the same notice is passed once, in milliseconds. */
const intervalMs = 60_000;

/**
 * Returns a function that passes a notice on, unless it passed the same one a short while ago.
 *
 * @param clock returns milliseconds
 */
export function limitNotices(
  onNotice: (source: string, message: string) => void,
  clock: () => number,
): (source: string, message: string) => void {
  /** When each notice was passed last. Sources have few different ones. */
  const passed = new Map<string, number>();
  return (source, message) => {
    const notice = JSON.stringify([source, message]);
    const now = clock();
    if (now - (passed.get(notice) ?? -Infinity) < intervalMs) return;
    passed.set(notice, now);
    onNotice(source, message);
  };
}
