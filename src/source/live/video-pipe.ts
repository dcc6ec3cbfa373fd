/** Reads encoded video in Annex B from a pipe. */
import { toNanoseconds } from "../../common/clock.ts";
import { FramesError } from "../../errors.ts";
import { AccessUnitSplitter } from "../../video/access-units.ts";
import type { VideoCodec } from "../../video/nal-units.ts";
import { codecNames, type OnNotice } from "./encoded-video.ts";
import type { Capture } from "./iterable-source.ts";
import { VideoStart } from "./video-start.ts";

/** Bytes in which a start code must come. Access units of real streams begin sooner. */
const maxBytesBeforeStart = 16 << 20;

export interface VideoPipeOptions {
  readonly codec: VideoCodec;
  /** Largest allowed access unit, in bytes. */
  readonly maxFrameBytes: number;
  /** Returns the wall clock time, in milliseconds since 1970. */
  readonly clock: () => number;
  readonly onNotice: OnNotice;
}

/**
 * Yields the access units of a byte stream, and the lost ones. Each is yielded when the next one
 * begins, with the time at which its own first bytes came.
 *
 * @throws {FramesError} `unreadable` if it is no Annex B
 */
export async function* videoPipeFrames(
  stream: ReadableStream<Uint8Array>,
  { codec, maxFrameBytes, clock, onNotice }: VideoPipeOptions,
): AsyncGenerator<Capture, undefined> {
  const splitter = new AccessUnitSplitter(codec, maxFrameBytes);
  const start = new VideoStart(codec, onNotice);
  const unreadable = (reason: string): FramesError => {
    return new FramesError("unreadable", `Cannot read the pipe as ${codecNames[codec]}: ${reason}`);
  };
  const hint = `with ffmpeg, write -f ${codec === "h264" ? "h264" : "hevc"}`;
  let isEmpty = true;
  const toCapture = (unit: Uint8Array | number, captured: bigint): Capture | undefined => {
    if (typeof unit !== "number" && start.skips(unit)) return undefined;
    isEmpty = false;
    if (typeof unit !== "number") return { bytes: unit, extension: codec, captured };
    const message = `Cannot read a frame: it is ${unit} bytes long, the limit is ${maxFrameBytes}`;
    return { error: new FramesError("too-large", message) };
  };
  let began = 0n;
  let received = 0;
  for await (const chunk of stream) {
    const arrived = toNanoseconds(clock());
    if (received === 0) began = arrived;
    if (received === 0 && isTransportStream(chunk)) {
      throw unreadable(`it is an MPEG transport stream; ${hint}`);
    }
    received += chunk.length;
    for (const unit of splitter.push(chunk)) {
      const capture = toCapture(unit, began);
      if (capture !== undefined) yield capture;
      began = arrived;
    }
    if (!splitter.isAligned && received > maxBytesBeforeStart) break;
  }
  if (!splitter.isAligned && received > 0) {
    throw unreadable(`it has no start code of Annex B; ${hint}`);
  }
  for (const unit of splitter.end()) {
    const capture = toCapture(unit, began);
    if (capture !== undefined) yield capture;
  }
  if (isEmpty && received > 0) {
    const check = "check what writes it, and its codec";
    throw unreadable(`no key frame came in ${received} bytes; ${check}`);
  }
  return undefined;
}

/** Whether a stream begins with three packets of an MPEG transport stream, which may contain video. */
function isTransportStream(bytes: Uint8Array): boolean {
  return [0, 188, 376].every((at) => bytes[at] === 0x47);
}
