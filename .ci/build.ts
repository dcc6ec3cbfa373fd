// Builds the executables into dist/.
//
//   bun .ci/build.ts                all eight, and dist/SHA256SUMS
//   bun .ci/build.ts linux-arm64    one of them
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

function isTarget(word: string): word is Target {
  return Object.hasOwn(targets, word);
}

/** Without a target the running Bun is what goes into the executable, so it fits this machine. */
async function build(name: string, target?: Target): Promise<void> {
  const start = performance.now();
  const outfile = join(folder, name);
  await Bun.build({
    // The second is a thread of its own: it is found by its path below the root.
    entrypoints: [join(root, "src/main.ts"), join(root, "src/http/picture/converter-worker.ts")],
    root: join(root, "src"),
    minify: true,
    // Without it the program is parsed at each start, which takes 27 ms more.
    bytecode: true,
    format: "esm",
    compile: {
      ...(target === undefined ? {} : { target: `bun-${target}` }),
      outfile,
      // Nothing that lies in the user's folder may change what the program does.
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

async function main(words: string[]): Promise<number> {
  const unknown = words.find((word) => word !== "--here" && !isTarget(word));
  if (unknown !== undefined) {
    console.error(`build: unknown target "${unknown}"; there are --here and:`);
    console.error(`  ${Object.keys(targets).join("\n  ")}`);
    return 1;
  }
  mkdirSync(folder, { recursive: true });
  if (words.includes("--here")) {
    await build(process.platform === "win32" ? "frames.exe" : "frames");
  }
  const named = words.filter(isTarget);
  const wanted = words.length === 0 ? (Object.keys(targets) as Target[]) : named;
  // Sums of executables that are about to change would only mislead.
  if (wanted.length > 0) rmSync(join(folder, "SHA256SUMS"), { force: true });
  for (const target of wanted) await build(targets[target], target);
  if (words.length === 0) await writeSums();
  return 0;
}

try {
  process.exitCode = await main(Bun.argv.slice(2));
} catch (error) {
  // A failed bundle is an AggregateError, whose parts name the file and the line.
  for (const part of error instanceof AggregateError ? error.errors : [error]) console.error(part);
  process.exitCode = 1;
}
