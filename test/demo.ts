// Makes a capture, sends it to a server, and compares every byte that arrived with the original.
//
//   bun run demo [FOLDER] [--keep]
//
//   FOLDER    where to keep the files; default: a temporary folder
//   --keep    go on until Ctrl-C, with the page in the browser and both cameras live

import { mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

import { FrameFeed, send } from "../src/mod.ts";
import { environment, sameTree, type Server, startServer } from "./helper/program.ts";
import { drawScene } from "./helper/scene.ts";

const root = join(import.meta.dir, "..");
const command = [process.execPath, join(root, "src/main.ts")];
const frames = 30;
const sources = [
  { name: "visible", camera: "visible", width: 320, height: 240 },
  { name: "infrared", camera: "thermal", width: 160, height: 120 },
] as const;

async function makeCapture(capture: string): Promise<void> {
  for (const { name, camera, width, height } of sources) {
    mkdirSync(join(capture, name), { recursive: true });
    for (let number = 1; number <= frames; number++) {
      const bytes = drawScene(camera, width, height, number / frames);
      await Bun.write(join(capture, name, `${number}.png`), bytes);
    }
  }
}

/** Sends the capture and compares what arrived. */
async function deliver(capture: string, server: Server): Promise<void> {
  const args = ["send", capture, "--stream", "demo", "--to", `127.0.0.1:${server.port}`];
  console.log(`frames ${args.join(" ")}\n`);
  const sender = Bun.spawn([...command, ...args], {
    env: environment(),
    stdio: ["ignore", "inherit", "inherit"],
  });
  const code = await sender.exited;
  if (code !== 0) throw new Error(`frames send ended with ${code}\n${server.stderr()}`);

  const differences = sameTree(capture, join(server.dir, "demo"));
  if (differences.length > 0) {
    throw new Error(`what arrived is not what was sent:\n  ${differences.join("\n  ")}`);
  }
  console.log(`\nEvery byte of all ${frames * sources.length} frames arrived. They lie in:`);
  for (const { name } of sources) {
    const folder = join(server.dir, "demo", name);
    console.log(`  ${folder}  (${readdirSync(folder).length} frames)`);
  }
}

/** Plays the capture as two live cameras, ten frames a second, until Ctrl-C. */
async function showLive(capture: string, server: Server): Promise<void> {
  const stopped = Promise.withResolvers<void>();
  const sending = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stopped.resolve());
  void server.process.exited.then((code) => {
    stopped.reject(new Error(`frames serve ended with ${code}\n${server.stderr()}`));
  });
  console.log(`\nSee both cameras live at http://${server.http}/ (Ctrl-C ends it)`);
  const cameras = await Promise.all(
    sources.map(async ({ name }) => {
      const feed = new FrameFeed();
      const pictures: Uint8Array[] = [];
      for (let number = 1; number <= frames; number++) {
        pictures.push(await Bun.file(join(capture, name, `${number}.png`)).bytes());
      }
      const sent = send(feed, {
        to: `127.0.0.1:${server.port}`,
        stream: "demo-live",
        source: name,
        policy: "latest:30",
        signal: sending.signal,
      });
      let shot = 0;
      const timer = setInterval(() => {
        const bytes = pictures[shot++ % frames]!;
        void feed.push({ bytes, captured: BigInt(Date.now()) * 1_000_000n });
      }, 100);
      return { sent, timer };
    }),
  );
  try {
    await Promise.race([stopped.promise, ...cameras.map(({ sent }) => sent)]);
  } finally {
    // Ctrl-C in a terminal stops the server as well, so nothing more can be delivered.
    sending.abort();
    for (const { timer } of cameras) clearInterval(timer);
    await Promise.allSettled(cameras.map(({ sent }) => sent));
  }
}

async function main(workFolder: string, isKept: boolean): Promise<void> {
  const capture = join(workFolder, "capture");
  const received = join(workFolder, "received");
  console.log(`Making ${frames} frames of each of ${sources.length} sources in ${capture}`);
  await makeCapture(capture);

  const server = await startServer({
    dir: received,
    command,
    // The live cameras could fill the disk, so the oldest frames go after that many bytes.
    ...(isKept ? { http: "127.0.0.1:0", args: ["--keep", "1G"] } : {}),
  });
  console.log(`frames serve listens on 127.0.0.1:${server.port}`);
  try {
    await deliver(capture, server);
    if (isKept) await showLive(capture, server);
  } finally {
    await server.stop();
  }
}

try {
  const { values, positionals } = parseArgs({
    options: { keep: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const folder = positionals[0] ?? mkdtempSync(join(tmpdir(), "frames-demo-"));
  mkdirSync(folder, { recursive: true });
  await main(resolve(folder), values.keep);
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
