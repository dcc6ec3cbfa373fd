/** Measures what the start of the executable costs. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { executable } from "../helper/program.ts";
import { type Bench, compare, type Comparison, type Cost } from "./compare.ts";
import { median, timed } from "./measure.ts";

/** `frames version` beside an executable of Bun that does nothing. */
export async function version(bench: Bench): Promise<Comparison> {
  const script = join(bench.folder, "empty.ts");
  const empty = join(bench.folder, "empty");
  writeFileSync(script, "");
  await Bun.build({
    entrypoints: [script],
    bytecode: true,
    format: "esm",
    compile: { outfile: empty },
  });
  const commands = { frames: [executable, "version"], "empty executable": [empty] };
  const costs = new Map<string, Cost[]>(Object.keys(commands).map((name) => [name, []]));
  // A start is short, so more rounds are needed and take little time.
  for (let round = 0; round < bench.rounds * 7; round++) {
    for (const [name, command] of Object.entries(commands)) {
      const { seconds, cpuSeconds } = await timed(command);
      costs.get(name)!.push({ seconds, senderCpu: cpuSeconds, receiverCpu: 0 });
    }
  }
  bench.report.heading("frames version, and an empty executable: milliseconds");
  for (const [name, list] of costs) {
    const milliseconds = (of: (cost: Cost) => number) => (median(list.map(of)) * 1000).toFixed(1);
    bench.report.row(
      `${name.padEnd(16)} ${milliseconds(({ seconds }) => seconds)}, CPU ${milliseconds(({ senderCpu }) => senderCpu)}`,
      { part: "start", name, costs: list },
    );
  }
  return { title: "frames version", costs };
}

/** Ten small frames, where the start is most of the time. */
export async function fewFrames(bench: Bench): Promise<Comparison> {
  const names = ["frames", "frames, before", "rsync daemon"];
  const rivals = bench.rivals.filter(({ name }) => names.includes(name));
  const rounds = bench.rounds * 3;
  return await compare(
    { ...bench, rounds, rivals, scale: 1 },
    { name: "10 x 20 KB", frames: 10, bytes: 20_000 },
  );
}
