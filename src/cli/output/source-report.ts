/** Report on each source of a transfer: frames captured and delivered, gaps, and delays. */
import type { SourceReport } from "../../client/undelivered.ts";
import { deliveredCount } from "../../protocol/progress.ts";
import { printable } from "../../safe-text.ts";
import { formatCount } from "../args/units.ts";

/** Ranges of dropped numbers listed in a line. */
const maxRanges = 10;

/**
 * Returns the report for `--json`. Delays are in milliseconds, the rate in frames a second; unknown
 * values are left out.
 */
export function sourceReportJson(report: SourceReport): Record<string, unknown> {
  const { progress, captured, gaps, moreGaps, seconds } = report;
  const { name, sent, refused, bytes, lost, dropped, maybeDamaged = 0, retried, delays } = progress;
  const frames = deliveredCount(progress);
  const median = delays?.quantileMs(0.5);
  return {
    name,
    captured,
    sent,
    frames,
    bytes,
    refused,
    lost,
    dropped,
    ...(maybeDamaged > 0 ? { maybeDamaged } : {}),
    retried,
    ...(seconds > 0 ? { rate: frames / seconds } : {}),
    ...(delays === undefined ? {} : { late: delays.countAbove(lateAfterMs) }),
    ...(median === undefined ? {} : { delay: { median, p99: delays!.quantileMs(0.99) } }),
    gaps: gaps.map(({ first, last, error }) => [first, last, error]),
    ...(moreGaps > 0 ? { moreGaps } : {}),
  };
}

/** Delay from capture to receipt above which a live frame counts as late. */
const lateAfterMs = 1000;

/** Returns the report as a line for the user. */
export function sourceReportLine(report: SourceReport): string {
  const { progress, captured, gaps, moreGaps, seconds } = report;
  const { name, refused, dropped, maybeDamaged = 0, lost, retried, delays } = progress;
  const frames = deliveredCount(progress);
  const parts = [`${captured} captured`, `${frames} delivered`];
  if (seconds > 0) parts.push(`${(frames / seconds).toFixed(1)}/s`);
  const median = delays?.quantileMs(0.5);
  if (median !== undefined) {
    parts.push(
      `delay ${formatMilliseconds(median)} median, ${formatMilliseconds(delays!.quantileMs(0.99)!)} p99`,
    );
  }
  const late = delays?.countAbove(lateAfterMs) ?? 0;
  if (late > 0) parts.push(`${late} late`);
  if (retried > 0) parts.push(`${retried} sent again`);
  if (refused > 0) parts.push(`${refused} refused`);
  if (lost > dropped) parts.push(`${lost - dropped} not read`);
  if (dropped > 0) {
    const listed = gaps.filter(({ error }) => error === "dropped").slice(0, maxRanges);
    const ellipsis = moreGaps > 0 || gaps.length > listed.length ? ", …" : "";
    parts.push(`${dropped} dropped (${listed.map(formatRange).join(", ")}${ellipsis})`);
  }
  if (maybeDamaged > 0) parts.push(`${maybeDamaged} possibly damaged`);
  return `${printable(name)}: ${parts.join(", ")}`;
}

function formatRange({ first, last }: { first: number; last: number }): string {
  return first === last ? `${first}` : `${first}-${last}`;
}

function formatMilliseconds(value: number): string {
  return value < 10
    ? `${value.toFixed(1)} ms`
    : value < 10_000
      ? `${Math.round(value)} ms`
      : `${Math.round(value / 1000)} s`;
}

/** Returns the line for frames that an explicit `--policy` dropped. */
export function droppedLine(dropped: number): string {
  return `${formatCount(dropped, "frame")} dropped because of --policy`;
}
