/** Output of a command: messages on standard error, results on standard output. */
import { writeSync } from "node:fs";
import { isTerminal } from "../../common/is-terminal.ts";
import { type ErrorName, FramesError, systemCode, systemSentence } from "../../errors.ts";
import {
  formatLogLine,
  jsonLine,
  type LogLevel,
  type LogLine,
  type LogStyle,
} from "./log-format.ts";
import { LogWriter } from "./log-writer.ts";
import { printable, redact } from "../../safe-text.ts";

/** Where a command writes. */
export interface Terminal {
  /** Writes results to standard output. */
  out(text: string): void;
  /** Writes progress and messages to standard error. */
  err(text: string): void;
  /** Whether standard error is a terminal on which lines can be redrawn. */
  readonly isLive: boolean;
  /** Size of that terminal; 80 by 24 if there is none. */
  size(): { columns: number; rows: number };
  readonly colours: boolean;
  /** Style of lines on standard error. Default `text`. */
  readonly style?: LogStyle;
  /** Resolves when all output is written; a slow reader gets a limited time. */
  end(): Promise<void>;
}

/** What to do if the reader of an output is slow: wait for it, or drop lines and count them. */
export interface OverflowPolicy {
  readonly results: "wait" | "drop";
  readonly messages: "wait" | "drop";
}

/**
 * Returns the terminal of this process.
 *
 * @param style of the lines on standard error
 */
export function systemTerminal(
  environment: Record<string, string | undefined>,
  overflow: OverflowPolicy,
  style: LogStyle = "text",
): Terminal {
  const isLive = () => style === "text" && environment["TERM"] !== "dumb" && isTerminal(2);
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
    get isLive() {
      return isLive();
    },
    style,
    size() {
      if (!isLive()) return { columns: 80, rows: 24 };
      // Both can be 0 on a new pseudo-terminal.
      return { columns: process.stderr.columns || 80, rows: process.stderr.rows || 24 };
    },
    get colours() {
      return !environment["NO_COLOR"] && isLive();
    },
  };
}

/** Returns width and colours of standard output: 80 columns without colours if it is no terminal. */
export function resultStyle(environment: Record<string, string | undefined>): {
  columns: number;
  colours: boolean;
} {
  if (!isTerminal(1)) return { columns: 80, colours: false };
  const colours = !environment["NO_COLOR"] && environment["TERM"] !== "dumb";
  // It is 0 on a new pseudo-terminal.
  return { columns: process.stdout.columns || 80, colours };
}

function droppedLogLine(lines: number): LogLine {
  const text = `${lines} lines are missing here, because the output was not read in time`;
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
 * Returns a writer that blocks until the text is written. So no output is lost at exit, or piles up
 * in memory. After the reader has closed the pipe it discards output, and the command continues.
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
        // Another process has made the pipe non-blocking, and it is full: retry.
        if (code === "EAGAIN") Bun.sleepSync(1);
        else if (code === "EPIPE") isClosed = true;
        else throw new FramesError("store", `Cannot write the output: ${systemSentence(error)}`);
      }
    }
  };
  return { write, end: async () => {} };
}

/** Prints a line to standard error, in the terminal's style. */
export function printLine(terminal: Terminal, line: LogLine): void {
  terminal.err(formatLogLine(terminal.style ?? "text", line, new Date()));
}

/** Prints a message to standard error. */
export function print(terminal: Terminal, text: string, level: LogLevel = "info"): void {
  printLine(terminal, { level, type: "message", text });
}

/** Prints an error to standard error, in colour on a terminal. */
export function printError(terminal: Terminal, text: string, code?: ErrorName): void {
  if (terminal.style !== undefined && terminal.style !== "text") {
    const fields = code === undefined ? {} : { error: code };
    return printLine(terminal, { level: "error", type: "error", text, fields });
  }
  const [start, end] = terminal.colours ? ["\x1b[31m", "\x1b[0m"] : ["", ""];
  terminal.err(`${start}frames:${end} ${printable(redact(text))}\n`);
}

/** Prints a JSON object to standard output, on one line; bigints become decimal strings. */
export function printJson(terminal: Terminal, value: Record<string, unknown>): void {
  terminal.out(jsonLine(value));
}
