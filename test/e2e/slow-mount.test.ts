// Folders that another process provides and that may not answer, and which thread reads a folder.
//
// Covers: common/local-disk.ts, source/files/file-frame.ts

import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { canTrace, unlessTraced } from "../store/directory/trace.ts";
import {
  environment,
  executable,
  launch,
  makeTree,
  manyFrames,
  run,
  sameTree,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

const canMount =
  Bun.which("bindfs") !== null && existsSync("/dev/fuse") && process.getuid?.() === 0;
const unlessMounted = canMount ? "" : " (skipped: needs bindfs and root)";

const mounts: { path: string; process: Bun.Subprocess }[] = [];

afterEach(async () => {
  for (const { path, process } of mounts.splice(0)) {
    process.kill("SIGCONT");
    Bun.spawnSync(["fusermount", "-u", "-z", path]);
    await process.exited;
  }
});

/** Mounts a folder at another path through a process. */
async function mount(folder: string): Promise<{ path: string; process: Bun.Subprocess }> {
  const path = join(temporaryFolder(), "run7");
  mkdirSync(path);
  const process = Bun.spawn(["bindfs", "-f", folder, path], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  const mounted = { path, process };
  mounts.push(mounted);
  await until("the mount", () => readdirSync(path).length > 0);
  return mounted;
}

/** Sends a folder and returns the threads that opened or read its frames: `main` or `other`. */
async function readersOf(folder: string): Promise<Set<string>> {
  const dir = temporaryFolder();
  const server = await startServer({ dir });
  const calls = join(temporaryFolder(), "calls");
  const tracer = ["strace", "-f", "-y", "-e", "trace=openat,pread64,read", "-o", calls, executable];
  const sent = await run(["send", folder, "--to", `127.0.0.1:${server.port}`], { command: tracer });
  await server.stop();
  expect([sent.code, sent.stderr]).toEqual([0, expect.anything()]);
  expect(sameTree(folder, join(dir, "run7"))).toEqual([]);
  const lines = readFileSync(calls, "utf8").split("\n");
  const main = lines[0]!.split(" ")[0];
  const reads = lines.filter((line) => line.includes(".png") && !line.includes("unfinished"));
  return new Set(reads.map((line) => (line.split(" ")[0] === main ? "main" : "other")));
}

describe("the thread that reads frames", () => {
  const files = { ...manyFrames(3, 20_000), "visible/large.png": 3_000_000 };

  test.skipIf(!canTrace)(`it is the main thread on a local disk${unlessTraced}`, async () => {
    // A machine that is busy with other work may be slow enough to be taken for a slow disk.
    expect(await readersOf(makeTree(files))).toContain("main");
  });

  test.skipIf(!canTrace || !canMount)(
    `it is never the main thread on a mount of another process${unlessTraced}${unlessMounted}`,
    async () => {
      const { path } = await mount(makeTree(files));
      expect(await readersOf(path)).toEqual(new Set(["other"]));
    },
  );
});

describe.skipIf(!canMount)(`a mount that stops answering${unlessMounted}`, () => {
  test("the sender answers to Ctrl-C while it waits for the mount", async () => {
    const { path, process } = await mount(makeTree(manyFrames(200, 100_000)));
    const dir = temporaryFolder();
    const server = await startServer({ dir });
    const to = `127.0.0.1:${server.port}`;
    using sender = launch(["send", path, "--to", to, "--bwlimit", "1MB"], environment());
    const stored = join(dir, "run7/visible");
    await until("a frame", () => existsSync(stored) && readdirSync(stored).length > 2);
    process.kill("SIGSTOP");
    let before = -1;
    // The frames that were read before are sent.
    await until(
      "the sender to wait for the mount",
      () => before === (before = readdirSync(stored).length),
      1000,
    );
    sender.child.kill("SIGINT");
    const isOver = () => sender.child.exitCode !== null;
    await until("its last message", () => isOver() || sender.stderr().includes("Interrupted: "));
    // The system closes a file that is open there, and waits for the mount to do so.
    process.kill("SIGCONT");
    expect((await sender.ended()).code).toBe(20);
    await server.stop();
  });
});
