/** `receive()`: gets a stream from a server, into a directory, a callback or an iterator. */
import { checkedClientKeys } from "./client-keys.ts";
import { usageError } from "../errors.ts";
import type { ReceiveTarget } from "../frame.ts";
import { parseAddress } from "../net/address.ts";
import { CallbackSink, type ReceivedFrame, type SingleOutput } from "./callback-sink.ts";
import { RecordingTarget, type SegmentLimits } from "./recording-target.ts";
import type { ReceiveEvent, ReceiveOptions } from "./receive-options.ts";
import { ReceiveSession } from "./receive-session.ts";
import { totalProgress } from "../protocol/progress.ts";
import { Transfer, type TransferSummary } from "./transfer.ts";
import { isVideoPath, VideoFile } from "./video-file.ts";
import { StreamCopy } from "../store/directory/stream-copy.ts";
import { checkPathPart } from "../store/name-rules.ts";
import { software } from "../version.ts";
import { type Hello, videoFeature } from "../wire/messages.ts";

/** Result of `receive`. Frames in `dropped` are not in `lost`. */
export interface ReceiveSummary extends TransferSummary {
  /** Connections after the first. */
  readonly retries: number;
  /** Location of the store, as the server names it. */
  readonly store: string;
  /** Whether the caller stopped it before the end of the stream; never true with `follow`. */
  readonly interrupted: boolean;
}

const defaultMaxFrameBytes = 256 << 20;

/** Unacknowledged data that the server may have in flight. */
const defaultWindow = { bytes: 64 << 20, frames: 8192 } as const;
/** The same for a callback, where frames in flight may have to wait in memory. */
const smallWindow = { bytes: 16 << 20, frames: 1024 } as const;

/** Destination of the frames; without one, `receive` returns an iterator. */
export interface ReceiveDestination {
  /** Directory for a copy of the stream; a later run receives only frames that are new since. */
  readonly directory?: string;
  /**
   * Path of an MCAP file for the frames; or of a video, with the ending `.mp4` or `.mkv`, for the frames
   * of one source of encoded video. A video needs ffmpeg.
   */
  readonly file?: string;
  /**
   * With an MCAP file: begins a new file whenever one has reached a limit. The time is added to its name.
   * Default: one file, and with `follow` a new one after 1 GiB or an hour.
   */
  readonly segment?: SegmentLimits;
  /** Called for one frame at a time; a returned promise delays the next call. */
  readonly onFrame?: (frame: ReceivedFrame) => Promise<void> | void;
}

const defaultSegment: SegmentLimits = { bytes: 2 ** 30, milliseconds: 3_600_000 };

/** Largest frame accepted into a directory or a file, where no frame has to fit into memory. */
const maxStoredFrameBytes = 2 ** 40;

/**
 * Receives a stream, frame by frame. A slow caller slows the server down (flow control), so that
 * frames do not pile up in memory.
 *
 * @throws {FramesError} if the session failed; single frames that failed are in the summary
 *
 * @example
 * ```ts
 * import { receive, send, serve } from "frames";
 *
 * const server = await serve("received", { listen: "127.0.0.1:0" });
 * const pictures = [{ name: "1.pgm", bytes: new TextEncoder().encode("P5 1 1 255\n!") }];
 * await send(pictures, { to: server.address, stream: "run7", source: "visible" });
 * for await (const { source, sequence, bytes } of receive("run7", { from: server.address })) {
 *   if (source !== "visible" || sequence !== 1 || bytes.length !== 12) throw new Error("another frame");
 * }
 * await receive("run7", { from: server.address, directory: "copy" });
 * await server.stop();
 * ```
 */
export function receive(
  stream: string,
  options: ReceiveOptions &
    (
      | { readonly directory: string }
      | Required<Pick<ReceiveDestination, "onFrame">>
      | (Required<Pick<ReceiveDestination, "file">> & Pick<ReceiveDestination, "segment">)
    ),
): Promise<ReceiveSummary>;
export function receive(
  stream: string,
  options?: ReceiveOptions,
): AsyncGenerator<ReceivedFrame, ReceiveSummary, void>;
export function receive(
  stream: string,
  options: ReceiveOptions & ReceiveDestination = {},
): Promise<ReceiveSummary> | AsyncGenerator<ReceivedFrame, ReceiveSummary, void> {
  const { directory, file, onFrame } = options;
  if (directory !== undefined) return receiveToDirectory(stream, directory, options);
  if (file !== undefined && isVideoPath(file)) return receiveToVideo(stream, file, options);
  if (file !== undefined) return receiveToFile(stream, file, options);
  if (onFrame !== undefined) return receiveToCallback(stream, onFrame, undefined, options);
  return iterate(stream, undefined, options);
}

async function* iterate(
  stream: string,
  singleOutput: SingleOutput | undefined,
  options: ReceiveOptions,
): AsyncGenerator<ReceivedFrame, ReceiveSummary, void> {
  const stopped = new AbortController();
  const signals =
    options.signal === undefined ? [stopped.signal] : [stopped.signal, options.signal];
  let pending: { frame: ReceivedFrame; onTaken: () => void } | undefined;
  let wake = () => {};
  const onFrame = (frame: ReceivedFrame) => {
    return new Promise<void>((onTaken) => {
      // The iteration has ended: discard the frame, so that the session can end.
      if (stopped.signal.aborted) return onTaken();
      pending = { frame, onTaken };
      wake();
    });
  };
  let isEnded = false;
  const signal = AbortSignal.any(signals);
  const receiving = receiveToCallback(stream, onFrame, singleOutput, {
    ...options,
    signal,
  }).finally(() => {
    isEnded = true;
    wake();
  });
  receiving.catch(() => {});
  try {
    for (;;) {
      while (pending === undefined && !isEnded) {
        await new Promise<void>((resolve) => (wake = resolve));
      }
      const next = pending as { frame: ReceivedFrame; onTaken: () => void } | undefined;
      if (next === undefined) return await receiving;
      pending = undefined;
      try {
        yield next.frame;
      } finally {
        // Also when the caller takes no more, since the session ends after its last frame.
        next.onTaken();
      }
    }
  } finally {
    stopped.abort();
    (pending as { onTaken: () => void } | undefined)?.onTaken();
    await receiving.catch(() => {});
  }
}

/**
 * Receives a stream and calls `onFrame` for each frame.
 *
 * @param singleOutput the output, if frames of a second source are an error
 */
export async function receiveToCallback(
  stream: string,
  onFrame: (frame: ReceivedFrame) => Promise<void> | void,
  singleOutput: SingleOutput | undefined,
  options: ReceiveOptions,
): Promise<ReceiveSummary> {
  return await runReceive(stream, new CallbackSink(onFrame, singleOutput), smallWindow, options);
}

async function receiveToDirectory(
  stream: string,
  directory: string,
  options: ReceiveOptions,
): Promise<ReceiveSummary> {
  checkStream(stream);
  const { sources, since, until, latest = false } = options;
  // These copies are incomplete. A saved cursor would make a later full run skip frames.
  const isComplete = !latest && until === undefined;
  const copy = new StreamCopy(directory, { stream, sources, since }, isComplete);
  try {
    const maxFrame = maxStoredFrameBytes;
    return await runReceive(stream, copy, defaultWindow, { maxFrame, ...options });
  } finally {
    copy.close();
  }
}

async function receiveToFile(
  stream: string,
  path: string,
  options: ReceiveOptions & Pick<ReceiveDestination, "segment">,
): Promise<ReceiveSummary> {
  checkStream(stream);
  const segment = options.segment ?? (options.follow === true ? defaultSegment : undefined);
  const onFile = (complete: string) => options.onEvent?.({ type: "file", path: complete });
  const target = new RecordingTarget(path, { stream, segment, onFile });
  let summary: ReceiveSummary | undefined;
  try {
    const maxFrame = maxStoredFrameBytes;
    summary = await runReceive(stream, target, defaultWindow, { maxFrame, ...options });
  } finally {
    target.close(summary?.interrupted === false);
  }
  return summary;
}

async function receiveToVideo(
  stream: string,
  path: string,
  options: ReceiveOptions,
): Promise<ReceiveSummary> {
  checkStream(stream);
  const video = new VideoFile(path);
  const summary = await video.write(iterate(stream, "video", options));
  if (!summary.interrupted && video.complete()) options.onEvent?.({ type: "file", path });
  const { skipped, maybeDamaged } = video;
  if (skipped > 0) options.onEvent?.({ type: "undecodable", frames: skipped });
  if (maybeDamaged > 0) options.onEvent?.({ type: "maybe-damaged", frames: maybeDamaged });
  return summary;
}

function checkStream(stream: string): void {
  try {
    checkPathPart(stream, false);
  } catch (error) {
    throw usageError(`Cannot receive: ${(error as Error).message}`);
  }
}

async function runReceive(
  stream: string,
  target: ReceiveTarget & Pick<CallbackSink, "checkSources">,
  window: Required<Hello>["window"],
  options: ReceiveOptions,
): Promise<ReceiveSummary> {
  checkStream(stream);
  const started = Date.now();
  const address = parseAddress(options.from ?? "127.0.0.1", "--from");
  const { follow = false, latest = false, sources, since, until, first } = options;
  const { maxFrame = defaultMaxFrameBytes } = options;
  if (first !== undefined && !(Number.isSafeInteger(first) && first >= 1)) {
    throw usageError(`Cannot receive the first ${first} frames: expected --first 1 or more`);
  }
  const hello = {
    role: "receive" as const,
    session: crypto.randomUUID().replaceAll("-", ""),
    stream,
    started: `${started}000000`,
    software,
    limits: { frame: maxFrame },
    window,
    follow,
    latest,
    ...(sources === undefined ? {} : { sources: [...sources] }),
    ...(since === undefined ? {} : { since: String(since) }),
    features: [videoFeature, ...(until === undefined ? [] : ["until"])],
    ...(until === undefined ? {} : { until: String(until) }),
  } satisfies Hello;
  const keys = await checkedClientKeys("receive", address, options);
  // With `latest` the caller chose to drop frames, so they do not count as failures.
  const drops = latest ? { policy: ["latest"] } : {};
  const transfer = new Transfer<ReceiveEvent>(stream, address, started, { ...options, ...drops });
  const session = new ReceiveSession({ transfer, options, hello, target, keys });
  const { isComplete, retries, store } = await session.run();
  const { lost, dropped } = totalProgress(session.progress);
  return {
    ...transfer.summarize(session.progress),
    lost: lost - dropped,
    dropped,
    retries,
    store,
    // With `follow` there is no other way to end.
    interrupted: !isComplete && !follow,
  };
}
