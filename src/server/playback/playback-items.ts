/** Makes playback items from journal rows. */
import type { FramesError } from "../../errors.ts";
import type {
  PlaybackFrame,
  PlaybackItem,
  PlaybackSource,
} from "../../protocol/playback/playback.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { StoredFrame } from "./stored-frame.ts";

export function sourceInfo({ source, session, raw }: FrameRecord): PlaybackSource {
  return { name: source, session, raw };
}

export function frameItem(
  location: string,
  record: FrameRecord,
  cursor: string | undefined,
): PlaybackFrame {
  const frame = new StoredFrame(location, record);
  return { type: "frame", source: sourceInfo(record), position: record.id, cursor, frame };
}

/**
 * Returns the item to send for a frame that could not be read; undefined if a newer frame replaced
 * it.
 *
 * @param current row that has the frame's name in the journal now
 */
export function unavailableItem(
  item: PlaybackFrame,
  error: FramesError,
  current: FrameRecord | undefined,
): PlaybackItem | undefined {
  const { source, position, cursor, frame } = item;
  const { sequence, name } = frame;
  // The replacing frame has a later row, and is sent in its turn.
  if (current !== undefined && current.id !== position) return undefined;
  if (error.code === "vanished" || current === undefined) {
    return { type: "gone", source, position, cursor, sequence, name };
  }
  return { type: "lost", source, position, cursor, first: sequence, last: sequence, error };
}
