/** Turns the modification time of a file into a capture time. */

/** Earliest and latest capture time, in nanoseconds since 1970: years 1677 and 2262. */
const earliest = -(2n ** 63n);
const latest = 2n ** 63n - 1n;

/**
 * Returns the capture time for a file's time in nanoseconds since 1970. File systems hold times that
 * do not fit the 64 bits of a capture time; the nearest one stands for them.
 *
 * @param onClamped called if the time does not fit
 */
export function toCaptureTime(time: bigint, onClamped?: () => void): bigint {
  if (time >= earliest && time <= latest) return time;
  onClamped?.();
  return time < earliest ? earliest : latest;
}
