/** A clock for durations and deadlines. */

/**
 * Milliseconds since 1970 by a monotonic clock. Unlike `Date.now` it ignores changes of the system
 * time.
 */
export function monotonicNow(): number {
  return performance.timeOrigin + performance.now();
}
