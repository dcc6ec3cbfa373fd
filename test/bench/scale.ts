/**
 * What a fleet of cameras costs whose frames go into a priced object store: nodes, network, requests and money,
 * computed from parameters. Each is a flag, such as `--frame 20000`; the defaults are those of the README.
 *
 *     bun test/bench/scale.ts [--cameras N] [--fps N] [--frame BYTES] [--days N] [--pack N] [--json]
 *
 * Prices are those of Amazon S3 Standard in us-east-1, in US dollars (https://aws.amazon.com/s3/pricing/; look there
 * before you rely on them): traffic into a bucket is free, and so are DELETEs. With an engine of your own requests cost
 * nothing: `--put 0 --get 0`. What a frame costs a node was measured with radosgw on two cores of an AMD EPYC, both
 * busy: 130 µs for frames of 20 KB, 270 for 200 KB.
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
  /** Cameras that share a PREFIX and the nodes that serve it; each node knows of all frames below its own. */
  part: 1000,
  /** Seconds between two links of a session. */
  link: 1,
  /** Links of a session that are not merged, on average. */
  unmerged: 100,
  /** Seconds between two looks of a node at the bucket. */
  look: 1.5,
  /** Bytes of a frame in the mirror of a node, and microseconds of a processor to put it there. */
  rowBytes: 225,
  rowMicroseconds: 4.7,
  /** Microseconds of a processor that a node needs for a frame, and for each MB of it. */
  frameMicroseconds: 115,
  megabyteMicroseconds: 780,
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
  readonly parts: number;
  readonly framesPerSecond: number;
  readonly gigabitsPerSecond: number;
  readonly nodes: number;
  /** What makes it so many nodes. */
  readonly limit: "processors" | "network";
  readonly putsPerSecond: number;
  readonly storedTB: number;
  /** What each node knows of its part: rows, GB on its disk, and hours to read that at its start. */
  readonly mirror: { readonly rows: number; readonly gb: number; readonly hours: number };
  readonly dollars: Readonly<
    Record<"puts" | "links" | "lists" | "gets" | "space" | "nodes" | "all", number>
  >;
}

const month = 30 * 24 * 3600;

function plan(cameras: number, given: Parameters): Plan {
  const parts = Math.ceil(cameras / given.part);
  // Of one part.
  const some = cameras / parts;
  const framesPerSecond = some * given.fps;
  const bytesPerSecond = framesPerSecond * given.frame;
  const perFrame = given.frameMicroseconds + (given.megabyteMicroseconds * given.frame) / 1e6;
  const byProcessors = (framesPerSecond * perFrame) / 1e6 / (given.processors * given.load);
  // Each byte comes in and goes out again; a card takes both at a time.
  const byNetwork = (bytesPerSecond * 8) / (given.network * given.load);
  // One may always fail.
  const nodes = Math.ceil(Math.max(byProcessors, byNetwork)) + 1;
  const puts = framesPerSecond / given.pack;
  const links = some / given.link;
  // Links that are not merged yet are listed each time, a thousand in an answer.
  const pages = Math.ceil((some * given.unmerged) / 1000);
  const lists = (nodes * (pages + 1)) / given.look;
  // Every node reads what the others wrote, and looks whether its own last link is there.
  const gets = links * nodes;
  const rows = framesPerSecond * given.days * 24 * 3600;
  const storedGB = (rows * given.frame * parts) / 1e9;
  const monthly = (perSecond: number, price: number) => (parts * perSecond * month * price) / 1000;
  const cost = {
    puts: monthly(puts, given.put),
    links: monthly(links, given.put),
    lists: monthly(lists, given.put),
    gets: monthly(gets, given.get),
    space: spaceDollars(storedGB, given),
    nodes: parts * nodes * given.node,
  };
  const all = Object.values(cost).reduce((sum, dollars) => sum + dollars);
  return {
    cameras,
    parts,
    framesPerSecond: framesPerSecond * parts,
    gigabitsPerSecond: (bytesPerSecond * 8 * parts) / 1e9,
    nodes: nodes * parts,
    limit: byProcessors > byNetwork ? "processors" : "network",
    putsPerSecond: (puts + links) * parts,
    storedTB: storedGB / 1000,
    mirror: {
      rows,
      gb: (rows * given.rowBytes) / 1e9,
      hours: (rows * given.rowMicroseconds) / 3600e6,
    },
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
  const isPrice = ["put", "get", "node"].includes(name) || name.startsWith("gb");
  if (!(given[name] > 0 || (isPrice && given[name] === 0))) {
    console.error(`--${name} is a number above 0, current value is ${String(texts[name])}`);
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
  nodes      ${found.nodes} in ${found.parts} parts, one to spare in each (${found.limit} decides)
  requests   ${whole(found.putsPerSecond)} PUT a second
  kept       ${whole(found.storedTB)} TB
  mirrors    ${whole(found.mirror.rows / 1e6)} million rows in each node: ${whole(found.mirror.gb)} GB of its disk, read in ${found.mirror.hours.toFixed(1)} hours at its start
  dollars a month
    PUT of frames     ${whole(dollars.puts)}
    PUT of links      ${whole(dollars.links)}
    GET of links      ${whole(dollars.gets)}
    LIST by nodes     ${whole(dollars.lists)}
    space             ${whole(dollars.space)}
    nodes             ${whole(dollars.nodes)}
    all               ${whole(dollars.all)}
`);
}
if (texts["json"] !== true && given.put > 0 && given.gb > 0) {
  const even = evenSize(given) / 1000;
  console.log(`A PUT costs as much as ${whole(even)} KB kept for a month: frames that are kept so long and are smaller are worth
packing together, and of those kept for ${given.days} days all below ${whole((even * 30) / given.days)} KB (--pack N).`);
}
