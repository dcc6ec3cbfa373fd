/** The frames that a receiving client asks for. */
import type { FrameRecord, FrameSelection } from "../../store/journal/journal-reader.ts";

/** Row ids examined per read of the journal, so that one read stays short. */
export const idBatchSize = 5000;

/** Selection of frames by a receiving client. */
export interface PlaybackRequest extends FrameSelection {
  /** Cursor to resume at, `NUMBERING.ID.FINGERPRINT`, as sent with an earlier frame. */
  readonly cursor?: string | undefined;
  /** Whether to wait for new frames after the stored ones. */
  readonly follow: boolean;
}

/** Whether a row belongs to the requested frames. */
export function matchesRequest(
  row: FrameRecord,
  { stream, sources, since, until }: PlaybackRequest,
): boolean {
  return (
    row.stream === stream &&
    (sources === undefined || sources.includes(row.source)) &&
    (since === undefined || row.captured >= since) &&
    (until === undefined || row.captured < until)
  );
}
