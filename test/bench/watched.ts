/**
 * Sends frames through a watched folder that are removed after delivery, and checks that memory
 * stays constant.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { executable, startServer, temporaryFolder } from "../helper/program.ts";
import type { Bench } from "./compare.ts";
import { median } from "./measure.ts";

/** Limit of frames waiting in the folder. The capture pauses at the limit. */
const maxWaiting = 2000;

/** Returns the resident memory of a process in MB. */
function memoryOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) / 1024;
}

/**
 * Sends as many frames as a camera of 17 frames a second captures in eight hours, as fast as
 * possible.
 */
export async function watched(bench: Bench, frames: number): Promise<void> {
  bench.report.heading(
    `${frames} frames of 1 KB through a watched folder with --move: memory in MB, by quarters`,
  );
  const server = await startServer({ dir: temporaryFolder() });
  const folder = join(temporaryFolder(), "run7");
  mkdirSync(folder);
  const to = ["--to", `127.0.0.1:${server.port}`];
  const sender = Bun.spawn(
    [executable, "send", folder, "--watch", "--move", ...to, "--json", "-q"],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const summary = new Response(sender.stdout).text();
  const taken = { sender: [] as number[], server: [] as number[] };
  const bytes = crypto.getRandomValues(new Uint8Array(1000));
  for (let number = 1; number <= frames; number++) {
    writeFileSync(join(folder, ".new"), bytes);
    renameSync(join(folder, ".new"), join(folder, `${number}.raw`));
    if (number % 100 > 0) continue;
    while (readdirSync(folder).length > maxWaiting) await Bun.sleep(5);
    await Bun.sleep(0);
    if (number % Math.max(100, Math.floor(frames / 400)) > 0) continue;
    taken.sender.push(memoryOf(sender.pid));
    taken.server.push(memoryOf(server.process.pid));
  }
  while (readdirSync(folder).length > 0) await Bun.sleep(20);
  sender.kill("SIGINT");
  await sender.exited;
  const lastLine = (await summary).trim().split("\n").at(-1)!;
  const { frames: delivered, removed } = JSON.parse(lastLine) as {
    frames: number;
    removed: number;
  };
  if (delivered !== frames || removed !== frames) {
    throw new Error(`${delivered} of ${frames} frames were delivered, ${removed} removed`);
  }
  await server.stop();
  for (const path of [server.dir, join(folder, "..")]) rmSync(path, { recursive: true });
  for (const [end, all] of Object.entries(taken)) {
    const quarter = Math.floor(all.length / 4);
    const quarters = [0, 1, 2, 3].map((index) =>
      median(all.slice(index * quarter, (index + 1) * quarter)),
    );
    const growth = (quarters[3]! / quarters[1]! - 1) * 100;
    bench.report.row(
      `${end.padEnd(6)} ${quarters.map((value) => value.toFixed(0)).join(", ")}: the last quarter ${growth >= 0 ? "+" : ""}${growth.toFixed(1)} % of the second; at most ${Math.max(...all).toFixed(0)}`,
      { part: "watched", end, quarters, growth },
    );
  }
}
