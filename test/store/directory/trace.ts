// Traces the system calls of a process that stores frames, and kills it at a given call.

import { mkdtempSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { endSignal, type Plan } from "../../helper/crash-store.ts";
import { environment, temporaryFolder } from "../../helper/program.ts";

/** A system call that was started or completed. */
export interface Call {
  readonly thread: number;
  readonly name: string;
  /** Text between the parentheses. */
  readonly text: string;
  /** Paths in the call, including those of open files, in order. */
  readonly paths: readonly string[];
  /** Positions in the trace where it started and ended. */
  readonly start: number;
  end: number;
}

const program = join(import.meta.dir, "../../helper/crash-store.ts");

/** Calls that change the disk or order its writes, by their names on all platforms. */
const changing =
  "?mkdir,mkdirat,?rename,renameat,?renameat2,?unlink,unlinkat,write,pwrite64,ftruncate,utimensat,fsync,fdatasync";
/** The same, and calls that read. */
const looking = `${changing},%file,?getdents,getdents64,pread64,read`;

const usual = ["strace", "-f", "-y", "-s", "400"];

/** Whether strace is installed and permitted. */
export const canTrace: boolean =
  process.platform === "linux" &&
  Bun.which("strace") !== null &&
  Bun.spawnSync([...usual, "--seccomp-bpf", "-e", `trace=${changing}`, "-o", "/dev/null", "true"])
    .exitCode === 0;

/** Suffix for the name of a test that cannot run. */
export const unlessTraced = canTrace ? "" : " (skipped: needs strace)";

/** Runs a plan to its end and returns all system calls. */
export async function trace(
  place: string,
  plan: Plan,
  what: "changing" | "looking" = "changing",
): Promise<Call[]> {
  const file = join(mkdtempSync(join(temporaryFolder(), "trace-")), "calls");
  const calls = what === "changing" ? changing : looking;
  // Faster, but cannot inject signals.
  const quickly = ["--seccomp-bpf", "-e", `trace=${calls}`, "-o", file];
  const { signal, errors } = await spawn(quickly, place, plan);
  if (signal !== endSignal) throw new Error(`The process ended with ${signal}: ${errors}`);
  return parse(readFileSync(file, "latin1"));
}

/** The `count`th call of a kind on a path below the store in one thread. */
export interface Moment {
  readonly call: string;
  /** Path below the store; empty for the store itself. */
  readonly path: string;
  readonly count: number;
}

/** Runs a plan, killed at this call, and returns the output so far. */
export async function killAt(
  place: string,
  plan: Plan,
  { call, path, count }: Moment,
): Promise<{ said: Record<string, unknown>[]; isKilled: boolean }> {
  const inject = `inject=${call}:signal=SIGKILL:when=${count}`;
  const only = ["-P", join(place, path), "-e", `trace=${call}`];
  const { said, signal, errors } = await spawn(
    [...only, "-e", inject, "-o", "/dev/null"],
    place,
    plan,
  );
  const isKilled = signal === "SIGKILL";
  if (!isKilled && signal !== endSignal) throw new Error(`It ended with ${signal}: ${errors}`);
  return { said, isKilled };
}

async function spawn(args: string[], place: string, plan: Plan) {
  const command = [...usual, ...args, process.execPath, program, place, JSON.stringify(plan)];
  const child = Bun.spawn(command, {
    ...{ env: environment(), stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  });
  const [text, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  await child.exited;
  const lines = text.split("\n").slice(0, -1);
  const said = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  return { said, signal: child.signalCode, errors };
}

function parse(text: string): Call[] {
  const calls: Call[] = [];
  const unfinished = new Map<string, Call>();
  for (const [index, line] of text.split("\n").entries()) {
    const resumed = /^(\d+) +<\.\.\. (\w+) resumed>/.exec(line);
    if (resumed !== null) {
      const call = unfinished.get(`${resumed[1]} ${resumed[2]}`);
      if (call !== undefined) call.end = index;
      continue;
    }
    const begun = /^(\d+) +(\w+)\((.*)$/.exec(line);
    if (begun === null) continue;
    const [, thread, name, rest] = begun as unknown as [string, string, string, string];
    const isOpen = rest.endsWith("<unfinished ...>");
    const call = {
      ...{ thread: Number(thread), name, text: rest, paths: pathsIn(name, rest) },
      ...{ start: index, end: isOpen ? Infinity : index },
    };
    if (isOpen) unfinished.set(`${thread} ${name}`, call);
    calls.push(call);
  }
  return calls;
}

/** In a write call, quoted text is data, not a path. */
function pathsIn(name: string, rest: string): string[] {
  const writes = /^(?:p?write(?:64)?|p?read(?:64)?)$/.test(name);
  const pattern = writes ? /^\d+<([^>]*)>/g : /(?:^|[ (])(?:\d+<([^>]*)>|"([^"]*)")/g;
  return [...rest.matchAll(pattern)].map(([, open, quoted]) => open ?? quoted!);
}

/** Returns whether the call flushes data to disk. */
export function isFlush({ name }: Call): boolean {
  return name === "fsync" || name === "fdatasync";
}

/** Returns the call that printed the `count`th line beginning with this word. */
export function lineCall(calls: readonly Call[], word: string, count = 1): Call {
  const found = calls.filter(
    ({ name, text }) => name === "write" && text.includes(`"{\\"${word}\\":`),
  );
  const call = found[count - 1];
  if (call === undefined) throw new Error(`Nothing was said of ${word}`);
  return call;
}

/** Returns each call from `first` on that changed or flushed a path below `place`. */
export function momentsFrom(calls: readonly Call[], place: string, first: number): Moment[] {
  const counts = new Map<string, number>();
  const moments = new Map<string, Moment>();
  for (const { name, paths, thread, start } of calls) {
    const whole = paths[0] ?? "";
    if (whole !== place && !whole.startsWith(`${place}/`)) continue;
    const path = whole.slice(place.length + 1);
    const count = (counts.get(`${thread} ${name} ${path}`) ?? 0) + 1;
    counts.set(`${thread} ${name} ${path}`, count);
    if (start >= first) moments.set(`${name} ${path} ${count}`, { call: name, path, count });
  }
  return [...moments.values()];
}

/** Calls `act` for each item, a few at a time. */
export async function severalAtOnce<T>(items: Iterable<T>, act: (item: T) => Promise<void>) {
  const iterator = items[Symbol.iterator]();
  const work = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) {
      await act(next.value);
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));
}
