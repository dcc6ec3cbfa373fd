/** Through a link with a round trip of 100 ms: how many round trips, and how much of its rate. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { startRelay } from "../helper/relay.ts";
import type { Bench } from "./compare.ts";
import { type Corpus, makeCorpus } from "./corpora.ts";
import { median, spread } from "./measure.ts";
import type { Rival } from "./rivals.ts";

/** Seconds. */
const roundTrip = 0.1;

/** Bytes a second: a gigabit. */
const gigabit = 125e6;

/**
 * A tenth of a second of frames, and more of them, through the link and through none, from the start of
 * the process until the server has confirmed them. The relay makes its connection at once, which on a
 * real link takes one round trip more.
 */
export async function trips(bench: Bench): Promise<void> {
  bench.report.heading(
    "Through a link with 100 ms round trip: seconds from start to end of the process",
  );
  for (const frames of bench.scale > 1 ? [3] : [3, 30, 3000]) {
    const from = makeCorpus(bench.folder, { name: "link", frames, bytes: 20_000 });
    const own = bench.rivals.find(({ name }) => name === "frames")!;
    const near: number[] = [];
    const far: number[] = [];
    for (let round = 0; round < bench.rounds; round++) {
      near.push(await through(bench, own, from, {}));
      far.push(await through(bench, own, from, { delay: 50 }));
    }
    rmSync(from, { recursive: true });
    const all = median(far) / roundTrip + 1;
    report(bench, frames, near, far, all);
  }
}

function report(bench: Bench, frames: number, near: number[], far: number[], all: number): void {
  const more = (median(far) - median(near)) / roundTrip;
  bench.report.row(
    `${String(frames).padEnd(5)} frames: ${spread(near)} without, ${spread(far)} with it: ${more.toFixed(1)} round trips more; ${all.toFixed(1)} in all, with one to connect`,
    { part: "trips", frames, near, far, roundTrips: all },
  );
}

/** The gigabit link with the same round trip, filled: how near to its own bound. */
export async function rate(bench: Bench, corpus: Corpus): Promise<void> {
  const bound = (corpus.frames * corpus.bytes) / gigabit;
  bench.report.heading(
    `${corpus.frames} x ${corpus.bytes / 1000} KB through 125 MB/s and 100 ms: seconds; the link's bound is bytes / rate = ${bound.toFixed(2)} s`,
  );
  const from = makeCorpus(bench.folder, corpus);
  const taken = new Map<string, number[]>();
  const rivals = bench.rivals.filter(({ resumes }) => resumes);
  for (let round = 0; round < bench.rounds; round++) {
    for (const rival of rivals) {
      const seconds = await through(bench, rival, from, { delay: 50, rate: gigabit });
      taken.set(rival.name, [...(taken.get(rival.name) ?? []), seconds]);
    }
  }
  rmSync(from, { recursive: true });
  for (const [name, seconds] of taken) {
    const ratio = median(seconds) / bound;
    bench.report.row(`${name.padEnd(16)} ${spread(seconds)}: ${ratio.toFixed(3)} of the bound`, {
      part: "rate",
      name,
      seconds,
      ratio,
    });
  }
}

async function through(
  bench: Bench,
  rival: Rival,
  from: string,
  link: { delay?: number; rate?: number },
): Promise<number> {
  const to = join(bench.folder, "to");
  mkdirSync(to);
  const receiving = await rival.receive(to);
  const relay = await startRelay({ to: { host: "127.0.0.1", port: receiving.port! }, ...link });
  const moved = await receiving.move(from, relay.port);
  relay.stop();
  await receiving.stop();
  const differences = rival.differences(from, moved.folder);
  if (differences.length > 0)
    throw new Error(`${rival.name}: ${differences.slice(0, 3).join("; ")}`);
  rmSync(to, { recursive: true });
  return moved.seconds;
}
