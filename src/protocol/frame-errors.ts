/** Errors about a single frame that sender and receiver report in the same words. */
import { errorByNumber, FramesError, truncateMessage } from "../errors.ts";

/** Error for a frame of `size` bytes when the server accepts at most `limit` bytes. */
export function tooLargeError(size: number, limit: number): FramesError {
  const message = `the frame has ${size} bytes, the server accepts ${limit}; there raise --max-frame`;
  return new FramesError("too-large", message);
}

/** Returns the error that a peer has sent as ERROR. */
export function peerError(
  peerName: string,
  { error, message }: { readonly error: number; readonly message: string },
): FramesError {
  const code = errorByNumber(error, "end");
  return new FramesError(code, `The ${peerName} says: ${truncateMessage(message)}`);
}
