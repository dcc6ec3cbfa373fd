/** The report on each source of a delivery: what was captured, what became of it, and how long it took. */
import type { SourceReport } from "../../client/undelivered.ts";
import { printable } from "./terminal.ts";
import { formatCount } from "../args/units.ts";

/** Ranges of numbers that a line names. */
const maxRanges = 10;

/** A source as `--json` tells of it. Delays and seconds are numbers; what is not known is left out. */
export function sourceReportJson(report: SourceReport): Record<string, unknown> {
  const { progress, captured, gaps, moreGaps, seconds } = report;
  const {
    name,
    sent,
    settled,
    refused,
    removedAtServer: moved,
    conflictsSkipped: skipped,
    bytes,
    lost,
    dropped,
    retried,
  } = progress;
  const frames = settled - refused - moved - skipped;
  const { delays } = progress;
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
    retried,
    ...(seconds > 0 ? { rate: frames / seconds } : {}),
    ...(delays === undefined ? {} : { late: delays.countAbove(lateAfterMs) }),
    ...(median === undefined ? {} : { delay: { median, p99: delays!.quantileMs(0.99) } }),
    gaps: gaps.map(({ first, last, error }) => [first, last, error]),
    ...(moreGaps > 0 ? { moreGaps } : {}),
  };
}

/** Milliseconds after which a frame that came as it was captured is late. */
const lateAfterMs = 1000;

/** A source as people are told of it, if it is one that captures. */
export function sourceReportLine(report: SourceReport): string {
  const { progress, captured, gaps, moreGaps, seconds } = report;
  const {
    name,
    settled,
    refused,
    removedAtServer: moved,
    conflictsSkipped: skipped,
    dropped,
    lost,
    retried,
    delays,
  } = progress;
  const frames = settled - refused - moved - skipped;
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

/** What is said of frames that were dropped as it was chosen. */
export function droppedLine(dropped: number): string {
  return `${formatCount(dropped, "frame")} dropped, as --policy says`;
}
