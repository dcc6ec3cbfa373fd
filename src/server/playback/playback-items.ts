/** Makes playback items from journal rows. */
import { FramesError } from "../../errors.ts";
import type {
  PlaybackFrame,
  PlaybackItem,
  PlaybackSource,
} from "../../protocol/playback/playback.ts";
import type { FrameFiles } from "../../store/directory/frame-files.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { isPathPart, isSource } from "../../store/journal/row-check.ts";
import { unknownSession } from "../../store/session-owner.ts";
import { videoTypes } from "../../video/nal-units.ts";
import { codecOf } from "../../video/picture-head.ts";
import { StoredFrame } from "./stored-frame.ts";

export function sourceInfo({ source, name, session, raw }: FrameRecord): PlaybackSource {
  const codec = codecOf(undefined, name);
  return { name: source, session, type: codec && videoTypes[codec], raw };
}

export function frameItem(
  files: FrameFiles,
  record: FrameRecord,
  cursor: string | undefined,
): PlaybackItem {
  if (record.isDamaged === true) return damagedItem(record, cursor);
  const frame = new StoredFrame(files, record);
  return { type: "frame", source: sourceInfo(record), position: record.id, cursor, frame };
}

/**
 * Returns the item to send for a row that the disk has damaged. Its fields could break the rules of
 * the protocol, which would end the connection of every client that asks for the stream.
 */
function damagedItem(
  { id, stream, source, sequence, name: frameName }: FrameRecord,
  cursor: string | undefined,
): PlaybackItem {
  const name = isSource({ stream, source }) ? source : stream;
  const first = Number.isSafeInteger(sequence) && sequence >= 1 ? sequence : 1;
  const reason =
    "its row in the server's journal is damaged; stop the server and run frames verify DIR --repair there";
  const error = new FramesError("unreadable", reason);
  const lost = { name, session: unknownSession, raw: undefined };
  const range = { first, last: first, ...(isPathPart(frameName) && { name: frameName }) };
  return { type: "lost", source: lost, position: id, cursor, ...range, error };
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
  return { type: "lost", source, position, cursor, first: sequence, last: sequence, name, error };
}
