/** Compares rivals on the same frames: new frames, and frames that are already stored. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { sameTree } from "../helper/program.ts";
import { type Corpus, makeCorpus } from "./corpora.ts";
import { median, megabytes, type Report, spread } from "./measure.ts";
import type { Receiving, Rival } from "./rivals.ts";

/** Settings of a benchmark run. */
export interface Bench {
  /** A folder on tmpfs. */
  readonly folder: string;
  readonly rounds: number;
  /** Rounds before them that do not count, because memory and caches are cold. */
  readonly warmUps: number;
  /** Divisor of all quantities in a `--short` run. */
  readonly scale: number;
  readonly rivals: readonly Rival[];
  readonly report: Report;
}

/** What a move took. */
export interface Cost {
  /** From the start of the sending programs until all frames are in place. */
  readonly seconds: number;
  /** CPU seconds of all sending programs, and of the receiving one. */
  readonly senderCpu: number;
  readonly receiverCpu: number;
  /** Peak memory of each end in bytes; only of `frames`. */
  readonly peaks?: { readonly sender: number; readonly server: number };
}

/** What each rival took for the same job, round by round. */
export interface Comparison {
  readonly title: string;
  readonly costs: ReadonlyMap<string, readonly Cost[]>;
}

/** How a rival compares with another in the same rounds. */
export interface Ratios {
  /** How many times as fast it is. */
  readonly speed: readonly number[];
  /** Its CPU seconds as a share of the other's: both ends together, and each. */
  readonly cpu: readonly number[];
  readonly senderCpu: readonly number[];
  readonly receiverCpu: readonly number[];
}

export function ratiosTo(reference: readonly Cost[], costs: readonly Cost[]): Ratios {
  const ratios = (of: (cost: Cost) => number) =>
    costs.map((cost, round) => of(cost) / of(reference[round]!));
  return {
    speed: ratios(({ seconds }) => 1 / seconds),
    cpu: ratios(({ senderCpu, receiverCpu }) => senderCpu + receiverCpu),
    senderCpu: ratios(({ senderCpu }) => senderCpu),
    receiverCpu: ratios(({ receiverCpu }) => receiverCpu),
  };
}

/** How frames are moved, where it is not by one sender from a file system in memory. */
interface Conditions {
  /** Programs that send at the same time, each an equal part of the corpus. Default 1. */
  readonly senders?: number;
  /** Folder for the frames to send. */
  readonly disk?: string;
  /** Called before each move with the folders to send. */
  readonly before?: (folders: readonly string[]) => void;
}

/** Moves the frames of `corpus` with each rival, and compares every result with the original. */
export async function compare(
  bench: Bench,
  corpus: Corpus,
  { senders = 1, disk = bench.folder, before = () => {} }: Conditions = {},
): Promise<Comparison> {
  const { folder, rounds, warmUps } = bench;
  const rivals = bench.rivals.filter(({ takesMany }) => senders === 1 || takesMany === true);
  const share = { ...corpus, frames: Math.ceil(corpus.frames / senders) };
  const folders = Array.from({ length: senders }, (_, index) => {
    return makeCorpus(disk, share, `-${index + 1}`);
  });
  const costs = new Map<string, Cost[]>(rivals.map(({ name }) => [name, []]));
  for (let round = -warmUps; round < rounds; round++) {
    for (const rival of rivals) {
      const to = join(folder, "to");
      mkdirSync(to);
      const receiving = await rival.receive(to);
      before(folders);
      const cost = await move(receiving, folders);
      await receiving.stop();
      for (const from of folders) check(rival, from, receiving);
      rmSync(to, { recursive: true });
      if (round >= 0) costs.get(rival.name)!.push(cost);
    }
  }
  for (const from of folders) rmSync(from, { recursive: true });
  const title = senders === 1 ? corpus.name : `${senders} senders, together ${corpus.name}`;
  print(bench, "compare", title, costs);
  return { title, costs };
}

/** Moves the same frames again after nothing has changed. */
export async function again(bench: Bench, corpus: Corpus): Promise<Comparison> {
  const { folder, rounds, rivals } = bench;
  const from = makeCorpus(folder, corpus);
  const costs = new Map<string, Cost[]>();
  const receivers = new Map<Rival, Receiving>();
  for (const rival of rivals.filter(({ resumes }) => resumes)) {
    const to = join(folder, rival.name);
    mkdirSync(to);
    receivers.set(rival, await rival.receive(to));
    costs.set(rival.name, []);
  }
  // The first round moves the frames and does not count.
  for (let round = 0; round <= rounds; round++) {
    for (const [rival, receiving] of receivers) {
      const cost = await move(receiving, [from]);
      if (round > 0) costs.get(rival.name)!.push(cost);
      else check(rival, from, receiving);
    }
  }
  for (const [{ name }, receiving] of receivers) {
    await receiving.stop();
    rmSync(join(folder, name), { recursive: true });
  }
  rmSync(from, { recursive: true });
  const title = `${corpus.name}, again`;
  print(bench, "again", title, costs);
  return { title, costs };
}

/** Sends each folder with a program of its own, all at the same time. */
async function move(receiving: Receiving, folders: readonly string[]): Promise<Cost> {
  const before = receiving.cpu();
  const sent = await Promise.all(folders.map((from) => receiving.send(from)));
  // The CPU time of a daemon's child counts once the daemon has waited for it.
  await Bun.sleep(100);
  const server = receiving.peak?.();
  return {
    seconds: Math.max(...sent.map(({ seconds }) => seconds)),
    senderCpu: sent.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
    receiverCpu: receiving.cpu() - before,
    ...(server === undefined
      ? {}
      : { peaks: { sender: Math.max(...sent.map(({ peak }) => peak)), server } }),
  };
}

/** Throws unless every frame has arrived, byte for byte. */
export function check({ name }: Rival, from: string, receiving: Receiving): void {
  const differences = sameTree(from, receiving.arrived(from));
  if (differences.length > 0) {
    throw new Error(`${name} did not move all: ${differences.slice(0, 3).join("; ")}`);
  }
}

/** Prints medians, and the ratios to rsync's daemon in the same rounds. */
function print(
  { report, scale }: Bench,
  part: string,
  title: string,
  costs: ReadonlyMap<string, readonly Cost[]>,
): void {
  report.heading(`${title}${scale > 1 ? ` / ${scale}` : ""}: seconds, and as fast as rsync's daemon
  CPU seconds of sender, receiver and both, and as a share of rsync's`);
  const reference = costs.get("rsync daemon");
  for (const [name, list] of costs) {
    const ratios = reference === undefined ? undefined : ratiosTo(reference, list);
    const cpu = [
      column(
        list.map(({ senderCpu }) => senderCpu),
        ratios?.senderCpu,
      ),
      column(
        list.map(({ receiverCpu }) => receiverCpu),
        ratios?.receiverCpu,
      ),
      column(
        list.map(({ senderCpu, receiverCpu }) => senderCpu + receiverCpu),
        ratios?.cpu,
      ),
    ];
    const peaks = list.flatMap((cost) => cost.peaks ?? []);
    const [sender, server] = [peaks.map((peak) => peak.sender), peaks.map((peak) => peak.server)];
    const memory =
      peaks.length === 0
        ? ""
        : `sender ${megabytes(Math.max(...sender))} MB, server ${megabytes(Math.max(...server))} MB`;
    report.row(
      `${name.padEnd(15)} ${column(
        list.map(({ seconds }) => seconds),
        ratios?.speed,
      )}  CPU ${cpu.join("  ")}  ${memory}`.trimEnd(),
      { part, title, name, costs: list, ratios },
    );
  }
}

/** Formats a median and, in brackets, a ratio with its spread. */
function column(values: readonly number[], ratios: readonly number[] | undefined): string {
  // Short runs take no measurable CPU time.
  const ratio = ratios?.every(Number.isFinite) === true ? ` [${spread(ratios)}]` : "";
  return `${median(values).toFixed(2)}${ratio}`.padEnd(26);
}
