/**
 * `bun run bench`: moves the same frames with `frames` and its rivals, in turn, on tmpfs, over
 * loopback. Compares every result with the original byte for byte.
 *
 *     bun run bench [--rounds 7] [--only compare,many,…] [--short] [--json] [--chart FILE.svg]
 *                   [--before EXECUTABLE] [--check] [--keep] [--machine NAME] [--table]
 *
 * `--chart` draws the part `compare`, relative to rsync's daemon. `--before` also measures an earlier
 * executable. `--check` compares with the figures kept for a machine, and tells what is slower;
 * `--keep` keeps the figures of this run, and `--table` prints the kept ones for the README.
 */
import { parseArgs } from "node:util";
import { temporaryFolder } from "../helper/program.ts";
import { article } from "./article.ts";
import { bucket } from "./bucket.ts";
import { speedChart } from "./chart.ts";
import { cold } from "./cold.ts";
import { again, type Bench, compare, type Comparison } from "./compare.ts";
import { corpora } from "./corpora.ts";
import { crowd } from "./crowd.ts";
import { check, keep, keptFigures, processors, table } from "./figures.ts";
import { firstReceipt } from "./first-receipt.ts";
import { byNumber, bySize, resumed } from "./growth.ts";
import { live } from "./live.ts";
import { rate, trips } from "./link.ts";
import { received } from "./received.ts";
import { fewFrames, version } from "./start.ts";
import { watched } from "./watched.ts";
import { watching } from "./viewers.ts";
import { framesRival, rivals } from "./rivals.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    only: { type: "string" },
    short: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    chart: { type: "string" },
    before: { type: "string" },
    check: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
    machine: { type: "string", default: "1" },
    table: { type: "boolean", default: false },
  },
});
if (values.table) {
  console.log(await table());
  process.exit();
}
const scale = values.short ? 20 : 1;
const earlier = values.before === undefined ? [] : [framesRival("frames, before", values.before)];
const bench: Bench = {
  folder: temporaryFolder(),
  rounds: values.short ? 1 : Math.max(1, Number(values.rounds)),
  warmUps: values.short ? 0 : 1,
  scale,
  rivals: [...earlier, ...rivals].filter(({ name, missing }) => {
    if (missing !== undefined) console.error(`${name} left out: needs ${missing}`);
    return missing === undefined;
  }),
  report: {
    heading: (text) => (values.json ? console.error(text) : console.log(`\n${text}`)),
    row: (line, row) => console.log(values.json ? JSON.stringify(row) : `  ${line}`),
  },
};
const scaled = corpora.map((corpus) => ({ ...corpus, frames: corpus.frames / scale }));

/** Comparisons of the parts so far. */
const comparisons: Comparison[] = [];

const parts: Record<string, () => Promise<void>> = {
  async start() {
    comparisons.push(await version(bench), await fewFrames(bench));
  },
  async compare() {
    for (const corpus of scaled) comparisons.push(await compare(bench, corpus));
  },
  async many() {
    for (const senders of [4, 16]) {
      for (const corpus of scaled) comparisons.push(await compare(bench, corpus, { senders }));
    }
    for (const corpus of scaled) await firstReceipt(bench, corpus);
  },
  async cold() {
    for (const corpus of scaled) comparisons.push(...(await cold(bench, corpus)));
  },
  async again() {
    const corpus = { name: "100,000 x 1 KB", frames: 100_000 / scale, bytes: 1000 };
    comparisons.push(await again(bench, corpus));
  },
  async receive() {
    bench.report.heading("frames receive of what frames send has brought");
    for (const corpus of scaled) await received(bench, corpus);
  },
  async link() {
    // A camera captures three frames in 0.1 s.
    await trips(bench, scale > 1 ? [3, 30] : [3, 30, 3000]);
    await rate(bench, { name: "rate", frames: 2000 / scale, bytes: 200_000 });
  },
  live: () => live(bench),
  crowd: () => crowd(bench),
  async growth() {
    await byNumber(bench);
    await bySize(bench);
  },
  watched: () => watched(bench, 500_000 / scale / scale),
  article: () => article(bench),
  viewers: () => watching(bench),
  bucket: () => bucket(bench),
  million: () => resumed(bench, 1_000_000 / scale / scale),
};

const compared = ["start", "compare", "many", "cold", "again"];
const wanted =
  values.only?.split(",") ?? (values.check || values.keep ? compared : Object.keys(parts));
const unknown = wanted.filter((name) => !(name in parts));
if (unknown.length > 0) {
  console.error(`There is no part ${unknown.join(", ")}: ${Object.keys(parts).join(", ")}`);
  process.exit(1);
}
if (values.short && (values.check || values.keep)) {
  console.error("Cannot compare a --short run with the figures of a whole one: leave --short out");
  process.exit(1);
}
const kept = values.check ? await keptFigures(values.machine) : undefined;
console.error(`${processors()}, Bun ${Bun.version}`);
console.error(
  `Medians of ${bench.rounds} interleaved rounds (least and most), both ends on this machine`,
);
console.error(
  `Again: bun run bench${Bun.argv
    .slice(2)
    .map((word) => ` ${word}`)
    .join("")}`,
);
for (const name of wanted) await parts[name]!();
if (values.chart !== undefined) {
  const rounds = `400 MB over loopback, median, least and most of ${bench.rounds} rounds`;
  const drawn = comparisons.filter(({ title }) => corpora.some(({ name }) => name === title));
  await Bun.write(values.chart, speedChart(drawn, `${rounds}, ${processors()}`));
}
if (kept !== undefined) {
  const worse = check(kept, comparisons);
  console.log(worse.length === 0 ? "\nNothing is more than 5 % worse" : `\n${worse.join("\n")}`);
  if (worse.length > 0) process.exitCode = 1;
}
if (values.keep) await keep(values.machine, comparisons);
