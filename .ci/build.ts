// Builds the executables into dist/.
//
//   bun .ci/build.ts                all eight
//   bun .ci/build.ts linux-arm64    only this target
//   bun .ci/build.ts --here         dist/frames for this machine

import { closeSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const folder = join(root, "dist");

/** Platforms, as Bun names them, and the executables for them in `dist/`. */
export const targets = {
  "linux-x64": "frames-linux-x64",
  "linux-arm64": "frames-linux-arm64",
  "linux-x64-musl": "frames-linux-x64-musl",
  "linux-arm64-musl": "frames-linux-arm64-musl",
  "darwin-arm64": "frames-darwin-arm64",
  "darwin-x64": "frames-darwin-x64",
  "windows-x64": "frames-windows-x64.exe",
  "windows-arm64": "frames-windows-arm64.exe",
} as const;

export type Target = keyof typeof targets;

function isTarget(name: string): name is Target {
  return Object.hasOwn(targets, name);
}

/**
 * Factor for the number of calls after which Bun compiles a function further. A short transfer ends
 * before that pays; `countBegunFrame` sets 1 in a long one. With factors of 1, 3 and 20, sixteen
 * senders of 25 MB and their server took 2.48, 2.32 and 2.32 CPU seconds for frames of 20 KB, and
 * 1.03, 0.97 and 0.91 for frames of 2 MB (medians of 3 rounds on busy cores).
 */
const jitPolicy = 20;

/** Builds an executable. Without a target it contains the running Bun, so it fits this machine. */
async function build(name: string, target?: Target): Promise<void> {
  const start = performance.now();
  const outfile = join(folder, name);
  await Bun.build({
    // The second entry point is a worker. The program finds it by its path below `root`.
    entrypoints: [join(root, "src/main.ts"), join(root, "src/http/picture/converter-worker.ts")],
    root: join(root, "src"),
    minify: true,
    // Without bytecode each start parses the program. Without splitting it loads all of it.
    bytecode: true,
    splitting: true,
    format: "esm",
    compile: {
      jitPolicy,
      ...(target === undefined ? {} : { target: `bun-${target}` }),
      outfile,
      // Files in the user's current folder must not change the program's behaviour.
      autoloadDotenv: false,
      autoloadBunfig: false,
      autoloadTsconfig: false,
      autoloadPackageJson: false,
    },
  });
  if (target === "darwin-x64") removeSignature(outfile);
  const megabytes = (Bun.file(outfile).size / 1e6).toFixed(1);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`dist/${name.padEnd(26)} ${megabytes.padStart(6)} MB ${seconds.padStart(5)} s`);
}

/**
 * Removes the code signature of an executable for Intel Macs. It is the signature of Bun's own
 * executable and no longer matches, so macOS may kill the program. Intel Macs run programs that have
 * no signature. Bun signs executables for Apple silicon itself.
 *
 * @throws if the file is not laid out as Bun writes it: signature last in its table and in the file
 */
function removeSignature(path: string): void {
  const file = openSync(path, "r+");
  try {
    const head = Buffer.alloc(64 << 10);
    readSync(file, head, 0, head.length, 0);
    const commands = head.readUInt32LE(16);
    const end = 32 + head.readUInt32LE(20);
    let linkedit = 0;
    let last = 0;
    for (let at = 32; at < end; at += head.readUInt32LE(at + 4)) {
      if (head.toString("latin1", at + 8, at + 18) === "__LINKEDIT") linkedit = at;
      last = at;
    }
    const isSignature = head.readUInt32LE(last) === 0x1d && head.readUInt32LE(last + 4) === 16;
    const start = head.readUInt32LE(last + 8);
    const fileEnd = start + head.readUInt32LE(last + 12);
    if (!isSignature || linkedit === 0 || fileEnd !== Bun.file(path).size) {
      throw new Error(`Cannot remove the code signature of ${path}: it is not the last part`);
    }
    head.fill(0, last, end);
    head.writeUInt32LE(commands - 1, 16);
    head.writeUInt32LE(last - 32, 20);
    head.writeBigUInt64LE(BigInt(start) - head.readBigUInt64LE(linkedit + 40), linkedit + 48);
    writeSync(file, head, 0, end, 0);
    ftruncateSync(file, start);
  } finally {
    closeSync(file);
  }
}

async function main(args: string[]): Promise<number> {
  const unknown = args.find((arg) => arg !== "--here" && !isTarget(arg));
  if (unknown !== undefined) {
    console.error(`build: unknown target "${unknown}"; there are --here and:`);
    console.error(`  ${Object.keys(targets).join("\n  ")}`);
    return 1;
  }
  mkdirSync(folder, { recursive: true });
  if (args.includes("--here")) {
    await build(process.platform === "win32" ? "frames.exe" : "frames");
  }
  const requested = args.filter(isTarget);
  const selected = args.length === 0 ? (Object.keys(targets) as Target[]) : requested;
  for (const target of selected) await build(targets[target], target);
  return 0;
}

if (import.meta.main) {
  try {
    process.exitCode = await main(Bun.argv.slice(2));
  } catch (error) {
    // A failed bundle throws an AggregateError, whose errors name file and line.
    for (const part of error instanceof AggregateError ? error.errors : [error])
      console.error(part);
    process.exitCode = 1;
  }
}
