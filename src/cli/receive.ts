/** `frames receive`: copies a stream into a directory, an MCAP file, or standard output. */
import { statSync } from "node:fs";
import { isTerminal } from "../common/is-terminal.ts";
import { FramesError } from "../errors.ts";
import { parseAddress } from "../net/address.ts";
import {
  receive,
  type ReceiveDestination,
  receiveToCallback,
  type ReceiveOptions,
} from "../client/receive.ts";
import { isVideoPath } from "../client/video-file.ts";
import type { Arguments } from "./args/arguments.ts";
import { keyOptions } from "./args/key-options.ts";
import { exitCodeOf } from "./output/exit-code.ts";
import { StdoutFrames } from "./output/stdout-frames.ts";
import { ReceiveOutput } from "./output/receive-output.ts";
import { containsSecret } from "../safe-text.ts";
import { print, type Terminal } from "./output/terminal.ts";
import { parseSegment, parseTime } from "./args/units.ts";
import type { OnReportRequest, StopSignals } from "./stop-signals.ts";

/**
 * Receives until the stream ends, a signal stops it, or the reader closes the pipe.
 *
 * @param stopOnSignal installs the signal handlers; until it is called, signals end the process
 * @returns the exit status
 * @throws {FramesError} with the number of received frames in the message
 */
export async function receiveCommand(
  args: Arguments,
  terminal: Terminal,
  stopOnSignal: () => StopSignals,
  onReportRequest: OnReportRequest,
): Promise<number> {
  const { stream, destination } = parsePositionals(args);
  const isToStdout = destination === "-";
  const isRecording = isFilePath(destination, /\.mcap$/i.test(destination));
  const isFile = isRecording || isFilePath(destination, isVideoPath(destination));
  const json = args.isOn("json");
  if (isToStdout && json) {
    throw new FramesError(
      "usage",
      "Cannot write both frames and --json to standard output: leave one out",
    );
  }
  if (!isToStdout && args.isOn("multipart")) {
    throw new FramesError(
      "usage",
      "Cannot use --multipart without a pipe: write frames receive STREAM --multipart -",
    );
  }
  if (isToStdout && isTerminal(1)) {
    throw new FramesError(
      "usage",
      "Cannot write frames to a terminal: they are binary; add > FILE or | PROGRAM, or write frames receive STREAM DIR",
    );
  }
  const options = receiveOptionsOf(args);
  const segment = segmentOf(args, isRecording);
  const directory = isToStdout || isFile ? undefined : destination;
  const output = new ReceiveOutput(args, terminal, stream, directory, isFile);
  try {
    const { graceful, immediate } = stopOnSignal();
    onReportRequest(() => output.printReport());
    graceful.addEventListener("abort", () => output.onStopping());
    const killed = Promise.withResolvers<never>();
    immediate.addEventListener("abort", () => killed.reject(new FramesError("interrupted")));
    const stdout = new StdoutFrames(args.isOn("multipart"));
    const receiveOptions: ReceiveOptions = {
      ...options,
      signal: AbortSignal.any([graceful, stdout.closed]),
      onEvent: (event) => output.onEvent(event),
      ...(args.isOn("verbose")
        ? { onMessage: (direction, line) => print(terminal, `${direction} ${line}`) }
        : {}),
    };
    const receiving = isToStdout
      ? receiveToCallback(
          stream,
          (frame) => stdout.write(frame),
          args.isOn("multipart") ? undefined : "pipe",
          receiveOptions,
        )
      : receive(stream, {
          ...receiveOptions,
          ...(isFile ? { file: destination, ...segment } : { directory: destination }),
        });
    const summary = await Promise.race([receiving, killed.promise]).catch((error: unknown) => {
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
    throw new FramesError(
      "usage",
      "Cannot receive: no stream given; write frames receive STREAM [DIR]",
    );
  }
  if ([stream, ...args.list("source")].some(containsSecret)) {
    throw new FramesError(
      "usage",
      "Cannot receive under a name that holds a password or key: name the stream and its sources",
    );
  }
  if (rest.length > 0) {
    throw new FramesError(
      "usage",
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
    throw new FramesError(
      "usage",
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
    throw new FramesError(
      "usage",
      `Cannot read --source ${invalid}: expected only a name, as in --source ${invalid.split("=")[0]}`,
    );
  }
  const first = args.integer("first");
  if (first === 0)
    throw new FramesError("usage", "Cannot receive the first 0 frames: expected --first 1 or more");
  const now = Date.now();
  const since = timeOf(args, "since", now);
  const until = timeOf(args, "until", now);
  const timeout = args.milliseconds("timeout");
  const giveUpAfter = args.milliseconds("give-up-after");
  return {
    ...keyOptions(args),
    follow: args.isOn("follow"),
    latest: args.isOn("latest"),
    ...(from === undefined ? {} : { from }),
    ...(sources.length === 0 ? {} : { sources }),
    ...(first === undefined ? {} : { first }),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    ...(timeout === undefined ? {} : { timeout }),
    ...(giveUpAfter === undefined ? {} : { giveUpAfter }),
  };
}

/** Reads a time, in nanoseconds since 1970. */
function timeOf(args: Arguments, name: "since" | "until", now: number): bigint | undefined {
  const text = args.text(name);
  if (text === undefined) return undefined;
  return BigInt(Math.round(parseTime(text, args.label(name), now) * 1e6));
}
