/** Runs ffmpeg and ffprobe: what they give, with its times, and what they said last. */
import { FramesError } from "../../errors.ts";
import { type Packet, PacketParser } from "./packets.ts";

/** How long a program that is to end is left to itself, in milliseconds. */
const killTimeoutMs = 1000;

/** Characters of what ffmpeg said that are passed on. */
const maxMessageLength = 300;

/** What was said longer than this before the end has nothing to do with it, in milliseconds. */
const maxMessageAgeMs = 15_000;

/** Bytes of a description by ffprobe. */
const maxProbeOutputBytes = 4 << 20;

/** How a run of ffmpeg ended. */
export interface FfmpegResult {
  /** Why it is no good, for people; `undefined` if ffmpeg ended by itself and content. */
  readonly failure: string | undefined;
  /** Its last words, in one line; empty if it said nothing. */
  readonly message: string;
  /** Whether it called something an error. It may have gone on all the same. */
  readonly hasErrors: boolean;
}

/** What a run of ffmpeg needs to know. */
export interface FfmpegOptions {
  /** Bytes that a packet may have. */
  readonly maxPacketBytes: number;
  /** Milliseconds without a byte after which ffmpeg has stalled. */
  readonly stallTimeoutMs: number;
  /** Ends ffmpeg. */
  readonly signal: AbortSignal;
}

/**
 * The arguments that make ffmpeg write packets as a `PacketParser` reads them: `tee` gives each packet to
 * two muxers in turn, one of which writes a line about it and the other its bytes, both to stdout.
 */
const teeOutput = "[f=framecrc:flush_packets=1]pipe:1|[f=rawvideo:flush_packets=1]pipe:1";

/**
 * Runs ffmpeg, which has ended when this has. Its output is read only as packets are asked for.
 *
 * @param args what is read and what becomes of it, without an output
 * @throws {FramesError} `missing` without ffmpeg, `too-large` if a packet is
 */
export async function* runFfmpeg(
  args: readonly string[],
  { maxPacketBytes, stallTimeoutMs, signal }: FfmpegOptions,
): AsyncGenerator<Packet, FfmpegResult> {
  const common = ["-nostdin", "-nostats", "-hide_banner", "-loglevel", "level+warning"];
  const child = spawnProgram("ffmpeg", [...common, ...args, "-f", "tee", teeOutput]);
  const reader = child.stdout.getReader();
  let hasStalled = false;
  let hasEnded = false;
  let wasStopped = false;
  const log = collectStderr(child.stderr, () => wasStopped);
  const stop = (): void => {
    wasStopped = true;
    // Whoever writes to a pipe that nobody reads hears no signal.
    void reader.cancel().catch(() => {});
    child.kill();
  };
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
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
    await waitForExit(child, stop, hasEnded ? stallTimeoutMs : 0);
  }
  const { message: last, hasErrors } = await log;
  let failure: string | undefined;
  if (hasStalled) failure = `nothing came for ${stallTimeoutMs / 1000} s`;
  else if (child.signalCode !== null) failure = `ffmpeg was ended by ${child.signalCode}`;
  else if (child.exitCode !== 0) failure = `ffmpeg ended with ${child.exitCode}`;
  return { failure, message: last, hasErrors };
}

/**
 * What ffprobe says, as JSON.
 *
 * @param name what is looked at, for people
 * @throws {FramesError} `missing` without ffprobe, `timeout` after `timeoutMs` milliseconds, `unreadable`
 */
export async function runFfprobe(
  args: readonly string[],
  name: string,
  { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal?: AbortSignal },
): Promise<unknown> {
  const common = ["-hide_banner", "-loglevel", "level+error", "-of", "json"];
  const child = spawnProgram("ffprobe", [...common, ...args]);
  let hasTimedOut = false;
  const log = collectStderr(child.stderr, () => hasTimedOut);
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
    const problem = `Cannot read ${name}: ffprobe made nothing of it in ${timeoutMs / 1000} s`;
    throw new FramesError("timeout", last === "" ? problem : `${problem}; it said: ${last}`);
  }
  if (child.exitCode !== 0) {
    const status = child.signalCode ?? child.exitCode;
    const reason = last === "" ? `ffprobe ended with ${status} and said nothing` : last;
    throw new FramesError("unreadable", `Cannot read ${name}: ${reason}`);
  }
  return JSON.parse(text);
}

/** A path or URL as people may see it: without what would steer a terminal, and without a password. */
export function printableInput(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, " ")
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^\s/@]*@/gi, "$1…@");
}

type Child = Bun.Subprocess<"ignore", "pipe", "pipe">;

function spawnProgram(program: "ffmpeg" | "ffprobe", args: readonly string[]): Child {
  const path = Bun.which(program, { PATH: process.env["PATH"] ?? "" });
  if (path === null) {
    throw new FramesError(
      "missing",
      `Cannot read videos, cameras and URLs: ${program} is not installed; install ffmpeg, 4.4 or later`,
    );
  }
  const env: Record<string, string | undefined> = { ...process.env, AV_LOG_FORCE_NOCOLOR: "1" };
  // It would write a file of its own; and the key is nobody else's business.
  for (const name of ["FFREPORT", "AV_LOG_FORCE_COLOR", "FRAMES_KEY"]) delete env[name];
  return Bun.spawn([path, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env,
    // Ctrl-C is for us: we say when it ends.
    detached: true,
  });
}

/** Waits until the program has ended; unless it does so within `grace` milliseconds, makes it end. */
async function waitForExit(child: Child, stop: () => void, graceMs = 0): Promise<void> {
  if (graceMs === 0) stop();
  // Told once, ffmpeg ends when its input says something; told twice, it waits for nothing.
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
 * Hears a program out, and keeps the last of it.
 *
 * @param wasStopped whether it was told to end: what it says then is about that
 */
async function collectStderr(
  stream: ReadableStream<Uint8Array>,
  wasStopped: () => boolean,
): Promise<StderrSummary> {
  const decoder = new TextDecoder();
  let rest = "";
  let warnings: LogMessage[] = [];
  let errors: LogMessage[] = [];
  const onLine = (line: string): void => {
    if (wasStopped()) return;
    const plain = printableInput(line.replace(/^(?:\[[^\]\n]* @ 0x[0-9a-f]+\] )+/, "")).trim();
    const [, level, sentence = plain] = /^\[(\w+)\] (.*)$/.exec(plain) ?? [];
    if (sentence === "") return;
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

/** The last two different ones: what went wrong, and what ffmpeg makes of that. */
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
        `Cannot read what ffprobe says: it is over ${maxBytes} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
