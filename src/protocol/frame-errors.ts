/** Errors of one frame that sender and receiver word alike. */
import { FramesError } from "../errors.ts";

/** Why a frame is over the server's limit, as both ends say it. */
export function tooLargeError(size: number, limit: number): FramesError {
  const message = `the frame has ${size} bytes, the server takes ${limit} (frames serve --max-frame)`;
  return new FramesError("too-large", message);
}
