/**
 * Rules for frames whose name is taken: when two frames are the same, and when one may replace
 * another.
 */
import { FramesError } from "../errors.ts";
import type { FrameDescription, OfferStatus, Outcome, SourceInfo } from "../frame.ts";
import { hasOtherKey, provedKey, type SessionOwner } from "./session-owner.ts";

/** Columns of a stored frame's row that decide whether another frame is the same. */
export interface StoredFrameInfo extends SessionOwner {
  readonly bytes: number;
  readonly crc32: number;
  readonly session: string;
  /** Sequence number in that session. */
  readonly seq: number;
}

/** A stored frame, compared with an offered one of the same name. */
export interface OfferedFrameInfo extends StoredFrameInfo {
  /** 1 if the capture times agree within a microsecond, else 0. */
  readonly sameTime: number;
}

/** Statuses of offered frames that the sender may still send. */
export const pendingStatuses: ReadonlySet<OfferStatus> = new Set(["wanted", "needsChecksum"]);

/** Returns whether a stored frame has the size and CRC-32 of the one described. */
export function hasSameBytes(
  stored: StoredFrameInfo,
  { size }: FrameDescription,
  crc: number,
): boolean {
  return stored.bytes === size && stored.crc32 === crc;
}

/**
 * Returns whether a sender may replace a stored frame by other bytes of its name: it asks for it,
 * and the frame did not come with another key.
 */
export function mayReplaceOthers(stored: StoredFrameInfo, sourceInfo: SourceInfo): boolean {
  return sourceInfo.conflict === "replace" && !hasOtherKey(stored, provedKey(sourceInfo));
}

/** Returns whether a stored frame is an earlier version of this one, sent in the same session. */
export function isEarlierVersion(
  { session, seq }: StoredFrameInfo,
  sourceInfo: SourceInfo,
  { sequence }: { readonly sequence: number },
): boolean {
  return sourceInfo.replacesOwn === true && session === sourceInfo.session && seq < sequence;
}

/** Creates the error for a frame whose name is taken by other bytes. */
export function conflictError(): FramesError {
  return new FramesError("conflict", "other bytes are stored under this name");
}

/**
 * Returns the outcome of a frame that the journal has, but whose bytes were moved away from the
 * store.
 *
 * @param isOwn whether the sender repeats a frame of its session because it got no receipt
 * @param mayDelete whether the sender may delete its copy after a receipt
 */
export function movedAwayOutcome(
  { knowsMovedAway }: SourceInfo,
  isOwn: boolean,
  mayDelete: boolean,
): Outcome {
  if (isOwn && !mayDelete) return "present";
  if (knowsMovedAway === true) return new FramesError("moved-away");
  return mayDelete ? conflictError() : "present";
}
