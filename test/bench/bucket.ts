/** Frames into a bucket of a real engine on this machine, through nodes, and by a bare loop of Bun's client. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { environment, executable, startServer } from "../helper/program.ts";
import { type Engine, needs, startEngine } from "../helper/radosgw.ts";
import type { Bench } from "./compare.ts";
import { makeCorpus } from "./corpora.ts";
import { median, spread, timed } from "./measure.ts";

/** Objects that a node writes at a time. */
const atOnce = 32;

/** How many senders there are, whatever the number of nodes. */
const senders = 4;

export async function bucket(bench: Bench): Promise<void> {
  bench.report.heading(
    "Frames into a bucket (radosgw, in memory, on this machine) by a bare loop of Bun.S3Client.write, and through 1, 2 and 4 nodes",
  );
  if (needs !== "") return bench.report.row(`${needs}left out`, { part: "bucket", needs });
  for (const [frames, bytes] of [
    [2000, 200_000],
    [8000, 20_000],
  ] as const) {
    await rates(bench, Math.ceil(frames / bench.scale / senders) * senders, bytes);
  }
}

async function rates(bench: Bench, frames: number, bytes: number): Promise<void> {
  const from = Array.from({ length: senders }, (_, index) =>
    makeCorpus(join(bench.folder, `sender-${index}`), {
      name: "",
      frames: frames / senders,
      bytes,
    }),
  );
  for (const nodes of [1, 2, 4]) {
    const bare: number[] = [];
    const through: number[] = [];
    for (let round = 0; round < bench.rounds; round++) {
      // A new engine each time: what it holds is in memory, and slows it down.
      bare.push(frames / (await withEngine((engine) => loop(engine, frames, bytes, nodes))));
      through.push(frames / (await withEngine((engine) => deliver(engine, from, frames, nodes))));
    }
    const ratio = median(through) / median(bare);
    bench.report.row(
      `${frames} x ${bytes / 1000} KB, ${nodes} nodes: ${spread(through)} frames/s; loop, ${nodes * atOnce} at a time: ${spread(bare)}; ratio ${ratio.toFixed(2)}`,
      { part: "bucket", frames, bytes, nodes, through, bare, ratio },
    );
  }
  for (const folder of from) rmSync(folder, { recursive: true });
}

async function withEngine<T>(act: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await startEngine();
  try {
    await engine.bucket("frames");
    return await act(engine);
  } finally {
    await engine.stop();
  }
}

/** Seconds that the bare loop takes. */
async function loop(engine: Engine, frames: number, bytes: number, nodes: number): Promise<number> {
  const words = ["frames", "bare", frames, bytes, nodes * atOnce].map(String);
  const child = Bun.spawn(["bun", join(import.meta.dir, "bucket-loop.ts"), ...words], {
    env: environment(engine.environment),
    stdio: ["ignore", "pipe", "inherit"],
  });
  return Number(await new Response(child.stdout).text());
}

/** Seconds that senders take, start-up included; every frame must be in the bucket then. */
async function deliver(engine: Engine, from: string[], frames: number, nodes: number) {
  const env = engine.environment;
  const servers = await Promise.all(
    Array.from({ length: nodes }, () => startServer({ dir: "s3://frames/nodes", env })),
  );
  const began = performance.now();
  await Promise.all(
    from.map((folder, index) => {
      const to = `127.0.0.1:${servers[index % nodes]!.port}`;
      return timed([executable, "send", folder, "--stream", `s${index}`, "--quiet", "--to", to]);
    }),
  );
  const seconds = (performance.now() - began) / 1000;
  await Promise.all(servers.map((server) => server.stop()));
  const client = await engine.bucket("frames");
  let found = 0;
  let startAfter: string | undefined;
  do {
    const more = startAfter === undefined ? {} : { startAfter };
    const page = await client.list({ prefix: "nodes/s", ...more });
    found += page.contents?.length ?? 0;
    startAfter = page.isTruncated === true ? page.contents!.at(-1)!.key : undefined;
  } while (startAfter !== undefined);
  if (found !== frames) throw new Error(`${found} of ${frames} frames are in the bucket`);
  return seconds;
}
