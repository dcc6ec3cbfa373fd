/** `frames key`: shows, makes, saves, lists and removes keys. */
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { isKeyName, isRole, isStreamPattern, Key, type KeyEntry } from "../auth/key.ts";
import { isTerminal } from "../common/is-terminal.ts";
import { FramesError, usageError } from "../errors.ts";
import {
  addKey,
  defaultKeyFile,
  createFirstKey,
  generateKey,
  readKeys,
  removeKey,
} from "../keys/key-file.ts";
import type { Arguments } from "./args/arguments.ts";
import { printable } from "../safe-text.ts";
import { type TableColumn, TablePrinter } from "./output/table.ts";
import { print, printJson, type Terminal } from "./output/terminal.ts";

/** Characters read from standard input at most. */
const maxInputLength = 4096;

/**
 * Runs `frames key` and its actions.
 *
 * @returns the exit status
 * @throws {FramesError} `usage`, or the error of the key file
 */
export async function keyCommand(args: Arguments, terminal: Terminal): Promise<number> {
  const [action, name, ...rest] = args.positionals;
  const takesName = action === "new" || action === "save" || action === "remove";
  if (rest.length > 0 || (name !== undefined && !takesName)) {
    throw usageError(
      `Cannot use ${rest[0] ?? name}: frames key takes an action and a name; see frames help key`,
    );
  }
  if (action !== "new" && (args.text("role") ?? args.text("streams")) !== undefined) {
    throw usageError("Cannot use --role and --streams here: write them after frames key new NAME");
  }
  const path = args.text("key-file") ?? defaultKeyFile();
  switch (action) {
    case undefined:
      showKey(path, args, terminal);
      return 0;
    case "new":
      createKey(path, name, args, terminal);
      return 0;
    case "save":
      await saveKey(path, name ?? "saved", terminal);
      return 0;
    case "list":
      listKeys(path, args, terminal);
      return 0;
    case "remove":
      removeKey(path, checkName(name, action));
      print(
        terminal,
        `Removed ${name} from ${path}: servers that read this file refuse it from now on`,
      );
      return 0;
    default:
      throw usageError(`Unknown action ${action}: write frames key new, save, list or remove`);
  }
}

function checkName(name: string | undefined, action: string): string {
  if (name === undefined) {
    const message = `Cannot ${action === "new" ? "make" : action} a key without a name: write frames key ${action} NAME`;
    throw usageError(message);
  }
  if (isKeyName(name)) return name;
  const rule = "up to 64 letters, digits, dots, dashes, underscores and @";
  throw usageError(`Cannot name a key ${JSON.stringify(name)}: use ${rule}`);
}

/** Prints only the key to standard output, so that it can be piped to another machine. */
function showKey(path: string, args: Arguments, terminal: Terminal): void {
  const created = createFirstKey(path, "default");
  const [first] = readKeys(path);
  const { name, key } = first!;
  if (args.isOn("json"))
    return printJson(terminal, { type: "key", name, id: key.id, key: key.text });
  print(terminal, `The key ${name} of ${path}${created === undefined ? "" : ", made now"}:`);
  terminal.out(`${key.text}\n`);
  print(terminal, "On the other machine run frames key save, and paste it there");
}

function createKey(
  path: string,
  requestedName: string | undefined,
  args: Arguments,
  terminal: Terminal,
): void {
  const name = checkName(requestedName, "new");
  const role = args.text("role") ?? "both";
  const streams = args.text("streams") ?? "*";
  if (!isRole(role)) {
    const message = `expected send, receive or both, current value is ${JSON.stringify(role)}`;
    throw usageError(`Cannot read ${args.label("role")}: ${message}`);
  }
  if (!isStreamPattern(streams)) {
    const message = "write a pattern without spaces and #, such as 'site-*'";
    throw usageError(`Cannot read ${args.label("streams")}: ${message}`);
  }
  const key = generateKey();
  addKey(path, { name, key, role, streams }, false);
  if (args.isOn("json"))
    return printJson(terminal, { type: "key", name, id: key.id, key: key.text });
  print(terminal, `Made the key ${name} in ${path}:`);
  terminal.out(`${key.text}\n`);
}

async function saveKey(path: string, name: string, terminal: Terminal): Promise<void> {
  checkName(name, "save");
  const line = isTerminal(0) ? await readHiddenLine(terminal) : await readFirstLine();
  const key = Key.parse(line.trim(), "from standard input");
  const existing = readKeys(path).find((entry) => entry.key.id === key.id);
  if (existing !== undefined)
    return print(terminal, `The key is in ${path} already, as ${existing.name}`);
  const entry: KeyEntry = { name, key, role: "both", streams: "*" };
  addKey(path, entry, true);
  print(terminal, `Saved as ${name} in ${path}: frames send DIR --to HOST uses it`);
}

/** Reads a line without echo, so that the key shows neither on screen nor in the scrollback. */
async function readHiddenLine(terminal: Terminal): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const prompt = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  // Prompt only after `createInterface`, which turns the terminal's echo off.
  print(terminal, "Paste the key and press Enter; it is not shown:");
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  prompt.once("line", resolve);
  prompt.once("SIGINT", () =>
    reject(
      new FramesError("interrupted", "Interrupted: no key was saved; run frames key save again"),
    ),
  );
  // Ctrl-D closes the prompt without a line.
  prompt.once("close", () => resolve(""));
  try {
    return await promise;
  } finally {
    prompt.close();
  }
}

/** Reads the first line that is not empty, and ignores the rest. */
async function readFirstLine(): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of Bun.stdin.stream()) {
    text = (text + decoder.decode(chunk, { stream: true })).trimStart();
    if (text.includes("\n") || text.length > maxInputLength) break;
  }
  return text.slice(0, maxInputLength).split("\n", 1)[0]!;
}

const columns: readonly TableColumn[] = [
  { title: "NAME" },
  { title: "ROLE" },
  { title: "STREAMS" },
  { title: "ID" },
];

function listKeys(path: string, args: Arguments, terminal: Terminal): void {
  const entries = readKeys(path);
  if (args.isOn("json")) {
    for (const { name, role, streams, key } of entries) {
      printJson(terminal, { type: "key", name, role, streams, id: key.id });
    }
    return;
  }
  if (entries.length === 0) return print(terminal, `No keys in ${path}: frames key makes one`);
  const table = new TablePrinter(terminal, columns);
  for (const { name, role, streams, key } of entries) {
    table.addRow([name, role, streams, key.id].map(printable));
  }
  table.flush();
}
