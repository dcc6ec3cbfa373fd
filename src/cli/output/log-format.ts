/** Lines on standard error: for people, for systemd's journal, or for programs. */
import { fstatSync } from "node:fs";

/** Text, text that the journal takes apart (sd-daemon(3)), or a JSON object each. */
export type LogStyle = "text" | "journal" | "json";

/** How much a line matters. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/** What is said. */
export interface LogLine {
  readonly level: LogLevel;
  /** What it is about, for programs: that of the event, or `message`. */
  readonly type: string;
  /** For people. */
  readonly text: string;
  /** Whether people want to know when it was. */
  readonly hasTime?: boolean;
  /** For programs. A `message` among them is the one for programs too. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** syslog(3)'s numbers, which the journal reads off the beginning of a line. */
const priorities: Record<LogLevel, number> = { error: 3, warning: 4, info: 6, debug: 7 };

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

/** `value` as JSON on one line that no terminal obeys; bigints as decimal strings. */
export function jsonLine(value: Readonly<Record<string, unknown>>): string {
  const json = JSON.stringify(value, (_, item: unknown) =>
    typeof item === "bigint" ? String(item) : item,
  );
  // JSON leaves some as they are.
  const safe = json.replace(unprintable, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
  return `${safe}\n`;
}

/** `line` as it is written. */
export function formatLogLine(style: LogStyle, line: LogLine, now: Date): string {
  const { level, type, text, hasTime = false, fields = {} } = line;
  const time = now.toISOString();
  switch (style) {
    case "text":
      return `${hasTime ? `${time} ` : ""}${printable(text)}\n`;
    case "journal":
      // It notes the time itself.
      return `<${priorities[level]}>${printable(text)}\n`;
    case "json":
      return jsonLine({ time, level, type, message: text, ...fields });
  }
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * How this process is to write its lines. It counts from the first word on: what is wrong with the others is
 * said in the same way.
 *
 * @param words what stands on the command line
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

/** Whether standard error leads to systemd's journal. */
function isSystemdJournal({ JOURNAL_STREAM }: Environment): boolean {
  if (!JOURNAL_STREAM) return false;
  try {
    const { dev, ino } = fstatSync(2, { bigint: true });
    return JOURNAL_STREAM === `${dev}:${ino}`;
  } catch {
    return false;
  }
}
