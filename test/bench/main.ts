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
import { type Moved, rivals } from "./rivals.ts";

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
await link();

async function compare(corpus: Corpus): Promise<void> {
  const from = makeCorpus(folder, corpus);
  const taken = new Map<string, Moved[]>(present.map(({ name }) => [name, []]));
  // One round more, first, which does not count: memory and caches are cold then.
  for (let round = 0; round <= rounds; round++) {
    for (const rival of present) {
      const to = join(folder, "to");
      mkdirSync(to);
      const moved = await rival.move(from, to);
      const differences = sameTree(from, moved.folder);
      if (differences.length > 0) {
        throw new Error(`${rival.name} did not move all: ${differences.slice(0, 3).join("; ")}`);
      }
      rmSync(to, { recursive: true });
      if (round > 0) taken.get(rival.name)!.push(moved);
    }
  }
  rmSync(from, { recursive: true });
  const own = median(taken.get("frames")!.map(({ seconds }) => seconds));
  console.log(`\n${corpus.name}${scale > 1 ? ` / ${scale}` : ""}`);
  for (const [name, moves] of taken) {
    const seconds = moves.map((moved) => moved.seconds);
    const cpu = moves.map((moved) => moved.cpuSeconds);
    const row = { corpus: corpus.name, name, seconds, cpu };
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
