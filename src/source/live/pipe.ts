/** Reads frames from a pipe. */
import { toNanoseconds } from "../../common/clock.ts";
import type { Capture } from "./iterable-source.ts";
import { Splitter, type SplitterOptions } from "../image/splitter.ts";

/**
 * Yields the frames of a byte stream, each when its last byte has arrived, and the lost ones.
 *
 * @param clock returns the wall clock time, in milliseconds since 1970
 * @throws {FramesError} `unreadable` if the stream has no images
 */
export async function* pipeFrames(
  stream: ReadableStream<Uint8Array>,
  options: SplitterOptions,
  clock: () => number,
): AsyncGenerator<Capture, undefined> {
  const splitter = new Splitter(options);
  for await (const chunk of stream) {
    const captured = toNanoseconds(clock());
    for (const frame of splitter.push(chunk)) yield { ...frame, captured };
  }
  for (const last of splitter.end()) yield { ...last, captured: toNanoseconds(clock()) };
  return undefined;
}
