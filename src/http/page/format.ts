/** Formats numbers and times. */
import type { TimeZone } from "./preferences.ts";

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

/** Zone of all times that are formatted. UTC is that of the names of frames. */
let timeZone: TimeZone = "UTC";

/** Sets the zone of all times that are formatted from now on. */
export function setTimeZone(zone: TimeZone): void {
  timeZone = zone;
}

/** Returns the name of the zone at a time in ns since 1970: `UTC`, or an offset such as `UTC+1`. */
export function zoneName(time: bigint): string {
  const minutes = offsetMinutes(toDate(time));
  if (minutes === 0) return "UTC";
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  const end = rest === 0 ? "" : `:${String(rest).padStart(2, "0")}`;
  return `UTC${minutes < 0 ? "−" : "+"}${hours}${end}`;
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
  return `${displayDateTime(time)} ${rest.slice(0, 3)} ${rest.slice(3)} ${zoneName(time)}`;
}

/** Returns the number itself if the time is outside the range of `Date`. */
function toIsoText(time: bigint): string {
  const date = toDate(time);
  if (Number.isNaN(date.getTime())) return `${time}`;
  return new Date(date.getTime() + offsetMinutes(date) * 60_000).toISOString();
}

function toDate(time: bigint): Date {
  return new Date(Number((time - nanosecondsOfMillisecond(time)) / 1_000_000n));
}

/** Minutes that the chosen zone is ahead of UTC. */
function offsetMinutes(date: Date): number {
  const offset = timeZone === "UTC" ? 0 : -date.getTimezoneOffset();
  return Number.isNaN(offset) ? 0 : offset;
}

function nanosecondsOfMillisecond(time: bigint): bigint {
  return ((time % 1_000_000n) + 1_000_000n) % 1_000_000n;
}

/**
 * Parses a time of a day in the chosen zone, such as `2026-11-25` and `17:14:06.123`. Returns ns since
 * 1970, or undefined if there is no such day or time.
 */
export function parseDateTime(day: string, time: string): bigint | undefined {
  const [, hour = "", rest = "", fraction = ""] =
    /^(\d{1,2})(:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?$/.exec(time) ?? [];
  const seconds = Date.parse(
    `${day}T${hour.padStart(2, "0")}${rest}${timeZone === "UTC" ? "Z" : ""}`,
  );
  if (Number.isNaN(seconds)) return undefined;
  return BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}
