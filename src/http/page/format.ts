/** Formats numbers and times. Times are in UTC, as in the names of frames. */

const countFormat = new Intl.NumberFormat("en");

/** Formats a count with thousands separators. */
export function displayCount(value: number): string {
  return countFormat.format(value);
}

/** Formats a count with its unit: `1 sender`, `2 senders`. */
export function displayPlural(value: number, one: string, many: string = `${one}s`): string {
  return `${displayCount(value)} ${value === 1 ? one : many}`;
}

/** Formats a number, with fewer decimals the larger it is: `0.53`, `29.9`, `120`. */
export function displayNumber(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100 || value === 0) return displayCount(Math.round(value));
  return value.toFixed(size >= 10 ? 1 : 2);
}

const byteUnits = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Formats bytes with decimal units: `1.24 MB`. */
export function displayBytes(value: number): string {
  let [size, unit] = [value, 0];
  for (; size >= 999.5 && unit < byteUnits.length - 1; unit++) size /= 1000;
  return unit === 0 ? `${Math.round(size)} B` : `${displayNumber(size)} ${byteUnits[unit]}`;
}

/** Formats a delay in ms: `8 ms`, `1.24 s`. */
export function displayDelay(milliseconds: number | null): string {
  if (milliseconds === null || !Number.isFinite(milliseconds)) return "–";
  const size = Math.abs(milliseconds);
  if (size >= 1000) return displayDuration(milliseconds);
  const sign = milliseconds < 0 ? "−" : "";
  return `${sign}${size < 10 ? size.toFixed(1) : Math.round(size)} ms`;
}

/**
 * Formats a duration in ms with its largest unit, and minutes after hours: `45 min`, `3 h 20 min`.
 */
export function displayDuration(milliseconds: number): string {
  const seconds = Math.abs(milliseconds) / 1000;
  const sign = milliseconds < 0 ? "−" : "";
  if (seconds < 1) return `${sign}${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${sign}${displayNumber(seconds)} s`;
  if (seconds < 3600) return `${sign}${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) {
    const minutes = Math.floor((seconds % 3600) / 60);
    return `${sign}${Math.floor(seconds / 3600)} h${minutes === 0 ? "" : ` ${minutes} min`}`;
  }
  return `${sign}${displayPlural(Math.floor(seconds / 86_400), "day")}`;
}

/** Parses nanoseconds since 1970. Undefined if the text is no decimal number. */
export function parseNanoseconds(text: string | null | undefined): bigint | undefined {
  return text !== null && text !== undefined && /^-?\d{1,19}$/.test(text)
    ? BigInt(text)
    : undefined;
}

/** Converts nanoseconds to milliseconds, with a fraction. */
export function toMilliseconds(time: bigint): number {
  return Number(time / 1000n) / 1000;
}

/** Formats the time of day to the millisecond: `17:14:06.123`. */
export function displayTimeOfDay(time: bigint): string {
  return toIsoText(time).slice(11, 23);
}

/** Formats date and time to the millisecond: `2026-11-25 17:14:06.123`. */
export function displayDateTime(time: bigint): string {
  return toIsoText(time).slice(0, 23).replace("T", " ");
}

/** Formats date and time with all nine decimals: `2026-11-25 17:14:06.123 456 789 UTC`. */
export function displayExactTime(time: bigint): string {
  const rest = String(nanosecondsOfMillisecond(time)).padStart(6, "0");
  return `${displayDateTime(time)} ${rest.slice(0, 3)} ${rest.slice(3)} UTC`;
}

/** Returns the number itself if the time is outside the range of `Date`. */
function toIsoText(time: bigint): string {
  const date = new Date(Number((time - nanosecondsOfMillisecond(time)) / 1_000_000n));
  return Number.isNaN(date.getTime()) ? `${time}` : date.toISOString();
}

function nanosecondsOfMillisecond(time: bigint): bigint {
  return ((time % 1_000_000n) + 1_000_000n) % 1_000_000n;
}
