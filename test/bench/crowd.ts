/** Many senders at once, each with five frames of 20 KB a second. */
import { Database } from "bun:sqlite";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { journalPath } from "../../src/store/schema.ts";
import type { Bench } from "./compare.ts";
import type { CrowdResult } from "./crowd-senders.ts";
import { cpuSoFar, megabytes, startReceiving } from "./measure.ts";

/** The senders are spread over so many processes. */
const processes = 2;

export async function crowd(bench: Bench): Promise<void> {
  const seconds = bench.scale > 1 ? 2 : 30;
  bench.report.heading(`Senders at once, each 5 frames of 20 KB a second for ${seconds} s`);
  for (const senders of bench.scale > 1 ? [2, 50] : [1, 10, 100, 1000]) {
    const to = join(bench.folder, "to");
    const server = await startReceiving(to);
    const share = Math.ceil(senders / processes);
    const children = Array.from({ length: Math.min(processes, senders) }, (_, index) => {
      const first = index * share;
      const count = Math.min(share, senders - first);
      const script = join(import.meta.dir, "crowd-senders.ts");
      const words = [server.port, first, count, seconds].map(String);
      return Bun.spawn([process.execPath, script, ...words], {
        stdio: ["ignore", "pipe", "inherit"],
      });
    });
    const results = await Promise.all(
      children.map(async (child) => (await new Response(child.stdout).json()) as CrowdResult),
    );
    const cpu = cpuSoFar(server.process.pid);
    const memory = server.peakMemory();
    await server.stop();
    const frames = senders * seconds * 5;
    const stored = rowsOf(to);
    if (stored !== frames) throw new Error(`${stored} of ${frames} frames are stored`);
    rmSync(to, { recursive: true });
    const longest = Math.max(...results.map((result) => result.longestWait));
    bench.report.row(
      `${String(senders).padStart(5)} senders, ${String(frames).padStart(6)} frames: server CPU ${cpu.toFixed(1)} s, ${((cpu / frames) * 1e3).toFixed(2)} ms a frame, ${megabytes(memory)} MB; longest wait for a receipt ${(longest / 1e3).toFixed(2)} s`,
      { part: "crowd", senders, frames, cpu, memory, longest },
    );
  }
}

function rowsOf(directory: string): number {
  const database = new Database(journalPath(directory), { readonly: true });
  const { rows } = database.query<{ rows: number }, []>("SELECT count(*) rows FROM frames").get()!;
  database.close();
  return rows;
}
