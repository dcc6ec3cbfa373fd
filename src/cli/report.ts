/** The report on each source of a delivery: what was captured, what became of it, and how long it took. */
import type { SourceReport } from "../client/gaps.ts";
import { printable } from "./terminal.ts";
import { formatCount } from "./units.ts";

/** Ranges of numbers that a line names. */
const mostRanges = 10;

/** A source as `--json` tells of it. Delays and seconds are numbers; what is not known is left out. */
export function reportJson(report: SourceReport): Record<string, unknown> {
  const { progress, captured, gaps, moreGaps, seconds } = report;
  const { name, sent, settled, refused, moved, skipped, bytes, lost, dropped, retried } = progress;
  const frames = settled - refused - moved - skipped;
  const { delays } = progress;
  const median = delays?.within(0.5);
  return {
    name,
    captured,
    sent,
    frames,
    bytes,
    refused,
    lost,
    dropped,
    retried,
    ...(seconds > 0 ? { rate: frames / seconds } : {}),
    ...(delays === undefined ? {} : { late: delays.beyond(lateAfter) }),
    ...(median === undefined ? {} : { delay: { median, p99: delays!.within(0.99) } }),
    gaps: gaps.map(({ first, last, error }) => [first, last, error]),
    ...(moreGaps > 0 ? { moreGaps } : {}),
  };
}

/** Milliseconds after which a frame that came as it was captured is late. */
const lateAfter = 1000;

/** A source as people are told of it, if it is one that captures. */
export function reportLine(report: SourceReport): string {
  const { progress, captured, gaps, moreGaps, seconds } = report;
  const { name, settled, refused, moved, skipped, dropped, lost, retried, delays } = progress;
  const frames = settled - refused - moved - skipped;
  const parts = [`${captured} captured`, `${frames} delivered`];
  if (seconds > 0) parts.push(`${(frames / seconds).toFixed(1)}/s`);
  const median = delays?.within(0.5);
  if (median !== undefined) {
    parts.push(`delay ${milliseconds(median)} median, ${milliseconds(delays!.within(0.99)!)} p99`);
  }
  const late = delays?.beyond(lateAfter) ?? 0;
  if (late > 0) parts.push(`${late} late`);
  if (retried > 0) parts.push(`${retried} sent again`);
  if (refused > 0) parts.push(`${refused} refused`);
  if (lost > dropped) parts.push(`${lost - dropped} not read`);
  if (dropped > 0) {
    const shown = gaps.filter(({ error }) => error === "dropped").slice(0, mostRanges);
    const hidden = moreGaps > 0 || gaps.length > shown.length ? ", …" : "";
    parts.push(`${dropped} dropped (${shown.map(range).join(", ")}${hidden})`);
  }
  return `${printable(name)}: ${parts.join(", ")}`;
}

function range({ first, last }: { first: number; last: number }): string {
  return first === last ? `${first}` : `${first}-${last}`;
}

function milliseconds(value: number): string {
  return value < 10
    ? `${value.toFixed(1)} ms`
    : value < 10_000
      ? `${Math.round(value)} ms`
      : `${Math.round(value / 1000)} s`;
}

/** What is said of frames that were dropped as it was chosen. */
export function droppedLine(dropped: number): string {
  return `${formatCount(dropped, "frame")} dropped, as --policy says`;
}
