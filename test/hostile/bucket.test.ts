// Buckets that another program has written: rows whose names lead out, sizes that are lies, and
// objects that expand without end. The executables must not read beyond the store, must stay below
// 250 MB, and must serve the good frames, or say which object is damaged.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { crc32, gzipSync } from "node:zlib";
import { encodeEntries, type LogEntry } from "../../src/store/bucket/log-format.ts";
import { expectCode } from "../helper/delivery.ts";
import {
  jsonLines,
  makeTree,
  manyFrames,
  run,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { type Engine, needs, startEngine } from "../helper/radosgw.ts";
import { until } from "../helper/time.ts";

const maxMemoryBytes = 250e6;
const session = "d".repeat(32);

let engine: Engine | undefined;
let bucket: Bun.S3Client;

if (needs === "") {
  beforeAll(async () => {
    engine = await startEngine();
    bucket = await engine.bucket("frames");
  });
  afterAll(() => engine?.stop());
}

let prefixes = 0;

/** Makes a store with the frames `1.png` to `3.png` of `run7/visible`. Returns its prefix. */
async function goodStore(): Promise<string> {
  const prefix = `hostile${++prefixes}`;
  const server = await serve(prefix);
  const tree = makeTree(manyFrames(3, 2000));
  expectCode(await run(["send", tree, "--to", `127.0.0.1:${server.port}`]), 0);
  expect(await server.stop()).toBe(0);
  return prefix;
}

function serve(prefix: string) {
  return startServer({
    dir: `s3://frames/${prefix}`,
    env: engine!.environment,
    http: "127.0.0.1:0",
  });
}

const entryOf = (row: Partial<LogEntry & { kind: "frame" }>): LogEntry => ({
  kind: "frame",
  logSource: { stream: "run7", source: "visible", key: null, keyId: null, format: null },
  name: "lie.png",
  seq: 1,
  bytes: 10,
  crc32: crc32("precious!!"),
  captured: 1_700_000_000_000_000_000n,
  received: 1_700_000_000_000_000_000n,
  etag: "e",
  meta: null,
  is_key: null,
  ...row,
});

/** Adds a log object, as a server would name it. */
async function addLog(prefix: string, entries: readonly LogEntry[], number = 1): Promise<string> {
  const path = `.frames/journal/${session}/${String(number).padStart(10, "0")}`;
  const header = { session, first: number, last: number, node: "n" };
  await bucket.write(`${prefix}/${path}`, new Uint8Array(encodeEntries(header, entries)));
  return path;
}

function holds(behaviour: string, check: () => Promise<void>): void {
  test.skipIf(needs !== "")(`${needs}${behaviour}`, check);
}

const rowsThatLeadOut: [what: string, row: Partial<LogEntry & { kind: "frame" }>][] = [
  [
    "a stream that leads out",
    {
      logSource: { stream: "..", source: "private", key: null, keyId: null, format: null },
      name: "letter.txt",
    },
  ],
  [
    "a source that leads out",
    {
      logSource: { stream: "run7", source: "../../private", key: null, keyId: null, format: null },
      name: "letter.txt",
    },
  ],
  ["a name that leads out", { name: "../../../private/letter.txt" }],
];

for (const [what, row] of rowsThatLeadOut) {
  holds(
    `a row with ${what} is told by verify, and gives out nothing beside the prefix`,
    async () => {
      const prefix = await goodStore();
      await bucket.write("private/letter.txt", "precious!!");
      const path = await addLog(prefix, [entryOf(row), entryOf({ name: "gone.png", seq: 2 })]);
      const env = engine!.environment;
      const verified = await run(["verify", `s3://frames/${prefix}`, "--json"], { env });
      expectCode(verified, 23);
      expect(jsonLines(verified.stdout)).toMatchObject([
        { kind: "damaged", what: `line 3 of ${path}` },
        { kind: "missing", what: "run7/visible/gone.png" },
        { type: "summary", frames: 4, damaged: 1, missing: 1 },
      ]);
      const listed = await run(["ls", "--dir", `s3://frames/${prefix}`, "--json"], { env });
      expect(jsonLines(listed.stdout)).toMatchObject([
        { stream: "run7", source: "visible", frames: 4 },
      ]);
      const server = await serve(prefix);
      const to = join(temporaryFolder(), "copy");
      const received = await run(["receive", "run7", to, "--from", `127.0.0.1:${server.port}`]);
      expect(received.stderr).toContain("3 frames received");
      for (const source of ["..%2f..%2fprivate", "visible"]) {
        for (const below of [
          "frames/letter.txt",
          "frames/..%2f..%2f..%2fprivate%2fletter.txt",
          "latest",
        ]) {
          const url = `http://${server.http}/streams/run7/sources/${source}/${below}`;
          expect(await (await fetch(url)).text()).not.toContain("precious");
        }
      }
      expect(await server.stop()).toBe(0);
      expect(await bucket.file("private/letter.txt").text()).toBe("precious!!");
    },
  );
}

holds("rows with sizes that are lies cost one frame each, and no memory", async () => {
  const prefix = await goodStore();
  const large = new Uint8Array(300 << 20);
  await bucket.write(`${prefix}/run7/visible/large.png`, large);
  await bucket.write(`${prefix}/run7/visible/small.png`, "precious!!");
  await bucket.write(`${prefix}/run7/visible/empty.png`, "");
  await addLog(prefix, [
    entryOf({ name: "large.png", seq: 1, bytes: 10 }),
    entryOf({ name: "small.png", seq: 2, bytes: 2 ** 45 }),
    entryOf({ name: "empty.png", seq: 3, bytes: 5 }),
  ]);
  const server = await serve(prefix);
  const to = join(temporaryFolder(), "copy");
  const received = await run(["receive", "run7", to, "--from", `127.0.0.1:${server.port}`]);
  expect(received.stderr).toContain("3 frames received");
  for (const name of ["large.png", "small.png", "empty.png"]) {
    const url = `http://${server.http}/streams/run7/sources/visible/frames/${name}`;
    const body = await fetch(url).then(
      (response) => response.arrayBuffer(),
      () => new ArrayBuffer(0),
    );
    expect(body.byteLength).toBeLessThan(1000);
  }
  const good = await fetch(`http://${server.http}/streams/run7/sources/visible/frames/1.png`);
  expect((await good.arrayBuffer()).byteLength).toBe(2000);
  expect(server.peakMemory()).toBeLessThan(maxMemoryBytes);
  expect(await server.stop()).toBe(0);
});

/** Half a megabyte of gzip that expands to 600 MB. */
function bomb(): Uint8Array {
  const header = JSON.stringify({
    format: "frames-journal/1",
    session,
    first: 1,
    last: 1,
    node: "n",
  });
  const begin = gzipSync(`${header}\n["o","run7","visible",null,null]\n`);
  const member = gzipSync('["z"]\n'.repeat(8 << 20));
  return Buffer.concat([begin, ...Array.from({ length: 10 }, () => member)]);
}

for (const [what, path, bytes] of [
  ["a log object that expands to 600 MB", `.frames/journal/${session}/0000000001`, bomb],
  ["a segment that expands to 600 MB", `.frames/segments/${"a".repeat(32)}`, bomb],
  [
    "a log object of 100 MB",
    `.frames/journal/${session}/0000000001`,
    () => new Uint8Array(100 << 20),
  ],
  [
    "a log object of another session",
    `.frames/journal/${"e".repeat(32)}/0000000001`,
    () => encodeEntries({ session, first: 1, last: 1, node: "n" }, [entryOf({})]),
  ],
] as const) {
  holds(`${what} is an error with its key, and a running server stays below 250 MB`, async () => {
    const prefix = await goodStore();
    const server = await serve(prefix);
    await bucket.write(`${prefix}/${path}`, new Uint8Array(bytes()));
    const [env, dir] = [engine!.environment, `s3://frames/${prefix}`];
    for (const command of [
      ["verify", dir],
      ["ls", "--dir", dir],
      ["serve", dir, "--listen", "127.0.0.1:0"],
    ]) {
      const refused = await run(command, { env });
      expectCode(refused, 11);
      expect(refused.stderr).toContain(path);
    }
    // The server that runs says so too, and gives out what it knows.
    await until("the damage in the state of the server", async () => {
      return (await fetch(`http://${server.http}/readyz`)).status !== 200;
    });
    const good = await fetch(`http://${server.http}/streams/run7/sources/visible/frames/1.png`);
    expect((await good.arrayBuffer()).byteLength).toBe(2000);
    expect(server.peakMemory()).toBeLessThan(maxMemoryBytes);
    // Without the object it goes on.
    await bucket.delete(`${prefix}/${path}`);
    const tree = makeTree(manyFrames(4, 2000));
    expectCode(await run(["send", tree, "--to", `127.0.0.1:${server.port}`]), 0);
    expect(await server.stop()).toBe(0);
  });
}
