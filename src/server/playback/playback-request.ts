/** Which frames a receiving client asked for. */
import type { FrameRecord, FrameSelection } from "../../store/journal/catalog.ts";

/** Row ids examined per read of the journal, so that one read stays short. */
export const idBatchSize = 5000;

/** What a client asked for. */
export interface PlaybackRequest extends FrameSelection {
  /** Where it goes on, in the words of `cursorOf`. */
  readonly cursor?: string | undefined;
  /** Whether it waits for what arrives. */
  readonly follow: boolean;
}

/** Whether a row is one that was asked for. */
export function matchesRequest(
  row: FrameRecord,
  { stream, sources, since }: PlaybackRequest,
): boolean {
  return (
    row.stream === stream &&
    (sources === undefined || sources.includes(row.source)) &&
    (since === undefined || row.captured >= since)
  );
}
