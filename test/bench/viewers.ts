/** Measures a sender's receipt delay with and without thirty viewers. Half of them never read. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { startServer, temporaryFolder } from "../helper/program.ts";
import { jpeg } from "../helper/viewing.ts";
import type { Bench } from "./compare.ts";
import { at, throughPipe } from "./live.ts";
import { median, megabytes, start } from "./measure.ts";

const fps = 60;
const bytes = 30_000;
const viewers = 30;

/** Returns a JPEG of 640x480, padded to `bytes` bytes with a comment segment. */
async function picture(): Promise<Uint8Array> {
  const image = await jpeg(128, 640, 480);
  const comment = Buffer.alloc(bytes - image.length);
  comment.writeUInt16BE(0xfffe);
  comment.writeUInt16BE(comment.length - 2, 2);
  return Buffer.concat([image.subarray(0, 2), comment, image.subarray(2)]);
}

interface Round {
  readonly half: number;
  readonly most: number;
  readonly memory: number;
}

async function round(frames: number, frame: Uint8Array, watched: boolean): Promise<Round> {
  const server = await startServer({ dir: temporaryFolder(), http: "127.0.0.1:0" });
  const script = join(import.meta.dir, "viewers-crowd.ts");
  const crowd = watched
    ? start([process.execPath, script, server.http!, String(viewers)])
    : undefined;
  try {
    const delays = await throughPipe(server, frames, frame);
    if (delays.length !== frames) throw new Error(`${delays.length} of ${frames} are confirmed`);
    return { half: at(delays, 0.5), most: at(delays, 0.99), memory: server.peakMemory() };
  } finally {
    crowd?.kill("SIGTERM");
    await crowd?.exited;
    await server.stop();
    rmSync(server.dir, { recursive: true });
  }
}

/**
 * Alternates between runs with and without viewers. Reports median and 99th percentile of each
 * round, and their medians.
 */
export async function watching(bench: Bench): Promise<void> {
  const frames = (10 * fps) / bench.scale;
  bench.report.heading(
    `${fps} frames a second of ${bytes / 1000} KB, ${frames} of them: milliseconds from capture to receipt`,
  );
  const frame = await picture();
  const rounds: Record<string, Round[]> = { "nobody looks on": [], "30 look on": [] };
  for (let number = 0; number < bench.rounds; number++) {
    for (const name of Object.keys(rounds)) {
      rounds[name]!.push(await round(frames, frame, name === "30 look on"));
    }
  }
  for (const [name, list] of Object.entries(rounds)) {
    const [half, most] = [list.map((one) => one.half), list.map((one) => one.most)];
    const memory = Math.max(...list.map((one) => one.memory));
    bench.report.row(
      `${name.padEnd(16)} median ${median(half).toFixed(2)}, 99th percentile ${median(most).toFixed(2)}; the server held ${megabytes(memory)} MB`,
      { part: "viewers", name, median: half, percentile99: most, memory },
    );
  }
}
