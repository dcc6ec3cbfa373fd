/** What people see: messages on standard error, results on standard output. */

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
  const { stdout, stderr } = process;
  const isLive = stderr.isTTY === true && environment["TERM"] !== "dumb";
  return {
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    isLive,
    // On a new pseudo-terminal both can be 0.
    size: () => ({ columns: stderr.columns || 80, rows: stderr.rows || 24 }),
    colours: isLive && !environment["NO_COLOR"],
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
