/** Measures round trips and throughput over a link with a round trip of 100 ms. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Bench, check } from "./compare.ts";
import { type Corpus, makeCorpus } from "./corpora.ts";
import { cpuSoFar, median, spread, start } from "./measure.ts";
import type { Rival } from "./rivals.ts";

/** Seconds. */
const roundTrip = 0.1;

/** Bytes a second, for a gigabit link. */
const gigabit = 125e6;

/**
 * Sends frames with and without the link. Measures from the start of the process until the server
 * has confirmed all frames. The relay connects at once, so a real link takes another round trip.
 */
export async function trips(bench: Bench, counts: readonly number[]): Promise<void> {
  bench.report.heading(
    "Through a link with 100 ms round trip: seconds from start to end of the process",
  );
  for (const frames of counts) {
    const from = makeCorpus(bench.folder, { name: "link", frames, bytes: 20_000 });
    const own = bench.rivals.find(({ name }) => name === "frames")!;
    const near: number[] = [];
    const far: number[] = [];
    for (let round = 0; round < bench.rounds; round++) {
      near.push((await through(bench, own, from, { delay: 0 })).seconds);
      far.push((await through(bench, own, from, { delay: 50 })).seconds);
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

/**
 * Fills a gigabit link with the same round trip and compares with its bound. The bound is the time
 * of the bytes, and a round trip until the last of them is confirmed.
 */
export async function rate(bench: Bench, corpus: Corpus): Promise<void> {
  const bytes = corpus.frames * corpus.bytes;
  const bound = bytes / gigabit + roundTrip;
  bench.report.heading(
    `${corpus.frames} x ${corpus.bytes / 1000} KB through 125 MB/s and 100 ms: seconds; the link's bound is ${bytes / 1e6} MB / 125 MB/s + 0.1 s = ${bound.toFixed(2)} s`,
  );
  const from = makeCorpus(bench.folder, corpus);
  const taken = new Map<string, Through[]>();
  const rivals = bench.rivals.filter(({ resumes }) => resumes);
  for (let round = 0; round < bench.rounds; round++) {
    for (const rival of rivals) {
      const one = await through(bench, rival, from, { delay: 50, rate: gigabit });
      taken.set(rival.name, [...(taken.get(rival.name) ?? []), one]);
    }
  }
  rmSync(from, { recursive: true });
  for (const [name, all] of taken) {
    const seconds = all.map((one) => one.seconds);
    const relayCpu = median(all.map((one) => one.relayCpuSeconds));
    const ratio = median(seconds) / bound;
    bench.report.row(
      `${name.padEnd(16)} ${spread(seconds)}: ${ratio.toFixed(3)} of the bound; the relay took CPU ${relayCpu.toFixed(2)} s`,
      {
        part: "rate",
        name,
        seconds,
        bound,
        ratio,
        relayCpu,
      },
    );
  }
}

interface Through {
  readonly seconds: number;
  readonly relayCpuSeconds: number;
}

/**
 * Moves frames through a link. The relay is a separate process, so that its CPU time is measured.
 */
async function through(
  bench: Bench,
  rival: Rival,
  from: string,
  link: { delay: number; rate?: number },
): Promise<Through> {
  const to = join(bench.folder, "to");
  mkdirSync(to);
  const receiving = await rival.receive(to);
  const relay = start([
    // The relay prints its port on stderr.
    ...["sh", "-c", 'exec "$0" "$@" 2>&1', process.execPath],
    ...[join(import.meta.dir, "../helper/relay.ts"), "0", `127.0.0.1:${receiving.port!}`],
    ...["--delay", `${link.delay}`],
    // Forwarding in larger portions keeps the relay from using a whole core.
    ...(link.rate === undefined ? [] : ["--rate", `${link.rate}`, "--grain", "4"]),
  ]);
  const port = await portOf(relay.stdout);
  const before = cpuSoFar(relay.pid);
  const { seconds } = await receiving.send(from, port);
  const relayCpuSeconds = cpuSoFar(relay.pid) - before;
  relay.kill();
  await relay.exited;
  await receiving.stop();
  check(rival, from, receiving);
  rmSync(to, { recursive: true });
  return { seconds, relayCpuSeconds };
}

/** Returns the port in the relay's first line. */
async function portOf(stderr: ReadableStream<Uint8Array>): Promise<number> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stderr) {
    text += decoder.decode(chunk, { stream: true });
    const port = /:(\d+) ->.*\n/.exec(text)?.[1];
    if (port !== undefined) return Number(port);
  }
  throw new Error(`the relay does not listen: ${text}`);
}
