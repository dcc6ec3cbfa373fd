/** What people see: messages on standard error, results on standard output. */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { systemCode } from "../errors.ts";

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
}

/** The terminal of this process. */
export function systemTerminal(environment: Record<string, string | undefined>): Terminal {
  const isLive = isatty(2) && environment["TERM"] !== "dumb";
  return {
    out: writer(1),
    err: writer(2),
    isLive,
    size() {
      if (!isLive) return { columns: 80, rows: 24 };
      // On a new pseudo-terminal both can be 0.
      return { columns: process.stderr.columns || 80, rows: process.stderr.rows || 24 };
    },
    colours: isLive && !environment["NO_COLOR"],
  };
}

/**
 * Writes to a file descriptor before it returns: nothing piles up in memory, and nothing is cut off
 * when the process exits. Once nobody reads it any more it writes nothing: the frames matter more.
 */
function writer(file: number): (text: string) => void {
  let closed = false;
  return (text) => {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length && !closed;) {
      try {
        at += writeSync(file, bytes, at);
      } catch (error) {
        const code = systemCode(error);
        // A pipe that another process made non-blocking is full: its reader needs a moment.
        if (code === "EAGAIN") Bun.sleepSync(1);
        else closed = true;
      }
    }
  };
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
  );
  terminal.out(`${json}\n`);
}
