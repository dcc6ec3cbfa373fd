/** Finds where decoding breaks and where it can begin again among spooled pictures of encoded video. */
import { FramesError } from "../../errors.ts";
import type { Frame } from "../../frame.ts";
import { pictureKind, type PictureKind } from "../../video/nal-units.ts";
import { codecOf, maxHeadBytes } from "../../video/picture-head.ts";
import type { SourceSpool } from "./source-spool.ts";
import type { LostNumbers } from "./spool-notes.ts";

/** Pictures in a spool that are read to find a recovery point: some 20 seconds. */
const maxLookedAt = 600;

/** A place in a spool where pictures are missing. */
export interface SpoolBreak {
  /** Missing numbers that are not recorded as lost. */
  readonly silent: readonly LostNumbers[];
  /** Number of the picture behind it. */
  readonly next: number;
}

/**
 * Finds the places where the spool of an earlier process lacks pictures. A server confirms the pictures
 * of a source in their order, so it has confirmed none behind the first that is spooled.
 *
 * @throws {FramesError} `unreadable`
 */
export function findBreaks(spool: SourceSpool): SpoolBreak[] {
  const lost = spool.losses().sort((a, b) => a.first - b.first);
  const breaks: SpoolBreak[] = [];
  let previous: number | undefined;
  for (const next of spool.pictureNumbers()) {
    const first = previous === undefined ? next - 1 : previous + 1;
    // Those before `first` are not looked at again.
    while (lost.length > 0 && lost[0]!.last < first) lost.shift();
    const silent = without({ first, last: next - 1 }, lost);
    // What is missing before the first picture was delivered, unless it was lost.
    if (previous !== undefined ? first < next : silent.length === 0) {
      breaks.push({ silent: previous === undefined ? [] : silent, next });
    }
    previous = next;
  }
  return breaks;
}

/** Returns the numbers of a range that are in none of the losses, which are sorted. */
function without({ first, last }: LostNumbers, losses: readonly LostNumbers[]): LostNumbers[] {
  const left: LostNumbers[] = [];
  let from = first;
  for (const loss of losses) {
    if (loss.first > last) break;
    if (loss.first > from) left.push({ first: from, last: loss.first - 1 });
    from = Math.max(from, loss.last + 1);
  }
  if (from <= last) left.push({ first: from, last });
  return left;
}

/**
 * Returns the number of the next picture with which decoding can begin again. That is a key frame, or
 * a recovery point of a stream without key frames.
 *
 * @param frame follows those in the spool
 * @param type media type of the source
 */
export function restartAfter(
  spool: SourceSpool,
  { sequence }: Frame,
  frame: Frame,
  type: string | undefined,
): number | undefined {
  const key = spool.keyAfter(sequence);
  if (key !== undefined || frame.isKey !== false) return key ?? frame.sequence;
  let next = spool.after(sequence);
  for (let looked = 0; next !== undefined && looked < maxLookedAt; looked++) {
    if (kindOf(next, type)?.recoveryCount !== undefined) return next.sequence;
    next = spool.after(next.sequence);
  }
  return kindOf(frame, type)?.recoveryCount === undefined ? undefined : frame.sequence;
}

/**
 * Reads the kind of a picture of encoded video from its bytes; `undefined` if that is not possible.
 *
 * @param type media type of the source
 */
export function kindOf(frame: Frame, type: string | undefined): PictureKind | undefined {
  const codec = codecOf(type, frame.name);
  if (codec === undefined) return undefined;
  const bytes = new Uint8Array(frame.size);
  try {
    frame.read(bytes);
  } catch (error) {
    if (error instanceof FramesError) return undefined;
    throw error;
  }
  return pictureKind(bytes.subarray(0, maxHeadBytes), codec);
}
