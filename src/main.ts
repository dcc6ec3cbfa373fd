/** Entry point of the executable: runs the command in argv. Only this file ends the process. */
import { readFileSync } from "node:fs";
import { containsKey } from "./auth/key-text.ts";
import { commands } from "./cli/args/commands.ts";
import { environmentName, flags } from "./cli/args/flags.ts";
import { type Arguments, nearest, parseArguments } from "./cli/args/arguments.ts";
import type { StopSignals } from "./cli/transfer.ts";
import { chooseLogStyle } from "./cli/output/log-format.ts";
import {
  type OverflowPolicy,
  print,
  printError,
  resultStyle,
  systemTerminal,
  type Terminal,
} from "./cli/output/terminal.ts";
import { isTerminal } from "./common/is-terminal.ts";
import { errors, FramesError, usageError } from "./errors.ts";
import { version } from "./version.ts";

async function run(argv: readonly string[], terminal: Terminal): Promise<number> {
  checkForKeys(argv);
  const [first, ...rest] = argv;
  if (first === undefined) {
    const { overview } = await import("./cli/args/help.ts");
    terminal.err(overview());
    return errors.usage.exitCode;
  }
  const name = Object.hasOwn(aliases, first) ? aliases[first]! : first;
  checkCommand(name);
  const args = parseArguments(name, rest, process.env);
  if (args.isOn("help")) {
    const { help } = await import("./cli/args/help.ts");
    terminal.out(help(name));
    return 0;
  }
  return await runners[name]!(args, terminal);
}

/**
 * Runs each command, and returns its exit status. A command's code is loaded when it runs, because
 * loading all of the program takes longer than a short command.
 */
const runners: Record<string, (args: Arguments, terminal: Terminal) => Promise<number>> = {
  async serve(args, terminal) {
    const { serveCommand } = await import("./cli/serve.ts");
    const { graceful, onReload } = serveOnSignals();
    return await serveCommand(args, terminal, graceful, onReload);
  },
  async send(args, terminal) {
    const { sendCommand } = await import("./cli/send.ts");
    return await sendCommand(args, terminal, { stopOnSignal, reportOnSignal });
  },
  async receive(args, terminal) {
    const { receiveCommand } = await import("./cli/receive.ts");
    return await receiveCommand(args, terminal, { stopOnSignal, reportOnSignal });
  },
  async ls(args, terminal) {
    const { lsCommand } = await import("./cli/ls.ts");
    return await lsCommand(args, terminal);
  },
  async verify(args, terminal) {
    const { verifyCommand } = await import("./cli/verify.ts");
    return await verifyCommand(args, terminal);
  },
  async bench(args, terminal) {
    const { benchCommand } = await import("./cli/bench/bench.ts");
    return await benchCommand(args, terminal, stopOnSignal);
  },
  async key(args, terminal) {
    const { keyCommand } = await import("./cli/key.ts");
    return await keyCommand(args, terminal);
  },
  async help(args, terminal) {
    const { help } = await import("./cli/args/help.ts");
    terminal.out(help(args.positionals[0], resultStyle(process.env)));
    return 0;
  },
  async python(_, terminal) {
    const { pythonModule } = await import("./cli/python/python.ts");
    terminal.out(pythonModule);
    return 0;
  },
  async version(_, terminal) {
    terminal.out(`frames ${version}\n`);
    return 0;
  },
  async completions(args, terminal) {
    const { completions } = await import("./cli/args/completions.ts");
    terminal.out(completions(args.positionals[0]));
    return 0;
  },
};

/** @throws {FramesError} `usage` if a key is given where a name or a file belongs */
function checkForKeys(argv: readonly string[]): void {
  if (argv.some(containsKey)) {
    const hint =
      "run frames key save, and paste it; replace it if other users work on this machine";
    throw usageError(`Cannot take a key as an argument, which ps shows: ${hint}`);
  }
  for (const { name } of flags) {
    const variable = environmentName({ name });
    if (!containsKey(process.env[variable] ?? "")) continue;
    const hint = "put it into FRAMES_KEY, or name a file that holds it";
    throw usageError(`Cannot take a key in ${variable}: ${hint}`);
  }
}

function checkCommand(name: string): void {
  const names = commands.map((command) => command.name);
  if (names.includes(name)) return;
  if (name.startsWith("-")) {
    throw usageError(`Unknown flag ${name}: flags follow the command, see frames help`);
  }
  const near = nearest(name, names);
  const hint = near === undefined ? "see frames help" : `did you mean frames ${near}?`;
  throw usageError(`Unknown command ${name}: ${hint}`);
}

const aliases: Record<string, string> = {
  "-h": "help",
  "--help": "help",
  "-V": "version",
  "--version": "version",
};

/**
 * Installs signal handlers. The first SIGINT or SIGTERM stops gracefully, the second at once. A
 * closed terminal stops gracefully, even if SIGHUP comes repeatedly.
 */
function stopOnSignal(onHangUp: (stop: () => void) => void = stopOnHangUp): StopSignals {
  const graceful = new AbortController();
  const immediate = new AbortController();
  const stop = () => {
    if (!graceful.signal.aborted) return graceful.abort();
    immediate.abort();
    // Leaves time for last messages.
    setTimeout(() => process.exit(errors.interrupted.exitCode), 100);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  onHangUp(() => graceful.abort());
  return { graceful: graceful.signal, immediate: immediate.signal };
}

/** Stops on SIGHUP, unless the process was started with nohup. */
function stopOnHangUp(stop: () => void): void {
  if (!ignoresHangUp()) process.on("SIGHUP", stop);
}

/**
 * Installs the signal handlers of a server. SIGHUP reloads keys and certificate, as in other
 * daemons. If the server's terminal was closed, SIGHUP stops it instead.
 */
function serveOnSignals(): { graceful: AbortSignal; onReload: (reload: () => void) => void } {
  let currentReload = () => {};
  const hadTerminal = isTerminal(0);
  // On Windows, SIGHUP always means a closed console, and the system ends the process soon after.
  const isGone = () => process.platform === "win32" || (hadTerminal && !isTerminal(0));
  const { graceful } = stopOnSignal((stop) => {
    process.on("SIGHUP", () => (isGone() ? stop() : currentReload()));
  });
  return { graceful, onReload: (reload) => void (currentReload = reload) };
}

/** Whether SIGHUP was ignored when this process started. Known only on Linux. */
function ignoresHangUp(): boolean {
  if (process.platform !== "linux") return false;
  try {
    const [, ignored = "0"] = /^SigIgn:\s*(\w+)$/m.exec(readFileSync("/proc/self/status", "utf8"))!;
    return (BigInt(`0x${ignored}`) & 1n) === 1n;
  } catch {
    return false;
  }
}

/**
 * Prints a report on SIGUSR1. Windows has no SIGUSR1, so a report is printed every minute there.
 */
function reportOnSignal(printReport: () => void): void {
  if (process.platform !== "win32") process.on("SIGUSR1", printReport);
  else setInterval(printReport, 60_000).unref();
}

/** Prints an error and returns its exit status. */
function reportError(error: unknown, terminal: Terminal): number {
  const framesError = error instanceof FramesError ? error : undefined;
  // An `internal` error reported by the peer has no cause in this process.
  if (
    framesError !== undefined &&
    (framesError.code !== "internal" || framesError.cause === undefined)
  ) {
    printError(terminal, framesError.message, framesError.code);
    return framesError.exitCode;
  }
  printError(terminal, "This is a bug in frames; please report it with these lines:", "internal");
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

/**
 * Policy for slow readers of the output. A transfer drops messages, because output must not delay
 * it. Other commands wait.
 */
function overflowPolicyOf([command]: readonly string[]): OverflowPolicy {
  if (command === "serve") return { results: "drop", messages: "drop" };
  const isTransfer = command === "send" || command === "receive";
  return { results: "wait", messages: isTransfer ? "drop" : "wait" };
}
