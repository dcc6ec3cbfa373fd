// Builds the executable for this machine and runs the tests.
//
//   bun .ci/test.ts              all tests
//   bun .ci/test.ts --fast       unit tests and tests in memory
//   bun .ci/test.ts WORDS        all tests, with these words for `bun test`

import { Glob } from "bun";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { testTimeoutMs } from "../test/helper/time.ts";

const root = join(import.meta.dir, "..");

/** Folders of tests that start the executable, and helpers that start programs that take long. */
const slowFolders = ["e2e", "hostile", "chaos"];
const slowHelpers = /helper\/(?:browser|encoded-video|ffmpeg|radosgw)\.ts"/;

/** What a skipped test asks for, and the Debian packages that bring it. */
const packages: Record<string, string> = {
  bash: "bash",
  bindfs: "bindfs",
  chromium: "chromium",
  curl: "curl",
  cvlc: "vlc-bin vlc-plugin-base",
  ffmpeg: "ffmpeg",
  fish: "fish",
  "g++": "g++",
  haproxy: "haproxy",
  ip: "iproute2",
  "libc6-arm64-cross": "libc6-arm64-cross",
  mount: "mount",
  npm: "npm",
  openssl: "openssl",
  python3: "python3",
  "python3-numpy": "python3-numpy",
  "python3-opencv": "python3-opencv",
  "python3-zmq": "python3-zmq",
  "qemu-user-static": "qemu-user-static",
  radosgw: "radosgw ceph-mon ceph-osd",
  rsync: "rsync",
  setpriv: "util-linux",
  shellcheck: "shellcheck",
  socat: "socat",
  sqlite3: "sqlite3",
  strace: "strace",
  systemd: "systemd",
  tar: "tar",
  unshare: "util-linux",
  wget: "wget",
  zsh: "zsh",
};

async function fastFiles(): Promise<string[]> {
  const found: string[] = [];
  for await (const path of new Glob("test/**/*.test.ts").scan(root)) {
    if (slowFolders.includes(path.split("/")[1]!)) continue;
    if (slowHelpers.test(await Bun.file(join(root, path)).text())) continue;
    found.push(`./${path}`);
  }
  return found.toSorted();
}

/** Counts skipped tests by the reason in their titles; a title says "skipped: REASON". */
function summarize(skipped: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const title of skipped) {
    const reason = /skipped: ([^:)]+)/.exec(title)?.[1]?.trim() ?? "no reason given";
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return [...counts].map(([reason, count]) => {
    const wanted = packages[reason.replace(/^needs /, "").split(" ")[0]!];
    const advice = wanted === undefined ? "" : ` (apt-get install ${wanted})`;
    return `  ${count} ${count === 1 ? "test" : "tests"}: ${reason}${advice}`;
  });
}

/** Runs a command in the project's folder and gives its exit status. */
async function run(command: string[], onLine?: (line: string) => void): Promise<number> {
  const stderr = onLine === undefined ? "inherit" : "pipe";
  const color = process.stderr.isTTY ? { FORCE_COLOR: "1" } : {};
  const env = { ...process.env, ...color };
  const child = Bun.spawn(command, { cwd: root, env, stdin: "ignore", stdout: "inherit", stderr });
  if (onLine !== undefined) {
    let rest = "";
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr as ReadableStream<Uint8Array>) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const line of lines) onLine(line);
    }
    if (rest !== "") onLine(rest);
  }
  return await child.exited;
}

async function main(words: string[]): Promise<number> {
  const isFast = words.includes("--fast");
  const passedOn = words.filter((word) => word !== "--fast");
  const built = await run(["bun", ".ci/build.ts", "--here"]);
  if (built !== 0) return built;
  const limits = [
    // Tests mostly wait for processes, so twice as many files as processors run at a time.
    `--parallel=${2 * availableParallelism()}`,
    // What preload.ts sets holds for the first file of a process only.
    `--timeout=${testTimeoutMs}`,
  ];
  const files = isFast ? await fastFiles() : [];
  const skipped: string[] = [];
  const summary: string[] = [];
  let isListed = false;
  const code = await run(["bun", "test", ...limits, ...passedOn, ...files], (line) => {
    const text = Bun.stripANSI(line);
    // The runner lists skipped and failed tests once more at its end.
    isListed ||= /^\d+ tests? (?:skipped|failed):$/.test(text);
    if (!isListed && text.startsWith("(skip) ")) skipped.push(text);
    // Its last lines are held back, because they have to stay the last.
    if (summary.length > 0 || /^ *\d+ pass$/.test(text)) summary.push(line);
    else console.error(line);
  });
  if (skipped.length > 0) console.error(["Skipped:", ...summarize(skipped), ""].join("\n"));
  console.error(summary.join("\n"));
  return code;
}

process.exitCode = await main(Bun.argv.slice(2));
