/** What people see: messages on standard error, results on standard output. */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { type ErrorName, FramesError, systemCode, systemSentence } from "../../errors.ts";
import {
  formatLogLine,
  jsonLine,
  type LogLevel,
  type LogLine,
  type LogStyle,
  printable,
} from "./log-format.ts";
import { LogWriter } from "./log-writer.ts";

export { printable } from "./log-format.ts";

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
  /** How lines on standard error are written; text if nothing is said. */
  readonly style?: LogStyle;
  /** Resolves when what was written has reached its reader, as far as that one reads. */
  end(): Promise<void>;
}

/** What becomes of output that nobody reads: it is waited for, or dropped and counted. */
export interface OverflowPolicy {
  readonly results: "wait" | "drop";
  readonly messages: "wait" | "drop";
}

/**
 * The terminal of this process.
 *
 * @param style of the lines on standard error
 */
export function systemTerminal(
  environment: Record<string, string | undefined>,
  overflow: OverflowPolicy,
  style: LogStyle = "text",
): Terminal {
  const isLive = isatty(2) && environment["TERM"] !== "dumb" && style === "text";
  const out =
    overflow.results === "wait"
      ? blockingWriter(1)
      : droppingWriter(1, (lines) => jsonLine({ type: "dropped", lines }));
  const err =
    overflow.messages === "wait"
      ? blockingWriter(2)
      : droppingWriter(2, (lines) => formatLogLine(style, droppedLogLine(lines), new Date()));
  return {
    out: out.write,
    err: err.write,
    async end() {
      await Promise.all([out.end(), err.end()]);
    },
    isLive,
    style,
    size() {
      if (!isLive) return { columns: 80, rows: 24 };
      // On a new pseudo-terminal both can be 0.
      return { columns: process.stderr.columns || 80, rows: process.stderr.rows || 24 };
    },
    colours: isLive && !environment["NO_COLOR"],
  };
}

function droppedLogLine(lines: number): LogLine {
  const text = `${lines} lines are missing here: nobody read them in time`;
  return { level: "warning", type: "dropped", text, fields: { lines } };
}

interface OutputWriter {
  write(text: string): void;
  end(): Promise<void>;
}

function droppingWriter(file: number, formatDropped: (lines: number) => string): OutputWriter {
  const log = new LogWriter(Bun.file(file).writer(), formatDropped);
  return { write: (text) => log.write(text), end: () => log.end() };
}

/**
 * Writes to a file descriptor before it returns: nothing piles up in memory, and nothing is cut off
 * when the process exits. Once nobody reads it any more it writes nothing: the frames matter more.
 */
function blockingWriter(file: number): OutputWriter {
  let isClosed = false;
  const write = (text: string) => {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length && !isClosed;) {
      try {
        at += writeSync(file, bytes, at);
      } catch (error) {
        const code = systemCode(error);
        // A pipe that another process made non-blocking is full: its reader needs a moment.
        if (code === "EAGAIN") Bun.sleepSync(1);
        else if (code === "EPIPE") isClosed = true;
        else throw new FramesError("store", `Cannot write the output: ${systemSentence(error)}`);
      }
    }
  };
  return { write, end: async () => {} };
}

/** A line on standard error. */
export function printLine(terminal: Terminal, line: LogLine): void {
  terminal.err(formatLogLine(terminal.style ?? "text", line, new Date()));
}

/** A message on standard error, on a line of its own. */
export function print(terminal: Terminal, text: string, level: LogLevel = "info"): void {
  printLine(terminal, { level, type: "message", text });
}

/** An error, for people. */
export function printError(terminal: Terminal, text: string, code?: ErrorName): void {
  if (terminal.style !== undefined && terminal.style !== "text") {
    const fields = code === undefined ? {} : { error: code };
    return printLine(terminal, { level: "error", type: "error", text, fields });
  }
  const [start, end] = terminal.colours ? ["\x1b[31m", "\x1b[0m"] : ["", ""];
  terminal.err(`${start}frames:${end} ${printable(text)}\n`);
}

/** A JSON object on standard output, on a line of its own; bigints as decimal strings. */
export function printJson(terminal: Terminal, value: Record<string, unknown>): void {
  terminal.out(jsonLine(value));
}
