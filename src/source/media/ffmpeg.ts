/** Runs ffmpeg and ffprobe, and reads their output and their last messages. */
import { FramesError } from "../../errors.ts";
import { printable, redact, secretVariables } from "../../safe-text.ts";
import { type LostPacket, type Packet, PacketParser } from "./packets.ts";

/** Time in which a stopped program must exit before it is killed, in milliseconds. */
const killTimeoutMs = 1000;

/** Longest ffmpeg message that is reported, in characters. */
const maxMessageLength = 300;

/** Messages older than this when ffmpeg ends are unrelated to its end, in milliseconds. */
const maxMessageAgeMs = 15_000;

/** Time in which ffmpeg must exit after its last data, such as the index of a file, in milliseconds. */
const finishTimeoutMs = 600_000;

/** Time in which ffmpeg must print its version, in milliseconds. */
const versionTimeoutMs = 5000;

/** Arguments for messages that `collectStderr` reads. */
const quietArgs = ["-nostdin", "-nostats", "-hide_banner", "-loglevel", "level+warning"];

/** Limit for the output of ffprobe. */
const maxProbeOutputBytes = 4 << 20;

/** Result of running ffmpeg. */
export interface FfmpegResult {
  /** Why the run failed, for people; `undefined` if ffmpeg exited by itself with status 0. */
  readonly failure: string | undefined;
  /** Last messages of ffmpeg in one line; empty if there were none. */
  readonly message: string;
  /** Whether ffmpeg logged errors. It may still have completed. */
  readonly hasErrors: boolean;
}

/** The packets of one run of ffmpeg, and how it ended. */
export type Packets = AsyncGenerator<Packet | LostPacket, FfmpegResult>;

/** Options of `runFfmpeg`. */
export interface FfmpegOptions {
  /** Largest allowed packet, in bytes. */
  readonly maxPacketBytes: number;
  /** Milliseconds without output after which ffmpeg counts as stalled. */
  readonly stallTimeoutMs: number;
  /** Stops ffmpeg. */
  readonly signal: AbortSignal;
  /** Text for standard input. */
  readonly script?: string | undefined;
  /** Called with each message of ffmpeg. */
  readonly onLog?: (sentence: string) => void;
  /** Bytes for standard input, read as ffmpeg takes them. */
  readonly input?: AsyncIterable<Uint8Array>;
}

/**
 * Output argument that produces the input of `PacketParser`. `tee` passes each packet to two
 * muxers: one writes a line that describes the packet, the other its bytes, both to stdout.
 */
const teeOutput = "[f=framecrc:flush_packets=1]pipe:1|[f=rawvideo:flush_packets=1]pipe:1";

/**
 * Runs ffmpeg and yields its packets. Reads its output only on demand. The process has exited when
 * the generator ends.
 *
 * @param args input and encoding arguments, without the output
 * @throws {FramesError} `missing` if ffmpeg is not installed
 */
export async function* runFfmpeg(
  args: readonly string[],
  { maxPacketBytes, stallTimeoutMs, signal, script, onLog, input }: FfmpegOptions,
): Packets {
  const stdin = input === undefined ? toStdin(script) : "pipe";
  const child = spawnProgram("ffmpeg", [...quietArgs, ...args, "-f", "tee", teeOutput], stdin);
  const reader = child.stdout.getReader();
  let hasStalled = false;
  let hasEnded = false;
  let wasStopped = false;
  const log = collectStderr(child.stderr, () => wasStopped, script !== undefined, onLog);
  const stop = (): void => {
    wasStopped = true;
    // Close the pipe too, because ffmpeg ignores the signal while it is blocked in a write.
    void reader.cancel().catch(() => {});
    child.kill();
  };
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  // A failure of the input ends ffmpeg, and then this generator.
  if (input !== undefined) feed(child, input, undefined).catch(stop);
  try {
    const parser = new PacketParser(maxPacketBytes);
    for (;;) {
      const timer = setTimeout(() => {
        hasStalled = true;
        stop();
      }, stallTimeoutMs);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      hasEnded = done && !wasStopped;
      if (done || signal.aborted) break;
      yield* parser.push(value);
    }
  } finally {
    signal.removeEventListener("abort", stop);
    await waitForExit(child, stop, hasEnded ? Math.min(stallTimeoutMs, finishTimeoutMs) : 0);
  }
  const { message: last, hasErrors } = await log;
  const failure = hasStalled ? `no data arrived for ${stallTimeoutMs / 1000} s` : failureOf(child);
  return { failure, message: last, hasErrors };
}

/**
 * Runs ffmpeg with an output that the arguments name. The process has exited when this returns.
 *
 * @param input bytes for standard input, read as ffmpeg takes them. If it fails, ffmpeg is stopped.
 * @param stallTimeoutMs milliseconds without taking input after which ffmpeg counts as stalled
 * @throws {FramesError} `missing` if ffmpeg is not installed; what `input` throws
 */
export async function feedFfmpeg(
  args: readonly string[],
  input: AsyncIterable<Uint8Array>,
  stallTimeoutMs: number,
): Promise<FfmpegResult> {
  const child = spawnProgram("ffmpeg", [...quietArgs, ...args], "pipe");
  const log = collectStderr(child.stderr, () => false, false);
  const stop = () => child.kill();
  let hasStalled = false;
  const onStall = () => {
    hasStalled = true;
    void waitForExit(child, stop);
  };
  let isFed = false;
  try {
    await feed(child, input, { stallTimeoutMs, onStall });
    isFed = true;
  } finally {
    // After its input ffmpeg writes the index of the file.
    await waitForExit(child, stop, isFed ? finishTimeoutMs : 0);
  }
  const { message: last, hasErrors } = await log;
  const stalled = `ffmpeg took no data for ${stallTimeoutMs / 1000} s`;
  return { failure: hasStalled ? stalled : failureOf(child), message: last, hasErrors };
}

/**
 * Passes bytes to a program until they end or the program exits.
 *
 * @param stall how long the program may take no bytes, and what is called then
 */
async function feed(
  child: Child,
  input: AsyncIterable<Uint8Array>,
  stall: { readonly stallTimeoutMs: number; readonly onStall: () => void } | undefined,
): Promise<void> {
  const stdin = child.stdin as Bun.FileSink;
  let hasExited = false;
  const exited = child.exited.then(() => void (hasExited = true));
  try {
    for await (const bytes of input) {
      const timer = stall && setTimeout(stall.onStall, stall.stallTimeoutMs);
      // The exit status says why it takes no more.
      const written = writeAll(stdin, bytes).catch(() => exited);
      await Promise.race([written, exited]).finally(() => clearTimeout(timer));
      if (hasExited) break;
    }
  } finally {
    await Promise.resolve(stdin.end()).catch(() => {});
  }
}

async function writeAll(stdin: Bun.FileSink, bytes: Uint8Array): Promise<void> {
  await stdin.write(bytes);
  await stdin.flush();
}

function failureOf({ signalCode, exitCode }: Child): string | undefined {
  if (signalCode !== null) return `ffmpeg was stopped by ${signalCode}`;
  return exitCode === 0 ? undefined : `ffmpeg failed with exit code ${exitCode}`;
}

/** Options of `runFfprobe`. */
export interface FfprobeOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** Text for standard input. */
  readonly script?: string | undefined;
}

/**
 * Runs ffprobe and returns its JSON output.
 *
 * @param name name of the input, for messages
 * @throws {FramesError} `missing` if ffprobe is not installed, `timeout` after `timeoutMs`
 * milliseconds, `unreadable`
 */
export async function runFfprobe(
  args: readonly string[],
  name: string,
  { timeoutMs, signal, script }: FfprobeOptions,
): Promise<unknown> {
  const common = ["-hide_banner", "-loglevel", "level+error", "-of", "json"];
  const child = spawnProgram("ffprobe", [...common, ...args], toStdin(script));
  let hasTimedOut = false;
  const log = collectStderr(child.stderr, () => hasTimedOut, script !== undefined);
  const stop = (): void => child.kill();
  const timer = setTimeout(() => {
    hasTimedOut = true;
    void waitForExit(child, stop);
  }, timeoutMs);
  signal?.addEventListener("abort", stop);
  let text: string | undefined;
  try {
    text = await readText(child.stdout, maxProbeOutputBytes);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    await waitForExit(child, stop, text === undefined ? 0 : timeoutMs);
  }
  const { message: last } = await log;
  if (hasTimedOut) {
    const problem = `Cannot read ${name}: ffprobe did not recognize it within ${timeoutMs / 1000} s`;
    throw new FramesError("timeout", last === "" ? problem : `${problem}; it printed: ${last}`);
  }
  if (child.exitCode !== 0) {
    const status = child.signalCode ?? child.exitCode;
    const reason = last === "" ? `ffprobe failed with ${status} and printed no reason` : last;
    throw new FramesError("unreadable", `Cannot read ${name}: ${reason}`);
  }
  return JSON.parse(text);
}

/**
 * Returns whether ffmpeg is older than 5.1, which renamed the option that disables frame duplication.
 *
 * @param version as `ffmpeg -version` and ffprobe print it
 */
export function isOldVersion(version: string): boolean {
  const [, major, minor] = /^n?(\d+)\.(\d+)/.exec(version) ?? [];
  return major !== undefined && Number(major) * 100 + Number(minor) < 501;
}

/**
 * Returns the version of ffmpeg.
 *
 * @throws {FramesError} `missing` if ffmpeg is not installed
 */
export async function ffmpegVersion(): Promise<string> {
  const child = spawnProgram("ffmpeg", ["-version"], "ignore");
  const timer = setTimeout(() => child.kill("SIGKILL"), versionTimeoutMs);
  const text = await readText(child.stdout, maxProbeOutputBytes).finally(() => clearTimeout(timer));
  return /^ffmpeg version (\S+)/.exec(text)?.[1] ?? "";
}

type Stdin = "ignore" | "pipe" | Uint8Array;
type Child = Bun.Subprocess<Stdin, "pipe", "pipe">;

function toStdin(script: string | undefined): Stdin {
  return script === undefined ? "ignore" : Buffer.from(script);
}

/**
 * Returns the path of a program.
 *
 * @param purpose what it is needed for, such as `read videos`
 * @throws {FramesError} `missing` if it is not installed
 */
export function findProgram(program: "ffmpeg" | "ffprobe", purpose: string): string {
  const path = Bun.which(program, { PATH: process.env["PATH"] ?? "" });
  if (path !== null) return path;
  const what = `${program} is not installed; install ffmpeg 4.4 or later`;
  throw new FramesError("missing", `Cannot ${purpose}: ${what}`);
}

function spawnProgram(program: "ffmpeg" | "ffprobe", args: readonly string[], stdin: Stdin): Child {
  const path = findProgram(program, "read videos, cameras and URLs");
  const env: Record<string, string | undefined> = { ...process.env, AV_LOG_FORCE_NOCOLOR: "1" };
  // FFREPORT would make ffmpeg write a log file. It needs no secrets of this process.
  for (const name of ["FFREPORT", "AV_LOG_FORCE_COLOR", ...secretVariables]) delete env[name];
  return Bun.spawn([path, ...args], {
    stdin,
    stdout: "pipe",
    stderr: "pipe",
    env,
    // Keep Ctrl-C from reaching the child, because this process decides when it ends.
    detached: true,
  });
}

/** Waits until the program exits. Stops it after `graceMs` milliseconds, and finally kills it. */
async function waitForExit(child: Child, stop: () => void, graceMs = 0): Promise<void> {
  if (graceMs === 0) stop();
  // After one signal ffmpeg ends only when its input delivers data; after a second it ends at once.
  const stopTimer = setTimeout(stop, graceMs + killTimeoutMs / 10);
  const killTimer = setTimeout(() => child.kill("SIGKILL"), graceMs + killTimeoutMs);
  await child.exited;
  clearTimeout(stopTimer);
  clearTimeout(killTimer);
}

interface StderrSummary {
  readonly message: string;
  readonly hasErrors: boolean;
}

/**
 * Reads the log of a program to its end and returns the last messages.
 *
 * @param wasStopped returns whether the program was stopped; later messages concern only that
 * @param hidesUrls whether URLs are left out, because any part of them may be a secret
 */
async function collectStderr(
  stream: ReadableStream<Uint8Array>,
  wasStopped: () => boolean,
  hidesUrls: boolean,
  onLog?: (sentence: string) => void,
): Promise<StderrSummary> {
  const decoder = new TextDecoder();
  let rest = "";
  let warnings: LogMessage[] = [];
  let errors: LogMessage[] = [];
  const onLine = (line: string): void => {
    if (wasStopped()) return;
    const text = line.replace(/^(?:\[[^\]\n]* @ 0x[0-9a-f]+\] )+/, "").trim();
    const shown = hidesUrls ? text.replace(/[a-z][a-z0-9+.-]*:\/\/[^\s']+/gi, "the URL") : text;
    // ffmpeg lists all formats that are allowed.
    const plain = printable(redact(shown)).replace(
      /Format not on whitelist '.*/,
      "its format is not read, because it could make ffmpeg open other files",
    );
    const [, level, sentence = plain] = /^\[(\w+)\] (.*)$/.exec(plain) ?? [];
    if (sentence === "") return;
    onLog?.(sentence);
    if (level === "error" || level === "fatal" || level === "panic") {
      errors = appendRecent(errors, sentence);
    } else {
      warnings = appendRecent(warnings, sentence);
    }
  };
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split(/[\r\n]+/);
    rest = parts.pop()!.slice(0, 10 * maxMessageLength);
    for (const part of parts) onLine(part);
  }
  onLine(rest);
  const oldest = performance.now() - maxMessageAgeMs;
  const joinRecent = (messages: LogMessage[]): string =>
    messages
      .filter(({ at }) => at >= oldest)
      .map(({ sentence }) => sentence)
      .join("; ");
  const message = joinRecent(errors) || joinRecent(warnings);
  const truncated =
    message.length > maxMessageLength
      ? `${message.slice(0, maxMessageLength - 1).trimEnd()}…`
      : message;
  return { message: truncated, hasErrors: errors.length > 0 };
}

interface LogMessage {
  readonly sentence: string;
  readonly at: number;
}

/** Keeps the last two different messages: usually the error and what ffmpeg concludes from it. */
function appendRecent(messages: readonly LogMessage[], sentence: string): LogMessage[] {
  const others = messages.filter((other) => other.sentence !== sentence);
  return [...others, { sentence, at: performance.now() }].slice(-2);
}

async function readText(stream: ReadableStream<Uint8Array>, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    length += chunk.length;
    if (length > maxBytes) {
      throw new FramesError(
        "unreadable",
        `Cannot read the output of ffprobe: it is longer than ${maxBytes} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
