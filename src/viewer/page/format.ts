/** Numbers and times as the page writes them. Times are UTC, as in the names of frames. */

const counts = new Intl.NumberFormat("en");

/** A count, with its thousands apart. */
export function count(value: number): string {
  return counts.format(value);
}

/** A count of things: `1 sender`, `2 senders`. */
export function counted(value: number, one: string, many: string = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** Three digits that count: `0.53`, `29.9`, `120`. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100 || value === 0) return count(Math.round(value));
  return value.toFixed(size >= 10 ? 1 : 2);
}

const units = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in powers of a thousand: `1.24 MB`. */
export function bytes(value: number): string {
  let [size, unit] = [value, 0];
  for (; size >= 999.5 && unit < units.length - 1; unit++) size /= 1000;
  return unit === 0 ? `${Math.round(size)} B` : `${digits(size)} ${units[unit]}`;
}

/** A delay in milliseconds: `8 ms`, `1.24 s`. */
export function delay(milliseconds: number | null): string {
  if (milliseconds === null || !Number.isFinite(milliseconds)) return "–";
  const size = Math.abs(milliseconds);
  if (size >= 1000) return duration(milliseconds);
  const sign = milliseconds < 0 ? "−" : "";
  return `${sign}${size < 10 ? size.toFixed(1) : Math.round(size)} ms`;
}

/** How long something takes or is ago, in its two largest units at most. */
export function duration(milliseconds: number): string {
  const seconds = Math.abs(milliseconds) / 1000;
  const sign = milliseconds < 0 ? "−" : "";
  if (seconds < 1) return `${sign}${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${sign}${digits(seconds)} s`;
  if (seconds < 3600) return `${sign}${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) {
    const minutes = Math.floor((seconds % 3600) / 60);
    return `${sign}${Math.floor(seconds / 3600)} h${minutes === 0 ? "" : ` ${minutes} min`}`;
  }
  return `${sign}${counted(Math.floor(seconds / 86_400), "day")}`;
}

/** Nanoseconds of a decimal string; undefined if it is none. */
export function nanoseconds(text: string | null | undefined): bigint | undefined {
  return text !== null && text !== undefined && /^-?\d{1,19}$/.test(text)
    ? BigInt(text)
    : undefined;
}

/** Milliseconds since 1970, with their fraction. */
export function milliseconds(time: bigint): number {
  return Number(time / 1000n) / 1000;
}

/** Time of day, to the millisecond: `17:14:06.123`. */
export function clock(time: bigint): string {
  return isoOf(time).slice(11, 23);
}

/** Day and time of day, to the millisecond: `2026-11-25 17:14:06.123`. */
export function moment(time: bigint): string {
  return isoOf(time).slice(0, 23).replace("T", " ");
}

/** All digits: `2026-11-25 17:14:06.123 456 789 UTC`. */
export function exactTime(time: bigint): string {
  const rest = String(belowMillisecond(time)).padStart(6, "0");
  return `${moment(time)} ${rest.slice(0, 3)} ${rest.slice(3)} UTC`;
}

/** A time that no calendar has is written as the number that it is. */
function isoOf(time: bigint): string {
  const date = new Date(Number((time - belowMillisecond(time)) / 1_000_000n));
  return Number.isNaN(date.getTime()) ? `${time}` : date.toISOString();
}

function belowMillisecond(time: bigint): bigint {
  return ((time % 1_000_000n) + 1_000_000n) % 1_000_000n;
}
