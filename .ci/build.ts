// Builds the executables into dist/.
//
//   bun .ci/build.ts                all eight, and dist/SHA256SUMS
//   bun .ci/build.ts linux-arm64    only this target
//   bun .ci/build.ts --here         dist/frames for this machine

import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const folder = join(root, "dist");

const targets = {
  "linux-x64": "frames-linux-x64",
  "linux-arm64": "frames-linux-arm64",
  "linux-x64-musl": "frames-linux-x64-musl",
  "linux-arm64-musl": "frames-linux-arm64-musl",
  "darwin-arm64": "frames-darwin-arm64",
  "darwin-x64": "frames-darwin-x64",
  "windows-x64": "frames-windows-x64.exe",
  "windows-arm64": "frames-windows-arm64.exe",
} as const;

type Target = keyof typeof targets;

function isTarget(name: string): name is Target {
  return Object.hasOwn(targets, name);
}

/** Builds an executable. Without a target it contains the running Bun, so it fits this machine. */
async function build(name: string, target?: Target): Promise<void> {
  const start = performance.now();
  const outfile = join(folder, name);
  await Bun.build({
    // The second entry point is a worker. The program finds it by its path below `root`.
    entrypoints: [join(root, "src/main.ts"), join(root, "src/http/picture/converter-worker.ts")],
    root: join(root, "src"),
    minify: true,
    // Without bytecode each start parses the program, which takes 27 ms more.
    bytecode: true,
    format: "esm",
    compile: {
      ...(target === undefined ? {} : { target: `bun-${target}` }),
      outfile,
      // Files in the user's current folder must not change the program's behaviour.
      autoloadDotenv: false,
      autoloadBunfig: false,
      autoloadTsconfig: false,
      autoloadPackageJson: false,
    },
  });
  const megabytes = (Bun.file(outfile).size / 1e6).toFixed(1);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`dist/${name.padEnd(26)} ${megabytes.padStart(6)} MB ${seconds.padStart(5)} s`);
}

async function writeSums(): Promise<void> {
  let lines = "";
  for (const name of Object.values(targets).toSorted()) {
    const hash = new Bun.CryptoHasher("sha256");
    for await (const chunk of Bun.file(join(folder, name)).stream()) hash.update(chunk);
    lines += `${hash.digest("hex")}  ${name}\n`;
  }
  await Bun.write(join(folder, "SHA256SUMS"), lines);
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
  // Checksums of executables that are about to be replaced would be wrong.
  if (selected.length > 0) rmSync(join(folder, "SHA256SUMS"), { force: true });
  for (const target of selected) await build(targets[target], target);
  if (args.length === 0) await writeSums();
  return 0;
}

try {
  process.exitCode = await main(Bun.argv.slice(2));
} catch (error) {
  // A failed bundle throws an AggregateError, whose errors name file and line.
  for (const part of error instanceof AggregateError ? error.errors : [error]) console.error(part);
  process.exitCode = 1;
}
