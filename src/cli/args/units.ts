/** Parses and formats sizes, times and counts for the user. */
import { usageError } from "../../errors.ts";

const powers: Record<string, number> = { "": 0, k: 1, m: 2, g: 3, t: 4 };

/**
 * Parses a size such as `64M`. K, M, G and T are powers of 1024, as in rsync.
 *
 * @param what name of the value in messages, such as `--max-frame`
 * @returns bytes
 * @throws {FramesError} `usage`
 */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?$/i.exec(text);
  const size = match ? Number(match[1]) * 1024 ** powers[match[2]!.toLowerCase()]! : NaN;
  if (!((size === 0 || size >= 1) && size <= Number.MAX_SAFE_INTEGER)) {
    throw usageError(
      `Cannot read ${what}: expected a size such as 64M, current value is ${JSON.stringify(text)}`,
    );
  }
  return Math.floor(size);
}

/**
 * Parses seconds, more than 0 and up to a day.
 *
 * @throws {FramesError} `usage`
 */
export function parseSeconds(text: string, what: string): number {
  const seconds = /^\d+(?:\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (!(seconds > 0 && seconds <= 86_400)) {
    throw usageError(
      `Cannot read ${what}: expected seconds such as 30, up to 86400; current value is ${JSON.stringify(text)}`,
    );
  }
  return seconds;
}

const secondsPerUnit: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Parses `90s`, `15m`, `2h` or `7d` into seconds; returns undefined for other text. */
export function parseDuration(text: string): number | undefined {
  const [, count, unit] = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text) ?? [];
  return unit === undefined ? undefined : Number(count) * secondsPerUnit[unit]!;
}

/**
 * Parses a retention limit: a time such as `7d` or `12h`, or a size such as `500G`.
 *
 * @throws {FramesError} `usage`. Also for `90m`, which could mean minutes or megabytes, because
 * frames removed by mistake are lost
 */
export function parseRetention(
  text: string,
  what: string,
): { milliseconds: number } | { bytes: number } {
  const durationSeconds = /m$/.test(text) ? undefined : parseDuration(text);
  if (durationSeconds !== undefined && durationSeconds > 0)
    return { milliseconds: durationSeconds * 1000 };
  if (/[kgt]$|M$|b$/i.test(text) && !/m$/.test(text)) {
    const bytes = parseSize(text, what);
    if (bytes > 0) return { bytes };
  }
  const hint = /^[\d.]+$/.test(text)
    ? ", with the unit"
    : /^[\d.]+m$/.test(text)
      ? `; for minutes write hours, for bytes write ${text.slice(0, -1)}M`
      : "";
  throw usageError(
    `Cannot read ${what}: expected a time such as 7d or 12h, or a size such as 500G${hint}; current value is ${JSON.stringify(text)}`,
  );
}

/**
 * Parses the limit of a segment: a time such as `10m` or `1h`, or a size such as `500M`. A lower-case
 * `m` means minutes.
 *
 * @throws {FramesError} `usage`
 */
export function parseSegment(
  text: string,
  what: string,
): { milliseconds: number } | { bytes: number } {
  const seconds = parseDuration(text);
  if (seconds !== undefined && seconds > 0) return { milliseconds: seconds * 1000 };
  const isSize = /^[\d.]+(?:[KMGTkgt]i?[Bb]?|[Bb])$/.test(text);
  const bytes = isSize ? parseSize(text, what) : 0;
  if (bytes > 0) return { bytes };
  throw usageError(
    `Cannot read ${what}: expected a time such as 10m or 1h, or a size such as 500M; current value is ${JSON.stringify(text)}`,
  );
}

/**
 * Parses `now`, an ISO 8601 time (UTC without a zone), or how long ago, such as `2h`.
 *
 * @param now milliseconds since 1970
 * @returns milliseconds since 1970
 * @throws {FramesError} `usage`
 */
export function parseTime(text: string, what: string, now: number): number {
  if (text === "now") return now;
  const durationSeconds = parseDuration(text);
  if (durationSeconds !== undefined) return now - durationSeconds * 1000;
  const isDate = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?$/.test(text);
  const zone = /(?:Z|[+-]\d\d:?\d\d)$/.test(text) || text.length === 10 ? "" : "Z";
  const time = isDate ? Date.parse(text.replace(" ", "T") + zone) : NaN;
  if (!Number.isNaN(time)) return time;
  throw usageError(
    `Cannot read ${what}: expected now, a time such as 2026-11-22T07:12:03Z, or how long ago, such as 2h; current value is ${JSON.stringify(text)}`,
  );
}

/** Formats bytes as `442 MB`, in powers of 1000 as disks and links are sold. */
export function formatBytes(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return bytes === 1 ? "1 byte" : `${value.toFixed(digits)} ${units[unit]}`;
}

/** Formats `1 frame` or `2 frames`. */
export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Formats seconds as `0:07` or `1:02:03`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const tail = String(whole % 60).padStart(2, "0");
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/**
 * Formats nanoseconds since 1970 as an ISO 8601 time in UTC, cut to the second. A time outside the
 * range of `Date` is returned as the number.
 */
export function formatTime(nanoseconds: bigint): string {
  const date = new Date(Number(nanoseconds / 1_000_000n));
  if (Number.isNaN(date.getTime())) return String(nanoseconds);
  return date.toISOString().replace(/\.\d+Z$/, "Z");
}
