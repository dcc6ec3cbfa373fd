/** Stored frames as JSON, and the cursors by which a client goes on from one. */
import { usageError } from "../../errors.ts";
import type { FrameRecord, JournalPosition } from "../../store/journal/journal-reader.ts";
import { frameUrlPath, mediaType } from "../media-type.ts";

/** Describes a stored frame. */
export function frameJson(frame: FrameRecord) {
  const { stream, source, name, sequence, session, size, crc32, captured, received } = frame;
  return {
    stream,
    source,
    name,
    number: sequence,
    session,
    size,
    crc32: crc32.toString(16).padStart(8, "0"),
    captured,
    received,
    key: frame.key ?? null,
    metadata: parseMetadata(frame.metadata),
    raw: frame.raw ?? null,
    isKey: frame.isKey ?? null,
    type: mediaType(name, frame.raw),
    url: frameUrlPath(stream, source, name),
    cursor: formatCursor(frame),
  };
}

function parseMetadata(text: string): unknown {
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export function formatCursor({ captured, sequence, id }: JournalPosition): string {
  return `${captured}_${sequence}_${id}`;
}

/** @throws {FramesError} `usage` if the text is no cursor */
export function parseCursor(cursor: string): JournalPosition {
  const [, captured, sequence, id] = /^(-?\d{1,19})_(\d{1,16})_(\d{1,16})$/.exec(cursor) ?? [];
  if (captured === undefined)
    throw usageError("Cannot read the cursor: use one from an earlier answer");
  return {
    captured: BigInt.asIntN(64, BigInt(captured)),
    sequence: Number(sequence),
    id: Number(id),
  };
}
