/**
 * Compares writing frames into a bucket through frames servers with a plain loop of Bun's client.
 * The S3 engine runs on this machine.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { environment, jsonLines, run, startServer } from "../helper/program.ts";
import { type Engine, needs, startEngine } from "../helper/radosgw.ts";
import type { Bench } from "./compare.ts";
import { makeCorpus } from "./corpora.ts";
import { median, spread } from "./measure.ts";

/** Objects that a server writes in parallel. */
const atOnce = 32;

export async function bucket(bench: Bench): Promise<void> {
  bench.report.heading(
    "Frames into a bucket (radosgw, in memory, on this machine) by a bare loop of Bun.S3Client.write, and through 1, 2 and 4 nodes",
  );
  if (needs !== "") return bench.report.row(`${needs}left out`, { part: "bucket", needs });
  for (const [frames, bytes] of [
    [4000, 200_000],
    [8000, 20_000],
  ] as const) {
    await rates(bench, frames / bench.scale, bytes);
  }
}

async function rates(bench: Bench, frames: number, bytes: number): Promise<void> {
  for (const nodes of [1, 2, 4]) {
    // Each server has its own sender.
    const from = Array.from({ length: nodes }, (_, index) => {
      const folder = join(bench.folder, `sender-${index}`);
      return makeCorpus(folder, { name: "", frames: frames / nodes, bytes });
    });
    const bare: number[] = [];
    const through: number[] = [];
    for (let round = 0; round < bench.rounds; round++) {
      // Starts a new engine each time, because the objects that it keeps in memory slow it down.
      bare.push(frames / (await withEngine((engine) => loop(engine, frames, bytes, nodes))));
      through.push(frames / (await withEngine((engine) => deliver(engine, from, frames))));
    }
    const ratio = median(through) / median(bare);
    bench.report.row(
      `${frames} x ${bytes / 1000} KB, ${nodes} nodes: ${spread(through)} frames/s; loop, ${nodes * atOnce} at a time: ${spread(bare)}; ratio ${ratio.toFixed(2)}`,
      { part: "bucket", frames, bytes, nodes, through, bare, ratio },
    );
    for (const folder of from) rmSync(folder, { recursive: true });
  }
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

/** Returns the seconds that the plain loop takes. */
async function loop(engine: Engine, frames: number, bytes: number, nodes: number): Promise<number> {
  const args = ["frames", "bare", frames, bytes, nodes * atOnce].map(String);
  const child = Bun.spawn(["bun", join(import.meta.dir, "bucket-loop.ts"), ...args], {
    env: environment(engine.environment),
    stdio: ["ignore", "pipe", "inherit"],
  });
  return Number(await new Response(child.stdout).text());
}

/**
 * Returns the seconds of the slowest sender, measured inside the process as in the plain loop.
 * Checks that every frame is in the bucket.
 */
async function deliver(engine: Engine, from: string[], frames: number): Promise<number> {
  const env = engine.environment;
  const servers = await Promise.all(from.map(() => startServer({ dir: "s3://frames/nodes", env })));
  const took = await Promise.all(
    from.map(async (folder, index) => {
      const to = ["--to", `127.0.0.1:${servers[index]!.port}`];
      const sent = await run(["send", folder, "--stream", `s${index}`, "--json", ...to]);
      if (sent.code !== 0) throw new Error(`frames send ended with ${sent.code}: ${sent.stderr}`);
      return Number(jsonLines(sent.stdout).at(-1)!["seconds"]);
    }),
  );
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
  return Math.max(...took);
}
