/** Ticks of a time axis. */
import { displayDateTime, displayTimeOfDay, parseDateTime, toMilliseconds } from "./format.ts";
import type { TimeRange } from "./time-range.ts";

/** Least distance of two labels in CSS pixels. */
const minDistancePx = 82;

/** Candidate intervals in ms. The smallest one whose labels fit is used. */
const stepsMs = [1, 2, 5, 10, 20, 50, 100, 200, 500].concat(
  [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200].map(
    (seconds) => seconds * 1000,
  ),
  [1, 2, 5, 10, 20, 50, 100, 365].map((days) => days * 86_400_000),
);

export interface AxisTick {
  readonly at: bigint;
  readonly text: string;
}

/** Returns the ticks of the visible time at whole intervals of the zone of the page. */
export function axisTicks({ from, to }: TimeRange, lengthPx: number): AxisTick[] {
  const span = toMilliseconds(to - from);
  const step = stepsMs.find((stepMs) => (stepMs / span) * lengthPx > minDistancePx) ?? span;
  // Midnight of the zone, from which on intervals are whole.
  const midnight = parseDateTime(displayDateTime(from).slice(0, 10), "00:00") ?? 0n;
  const start = toMilliseconds(midnight);
  const ticks: AxisTick[] = [];
  const first = start + Math.ceil((toMilliseconds(from) - start) / step) * step;
  for (let tick = first; tick <= toMilliseconds(to); tick += step) {
    const at = BigInt(Math.round(tick)) * 1_000_000n;
    ticks.push({ at, text: tickText(at, step) });
  }
  return ticks;
}

function tickText(time: bigint, step: number): string {
  if (step >= 86_400_000) return displayDateTime(time).slice(0, 10);
  if (step >= 60_000) return displayTimeOfDay(time).slice(0, 5);
  return step >= 1000 ? displayTimeOfDay(time).slice(0, 8) : displayTimeOfDay(time).slice(3);
}
