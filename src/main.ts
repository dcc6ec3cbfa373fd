/** The executable: argv to command, and the only place that exits. */
import { readFileSync } from "node:fs";
import { isatty } from "node:tty";
import { holdsKey } from "./auth/key.ts";
import { benchCommand } from "./cli/bench.ts";
import { completions } from "./cli/completions.ts";
import { commands } from "./cli/commands.ts";
import { nearest, parseArguments } from "./cli/arguments.ts";
import { help, overview } from "./cli/help.ts";
import { keyCommand } from "./cli/key.ts";
import { ls } from "./cli/ls.ts";
import { receiveCommand } from "./cli/receive.ts";
import { sendCommand, type Stop } from "./cli/send.ts";
import { serveCommand } from "./cli/serve.ts";
import { verifyCommand } from "./cli/verify.ts";
import { lineStyle } from "./cli/lines.ts";
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
    case "serve": {
      const { gently, onReload } = serveOnSignals();
      return await serveCommand(given, terminal, gently, onReload);
    }
    case "send":
      return await sendCommand(given, terminal, stopOnSignal, reportOnSignal);
    case "receive":
      return await receiveCommand(given, terminal, stopOnSignal, reportOnSignal);
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

/**
 * From now on the first signal to stop is heeded gently, and the second at once. A terminal that is closed
 * is one to stop gently, however often that is said.
 */
function stopOnSignal(onHangUp: (stop: () => void) => void = stopOnHangUp): Stop {
  const gently = new AbortController();
  const atOnce = new AbortController();
  const stop = () => {
    if (!gently.signal.aborted) return gently.abort();
    atOnce.abort();
    // Whoever can still say something gets a moment for it.
    setTimeout(() => process.exit(errors.interrupted.exit), 100);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  onHangUp(() => gently.abort());
  return { gently: gently.signal, atOnce: atOnce.signal };
}

/** Whoever was started with nohup goes on. */
function stopOnHangUp(stop: () => void): void {
  if (!ignoresHangUp()) process.on("SIGHUP", stop);
}

/**
 * Likewise for a server. SIGHUP has it read again what it was told, as others of its kind do, unless the
 * terminal that it was started in is gone: then it stops.
 */
function serveOnSignals(): { gently: AbortSignal; onReload: (reload: () => void) => void } {
  let act = () => {};
  const hadTerminal = isatty(0);
  // On Windows it says nothing else, and the system ends this process soon after.
  const isGone = () => process.platform === "win32" || (hadTerminal && !isatty(0));
  const { gently } = stopOnSignal((stop) => {
    process.on("SIGHUP", () => (isGone() ? stop() : act()));
  });
  return { gently, onReload: (reload) => void (act = reload) };
}

/** Whether this process was started with SIGHUP ignored, where the system tells. */
function ignoresHangUp(): boolean {
  if (process.platform !== "linux") return false;
  try {
    const [, ignored = "0"] = /^SigIgn:\s*(\w+)$/m.exec(readFileSync("/proc/self/status", "utf8"))!;
    return (BigInt(`0x${ignored}`) & 1n) === 1n;
  } catch {
    return false;
  }
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
    sayError(terminal, ours.message, ours.code);
    return ours.exit;
  }
  sayError(terminal, "This is a fault in frames; please report it:", "internal");
  for (const line of Bun.inspect(ours?.cause ?? error).split("\n")) say(terminal, line, "error");
  return errors.internal.exit;
}

const words = process.argv.slice(2);
const terminal = systemTerminal(process.env, patienceOf(words), lineStyle(words, process.env));
const code = await run(words, terminal).catch((error: unknown) => explain(error, terminal));
await terminal.end();
process.exit(code);

/** Whoever reads what a transfer says must never hold it up; a list is worth waiting for. */
function patienceOf([command]: readonly string[]): Patience {
  if (command === "serve") return { results: "drop", messages: "drop" };
  const isTransfer = command === "send" || command === "receive";
  return { results: "wait", messages: isTransfer ? "drop" : "wait" };
}
