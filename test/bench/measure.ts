/** Measures time, CPU seconds and memory of programs, and formats the results. */
import { readFileSync } from "node:fs";
import { environment, executable, type Server, startServer } from "../helper/program.ts";

/** Resources used by a program. */
export interface Ended {
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Peak memory in bytes, sampled while the program runs. */
  readonly peak: number;
}

/** Resources used by a delivery. */
export interface Delivery {
  readonly seconds: number;
  /** Of both ends. */
  readonly cpuSeconds: number;
  /** Peak memory of each end in bytes. */
  readonly peaks: { readonly sender: number; readonly server: number };
}

const children = new Set<Bun.Subprocess>();
// Kills the children when the benchmark fails or is stopped.
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(20));

/** Starts a program. Its stderr is shown. */
export function start(command: string[]): Bun.Subprocess<"ignore", "pipe", "inherit"> {
  return adopt(Bun.spawn(command, { env: environment(), stdio: ["ignore", "pipe", "inherit"] }));
}

function adopt<T extends Bun.Subprocess>(child: T): T {
  children.add(child);
  void child.exited.then(() => children.delete(child));
  return child;
}

/** Runs a command until it ends. */
export async function timed(command: string[]): Promise<Ended> {
  const started = performance.now();
  const child = adopt(
    Bun.spawn(command, { env: environment(), stdio: ["ignore", "ignore", "pipe"] }),
  );
  let peak = 0;
  const sampler = setInterval(() => (peak = Math.max(peak, highWater(child.pid))), 20);
  try {
    const [code, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()]);
    const seconds = (performance.now() - started) / 1000;
    if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${stderr}`);
    return { seconds, cpuSeconds: cpuOf(child), peak };
  } finally {
    clearInterval(sampler);
  }
}

/** Returns the CPU seconds of a process that has ended. */
export function cpuOf(child: Bun.Subprocess): number {
  return Number(child.resourceUsage()!.cpuTime.total) / 1e6;
}

/** Returns the CPU seconds used so far by a running process and its ended children. */
export function cpuSoFar(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]!.split(" ");
  const ticks = [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index]), 0);
  return ticks / 100;
}

function highWater(pid: number): number {
  try {
    const found = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"));
    return Number(found?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Starts `frames serve` without a disk reserve, for frames of up to 2 GB. */
export async function startReceiving(
  to: string,
  more: readonly string[] = [],
  program = executable,
): Promise<Server> {
  const args = ["--max-frame", "2G", "--reserve", "0", ...more];
  const server = await startServer({ dir: to, args, command: [program] });
  adopt(server.process);
  return server;
}

/** Sends the frames in `from` to a server. */
export async function deliver(from: string, server: Server): Promise<Delivery> {
  const before = cpuSoFar(server.process.pid);
  const to = `127.0.0.1:${server.port}`;
  const sent = await timed([executable, "send", from, "--quiet", "--to", to]);
  const cpuSeconds = sent.cpuSeconds + cpuSoFar(server.process.pid) - before;
  const peaks = { sender: sent.peak, server: server.peakMemory() };
  return { seconds: sent.seconds, cpuSeconds, peaks };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Formats median, minimum and maximum. */
export function spread(values: readonly number[]): string {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return `${median(values).toFixed(2)} (${least.toFixed(2)} to ${most.toFixed(2)})`;
}

/** Formats bytes as whole megabytes. */
export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

/** Output of the results: a line of text or, with `--json`, an object for each. */
export interface Report {
  heading(text: string): void;
  row(line: string, values: object): void;
}
