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
  const plain = text.trim().toLowerCase().replace(/ utc$/, "");
  const digits = plain.replaceAll(/[,.\s]/g, "");
  if (/^[\d,.\s]+$/.test(plain) && /^\d{1,15}$/.test(digits)) {
    return Number(digits) > 0 ? { number: Number(digits) } : undefined;
  }
  const [, day = "", time = ""] =
    /^(?:(today|yesterday|\d{4}-\d{2}-\d{2})(?:[ t]+|$))?(\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)?$/.exec(
      plain,
    ) ?? [];
  if (day === "" && time === "") return undefined;
  const at = parseDateTime(toDay(day, shownAt, now), time === "" ? "00:00" : time);
  return at === undefined ? undefined : { at };
}

function toDay(day: string, shownAt: bigint, now: bigint): string {
  if (day === "") return displayDateTime(shownAt).slice(0, 10);
  if (day === "today") return displayDateTime(now).slice(0, 10);
  return day === "yesterday" ? displayDateTime(now - dayNs).slice(0, 10) : day;
}
