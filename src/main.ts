/** The executable: argv to command, and the only place that exits. */
import { holdsKey } from "./auth/key.ts";
import { benchCommand } from "./cli/bench.ts";
import { completions } from "./cli/completions.ts";
import { commands } from "./cli/commands.ts";
import { nearest, parseArguments } from "./cli/arguments.ts";
import { help, overview } from "./cli/help.ts";
import { keyCommand } from "./cli/key.ts";
import { ls } from "./cli/ls.ts";
import { sendCommand, type Stop } from "./cli/send.ts";
import { serveCommand } from "./cli/serve.ts";
import { verifyCommand } from "./cli/verify.ts";
import { type Patience, say, sayError, systemTerminal, type Terminal } from "./cli/terminal.ts";
import { errors, FramesError } from "./errors.ts";
import { version } from "./version.ts";

async function run(words: readonly string[], terminal: Terminal): Promise<number> {
  if (words.some(holdsKey)) {
    const hint =
      "frames key save reads it from standard input; make a new one if others use this machine";
    throw new FramesError("usage", `Cannot take a key as an argument, which ps shows: ${hint}`);
  }
  const [first, ...rest] = words;
  if (first === undefined) {
    terminal.err(overview());
    return errors.usage.exit;
  }
  const name = Object.hasOwn(aliases, first) ? aliases[first]! : first;
  checkCommand(name);
  const given = parseArguments(name, rest, process.env);
  if (given.isOn("help")) {
    terminal.out(help(name));
    return 0;
  }
  switch (name) {
    case "serve":
      return await serveCommand(given, terminal, stopOnSignal().gently);
    case "send":
      return await sendCommand(given, terminal, stopOnSignal, reportOnSignal);
    case "ls":
      return await ls(given, terminal);
    case "verify":
      return await verifyCommand(given, terminal);
    case "bench":
      return await benchCommand(given, terminal, stopOnSignal);
    case "key":
      return await keyCommand(given, terminal);
    case "completions":
      terminal.out(completions(given.positionals[0]));
      return 0;
    case "version":
      terminal.out(`frames ${version}\n`);
      return 0;
    default:
      terminal.out(help(given.positionals[0]));
      return 0;
  }
}

function checkCommand(name: string): void {
  const names = commands.map((command) => command.name);
  if (names.includes(name)) return;
  if (name.startsWith("-")) {
    throw new FramesError(
      "usage",
      `Unknown flag ${name}: flags follow the command, see frames help`,
    );
  }
  const near = nearest(name, names);
  const hint = near === undefined ? "see frames help" : `did you mean frames ${near}?`;
  throw new FramesError("usage", `Unknown command ${name}: ${hint}`);
}

const aliases: Record<string, string> = {
  "-h": "help",
  "--help": "help",
  "-V": "version",
  "--version": "version",
};

/** From now on the first signal to stop is heeded gently, and the second at once. */
function stopOnSignal(): Stop {
  const gently = new AbortController();
  const atOnce = new AbortController();
  const stop = () => {
    if (!gently.signal.aborted) return gently.abort();
    atOnce.abort();
    // Whoever can still say something gets a moment for it.
    setTimeout(() => process.exit(errors.interrupted.exit), 100);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);
  return { gently: gently.signal, atOnce: atOnce.signal };
}

/** Where there is no SIGUSR1, a report is due every minute. */
function reportOnSignal(tell: () => void): void {
  if (process.platform !== "win32") process.on("SIGUSR1", tell);
  else setInterval(tell, 60_000).unref();
}

/** Says what went wrong, and returns the exit status for it. */
function explain(error: unknown, terminal: Terminal): number {
  const ours = error instanceof FramesError ? error : undefined;
  // What a peer says of itself has no cause here.
  if (ours !== undefined && (ours.code !== "internal" || ours.cause === undefined)) {
    sayError(terminal, ours.message);
    return ours.exit;
  }
  sayError(terminal, "This is a fault in frames; please report it:");
  for (const line of Bun.inspect(ours?.cause ?? error).split("\n")) say(terminal, line);
  return errors.internal.exit;
}

const words = process.argv.slice(2);
const terminal = systemTerminal(process.env, patienceOf(words));
const code = await run(words, terminal).catch((error: unknown) => explain(error, terminal));
await terminal.end();
process.exit(code);

/** Whoever reads what a transfer says must never hold it up; a list is worth waiting for. */
function patienceOf([command]: readonly string[]): Patience {
  if (command === "serve") return { results: "drop", messages: "drop" };
  return { results: "wait", messages: command === "send" ? "drop" : "wait" };
}
