/** Turns errors of the system and of SQLite into errors of the table. */
import {
  FramesError,
  isExhausted,
  isSystemError,
  systemCode,
  systemSentence,
} from "../../errors.ts";
import { journalError, journalPath } from "../journal/schema.ts";
import { hasNoInodes } from "./free-space.ts";

/** Codes for a disk that cannot be written, so that no frame can be stored. */
const diskCodes = new Set(["ENOSPC", "EDQUOT", "EROFS", "EIO"]);

/**
 * Converts an error of writing to the store. If it would affect every frame, such as a full disk,
 * it becomes `store`, which ends the connection and is tried again. Other errors become
 * `not-stored`, which refuses one frame. A fault in the software becomes `internal`.
 *
 * @param what beginning of the message
 * @param root path of the store
 */
export function toStoreError(error: unknown, what: string, root: string): FramesError {
  if (error instanceof FramesError) return error;
  const code = systemCode(error) ?? "";
  if (!isSystemError(error)) return new FramesError("internal", what, { cause: error });
  if (code.startsWith("SQLITE_")) return journalError("read", journalPath(root), error);
  const isForAll = diskCodes.has(code) || isExhausted(error);
  const hasOnlyBytes = code === "ENOSPC" && hasNoInodes(root);
  const reason = hasOnlyBytes ? "no inodes left on the disk (df -i)" : systemSentence(error);
  return new FramesError(isForAll ? "store" : "not-stored", `${what}: ${reason}`, {
    cause: error,
  });
}

/** As `toStoreError`, for an error that affects every frame whatever its code is. */
export function toWholeStoreError(error: unknown, what: string, root: string): FramesError {
  const storeError = toStoreError(error, what, root);
  const isOfOneFrame = storeError.wireCode >= 32;
  return isOfOneFrame ? new FramesError("store", storeError.message, { cause: error }) : storeError;
}

/**
 * Converts an error of looking at one file of the store. It concerns only the frame of that file,
 * even if the disk cannot read it, unless the process has too many open files.
 */
export function toReadError(error: unknown, path: string): FramesError {
  if (error instanceof FramesError) return error;
  if (!isSystemError(error)) return new FramesError("internal", undefined, { cause: error });
  return new FramesError(
    isExhausted(error) ? "store" : "not-stored",
    `Cannot read ${path}: ${systemSentence(error)}`,
    { cause: error },
  );
}
