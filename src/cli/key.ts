/** `frames key`, and what other commands take of keys. */
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { isatty } from "node:tty";
import { isKeyName, isRole, isStreamPattern, Key, type KeyEntry } from "../auth/key.ts";
import { FramesError } from "../errors.ts";
import { addKey, defaultKeyFile, firstKey, newKey, readKeys, removeKey } from "../keys.ts";
import type { Arguments } from "./arguments.ts";
import { say, sayJson, type Terminal } from "./terminal.ts";

/** What a command was given of keys: a secret is never the value of a flag, since `ps` shows these. */
export function keyOptions(given: Arguments): {
  key?: string;
  keyFile?: string;
  insecure: boolean;
} {
  const key = process.env["FRAMES_KEY"];
  const keyFile = given.text("key-file");
  return {
    insecure: given.isOn("insecure"),
    ...(keyFile !== undefined ? { keyFile } : key ? { key } : {}),
  };
}

/** Bytes of standard input that are read for a key. */
const mostTyped = 4096;

/** Shows, makes, saves, lists and removes keys. */
export async function keyCommand(given: Arguments, terminal: Terminal): Promise<number> {
  const [action, name, ...rest] = given.positionals;
  const takesName = action === "new" || action === "save" || action === "remove";
  if (rest.length > 0 || (name !== undefined && !takesName)) {
    throw new FramesError("usage", `Cannot read ${rest[0] ?? name}: see frames help key`);
  }
  if (action !== "new" && (given.text("role") ?? given.text("streams")) !== undefined) {
    throw new FramesError("usage", "--role and --streams are for frames key new");
  }
  const path = given.text("key-file") ?? defaultKeyFile();
  switch (action) {
    case undefined:
      show(path, given, terminal);
      return 0;
    case "new":
      make(path, name, given, terminal);
      return 0;
    case "save":
      await save(path, name ?? "saved", terminal);
      return 0;
    case "list":
      list(path, given, terminal);
      return 0;
    case "remove":
      removeKey(path, checkName(name));
      say(terminal, `Removed ${name} from ${path}: a server that reads it lets it in no more`);
      return 0;
    default:
      throw new FramesError(
        "usage",
        `Unknown: frames key ${action}; there are new, save, list, remove`,
      );
  }
}

function checkName(name: string | undefined): string {
  if (name === undefined)
    throw new FramesError("usage", "Cannot do that without a name for the key");
  if (isKeyName(name)) return name;
  const rule = "up to 64 letters, digits, dots, dashes, underscores and @";
  throw new FramesError("usage", `Cannot call a key ${JSON.stringify(name)}: a name is ${rule}`);
}

/** The key alone goes to standard output, so that it can be led to where it is needed. */
function show(path: string, given: Arguments, terminal: Terminal): void {
  const made = firstKey(path, "default");
  const [first] = readKeys(path);
  const { name, key } = first!;
  if (given.isOn("json"))
    return sayJson(terminal, { type: "key", name, id: key.id, key: key.text });
  say(terminal, `The key ${name} of ${path}${made === undefined ? "" : ", made now"}:`);
  terminal.out(`${key.text}\n`);
  say(terminal, "On the other machine: frames key save, and paste it there");
}

function make(path: string, given: string | undefined, flags: Arguments, terminal: Terminal): void {
  const name = checkName(given);
  const role = flags.text("role") ?? "both";
  const streams = flags.text("streams") ?? "*";
  if (!isRole(role)) {
    const message = `expected send, receive or both, current value is ${JSON.stringify(role)}`;
    throw new FramesError("usage", `Cannot read ${flags.origin("role")}: ${message}`);
  }
  if (!isStreamPattern(streams)) {
    const message = "a pattern has no spaces and no #";
    throw new FramesError("usage", `Cannot read ${flags.origin("streams")}: ${message}`);
  }
  const key = newKey();
  addKey(path, { name, key, role, streams }, false);
  if (flags.isOn("json"))
    return sayJson(terminal, { type: "key", name, id: key.id, key: key.text });
  say(terminal, `Made the key ${name} in ${path}:`);
  terminal.out(`${key.text}\n`);
}

async function save(path: string, name: string, terminal: Terminal): Promise<void> {
  checkName(name);
  const line = isatty(0) ? await hiddenLine(terminal) : await firstLine();
  const key = Key.parse(line.trim(), "from standard input");
  const known = readKeys(path).find((entry) => entry.key.id === key.id);
  if (known !== undefined) return say(terminal, `The key is in ${path} already, as ${known.name}`);
  const entry: KeyEntry = { name, key, role: "both", streams: "*" };
  addKey(path, entry, true);
  say(terminal, `Saved as ${name} in ${path}: frames send DIR --to HOST uses it`);
}

/** What somebody pastes: it is shown to nobody who looks over a shoulder, or scrolls back later. */
async function hiddenLine(terminal: Terminal): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const prompt = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  // Only now does the terminal show nothing.
  say(terminal, "Paste the key and press Enter; it is not shown:");
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  prompt.once("line", resolve);
  prompt.once("SIGINT", () => reject(new FramesError("interrupted", "No key was saved")));
  // Ctrl-D.
  prompt.once("close", () => resolve(""));
  try {
    return await promise;
  } finally {
    prompt.close();
  }
}

/** The first line that is not empty; what comes after it is of no interest. */
async function firstLine(): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of Bun.stdin.stream()) {
    text = (text + decoder.decode(chunk, { stream: true })).trimStart();
    if (text.includes("\n") || text.length > mostTyped) break;
  }
  return text.slice(0, mostTyped).split("\n", 1)[0]!;
}

function list(path: string, given: Arguments, terminal: Terminal): void {
  const entries = readKeys(path);
  if (given.isOn("json")) {
    for (const { name, role, streams, key } of entries) {
      sayJson(terminal, { type: "key", name, role, streams, id: key.id });
    }
    return;
  }
  if (entries.length === 0) return say(terminal, `No keys in ${path}: frames key makes one`);
  const rows = [["NAME", "ROLE", "STREAMS", "ID"]];
  for (const { name, role, streams, key } of entries) rows.push([name, role, streams, key.id]);
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const row of rows) {
    terminal.out(
      `${row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd()}\n`,
    );
  }
}
