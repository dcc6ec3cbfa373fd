/** `frames bench`: measures what limits the rate, on this machine or on the way to a server. */
import { FramesError, usageError } from "../../errors.ts";
import { parseAddress } from "../../net/address.ts";
import { MachineBench, type Measurement, TempFolder, type Step } from "./machine.ts";
import { linkFrameBytes, type LinkMeasurement, measureLink } from "./server.ts";
import type { Arguments } from "../args/arguments.ts";
import { keyOptions } from "../args/key-options.ts";
import { print, printJson, type Terminal } from "../output/terminal.ts";
import { formatBytes } from "../args/units.ts";

/** Bytes of a small, a large and a raw picture. */
const frameSizes = [20_000, 200_000, 2_000_000];

const steps = ["read", "checksum", "store", "store-durable", "delivery"] as const;

/** Names of the steps in the table. */
const stepTitles: Record<Step, string> = {
  read: "read",
  checksum: "CRC-32",
  store: "store",
  "store-durable": "store, flushed to the disk",
  delivery: "whole way over loopback",
  link: "link and server",
};

/** What to name as the limit, if this step is the slowest. */
const limitedBy: Partial<Record<Step, string>> = {
  read: "reading (the file system)",
  checksum: "CRC-32 (this processor)",
  store: "storing (the disk and its file system)",
};

/**
 * Measures this machine, or the link to a server.
 *
 * @param stopOnSignal installs the signal handlers; until it is called, signals end the process
 * @returns the exit status
 * @throws {FramesError} as `send`, or `interrupted`
 */
export async function benchCommand(
  args: Arguments,
  terminal: Terminal,
  stopOnSignal: () => { readonly graceful: AbortSignal },
): Promise<number> {
  const [server, ...rest] = args.positionals;
  if (rest.length > 0) {
    throw usageError(
      `Cannot measure ${rest[0]} too: write one server, as in frames bench ${server}`,
    );
  }
  if (server !== undefined) parseAddress(server, "the server");
  const { graceful } = stopOnSignal();
  const report = new BenchOutput(terminal, args.isOn("json"));
  const tempFolder = new TempFolder(args.text("dir"));
  try {
    if (server === undefined) await benchMachine(tempFolder, report, graceful);
    else await benchServer(server, args, tempFolder, report, graceful);
    return 0;
  } catch (error) {
    // After a signal, any error is a consequence of the abort.
    throw graceful.aborted
      ? new FramesError("interrupted", "Interrupted: the temporary files are deleted")
      : error;
  } finally {
    report.clear();
    tempFolder.remove();
  }
}

async function benchMachine(
  tempFolder: TempFolder,
  report: BenchOutput,
  signal: AbortSignal,
): Promise<void> {
  const memory = tempFolder.isInMemory
    ? ", which is in memory, not on a disk; --dir DIR chooses another folder"
    : "";
  report.print(`Measuring in ${tempFolder.path}${memory}`);
  report.print("This takes a few seconds, and up to 50 MB of space");
  const measured: Measurement[] = [];
  for (const size of frameSizes) {
    report.showActivity(`making files of ${formatBytes(size)}`);
    const bench = new MachineBench(tempFolder, size, signal);
    for (const step of steps) {
      report.showActivity(`${stepTitles[step]}, frames of ${formatBytes(size)}`);
      measured.push(await bench.measure(step));
      report.printMeasurement(measured.at(-1)!);
    }
    bench.clear();
  }
  report.print("New files are read from memory; on the whole way, one process sends and stores");
  report.printSummary(machineLimit(measured), {
    directory: tempFolder.path,
    inMemory: tempFolder.isInMemory,
  });
}

async function benchServer(
  server: string,
  args: Arguments,
  tempFolder: TempFolder,
  report: BenchOutput,
  signal: AbortSignal,
): Promise<void> {
  report.showActivity(`link to ${server}`);
  const link = await measureLink(server, keyOptions(args), signal);
  if (signal.aborted) throw new FramesError("interrupted");
  report.print(`Measuring the link to ${link.address}, which stores nothing of it`);
  report.printRoundTrip(link.roundTrip);
  const bench = new MachineBench(tempFolder, linkFrameBytes, signal);
  const measured: Measurement[] = [];
  for (const step of ["read", "checksum"] as const) {
    report.showActivity(stepTitles[step]);
    measured.push(await bench.measure(step));
    report.printMeasurement(measured.at(-1)!);
  }
  report.printLink(link);
  report.print(`Not measured: the disk of ${link.address} (frames bench there does that)`);
  report.printSummary(serverLimit(measured, link), {
    address: link.address,
    roundTrip: link.roundTrip,
    notMeasured: "the server's disk",
  });
}

function bytesPerSecond({ frameBytes, frames, seconds }: Measurement): number {
  return (frames * frameBytes) / seconds;
}

/** Names the slowest step for each size of frame. */
function machineLimit(measured: readonly Measurement[]): string {
  const bySize = frameSizes.map((size) => {
    const [slowest] = measured
      .filter(({ frameBytes, step }) => frameBytes === size && limitedBy[step] !== undefined)
      .toSorted((a, b) => bytesPerSecond(a) - bytesPerSecond(b));
    return slowest!;
  });
  const parts = [...new Set(bySize.map(({ step }) => step))].map((step) => {
    const group = bySize.filter((one) => one.step === step);
    const rates = group.map(
      (one) =>
        `${formatBytes(bytesPerSecond(one))}/s with frames of ${formatBytes(one.frameBytes)}`,
    );
    return `${limitedBy[step]}, ${rates.join(", ")}`;
  });
  return `What limits on this machine: ${parts.join("; ")}`;
}

/** Says whether this machine limits the rate, or the link and the server. */
function serverLimit(measured: readonly Measurement[], link: LinkMeasurement): string {
  // `send` reads and checks one frame after the other, so the times add up.
  const ownRate = 1 / measured.reduce((sum, one) => sum + 1 / bytesPerSecond(one), 0);
  const [serverRate, ownRateText] = [
    `${formatBytes(link.bytesPerSecond)}/s`,
    `${formatBytes(ownRate)}/s`,
  ];
  return link.bytesPerSecond < ownRate
    ? `What limits: the link or the server, ${serverRate}; this machine reads and checks ${ownRateText}`
    : `What limits: this machine, which reads and checks ${ownRateText}; the link and the server take ${serverRate}`;
}

/** Prints measurements and the summary as results, everything else as messages. */
class BenchOutput {
  readonly #terminal: Terminal;
  readonly #json: boolean;
  #hasHeader = false;

  constructor(terminal: Terminal, json: boolean) {
    this.#terminal = terminal;
    this.#json = json;
  }

  print(text: string): void {
    this.clear();
    print(this.#terminal, text);
  }

  /** Shows the current step on a terminal; the next output replaces it. */
  showActivity(what: string): void {
    if (this.#terminal.isLive) this.#terminal.err(`\r\x1b[KMeasuring: ${what}`);
  }

  clear(): void {
    if (this.#terminal.isLive) this.#terminal.err("\r\x1b[K");
  }

  printMeasurement({ step, frameBytes, frames, seconds }: Measurement): void {
    const measured = { frames, bytes: frames * frameBytes, seconds };
    this.#printRow(step, frameBytes, measured, frames / seconds);
  }

  printLink({ frames, frameBytes, bytes, bytesPerSecond }: LinkMeasurement): void {
    const seconds = bytes / bytesPerSecond;
    const measured = { frames, bytes, seconds };
    this.#printRow("link", frameBytes, measured, bytesPerSecond / frameBytes);
  }

  #printRow(
    step: Step,
    frameBytes: number,
    measured: { frames: number; bytes: number; seconds: number },
    framesPerSecond: number,
  ): void {
    const bytesPerSecond = framesPerSecond * frameBytes;
    if (this.#json) {
      const rates = { framesPerSecond, bytesPerSecond };
      return printJson(this.#terminal, {
        type: "measured",
        step,
        frameBytes,
        ...measured,
        ...rates,
      });
    }
    this.clear();
    if (!this.#hasHeader) this.#printColumns("FRAMES OF", "STEP", "FRAMES/S", "BYTES/S");
    this.#hasHeader = true;
    const count = framesPerSecond.toFixed(framesPerSecond < 9.95 ? 1 : 0);
    this.#printColumns(
      formatBytes(frameBytes),
      stepTitles[step],
      count,
      `${formatBytes(bytesPerSecond)}/s`,
    );
  }

  #printColumns(size: string, step: string, frames: string, bytes: string): void {
    const cells = [size.padStart(9), step.padEnd(26), frames.padStart(10), bytes.padStart(11)];
    this.#terminal.out(`${cells.join("  ")}\n`);
  }

  printRoundTrip(seconds: number): void {
    if (this.#json) return printJson(this.#terminal, { type: "round-trip", seconds });
    this.clear();
    this.#terminal.out(`Round trip: ${(seconds * 1000).toFixed(2)} ms\n`);
  }

  printSummary(limits: string, more: Record<string, unknown>): void {
    if (this.#json) return printJson(this.#terminal, { type: "summary", limits, ...more });
    this.#terminal.out(`${limits}\n`);
  }
}
