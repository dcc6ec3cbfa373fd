/** Measures the delay from capture to receipt for a camera of 60 frames a second. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { executable, type Server, startServer, temporaryFolder } from "../helper/program.ts";
import type { Bench } from "./compare.ts";
import { median, start } from "./measure.ts";
import { hasZeroMq, python } from "./rivals.ts";

const fps = 60;
const bytes = 200_000;

/**
 * Milliseconds from capture to receipt of each frame. A frame is captured when the writing of its
 * bytes begins.
 */
export type Delays = number[];

/**
 * Returns a picture of `bytes` bytes in a format that can be split in a pipe: PGM (netpbm), 8-bit
 * grey.
 */
function picture(): Uint8Array {
  const pixels = bytes - 15;
  const header = `P5 ${String(pixels).padStart(6)} 1 255\n`;
  const image = crypto.getRandomValues(new Uint8Array(65_536));
  const whole = new Uint8Array(header.length + pixels);
  whole.set(new TextEncoder().encode(header));
  for (let at = header.length; at < whole.length; at += image.length) {
    whole.set(image.subarray(0, whole.length - at), at);
  }
  return whole;
}

/**
 * Sends frames through a pipe into `frames send -` and reads the receipts from its `-v` output. The
 * delay includes both pipes.
 */
async function throughFrames(frames: number): Promise<Delays> {
  const server = await startServer({ dir: temporaryFolder() });
  const delays = await throughPipe(server, frames, picture());
  await server.stop();
  rmSync(server.dir, { recursive: true });
  return delays;
}

/** Sends this frame `frames` times to a running server. */
export async function throughPipe(
  server: Server,
  frames: number,
  frame: Uint8Array,
): Promise<Delays> {
  const to = ["--to", `127.0.0.1:${server.port}`];
  const args = ["send", "-", "--stream", "live", "--source", "visible", "--policy", "block"];
  const sender = Bun.spawn([executable, ...args, ...to, "-v"], {
    stdio: ["pipe", "ignore", "pipe"],
  });
  const captured: number[] = [];
  const delays: Delays = [];
  const reading = (async () => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of sender.stderr) {
      const now = performance.now();
      text += decoder.decode(chunk, { stream: true });
      const lines = text.split("\n");
      text = lines.pop()!;
      for (const line of lines) {
        const receipt = /^<- RECEIPT (\d+)$/.exec(line)?.[1];
        for (let number = delays.length; number < Number(receipt ?? 0); number++) {
          delays.push(now - captured[number]!);
        }
      }
    }
  })();
  // Waits so that the start of the process does not count as delay.
  await Bun.sleep(500);
  const began = performance.now();
  for (let number = 0; number < frames; number++) {
    const pause = began + (number * 1000) / fps - performance.now();
    if (pause > 0) await Bun.sleep(pause);
    captured.push(performance.now());
    sender.stdin.write(frame);
    await sender.stdin.flush();
  }
  await sender.stdin.end();
  await Promise.all([sender.exited, reading]);
  return delays;
}

async function throughZeroMq(frames: number): Promise<Delays> {
  const folder = temporaryFolder();
  const port = String(20_000 + Math.floor(Math.random() * 10_000));
  const script = join(import.meta.dir, "request-reply.py");
  const receiver = start([python, script, "receive", port, folder]);
  const args = [script, "pace", port, String(fps), String(frames), String(bytes)];
  const sender = start([python, ...args]);
  const output = await new Response(sender.stdout).text();
  await receiver.exited;
  rmSync(folder, { recursive: true });
  return output.trim().split("\n").map(Number);
}

export function at(delays: Delays, share: number): number {
  const sorted = delays.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}

/**
 * Alternates between the programs. Reports median and 99th percentile of each round, and their
 * medians.
 */
export async function live(bench: Bench): Promise<void> {
  const frames = (10 * fps) / bench.scale;
  bench.report.heading(
    `${fps} frames a second of ${bytes / 1000} KB, ${frames} of them: milliseconds from capture to receipt`,
  );
  const ways: [string, (frames: number) => Promise<Delays>][] = [["frames", throughFrames]];
  if (hasZeroMq()) ways.push(["ZeroMQ REQ/REP", throughZeroMq]);
  const taken = new Map(
    ways.map(([name]) => [name, { half: [] as number[], most: [] as number[] }]),
  );
  for (let round = 0; round < bench.rounds; round++) {
    for (const [name, through] of ways) {
      const delays = await through(frames);
      if (delays.length !== frames)
        throw new Error(`${name} confirmed ${delays.length} of ${frames}`);
      taken.get(name)!.half.push(at(delays, 0.5));
      taken.get(name)!.most.push(at(delays, 0.99));
    }
  }
  for (const [name, { half, most }] of taken) {
    const [typical, late] = [median(half), median(most)];
    bench.report.row(
      `${name.padEnd(16)} median ${typical.toFixed(2)}, 99th percentile ${late.toFixed(2)}`,
      { part: "live", name, median: half, percentile99: most },
    );
  }
}
