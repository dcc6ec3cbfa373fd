/** The one table of flags: parsing, help, environment names and completions come from it. */
import { parseArgs } from "node:util";
import { FramesError } from "../errors.ts";
import { commands } from "./commands.ts";
import { parseSeconds, parseSize } from "./units.ts";

/** What a flag's value is: nothing, text, text that may be given several times, bytes, or seconds. */
type FlagKind = "switch" | "text" | "list" | "size" | "seconds";

/** A flag of one or more commands. */
export interface Flag {
  readonly name: string;
  readonly short?: string;
  readonly kind: FlagKind;
  /** Stands for the value in help: `HOST:PORT`. */
  readonly value?: string;
  readonly help: string;
  /** What it means to one of its commands, where that differs. */
  readonly helpFor?: Readonly<Record<string, string>>;
  /** Commands of it to which it is a switch, although others give it a value. */
  readonly switchFor?: readonly string[];
  readonly commands: readonly string[];
}

const all = commands.map(({ name }) => name);

export const flags: readonly Flag[] = [
  {
    name: "listen",
    kind: "text",
    value: "HOST:PORT",
    help: "Where to listen (default 127.0.0.1:9726); :9726 is every interface",
    commands: ["serve"],
  },
  {
    name: "insecure",
    kind: "switch",
    help: "Let anyone who reaches the port send, without encryption",
    helpFor: {
      send: "Send without key or encryption, to a server that was told the same",
      bench: "Measure without key or encryption, to a server that was told the same",
    },
    commands: ["serve", "send", "bench"],
  },
  {
    name: "key-file",
    kind: "text",
    value: "FILE",
    help: "Ask for a key of this file, on this machine too (frames help keys)",
    helpFor: {
      send: "Use the keys of this file, on this machine too (frames help keys)",
      bench: "Use the keys of this file, on this machine too (frames help keys)",
      key: "The file of the keys (default: the user's own, frames help keys)",
    },
    commands: ["serve", "send", "bench", "key"],
  },
  {
    name: "tls-cert",
    kind: "text",
    value: "FILE",
    help: "A certificate (PEM) that browsers trust, with --tls-key",
    commands: ["serve"],
  },
  {
    name: "tls-key",
    kind: "text",
    value: "FILE",
    help: "The private key (PEM) of --tls-cert",
    commands: ["serve"],
  },
  {
    name: "role",
    kind: "text",
    value: "send|receive|both",
    help: "What the new key is for (default both)",
    commands: ["key"],
  },
  {
    name: "streams",
    kind: "text",
    value: "GLOB",
    help: "Streams that the new key is for (default all)",
    commands: ["key"],
  },
  {
    name: "article",
    kind: "text",
    value: "HOST:PORT",
    help: "Listen for the article's clients as well (frames help article)",
    helpFor: { send: "Send to the article's server, at --to HOST:PORT (frames help article)" },
    switchFor: ["send"],
    commands: ["serve", "send"],
  },
  {
    name: "article-insecure",
    kind: "switch",
    help: "Let anyone who reaches that port send: its clients know no key",
    commands: ["serve"],
  },
  {
    name: "max-frame",
    kind: "size",
    value: "SIZE",
    help: "Largest frame (default 64M)",
    commands: ["serve"],
  },
  {
    name: "portable-names",
    kind: "switch",
    help: "Refuse names that Windows and macOS cannot keep",
    commands: ["serve"],
  },
  {
    name: "durable",
    kind: "switch",
    help: "Flush to the disk before each receipt: survives a power cut",
    commands: ["serve"],
  },
  {
    name: "reserve",
    kind: "size",
    value: "SIZE",
    help: "Space kept free on the disk (default 5 %, 10G at most)",
    commands: ["serve"],
  },
  {
    name: "to",
    kind: "text",
    value: "HOST[:PORT]",
    help: "The server (default 127.0.0.1:9726)",
    commands: ["send"],
  },
  {
    name: "stream",
    kind: "text",
    value: "NAME",
    help: "Keep the frames under this name, as STREAM/DIR (default: that of DIR)",
    commands: ["send"],
  },
  {
    name: "source",
    kind: "list",
    value: "NAME[=PATH]",
    help: "Name a source; repeatable",
    commands: ["send"],
  },
  {
    name: "include",
    kind: "list",
    value: "GLOB",
    help: "Send only what matches; repeatable",
    commands: ["send"],
  },
  {
    name: "exclude",
    kind: "list",
    value: "GLOB",
    help: "Send nothing that matches; repeatable",
    commands: ["send"],
  },
  {
    name: "on-conflict",
    kind: "text",
    value: "fail|skip|replace",
    help: "If a name is taken by other bytes (default fail)",
    commands: ["send"],
  },
  {
    name: "checksum",
    short: "c",
    kind: "switch",
    help: "Compare by CRC-32, not by size and time",
    commands: ["send"],
  },
  {
    name: "again",
    kind: "switch",
    help: "Send frames again that were moved away from the server",
    commands: ["send"],
  },
  {
    name: "move",
    kind: "switch",
    help: "Remove each frame here once it is safe on the server's disk",
    commands: ["send"],
  },
  {
    name: "dry-run",
    short: "n",
    kind: "switch",
    help: "Only list what would be sent",
    commands: ["send"],
  },
  {
    name: "timeout",
    kind: "seconds",
    value: "SECONDS",
    help: "A peer silent for so long is gone (default 30)",
    commands: ["serve", "send"],
  },
  {
    name: "give-up-after",
    kind: "seconds",
    value: "SECONDS",
    help: "Give up when nothing is confirmed for so long (default: never)",
    commands: ["send"],
  },
  {
    name: "ignore-missing",
    kind: "switch",
    help: "Frames may have been moved away",
    commands: ["verify"],
  },
  {
    name: "repair",
    kind: "switch",
    help: "Set damaged frames aside, so that the next send brings them",
    commands: ["verify"],
  },
  {
    name: "dir",
    kind: "text",
    value: "DIR",
    help: "The store (default ./received)",
    helpFor: { bench: "Where to put temporary files (default: the system's folder for them)" },
    commands: ["ls", "bench"],
  },
  {
    name: "json",
    kind: "switch",
    help: "One JSON object per line on standard output",
    commands: ["serve", "send", "ls", "verify", "bench", "key"],
  },
  {
    name: "quiet",
    short: "q",
    kind: "switch",
    help: "Print errors only",
    commands: ["serve", "send", "verify"],
  },
  {
    name: "verbose",
    short: "v",
    kind: "switch",
    help: "Show the conversation: every message and frame",
    commands: ["serve", "send"],
  },
  { name: "help", short: "h", kind: "switch", help: "Explain this command", commands: all },
];

/** The flags that a command takes, explained as that command takes them. */
export function flagsOf(command: string): readonly Flag[] {
  return flags
    .filter((flag) => flag.commands.includes(command))
    .map((flag) => ({ ...flag, help: flag.helpFor?.[command] ?? flag.help }))
    .map((flag) => (flag.switchFor?.includes(command) === true ? asSwitch(flag) : flag));
}

function asSwitch({ value: _, ...flag }: Flag): Flag {
  return { ...flag, kind: "switch" };
}

/** The environment variable that stands for a flag. */
export function environmentName(flag: Pick<Flag, "name">): string {
  return `FRAMES_${flag.name.toUpperCase().replaceAll("-", "_")}`;
}

/** What was given to a command; sizes are in bytes, seconds in milliseconds. */
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

  /** Where a value came from, as messages name it: `--to` or `FRAMES_TO`. */
  origin(name: string): string {
    return this.#fromEnvironment.has(name) ? environmentName({ name }) : `--${name}`;
  }

  /** Whether a switch is on. */
  isOn(name: string): boolean {
    return this.#values.has(name);
  }

  text(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  list(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  /** @throws {FramesError} `usage` */
  size(name: string): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : parseSize(text, this.origin(name));
  }

  /** @throws {FramesError} `usage` */
  milliseconds(name: string): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : parseSeconds(text, this.origin(name)) * 1000;
  }
}

/**
 * Reads the arguments of a command; a flag goes before its environment variable.
 *
 * @throws {FramesError} `usage`
 */
export function parseArguments(
  command: string,
  words: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Arguments {
  const known = flagsOf(command);
  const { tokens, positionals } = parseArgs({
    args: [...words],
    options: Object.fromEntries(
      known.map((flag) => [
        flag.name,
        {
          type: flag.kind === "switch" ? ("boolean" as const) : ("string" as const),
          multiple: true,
          ...(flag.short === undefined ? {} : { short: flag.short }),
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
    if (flag.kind === "switch" ? value !== undefined : value === undefined || value === "") {
      const wanted = flag.kind === "switch" ? "no value" : `a value, ${flag.value}`;
      throw new FramesError("usage", `Cannot read ${token.rawName}: it takes ${wanted}`);
    }
    if (value !== undefined && token.inlineValue === false && /^-./.test(value)) {
      throw new FramesError(
        "usage",
        `Cannot read ${token.rawName}: it takes a value, ${flag.value}; if that is ${value}, write ${token.rawName}=${value}`,
      );
    }
    values.set(flag.name, [...(values.get(flag.name) ?? []), value ?? "on"]);
  }
  const fromEnvironment = new Set<string>();
  for (const flag of known.filter(({ name }) => name !== "help")) {
    const value = environment[environmentName(flag)];
    if (values.has(flag.name) || value === undefined || value === "") continue;
    fromEnvironment.add(flag.name);
    if (flag.kind !== "switch") values.set(flag.name, [value]);
    else if (switchedOn(value, environmentName(flag))) values.set(flag.name, ["on"]);
  }
  return new Arguments(positionals, values, fromEnvironment);
}

function switchedOn(value: string, name: string): boolean {
  if (/^(?:1|true|yes|on)$/i.test(value)) return true;
  if (/^(?:0|false|no|off)$/i.test(value)) return false;
  throw new FramesError(
    "usage",
    `Cannot read ${name}: expected 1 or 0, current value is ${JSON.stringify(value)}`,
  );
}

function unknownFlag(given: string, known: readonly Flag[], command: string): FramesError {
  const names = known.flatMap(({ name, short }) => [
    `--${name}`,
    ...(short === undefined ? [] : [`-${short}`]),
  ]);
  // Any letter is near to any other.
  const near = given.startsWith("--") ? nearest(given, names) : undefined;
  const hint = near === undefined ? `see frames help ${command}` : `did you mean ${near}?`;
  return new FramesError("usage", `Unknown flag ${given}: ${hint}`);
}

/** The word most like `given`, if one is like it at all. */
export function nearest(given: string, words: readonly string[]): string | undefined {
  const scored = words.map((word) => ({ word, distance: editDistance(given, word) }));
  const [best] = scored.toSorted((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= Math.max(2, given.length / 3)
    ? best.word
    : undefined;
}

/** Levenshtein's distance. */
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
