/** `frames bench`: what limits, here or on the way to a server. */
import { FramesError } from "../errors.ts";
import { parseAddress } from "../net/address.ts";
import { Bench, type Measurement, Scratch, type Step } from "./bench-machine.ts";
import { linkFrameBytes, type LinkMeasurement, measureLink } from "./bench-server.ts";
import type { Arguments } from "./arguments.ts";
import { keyOptions } from "./key.ts";
import { say, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes } from "./units.ts";

/** Sizes of frames: small pictures, large ones, and raw ones. */
const sizes = [20_000, 200_000, 2_000_000];

const steps = ["read", "checksum", "store", "store-durable", "delivery"] as const;

/** The steps as the table names them. */
const titles: Record<Step, string> = {
  read: "read",
  checksum: "CRC-32",
  store: "store",
  "store-durable": "store, flushed to the disk",
  delivery: "whole way over loopback",
  link: "link and server",
};

/** Who limits, if it is this step. */
const limiters: Partial<Record<Step, string>> = {
  read: "reading (the file system)",
  checksum: "CRC-32 (this processor)",
  store: "storing (the disk and its file system)",
};

/**
 * Measures this machine, or the way to a server.
 *
 * @param stopOnSignal from its call on, signals end the measurement in order
 * @throws {FramesError} as `send`, or `interrupted`
 */
export async function benchCommand(
  given: Arguments,
  terminal: Terminal,
  stopOnSignal: () => { readonly gently: AbortSignal },
): Promise<number> {
  const [server, ...rest] = given.positionals;
  if (rest.length > 0) {
    throw new FramesError("usage", `Cannot measure a second server, ${rest[0]}: one is the limit`);
  }
  if (server !== undefined) parseAddress(server, "the server");
  const { gently } = stopOnSignal();
  const report = new Report(terminal, given.isOn("json"));
  const scratch = new Scratch(given.text("dir"));
  try {
    if (server === undefined) await benchMachine(scratch, report, gently);
    else await benchServer(server, given, scratch, report, gently);
    return 0;
  } catch (error) {
    // Whatever the signal broke off, that is why.
    throw gently.aborted ? new FramesError("interrupted", "Interrupted: nothing is left") : error;
  } finally {
    report.clear();
    scratch.remove();
  }
}

async function benchMachine(scratch: Scratch, report: Report, signal: AbortSignal): Promise<void> {
  const memory = scratch.isMemory ? ", which is memory and no disk: --dir DIR chooses another" : "";
  report.say(`Measuring in ${scratch.path}${memory}`);
  report.say("It takes a few seconds, and up to 50 MB at a time");
  const measured: Measurement[] = [];
  for (const size of sizes) {
    report.doing(`making files of ${formatBytes(size)}`);
    const bench = new Bench(scratch, size, signal);
    for (const step of steps) {
      report.doing(`${titles[step]}, frames of ${formatBytes(size)}`);
      measured.push(await bench.measure(step));
      report.row(measured.at(-1)!);
    }
    bench.clear();
  }
  report.say(
    "What was just written is read from memory; on the whole way, one process is both ends",
  );
  report.summary(machineVerdict(measured), { directory: scratch.path, inMemory: scratch.isMemory });
}

async function benchServer(
  server: string,
  given: Arguments,
  scratch: Scratch,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  report.doing(`link to ${server}`);
  const link = await measureLink(server, keyOptions(given), signal);
  if (signal.aborted) throw new FramesError("interrupted");
  report.say(`Measuring up to ${link.address}, which keeps nothing of it`);
  report.roundTrip(link.roundTrip);
  const bench = new Bench(scratch, linkFrameBytes, signal);
  const measured: Measurement[] = [];
  for (const step of ["read", "checksum"] as const) {
    report.doing(titles[step]);
    measured.push(await bench.measure(step));
    report.row(measured.at(-1)!);
  }
  report.link(link);
  report.say(`Not measured: the disk of ${link.address} (frames bench there does that)`);
  report.summary(serverVerdict(measured, link), {
    address: link.address,
    roundTrip: link.roundTrip,
    notMeasured: "the server's disk",
  });
}

function rate({ frameBytes, frames, seconds }: Measurement): number {
  return (frames * frameBytes) / seconds;
}

/** Which step limits, by size of frame. */
function machineVerdict(measured: readonly Measurement[]): string {
  const bySize = sizes.map((size) => {
    const [slowest] = measured
      .filter(({ frameBytes, step }) => frameBytes === size && limiters[step] !== undefined)
      .toSorted((a, b) => rate(a) - rate(b));
    return slowest!;
  });
  const said = [...new Set(bySize.map(({ step }) => step))].map((step) => {
    const those = bySize.filter((one) => one.step === step);
    const rates = those.map(
      (one) => `${formatBytes(rate(one))}/s with frames of ${formatBytes(one.frameBytes)}`,
    );
    return `${limiters[step]}, ${rates.join(", ")}`;
  });
  return `What limits on this machine: ${said.join("; ")}`;
}

/** Whether it is this machine that limits, or what is behind it. */
function serverVerdict(measured: readonly Measurement[], link: LinkMeasurement): string {
  // One after the other, as `send` does it.
  const own = 1 / measured.reduce((sum, one) => sum + 1 / rate(one), 0);
  const [there, here] = [`${formatBytes(link.bytesPerSecond)}/s`, `${formatBytes(own)}/s`];
  return link.bytesPerSecond < own
    ? `What limits: the link or the server, ${there}; this machine reads and checks ${here}`
    : `What limits: this machine, which reads and checks ${here}; the link and the server take ${there}`;
}

/** What the user is told: rows and the verdict as results, the rest as messages. */
class Report {
  readonly #terminal: Terminal;
  readonly #json: boolean;
  #hasHeader = false;

  constructor(terminal: Terminal, json: boolean) {
    this.#terminal = terminal;
    this.#json = json;
  }

  say(text: string): void {
    this.clear();
    say(this.#terminal, text);
  }

  /** What is being done, on a terminal; it goes when something else is written. */
  doing(what: string): void {
    if (this.#terminal.isLive) this.#terminal.err(`\r\x1b[KMeasuring: ${what}`);
  }

  clear(): void {
    if (this.#terminal.isLive) this.#terminal.err("\r\x1b[K");
  }

  row({ step, frameBytes, frames, seconds }: Measurement): void {
    const measured = { frames, bytes: frames * frameBytes, seconds };
    this.#measured(step, frameBytes, measured, frames / seconds);
  }

  link({ frames, frameBytes, bytes, bytesPerSecond }: LinkMeasurement): void {
    const seconds = bytes / bytesPerSecond;
    const measured = { frames, bytes, seconds };
    this.#measured("link", frameBytes, measured, bytesPerSecond / frameBytes);
  }

  #measured(
    step: Step,
    frameBytes: number,
    measured: { frames: number; bytes: number; seconds: number },
    framesPerSecond: number,
  ): void {
    const bytesPerSecond = framesPerSecond * frameBytes;
    if (this.#json) {
      const rates = { framesPerSecond, bytesPerSecond };
      return sayJson(this.#terminal, { type: "measured", step, frameBytes, ...measured, ...rates });
    }
    this.clear();
    if (!this.#hasHeader) this.#line("FRAMES OF", "STEP", "FRAMES/S", "BYTES/S");
    this.#hasHeader = true;
    const count = framesPerSecond.toFixed(framesPerSecond < 9.95 ? 1 : 0);
    this.#line(formatBytes(frameBytes), titles[step], count, `${formatBytes(bytesPerSecond)}/s`);
  }

  #line(size: string, step: string, frames: string, bytes: string): void {
    const cells = [size.padStart(9), step.padEnd(26), frames.padStart(10), bytes.padStart(11)];
    this.#terminal.out(`${cells.join("  ")}\n`);
  }

  roundTrip(seconds: number): void {
    if (this.#json) return sayJson(this.#terminal, { type: "round-trip", seconds });
    this.clear();
    this.#terminal.out(`Round trip: ${(seconds * 1000).toFixed(2)} ms\n`);
  }

  summary(limits: string, more: Record<string, unknown>): void {
    if (this.#json) return sayJson(this.#terminal, { type: "summary", limits, ...more });
    this.#terminal.out(`${limits}\n`);
  }
}
