// Makes a capture, sends it to a server, and compares every byte that arrived with the original.
//
//   bun run demo [FOLDER]        FOLDER: where to keep the files; default: a temporary folder

import { mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { encodePng } from "./helper/png.ts";
import { environment, sameTree, startServer } from "./helper/program.ts";

const root = join(import.meta.dir, "..");
const command = [process.execPath, join(root, "src/main.ts")];
const frames = 30;
const sources = [
  { name: "visible", colour: "rgb8", width: 320, height: 240 },
  { name: "infrared", colour: "grey16", width: 160, height: 120 },
] as const;

/** Draws a warm blob that crosses a cool scene from left to right. */
function picture({ colour, width, height }: (typeof sources)[number], time: number): Uint8Array {
  const bytes = Buffer.alloc(width * height * (colour === "rgb8" ? 3 : 2));
  const centre = { x: time * width, y: height * (0.5 + 0.2 * Math.sin(time * 6)) };
  let offset = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const distance = Math.hypot(x - centre.x, y - centre.y) / height;
      const warmth = Math.exp(-((distance * 5) ** 2));
      if (colour === "rgb8") {
        bytes[offset++] = 40 + 210 * warmth;
        bytes[offset++] = 60 + (90 * y) / height + 60 * warmth;
        bytes[offset++] = 120 - 90 * warmth;
      } else {
        // Hundredths of a kelvin, as thermal cameras use them: a hand in a cool room.
        offset = bytes.writeUInt16BE(Math.round(29_115 + 1_900 * warmth), offset);
      }
    }
  }
  return encodePng({ width, height, colour, pixels: bytes });
}

async function makeCapture(capture: string): Promise<void> {
  for (const source of sources) {
    mkdirSync(join(capture, source.name), { recursive: true });
    for (let number = 1; number <= frames; number++) {
      const bytes = picture(source, number / frames);
      await Bun.write(join(capture, source.name, `${number}.png`), bytes);
    }
  }
}

async function main(workFolder: string): Promise<void> {
  const capture = join(workFolder, "capture");
  const received = join(workFolder, "received");
  console.log(`Making ${frames} frames of each of ${sources.length} sources in ${capture}`);
  await makeCapture(capture);

  const server = await startServer({ dir: received, command });
  console.log(`frames serve listens on 127.0.0.1:${server.port}`);
  try {
    const to = `127.0.0.1:${server.port}`;
    const args = ["send", capture, "--stream", "demo", "--to", to];
    console.log(`frames ${args.join(" ")}\n`);
    const sender = Bun.spawn([...command, ...args], {
      env: environment(),
      stdio: ["ignore", "inherit", "inherit"],
    });
    const code = await sender.exited;
    if (code !== 0) throw new Error(`frames send ended with ${code}\n${server.stderr()}`);
  } finally {
    await server.stop();
  }

  const differences = sameTree(capture, join(received, "demo"));
  if (differences.length > 0) {
    throw new Error(`what arrived is not what was sent:\n  ${differences.join("\n  ")}`);
  }
  console.log(`\nEvery byte of all ${frames * sources.length} frames arrived. They lie in:`);
  for (const { name } of sources) {
    const folder = join(received, "demo", name);
    console.log(`  ${folder}  (${readdirSync(folder).length} frames)`);
  }
}

try {
  const folder = Bun.argv[2];
  if (folder !== undefined) mkdirSync(folder, { recursive: true });
  await main(folder === undefined ? mkdtempSync(join(tmpdir(), "frames-demo-")) : resolve(folder));
} catch (error) {
  console.error(`demo: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
