/**
 * The figures kept in `figures.json`: how `frames` compares with others on each machine that was
 * measured. They are ratios of the same round, because seconds of two days cannot be compared.
 */
import { cpus } from "node:os";
import { join } from "node:path";
import { type Comparison, ratiosTo } from "./compare.ts";
import { median } from "./measure.ts";

const path = join(import.meta.dir, "figures.json");

/** Median, least and most. */
type Spread = readonly [number, number, number];

/** How many times as fast as another `frames` is, and its share of the other's CPU seconds. */
interface Figures {
  readonly speed: Spread;
  readonly cpu: Spread;
}

/** Figures of one machine, by title of the comparison and name of the other. */
export interface Machine {
  readonly processors: string;
  readonly date: string;
  readonly rows: Readonly<Record<string, Readonly<Record<string, Figures>>>>;
}

type Machines = Record<string, Machine>;

/** Loss of a median that `check` tells. */
const maxLoss = 0.05;

function toSpread(ratios: readonly number[]): Spread {
  const rounded = (value: number) => Number(value.toFixed(3));
  return [rounded(median(ratios)), rounded(Math.min(...ratios)), rounded(Math.max(...ratios))];
}

function toRows(comparisons: readonly Comparison[]): Machine["rows"] {
  const figuresOf = ({ costs }: Comparison) => {
    const own = costs.get("frames")!;
    const others = [...costs].filter(([name]) => !name.startsWith("frames"));
    return Object.fromEntries(
      others.map(([name, reference]) => {
        const { speed, cpu } = ratiosTo(reference, own);
        return [name, { speed: toSpread(speed), cpu: toSpread(cpu) }];
      }),
    );
  };
  return Object.fromEntries(comparisons.map((one) => [one.title, figuresOf(one)]));
}

async function read(): Promise<Machines> {
  const file = Bun.file(path);
  return (await file.exists()) ? ((await file.json()) as Machines) : {};
}

/** Keeps these comparisons as the figures of a machine, beside its others. */
export async function keep(machine: string, comparisons: readonly Comparison[]): Promise<void> {
  const machines = await read();
  const rows = { ...machines[machine]?.rows, ...toRows(comparisons) };
  const date = new Date().toISOString().slice(0, 10);
  machines[machine] = { processors: processors(), date, rows };
  await Bun.write(path, `${JSON.stringify(machines, undefined, 1)}\n`);
}

/** @throws if no figures of that machine are kept */
export async function keptFigures(machine: string): Promise<Machine> {
  const kept = (await read())[machine];
  if (kept === undefined) throw new Error(`There are no figures of machine ${machine}: see --keep`);
  return kept;
}

/**
 * Compares with the kept figures of a machine.
 *
 * @returns a line for each figure that is more than 5 % worse
 */
export function check(kept: Machine, comparisons: readonly Comparison[]): string[] {
  const lines: string[] = [];
  for (const [title, others] of Object.entries(toRows(comparisons))) {
    for (const [other, { speed, cpu }] of Object.entries(others)) {
      const before = kept.rows[title]?.[other];
      if (before === undefined) continue;
      const row = `${title}, against ${other}:`;
      const [faster, was] = [speed[0], before.speed[0]];
      if (faster < was * (1 - maxLoss))
        lines.push(`${row} ${faster} times as fast, kept is ${was}`);
      const [share, had] = [cpu[0], before.cpu[0]];
      if (share > had * (1 + maxLoss)) lines.push(`${row} ${share} of its CPU, kept is ${had}`);
    }
  }
  return lines;
}

/** Returns the README's table: how many times as fast as rsync and tar, on each machine. */
export async function table(): Promise<string> {
  const machines = Object.entries(await read());
  const others = { rsync: "rsync daemon", tar: "tar over nc" };
  const columns = Object.entries(others).flatMap(([short, other]) =>
    machines.map(([name, { rows }]) => ({
      head: `${short}, machine ${name}`,
      cell(title: string) {
        const figures = rows[title]?.[other];
        if (figures === undefined) return "";
        const [middle, least, most] = figures.speed.map((value) => value.toFixed(2));
        return `${middle} (${least} to ${most})`;
      },
    })),
  );
  const titles = [...new Set(machines.flatMap(([, { rows }]) => Object.keys(rows)))];
  const lines = titles
    .map((title) => [title, ...columns.map(({ cell }) => cell(title))])
    .filter(([, ...cells]) => cells.some((cell) => cell !== ""));
  const head = ["400 MB as", ...columns.map((column) => column.head)];
  const toLine = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [head, head.map(() => "---"), ...lines].map(toLine).join("\n");
}

/** Returns number and kind of this machine's processors. */
export function processors(): string {
  return `${cpus().length} x ${cpus()[0]?.model.trim() ?? "unknown processor"}`;
}
