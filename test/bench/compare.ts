/** Compares all rivals on the same frames: new frames, and frames that are already stored. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type ChartBar, formatRatio } from "./chart.ts";
import { type Corpus, makeCorpus } from "./corpora.ts";
import { megabytes, type Report, spread } from "./measure.ts";
import type { Moved, Receiving, Rival } from "./rivals.ts";

/** Settings of a benchmark run. */
export interface Bench {
  /** A folder on tmpfs. */
  readonly folder: string;
  readonly rounds: number;
  /** Divisor of all quantities in a `--short` run. */
  readonly scale: number;
  readonly rivals: readonly Rival[];
  readonly report: Report;
}

/**
 * Moves the frames of `corpus` with each rival, and compares every result with the original.
 *
 * @returns the bars of the speed chart; none without rsync
 */
export async function compare(bench: Bench, corpus: Corpus): Promise<ChartBar[]> {
  const { folder, rounds, rivals } = bench;
  const from = makeCorpus(folder, corpus);
  const taken = new Map<string, Moved[]>(rivals.map(({ name }) => [name, []]));
  // The first of `rounds` + 1 rounds does not count, because memory and caches are cold.
  for (let round = 0; round <= rounds; round++) {
    for (const rival of rivals) {
      const to = join(folder, "to");
      mkdirSync(to);
      const receiving = await rival.receive(to);
      const moved = await receiving.move(from);
      await receiving.stop();
      check(rival, from, moved.folder);
      rmSync(to, { recursive: true });
      if (round > 0) taken.get(rival.name)!.push(moved);
    }
  }
  rmSync(from, { recursive: true });
  print(bench, "compare", corpus.name, taken);
  const reference = taken.get("rsync daemon");
  if (reference === undefined) return [];
  // cp uses no network, and socat writes a single file.
  return [...taken]
    .filter(([name]) => name !== "cp -r" && name !== "socat, one file")
    .map(([name, moves]) => ({ corpus: corpus.name, name, ratios: speeds(moves, reference) }));
}

/** How many times as fast these moves were as those of the same rounds in `reference`. */
function speeds(moves: readonly Moved[], reference: readonly Moved[]): number[] {
  return moves.map(({ seconds }, round) => reference[round]!.seconds / seconds);
}

/** Moves the same frames again after nothing has changed. */
export async function again(bench: Bench, corpus: Corpus): Promise<void> {
  const { folder, rounds, rivals } = bench;
  const from = makeCorpus(folder, corpus);
  const taken = new Map<string, Moved[]>();
  const receiving = new Map<Rival, Receiving>();
  for (const rival of rivals.filter(({ resumes }) => resumes)) {
    const to = join(folder, rival.name);
    mkdirSync(to);
    receiving.set(rival, await rival.receive(to));
    taken.set(rival.name, []);
  }
  // The first round moves the frames and does not count.
  for (let round = 0; round <= rounds; round++) {
    for (const [rival, receiver] of receiving) {
      const moved = await receiver.move(from);
      if (round > 0) taken.get(rival.name)!.push(moved);
      else check(rival, from, moved.folder);
    }
  }
  for (const [{ name }, receiver] of receiving) {
    await receiver.stop();
    rmSync(join(folder, name), { recursive: true });
  }
  rmSync(from, { recursive: true });
  print(bench, "again", `${corpus.name}, again`, taken);
}

/** Throws unless every frame has arrived, byte for byte. */
export function check(rival: Rival, from: string, arrived: string): void {
  const differences = rival.differences(from, arrived);
  if (differences.length > 0) {
    throw new Error(`${rival.name} did not move all: ${differences.slice(0, 3).join("; ")}`);
  }
}

function print(
  { report, scale }: Bench,
  part: string,
  corpus: string,
  taken: ReadonlyMap<string, Moved[]>,
): void {
  const own = taken.get("frames")!;
  report.heading(`${corpus}${scale > 1 ? ` / ${scale}` : ""}: seconds, CPU seconds of both ends`);
  for (const [name, moves] of taken) {
    const seconds = moves.map((moved) => moved.seconds);
    const cpu = moves.map((moved) => moved.cpuSeconds);
    const ratios = speeds(own, moves);
    const peaks = moves.flatMap((moved) => moved.peaks ?? []);
    const most = {
      sender: Math.max(...peaks.map(({ sender }) => sender)),
      server: Math.max(...peaks.map(({ server }) => server)),
    };
    const memory =
      peaks.length === 0
        ? `frames is ${formatRatio(ratios)} times as fast`
        : `sender ${megabytes(most.sender)} MB, server ${megabytes(most.server)} MB`;
    report.row(
      `${name.padEnd(16)} ${spread(seconds).padEnd(24)} CPU ${spread(cpu).padEnd(24)} ${memory}`,
      { part, corpus, name, seconds, cpu, ratios, ...(peaks.length > 0 ? { most } : {}) },
    );
  }
}
