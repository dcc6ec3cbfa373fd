/** Runs ffmpeg and ffprobe: what they give, with its times, and what they said last. */
import { FramesError } from "../errors.ts";
import { type Packet, PacketParser } from "./packets.ts";

/** How long a program that is to end is left to itself, in milliseconds. */
const patience = 1000;

/** Characters of what ffmpeg said that are passed on. */
const mostWords = 300;

/** What was said longer than this before the end has nothing to do with it, in milliseconds. */
const lastWords = 15_000;

/** Bytes of a description by ffprobe. */
const longestDescription = 4 << 20;

/** How a run of ffmpeg ended. */
export interface Ended {
  /** Why it is no good, for people; `undefined` if ffmpeg ended by itself and content. */
  readonly failure: string | undefined;
  /** Its last words, in one line; empty if it said nothing. */
  readonly words: string;
  /** Whether it called something an error. It may have gone on all the same. */
  readonly sawErrors: boolean;
}

/** What a run of ffmpeg needs to know. */
export interface RunOptions {
  /** Bytes that a packet may have. */
  readonly largest: number;
  /** Milliseconds without a byte after which ffmpeg has stalled. */
  readonly stallAfter: number;
  /** Ends ffmpeg. */
  readonly signal: AbortSignal;
}

/**
 * The arguments that make ffmpeg write packets as a `PacketParser` reads them: `tee` gives each packet to
 * two muxers in turn, one of which writes a line about it and the other its bytes, both to stdout.
 */
const output = "[f=framecrc:flush_packets=1]pipe:1|[f=rawvideo:flush_packets=1]pipe:1";

/**
 * Runs ffmpeg, which has ended when this has. Its output is read only as packets are asked for.
 *
 * @param words what is read and what becomes of it, without an output
 * @throws {FramesError} `missing` without ffmpeg, `too-large` if a packet is
 */
export async function* runFfmpeg(
  words: readonly string[],
  { largest, stallAfter, signal }: RunOptions,
): AsyncGenerator<Packet, Ended> {
  const common = ["-nostdin", "-nostats", "-hide_banner", "-loglevel", "level+warning"];
  const child = start("ffmpeg", [...common, ...words, "-f", "tee", output]);
  const reader = child.stdout.getReader();
  let hasStalled = false;
  let hasEnded = false;
  let wasStopped = false;
  const said = listen(child.stderr, () => wasStopped);
  const stop = (): void => {
    wasStopped = true;
    // Whoever writes to a pipe that nobody reads hears no signal.
    void reader.cancel().catch(() => {});
    child.kill();
  };
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  try {
    const parser = new PacketParser(largest);
    for (;;) {
      const timer = setTimeout(() => {
        hasStalled = true;
        stop();
      }, stallAfter);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      hasEnded = done && !wasStopped;
      if (done || signal.aborted) break;
      yield* parser.push(value);
    }
  } finally {
    signal.removeEventListener("abort", stop);
    await finish(child, stop, hasEnded ? stallAfter : 0);
  }
  const { words: last, sawErrors } = await said;
  let failure: string | undefined;
  if (hasStalled) failure = `nothing came for ${stallAfter / 1000} s`;
  else if (child.signalCode !== null) failure = `ffmpeg was ended by ${child.signalCode}`;
  else if (child.exitCode !== 0) failure = `ffmpeg ended with ${child.exitCode}`;
  return { failure, words: last, sawErrors };
}

/**
 * What ffprobe says, as JSON.
 *
 * @param name what is looked at, for people
 * @throws {FramesError} `missing` without ffprobe, `timeout` after `deadline` milliseconds, `unreadable`
 */
export async function runFfprobe(
  words: readonly string[],
  name: string,
  { deadline, signal }: { readonly deadline: number; readonly signal?: AbortSignal },
): Promise<unknown> {
  const common = ["-hide_banner", "-loglevel", "level+error", "-of", "json"];
  const child = start("ffprobe", [...common, ...words]);
  let isLate = false;
  const said = listen(child.stderr, () => isLate);
  const stop = (): void => child.kill();
  const timer = setTimeout(() => {
    isLate = true;
    void finish(child, stop);
  }, deadline);
  signal?.addEventListener("abort", stop);
  let text: string | undefined;
  try {
    text = await limited(child.stdout, longestDescription);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    await finish(child, stop, text === undefined ? 0 : deadline);
  }
  const { words: last } = await said;
  if (isLate) {
    const late = `Cannot read ${name}: ffprobe made nothing of it in ${deadline / 1000} s`;
    throw new FramesError("timeout", last === "" ? late : `${late}; it said: ${last}`);
  }
  if (child.exitCode !== 0) {
    const how = child.signalCode ?? child.exitCode;
    const why = last === "" ? `ffprobe ended with ${how} and said nothing` : last;
    throw new FramesError("unreadable", `Cannot read ${name}: ${why}`);
  }
  return JSON.parse(text);
}

/** A path or URL as people may see it: without what would steer a terminal, and without a password. */
export function shownInput(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, " ")
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^\s/@]*@/gi, "$1…@");
}

type Child = Bun.Subprocess<"ignore", "pipe", "pipe">;

function start(program: "ffmpeg" | "ffprobe", words: readonly string[]): Child {
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
  return Bun.spawn([path, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env,
    // Ctrl-C is for us: we say when it ends.
    detached: true,
  });
}

/** Waits until the program has ended; unless it does so within `grace` milliseconds, makes it end. */
async function finish(child: Child, stop: () => void, grace = 0): Promise<void> {
  if (grace === 0) stop();
  // Told once, ffmpeg ends when its input says something; told twice, it waits for nothing.
  const soft = setTimeout(stop, grace + patience / 10);
  const hard = setTimeout(() => child.kill("SIGKILL"), grace + patience);
  await child.exited;
  clearTimeout(soft);
  clearTimeout(hard);
}

interface Said {
  readonly words: string;
  readonly sawErrors: boolean;
}

/**
 * Hears a program out, and keeps the last of it.
 *
 * @param isOver whether it was told to end: what it says then is about that
 */
async function listen(stream: ReadableStream<Uint8Array>, isOver: () => boolean): Promise<Said> {
  const decoder = new TextDecoder();
  let rest = "";
  let remarks: Remark[] = [];
  let errors: Remark[] = [];
  const hear = (line: string): void => {
    if (isOver()) return;
    const plain = shownInput(line.replace(/^(?:\[[^\]\n]* @ 0x[0-9a-f]+\] )+/, "")).trim();
    const [, level, sentence = plain] = /^\[(\w+)\] (.*)$/.exec(plain) ?? [];
    if (sentence === "") return;
    if (level === "error" || level === "fatal" || level === "panic") {
      errors = latest(errors, sentence);
    } else {
      remarks = latest(remarks, sentence);
    }
  };
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split(/[\r\n]+/);
    rest = parts.pop()!.slice(0, 10 * mostWords);
    for (const part of parts) hear(part);
  }
  hear(rest);
  const soonBefore = performance.now() - lastWords;
  const fresh = (some: Remark[]): string =>
    some
      .filter(({ at }) => at >= soonBefore)
      .map(({ sentence }) => sentence)
      .join("; ");
  const words = fresh(errors) || fresh(remarks);
  const short = words.length > mostWords ? `${words.slice(0, mostWords - 1).trimEnd()}…` : words;
  return { words: short, sawErrors: errors.length > 0 };
}

interface Remark {
  readonly sentence: string;
  readonly at: number;
}

/** The last two different ones: what went wrong, and what ffmpeg makes of that. */
function latest(remarks: readonly Remark[], sentence: string): Remark[] {
  const others = remarks.filter((other) => other.sentence !== sentence);
  return [...others, { sentence, at: performance.now() }].slice(-2);
}

async function limited(stream: ReadableStream<Uint8Array>, most: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    length += chunk.length;
    if (length > most) {
      throw new FramesError(
        "unreadable",
        `Cannot read what ffprobe says: it is over ${most} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
