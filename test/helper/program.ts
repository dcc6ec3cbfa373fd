// Runs the real executable as a user would.

import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { within } from "./time.ts";

/** The executable under test. */
export const executable: string =
  process.env["FRAMES_EXECUTABLE"] ??
  join(import.meta.dir, "../../dist", process.platform === "win32" ? "frames.exe" : "frames");

/** A running `frames serve`. */
export interface Server {
  port: number;
  dir: string;
  /** `HOST:PORT` of its page. */
  http: string | undefined;
  process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  stdout(): string;
  stderr(): string;
  /** Returns its peak memory so far in bytes; 0 without /proc. */
  peakMemory(): number;
  /** Stops it with SIGTERM and returns its exit status. */
  stop(): Promise<number>;
}

/** Result of a run. */
export interface Finished {
  code: number;
  stdout: string;
  stderr: string;
  /** The raw bytes of stdout. */
  output: Uint8Array;
  /** Peak memory in bytes. */
  peakMemory: number;
}

/** Starts `frames serve DIR` on a free loopback port, without a page unless `http` is given. */
export async function startServer(options: {
  dir: string;
  http?: string;
  args?: string[];
  env?: Record<string, string>;
  command?: string[];
}): Promise<Server> {
  const { dir, args = [], env = {}, command = theExecutable(), http } = options;
  const shown = http === undefined ? [] : ["--http", http];
  const child = Bun.spawn(
    [...command, "serve", dir, "--listen", "127.0.0.1:0", ...shown, "--json", ...args],
    { env: environment(env), stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  );
  adopt(child);

  let peak = 0;
  const peakMemory = (): number => (peak = Math.max(peak, highWater(child.pid)));
  const stderr = collect(child.stderr);
  let listening: (port: number) => void;
  let page: string | undefined;
  const port = new Promise<number>((resolve) => (listening = resolve));
  const stdout = collect(child.stdout, (line) => {
    const message = parse(line);
    if (message?.["type"] !== "listening") return;
    page = message["http"] as string | undefined;
    listening(Number(message["port"]));
  });
  const story = (): string => `\nstdout: ${stdout.text()}\nstderr: ${stderr.text()}`;

  const failed = child.exited.then(async (code): Promise<never> => {
    await stderr.finished;
    throw new Error(`frames serve ended with ${code} before it listened${story()}`);
  });
  // Also rejects when the server is stopped; nothing awaits it then.
  failed.catch(() => {});
  try {
    return {
      port: await within(
        Promise.race([port, failed]),
        () => `frames serve did not listen${story()}`,
      ),
      dir,
      http: page,
      process: child,
      stdout: stdout.text,
      stderr: stderr.text,
      peakMemory,
      async stop() {
        peakMemory();
        child.kill("SIGTERM");
        try {
          const ended = Promise.all([child.exited, stdout.finished, stderr.finished]);
          return (await within(ended, () => `frames serve did not stop${story()}`))[0];
        } finally {
          child.kill("SIGKILL");
        }
      },
    };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
}

/** The program while it runs. */
export interface Launched {
  readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  stdout(): string;
  stderr(): string;
  /** Waits until the program ends, without stopping it. */
  ended(): Promise<{ code: number; stdout: string; stderr: string }>;
  [Symbol.dispose](): void;
}

/** Starts the program without waiting for its end. */
export function launch(args: string[], env: Record<string, string> = {}): Launched {
  const child = Bun.spawn([...theExecutable(), ...args], {
    env: environment(env),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  adopt(child);
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  return {
    child,
    stdout: stdout.text,
    stderr: stderr.text,
    async ended() {
      const story = (): string => `\nstdout: ${stdout.text()}\nstderr: ${stderr.text()}`;
      const code = await within(child.exited, () => `frames ${args[0]} did not end${story()}`);
      await Promise.all([stdout.finished, stderr.finished]);
      return { code, stdout: stdout.text(), stderr: stderr.text() };
    },
    [Symbol.dispose]: () => child.kill("SIGKILL"),
  };
}

/** Runs the program to its end. Kills it after `hangMs` and throws. */
export async function run(
  args: string[],
  options: {
    cwd?: string;
    env?: Record<string, string>;
    stdin?: string | Uint8Array;
    command?: string[];
  } = {},
): Promise<Finished> {
  const { cwd = process.cwd(), env = {}, stdin, command = theExecutable() } = options;
  const child = Bun.spawn([...command, ...args], {
    cwd,
    env: environment(env),
    stdin: stdin === undefined ? "ignore" : new Blob([stdin as Uint8Array<ArrayBuffer> | string]),
    stdout: "pipe",
    stderr: "pipe",
  });
  adopt(child);
  let sampled = highWater(child.pid);
  const sampler = setInterval(() => (sampled = Math.max(sampled, highWater(child.pid))), 10);
  try {
    const ended = Promise.all([
      child.exited,
      new Response(child.stdout).bytes(),
      new Response(child.stderr).text(),
    ]);
    const [code, output, stderr] = await within(
      ended,
      () => `frames ${args.join(" ")} did not end`,
    );
    // On Linux the maxRSS of a child starts at its parent's memory when it was forked. Only a
    // clearly larger value is meaningful.
    const reported = child.resourceUsage()?.maxRSS ?? 0;
    const own = highWater(process.pid) + 2 ** 23;
    const peakMemory = reported > own || sampled === 0 ? reported : sampled;
    return { code, stdout: new TextDecoder().decode(output), stderr, output, peakMemory };
  } finally {
    clearInterval(sampler);
    child.kill("SIGKILL");
  }
}

/** Parses the `--json` output of a run. */
export function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/**
 * Returns a port without a listener, below the ephemeral range. A client that repeatedly connects
 * to an ephemeral port may be assigned that port itself and connect to itself.
 */
export function freePort(): number {
  for (let tries = 0; ; tries++) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
      return port;
    } catch (error) {
      if (tries === 100) throw error;
    }
  }
}

/** Creates a folder named run7 with these files. A number is the size of generated content. */
export function makeTree(files: Record<string, string | number>): string {
  const folder = join(temporaryFolder(), "run7");
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(folder, name, ".."), { recursive: true });
    const bytes = typeof content === "string" ? content : Buffer.alloc(content, `${name} `);
    writeFileSync(join(folder, name), bytes);
  }
  return folder;
}

/** Returns many frames of one size, each with different bytes. */
export function manyFrames(
  count: number,
  size: number,
  source = "visible",
): Record<string, number> {
  const names = Array.from({ length: count }, (_, index) => `${source}/${index + 1}.png`);
  return Object.fromEntries(names.map((name) => [name, size]));
}

/** Creates a folder, in memory if possible. It is removed when this process ends. */
export function temporaryFolder(): string {
  return mkdtempSync(join(room(), "folder-"));
}

/** Returns the differences between two trees, byte for byte. Ignores hidden names. */
export function sameTree(a: string, b: string): string[] {
  const left = tree(a);
  const right = tree(b);
  const differences: string[] = [];
  for (const [name, kind] of left) {
    const other = right.get(name);
    if (other === undefined) differences.push(`${name}: only in ${a}`);
    else if (other !== kind) differences.push(`${name}: a ${kind} in ${a}, a ${other} in ${b}`);
    else if (kind === "file" && !readFileSync(join(a, name)).equals(readFileSync(join(b, name)))) {
      differences.push(`${name}: other bytes`);
    }
  }
  for (const name of right.keys()) {
    if (!left.has(name)) differences.push(`${name}: only in ${b}`);
  }
  return differences.sort();
}

/** Whether a program needed for comparing results is not installed. */
export function peerMissing(command: string): boolean {
  return Bun.which(command) === null;
}

let roomMade: string | undefined;
let cleaner: Bun.Subprocess | undefined;

/**
 * Returns the folder for all temporary files. `bun test` runs no exit handlers, so a shell waits
 * until this process has ended in any way. It then kills the processes listed in `.children` and
 * removes the folder.
 */
function room(): string {
  if (roomMade !== undefined) return roomMade;
  const made = mkdtempSync(join(roomy("/dev/shm") ? "/dev/shm" : tmpdir(), "frames-"));
  mkdirSync(join(made, ".children"));
  if (process.platform === "win32") {
    process.on("exit", () => rmSync(made, { recursive: true, force: true }));
  } else {
    const script = `trap "" INT TERM HUP; cat; cd "$0/.children" && kill -9 *; rm -rf "$0"`;
    cleaner = Bun.spawn(["sh", "-c", script, made], { stdio: ["pipe", "ignore", "ignore"] });
    cleaner.unref();
  }
  return (roomMade = made);
}

/** Ensures that a child does not outlive this process. */
export function adopt(child: Bun.Subprocess): void {
  const note = join(room(), ".children", `${child.pid}`);
  writeFileSync(note, "");
  void child.exited.then(() => rmSync(note, { force: true }));
}

function theExecutable(): string[] {
  if (!existsSync(executable)) {
    throw new Error(`There is no ${executable}; make it with: bun run build --here`);
  }
  return [executable];
}

/**
 * Returns an environment for a child, without the settings and keys of the user who runs the tests.
 */
export function environment(more: Record<string, string> = {}): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && !/^(FRAMES_|XDG_|BUN_|AWS_|S3_)/.test(name)) result[name] = value;
  }
  home ??= temporaryFolder();
  // Many servers run concurrently, and the default port of the page is fixed.
  return { ...result, HOME: home, FRAMES_HTTP: "off", ...more };
}

let home: string | undefined;

/** Reads a stream to its end. The text so far is readable meanwhile. */
function collect(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  onLine?: (line: string) => void,
): { text(): string; finished: Promise<void> } {
  let text = "";
  let looked = 0;
  const read = async (): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      text += decoder.decode(chunk, { stream: true });
      for (let end = 0; onLine && (end = text.indexOf("\n", looked)) >= 0; looked = end + 1) {
        onLine(text.slice(looked, end));
      }
    }
  };
  return { text: () => text, finished: read() };
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

function highWater(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/**
 * Whether a folder has room for the largest test, which stores a frame of 1.5 GB twice. In
 * containers /dev/shm often has only 64 MB.
 */
function roomy(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize > 5e9;
  } catch {
    return false;
  }
}

function tree(folder: string): Map<string, "file" | "folder" | "neither file nor folder"> {
  const result = new Map<string, "file" | "folder" | "neither file nor folder">();
  const visit = (below: string): void => {
    for (const entry of readdirSync(join(folder, below), { withFileTypes: true })) {
      if (entry.name.startsWith(".")) continue;
      const name = join(below, entry.name);
      if (entry.isDirectory()) {
        result.set(name, "folder");
        visit(name);
      } else result.set(name, entry.isFile() ? "file" : "neither file nor folder");
    }
  };
  visit("");
  return result;
}
