/** Tells a program what is unusual about its sources, without repeating it all the time. */
import type { OnSourceEvent } from "../../source/source-event.ts";

/** Time in which the same notice is passed once, in milliseconds. */
const intervalMs = 60_000;

/**
 * Returns a function that passes events on, except a notice that it passed a short while ago.
 *
 * @param clock returns milliseconds
 */
export function limitNotices(onEvent: OnSourceEvent, clock: () => number): OnSourceEvent {
  /** When each notice was passed last. Sources have few different ones. */
  const passed = new Map<string, number>();
  return (event) => {
    if (event.type !== "notice") return onEvent(event);
    const notice = JSON.stringify([event.source, event.message]);
    const now = clock();
    if (now - (passed.get(notice) ?? -Infinity) < intervalMs) return;
    passed.set(notice, now);
    onEvent(event);
  };
}
