/** What people see: messages on standard error, results on standard output. */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import { Log } from "./log.ts";

/** Where a command writes, and what it knows of the other side. */
export interface Terminal {
  /** Results. */
  out(text: string): void;
  /** Progress and messages. */
  err(text: string): void;
  /** Whether messages go to a terminal, where a line can be drawn again. */
  readonly isLive: boolean;
  /** Columns and rows of that terminal. */
  size(): { columns: number; rows: number };
  readonly colours: boolean;
  /** Resolves when what was written has reached its reader, as far as that one reads. */
  end(): Promise<void>;
}

/** What becomes of output that nobody reads: it is waited for, or dropped and counted. */
export interface Patience {
  readonly results: "wait" | "drop";
  readonly messages: "wait" | "drop";
}

/** The terminal of this process. */
export function systemTerminal(
  environment: Record<string, string | undefined>,
  patience: Patience,
): Terminal {
  const isLive = isatty(2) && environment["TERM"] !== "dumb";
  const out =
    patience.results === "wait"
      ? writer(1)
      : log(1, (lines) => `${JSON.stringify({ type: "dropped", lines })}\n`);
  const err =
    patience.messages === "wait"
      ? writer(2)
      : log(2, (lines) => `${lines} lines are missing here: nobody read them in time\n`);
  return {
    out: out.write,
    err: err.write,
    async end() {
      await Promise.all([out.end(), err.end()]);
    },
    isLive,
    size() {
      if (!isLive) return { columns: 80, rows: 24 };
      // On a new pseudo-terminal both can be 0.
      return { columns: process.stderr.columns || 80, rows: process.stderr.rows || 24 };
    },
    colours: isLive && !environment["NO_COLOR"],
  };
}

interface Output {
  write(text: string): void;
  end(): Promise<void>;
}

function log(file: number, droppedLine: (lines: number) => string): Output {
  const log = new Log(Bun.file(file).writer(), droppedLine);
  return { write: (text) => log.write(text), end: () => log.end() };
}

/**
 * Writes to a file descriptor before it returns: nothing piles up in memory, and nothing is cut off
 * when the process exits. Once nobody reads it any more it writes nothing: the frames matter more.
 */
function writer(file: number): Output {
  let closed = false;
  const write = (text: string) => {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length && !closed;) {
      try {
        at += writeSync(file, bytes, at);
      } catch (error) {
        const code = systemCode(error);
        // A pipe that another process made non-blocking is full: its reader needs a moment.
        if (code === "EAGAIN") Bun.sleepSync(1);
        else if (code === "EPIPE") closed = true;
        else throw new FramesError("store", `Cannot write the output: ${systemSentence(error)}`);
      }
    }
  };
  return { write, end: async () => {} };
}

// Terminals obey control characters, and bidirectional ones make a line read as what it is not.
const unprintable = /[\p{Cc}\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** `text` with everything that a terminal would obey made visible. */
export function printable(text: string): string {
  return text.replace(unprintable, (character) => {
    const code = character.codePointAt(0)!;
    return code < 0x100
      ? `\\x${code.toString(16).padStart(2, "0")}`
      : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** A message on standard error, on a line of its own. */
export function say(terminal: Terminal, text: string): void {
  terminal.err(`${printable(text)}\n`);
}

/** An error, for people. */
export function sayError(terminal: Terminal, text: string): void {
  const [start, end] = terminal.colours ? ["\x1b[31m", "\x1b[0m"] : ["", ""];
  terminal.err(`${start}frames:${end} ${printable(text)}\n`);
}

/** A JSON object on standard output, on a line of its own; bigints as decimal strings. */
export function sayJson(terminal: Terminal, value: Record<string, unknown>): void {
  const json = JSON.stringify(value, (_, item: unknown) =>
    typeof item === "bigint" ? String(item) : item,
  ).replace(unprintable, (character) => {
    // JSON leaves some as they are; terminals obey them.
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
  terminal.out(`${json}\n`);
}
