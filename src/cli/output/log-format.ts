/** Formats lines on standard error: as text, for systemd's journal, or as JSON. */
import { fstatSync } from "node:fs";
import { FramesError } from "../../errors.ts";
import { printable, redact, safeJson } from "../../safe-text.ts";

/** `journal` lines begin with a priority (sd-daemon(3)); `json` lines are one object each. */
export type LogStyle = "text" | "journal" | "json";

export type LogLevel = "debug" | "info" | "warning" | "error";

export interface LogLine {
  readonly level: LogLevel;
  /** Event type for programs; `message` for plain text. */
  readonly type: string;
  /** Message for the user. */
  readonly text: string;
  /** Whether the `text` style begins with the time. Default false. */
  readonly hasTime?: boolean;
  /** Further fields of the `json` style; a `message` here replaces `text`. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** Priorities of syslog(3). */
const priorities: Record<LogLevel, number> = { error: 3, warning: 4, info: 6, debug: 7 };

/** Fields of JSON that hold the exact names of frames, or a key that the user asked for. */
const exactFields = new Set(["name", "source", "stream", "key"]);

/** Returns the fields of JSON that tell an error. */
export function errorJson(error: unknown): { error: string; message: string } {
  const code = error instanceof FramesError ? error.code : "internal";
  return { error: code, message: error instanceof Error ? error.message : String(error) };
}

/** Formats `value` as one line of JSON, safe for a terminal and without secrets. */
export function jsonLine(value: Readonly<Record<string, unknown>>): string {
  const json = safeJson(value, (name, text) => (exactFields.has(name) ? text : redact(text)));
  return `${json}\n`;
}

/** Formats a line in the given style, with the line feed and without secrets. */
export function formatLogLine(style: LogStyle, line: LogLine, now: Date): string {
  const { level, type, text, hasTime = false, fields = {} } = line;
  const time = now.toISOString();
  const shown = printable(redact(text));
  switch (style) {
    case "text":
      return `${hasTime ? `${time} ` : ""}${shown}\n`;
    case "journal":
      // The journal records the time itself.
      return `<${priorities[level]}>${shown}\n`;
    case "json":
      return jsonLine({ time, level, type, message: text, ...fields });
  }
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Chooses the log style of this process. Reads `--log` without the parser, because errors of the
 * other arguments are already written in this style.
 */
export function chooseLogStyle(
  [command, ...args]: readonly string[],
  environment: Environment,
): LogStyle {
  const flagIndex = args.lastIndexOf("--log");
  const inlineValue = args.findLast((arg) => arg.startsWith("--log="))?.slice("--log=".length);
  const value = flagIndex < 0 ? inlineValue : args[flagIndex + 1];
  if (command === "serve" && (value ?? environment["FRAMES_LOG"]) === "json") return "json";
  return isSystemdJournal(environment) ? "journal" : "text";
}

/** Whether standard error is connected to systemd's journal (systemd.exec(5), JOURNAL_STREAM). */
function isSystemdJournal({ JOURNAL_STREAM }: Environment): boolean {
  if (!JOURNAL_STREAM) return false;
  try {
    const { dev, ino } = fstatSync(2, { bigint: true });
    return JOURNAL_STREAM === `${dev}:${ino}`;
  } catch {
    return false;
  }
}
