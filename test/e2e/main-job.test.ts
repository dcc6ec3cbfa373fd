// The main job from a user's view: the executables, real files, and every byte compared with the
// original.
//
// Covers: cli/ls.ts, cli/output/transfer-summary.ts, cli/send.ts, version.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

import { journal, type Json, summaryOf } from "../helper/delivery.ts";
import {
  executable,
  type Finished,
  jsonLines,
  peerMissing,
  run,
  sameTree,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { startRelay } from "../helper/relay.ts";
import { videoCorpus, videoNeeds } from "../helper/video.ts";

const megabyte = 1e6;
/** Memory limit of both sides, for any amount of data. */
const mostMemory = 150 * megabyte;

/** A mebibyte of noise: incompressible, and different at every offset. */
const noise = ((): Uint8Array => {
  const words = new Uint32Array(2 ** 18);
  let state = 0x9e3779b9;
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return new Uint8Array(words.buffer);
})();

/** Returns `size` bytes that are unique to frame `number`. */
function frameBytes(number: number, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  const start = (number * 7919) % 2 ** 19;
  for (let at = 0; at < size; at += 2 ** 19) {
    bytes.set(noise.subarray(start, start + Math.min(2 ** 19, size - at)), at);
  }
  if (size >= 4) new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}

function writeFrames(folder: string, count: number, size: number, first = 1): void {
  mkdirSync(folder, { recursive: true });
  for (let number = first; number < first + count; number++) {
    writeFileSync(join(folder, `${number}.png`), frameBytes(number, size));
  }
}

function remove(...folders: string[]): void {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}

async function withServer(
  use: (server: Server) => Promise<void>,
  options: Omit<Parameters<typeof startServer>[0], "dir"> = {},
): Promise<void> {
  const dir = temporaryFolder();
  const server = await startServer({ dir, ...options });
  try {
    await use(server);
  } finally {
    await server.stop();
    remove(dir);
  }
}

function send(server: { port: number }, path: string, ...more: string[]): Promise<Finished> {
  return run(["send", path, "--to", `127.0.0.1:${server.port}`, "--json", ...more]);
}

async function listed(dir: string, stream: string): Promise<Json[]> {
  const { code, stdout } = await run(["ls", stream, "--dir", dir, "--json"]);
  expect(code).toBe(0);
  return jsonLines(stdout);
}

/** Returns metadata that would change if a stored file was written again. */
function identities(folder: string): string[] {
  return (readdirSync(folder, { recursive: true }) as string[]).sort().map((name) => {
    const { ino, mtimeNs, ctimeNs, size } = statSync(join(folder, name), { bigint: true });
    return `${name} ${ino} ${mtimeNs} ${ctimeNs} ${size}`;
  });
}

/** Prints figures for information only. */
function note(text: string): void {
  if (process.env["FRAMES_NOTES"] === "1") console.log(`      ${text}`);
}

function memory(server: Server, ...senders: Finished[]): void {
  const atServer = server.peakMemory();
  const atSenders = Math.max(...senders.map(({ peakMemory }) => peakMemory));
  note(`server ${Math.round(atServer / 1e6)} MB, sender ${Math.round(atSenders / 1e6)} MB`);
  expect(atServer).toBeLessThan(mostMemory);
  expect(atSenders).toBeLessThan(mostMemory);
}

for (const [count, size] of [
  [20_000, 20_000],
  [2_000, 200_000],
  [200, 2_000_000],
] as const) {
  describe(`${count} frames of ${size / 1000} kB`, () => {
    let corpus: string;
    let server: Server;
    let sent: Finished;
    beforeAll(async () => {
      corpus = temporaryFolder();
      writeFrames(join(corpus, "visible"), count, size);
      server = await startServer({ dir: temporaryFolder() });
      sent = await send(server, corpus, "--stream", "run");
    });
    afterAll(async () => {
      await server.stop();
      remove(corpus, server.dir);
    });

    test(`${count} frames of ${size / 1000} kB arrive byte for byte in bounded memory, and summary and list agree`, async () => {
      expect(sent.stderr).toContain(`${count} frames delivered`);
      expect(sent.code).toBe(0);
      expect(summaryOf(sent)).toMatchObject({
        stream: "run",
        frames: count,
        bytes: count * size,
        present: 0,
        refused: 0,
        lost: 0,
        interrupted: false,
      });
      expect(sameTree(corpus, join(server.dir, "run"))).toEqual([]);
      expect(await listed(server.dir, "run")).toMatchObject([
        { stream: "run", source: "visible", frames: count, bytes: count * size, lost: 0 },
      ]);
      memory(server, sent);
    });

    test(`${count} frames of ${size / 1000} kB go out as MCAP and come in again as they were`, async () => {
      expect(sent.code).toBe(0);
      await roundTrip(server, "run", corpus);
    });

    if (size > 20_000) return;
    const needs = tracerMissing() ? "skipped: needs strace: " : "";
    test.skipIf(needs !== "")(
      `${needs}${count} frames of ${size / 1000} kB take one connection and fewer than 2,000 writes`,
      async () => {
        await withServer(async (server) => {
          const trace = join(server.dir, ".trace");
          const words = ["strace", "-f", "--seccomp-bpf", "-o", trace];
          const calls = "-etrace=connect,write,writev,pwrite64,sendto,sendmsg,sendmmsg,sendfile";
          const command = [...words, calls, executable];
          const args = ["send", corpus, "--stream", "run", "--to", `127.0.0.1:${server.port}`];
          const sent = await run(args, { command });
          expect(sent.stderr).toContain(`${count} frames delivered`);
          expect(sent.code).toBe(0);
          const lines = readFileSync(trace, "latin1").split("\n");
          const connects = lines.filter((line) => line.includes(`htons(${server.port})`));
          const writes = lines.filter((line) =>
            /^\d+ +(?:write|writev|pwrite64|send\w+)\(/.test(line),
          );
          note(`${writes.length} write calls`);
          expect(connects.length).toBe(1);
          // The data needs at least this many writes; fewer mean that the trace is incomplete.
          expect(writes.length).toBeGreaterThan(20);
          expect(writes.length).toBeLessThan(2_000);
        });
      },
    );
  });
}

/** Exports a stream as MCAP, imports it under another name, and compares files and rows. */
async function roundTrip(server: Server, stream: string, original: string): Promise<void> {
  const folder = temporaryFolder();
  try {
    const recording = join(folder, "run.mcap");
    const from = ["--from", `127.0.0.1:${server.port}`];
    const received = await run(["receive", stream, recording, ...from, "--json"]);
    expect(received.code).toBe(0);
    const back = await send(server, recording, "--stream", "back");
    expect(back.code).toBe(0);
    memory(server, received, back);
    expect(sameTree(original, join(server.dir, "back"))).toEqual([]);
    const rows = (name: string) =>
      journal<Json>(
        server.dir,
        `SELECT source, name, seq, captured, bytes, crc32, meta, format FROM frames
         WHERE stream = '${name}' ORDER BY source, seq`,
      );
    expect(Bun.hash(Bun.inspect(rows("back")))).toBe(Bun.hash(Bun.inspect(rows(stream))));
    expect(rows("back").length).toBe(Number(summaryOf(back)["frames"]));
    const again = await send(server, recording, "--stream", "back");
    expect(summaryOf(again)).toMatchObject({ bytes: 0, present: rows("back").length });
  } finally {
    remove(folder);
  }
}

/** Returns whether tracing is unavailable; containers may include the tracer but forbid tracing. */
function tracerMissing(): boolean {
  return peerMissing("strace") || spawnSync("strace", ["-f", "--seccomp-bpf", "true"]).status !== 0;
}

test("one frame of 1.5 GB arrives byte for byte, also through MCAP, in bounded memory at both ends", async () => {
  const corpus = temporaryFolder();
  const blocks = 1_500;
  const size = blocks * noise.length + 1;
  // The size is no multiple of any buffer, and each block contains its number, so a misplaced block
  // is detected.
  const block = Buffer.from(noise);
  const file = openSync(join(corpus, "huge.raw"), "w");
  for (let number = 0; number < blocks; number++) {
    block.writeUInt32BE(number);
    writeSync(file, block);
  }
  writeSync(file, Buffer.from("!"));
  closeSync(file);
  const expectSame = (path: string): void => {
    const stored = openSync(path, "r");
    const came = Buffer.alloc(noise.length);
    for (let number = 0; number < blocks; number++) {
      block.writeUInt32BE(number);
      const read = readSync(stored, came);
      if (read !== came.length || !came.equals(block)) {
        throw new Error(`block ${number} of ${blocks} is not what was sent`);
      }
    }
    expect(readSync(stored, came)).toBe(1);
    expect(came.toString("latin1", 0, 1)).toBe("!");
    expect(readSync(stored, came)).toBe(0);
    closeSync(stored);
  };
  try {
    await withServer(
      async (server) => {
        const sent = await send(server, corpus, "--stream", "huge", "--source", "thermal");
        remove(corpus);
        expect(sent.code).toBe(0);
        expect(summaryOf(sent)).toMatchObject({ frames: 1, bytes: size, refused: 0, lost: 0 });
        expect(await listed(server.dir, "huge")).toMatchObject([{ frames: 1, bytes: size }]);
        expectSame(join(server.dir, "huge/thermal/huge.raw"));
        memory(server, sent);
        mkdirSync(corpus, { recursive: true });
        const recording = join(corpus, "huge.mcap");
        const from = ["--from", `127.0.0.1:${server.port}`];
        const received = await run(["receive", "huge", recording, ...from]);
        expect(received.code).toBe(0);
        memory(server, received);
        remove(join(server.dir, "huge"));
        const back = await send(server, recording, "--stream", "back");
        expect(summaryOf(back)).toMatchObject({ frames: 1, bytes: size, refused: 0, lost: 0 });
        memory(server, back);
        expectSame(join(server.dir, "back/thermal/huge.raw"));
      },
      { args: ["--max-frame", "2G"] },
    );
  } finally {
    remove(corpus);
  }
});

test("a tree of three sources arrives with names of every script and frames of 0 and 1 bytes", async () => {
  const root = temporaryFolder();
  const tree = join(root, "run7");
  const files: [string, Uint8Array][] = [
    ["1.png", frameBytes(1, 30_000)],
    ["visible/empty.png", new Uint8Array(0)],
    ["visible/one.png", new Uint8Array([0x1a])],
    ["visible/größe.png", frameBytes(2, 1_000)],
    // The same letters in another Unicode form are a different file here.
    ["visible/größe.png".normalize("NFD"), frameBytes(3, 1_000)],
    ["visible/日本語 フレーム.jpg", frameBytes(4, 1_048_576)],
    ["visible/🔥 100% \"quoted\" 'it''s' $HOME `x` & a:b.png", frameBytes(5, 1_048_575)],
    [`visible/${"x".repeat(251)}.png`, frameBytes(6, 1_048_577)],
    ["infrarot/links/-rf", frameBytes(7, 5_000_000)],
    ["infrarot/links/NUL", frameBytes(8, 2)],
  ];
  for (const [name, bytes] of files) {
    mkdirSync(join(tree, name, ".."), { recursive: true });
    writeFileSync(join(tree, name), bytes);
  }
  await withServer(async (server) => {
    const sent = await send(server, tree);
    expect(sent.code).toBe(0);
    const bytes = files.reduce((sum, [, content]) => sum + content.length, 0);
    const summary = summaryOf(sent);
    expect(summary).toMatchObject({ stream: "run7", frames: files.length, bytes, present: 0 });
    // The output for programs and for people agrees.
    expect(sent.stderr).toContain(`${files.length} frames delivered`);
    expect(sent.stderr).toContain(join(server.dir, "run7"));
    // Compares the stream's folder, not the store around it, which contains more.
    expect(sameTree(tree, join(server.dir, "run7"))).toEqual([]);
    const rows = await listed(server.dir, "run7");
    expect(rows.map(({ source, frames }) => [source, frames])).toEqual([
      ["infrarot/links", 2],
      ["run7", 1],
      ["visible", 7],
    ]);
  });
  remove(root);
});

test("a server stores all frames of 64 senders at once, in separate streams and in one stream", async () => {
  const root = temporaryFolder();
  const senders = 64;
  const each = 200;
  for (let sender = 0; sender < senders; sender++) {
    writeFrames(join(root, `cam-${sender}`), each, 10_000, 1 + sender * each);
  }
  await withServer(async (server) => {
    // Nothing passes before all are connected.
    const relay = await startRelay({ to: { host: "127.0.0.1", port: server.port } });
    try {
      relay.freeze();
      const runs = Array.from({ length: senders }, (_, sender) => {
        const shared = sender % 2 === 0 ? ["--stream", "shared"] : [];
        const source = ["--source", `cam-${sender}`];
        return send(relay, join(root, `cam-${sender}`), ...shared, ...source);
      });
      await until("64 connections", () => relay.connections === senders);
      relay.thaw();
      const finished = await Promise.all(runs);
      expect(relay.connections).toBe(senders);
      for (const [sender, sent] of finished.entries()) {
        expect([sender, sent.code, sent.code === 0 ? "" : sent.stderr]).toEqual([sender, 0, ""]);
        expect(summaryOf(sent)).toMatchObject({ frames: each, bytes: each * 10_000, present: 0 });
        const stream = sender % 2 === 0 ? "shared" : `cam-${sender}`;
        const there = join(server.dir, stream, `cam-${sender}`);
        // Frames of a source named like its stream lie directly in the stream's folder.
        const stored = sender % 2 === 0 ? there : join(server.dir, stream);
        expect(sameTree(join(root, `cam-${sender}`), stored)).toEqual([]);
      }
      expect(await listed(server.dir, "shared")).toHaveLength(senders / 2);
      note(`server ${Math.round(server.peakMemory() / 1e6)} MB with 64 senders`);
      expect(server.peakMemory()).toBeLessThan(200 * megabyte);
    } finally {
      relay.stop();
    }
    const sessions = journal<{ sessions: number; frames: number }>(
      server.dir,
      "SELECT count(DISTINCT session) AS sessions, count(*) AS frames FROM frames",
    );
    expect(sessions).toEqual([{ sessions: senders, frames: senders * each }]);
  });
  remove(root);
});

test("frames send of the same directory again finds all frames present and replaces nothing", async () => {
  const corpus = temporaryFolder();
  writeFrames(join(corpus, "visible"), 100, 5_000);
  writeFrames(join(corpus, "infrared"), 3, 3_000_000);
  await withServer(async (server) => {
    expect((await send(server, corpus, "--stream", "run")).code).toBe(0);
    const before = identities(join(server.dir, "run"));
    const rows = "SELECT id, source, name, session, received FROM frames ORDER BY id";
    const journalled = journal(server.dir, rows);
    expect(journalled).toHaveLength(103);
    const again = await send(server, corpus, "--stream", "run");
    expect(again.code).toBe(0);
    expect(summaryOf(again)).toMatchObject({ frames: 103, present: 103, refused: 0, lost: 0 });
    expect(again.stderr).toMatch(/103 frames there already/);
    expect(identities(join(server.dir, "run"))).toEqual(before);
    expect(journal(server.dir, rows)).toEqual(journalled);
  });
  remove(corpus);
});

test("a changed frame of the same name is refused as a conflict, and the other frames arrive", async () => {
  const corpus = temporaryFolder();
  const folder = join(corpus, "visible");
  writeFrames(folder, 20, 5_000);
  await withServer(async (server) => {
    expect((await send(server, corpus, "--stream", "run")).code).toBe(0);
    const before = identities(join(server.dir, "run"));
    // One of another size, one of the same size, and a new one.
    writeFileSync(join(folder, "7.png"), "something else");
    writeFileSync(join(folder, "8.png"), frameBytes(800, 5_000));
    writeFrames(folder, 1, 5_000, 21);
    const again = await send(server, corpus, "--stream", "run");
    expect(again.code).toBe(23);
    expect(summaryOf(again)).toMatchObject({ frames: 19, present: 18, refused: 2, lost: 0 });
    const refused = jsonLines(again.stdout).filter(({ type }) => type === "undelivered");
    expect(refused).toMatchObject([
      { source: "visible", first: 7, what: "7.png", error: "conflict" },
      { source: "visible", first: 8, what: "8.png", error: "conflict" },
    ]);
    expect(again.stderr).toMatch(/7\.png.*other bytes/);
    const names = new Set(identities(join(server.dir, "run")));
    expect(before.filter((identity) => !names.has(identity))).toEqual([
      // A folder changes when a file is added to it.
      expect.stringMatching(/^visible \d/),
    ]);
    expect(readFileSync(join(server.dir, "run/visible/21.png"))).toEqual(
      Buffer.from(frameBytes(21, 5_000)),
    );
  });
  remove(corpus);
});

test("folders from several places become sources of one stream, by path or by --source name", async () => {
  const [a, b] = [join(temporaryFolder(), "a"), join(temporaryFolder(), "b")];
  writeFrames(a, 5, 1_000);
  writeFrames(join(b, "left"), 5, 1_000, 6);
  writeFileSync(join(a, "notes.txt"), "no picture");
  await withServer(async (server) => {
    const paths = await send(server, a, b, "--stream", "paths", "--include", "*.png");
    expect(paths.code).toBe(0);
    const sources = ["--source", `visible=${a}`, "--source", `infrared=${b}`];
    const to = ["--to", `127.0.0.1:${server.port}`, "--json"];
    const named = await run(["send", "--stream", "named", ...sources, "--exclude", "*.txt", ...to]);
    expect([named.code, named.code === 0 ? "" : named.stderr]).toEqual([0, ""]);
    for (const sent of [paths, named]) expect(summaryOf(sent)).toMatchObject({ frames: 10 });
    expect(readdirSync(join(server.dir, "paths")).sort()).toEqual(["a", "b"]);
    expect(readdirSync(join(server.dir, "named")).sort()).toEqual(["infrared", "visible"]);
    expect(sameTree(b, join(server.dir, "paths/b"))).toEqual([]);
    expect(sameTree(b, join(server.dir, "named/infrared"))).toEqual([]);
    rmSync(join(a, "notes.txt"));
    expect(sameTree(a, join(server.dir, "paths/a"))).toEqual([]);
    expect(sameTree(a, join(server.dir, "named/visible"))).toEqual([]);
  });
});

test("the frames of each source arrive in the order of their numbers", async () => {
  const corpus = temporaryFolder();
  const sources = { "cam-1": 30, "cam-2": 1_100, "cam-10": 300 };
  for (const [name, count] of Object.entries(sources)) {
    writeFrames(join(corpus, name), count, 3_000);
  }
  await withServer(async (server) => {
    expect((await send(server, corpus, "--stream", "run")).code).toBe(0);
    for (const [name, count] of Object.entries(sources)) {
      expectNumberOrder(server.dir, name, count, "png");
    }
  });
  remove(corpus);
});

/**
 * Expects journal ids in the order of arrival, 9.png before 10.png, and consecutive sequence
 * numbers.
 */
function expectNumberOrder(dir: string, source: string, count: number, ending: string): void {
  const rows = journal<{ name: string; seq: number }>(
    dir,
    `SELECT name, seq FROM frames WHERE source = '${source}' ORDER BY id`,
  );
  expect(rows).toEqual(
    Array.from({ length: count }, (_, index) => ({
      name: `${index + 1}.${ending}`,
      seq: index + 1,
    })),
  );
}

test.skipIf(videoNeeds !== undefined)(
  `${videoNeeds === undefined ? "" : `skipped: needs ${videoNeeds}: `}1,440 frames of real video in two sources arrive over one connection, in order, byte for byte, and again through MCAP`,
  async () => {
    let video: string;
    try {
      video = await videoCorpus();
    } catch (error) {
      throw new Error(
        `the video could not be fetched or made; is there a network? ${String(error)}`,
      );
    }
    await withServer(async (server) => {
      const relay = await startRelay({ to: { host: "127.0.0.1", port: server.port } });
      try {
        const sent = await send(relay, video, "--stream", "bunny");
        expect(sent.code).toBe(0);
        expect(relay.connections).toBe(1);
        expect(summaryOf(sent)).toMatchObject({ stream: "bunny", frames: 1_440, present: 0 });
        expect(sameTree(video, join(server.dir, "bunny"))).toEqual([]);
        expectNumberOrder(server.dir, "visible", 720, "jpg");
        expectNumberOrder(server.dir, "infrared", 720, "png");
        const rows = await listed(server.dir, "bunny");
        expect(rows.map(({ source, frames }) => [source, frames])).toEqual([
          ["infrared", 720],
          ["visible", 720],
        ]);
        // Both sources share the connection; neither waits until the other is done.
        const [first] = journal<{ infrared: number; visible: number }>(
          server.dir,
          `SELECT sum(source = 'infrared') AS infrared, sum(source = 'visible') AS visible
            FROM (SELECT source FROM frames ORDER BY id LIMIT 720)`,
        );
        expect(Math.min(first!.infrared, first!.visible)).toBeGreaterThan(100);
        memory(server, sent);
        await roundTrip(server, "bunny", video);
      } finally {
        relay.stop();
      }
    });
  },
);

test("a client written from the specification alone delivers frames and learns which were present already", async () => {
  const corpus = temporaryFolder();
  writeFrames(corpus, 300, 20_000);
  writeFileSync(join(corpus, "empty.png"), "");
  writeFileSync(join(corpus, "large.png"), frameBytes(1, 3_500_001));
  writeFileSync(join(corpus, "full.png"), frameBytes(2, 1_048_576));
  const files = readdirSync(corpus).map((name) => join(corpus, name));
  const client = join(import.meta.dir, "../helper/second-client.ts");
  await withServer(async (server) => {
    const deliver = () => {
      const args = [client, "127.0.0.1", `${server.port}`, "second", ...files];
      return run(args, { command: typeScriptRunner(client) });
    };
    const first = await deliver();
    expect(first.stderr).toBe("");
    const counts = { frames: 303, refused: 0, aborted: 0 };
    expect(JSON.parse(first.stdout)).toEqual({ ...counts, stored: 303, present: 0 });
    expect(sameTree(corpus, join(server.dir, "second/second-client"))).toEqual([]);
    const again = await deliver();
    expect(JSON.parse(again.stdout)).toEqual({ ...counts, stored: 0, present: 303 });
    expect(again.code).toBe(0);
  });
  remove(corpus);
});

/**
 * Returns Node if it can run TypeScript directly, because it differs more from Bun; otherwise Bun.
 */
function typeScriptRunner(program: string): string[] {
  const node = ["node", "--experimental-transform-types", "--no-warnings"];
  const tried = spawnSync(node[0]!, [...node.slice(1), program], { encoding: "utf8" });
  return tried.stderr?.startsWith("usage:") ? node : [process.execPath];
}

test("a tree arrives whole over a link with delay and over a slow link", async () => {
  const corpus = temporaryFolder();
  writeFrames(join(corpus, "visible"), 40, 5_000);
  writeFrames(join(corpus, "infrared"), 2, 150_001);
  writeFrames(join(corpus, "depth"), 1, 0);
  await withServer(async (server) => {
    const links = [{ delay: 30 }, { rate: 300_000 }];
    for (const [index, link] of links.entries()) {
      const relay = await startRelay({ to: { host: "127.0.0.1", port: server.port }, ...link });
      try {
        const sent = await send(relay, corpus, "--stream", `run${index}`);
        expect(sent.code).toBe(0);
        expect(summaryOf(sent)).toMatchObject({ frames: 43, present: 0, refused: 0, lost: 0 });
        expect(sameTree(corpus, join(server.dir, `run${index}`))).toEqual([]);
      } finally {
        relay.stop();
      }
    }
  });
  remove(corpus);
});

test("both ends detect a frozen link after --timeout, and the sender ends after --give-up-after: exit 30", async () => {
  const corpus = temporaryFolder();
  writeFrames(join(corpus, "visible"), 20, 2_000_000);
  await withServer(
    async (server) => {
      const link = { to: { host: "127.0.0.1", port: server.port }, rate: 20_000_000 };
      const relay = await startRelay(link);
      try {
        const patience = ["--timeout", "1", "--give-up-after", "3"];
        const sending = send(relay, corpus, "--stream", "run", ...patience);
        await until("the first frames", () => relay.bytes > 5_000_000);
        relay.freeze();
        const sent = await sending;
        expect(sent.stderr).toMatch(/silent.* 1 s.*expected receipts.*trying again/);
        expect(sent.stderr).toMatch(/^frames: Gave up after 3 s: .*\d+ of 20 frames confirmed/m);
        expect(sent.code).toBe(30);
        // The peer at the other end of the dead cable notices too.
        await until("the server's notice", () => server.stdout().includes('"error":"timeout"'));
        relay.thaw();
      } finally {
        relay.stop();
      }
      // Stored frames are whole, and the same command sends the rest.
      const stored = join(server.dir, "run/visible");
      for (const name of existsSync(stored) ? readdirSync(stored) : []) {
        expect(statSync(join(stored, name)).size).toBe(2_000_000);
      }
      const again = await send(server, corpus, "--stream", "run");
      expect(again.code).toBe(0);
      expect(sameTree(corpus, join(server.dir, "run"))).toEqual([]);
    },
    { args: ["--timeout", "1"] },
  );
  remove(corpus);
});
