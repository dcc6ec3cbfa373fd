/** Errors of frames that cannot be read back from a store. */
import { FramesError } from "../errors.ts";

/** Creates the error for a frame whose stored bytes differ from its row. */
export function otherBytesError(): FramesError {
  const message = "its bytes changed in the store; on the server run frames verify";
  return new FramesError("unreadable", message);
}

/** Creates the error for a frame whose stored bytes are gone. */
export function vanishedError(cause?: unknown): FramesError {
  return new FramesError("vanished", "its file was deleted from the store", { cause });
}
