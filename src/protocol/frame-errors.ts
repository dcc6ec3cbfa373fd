/** Errors about a single frame that sender and receiver report in the same words. */
import { FramesError } from "../errors.ts";

/** Error for a frame of `size` bytes when the server accepts at most `limit` bytes. */
export function tooLargeError(size: number, limit: number): FramesError {
  const message = `the frame has ${size} bytes, the server accepts ${limit}; there raise --max-frame`;
  return new FramesError("too-large", message);
}
