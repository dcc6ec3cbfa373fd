/** The executable: argv to command, and the only place that exits. */
import { readFileSync } from "node:fs";
import { isatty } from "node:tty";
import { containsKey } from "./auth/key.ts";
import { benchCommand } from "./cli/bench/bench.ts";
import { completions } from "./cli/args/completions.ts";
import { commands } from "./cli/args/commands.ts";
import { nearest, parseArguments } from "./cli/args/arguments.ts";
import { help, overview } from "./cli/args/help.ts";
import { keyCommand } from "./cli/key.ts";
import { lsCommand } from "./cli/ls.ts";
import { receiveCommand } from "./cli/receive.ts";
import { sendCommand, type StopSignals } from "./cli/send.ts";
import { serveCommand } from "./cli/serve.ts";
import { verifyCommand } from "./cli/verify.ts";
import { chooseLogStyle } from "./cli/output/log-format.ts";
import {
  type OverflowPolicy,
  print,
  printError,
  systemTerminal,
  type Terminal,
} from "./cli/output/terminal.ts";
import { errors, FramesError } from "./errors.ts";
import { version } from "./version.ts";

async function run(argv: readonly string[], terminal: Terminal): Promise<number> {
  if (argv.some(containsKey)) {
    const hint =
      "frames key save reads it from standard input; make a new one if others use this machine";
    throw new FramesError("usage", `Cannot take a key as an argument, which ps shows: ${hint}`);
  }
  const [first, ...rest] = argv;
  if (first === undefined) {
    terminal.err(overview());
    return errors.usage.exitCode;
  }
  const name = Object.hasOwn(aliases, first) ? aliases[first]! : first;
  checkCommand(name);
  const args = parseArguments(name, rest, process.env);
  if (args.isOn("help")) {
    terminal.out(help(name));
    return 0;
  }
  switch (name) {
    case "serve": {
      const { graceful, onReload } = serveOnSignals();
      return await serveCommand(args, terminal, graceful, onReload);
    }
    case "send":
      return await sendCommand(args, terminal, stopOnSignal, reportOnSignal);
    case "receive":
      return await receiveCommand(args, terminal, stopOnSignal, reportOnSignal);
    case "ls":
      return await lsCommand(args, terminal);
    case "verify":
      return await verifyCommand(args, terminal);
    case "bench":
      return await benchCommand(args, terminal, stopOnSignal);
    case "key":
      return await keyCommand(args, terminal);
    case "completions":
      terminal.out(completions(args.positionals[0]));
      return 0;
    case "version":
      terminal.out(`frames ${version}\n`);
      return 0;
    default:
      terminal.out(help(args.positionals[0]));
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
function stopOnSignal(onHangUp: (stop: () => void) => void = stopOnHangUp): StopSignals {
  const graceful = new AbortController();
  const immediate = new AbortController();
  const stop = () => {
    if (!graceful.signal.aborted) return graceful.abort();
    immediate.abort();
    // Whoever can still say something gets a moment for it.
    setTimeout(() => process.exit(errors.interrupted.exitCode), 100);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  onHangUp(() => graceful.abort());
  return { graceful: graceful.signal, immediate: immediate.signal };
}

/** Whoever was started with nohup goes on. */
function stopOnHangUp(stop: () => void): void {
  if (!ignoresHangUp()) process.on("SIGHUP", stop);
}

/**
 * Likewise for a server. SIGHUP has it read again what it was told, as others of its kind do, unless the
 * terminal that it was started in is gone: then it stops.
 */
function serveOnSignals(): { graceful: AbortSignal; onReload: (reload: () => void) => void } {
  let currentReload = () => {};
  const hadTerminal = isatty(0);
  // On Windows it says nothing else, and the system ends this process soon after.
  const isGone = () => process.platform === "win32" || (hadTerminal && !isatty(0));
  const { graceful } = stopOnSignal((stop) => {
    process.on("SIGHUP", () => (isGone() ? stop() : currentReload()));
  });
  return { graceful, onReload: (reload) => void (currentReload = reload) };
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
function reportOnSignal(printReport: () => void): void {
  if (process.platform !== "win32") process.on("SIGUSR1", printReport);
  else setInterval(printReport, 60_000).unref();
}

/** Says what went wrong, and returns the exit status for it. */
function reportError(error: unknown, terminal: Terminal): number {
  const framesError = error instanceof FramesError ? error : undefined;
  // What a peer says of itself has no cause here.
  if (
    framesError !== undefined &&
    (framesError.code !== "internal" || framesError.cause === undefined)
  ) {
    printError(terminal, framesError.message, framesError.code);
    return framesError.exitCode;
  }
  printError(terminal, "This is a fault in frames; please report it:", "internal");
  for (const line of Bun.inspect(framesError?.cause ?? error).split("\n"))
    print(terminal, line, "error");
  return errors.internal.exitCode;
}

const argv = process.argv.slice(2);
const terminal = systemTerminal(
  process.env,
  overflowPolicyOf(argv),
  chooseLogStyle(argv, process.env),
);
const code = await run(argv, terminal).catch((error: unknown) => reportError(error, terminal));
await terminal.end();
process.exit(code);

/** Whoever reads what a transfer says must never hold it up; a list is worth waiting for. */
function overflowPolicyOf([command]: readonly string[]): OverflowPolicy {
  if (command === "serve") return { results: "drop", messages: "drop" };
  const isTransfer = command === "send" || command === "receive";
  return { results: "wait", messages: isTransfer ? "drop" : "wait" };
}
