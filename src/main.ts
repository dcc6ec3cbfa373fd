/** The executable: argv to command, and the only place that exits. */
import { completions } from "./cli/completions.ts";
import { commands, nearest, parseArguments } from "./cli/flags.ts";
import { help, overview } from "./cli/help.ts";
import { ls } from "./cli/ls.ts";
import { sendCommand } from "./cli/send.ts";
import { serveCommand } from "./cli/serve.ts";
import { sayError, systemTerminal, type Terminal } from "./cli/terminal.ts";
import { errors, FramesError } from "./errors.ts";
import { version } from "./version.ts";

async function run(words: readonly string[], terminal: Terminal): Promise<number> {
  const [first, ...rest] = words;
  if (first === undefined) {
    terminal.err(overview());
    return errors.usage.exit;
  }
  const name = aliases[first] ?? first;
  if (!commands.some((command) => command.name === name)) {
    const near = nearest(
      name,
      commands.map((command) => command.name),
    );
    const hint = near === undefined ? "see frames help" : `did you mean frames ${near}?`;
    throw new FramesError("usage", `Unknown command ${first}: ${hint}`);
  }
  const given = parseArguments(name, rest, process.env);
  if (given.isOn("help")) {
    terminal.out(help(name));
    return 0;
  }
  switch (name) {
    case "serve":
      return await serveCommand(given, terminal, stopOnSignal());
    case "send":
      return await sendCommand(given, terminal, stopOnSignal());
    case "ls":
      return ls(given, terminal);
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

/** Says what went wrong, and returns the exit status for it. */
function explain(error: unknown, terminal: Terminal): number {
  if (error instanceof FramesError && error.code !== "internal") {
    sayError(terminal, error.message);
    return error.exit;
  }
  sayError(terminal, "This is a fault in frames; please report it:");
  terminal.err(`${Bun.inspect(error)}\n`);
  return errors.internal.exit;
}

const aliases: Record<string, string> = {
  "-h": "help",
  "--help": "help",
  "-V": "version",
  "--version": "version",
};

/** Aborted at the first signal to stop; at the second the process ends at once. */
function stopOnSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(errors.interrupted.exit);
    controller.abort();
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);
  return controller.signal;
}

const words = process.argv.slice(2);
const terminal = systemTerminal(process.env, words[0] === "serve" ? "drops" : "waits");
const code = await run(words, terminal).catch((error: unknown) => explain(error, terminal));
await terminal.end();
process.exit(code);
