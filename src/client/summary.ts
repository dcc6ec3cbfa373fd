/** Result of a transfer: what both directions and the article's dialect have in common. */
import type { ErrorName } from "../errors.ts";
import {
  deliveredCount,
  type SourceProgress,
  totalProgress,
  type Undelivered,
} from "../protocol/progress.ts";
import type { SourceReport, UndeliveredReport } from "./undelivered.ts";

/** Result of a transfer in either direction. */
export interface TransferSummary {
  readonly stream: string;
  /** Frames that the receiving side has now: stored by this transfer, or before it. */
  readonly frames: number;
  /** Bytes of frames transferred. */
  readonly bytes: number;
  /** Part of `frames`: frames that the receiving side had already. */
  readonly present: number;
  /** Frames that the receiving side refused, or could not store. */
  readonly refused: number;
  /** Frames that were never sent: not readable, too large, or dropped by a queue. */
  readonly lost: number;
  /** Frames dropped by an explicit `policy`; when receiving, by `latest`. */
  readonly dropped: number;
  readonly seconds: number;
  readonly address: string;
  readonly sources: readonly SourceReport[];
  /** Frames not delivered, and why: the first 1,000; `onEvent` gets all of them. */
  readonly undelivered: readonly Undelivered[];
  /** Frames not delivered, by error code. Frames in `dropped` count only with `failOnGap`. */
  readonly reasons: Readonly<Partial<Record<ErrorName, number>>>;
}

/** What is known of a transfer before it begins. */
export interface TransferStart {
  readonly stream: string;
  /** Address of the server. */
  readonly address: string;
  /** Milliseconds since 1970. */
  readonly started: number;
}

/** Adds up a transfer. */
export function summarize(
  { stream, address, started }: TransferStart,
  progress: readonly SourceProgress[],
  report: UndeliveredReport,
): TransferSummary {
  const total = totalProgress(progress);
  const { bytes, present, refused, lost } = total;
  const { dropped, undelivered, reasons } = report;
  return {
    stream,
    frames: deliveredCount(total),
    bytes,
    present,
    refused,
    lost,
    dropped,
    seconds: (Date.now() - started) / 1000,
    address,
    sources: report.sourceReports(progress, started),
    undelivered,
    reasons,
  };
}
