/** Reads what a user types to go to a frame: a number, or a time such as `yesterday 14:03`. */
import { displayDateTime, parseDateTime } from "./format.ts";

/** Where to go: a frame number, or a time in ns since 1970. */
export type Destination = { readonly number: number } | { readonly at: bigint };

const dayNs = 86_400_000_000_000n;

/**
 * Parses a frame number, or a time in the zone of the page. A time without a day is of the day shown.
 *
 * @param shownAt time that is shown, in ns since 1970
 * @param now the present, in ns since 1970
 */
export function parseDestination(
  text: string,
  shownAt: bigint,
  now: bigint,
): Destination | undefined {
  const plain = toIsoDay(text.trim().toLowerCase().replace(/ utc$/, ""));
  const digits = plain.replaceAll(/[,.\s]/g, "");
  if (/^[\d,.\s]+$/.test(plain) && /^\d{1,15}$/.test(digits)) {
    return Number(digits) > 0 ? { number: Number(digits) } : undefined;
  }
  const [, day = "", time = ""] =
    /^(?:(today|yesterday|\d{4}-\d{2}-\d{2})(?:[ t]+|$))?(.*)$/.exec(plain) ?? [];
  const timeOfDay = time === "" && day !== "" ? "00:00" : toTimeOfDay(time);
  if (timeOfDay === undefined) return undefined;
  const at = parseDateTime(toDay(day, shownAt, now), timeOfDay);
  return at === undefined ? undefined : { at };
}

/** Replaces a day such as `29.11.2026` at the start. Dots always put the day first. */
function toIsoDay(text: string): string {
  return text.replace(/^(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\d)/, (_, day, month, year) => {
    return `${year}-${month.padStart(2, "0")}-${day.padStart(2, "0")}`;
  });
}

/** Returns a time such as `2:03 pm` or `14:3` as hours of the day with two digits of the minute. */
function toTimeOfDay(text: string): string | undefined {
  const [, hours, minutes, rest = "", half] =
    /^(\d{1,2})(?::(\d{1,2})((?::\d{2})?(?:\.\d{1,9})?))?\s*([ap]m)?$/.exec(text) ?? [];
  if (hours === undefined || (minutes === undefined && half === undefined)) return undefined;
  const minute = (minutes ?? "").padStart(2, "0");
  if (half === undefined) return `${hours}:${minute}${rest}`;
  const hour = Number(hours);
  if (hour < 1 || hour > 12) return undefined;
  return `${(hour % 12) + (half === "pm" ? 12 : 0)}:${minute}${rest}`;
}

function toDay(day: string, shownAt: bigint, now: bigint): string {
  if (day === "") return displayDateTime(shownAt).slice(0, 10);
  if (day === "today") return displayDateTime(now).slice(0, 10);
  return day === "yesterday" ? displayDateTime(now - dayNs).slice(0, 10) : day;
}
