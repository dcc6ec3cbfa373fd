/** A clock for durations and deadlines, and times as frames have them. */

/**
 * Milliseconds since 1970 by a monotonic clock. Unlike `Date.now` it ignores changes of the system
 * time.
 */
export function monotonicNow(): number {
  return performance.timeOrigin + performance.now();
}

/** Returns nanoseconds since 1970, to the microsecond, for milliseconds since 1970. */
export function toNanoseconds(milliseconds: number): bigint {
  return BigInt(Math.round(milliseconds * 1e3)) * 1000n;
}
