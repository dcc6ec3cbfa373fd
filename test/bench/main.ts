/**
 * `bun run bench`: `frames` and its rivals move the same frames, in turn, on tmpfs, over loopback.
 * Every result is held against the original byte for byte.
 *
 *     bun run bench [--rounds 7] [--short] [--json]
 */
import { cpus } from "node:os";
import { join } from "node:path";
import { mkdirSync, rmSync } from "node:fs";
import { parseArgs } from "node:util";
import { run, sameTree, startServer, temporaryFolder } from "../helper/program.ts";
import { startRelay } from "../helper/relay.ts";
import { type Corpus, corpora, makeCorpus } from "./corpora.ts";
import { type Moved, type Receiving, rivals } from "./rivals.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    short: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const rounds = values.short ? 1 : Math.max(1, Number(values.rounds));
const scale = values.short ? 20 : 1;
const folder = temporaryFolder();

console.error(`${cpus().length} x ${cpus()[0]?.model ?? "unknown processor"}, Bun ${Bun.version}`);
console.error(
  `Medians of ${rounds} interleaved rounds (least and most), both ends on this machine`,
);
console.error("Again: bun run bench");
const present = rivals.filter(({ name, missing }) => {
  if (missing !== undefined) console.error(`${name} left out: needs ${missing}`);
  return missing === undefined;
});

for (const corpus of corpora) await compare({ ...corpus, frames: corpus.frames / scale });
await again({ name: "100,000 x 1 KB", frames: 100_000 / scale, bytes: 1000 });
await link();
if (!values.short) await million(1_000_000);

async function compare(corpus: Corpus): Promise<void> {
  const from = makeCorpus(folder, corpus);
  const taken = new Map<string, Moved[]>(present.map(({ name }) => [name, []]));
  // One round more, first, which does not count: memory and caches are cold then.
  for (let round = 0; round <= rounds; round++) {
    for (const rival of present) {
      const to = join(folder, "to");
      mkdirSync(to);
      const receiving = await rival.receive(to);
      const moved = await receiving.move(from);
      await receiving.stop();
      const differences = sameTree(from, moved.folder);
      if (differences.length > 0) {
        throw new Error(`${rival.name} did not move all: ${differences.slice(0, 3).join("; ")}`);
      }
      rmSync(to, { recursive: true });
      if (round > 0) taken.get(rival.name)!.push(moved);
    }
  }
  rmSync(from, { recursive: true });
  print(corpus.name, taken);
}

/** What was moved is moved again, when nothing has changed. */
async function again(corpus: Corpus): Promise<void> {
  const from = makeCorpus(folder, corpus);
  const taken = new Map<string, Moved[]>();
  const receiving = new Map<string, Receiving>();
  for (const rival of present.filter(({ resumes }) => resumes)) {
    const to = join(folder, rival.name);
    mkdirSync(to);
    receiving.set(rival.name, await rival.receive(to));
    taken.set(rival.name, []);
  }
  // The first moves them, and does not count.
  for (let round = 0; round <= rounds; round++) {
    for (const [name, receiver] of receiving) {
      const moved = await receiver.move(from);
      if (round > 0) taken.get(name)!.push(moved);
    }
  }
  for (const [name, receiver] of receiving) {
    await receiver.stop();
    rmSync(join(folder, name), { recursive: true });
  }
  rmSync(from, { recursive: true });
  print(`${corpus.name}, again`, taken);
}

/** A stream of a million frames is resumed: how long that takes, and how much memory. */
async function million(frames: number): Promise<void> {
  const from = makeCorpus(folder, { name: "many", frames, bytes: 10 });
  const to = join(folder, "to");
  console.log(`\nA stream of ${frames} frames of 10 bytes, all there already`);
  for (const what of ["sent", "resumed", "resumed"]) {
    const server = await startServer({ dir: to });
    const started = performance.now();
    const sent = await run(["send", from, "--quiet", "--to", `127.0.0.1:${server.port}`]);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    if (sent.code !== 0) throw new Error(sent.stderr);
    const peaks = [sent.peakMemory, server.peakMemory()].map((bytes) => (bytes / 1e6).toFixed(0));
    console.log(`  ${what} in ${seconds} s; sender ${peaks[0]} MB, server ${peaks[1]} MB`);
    await server.stop();
  }
  rmSync(from, { recursive: true });
  rmSync(to, { recursive: true });
}

function print(corpus: string, taken: ReadonlyMap<string, Moved[]>): void {
  const own = median(taken.get("frames")!.map(({ seconds }) => seconds));
  console.log(`\n${corpus}${scale > 1 ? ` / ${scale}` : ""}`);
  for (const [name, moves] of taken) {
    const seconds = moves.map((moved) => moved.seconds);
    const cpu = moves.map((moved) => moved.cpuSeconds);
    const row = { corpus, name, seconds, cpu };
    if (values.json) console.log(JSON.stringify(row));
    const times = (median(seconds) / own).toFixed(2);
    console.log(
      `  ${name.padEnd(14)} ${spread(seconds).padEnd(26)} CPU ${spread(cpu).padEnd(26)} ${times} x frames`,
    );
  }
}

/** How long 30 and 3,000 frames take through a link with a round trip of 100 ms, and through none. */
async function link(): Promise<void> {
  console.log("\nThrough a link with 100 ms round trip, seconds (least and most)");
  const counts = values.short ? [30] : [30, 3000];
  for (const frames of counts) {
    const from = makeCorpus(folder, { name: "link", frames, bytes: 20_000 });
    const near: number[] = [];
    const far: number[] = [];
    for (let round = 0; round < rounds; round++) {
      for (const delay of [0, 50]) {
        const to = join(folder, "to");
        const server = await startServer({ dir: to });
        const relay = await startRelay({ to: { host: "127.0.0.1", port: server.port }, delay });
        const started = performance.now();
        const sent = await run(["send", from, "--quiet", "--to", `127.0.0.1:${relay.port}`]);
        (delay === 0 ? near : far).push((performance.now() - started) / 1000);
        if (sent.code !== 0) throw new Error(sent.stderr);
        relay.stop();
        await server.stop();
        rmSync(to, { recursive: true });
      }
    }
    rmSync(from, { recursive: true });
    const trips = (median(far) - median(near)) / 0.1;
    console.log(
      `  ${String(frames).padEnd(5)} frames: ${spread(near)} without, ${spread(far)} with: ${trips.toFixed(1)} round trips more`,
    );
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function spread(values: readonly number[]): string {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return `${median(values).toFixed(2)} (${least.toFixed(2)} to ${most.toFixed(2)})`;
}
