/** Parses a command's arguments and environment according to the table of flags. */
import { parseArgs } from "node:util";
import { FramesError, usageError } from "../../errors.ts";
import { defined } from "../../common/defined.ts";
import { environmentName, type Flag, flagsOf } from "./flags.ts";
import { containsSecret } from "../../safe-text.ts";
import { parseSeconds, parseSize } from "./units.ts";

/** Parsed arguments of a command. */
export class Arguments {
  readonly positionals: readonly string[];
  readonly #values: ReadonlyMap<string, readonly string[]>;
  readonly #fromEnvironment: ReadonlySet<string>;

  constructor(
    positionals: readonly string[],
    values: ReadonlyMap<string, readonly string[]>,
    fromEnvironment: ReadonlySet<string>,
  ) {
    this.positionals = positionals;
    this.#values = values;
    this.#fromEnvironment = fromEnvironment;
  }

  /** Returns where a value came from, for messages: `--to` or `FRAMES_TO`. */
  label(name: string): string {
    return this.#fromEnvironment.has(name) ? environmentName({ name }) : `--${name}`;
  }

  /** Whether a switch is on, or a flag has a value. */
  isOn(name: string): boolean {
    return this.#values.has(name);
  }

  text(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  list(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  /**
   * Reads a size such as `64M`.
   *
   * @returns bytes
   * @throws {FramesError} `usage`
   */
  size(name: string): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : parseSize(text, this.label(name));
  }

  /**
   * Reads a whole number of up to 9 digits.
   *
   * @throws {FramesError} `usage`
   */
  integer(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined || /^\d{1,9}$/.test(text))
      return text === undefined ? text : Number(text);
    throw usageError(
      `Cannot read ${this.label(name)}: expected a whole number such as 10, current value is ${JSON.stringify(text)}`,
    );
  }

  /**
   * Reads seconds.
   *
   * @returns milliseconds
   * @throws {FramesError} `usage`
   */
  milliseconds(name: string): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : parseSeconds(text, this.label(name)) * 1000;
  }
}

/**
 * Parses the arguments of a command. A flag overrides its environment variable.
 *
 * @throws {FramesError} `usage`
 */
export function parseArguments(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Arguments {
  const known = flagsOf(command);
  const { tokens, positionals } = parseArgs({
    args: [...args],
    options: Object.fromEntries(
      known.map((flag) => [
        flag.name,
        {
          type: flag.value === undefined ? ("boolean" as const) : ("string" as const),
          multiple: true,
          ...defined({ short: flag.short }),
        },
      ]),
    ),
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const values = new Map<string, string[]>();
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const flag = known.find(({ name }) => name === token.name);
    if (flag === undefined) throw unknownFlag(token.rawName, known, command);
    const value = token.value;
    const isSwitch = flag.value === undefined;
    if (isSwitch ? value !== undefined : value === undefined || value === "") {
      const wanted = isSwitch
        ? `it takes no value; write ${token.rawName} alone`
        : `it takes a value; write ${token.rawName} ${flag.value}`;
      throw usageError(`Cannot read ${token.rawName}: ${wanted}`);
    }
    if (value !== undefined && token.inlineValue === false && /^-./.test(value)) {
      throw usageError(
        `Cannot read ${token.rawName}: it takes a value; write ${token.rawName} ${flag.value}, or ${token.rawName}=${value} if that is ${value}`,
      );
    }
    values.set(flag.name, [...(values.get(flag.name) ?? []), value ?? "on"]);
  }
  const fromEnvironment = new Set<string>();
  for (const flag of known.filter(({ name }) => name !== "help")) {
    const value = environment[environmentName(flag)];
    if (values.has(flag.name) || value === undefined || value === "") continue;
    fromEnvironment.add(flag.name);
    if (flag.value !== undefined) values.set(flag.name, [value]);
    else if (parseSwitch(value, environmentName(flag))) values.set(flag.name, ["on"]);
  }
  const parsed = new Arguments(positionals, values, fromEnvironment);
  for (const { name, value } of known) {
    if (pathFlags.has(name) || !parsed.list(name).some(containsSecret)) continue;
    const hint = `expected ${value}, current value holds a password or key`;
    throw usageError(`Cannot read ${parsed.label(name)}: ${hint}`);
  }
  return parsed;
}

/**
 * Flags whose values are shown as a whole, so that a secret in them is recognized. Parts of other
 * values are shown in messages.
 */
const pathFlags = new Set([
  ...["source", "include", "exclude", "spool", "dir", "key-file", "tls-cert", "tls-key"],
]);

function parseSwitch(value: string, name: string): boolean {
  if (/^(?:1|true|yes|on)$/i.test(value)) return true;
  if (/^(?:0|false|no|off)$/i.test(value)) return false;
  throw usageError(
    `Cannot read ${name}: expected 1 or 0, current value is ${JSON.stringify(value)}`,
  );
}

function unknownFlag(flag: string, known: readonly Flag[], command: string): FramesError {
  const names = known.flatMap(({ name, short }) => [
    `--${name}`,
    ...(short === undefined ? [] : [`-${short}`]),
  ]);
  // Short flags get no suggestion, because any letter is close to any other.
  const near = flag.startsWith("--") ? nearest(flag, names) : undefined;
  const hint = near === undefined ? `see frames help ${command}` : `did you mean ${near}?`;
  return usageError(`Unknown flag ${flag}: ${hint}`);
}

/** Returns the candidate closest to `text`, or undefined if none is similar. */
export function nearest(text: string, candidates: readonly string[]): string | undefined {
  const scored = candidates.map((candidate) => ({
    word: candidate,
    distance: editDistance(text, candidate),
  }));
  const [best] = scored.toSorted((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= Math.max(2, text.length / 3)
    ? best.word
    : undefined;
}

/** Returns the Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row.at(-1)!;
}
