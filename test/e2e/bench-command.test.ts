// `frames bench` measures and leaves nothing behind. The measured values depend on the machine.
//
// Covers: cli/bench/bench.ts, cli/bench/machine.ts, cli/bench/server.ts

import { expect, test } from "bun:test";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { journal } from "../helper/delivery.ts";
import {
  freePort,
  jsonLines,
  launch,
  makeTree,
  manyFrames,
  run,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

const sizes = [20_000, 200_000, 2_000_000];
const steps = ["read", "checksum", "store", "store-durable", "delivery"];

function all(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
}

test("frames bench measures this machine step by step and leaves its folder empty", async () => {
  const folder = temporaryFolder();
  const { code, stdout, stderr } = await run(["bench", "--dir", folder]);
  expect([code, stderr]).toEqual([0, expect.stringContaining(`Measuring in ${folder}`)]);
  const lines = stdout.trimEnd().split("\n");
  expect(lines.length).toBe(1 + sizes.length * steps.length + 1);
  for (const size of ["20.0 kB", "200 kB", "2.00 MB"]) {
    expect(lines.filter((line) => line.trimStart().startsWith(`${size}  `))).toBeArrayOfSize(5);
  }
  expect(lines.at(-1)).toMatch(/^What limits on this machine: \w/);
  expect(all(folder)).toEqual([]);
});

test("frames bench --json prints an object for each row and a summary", async () => {
  const folder = temporaryFolder();
  const { code, stdout } = await run(["bench", "--dir", folder, "--json"]);
  expect(code).toBe(0);
  const rows = jsonLines(stdout);
  const summary = rows.pop();
  expect(summary).toMatchObject({ type: "summary", limits: expect.stringContaining("limits") });
  expect(rows.map(({ frameBytes, step }) => [frameBytes, step])).toEqual(
    sizes.flatMap((size) => steps.map((step) => [size, step])),
  );
  for (const { type, frames, framesPerSecond, bytesPerSecond, seconds } of rows) {
    expect(type).toBe("measured");
    for (const figure of [frames, framesPerSecond, bytesPerSecond, seconds]) {
      expect(figure).toBeGreaterThan(0);
    }
  }
  expect(all(folder)).toEqual([]);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`frames bench removes its files after ${signal}`, async () => {
    const folder = temporaryFolder();
    using bench = launch(["bench", "--dir", folder]);
    await until("the first row", () => bench.stdout().includes("read"));
    bench.child.kill(signal);
    const { code, stderr } = await bench.ended();
    expect([code, stderr]).toEqual([20, expect.stringContaining("Interrupted")]);
    expect(all(folder)).toEqual([]);
  });
}

/** Returns the state of a store: its files with their times, and its journal. */
function storeOf({ dir }: Server): unknown {
  const names = all(dir).filter((name) => !name.includes("journal.sqlite-"));
  return {
    files: names.map((name) => [name, statSync(join(dir, name)).mtimeMs]),
    frames: journal(dir, "SELECT * FROM frames"),
    losses: journal(dir, "SELECT * FROM losses"),
  };
}

test("frames bench leaves the store of a measured server unchanged", async () => {
  const server = await startServer({ dir: join(temporaryFolder(), "store") });
  const folder = temporaryFolder();
  const to = `127.0.0.1:${server.port}`;
  const capture = makeTree(manyFrames(3, 1000));
  expect((await run(["send", capture, "--to", to])).code).toBe(0);
  const before = storeOf(server);

  const { code, stdout } = await run(["bench", to, "--dir", folder, "--json"]);
  expect(code).toBe(0);
  const rows = jsonLines(stdout);
  expect(rows.map(({ type, step }) => step ?? type)).toEqual([
    ...["round-trip", "read", "checksum", "link", "summary"],
  ]);
  expect(rows.at(-1)).toMatchObject({ address: to, notMeasured: "the server's disk" });
  for (const { bytesPerSecond } of rows.slice(1, -1)) expect(bytesPerSecond).toBeGreaterThan(0);
  expect(storeOf(server)).toEqual(before);
  expect(all(folder)).toEqual([]);

  // The server logs the session without logging every refused frame.
  const said = jsonLines(server.stdout());
  expect(said).toContainEqual(
    expect.objectContaining({ type: "session", stream: ".frames-bench" }),
  );
  expect(said.filter(({ type }) => type === "refused").length).toBeLessThan(100);
  expect(said.filter(({ type }) => type === "lost")).toEqual([]);

  const plain = await run(["bench", to, "--dir", folder]);
  expect(plain.code).toBe(0);
  expect(plain.stdout).toMatch(/^Round trip: \d+\.\d\d ms\n[^]*\nWhat limits: .*\n$/);
  expect(plain.stderr).toContain(`Not measured: the disk of ${to}`);
  expect(storeOf(server)).toEqual(before);
  expect(await server.stop()).toBe(0);
});

test("frames bench measures a server with frames below its --max-frame", async () => {
  const server = await startServer({
    dir: join(temporaryFolder(), "store"),
    args: ["--max-frame", "100K"],
  });
  const { code, stdout } = await run(["bench", `127.0.0.1:${server.port}`, "--json"]);
  expect(code).toBe(0);
  const link = jsonLines(stdout).find(({ step }) => step === "link");
  expect(link!["frameBytes"]).toBeLessThan(100 * 1024);
  const refused = jsonLines(server.stdout()).filter(({ type }) => type === "refused");
  expect(refused.length).toBeLessThan(100);
  expect(await server.stop()).toBe(0);
});

test("frames bench reports an unreachable server with the message of frames send", async () => {
  const folder = temporaryFolder();
  const capture = makeTree(manyFrames(1, 10));
  for (const to of [`127.0.0.1:${freePort()}`, "no-such-host.invalid"]) {
    const bench = await run(["bench", to, "--insecure", "--dir", folder]);
    const send = await run(["send", capture, "--to", to, "--insecure"]);
    expect([bench.code, bench.stdout, bench.stderr]).toEqual([send.code, "", send.stderr]);
    expect(bench.code).toBe(10);
  }
  expect(all(folder)).toEqual([]);
});

const wrong: [what: string, args: string[], said: string][] = [
  ["a second server", ["a", "b"], "Cannot measure b too: write one server, as in frames bench a"],
  ["an invalid address", ["a b"], "Cannot read the server: expected HOST or HOST:PORT"],
  ["a port alone", ["9726"], "a port alone is written :9726"],
  ["a flag of send", ["--to", "a"], "Unknown flag --to"],
  ["a folder that does not exist", ["--dir", "/no/such/folder"], "no such file or directory"],
];
for (const [what, args, said] of wrong) {
  test(`frames bench rejects ${what} as a usage error`, async () => {
    const { code, stdout, stderr } = await run(["bench", ...args]);
    expect([code, stdout, stderr]).toEqual([1, "", expect.stringContaining(said)]);
  });
}
