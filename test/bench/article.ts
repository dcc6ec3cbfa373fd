/**
 * Compares `frames send --article` with the article's own client. Both send to the article's server
 * as published, with pictures of sizes that its client can handle.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { executable, sameTree } from "../helper/program.ts";
import type { Bench } from "./compare.ts";
import { median, start, timed } from "./measure.ts";

const python = "/usr/bin/python3";
const programs = join(import.meta.dir, "../e2e/article");

/** Sends a folder once. Returns the seconds taken; undefined if the transfer failed. */
async function once(
  bench: Bench,
  folder: string,
  command: (port: string) => string[],
): Promise<number | undefined> {
  const store = join(bench.folder, "article");
  rmSync(store, { recursive: true, force: true });
  mkdirSync(store);
  const server = start([python, join(programs, "server.py"), store]);
  try {
    const { value } = await server.stdout.getReader().read();
    const port = new TextDecoder().decode(value).trim();
    const { seconds } = await timed(["timeout", "60", ...command(port)]);
    const arrived = join(store, "run");
    for (let tries = 0; tries < 100; tries++) {
      if (readdirSync(arrived).length === readdirSync(folder).length) break;
      await Bun.sleep(10);
    }
    if (sameTree(folder, arrived).length > 0) throw new Error("other bytes arrived");
    return seconds;
  } catch (error) {
    bench.report.heading(`  (${String(error).split("\n").at(-1)!.slice(0, 100)})`);
    return undefined;
  } finally {
    server.kill();
    await server.exited;
  }
}

/** Sends pictures of several sizes, with both clients in turn. */
export async function article(bench: Bench): Promise<void> {
  const number = Math.max(20, Math.floor(200 / bench.scale));
  for (const bytes of [2000, 20_000, 120_000, 400_000]) {
    bench.report.heading(`${number} x ${bytes / 1000} KB to the article's server`);
    const folder = join(bench.folder, "pictures");
    mkdirSync(folder);
    for (let index = 1; index <= number; index++) {
      writeFileSync(join(folder, `${index}.jpg`), Buffer.alloc(bytes, `${index} `));
    }
    const rivals: Record<string, (port: string) => string[]> = {
      "the article's client": (port) => {
        return [python, join(programs, "client.py"), port, "visible", "run", folder];
      },
      "frames send --article": (port) => {
        const flags = ["--article", "--source", "visible", "--stream", "run", "--quiet"];
        return [executable, "send", folder, ...flags, "--to", `127.0.0.1:${port}`];
      },
    };
    const taken = new Map<string, number[]>();
    for (let round = 0; round < bench.rounds; round++) {
      for (const [name, command] of Object.entries(rivals)) {
        const seconds = await once(bench, folder, command);
        if (seconds !== undefined) taken.set(name, [...(taken.get(name) ?? []), seconds]);
      }
    }
    for (const name of Object.keys(rivals)) {
      const all = taken.get(name);
      const seconds = all === undefined ? undefined : median(all);
      const shown = seconds === undefined ? "does not work" : `${seconds.toFixed(2)} s`;
      bench.report.row(`${name.padEnd(24)} ${shown}`, { part: "article", name, bytes, seconds });
    }
    rmSync(folder, { recursive: true });
  }
}
