/**
 * Measures how the cost of a frame depends on the number of frames, and the cost of a megabyte on
 * the frame size.
 */
import { rmSync } from "node:fs";
import { basename, join } from "node:path";
import { sameTree } from "../helper/program.ts";
import type { Bench } from "./compare.ts";
import { makeCorpus } from "./corpora.ts";
import { deliver, type Delivery, median, megabytes, startReceiving } from "./measure.ts";

/** Sends 1,000 to 1,000,000 frames into one stream. */
export async function byNumber(bench: Bench): Promise<void> {
  bench.report.heading("Frames of 100 bytes in one stream: what each costs, start-up included");
  for (const frames of [1000, 10_000, 100_000, 1_000_000]) {
    if (frames * bench.scale > 1_000_000) continue;
    const { seconds, cpuSeconds, peaks } = await cost(bench, frames, 100);
    const [wall, cpu] = [seconds, cpuSeconds].map((value) => (value / frames) * 1e6);
    bench.report.row(
      `${String(frames).padStart(9)} frames ${wall!.toFixed(1).padStart(8)} µs, CPU ${cpu!.toFixed(1)} µs; ${memory(peaks)}`,
      { part: "number", frames, seconds, cpuSeconds, peaks },
    );
  }
}

/** Sends frames of 20 KB to 1 GB. */
export async function bySize(bench: Bench): Promise<void> {
  bench.report.heading("Frames of different sizes: what a megabyte costs, start-up included");
  for (const bytes of [20e3, 200e3, 2e6, 20e6, 200e6, 1e9]) {
    const all = Math.max(400e6, bytes) / bench.scale;
    if (bytes > all) continue;
    const { seconds, cpuSeconds, peaks } = await cost(bench, all / bytes, bytes);
    const [wall, cpu] = [seconds, cpuSeconds].map((value) => (value / all) * 1e9);
    bench.report.row(
      `${String(bytes / 1e3).padStart(9)} KB ${wall!.toFixed(2).padStart(8)} ms, CPU ${cpu!.toFixed(2)} ms; ${memory(peaks)}`,
      { part: "size", bytes, all, seconds, cpuSeconds, peaks },
    );
  }
}

/** Measures time and memory of resuming a stream of a million frames. */
export async function resumed(bench: Bench, frames: number): Promise<void> {
  bench.report.heading(
    `A stream of ${frames} frames of 10 bytes: sent, and then all there already`,
  );
  const from = makeCorpus(bench.folder, { name: "many", frames, bytes: 10 });
  const to = join(bench.folder, "to");
  for (const what of ["sent", "resumed", "resumed"]) {
    const server = await startReceiving(to);
    const { seconds, peaks } = await deliver(from, server);
    await server.stop();
    bench.report.row(`${what} in ${seconds.toFixed(1)} s; ${memory(peaks)}`, {
      ...{ part: "resumed", what, seconds, peaks },
    });
  }
  check(from, to);
  rmSync(from, { recursive: true });
  rmSync(to, { recursive: true });
}

type Cost = Pick<Delivery, "seconds" | "cpuSeconds" | "peaks">;

/** Returns medians over several deliveries, each to a new server, and the peak memory. */
async function cost(bench: Bench, frames: number, bytes: number): Promise<Cost> {
  const from = makeCorpus(bench.folder, { name: "growth", frames, bytes });
  const to = join(bench.folder, "to");
  const taken: Delivery[] = [];
  // A delivery of a million frames takes so long that a single round is enough.
  for (let round = 0; round < (frames < 1_000_000 ? bench.rounds : 1); round++) {
    const server = await startReceiving(to);
    taken.push(await deliver(from, server));
    await server.stop();
    check(from, to);
    rmSync(to, { recursive: true });
  }
  rmSync(from, { recursive: true });
  return {
    seconds: median(taken.map(({ seconds }) => seconds)),
    cpuSeconds: median(taken.map(({ cpuSeconds }) => cpuSeconds)),
    peaks: {
      sender: Math.max(...taken.map(({ peaks }) => peaks.sender)),
      server: Math.max(...taken.map(({ peaks }) => peaks.server)),
    },
  };
}

/** Throws unless every frame has arrived, byte for byte. */
function check(from: string, to: string): void {
  const differences = sameTree(from, join(to, basename(from)));
  if (differences.length > 0)
    throw new Error(`not all came: ${differences.slice(0, 3).join("; ")}`);
}

function memory({ sender, server }: Delivery["peaks"]): string {
  return `sender ${megabytes(sender)} MB, server ${megabytes(server)} MB`;
}
