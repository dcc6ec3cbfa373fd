/** A clock for durations and deadlines. */

/** Milliseconds since 1970 by a monotonic clock: unlike `Date.now`, it ignores changes of the system time. */
export function monotonicNow(): number {
  return performance.timeOrigin + performance.now();
}
