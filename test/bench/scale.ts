/**
 * What a fleet of cameras costs whose frames go into a priced object store: nodes, network, requests and money,
 * computed from parameters. Each is a flag, such as `--frame 20000`; the defaults are those of the README.
 *
 *     bun test/bench/scale.ts [--cameras N] [--fps N] [--frame BYTES] [--days N] [--pack N] [--json]
 *
 * Prices are those of Amazon S3 Standard in us-east-1, in US dollars, as published at
 * https://aws.amazon.com/s3/pricing/ and known to whoever wrote this; traffic into a bucket is free there. Costs per
 * frame of a node are those that `bun run bench --only bucket` measured on two cores of an AMD EPYC.
 */
import { parseArgs } from "node:util";

/** All parameters, and what is taken where none is given. */
const usual = {
  /** Frames a second and bytes of each. */
  fps: 30,
  frame: 100_000,
  /** Days that frames are kept. */
  days: 1,
  /** Frames that one object holds; `frames` writes one each. */
  pack: 1,
  /** Seconds between two links of a session. */
  link: 1,
  /** Seconds between two looks of a node at the bucket, each of two LISTs. */
  look: 1.5,
  /** Microseconds of a processor that a node needs for a frame, and for each MB of it. */
  frameMicroseconds: 200,
  megabyteMicroseconds: 900,
  /** Processors of a node, the share of them that is to be used, and what its network card takes in bits a second. */
  processors: 8,
  load: 0.5,
  network: 10e9,
  /** Dollars for a node a month. */
  node: 250,
  /** Dollars for a thousand PUT or LIST requests, and for a thousand GET or HEAD. */
  put: 0.005,
  get: 0.0004,
  /** Dollars for a GB kept for a month: up to 50 TB, up to 500 TB, beyond. */
  gb: 0.023,
  gbAbove50TB: 0.022,
  gbAbove500TB: 0.021,
};

type Parameters = typeof usual;

interface Plan {
  readonly cameras: number;
  readonly framesPerSecond: number;
  readonly gigabitsPerSecond: number;
  readonly nodes: number;
  /** What makes it so many nodes. */
  readonly limit: "processors" | "network";
  readonly putsPerSecond: number;
  readonly storedTB: number;
  readonly dollars: Readonly<
    Record<"puts" | "links" | "lists" | "heads" | "space" | "nodes" | "all", number>
  >;
}

const month = 30 * 24 * 3600;

function plan(cameras: number, given: Parameters): Plan {
  const framesPerSecond = cameras * given.fps;
  const bytesPerSecond = framesPerSecond * given.frame;
  const perFrame = given.frameMicroseconds + (given.megabyteMicroseconds * given.frame) / 1e6;
  const byProcessors = (framesPerSecond * perFrame) / 1e6 / (given.processors * given.load);
  // Each byte comes in and goes out again; a card takes both at a time.
  const byNetwork = (bytesPerSecond * 8) / (given.network * given.load);
  // One may always fail.
  const nodes = Math.ceil(Math.max(byProcessors, byNetwork)) + 1;
  const puts = framesPerSecond / given.pack;
  const links = cameras / given.link;
  const lists = (2 * nodes) / given.look;
  const storedGB = (bytesPerSecond * given.days * 24 * 3600) / 1e9;
  const cost = {
    puts: (puts * month * given.put) / 1000,
    links: (links * month * given.put) / 1000,
    lists: (lists * month * given.put) / 1000,
    heads: (links * month * given.get) / 1000,
    space: spaceDollars(storedGB, given),
    nodes: nodes * given.node,
  };
  const all = Object.values(cost).reduce((sum, dollars) => sum + dollars);
  return {
    cameras,
    framesPerSecond,
    gigabitsPerSecond: (bytesPerSecond * 8) / 1e9,
    nodes,
    limit: byProcessors > byNetwork ? "processors" : "network",
    putsPerSecond: puts + links,
    storedTB: storedGB / 1000,
    dollars: { ...cost, all },
  };
}

function spaceDollars(gb: number, given: Parameters): number {
  const first = Math.min(gb, 50_000);
  const second = Math.min(Math.max(gb - 50_000, 0), 450_000);
  const third = Math.max(gb - 500_000, 0);
  return first * given.gb + second * given.gbAbove50TB + third * given.gbAbove500TB;
}

/** Frames of this size cost as much in requests as in the space of a month. */
function evenSize(given: Parameters): number {
  return (given.put / 1000 / given.gb) * 1e9;
}

const names = Object.keys(usual) as (keyof Parameters)[];
const { values } = parseArgs({
  options: {
    cameras: { type: "string" },
    json: { type: "boolean" },
    ...Object.fromEntries(names.map((name) => [name, { type: "string" as const }])),
  },
});
const texts = values as Record<string, string | boolean | undefined>;
const given: Parameters = { ...usual };
for (const name of names) {
  if (texts[name] === undefined) continue;
  given[name] = Number(texts[name]);
  if (!(given[name] > 0)) {
    console.error(`--${name} is a number above 0, current value is ${texts[name]}`);
    process.exit(1);
  }
}
const fleets = texts["cameras"] === undefined ? [1000, 100_000] : [Number(texts["cameras"])];
const whole = (value: number): string => Math.round(value).toLocaleString("en-US");
for (const cameras of fleets) {
  const found = plan(cameras, given);
  if (texts["json"] === true) {
    console.log(JSON.stringify({ ...found, parameters: given }));
    continue;
  }
  const { dollars } = found;
  console.log(`${whole(cameras)} cameras, ${given.fps} frames a second of ${whole(given.frame / 1000)} KB, kept for ${given.days} days, ${given.pack} in an object
  frames     ${whole(found.framesPerSecond)} a second
  network    ${found.gigabitsPerSecond.toFixed(1)} Gbit/s into the nodes, and as much out of them
  nodes      ${found.nodes}, one of them to spare (${found.limit} decide)
  requests   ${whole(found.putsPerSecond)} PUT a second
  kept       ${whole(found.storedTB)} TB
  dollars a month
    PUT of frames     ${whole(dollars.puts)}
    PUT of links      ${whole(dollars.links)}
    HEAD of links     ${whole(dollars.heads)}
    LIST by nodes     ${whole(dollars.lists)}
    space             ${whole(dollars.space)}
    nodes             ${whole(dollars.nodes)}
    all               ${whole(dollars.all)}
`);
}
if (texts["json"] !== true) {
  console.log(`A PUT costs as much as ${whole(evenSize(given) / 1000)} KB kept for a month. Frames smaller than that, kept for a month, are
worth packing together; kept for ${given.days} days, those smaller than ${whole((evenSize(given) / 1000) * (30 / given.days))} KB.`);
}
