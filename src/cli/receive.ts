/** `frames receive`: copies a stream into a directory, an MCAP file, or standard output. */
import { toNanoseconds } from "../common/clock.ts";
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { defined } from "../common/defined.ts";
import { isTerminal } from "../common/is-terminal.ts";
import { usageError } from "../errors.ts";
import { parseAddress } from "../net/address.ts";
import { receive, type ReceiveDestination, receiveToCallback } from "../client/receive.ts";
import type { ReceiveOptions } from "../client/receive-options.ts";
import type { ReceivedFrame } from "../client/callback-sink.ts";
import { isVideoPath } from "../client/video-file.ts";
import type { Arguments } from "./args/arguments.ts";
import { keyOptions } from "./args/key-options.ts";
import { exitCodeOf } from "./output/exit-code.ts";
import { StdoutFrames } from "./output/stdout-frames.ts";
import { TransferOutput } from "./output/transfer-output.ts";
import { containsSecret } from "../safe-text.ts";
import type { Terminal } from "./output/terminal.ts";
import { parseSegment, parseTime } from "./args/units.ts";
import { runTransfer, type TransferSignals } from "./transfer.ts";

/** Names of video files that are not written. As directories they would surprise. */
const otherVideoPattern = /\.(?:avi|h26[45]|hevc|m4v|mov|mpe?g|ts|webm)$/i;

/**
 * Receives until the stream ends, a signal stops it, or the reader closes the pipe.
 *
 * @returns the exit status
 * @throws {FramesError} with the number of received frames in the message
 */
export async function receiveCommand(
  args: Arguments,
  terminal: Terminal,
  signals: TransferSignals,
): Promise<number> {
  const { stream, destination } = parsePositionals(args);
  const isToStdout = destination === "-";
  const isRecording = isFilePath(destination, /\.mcap$/i.test(destination));
  const isFile = isRecording || isFilePath(destination, isVideoPath(destination));
  if (!isFile && isFilePath(destination, otherVideoPattern.test(destination))) {
    throw usageError(
      `Cannot write ${destination}: a video is written as .mp4 or .mkv, its bytes with frames receive STREAM - > FILE`,
    );
  }
  const json = args.isOn("json");
  if (isToStdout && json) {
    throw usageError("Cannot write both frames and --json to standard output: leave one out");
  }
  if (!isToStdout && args.isOn("multipart")) {
    throw usageError(
      "Cannot use --multipart without a pipe: write frames receive STREAM --multipart -",
    );
  }
  if (isToStdout && isTerminal(1)) {
    throw usageError(
      "Cannot write frames to a terminal: they are binary; add > FILE or | PROGRAM, or write frames receive STREAM DIR",
    );
  }
  const options = receiveOptionsOf(args);
  const segment = segmentOf(args, isRecording);
  const directory = isToStdout || isFile ? undefined : resolve(destination);
  const output = new TransferOutput(args, terminal, { stream, directory, isFile });
  try {
    const isMultipart = args.isOn("multipart");
    const stdout = new StdoutFrames(isMultipart);
    const summary = await runTransfer(output, signals, (graceful) => {
      const signal = AbortSignal.any([graceful, stdout.closed]);
      const receiveOptions: ReceiveOptions = { ...options, ...output.callbacks, signal };
      if (isToStdout) {
        const write = (frame: ReceivedFrame) => stdout.write(frame);
        return receiveToCallback(stream, write, isMultipart ? undefined : "pipe", receiveOptions);
      }
      const target = isFile ? { file: destination, ...segment } : { directory: destination };
      return receive(stream, { ...receiveOptions, ...target });
    }).catch((error: unknown) => {
      // A closed pipe is the normal end, so later errors do not matter.
      if (!stdout.closed.aborted) throw error;
      return undefined;
    });
    if (summary === undefined || stdout.closed.aborted) {
      output.discard();
      return 0;
    }
    const { skipped, maybeDamaged } = stdout;
    if (skipped > 0) output.onEvent({ type: "undecodable", frames: skipped });
    if (maybeDamaged > 0) output.onEvent({ type: "maybe-damaged", frames: maybeDamaged });
    output.printSummary(summary);
    return exitCodeOf(summary);
  } catch (error) {
    throw output.toError(error);
  }
}

function parsePositionals(args: Arguments): { stream: string; destination: string } {
  const [stream, destination, ...rest] = args.positionals;
  if (stream === undefined) {
    throw usageError("Cannot receive: no stream given; write frames receive STREAM [DIR]");
  }
  if ([stream, ...args.list("source")].some(containsSecret)) {
    throw usageError(
      "Cannot receive under a name that holds a password or key: name the stream and its sources",
    );
  }
  if (rest.length > 0) {
    throw usageError(
      `Cannot receive into ${rest[0]} too: write one directory, as in frames receive STREAM DIR`,
    );
  }
  return { stream, destination: destination ?? `./${stream}` };
}

/** Returns whether frames go into a file. A directory may have the name of a file, too. */
function isFilePath(path: string, hasEnding: boolean): boolean {
  return hasEnding && statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true;
}

function segmentOf(args: Arguments, isRecording: boolean): Pick<ReceiveDestination, "segment"> {
  const text = args.text("segment");
  if (text === undefined) return {};
  const label = args.label("segment");
  if (!isRecording) {
    throw usageError(
      `Cannot use ${label} without an MCAP file: write frames receive STREAM FILE.mcap, or leave it out`,
    );
  }
  return { segment: parseSegment(text, label) };
}

function receiveOptionsOf(args: Arguments): ReceiveOptions {
  const from = args.text("from");
  parseAddress(from ?? "127.0.0.1", args.label("from"));
  const sources = args.list("source");
  const invalid = sources.find((source) => source.includes("="));
  if (invalid !== undefined) {
    throw usageError(
      `Cannot read --source ${invalid}: expected only a name, as in --source ${invalid.split("=")[0]}`,
    );
  }
  const first = args.integer("first");
  if (first === 0)
    throw usageError("Cannot receive the first 0 frames: expected --first 1 or more");
  const now = Date.now();
  return {
    ...keyOptions(args),
    follow: args.isOn("follow"),
    latest: args.isOn("latest"),
    ...defined({
      from,
      sources: sources.length === 0 ? undefined : sources,
      first,
      since: timeOf(args, "since", now),
      until: timeOf(args, "until", now),
      timeout: args.milliseconds("timeout"),
      giveUpAfter: args.milliseconds("give-up-after"),
    }),
  };
}

/** Reads a time, in nanoseconds since 1970. */
function timeOf(args: Arguments, name: "since" | "until", now: number): bigint | undefined {
  const text = args.text(name);
  if (text === undefined) return undefined;
  return toNanoseconds(parseTime(text, args.label(name), now));
}
