// Stores in a bucket from a user's view: the executables, a real S3 engine, and HAProxy before
// several nodes.
//
// Covers: server/playback/prefetch-playback.ts, store/verify/verify-bucket.ts

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { BucketStore } from "../../src/store/bucket/bucket-store.ts";
import { parseBucketLocation } from "../../src/store/bucket/location.ts";
import { expectCode, summaryOf } from "../helper/delivery.ts";
import { needs as needsBalancer, startBalancer } from "../helper/haproxy.ts";
import {
  freePort,
  jsonLines,
  launch,
  type Launched,
  makeTree,
  manyFrames,
  run,
  sameTree,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { type Engine, needs as needsEngine, startEngine } from "../helper/radosgw.ts";
import { startRelay } from "../helper/relay.ts";
import { until } from "../helper/time.ts";

let engine: Engine | undefined;
let bucket: Bun.S3Client;

if (needsEngine === "") {
  beforeAll(async () => {
    engine = await startEngine();
    bucket = await engine.bucket("frames");
  });
  afterAll(() => engine?.stop());
}

function holds(behaviour: string, check: () => Promise<void>, needs = needsEngine): void {
  test.skipIf(needs !== "")(`${needs}${behaviour}`, check);
}

/** Runs beside others that wait as long. */
function holdsBeside(behaviour: string, check: () => Promise<void>, needs = needsEngine): void {
  test.concurrent.skipIf(needs !== "")(`${needs}${behaviour}`, check);
}

let prefixes = 0;

/** Returns an unused prefix of the bucket. */
function newPrefix(): string {
  return `part${++prefixes}`;
}

const serveBucket = (prefix: string, ...args: string[]) =>
  startServer({ dir: `s3://frames/${prefix}`, env: engine!.environment, args });

/** A way to the engine that can be cut, while others go on using it; and a server behind it. */
async function newWay() {
  const to = { host: "127.0.0.1", port: Number(new URL(engine!.endpoint).port) };
  let relay = await startRelay({ to });
  const { port } = relay;
  const env = { ...engine!.environment, AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${port}` };
  return {
    serve: (prefix: string) => startServer({ dir: `s3://frames/${prefix}`, env }),
    stop: () => relay.stop(),
    start: async () => void (relay = await startRelay({ to, port })),
    freeze: () => relay.freeze(),
    thaw: () => relay.thaw(),
  };
}

/** Returns the keys below a prefix, except hidden ones. */
async function pathsIn(prefix: string): Promise<string[]> {
  const found: string[] = [];
  let startAfter = `${prefix}/.frames0`;
  for (;;) {
    const page = await bucket.list({ prefix: `${prefix}/`, startAfter });
    found.push(...(page.contents ?? []).map(({ key }) => key.slice(prefix.length + 1)));
    if (page.isTruncated !== true) return found;
    startAfter = page.contents!.at(-1)!.key;
  }
}

/** Expects exactly these frames in the bucket, byte for byte, each with a journal row. */
async function expectFrames(prefix: string, expected: ReadonlyMap<string, string>): Promise<void> {
  expect((await pathsIn(prefix)).toSorted()).toEqual([...expected.keys()].toSorted());
  const wrong: string[] = [];
  const left = [...expected];
  const compare = async () => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      const [path, file] = next;
      const lies = await bucket.file(`${prefix}/${path}`).bytes();
      if (!readFileSync(file).equals(lies)) wrong.push(path);
    }
  };
  await Promise.all(Array.from({ length: 8 }, compare));
  expect(wrong).toEqual([]);
  const place = parseBucketLocation(`s3://frames/${prefix}`, engine!.environment);
  const store = await BucketStore.open(place, { clock: Date.now });
  try {
    const database = new Database(store.journalPath, { readonly: true });
    const rows = database
      .query<{ path: string }, []>(
        "SELECT stream || '/' || source || '/' || name AS path FROM frames",
      )
      .all();
    database.close();
    expect(rows.map(({ path }) => path).toSorted()).toEqual([...expected.keys()].toSorted());
  } finally {
    await store.close();
  }
}

/** Returns the expected frames of a tree in a stream. */
function expectedOf(tree: string, names: readonly string[], stream: string): [string, string][] {
  return names.map((name) => [`${stream}/${name}`, join(tree, name)]);
}

describe("frames serve s3://BUCKET/PREFIX", () => {
  holds("a server with a bucket stores frames once, and ls and verify read them", async () => {
    const prefix = newPrefix();
    const files = manyFrames(50, 20_000);
    const tree = makeTree(files);
    const server = await serveBucket(prefix);
    const to = ["--to", `127.0.0.1:${server.port}`, "--json"];
    const first = await run(["send", tree, ...to]);
    expectCode(first, 0);
    expect(summaryOf(first)).toMatchObject({ frames: 50, store: `s3://frames/${prefix}` });
    expect(first.stderr).toContain(`Stored in s3://frames/${prefix}/run7`);
    const again = await run(["send", tree, ...to]);
    expect(summaryOf(again)).toMatchObject({ frames: 50, present: 50, bytes: 0 });
    writeFileSync(join(tree, "visible/1.png"), "other bytes");
    expectCode(await run(["send", tree, ...to]), 23);
    expectCode(await run(["send", tree, ...to, "--on-conflict", "replace"]), 0);
    // Read while the store is served.
    const env = engine!.environment;
    const listed = await run(["ls", "--dir", server.dir, "--json"], { env });
    expect(jsonLines(listed.stdout)).toMatchObject([
      { stream: "run7", source: "visible", frames: 50 },
    ]);
    expectCode(await run(["verify", server.dir], { env }), 0);
    expect(await server.stop()).toBe(0);
    await expectFrames(prefix, new Map(expectedOf(tree, Object.keys(files), "run7")));
    await bucket.write(`${prefix}/run7/visible/2.png`, Buffer.alloc(20_000));
    await bucket.write(`${prefix}/run7/visible/3.png`, "short");
    await bucket.write(`${prefix}/run7/visible/new.png`, "nobody knows it");
    await bucket.delete(`${prefix}/run7/visible/4.png`);
    const verified = await run(["verify", server.dir, "--json"], { env });
    expect(verified.code).toBe(23);
    const found = { frames: 50, damaged: 2, missing: 1, unknown: 1, lost: 0 };
    expect(jsonLines(verified.stdout).at(-1)).toMatchObject({ type: "summary", ...found });
    expectCode(await run(["ls", "--dir", "s3://frames/nothing", "--json"], { env }), 1);
    expect(await bucket.file(`${prefix}/run7/visible/1.png`).stat()).toMatchObject({
      type: "image/png",
    });
  });

  holds("a server with a bucket stores the frames of send --move", async () => {
    const prefix = newPrefix();
    const tree = makeTree({ "visible/1.png": 1000, "visible/2.png": 1000 });
    const server = await serveBucket(prefix);
    const sent = await run(["send", tree, "--move", "--to", `127.0.0.1:${server.port}`]);
    expectCode(sent, 0);
    await server.stop();
    expect(await pathsIn(prefix)).toEqual(["run7/visible/1.png", "run7/visible/2.png"]);
  });

  holds(
    "a server with a bucket takes less than 250 MB while it stores a frame of 320 MB",
    async () => {
      const prefix = newPrefix();
      const size = 320_000_000;
      const files = { "visible/1.raw": size, "visible/2.png": 10 };
      const tree = makeTree(files);
      const server = await serveBucket(prefix, "--max-frame", "1G");
      const sent = await run(["send", tree, "--to", `127.0.0.1:${server.port}`]);
      expectCode(sent, 0);
      expect(server.peakMemory()).toBeLessThan(250e6);
      await server.stop();
      await expectFrames(prefix, new Map(expectedOf(tree, Object.keys(files), "run7")));
      rmSync(tree, { recursive: true });
      await bucket.delete(`${prefix}/run7/visible/1.raw`);
    },
  );

  holds("frames serve refuses an S3 service that ignores If-None-Match", async () => {
    // It keeps everything, and reads no conditions.
    const objects = new Map<string, Uint8Array>();
    const careless = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      async fetch(request) {
        const { pathname } = new URL(request.url);
        if (request.method === "PUT") {
          objects.set(pathname, new Uint8Array(await request.arrayBuffer()));
          return new Response("", { headers: { ETag: '"0123456789abcdef0123456789abcdef"' } });
        }
        return new Response(objects.get(pathname) as Uint8Array<ArrayBuffer>);
      },
    });
    const env = {
      ...engine!.environment,
      AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${careless.port}`,
    };
    const served = await run(["serve", "s3://frames/x", "--listen", "127.0.0.1:0"], { env });
    expectCode(served, 11);
    expect(served.stderr).toContain("If-None-Match");
    await careless.stop(true);
  });

  holds("a server waits until a full bucket has room again", async () => {
    const prefix = newPrefix();
    const files = manyFrames(20, 20_000);
    const tree = makeTree(files);
    const server = await serveBucket(prefix);
    await engine!.limit(1);
    try {
      using sending = launch(["send", tree, "--to", `127.0.0.1:${server.port}`]);
      await until("the reason", () =>
        sending.stderr().includes("the bucket is full; delete objects, or raise its quota"),
      );
      expect(sending.child.exitCode).toBeNull();
      await engine!.limit(undefined);
      const { code, stderr } = await sending.ended();
      expectCode({ code, stderr }, 0);
    } finally {
      await engine!.limit(undefined);
    }
    await server.stop();
    await expectFrames(prefix, new Map(expectedOf(tree, Object.keys(files), "run7")));
  });

  holdsBeside("frames serve reports a wrong bucket, key or endpoint in one line", async () => {
    const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const good = engine!.environment;
    const cases: [
      what: string,
      place: string,
      env: Record<string, string>,
      code: number,
      says: RegExp,
    ][] = [
      [
        "an unknown key",
        "s3://frames/x",
        { ...good, AWS_ACCESS_KEY_ID: "nobody" },
        11,
        /check AWS_ACCESS_KEY_ID/,
      ],
      [
        "a wrong secret",
        "s3://frames/x",
        { ...good, AWS_SECRET_ACCESS_KEY: "a-secret" },
        11,
        /check AWS_SECRET_ACCESS_KEY/,
      ],
      ["no bucket", "s3://nothing-here", good, 11, /the bucket does not exist/],
      [
        "nobody there",
        "s3://frames/x",
        { ...good, AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${freePort()}` },
        11,
        /connection refused/,
      ],
      [
        "a silent one",
        "s3://frames/x",
        { ...good, AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${silent.port}` },
        11,
        /did not answer in time/,
      ],
      [
        "no keys",
        "s3://frames/x",
        { ...good, AWS_SECRET_ACCESS_KEY: "" },
        1,
        /set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY/,
      ],
      [
        "a strange endpoint",
        "s3://frames/x",
        { ...good, AWS_ENDPOINT_URL_S3: "radosgw" },
        1,
        /AWS_ENDPOINT_URL_S3 is not an endpoint/,
      ],
      ["a bad name", "s3://F", good, 1, /"F" is not a valid bucket name/],
    ];
    await Promise.all(
      cases.map(async ([what, place, env, code, says]) => {
        const served = await run(["serve", place, "--listen", "127.0.0.1:0"], { env });
        expect([what, served.code]).toEqual([what, code]);
        expect(served.stderr).toMatch(says);
        expect(served.stderr.trim().split("\n")).toHaveLength(1);
        expect(served.stderr).not.toContain("a-secret");
      }),
    );
    silent.stop(true);
    const keep = ["serve", "s3://frames/x", "--keep", "7d"];
    expectCode(await run(keep, { env: good }), 1);
  });

  holdsBeside(
    "a server waits for an S3 gateway that is down, reports why and continues",
    async () => {
      const prefix = newPrefix();
      const files = manyFrames(300, 100_000);
      const tree = makeTree(files);
      const way = await newWay();
      const server = await way.serve(prefix);
      const to = ["--to", `127.0.0.1:${server.port}`];
      using sending = launch(["send", tree, ...to, "--bwlimit", "10M"]);
      await untilStored(prefix, 20);
      way.stop();
      const reason = /The server says: Cannot .* s3:\/\/frames\/.*connection refused/g;
      // It was asked for twice at least, and found gone each time.
      await until("the reason", () => (sending.stderr().match(reason)?.length ?? 0) > 1);
      expect(sending.child.exitCode).toBeNull();
      await way.start();
      expectCode(await sending.ended(), 0);
      expect(await server.stop()).toBe(0);
      way.stop();
      await expectFrames(prefix, new Map(expectedOf(tree, Object.keys(files), "run7")));
    },
  );

  holdsBeside("a server waits for an S3 gateway that hangs, and reports why", async () => {
    const prefix = newPrefix();
    const files = manyFrames(100, 20_000);
    const tree = makeTree(files);
    const way = await newWay();
    const server = await way.serve(prefix);
    using sending = launch(["send", tree, "--to", `127.0.0.1:${server.port}`, "--fps", "50"]);
    await untilStored(prefix, 10);
    way.freeze();
    const says = () => /The server says: .*did not answer in time/.test(sending.stderr());
    await until("the reason", says);
    way.thaw();
    expectCode(await sending.ended(), 0);
    expect(await server.stop()).toBe(0);
    way.stop();
    await expectFrames(prefix, new Map(expectedOf(tree, Object.keys(files), "run7")));
  });
});

describe("Many nodes of one bucket", () => {
  holdsBeside(
    "nodes of one bucket lose no frame and store none twice when one is killed and restarted",
    async () => {
      const prefix = newPrefix();
      const folder = temporaryFolder();
      const entries = Array.from({ length: 8 }, (_, index): KeyEntry => {
        return { name: `cam-${index}`, key: generateKey(), role: "send", streams: `cam-${index}` };
      });
      const keyFile = (name: string, ...held: KeyEntry[]) => {
        const path = join(folder, name);
        writeFileSync(path, held.map(formatKey).join(""), { mode: 0o600 });
        return path;
      };
      const all = keyFile("all", ...entries);
      const ports = [freePort(), freePort()];
      const node = (index: number): Launched =>
        launch(
          [
            "serve",
            `s3://frames/${prefix}`,
            "--listen",
            `127.0.0.1:${ports[index]}`,
            "--key-file",
            all,
            "--json",
          ],
          engine!.environment,
        );
      const listens = (server: Launched) =>
        until("the node", () =>
          jsonLines(whole(server.stdout())).some(({ type }) => type === "listening"),
        );
      const nodes = [node(0), node(1)];
      await Promise.all(nodes.map(listens));
      const balancer = await startBalancer(ports);
      const files = manyFrames(100, 100_000);
      const tree = makeTree(files);
      const senders = entries.map((entry) =>
        launch([
          ...["send", "--stream", entry.name, "--source", `visible=${join(tree, "visible")}`],
          ...["--to", `127.0.0.1:${balancer.port}`, "--key-file", keyFile(entry.name, entry)],
          ...["--bwlimit", "3M"],
        ]),
      );
      try {
        await untilStored(prefix, 80);
        nodes[0]!.child.kill("SIGKILL");
        // Both nodes are in use, so some senders have to switch.
        const switched = () => senders.some(({ stderr }) => stderr().includes("trying again"));
        await until("a sender that switches", switched);
        await untilStored(prefix, 300);
        nodes.push(node(0));
        const ended = await Promise.all(senders.map((sender) => sender.ended()));
        for (const sent of ended) expectCode(sent, 0);
        const names = Object.keys(files);
        const expected = entries.flatMap(({ name }) => expectedOf(tree, names, name));
        expect(expected).toHaveLength(800);
        await expectFrames(prefix, new Map(expected));
      } finally {
        for (const one of [...senders, ...nodes]) one[Symbol.dispose]();
        balancer.stop();
      }
    },
    needsEngine + needsBalancer,
  );

  holds("a receiver at one node gets the frames of the other nodes within seconds", async () => {
    const prefix = newPrefix();
    const [one, two] = [await serveBucket(prefix), await serveBucket(prefix)];
    const copy = join(temporaryFolder(), "copy");
    const from = ["--from", `127.0.0.1:${two.port}`];
    using following = launch(["receive", "run7", copy, "--follow", "--json", ...from]);
    // Some larger than what is fetched ahead.
    const files = {
      ...manyFrames(100, 20_000),
      "visible/large.raw": 3_000_000,
      "thermal/1.raw": 10,
    };
    const tree = makeTree(files);
    expectCode(await run(["send", tree, "--to", `127.0.0.1:${one.port}`]), 0);
    await until("all frames", () => existsSync(copy) && sameTree(tree, copy).length === 0);
    following.child.kill("SIGINT");
    await following.ended();
    // Who comes later gets the same, also from the node that took them.
    const later = join(temporaryFolder(), "later");
    const received = await run(["receive", "run7", later, "--from", `127.0.0.1:${one.port}`]);
    expectCode(received, 0);
    expect(sameTree(tree, later)).toEqual([]);
    await one.stop();
    await two.stop();
  });

  holds("each node shows over HTTP the frames that the other nodes received", async () => {
    const prefix = newPrefix();
    const [one, two] = [
      await serveBucket(prefix),
      await serveBucket(prefix, "--http", "127.0.0.1:0"),
    ];
    const files = { "visible/1.png": 20_000, "visible/2.raw": 3_000_000 };
    const tree = makeTree(files);
    expectCode(await run(["send", tree, "--to", `127.0.0.1:${one.port}`]), 0);
    const listening = jsonLines(two.stdout()).find(({ type }) => type === "listening")!;
    const page = String(listening["page"] ?? `http://${String(listening["http"])}`).replace(
      /\/$/,
      "",
    );
    const frames = `${page}/streams/run7/sources/visible/frames`;
    const answer = async (name: string) => (await fetch(`${frames}/${name}`)).status;
    await until("the frame", async () => (await answer("2.raw")) === 200);
    for (const [path, size] of Object.entries(files)) {
      const name = path.split("/")[1]!;
      const shown = await fetch(`${frames}/${name}`, { redirect: "error" });
      expect([name, shown.status]).toEqual([name, 200]);
      expect((await shown.bytes()).length).toBe(size);
    }
    const part = await fetch(`${frames}/2.raw`, { headers: { Range: "bytes=1000-1999" } });
    expect(part.status).toBe(206);
    expect(Buffer.from(await part.bytes())).toEqual(
      readFileSync(join(tree, "visible/2.raw")).subarray(1000, 2000),
    );
    expect((await fetch(`${page}/readyz`)).status).toBe(200);
    expect(await (await fetch(`${page}/api/streams`)).json()).toMatchObject({
      streams: [{ name: "run7", sources: [{ name: "visible", frames: 2 }] }],
    });
    await one.stop();
    await two.stop();
  });
});

/** Waits until this many frames are in the bucket. */
async function untilStored(prefix: string, frames: number): Promise<void> {
  await until(`${frames} frames`, async () => (await pathsIn(prefix)).length >= frames, 20);
}

/** Returns complete lines only, because the last one may still be growing. */
function whole(text: string): string {
  return text.slice(0, text.lastIndexOf("\n") + 1);
}
