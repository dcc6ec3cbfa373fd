/**
 * Rules for frames whose name is taken: when two frames are the same, and when one may replace
 * another.
 */
import { FramesError } from "../errors.ts";
import type { FrameDescription, OfferedFrame, OfferStatus, Outcome, SourceInfo } from "../frame.ts";
import { hasOtherKey, provedKey, type SessionOwner, unknownSession } from "./session-owner.ts";

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

/** Returns whether the stored frame is this one, sent again because its sender got no receipt. */
export function isRepeated(
  { session, seq }: StoredFrameInfo,
  sourceInfo: SourceInfo,
  { sequence }: { readonly sequence: number },
): boolean {
  return session === sourceInfo.session && seq === sequence;
}

/**
 * Returns whether a frame whose name is taken has to be written before it is compared, because it
 * may take the place of the stored one.
 */
export function mayWriteOver(
  stored: StoredFrameInfo,
  sourceInfo: SourceInfo,
  description: FrameDescription,
): boolean {
  const { conflict, resendRemoved, isCopy } = sourceInfo;
  if (conflict === "replace" || resendRemoved === true || isCopy === true) return true;
  return isEarlierVersion(stored, sourceInfo, description);
}

/** Returns the status of an offered frame that differs from the stored one. */
export function mismatchStatus(
  stored: StoredFrameInfo,
  sourceInfo: SourceInfo,
  offered: OfferedFrame,
): OfferStatus {
  const mayReplace =
    mayReplaceOthers(stored, sourceInfo) || isEarlierVersion(stored, sourceInfo, offered);
  return mayReplace ? "wanted" : "conflict";
}

/**
 * Compares an offered frame with the row of its name. Returns `same` if they agree, so that the
 * stored bytes decide.
 */
export function compareWithRow(
  stored: OfferedFrameInfo,
  sourceInfo: SourceInfo,
  offered: OfferedFrame,
): OfferStatus | "same" {
  const { size, sequence, crc32 } = offered;
  // The sender has replaced this version since.
  const isReplaced = stored.session === sourceInfo.session && stored.seq > sequence;
  if (sourceInfo.replacesOwn === true && isReplaced) return "stored";
  if (stored.bytes !== size) return mismatchStatus(stored, sourceInfo, offered);
  if (crc32 !== undefined) {
    return stored.crc32 === crc32 ? "same" : mismatchStatus(stored, sourceInfo, offered);
  }
  // A row that was made from a file says what the file was then, not what had come.
  const isUnchecked = stored.session === unknownSession;
  return stored.sameTime === 0 || isUnchecked ? "needsChecksum" : "same";
}

/** Creates the error for a frame whose name is taken by other bytes. */
export function conflictError(): FramesError {
  return new FramesError("conflict", "other bytes are stored under this name");
}

/**
 * What a store has in place of a frame that has a row: the same bytes, other bytes, or nothing,
 * because they were moved away.
 */
export type StoredBytes = "same" | "other" | "gone";

/**
 * Returns the outcome of a frame whose name has a row, which it does not replace.
 *
 * @param isOwn whether the sender repeats a frame of its session because it got no receipt
 */
export function existingOutcome(
  { knowsMovedAway, verifyStored }: SourceInfo,
  bytes: StoredBytes,
  isOwn: boolean,
): Outcome {
  if (bytes === "same") return "present";
  if (bytes === "other") return conflictError();
  // The sender may delete its copy after a receipt.
  const mayDelete = verifyStored === true;
  if (isOwn && !mayDelete) return "present";
  if (knowsMovedAway === true) return new FramesError("moved-away");
  return mayDelete ? conflictError() : "present";
}
