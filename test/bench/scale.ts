/**
 * Computes the cost of a fleet of cameras whose frames go into a priced object store: nodes,
 * network, requests and money. Each parameter is a flag, such as `--frame 20000`. The README uses the
 * same defaults.
 *
 *     bun test/bench/scale.ts [--cameras N] [--fps N] [--frame BYTES] [--days N] [--pack N] [--json]
 *
 * Prices are for Amazon S3 Standard in us-east-1, in US dollars; check
 * https://aws.amazon.com/s3/pricing/ before relying on them. Traffic into a bucket is free, and so
 * are DELETEs. Requests to a self-hosted engine cost nothing: `--put 0 --get 0`. The CPU time of a
 * frame was measured with radosgw on two cores of an AMD EPYC, both busy: 130 µs for frames of 20
 * KB, 270 for 200 KB.
 */
import { parseArgs } from "node:util";

/** All parameters with their defaults. */
const defaults = {
  /** Frames a second and camera, and bytes of a frame. */
  fps: 30,
  frame: 100_000,
  /** Days that frames are kept. */
  days: 1,
  /** Frames in an object; `frames` writes one frame to each object. */
  pack: 1,
  /** Cameras that share a PREFIX and its nodes. Each node indexes all frames below its PREFIX. */
  part: 1000,
  /** Seconds between two log objects of a session. */
  link: 1,
  /** Average number of log objects of a session that are not compacted. */
  unmerged: 100,
  /** Seconds between two polls of the bucket by a node. */
  look: 1.5,
  /** Bytes of a frame in a node's local index, and CPU microseconds to insert it. */
  rowBytes: 225,
  rowMicroseconds: 4.7,
  /** CPU microseconds that a node needs for a frame, and for each MB of it. */
  frameMicroseconds: 115,
  megabyteMicroseconds: 780,
  /** Processors of a node, their target load, and bits a second of its network card. */
  processors: 8,
  load: 0.5,
  network: 10e9,
  /** Dollars for a node and month. */
  node: 250,
  /** Dollars for a thousand PUT or LIST requests, and for a thousand GET or HEAD. */
  put: 0.005,
  get: 0.0004,
  /** Dollars for a GB and month: up to 50 TB, up to 500 TB, beyond. */
  gb: 0.023,
  gbAbove50TB: 0.022,
  gbAbove500TB: 0.021,
};

type Parameters = typeof defaults;

interface Plan {
  readonly cameras: number;
  readonly parts: number;
  readonly framesPerSecond: number;
  readonly gigabitsPerSecond: number;
  readonly nodes: number;
  /** The resource that determines the number of nodes. */
  readonly limit: "processors" | "network";
  readonly putsPerSecond: number;
  readonly storedTB: number;
  /** Local index of each node: rows, GB on its disk, and hours to read it at the start. */
  readonly mirror: { readonly rows: number; readonly gb: number; readonly hours: number };
  readonly dollars: Readonly<
    Record<"puts" | "links" | "lists" | "gets" | "space" | "nodes" | "all", number>
  >;
}

const month = 30 * 24 * 3600;

function plan(cameras: number, parameters: Parameters): Plan {
  const parts = Math.ceil(cameras / parameters.part);
  // Cameras in one part.
  const camerasPerPart = cameras / parts;
  const framesPerSecond = camerasPerPart * parameters.fps;
  const bytesPerSecond = framesPerSecond * parameters.frame;
  const perFrame =
    parameters.frameMicroseconds + (parameters.megabyteMicroseconds * parameters.frame) / 1e6;
  const byProcessors =
    (framesPerSecond * perFrame) / 1e6 / (parameters.processors * parameters.load);
  // A node receives each byte and sends it on; a network card does both at full rate.
  const byNetwork = (bytesPerSecond * 8) / (parameters.network * parameters.load);
  // One node more, so that one may fail.
  const nodes = Math.ceil(Math.max(byProcessors, byNetwork)) + 1;
  const puts = framesPerSecond / parameters.pack;
  const links = camerasPerPart / parameters.link;
  // Log objects that are not compacted are listed at each poll, a thousand in a response.
  const pages = Math.ceil((camerasPerPart * parameters.unmerged) / 1000);
  const lists = (nodes * (pages + 1)) / parameters.look;
  // Every node reads the log objects of the others, and checks its own last log object.
  const gets = links * nodes;
  const rows = framesPerSecond * parameters.days * 24 * 3600;
  const storedGB = (rows * parameters.frame * parts) / 1e9;
  const monthly = (perSecond: number, price: number) => (parts * perSecond * month * price) / 1000;
  const cost = {
    puts: monthly(puts, parameters.put),
    links: monthly(links, parameters.put),
    lists: monthly(lists, parameters.put),
    gets: monthly(gets, parameters.get),
    space: spaceDollars(storedGB, parameters),
    nodes: parts * nodes * parameters.node,
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
      gb: (rows * parameters.rowBytes) / 1e9,
      hours: (rows * parameters.rowMicroseconds) / 3600e6,
    },
    dollars: { ...cost, all },
  };
}

function spaceDollars(gb: number, parameters: Parameters): number {
  const first = Math.min(gb, 50_000);
  const second = Math.min(Math.max(gb - 50_000, 0), 450_000);
  const third = Math.max(gb - 500_000, 0);
  return first * parameters.gb + second * parameters.gbAbove50TB + third * parameters.gbAbove500TB;
}

/** Frame size in bytes at which a PUT costs as much as a month of storage. */
function evenSize(parameters: Parameters): number {
  return (parameters.put / 1000 / parameters.gb) * 1e9;
}

const names = Object.keys(defaults) as (keyof Parameters)[];
const { values } = parseArgs({
  options: {
    cameras: { type: "string" },
    json: { type: "boolean" },
    ...Object.fromEntries(names.map((name) => [name, { type: "string" as const }])),
  },
});
const texts = values as Record<string, string | boolean | undefined>;
const parameters: Parameters = { ...defaults };
for (const name of names) {
  if (texts[name] === undefined) continue;
  parameters[name] = Number(texts[name]);
  const isPrice = ["put", "get", "node"].includes(name) || name.startsWith("gb");
  if (!(parameters[name] > 0 || (isPrice && parameters[name] === 0))) {
    console.error(`--${name} is a number above 0, current value is ${String(texts[name])}`);
    process.exit(1);
  }
}
const fleets = texts["cameras"] === undefined ? [1000, 100_000] : [Number(texts["cameras"])];
const whole = (value: number): string => Math.round(value).toLocaleString("en-US");
for (const cameras of fleets) {
  const result = plan(cameras, parameters);
  if (texts["json"] === true) {
    console.log(JSON.stringify({ ...result, parameters }));
    continue;
  }
  const { dollars } = result;
  console.log(`${whole(cameras)} cameras, ${parameters.fps} frames a second of ${whole(parameters.frame / 1000)} KB, kept for ${parameters.days} days, ${parameters.pack} in an object
  frames     ${whole(result.framesPerSecond)} a second
  network    ${result.gigabitsPerSecond.toFixed(1)} Gbit/s into the nodes, and as much out of them
  nodes      ${result.nodes} in ${result.parts} parts, one to spare in each (${result.limit} decides)
  requests   ${whole(result.putsPerSecond)} PUT a second
  kept       ${whole(result.storedTB)} TB
  mirrors    ${whole(result.mirror.rows / 1e6)} million rows in each node: ${whole(result.mirror.gb)} GB of its disk, read in ${result.mirror.hours.toFixed(1)} hours at its start
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
if (texts["json"] !== true && parameters.put > 0 && parameters.gb > 0) {
  const even = evenSize(parameters) / 1000;
  console.log(`A PUT costs as much as ${whole(even)} KB kept for a month: frames that are kept so long and are smaller are worth
packing together, and of those kept for ${parameters.days} days all below ${whole((even * 30) / parameters.days)} KB (--pack N).`);
}
