/** Numbers and times as the page writes them. Times are UTC, as in the names of frames. */

const countFormat = new Intl.NumberFormat("en");

/** A count, with its thousands apart. */
export function displayCount(value: number): string {
  return countFormat.format(value);
}

/** A count of things: `1 sender`, `2 senders`. */
export function displayPlural(value: number, one: string, many: string = `${one}s`): string {
  return `${displayCount(value)} ${value === 1 ? one : many}`;
}

/** Three digits that count: `0.53`, `29.9`, `120`. */
export function displayNumber(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100 || value === 0) return displayCount(Math.round(value));
  return value.toFixed(size >= 10 ? 1 : 2);
}

const byteUnits = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in powers of a thousand: `1.24 MB`. */
export function displayBytes(value: number): string {
  let [size, unit] = [value, 0];
  for (; size >= 999.5 && unit < byteUnits.length - 1; unit++) size /= 1000;
  return unit === 0 ? `${Math.round(size)} B` : `${displayNumber(size)} ${byteUnits[unit]}`;
}

/** A delay in milliseconds: `8 ms`, `1.24 s`. */
export function displayDelay(milliseconds: number | null): string {
  if (milliseconds === null || !Number.isFinite(milliseconds)) return "–";
  const size = Math.abs(milliseconds);
  if (size >= 1000) return displayDuration(milliseconds);
  const sign = milliseconds < 0 ? "−" : "";
  return `${sign}${size < 10 ? size.toFixed(1) : Math.round(size)} ms`;
}

/** How long something takes or is ago, in its two largest units at most. */
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

/** Nanoseconds of a decimal string; undefined if it is none. */
export function parseNanoseconds(text: string | null | undefined): bigint | undefined {
  return text !== null && text !== undefined && /^-?\d{1,19}$/.test(text)
    ? BigInt(text)
    : undefined;
}

/** Milliseconds since 1970, with their fraction. */
export function toMilliseconds(time: bigint): number {
  return Number(time / 1000n) / 1000;
}

/** Time of day, to the millisecond: `17:14:06.123`. */
export function displayTimeOfDay(time: bigint): string {
  return toIsoText(time).slice(11, 23);
}

/** Day and time of day, to the millisecond: `2026-11-25 17:14:06.123`. */
export function displayDateTime(time: bigint): string {
  return toIsoText(time).slice(0, 23).replace("T", " ");
}

/** All digits: `2026-11-25 17:14:06.123 456 789 UTC`. */
export function displayExactTime(time: bigint): string {
  const rest = String(nanosecondsOfMillisecond(time)).padStart(6, "0");
  return `${displayDateTime(time)} ${rest.slice(0, 3)} ${rest.slice(3)} UTC`;
}

/** A time that no calendar has is written as the number that it is. */
function toIsoText(time: bigint): string {
  const date = new Date(Number((time - nanosecondsOfMillisecond(time)) / 1_000_000n));
  return Number.isNaN(date.getTime()) ? `${time}` : date.toISOString();
}

function nanosecondsOfMillisecond(time: bigint): bigint {
  return ((time % 1_000_000n) + 1_000_000n) % 1_000_000n;
}
