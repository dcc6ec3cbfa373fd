// The library: `import { serve, send } from "frames"` does the same job without the executable.
//
// Covers: mod.ts, client/send-options.ts

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import {
  FramesError,
  receive,
  type ReceivedFrame,
  send,
  type SendEvent,
  serve,
  type ServeEvent,
  type ServeOptions,
  type Server,
  type StoredEvent,
} from "frames";
import { run, sameTree, temporaryFolder } from "../helper/program.ts";
import { startRelay } from "../helper/relay.ts";
import { startViewed } from "../helper/viewing.ts";

const root = join(import.meta.dir, "../..");

async function withServer(
  use: (server: Server) => Promise<void>,
  options: Omit<ServeOptions, "listen"> = {},
): Promise<void> {
  const server = await serve(join(temporaryFolder(), "store"), {
    listen: "127.0.0.1:0",
    ...options,
  });
  try {
    await use(server);
  } finally {
    await server.stop();
  }
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function rows<T>(server: Server, query: string): T[] {
  const database = new Database(join(server.directory, ".frames/journal.sqlite"), {
    readonly: true,
    safeIntegers: true,
  });
  try {
    return database.query<T, []>(query).all();
  } finally {
    database.close();
  }
}

/** Returns the error with which a promise was rejected. */
async function rejection(promise: Promise<unknown>): Promise<FramesError> {
  try {
    await promise;
  } catch (error) {
    expect(error).toBeInstanceOf(FramesError);
    return error as FramesError;
  }
  throw new Error("it was expected to be rejected");
}

test("send() delivers a directory of two sources, and both ends emit events for every frame", async () => {
  const capture = temporaryFolder();
  for (const source of ["visible", "infrared"]) {
    mkdirSync(join(capture, source));
    for (let number = 1; number <= 12; number++) {
      writeFileSync(join(capture, source, `${number}.png`), `${source} ${number}`);
    }
  }
  writeFileSync(join(capture, "visible", "large.png"), Buffer.alloc(3_000_000, "large"));
  const atServer: ServeEvent[] = [];
  const atSender: SendEvent[] = [];
  const stored: StoredEvent[] = [];
  const conversation: string[] = [];
  await withServer(
    async (server) => {
      const summary = await send(capture, {
        to: server.address,
        stream: "run7",
        onEvent: (event) => atSender.push(event),
        onMessage: (direction, line) => conversation.push(`${direction} ${line}`),
      });
      expect(summary).toMatchObject({
        stream: "run7",
        frames: 25,
        present: 0,
        refused: 0,
        lost: 0,
        undelivered: [],
        interrupted: false,
        address: server.address,
        store: server.directory,
      });
      expect(summary.sources.map(({ progress: { name, settled } }) => [name, settled])).toEqual([
        ["infrared", 12],
        ["visible", 13],
      ]);
      expect(sameTree(capture, join(server.directory, "run7"))).toEqual([]);
    },
    { onEvent: (event) => atServer.push(event), onStored: (event) => stored.push(event) },
  );
  for (const source of ["visible", "infrared"]) {
    const numbers = Array.from({ length: 12 }, (_, index) => `${index + 1}.png`);
    const expected = source === "visible" ? [...numbers, "large.png"] : numbers;
    const names = stored.filter((event) => event.source === source).map(({ frame }) => frame.name);
    expect(names).toEqual(expected);
    const frames = conversation.filter((line) => line.startsWith(`-> FRAME ${source} `));
    expect(frames.map((line) => line.split(" ")[4])).toEqual(expected);
  }
  expect(atSender[0]).toEqual({ type: "found", stream: "run7", sources: 2, frames: 25 });
  expect(atSender.find(({ type }) => type === "connected")).toMatchObject({ type: "connected" });
  expect(atServer[0]).toMatchObject({ type: "session", stream: "run7" });
  expect(atServer.at(-1)).toMatchObject({
    type: "delivered",
    stream: "run7",
    counts: { frames: 25, stored: 25, present: 0, refused: 0, aborted: 0 },
  });
});

test("send() keeps the names, times and metadata of frames that a program makes", async () => {
  await withServer(async (server) => {
    const metadata = { exposure: 0.25, gain: "2 dB", größe: [1, 2] };
    async function* camera() {
      yield {
        name: "a.raw",
        bytes: bytesOf("first"),
        captured: 1_700_000_000_123_456_789n,
        metadata,
      };
      await Promise.resolve();
      yield { name: "b.raw", bytes: new Uint8Array(0), captured: -5n };
      yield { name: "c.raw", bytes: new Uint8Array(2_500_000).fill(7) };
    }
    const before = BigInt(Date.now()) * 1_000_000n;
    const options = { to: server.address, stream: "night", source: "thermal" };
    expect(await send(camera(), options)).toMatchObject({ frames: 3, bytes: 2_500_005 });
    const stored = rows<{ name: string; seq: bigint; captured: bigint; meta: string | null }>(
      server,
      "SELECT name, seq, captured, meta FROM frames ORDER BY id",
    );
    expect(stored.map(({ name, seq }) => [name, seq])).toEqual([
      ["a.raw", 1n],
      ["b.raw", 2n],
      ["c.raw", 3n],
    ]);
    expect(stored[0]!.captured).toBe(1_700_000_000_123_456_789n);
    expect(JSON.parse(stored[0]!.meta!)).toEqual(metadata);
    expect(stored[1]).toMatchObject({ captured: -5n, meta: null });
    expect(stored[2]!.captured).toBeGreaterThanOrEqual(before);
    const folder = join(server.directory, "night/thermal");
    expect(readFileSync(join(folder, "a.raw"), "utf8")).toBe("first");
    expect(Math.floor(statSync(join(folder, "a.raw")).mtimeMs / 1000)).toBe(1_700_000_000);
    expect(readFileSync(join(folder, "c.raw")).equals(Buffer.alloc(2_500_000, 7))).toBe(true);
  });
});

test("send() names frames without a name after session start, number and image format", async () => {
  await withServer(async (server) => {
    const begins = ["ffd8ffe0", "89504e470d0a1a0a", "50350a", "00000000"];
    const frames = begins.map((hex) => ({ bytes: new Uint8Array(Buffer.from(hex, "hex")) }));
    await send(frames, { to: server.address, stream: "live", source: "cam" });
    const names = readdirSync(join(server.directory, "live/cam")).sort();
    const start = names[0]!.slice(0, -"00000001.jpg".length);
    expect(start).toMatch(/^\d{8}T\d{6}\.\d{3}Z-$/);
    expect(names).toEqual(
      ["00000001.jpg", "00000002.png", "00000003.pgm", "00000004.bin"].map((end) => start + end),
    );
  });
});

test("send() lists undelivered frames in its summary instead of throwing", async () => {
  await withServer(
    async (server) => {
      const frames = [
        { name: "good", bytes: bytesOf("1") },
        { name: "../bad", bytes: bytesOf("2") },
        { name: "large", bytes: new Uint8Array(2_000) },
        { name: "wordy", bytes: bytesOf("3"), metadata: { text: "x".repeat(5_000) } },
        { name: "good", bytes: bytesOf("other") },
        { name: "last", bytes: bytesOf("4") },
      ];
      const summary = await send(frames, { to: server.address, stream: "s", source: "a" });
      expect(summary).toMatchObject({ frames: 2, refused: 2, lost: 2 });
      const reasons = { "bad-name": 1, "too-large": 1, unreadable: 1, conflict: 1 };
      expect(summary.reasons).toEqual(reasons);
      const whys = summary.undelivered.map(({ what, first, error }) => [what, first, error.code]);
      expect(whys.toSorted((a, b) => Number(a[1]) - Number(b[1]))).toEqual([
        ["../bad", 2, "bad-name"],
        ["large", 3, "too-large"],
        ["wordy", 4, "unreadable"],
        ["good", 5, "conflict"],
      ]);
      expect(readdirSync(join(server.directory, "s/a")).sort()).toEqual(["good", "last"]);
      expect(readFileSync(join(server.directory, "s/a/good"), "utf8")).toBe("1");
    },
    { maxFrame: 1_000 },
  );
});

test("send() stores the frames it took before its signal was aborted, and ends the program's iterator", async () => {
  await withServer(async (server) => {
    const stop = new AbortController();
    let returned = false;
    async function* endless() {
      try {
        for (let number = 1; ; number++) {
          yield { name: `${number}`, bytes: bytesOf(`${number}`) };
          if (number === 50) stop.abort();
        }
      } finally {
        returned = true;
      }
    }
    const summary = await send(endless(), {
      to: server.address,
      stream: "s",
      source: "a",
      signal: stop.signal,
    });
    expect(summary.interrupted).toBe(true);
    expect(summary.frames).toBeGreaterThanOrEqual(50);
    expect(readdirSync(join(server.directory, "s/a"))).toHaveLength(summary.frames);
    expect(returned).toBe(true);
  });
});

test("receive() yields frames one by one with all their fields, while the server waits", async () => {
  await withServer(async (server) => {
    const captures = Array.from({ length: 300 }, (_, index) => ({
      bytes: new Uint8Array(100_000).fill(index),
      name: `${index + 1}.bin`,
      captured: 10n + BigInt(index),
      metadata: { exposure: index },
    }));
    const to = { to: server.address, stream: "s", source: "a" };
    await send(captures, to);
    const from = server.address;
    const frames: ReceivedFrame[] = [];
    const iterator = receive("s", { from });
    for (;;) {
      const { done, value } = await iterator.next();
      if (done === true) {
        expect(value).toMatchObject({ frames: 300, bytes: 30e6, lost: 0, interrupted: false });
        break;
      }
      frames.push(value);
      // A slow consumer does not block others.
      if (frames.length === 10) {
        await send([{ bytes: bytesOf("x"), name: "x" }], { ...to, source: "b" });
      }
    }
    expect(frames.map(({ sequence }) => sequence)).toEqual(captures.map((_, index) => index + 1));
    for (const [index, frame] of frames.entries()) {
      const { name, captured, metadata, source, bytes } = frame;
      expect([name, captured, source]).toEqual([`${index + 1}.bin`, 10n + BigInt(index), "a"]);
      expect(JSON.parse(metadata)).toEqual({ exposure: index });
      expect(bytes.every((byte) => byte === index % 256)).toBe(true);
    }
    let taken = 0;
    for await (const frame of receive("s", { from, follow: true, sources: ["a"] })) {
      expect(frame.source).toBe("a");
      if (++taken === 7) break;
    }
    const names: string[] = [];
    const summary = await receive("s", {
      from,
      first: 4,
      onFrame: ({ name }) => void names.push(name),
    });
    expect(names).toEqual(["1.bin", "2.bin", "3.bin", "4.bin"]);
    expect(summary.frames).toBe(4);
  });
});

test("receive() ends its session in order when the caller leaves the iteration", async () => {
  await using viewed = await startViewed();
  const to = viewed.server.address;
  const frames = [1, 2, 3].map((number) => ({ bytes: new Uint8Array(9), name: `${number}.bin` }));
  await send(frames, { to, stream: "s", source: "a" });
  const messages: string[] = [];
  const onMessage = (direction: string, line: string) => void messages.push(direction + line);
  for await (const { sequence } of receive("s", { from: to, onMessage })) {
    if (sequence === 1) break;
  }
  // A session that waits for the frame is given up after a while, without this message.
  expect(messages.at(-1)).toMatch(/^->DONE /);
});

test("receive() rejects with the error that onFrame throws", async () => {
  await withServer(async (server) => {
    const to = { to: server.address, stream: "s", source: "a" };
    await send([{ bytes: bytesOf("1") }, { bytes: bytesOf("2") }], to);
    const failure = new Error("no room");
    const onFrame = () => {
      throw failure;
    };
    const received = receive("s", { from: server.address, onFrame });
    expect(await received.catch((error: unknown) => error)).toBe(failure);
    const missing = await rejection(receive("t", { from: server.address, onFrame }));
    expect(missing.code).toBe("missing");
  });
});

test("send() does not connect if its signal is aborted already", async () => {
  const frames = [{ bytes: bytesOf("1") }];
  const to = "127.0.0.1:1";
  const options = { to, stream: "s", source: "a", signal: AbortSignal.abort() };
  expect((await rejection(send(frames, options))).code).toBe("interrupted");
});

test("send() rejects with the error that the program's iterator throws", async () => {
  await withServer(async (server) => {
    const fault = new Error("the camera fell off");
    async function* camera() {
      yield { name: "1", bytes: bytesOf("1") };
      throw fault;
    }
    const failed = send(camera(), { to: server.address, stream: "s", source: "a" });
    expect(await failed.catch((error: unknown) => error)).toBe(fault);
  });
});

test("send() and serve() reject with errors that have a code", async () => {
  const frames = [{ bytes: bytesOf("1") }];
  const here = { stream: "s", source: "a" };
  const unreachable = await rejection(send(frames, { to: "127.0.0.1:1", ...here }));
  expect(unreachable).toMatchObject({ code: "unreachable", exitCode: 10 });
  expect((await rejection(send(frames, { ...here, stream: "../s" }))).code).toBe("usage");
  expect((await rejection(send("/nonexistent/folder"))).code).toBe("missing");
  expect((await rejection(send(frames))).code).toBe("usage");
  const folder = temporaryFolder();
  const keyFile = join(folder, "no-keys");
  const open = serve(join(folder, "store"), { listen: "0.0.0.0:0", keyFile });
  expect((await rejection(open)).code).toBe("no-key");
  await withServer(async (server) => {
    const second = serve(server.directory, { listen: "127.0.0.1:0" });
    expect((await rejection(second)).code).toBe("locked");
  });
});

test("stop() tells senders and frees port and store, and the senders resume at the next server", async () => {
  const directory = join(temporaryFolder(), "store");
  const server = await serve(directory, { listen: "127.0.0.1:0" });
  const { promise: begun, resolve } = Promise.withResolvers<void>();
  const { promise: goOn, resolve: letGo } = Promise.withResolvers<void>();
  const { promise: waits, resolve: waiting } = Promise.withResolvers<FramesError>();
  async function* camera() {
    for (let number = 1; number <= 20; number++) {
      yield { name: `${number}`, bytes: bytesOf(`${number}`) };
    }
    resolve();
    await goOn;
    yield { name: "last", bytes: bytesOf("last") };
  }
  const sending = send(camera(), {
    to: server.address,
    stream: "s",
    source: "a",
    onEvent: (event) => void (event.type === "waiting" && waiting(event.reason)),
  });
  await begun;
  await server.stop();
  expect((await waits).code).toBe("stopping");
  const again = await serve(directory, { listen: server.address });
  expect(again.address).toBe(server.address);
  letGo();
  expect(await sending).toMatchObject({ frames: 21, lost: 0, refused: 0, interrupted: false });
  expect((await sending).retries).toBeGreaterThanOrEqual(1);
  expect(readdirSync(join(directory, "s/a"))).toHaveLength(21);
  await again.stop();
  await again.stop();
});

test("send() reports a timeout on a silent link, and rejects with given-up after giveUpAfter", async () => {
  await withServer(async (server) => {
    const relay = await startRelay({ to: { host: server.host, port: server.port } });
    try {
      async function* camera() {
        yield { name: "1", bytes: bytesOf("1") };
        relay.freeze();
        yield { name: "2", bytes: bytesOf("2") };
      }
      const to = `127.0.0.1:${relay.port}`;
      const reasons: FramesError[] = [];
      const error = await rejection(
        send(camera(), {
          ...{ to, stream: "s", source: "a", timeout: 1_000, giveUpAfter: 3_000 },
          onEvent: (event) => void (event.type === "waiting" && reasons.push(event.reason)),
        }),
      );
      expect(reasons[0]?.code).toBe("timeout");
      expect(reasons[0]?.message).toMatch(/expected (?:receipts|DONE)/);
      expect(error.code).toBe("given-up");
      expect(error.exitCode).toBe(30);
    } finally {
      relay.stop();
    }
  });
});

/** Extracts the examples in the comments of a file as programs. */
function examplesIn(file: string): string[] {
  const text = readFileSync(join(root, file), "utf8");
  return [...text.matchAll(/^ \* ```ts\n((?: \*.*\n)*?) \* ```$/gm)].map(([, lines]) =>
    lines!.replace(/^ \* ?/gm, ""),
  );
}

for (const file of ["src/server/serve.ts", "src/client/send.ts", "src/client/receive.ts"]) {
  const examples = examplesIn(file);

  test(`the comments of ${file} contain an example`, () => {
    expect(examples.length).toBeGreaterThan(0);
  });

  for (const [index, example] of examples.entries()) {
    test(`example ${index + 1} in the comments of ${file} runs unchanged`, async () => {
      const folder = temporaryFolder();
      // Found like an installed package, by its package.json.
      mkdirSync(join(folder, "node_modules"));
      symlinkSync(root, join(folder, "node_modules/frames"));
      writeFileSync(join(folder, "example.ts"), example);
      const ran = await run(["example.ts"], { cwd: folder, command: [process.execPath] });
      expect(ran.stderr).toBe("");
      expect(ran.code).toBe(0);
      // The example stored something in its folder.
      const store = join(folder, "received");
      expect(existsSync(join(store, ".frames/journal.sqlite"))).toBe(true);
      expect(readdirSync(store).filter((name) => !name.startsWith(".")).length).toBe(1);
    });
  }
}

test("send() releases its spool when it rejects, however early", async () => {
  const spool = join(temporaryFolder(), "spool");
  const options = { stream: "run7", source: "visible", spool };
  async function* camera() {
    yield { bytes: bytesOf("P5 1 1 255\n1") };
  }
  const home = process.env["HOME"];
  process.env["HOME"] = temporaryFolder();
  const failures = [
    [{ to: "nowhere at all" }, "usage"],
    [{ to: "192.0.2.1:1" }, "no-key"],
    [{ key: "frames_key_short" }, "usage"],
    [{ fps: "other=5" }, "usage"],
    [{ realtime: true, fps: "5" }, "usage"],
    [{ policy: "latest:0" }, "usage"],
  ] as const;
  try {
    for (const [more, code] of failures) {
      const sending = send(camera(), { ...options, ...more });
      expect(await sending.catch((error: FramesError) => error.code)).toBe(code);
    }
    await withServer(async ({ address }) => {
      const { frames } = await send(camera(), { ...options, to: address });
      expect(frames).toBe(1);
    });
  } finally {
    process.env["HOME"] = home;
  }
});

test("send() rejects invalid options even if they have no effect", async () => {
  const run7 = join(temporaryFolder(), "run7");
  mkdirSync(run7);
  writeFileSync(join(run7, "1.png"), "one");
  for (const watch of [false, true]) {
    for (const slip of [
      { policy: "latest:0" },
      { quality: "99" },
      { quality: ["run7=1"] },
      { camera: "640x" },
      { raw: "640x512" },
      { fps: "fast" },
    ]) {
      const sending = send(run7, { ...slip, watch, to: "127.0.0.1:1" });
      expect(await sending.catch((error: FramesError) => error.code)).toBe("usage");
    }
  }
});
