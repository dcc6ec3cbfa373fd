/**
 * `bun run bench`: moves the same frames with `frames` and its rivals, in turn, on tmpfs, over
 * loopback. Compares every result with the original byte for byte.
 *
 *     bun run bench [--rounds 7] [--only compare,again,receive,link,latency,live,crowd,growth,watched,million,article,viewers,bucket] [--short] [--json] [--chart FILE.svg]
 *
 * `--chart` draws the part `compare`, relative to rsync's daemon.
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { temporaryFolder } from "../helper/program.ts";
import { article } from "./article.ts";
import { bucket } from "./bucket.ts";
import { type ChartBar, speedChart } from "./chart.ts";
import { again, type Bench, compare } from "./compare.ts";
import { corpora } from "./corpora.ts";
import { crowd } from "./crowd.ts";
import { byNumber, bySize, resumed } from "./growth.ts";
import { live } from "./live.ts";
import { rate, trips } from "./link.ts";
import { received } from "./received.ts";
import { watched } from "./watched.ts";
import { watching } from "./viewers.ts";
import { rivals } from "./rivals.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    only: { type: "string" },
    short: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    chart: { type: "string" },
  },
});
const scale = values.short ? 20 : 1;
const bench: Bench = {
  folder: temporaryFolder(),
  rounds: values.short ? 1 : Math.max(1, Number(values.rounds)),
  scale,
  rivals: rivals.filter(({ name, missing }) => {
    if (missing !== undefined) console.error(`${name} left out: needs ${missing}`);
    return missing === undefined;
  }),
  report: {
    heading: (text) => (values.json ? console.error(text) : console.log(`\n${text}`)),
    row: (line, row) => console.log(values.json ? JSON.stringify(row) : `  ${line}`),
  },
};

const bars: ChartBar[] = [];

const parts: Record<string, () => Promise<void>> = {
  async compare() {
    for (const corpus of corpora)
      bars.push(...(await compare(bench, { ...corpus, frames: corpus.frames / scale })));
  },
  again: () => again(bench, { name: "100,000 x 1 KB", frames: 100_000 / scale, bytes: 1000 }),
  async receive() {
    bench.report.heading("frames receive of what frames send has brought");
    for (const corpus of corpora)
      await received(bench, { ...corpus, frames: corpus.frames / scale });
  },
  async link() {
    await trips(bench, scale > 1 ? [30] : [30, 3000]);
    await rate(bench, { name: "rate", frames: 2000 / scale, bytes: 200_000 });
  },
  // Three frames, which a camera captures in 0.1 s.
  latency: () => trips(bench, [3]),
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

const wanted = values.only?.split(",") ?? Object.keys(parts);
const unknown = wanted.filter((name) => !(name in parts));
if (unknown.length > 0) {
  console.error(`There is no part ${unknown.join(", ")}: ${Object.keys(parts).join(", ")}`);
  process.exit(1);
}
console.error(`${cpus().length} x ${cpus()[0]?.model ?? "unknown processor"}, Bun ${Bun.version}`);
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
  const processors = `${cpus().length} x ${cpus()[0]?.model.trim() ?? "unknown processor"}`;
  const rounds = `400 MB over loopback, median, least and most of ${bench.rounds} rounds`;
  await Bun.write(values.chart, speedChart(bars, `${rounds}, ${processors}`));
}
