/** Many senders at the same time, each with five frames of 20 KB a second. */
import { Database } from "bun:sqlite";
import { readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { journalPath } from "../../src/store/journal/schema.ts";
import type { Bench } from "./compare.ts";
import type { CrowdResult } from "./crowd-senders.ts";
import { cpuSoFar, median, megabytes, start, startReceiving } from "./measure.ts";

/** The senders are distributed over this many processes. */
const processes = 2;

/**
 * Measures the server's cost of a frame and the wait for its receipt, for a growing number of
 * senders.
 */
export async function crowd(bench: Bench): Promise<void> {
  const seconds = bench.scale > 1 ? 2 : 30;
  bench.report.heading(`Senders at once, each 5 frames of 20 KB a second for ${seconds} s`);
  for (const senders of bench.scale > 1 ? [2, 50] : [1, 10, 100, 1000]) {
    // Each sender needs a file for its connection and a file for the frame being written; 200 more
    // are for the rest.
    const needed = senders * 2 + 200;
    if (openFiles() < needed) {
      console.error(`${senders} senders left out: needs ulimit -n ${needed}`);
      continue;
    }
    const to = join(bench.folder, "to");
    const server = await startReceiving(to);
    const before = cpuSoFar(server.process.pid);
    const share = Math.ceil(senders / processes);
    const children = Array.from({ length: Math.min(processes, senders) }, (_, index) => {
      const first = index * share;
      const count = Math.min(share, senders - first);
      const script = join(import.meta.dir, "crowd-senders.ts");
      const args = [server.port, first, count, seconds].map(String);
      return start([process.execPath, script, ...args]);
    });
    const results = await Promise.all(
      children.map(async (child) => {
        const output = await new Response(child.stdout).text();
        if ((await child.exited) !== 0) throw new Error("senders of the crowd failed");
        return JSON.parse(output) as CrowdResult;
      }),
    );
    const cpu = cpuSoFar(server.process.pid) - before;
    const memory = server.peakMemory();
    await server.stop();
    const frames = senders * seconds * 5;
    const stored = rowsOf(to);
    if (stored !== frames) throw new Error(`${stored} of ${frames} frames are stored`);
    checkFiles(to, senders, seconds * 5);
    rmSync(to, { recursive: true });
    const waits = results.flatMap((result) => result.waits);
    const longest = waits.reduce((most, wait) => Math.max(most, wait), 0);
    const middle = median(waits);
    const latest = Math.max(...results.map((result) => result.latest));
    const retries = results.reduce((sum, result) => sum + result.retries, 0);
    if (retries > 0) console.error(`${senders} senders connected again ${retries} times`);
    bench.report.row(
      `${String(senders).padStart(5)} senders, ${String(frames).padStart(6)} frames: server CPU ${cpu.toFixed(1)} s, ${((cpu / frames) * 1e3).toFixed(2)} ms a frame, ${megabytes(memory)} MB; wait for a receipt ${(middle / 1e3).toFixed(3)} s, at most ${(longest / 1e3).toFixed(3)} s; asked for at most ${(latest / 1e3).toFixed(3)} s late`,
      { part: "crowd", senders, frames, cpu, memory, median: middle, longest, latest, retries },
    );
  }
}

/** Checks name and size of every frame, and the sender and number at its start. */
function checkFiles(to: string, senders: number, each: number): void {
  for (let index = 0; index < senders; index++) {
    const folder = join(to, "crowd", `camera-${index}`);
    const names = readdirSync(folder).sort();
    if (names.length !== each) throw new Error(`${folder} holds ${names.length} of ${each} frames`);
    for (const [shot, name] of names.entries()) {
      const file = join(folder, name);
      const head = readFileSync(file).subarray(0, 8);
      const wrong = head.readUInt32BE(0) !== index || head.readUInt32BE(4) !== shot;
      if (wrong || statSync(file).size !== 20_000) throw new Error(`${file} is not what was sent`);
    }
  }
}

/** Returns the limit of open files. Bun raises its soft limit to this value. */
function openFiles(): number {
  const limits = readFileSync("/proc/self/limits", "latin1");
  return Number(/^Max open files\s+\S+\s+(\d+)/m.exec(limits)?.[1] ?? Infinity);
}

function rowsOf(directory: string): number {
  const database = new Database(journalPath(directory), { readonly: true });
  const { rows } = database.query<{ rows: number }, []>("SELECT count(*) rows FROM frames").get()!;
  database.close();
  return rows;
}
