// Failures on the way, without loss: the executables, with killed servers, broken links, and
// repeated commands.
//
// Covers: client/client-connection.ts, client/reconnect.ts,
//   client/send-connection.ts, client/send-session.ts, client/send.ts, server/source-owners.ts

import { describe, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import type { FrameDescription } from "../../src/frame.ts";
import { Decoder, type MessageHandler } from "../../src/wire/decode.ts";
import {
  encodeControl,
  encodeReceipt,
  writeFramePrefix,
  sealFrame,
} from "../../src/wire/encode.ts";
import {
  type ControlMessage,
  preface,
  MessageType,
  type Welcome,
} from "../../src/wire/messages.ts";
import {
  expectCode,
  journal,
  type Json,
  relayTo,
  summaryOf,
  withServer,
} from "../helper/delivery.ts";
import {
  freePort,
  type Finished,
  jsonLines,
  launch,
  makeTree,
  manyFrames,
  run,
  sameTree,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { type Relay } from "../helper/relay.ts";

// Tests that wait for pauses run concurrently.

function send(server: { port: number }, path: string, ...more: string[]): Promise<Finished> {
  return run(["send", path, "--to", `127.0.0.1:${server.port}`, "--json", "-v", ...more]);
}

/** Returns the paths of all frames in the journal, in order. */
function journalled(dir: string): string[] {
  const query = "SELECT source || '/' || name AS path FROM frames ORDER BY path";
  return journal<{ path: string }>(dir, query).map(({ path }) => path);
}

/** One connection, from the output of `-v`. */
interface Talk {
  /** Frames sent completely, in order, as SOURCE/NAME. */
  readonly frames: string[];
  /** Number of them with a receipt. */
  receipted: number;
  offered: number;
  answers: string;
}

function talksOf(stderr: string): Talk[] {
  expect(stderr).not.toContain("lines are missing here");
  const talks: Talk[] = [];
  for (const line of stderr.split("\n")) {
    const [direction, type, ...words] = line.split(" ");
    const talk = talks.at(-1);
    const what = `${direction} ${type}`;
    if (what === "-> HELLO") talks.push({ frames: [], receipted: 0, offered: 0, answers: "" });
    else if (talk === undefined) continue;
    else if (what === "-> FRAME") talk.frames.push(`${words[0]}/${words[2]}`);
    else if (what === "-> OFFER") talk.offered += Number(words[1]);
    else if (what === "<- RECEIPT") talk.receipted = Number(words[0]);
    else if (what === "<- DONE") talk.receipted = talk.frames.length;
    else if (what === "<- ANSWER") {
      talk.answers += (JSON.parse(words.join(" ")) as { answers: string }).answers;
    }
  }
  return talks;
}

/** Expects that no frame with a receipt was sent again. Returns how many frames were. */
function expectNoneAgain(stderr: string): number {
  const receipted = new Set<string>();
  const sent = new Set<string>();
  let again = 0;
  for (const talk of talksOf(stderr)) {
    expect(talk.frames.filter((frame) => receipted.has(frame))).toEqual([]);
    again += talk.frames.filter((frame) => sent.has(frame)).length;
    for (const frame of talk.frames) sent.add(frame);
    for (const frame of talk.frames.slice(0, talk.receipted)) receipted.add(frame);
  }
  return again;
}

/**
 * Returns the frames that a server with `-v --json` reports as stored, in order, as SOURCE/NAME.
 */
function storedBy(server: Server): string[] {
  return jsonLines(server.stdout())
    .filter(({ type }) => type === "stored")
    .map(({ source, name }) => `${String(source)}/${String(name)}`);
}

/** Small frames of one source, and large ones of another; those over 1 MiB are sent in pieces. */
const mixed = {
  ...manyFrames(60, 100_000),
  ...manyFrames(3, 2_500_000, "infrared"),
};

// Broken connections.

describe.concurrent("frames send reconnects", () => {
  const folder = makeTree(mixed);
  const frames = Object.keys(mixed).length;

  /** Expects that a delivery with a failure in between completes. */
  async function expectThrough(sender: ReturnType<typeof launch>, dir: string): Promise<Json> {
    const sent = await sender.ended();
    expectCode(sent, 0);
    const summary = summaryOf(sent);
    expect(summary).toMatchObject({ frames, refused: 0, lost: 0, interrupted: false });
    expect(Number(summary["retries"])).toBeGreaterThanOrEqual(1);
    expect(sameTree(folder, join(dir, "run7"))).toEqual([]);
    expect(journalled(dir)).toHaveLength(frames);
    expectNoneAgain(sent.stderr);
    // JSON reports each wait; the messages say what is waited for.
    const waits = jsonLines(sent.stdout).filter(({ type }) => type === "waiting");
    expect(waits.length).toBeGreaterThanOrEqual(Number(summary["retries"]));
    for (const { milliseconds } of waits) expect(Number(milliseconds)).toBeGreaterThan(0);
    expect(sent.stderr).toMatch(/; trying again in \d+ s$/m);
    expect(sent.stderr).toMatch(/^Connected to 127\.0\.0\.1:\d+ again$/m);
    return { ...summary, errors: [...new Set(waits.map(({ error }) => error))] };
  }

  const words = (to: string) => ["send", folder, "--to", to, "--json", "-v"];

  test("frames send resumes after the server is killed and started again on its port and store", async () => {
    const dir = temporaryFolder();
    const first = await startServer({ dir });
    const link = await relayTo(first, { rate: 10_000_000, port: freePort() });
    using sender = launch(words(link.to));
    await until("the first frames", () => link.relay.bytes > 4_000_000);
    first.process.kill("SIGKILL");
    await first.process.exited;
    link.relay.stop();
    await until("a refused connection", () => /refused.*; trying again/.test(sender.stderr()));
    const args = ["--listen", link.to];
    const second = await startServer({ dir, args });
    const { errors } = await expectThrough(sender, dir);
    expect(errors).toContain("unreachable");
    expect(await second.stop()).toBe(0);
    rmSync(dir, { recursive: true });
  });

  test("frames send resumes after the server announces its stop and is started again", async () => {
    const dir = temporaryFolder();
    const first = await startServer({ dir });
    const link = await relayTo(first, { rate: 10_000_000, port: freePort() });
    using sender = launch(words(link.to));
    await until("the first frames", () => link.relay.bytes > 4_000_000);
    expect(await first.stop()).toBe(0);
    link.relay.stop();
    await until("what it waits for", () => /is stopping; trying again/.test(sender.stderr()));
    const second = await startServer({ dir, args: ["--listen", link.to] });
    const { errors } = await expectThrough(sender, dir);
    expect(errors).toContain("stopping");
    expect(await second.stop()).toBe(0);
    rmSync(dir, { recursive: true });
  });

  test("frames send resumes after the link is cut three times", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server, { rate: 10_000_000 });
      using sender = launch(words(link.to));
      for (const bytes of [2_000_000, 5_000_000, 8_000_000]) {
        await until(`${bytes} bytes`, () => link.relay.bytes > bytes);
        link.relay.cut();
      }
      const { retries } = await expectThrough(sender, server.dir);
      expect(retries).toBe(3);
    });
  });

  test("frames send resumes after the link was silent for --timeout, which both ends detect", async () => {
    await withServer(
      async (server) => {
        using link = await relayTo(server, { rate: 10_000_000 });
        using sender = launch([...words(link.to), "--timeout", "2"]);
        await until("the first frames", () => link.relay.bytes > 4_000_000);
        link.relay.freeze();
        await until("the sender's notice", () => sender.stderr().includes("silent for 2 s"));
        await until("the server's notice", () => server.stdout().includes('"error":"timeout"'));
        link.relay.thaw();
        const { errors } = await expectThrough(sender, server.dir);
        expect(errors).toContain("timeout");
      },
      ...["--timeout", "2"],
    );
  });

  test("frames send resumes if it alone detects a silent link, because the newer connection wins", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server, { rate: 10_000_000 });
      // A busy machine alone must not take as long.
      using sender = launch([...words(link.to), "--timeout", "6"]);
      await until("the first frames", () => link.relay.bytes > 4_000_000);
      link.relay.freeze();
      await until("the sender's notice", () => sender.stderr().includes("silent for 6 s"));
      // The server would keep the old connection for 30 s, and the new one must not wait for that.
      expect(server.stdout()).not.toContain('"failed"');
      link.relay.thaw();
      await expectThrough(sender, server.dir);
    });
  });
});

test("frames send after a kill of the sender sends only the frames that are not stored", async () => {
  // More than the buffers of the connection hold, because buffered data arrives even after a kill.
  const files = { ...mixed, ...manyFrames(12, 2_500_000, "infrared") };
  const folder = makeTree(files);
  const total = Object.keys(files).length;
  await withServer(async (server) => {
    using link = await relayTo(server, { rate: 10_000_000 });
    using sender = launch(["send", folder, "--to", link.to]);
    await until("a large frame", () => storedBy(server).includes("infrared/1.png"));
    sender.child.kill("SIGKILL");
    await until("the server's notice", () => server.stdout().includes('"failed"'));
    const before = journalled(server.dir);
    expect(before.length).toBeGreaterThan(0);
    expect(before.length).toBeLessThan(total);
    // Partial files were removed.
    expect(readdirSync(join(server.dir, ".frames/partial"))).toEqual([]);

    const again = await send(server, folder);
    expectCode(again, 0);
    expect(summaryOf(again)).toMatchObject({ frames: total, present: before.length, retries: 0 });
    const [talk] = talksOf(again.stderr);
    const missing = Object.keys(files).filter((path) => !before.includes(path));
    expect(talk!.frames.toSorted()).toEqual(missing.toSorted());
    expect(talk!.answers).toHaveLength(total);
    expect(storedBy(server).toSorted()).toEqual(Object.keys(files).toSorted());
    expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
  }, "-v");
});

// No connection, or no reconnection.

describe.concurrent("frames send stops waiting", () => {
  const folder = makeTree(manyFrames(10, 1_000));

  test("frames send does not retry a refused first connection, and names the command to start: exit 10", async () => {
    const to = `127.0.0.1:${freePort()}`;
    const sent = await run(["send", folder, "--to", to, "--json", "--give-up-after", "600"]);
    expect(sent.stderr).toMatch(/^frames: .*refused.*frames serve/);
    expect(sent.stderr).toContain(to);
    expect(jsonLines(sent.stdout).map(({ type }) => type)).toEqual(["error"]);
    expect(sent.code).toBe(10);
  });

  test("frames send waits no longer than --give-up-after for a server that is gone: exit 30", async () => {
    const fake = fakeServer();
    using sender = launch([...wordsTo(fake), "--give-up-after", "4"]);
    await until("all frames", () => fake.ended === 10);
    fake.receipt(4);
    await until("the receipt", () => sender.stderr().includes("<- RECEIPT 4"));
    fake[Symbol.dispose]();
    const sent = await sender.ended();
    expect(sent.stderr).toMatch(
      /^frames: Gave up after 4 s: .*refused.* \(4 of 10 frames confirmed/m,
    );
    expect(jsonLines(sent.stdout).at(-1)).toMatchObject({
      type: "error",
      error: "given-up",
      confirmed: 4,
    });
    expect(sent.code).toBe(30);
  });

  test("frames send waits no longer than --give-up-after for a live server that confirms nothing: exit 30", async () => {
    using fake = fakeServer();
    using sender = launch([...wordsTo(fake), "--timeout", "3", "--give-up-after", "4"]);
    await until("all frames", () => fake.ended === 10);
    fake.receipt(3);
    const sent = await sender.ended();
    // The server was responsive all the time.
    expect(sent.stderr).toContain("<- PONG");
    expect(sent.stderr).toMatch(/^frames: Gave up after 4 s: .* \(3 of 10 frames confirmed/m);
    expect(sent.stderr).not.toContain("trying again");
    expect(sent.code).toBe(30);
  });

  test("frames send waits no longer than --give-up-after over connections that confirm nothing: exit 30", async () => {
    using fake = fakeServer();
    // Closes only after the sender has seen all its bytes accepted.
    fake.closeAtPing();
    const sent = await run([...wordsTo(fake), "--timeout", "3", "--give-up-after", "5"]);
    expect(sent.stderr).toMatch(/^frames: Gave up after 5 s: .* \(0 of 10 frames confirmed/m);
    expect(sent.code).toBe(30);
    // It may give up in the middle of the last.
    const whole = talksOf(sent.stderr).filter(({ frames }) => frames.length === 10);
    expect(whole.length).toBeGreaterThanOrEqual(2);
    // What was sent in vain has bought no more time.
    const waits = jsonLines(sent.stdout).filter(({ type }) => type === "waiting");
    const waited = waits.reduce((sum, { milliseconds }) => sum + Number(milliseconds), 0);
    expect(waited).toBeLessThanOrEqual(5_000);
  });

  test("frames send ends at SIGINT without a connection and reports the confirmed frames: exit 20", async () => {
    const fake = fakeServer();
    using sender = launch(wordsTo(fake));
    await until("all frames", () => fake.ended === 10);
    fake.receipt(7);
    await until("the receipt", () => sender.stderr().includes("<- RECEIPT 7"));
    fake[Symbol.dispose]();
    // A new listener on the port counts further connection attempts.
    let tries = 0;
    const { port } = fake;
    const socket = { open: () => void tries++, data() {} };
    using listener = Bun.listen({ hostname: "127.0.0.1", port, socket });
    await until("the wait", () => sender.stdout().includes('"waiting"'));
    sender.child.kill("SIGINT");
    const sent = await sender.ended();
    expect(sent.stderr).toMatch(/^frames: Interrupted.* \(7 of 10 frames confirmed/m);
    expect(sent.code).toBe(20);
    expect([tries, listener.port]).toEqual([0, port]);
  });

  function wordsTo({ port }: { port: number }): string[] {
    return ["send", folder, "--to", `127.0.0.1:${port}`, "--json", "-v"];
  }
});

/** A fake server that accepts everything and confirms on demand. */
function fakeServer(grants: Partial<Welcome> = {}) {
  const welcome: Welcome = {
    window: { bytes: 64 << 20, frames: 8192 },
    limits: { frame: 64 << 20, sources: 100, unfinished: 16 },
    fresh: true,
    ...grants,
  };
  const state = { ended: 0, hasEnd: false, closesAtPing: false };
  let current: Bun.Socket<Decoder> | undefined;
  const listener = Bun.listen<Decoder>({
    hostname: "127.0.0.1",
    port: freePort(),
    socket: {
      open(socket) {
        current = socket;
        socket.data = new Decoder({
          onControl(message) {
            if (message.type === MessageType.hello) {
              socket.write(preface);
              socket.write(encodeControl(MessageType.welcome, 0, welcome));
            } else if (message.type === MessageType.ping) {
              const { time } = message.body;
              if (state.closesAtPing) socket.end();
              else socket.write(encodeControl(MessageType.pong, 0, { time, clock: "1" }));
            } else if (message.type === MessageType.end) state.hasEnd = true;
          },
          onFrame() {},
          onPayload() {},
          onFrameComplete: () => void state.ended++,
        });
      },
      data: (socket, bytes) => socket.data.receive(bytes),
      error() {},
    },
  });
  return {
    port: listener.port,
    /** Number of frames received completely. */
    get ended() {
      return state.ended;
    },
    /** From now on, closes the connection on a PING. */
    closeAtPing: () => void (state.closesAtPing = true),
    receipt: (frames: number) => void current!.write(encodeReceipt(frames)),
    [Symbol.dispose]: () => listener.stop(true),
  };
}

// Repeated commands.

describe("frames send of stored frames", () => {
  const files = { ...manyFrames(20, 3_000), "infrared/1.raw": 1_500_000 };
  const frames = Object.keys(files).length;

  /** A time that can be set exactly to the nanosecond. */
  const captured = 1_600_000_000;

  /** Runs `use` with a tree that is already stored. */
  async function sentOnce(use: (server: Server, folder: string) => Promise<void>): Promise<void> {
    const folder = makeTree(files);
    for (const path of Object.keys(files)) utimesSync(join(folder, path), captured, captured);
    await withServer(async (server) => {
      expectCode(await send(server, folder), 0);
      await use(server, folder);
    });
    rmSync(folder, { recursive: true });
  }

  test("frames send of an unchanged tree exchanges names once and sends no frame", async () => {
    await sentOnce(async (server, folder) => {
      const again = await send(server, folder);
      expectCode(again, 0);
      expect(summaryOf(again)).toMatchObject({ frames, present: frames, bytes: 0, retries: 0 });
      const [talk] = talksOf(again.stderr);
      expect(talk).toMatchObject({ frames: [], offered: frames, answers: "s".repeat(frames) });
      await until("the server's word", () => server.stdout().includes(`"found":${frames}`));
      const { counts } = jsonLines(server.stdout()).at(-1)!;
      expect(counts).toMatchObject({ frames: 0, stored: 0, present: 0 });
    });
  });

  test("frames send compares CRC-32 if only times changed, and sends no frame", async () => {
    await sentOnce(async (server, folder) => {
      for (const path of ["visible/3.png", "infrared/1.raw"]) {
        utimesSync(join(folder, path), 1_000_000_000, 1_000_000_000);
      }
      const again = await send(server, folder);
      expectCode(again, 0);
      expect(summaryOf(again)).toMatchObject({ frames, present: frames, refused: 0, bytes: 0 });
      const [talk] = talksOf(again.stderr);
      expect(talk!.frames).toEqual([]);
      expect(talk!.offered).toBe(frames + 2);
      expect([...talk!.answers].filter((letter) => letter !== "s")).toEqual(["c", "c"]);
    });
  });

  /** Changes the size of one frame, only the content of another, and adds one. */
  function change(folder: string): void {
    writeFileSync(join(folder, "visible/5.png"), "shorter");
    changeBytes(join(folder, "visible/6.png"));
    writeFileSync(join(folder, "visible/21.png"), "new");
  }

  /** Changes the content but not the size, with a later time. */
  function changeBytes(path: string): void {
    writeFileSync(path, readFileSync(path).reverse());
    utimesSync(path, 1_234_567_890, 1_234_567_890);
  }

  test("frames send reports changed files as conflicts and delivers the others: exit 23", async () => {
    await sentOnce(async (server, folder) => {
      change(folder);
      const again = await send(server, folder);
      expectCode(again, 23);
      const counts = { frames: frames - 1, present: frames - 2, refused: 2, conflictsSkipped: 0 };
      expect(summaryOf(again)).toMatchObject({ ...counts, reasons: { conflict: 2 } });
      const named = jsonLines(again.stdout).filter(({ type }) => type === "undelivered");
      expect(named.toSorted((a, b) => Number(a["first"]) - Number(b["first"]))).toMatchObject([
        { source: "visible", what: "5.png", error: "conflict" },
        { source: "visible", what: "6.png", error: "conflict" },
      ]);
      expect(talksOf(again.stderr)[0]!.frames).toEqual(["visible/21.png"]);
      expect(readFileSync(join(server.dir, "run7/visible/21.png"), "utf8")).toBe("new");
      expect(statSync(join(server.dir, "run7/visible/5.png")).size).toBe(3_000);
    });
  });

  test("--on-conflict skip leaves changed frames out and reports how many: exit 0", async () => {
    await sentOnce(async (server, folder) => {
      const before = readFileSync(join(server.dir, "run7/visible/6.png"));
      change(folder);
      const again = await send(server, folder, "--on-conflict", "skip");
      expectCode(again, 0);
      const counts = { frames: frames - 1, present: frames - 2, refused: 0, conflictsSkipped: 2 };
      expect(summaryOf(again)).toMatchObject({ ...counts, reasons: {} });
      expect(again.stderr).toMatch(/2 frames left out/);
      expect(readFileSync(join(server.dir, "run7/visible/6.png"))).toEqual(before);
    });
  });

  test("--on-conflict replace replaces changed frames and their journal rows", async () => {
    await sentOnce(async (server, folder) => {
      const rows = () =>
        journal<{ name: string; bytes: number; crc32: number; session: string }>(
          server.dir,
          "SELECT name, bytes, crc32, session FROM frames WHERE name IN ('4.png', '5.png', '6.png') ORDER BY name",
        );
      const before = rows();
      change(folder);
      const again = await send(server, folder, "--on-conflict", "replace");
      expectCode(again, 0);
      const counts = { frames: frames + 1, present: frames - 2, refused: 0, conflictsSkipped: 0 };
      expect(summaryOf(again)).toMatchObject({ ...counts, bytes: 3_000 + 7 + 3 });
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
      const after = rows();
      expect(after).toHaveLength(3);
      expect(after[0]).toEqual(before[0]!);
      for (const index of [1, 2]) {
        const { name, bytes, crc32, session } = after[index]!;
        const stored = readFileSync(join(server.dir, "run7/visible", name));
        expect([bytes, crc32]).toEqual([stored.length, Bun.hash.crc32(stored)]);
        expect(session).not.toBe(before[index]!.session);
      }
      // Neither old content nor partial files are left.
      expect(readdirSync(join(server.dir, ".frames/partial"))).toEqual([]);
      const third = await send(server, folder);
      expect(summaryOf(third)).toMatchObject({ frames: frames + 1, present: frames + 1 });
    });
  });

  test("--checksum finds changed bytes behind an unchanged size and time", async () => {
    await sentOnce(async (server, folder) => {
      const path = join(folder, "visible/7.png");
      writeFileSync(path, readFileSync(path).reverse());
      utimesSync(path, captured, captured);
      const plain = await send(server, folder);
      expectCode(plain, 0);
      expect(summaryOf(plain)).toMatchObject({ frames, present: frames });
      const checked = await send(server, folder, "-c");
      expectCode(checked, 23);
      const counts = { frames: frames - 1, present: frames - 1, refused: 1 };
      expect(summaryOf(checked)).toMatchObject({ ...counts, reasons: { conflict: 1 } });
      expect(talksOf(checked.stderr)[0]!.frames).toEqual([]);
      const replaced = await send(server, folder, "--checksum", "--on-conflict", "replace");
      expectCode(replaced, 0);
      expect(talksOf(replaced.stderr)[0]!.frames).toEqual(["visible/7.png"]);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
    });
  });

  test("frames send counts frames that were moved away from the server, and only --again sends them", async () => {
    await sentOnce(async (server, folder) => {
      const elsewhere = temporaryFolder();
      const moved = ["visible/2.png", "infrared/1.raw"];
      for (const path of moved) {
        renameSync(join(server.dir, "run7", path), join(elsewhere, path.replace("/", "-")));
      }
      const again = await send(server, folder);
      expectCode(again, 0);
      const there = { frames: frames - 2, present: frames - 2, removedAtServer: 2, bytes: 0 };
      expect(summaryOf(again)).toMatchObject(there);
      expect(again.stderr).toMatch(/2 moved away since/);
      expect(again.stderr).toContain("--again");
      for (const path of moved) expect(existsSync(join(server.dir, "run7", path))).toBe(false);
      const brought = await send(server, folder, "--again");
      expectCode(brought, 0);
      const counts = { frames, present: frames - 2, removedAtServer: 0, bytes: 1_503_000 };
      expect(summaryOf(brought)).toMatchObject(counts);
      expect(talksOf(brought.stderr)[0]!.frames.toSorted()).toEqual(moved.toSorted());
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
      expect(journalled(server.dir)).toHaveLength(frames);
    });
  });

  test("the server keeps frames whose files are gone at the sender", async () => {
    await sentOnce(async (server, folder) => {
      rmSync(join(folder, "visible/9.png"));
      rmSync(join(folder, "infrared"), { recursive: true });
      const again = await send(server, folder);
      expectCode(again, 0);
      expect(summaryOf(again)).toMatchObject({ frames: frames - 2, present: frames - 2 });
      expect(statSync(join(server.dir, "run7/visible/9.png")).size).toBe(3_000);
      expect(statSync(join(server.dir, "run7/infrared/1.raw")).size).toBe(1_500_000);
    });
  });

  test("frames send of a received tree finds all frames present by their times and sends none", async () => {
    await sentOnce(async (server, folder) => {
      await withServer(async (second) => {
        const received = join(server.dir, "run7");
        expectCode(await send(second, received), 0);
        expect(sameTree(folder, join(second.dir, "run7"))).toEqual([]);
        // Sent back to the origin and again from the first sender: all frames are found stored.
        for (const [where, what] of [
          [second, received],
          [server, join(second.dir, "run7")],
          [second, folder],
        ] as const) {
          const again = await send(where, what);
          expectCode(again, 0);
          expect(summaryOf(again)).toMatchObject({ frames, present: frames });
          expect(talksOf(again.stderr)[0]).toMatchObject({
            frames: [],
            answers: "s".repeat(frames),
          });
        }
      });
    });
  });

  test("frames send of a copy with other times reports only a frame of other bytes as a conflict", async () => {
    await sentOnce(async (server, folder) => {
      const copy = join(temporaryFolder(), "run7");
      for (const path of Object.keys(files)) {
        mkdirSync(join(copy, path, ".."), { recursive: true });
        copyFileSync(join(folder, path), join(copy, path));
        utimesSync(join(copy, path), 1_500_000_000, 1_500_000_000);
      }
      changeBytes(join(copy, "infrared/1.raw"));
      const again = await send(server, copy);
      expectCode(again, 23);
      expect(summaryOf(again)).toMatchObject({ present: frames - 1, reasons: { conflict: 1 } });
      expect(talksOf(again.stderr)[0]!.frames).toEqual([]);
    });
  });
});

test("capture times in 1970, before it and in 2100 are stored exactly and recognized again", async () => {
  const folder = makeTree(manyFrames(5, 100));
  const times = [0, 1.5, -86_400.25, 4_102_444_800, 4_102_444_800.75];
  times.forEach((time, index) => {
    const path = join(folder, `visible/${index + 1}.png`);
    // As text, because Bun replaces negative numbers by the current time.
    utimesSync(path, String(time), String(time));
    expect(statSync(path, { bigint: true }).mtimeNs).toBe(BigInt(Math.round(time * 1e6)) * 1000n);
  });
  await withServer(async (server) => {
    expectCode(await send(server, folder), 0);
    const rows = journal<{ name: string; captured: number }>(
      server.dir,
      "SELECT name, captured FROM frames ORDER BY name",
    );
    expect(rows.map(({ captured }) => captured / 1e9)).toEqual(times);
    for (const { name } of rows) {
      const [here, there] = [folder, join(server.dir, "run7")].map(
        (root) => statSync(join(root, "visible", name), { bigint: true }).mtimeNs,
      );
      expect([name, there]).toEqual([name, here]);
    }
    const again = await send(server, folder);
    expect(summaryOf(again)).toMatchObject({ present: 5 });
    expect(talksOf(again.stderr)[0]!.answers).toBe("sssss");
  });
});

// Ownership of sources.

describe.concurrent("Two senders of one source", () => {
  const folder = makeTree(manyFrames(40, 500_000));
  /** Frames of the second sender. */
  const other = join(makeTree({ "visible/1.png": 500_000, "visible/late.png": 10 }));

  async function begun(server: Server, ...more: string[]) {
    const link = await relayTo(server, { rate: 8_000_000 });
    const sender = launch(["send", folder, "--to", link.to, "--json", "-v", ...more]);
    await until("the first frames", () => link.relay.bytes > 1_000_000);
    return {
      ...link,
      sender,
      [Symbol.dispose]() {
        sender[Symbol.dispose]();
        link.relay.stop();
      },
    };
  }

  /** Waits until a link is empty, because data in transit would count as a sign of life. */
  async function drained(relay: Relay): Promise<void> {
    relay.limit(1e9);
    let before = -1;
    let calm = 0;
    await until("the end of what is on the link", () => {
      calm = relay.bytes === before ? calm + 1 : 0;
      before = relay.bytes;
      return calm >= 50;
    });
  }

  test("a second sender of a source learns who sends it and since when: exit 23", async () => {
    await withServer(async (server) => {
      using first = await begun(server);
      const since = new Date().getUTCFullYear();
      const second = await send(server, other);
      expect(second.stderr).toMatch(
        new RegExp(
          `^frames: .*127\\.0\\.0\\.1:\\d+ has been sending it since ${since}-.*--stream`,
          "m",
        ),
      );
      expect(second.stderr).not.toContain("trying again");
      expectCode(second, 23);
      // Other sources and streams are free.
      const beside = await send(
        server,
        join(other, "visible"),
        "--stream",
        "run7",
        "--source",
        "b",
      );
      expectCode(beside, 0);
      expectCode(await send(server, other, "--stream", "run8"), 0);
      expectCode(await first.sender.ended(), 0);
      const stored = join(server.dir, "run7");
      const differences = ["b", "b/1.png", "b/late.png"].map(
        (path) => `${path}: only in ${stored}`,
      );
      expect(sameTree(folder, stored)).toEqual(differences.sort());
      // After the delivery the source is free again.
      expectCode(await send(server, other), 0);
    });
  });

  test("a second sender takes over a source from a sender that does not answer, which then ends", async () => {
    await withServer(async (server) => {
      using first = await begun(server);
      first.sender.child.kill("SIGSTOP");
      await drained(first.relay);
      try {
        const second = await send(server, folder);
        expectCode(second, 0);
        expect(summaryOf(second)).toMatchObject({ frames: 40, refused: 0, retries: 0 });
        expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
      } finally {
        first.sender.child.kill("SIGCONT");
      }
      const told = await first.sender.ended();
      expect(told.stderr).toMatch(/^frames: .*took over/m);
      expect(told.stderr).not.toContain("trying again");
      expect(told.code).toBe(10);
      expect(journalled(server.dir)).toHaveLength(40);
      expect(new Set(storedBy(server)).size).toBe(storedBy(server).length);
    }, "-v");
  });

  test("the same command takes over its source from a dead connection", async () => {
    await withServer(async (server) => {
      using first = await begun(server);
      first.relay.freeze();
      first.sender.child.kill("SIGKILL");
      // The server has not noticed the end, and its timeout of 30 s would be too long.
      const second = await send(server, folder);
      expectCode(second, 0);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
      const failed = jsonLines(server.stdout()).filter(({ type }) => type === "failed");
      expect(failed).toMatchObject([{ error: "superseded" }]);
    });
  });
});

test("the newer of two connections of one session wins, and frames of the older are stored", async () => {
  await withServer(async (server) => {
    const session = "0123456789abcdef0123456789abcdef";
    await using older = await rawClient(server, session);
    await older.heard("welcome");
    older.say(encodeControl(MessageType.source, 1, { name: "visible" }));
    older.say(frame(1, "a.png"));
    await using newer = await rawClient(server, session);
    await newer.heard("welcome");
    await older.heard("error");
    expect(older.messages.find(({ type }) => type === MessageType.error)!.body).toMatchObject({
      error: 6,
    });
    // The newer connection of a session takes over its sources without a check.
    newer.say(encodeControl(MessageType.source, 1, { name: "visible" }));
    newer.say(frame(1, "a.png"));
    newer.say(frame(2, "b.png"));
    newer.say(encodeControl(MessageType.end, 0, { frames: 2 }));
    await newer.heard("done");
    const done = newer.messages.find(({ type }) => type === MessageType.done)!.body;
    expect(done).toMatchObject({ frames: 2, stored: 1, present: 1 });
    expect(journalled(server.dir)).toEqual(["visible/a.png", "visible/b.png"]);
  });

  function frame(sequence: number, name: string): Uint8Array {
    const description: FrameDescription = { sequence, name, captured: 1n, size: 4, metadata: "" };
    const bytes = new Uint8Array(100);
    const at = writeFramePrefix(bytes, 0, description);
    bytes.set([1, 2, 3, sequence], at);
    sealFrame(bytes, 0, 1, false, at, bytes.subarray(at, at + 4));
    return bytes.subarray(0, at + 4);
  }
});

describe.concurrent("Owners of sources", () => {
  const sessions = ["a", "b"].map((digit) => digit.repeat(32)) as [string, string];
  const source = (id: number, name: string) => encodeControl(MessageType.source, id, { name });
  const end = encodeControl(MessageType.end, 0, { frames: 0 });

  test("a source is free for other senders when its id is declared for another source", async () => {
    await withServer(async (server) => {
      await using older = await rawClient(server, sessions[0]);
      await older.heard("welcome");
      older.say(source(1, "visible"), source(1, "infrared"));
      await older.isRead();
      await using newer = await rawClient(server, sessions[1]);
      newer.say(source(1, "visible"), end);
      await newer.heard("done");
      // A source that it acquired itself stays with it.
      await using third = await rawClient(server, "c".repeat(32));
      third.say(source(1, "infrared"), end);
      await third.heard("error");
      expect(third.errors()).toEqual([7]);
      expect(older.errors()).toEqual([]);
    });
  });

  for (const name of ["../odd", "x".repeat(5_000)]) {
    test(`a source name that cannot be stored has no owner (${name.slice(0, 6)})`, async () => {
      await withServer(async (server) => {
        await using older = await rawClient(server, sessions[0]);
        older.say(source(1, name));
        await older.isRead();
        await using newer = await rawClient(server, sessions[1]);
        newer.say(source(1, name), end);
        await newer.heard("done");
        expect([older.errors(), newer.errors()]).toEqual([[], []]);
      });
    });
  }

  test("two senders that declare each other's sources are refused, because a waiting sender counts as alive", async () => {
    await withServer(async (server) => {
      await using a = await rawClient(server, sessions[0]);
      await using b = await rawClient(server, sessions[1]);
      for (const [client, name] of [
        [a, "a"],
        [b, "b"],
      ] as const) {
        await client.heard("welcome");
        client.say(source(1, name));
        await client.isRead();
      }
      // Sent in one write each, so that neither answers a PING before its own request is read.
      a.say(source(2, "b"), end);
      b.say(source(2, "a"), end);
      await until("both ends", () => a.isOver() && b.isOver());
      const told = [...a.errors(), ...b.errors()];
      expect(told.length).toBeGreaterThan(0);
      expect(new Set(told)).toEqual(new Set([7]));
    });
  });
});

test("a server journals a LOST message although its sender sends nothing more", async () => {
  await withServer(async (server) => {
    await using client = await rawClient(server, "0123456789abcdef0123456789abcdef");
    client.say(
      encodeControl(MessageType.source, 1, { name: "visible" }),
      encodeControl(MessageType.lost, 1, { ranges: [[3, 5]], error: 51, message: "too slow" }),
    );
    const losses = () => journal(server.dir, "SELECT source, first, last, reason FROM losses");
    await until("the row", () => losses().length > 0);
    expect(losses()).toEqual([{ source: "visible", first: 3, last: 5, reason: "dropped" }]);
    expect(client.errors()).toEqual([]);
  });
});

/** A client that sends raw messages, records replies, and answers PING. */
async function rawClient(server: Server, session: string) {
  const messages: ControlMessage[] = [];
  const handler: MessageHandler = {
    onControl(message) {
      messages.push(message);
      if (message.type !== MessageType.ping) return;
      const { time } = message.body;
      socket.write(encodeControl(MessageType.pong, 0, { time, clock: "1" }));
    },
    onReceipt() {},
  };
  const heard = (...what: ("welcome" | "done" | "error" | "pong")[]) =>
    messages.some(({ type }) => what.some((name) => type === MessageType[name]));
  const decoder = new Decoder(handler);
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: server.port,
    socket: { data: (_, bytes) => decoder.receive(bytes), error() {} },
  });
  socket.write(preface);
  socket.write(encodeControl(MessageType.hello, 0, { role: "send", session, stream: "run7" }));
  return {
    messages,
    say: (...bytes: Uint8Array[]) => void socket.write(Buffer.concat(bytes)),
    heard: (what: "welcome" | "done" | "error") => until(what, () => heard(what)),
    isOver: () => heard("done", "error"),
    /** Numbers of the errors received. */
    errors: () =>
      messages.flatMap((one) => (one.type === MessageType.error ? [one.body.error] : [])),
    /** Waits until the server has read everything sent. */
    async isRead() {
      socket.write(encodeControl(MessageType.ping, 0, { time: "1" }));
      await until("PONG", () => heard("pong"));
    },
    [Symbol.asyncDispose]: async () => void socket.end(),
  };
}

// Corrupted bytes.

describe.concurrent("Damage on the link", () => {
  const marker = "\x01GARBLED\x02";
  const files = {
    ...manyFrames(30, 20_000),
    "visible/16.png": `${"x".repeat(5_000)}${marker}${"y".repeat(5_000)}`,
    "infrared/1.raw": 3_000_000,
  };
  const frames = Object.keys(files).length;
  const folder = makeTree(files);

  /** A relay that corrupts the data after the marker, this many times. */
  function damagingRelay(to: number, times: number) {
    const pattern = Buffer.from(marker);
    let done = 0;
    type Half = { peer: Promise<Bun.Socket<Half>>; matched: number };
    const pass = (socket: Bun.Socket<Half>, bytes: Buffer): void => {
      const own = Buffer.from(bytes);
      for (let at = 0; at < own.length && done < times; at++) {
        const { matched } = socket.data;
        const goesOn = own[at] === pattern[matched];
        socket.data.matched = goesOn ? matched + 1 : Number(own[at] === pattern[0]);
        if (socket.data.matched < pattern.length) continue;
        socket.data.matched = 0;
        own[at]! ^= 0x10;
        done++;
      }
      void socket.data.peer.then((peer) => void queue(peer, own));
    };
    // Bytes not accepted by a socket are queued; the test sends little data.
    const waiting = new WeakMap<object, Buffer[]>();
    const queue = (socket: Bun.Socket<Half>, bytes: Buffer): void => {
      const queued = waiting.get(socket) ?? [];
      waiting.set(socket, [...queued, bytes]);
      if (queued.length === 0) drain(socket);
    };
    const drain = (socket: Bun.Socket<Half>): void => {
      const queued = waiting.get(socket) ?? [];
      while (queued.length > 0) {
        const written = Math.max(0, socket.write(queued[0]!));
        if (written < queued[0]!.length) {
          queued[0] = queued[0]!.subarray(written);
          return;
        }
        queued.shift();
      }
    };
    const handlers = {
      data: pass,
      drain,
      end: (socket: Bun.Socket<Half>) => void socket.data.peer.then((peer) => peer.end()),
      close: (socket: Bun.Socket<Half>) => void socket.data.peer.then((peer) => peer.end()),
      error() {},
    };
    const listener = Bun.listen<Half>({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        ...handlers,
        open(socket) {
          const peer = Bun.connect<Half>({
            hostname: "127.0.0.1",
            port: to,
            data: { peer: Promise.resolve(socket), matched: 0 },
            socket: handlers,
          });
          socket.data = { peer, matched: 0 };
        },
      },
    });
    return {
      port: listener.port,
      get done() {
        return done;
      },
      [Symbol.dispose]: () => listener.stop(true),
    };
  }

  test("a byte that is flipped once costs a reconnect and no frame: exit 0", async () => {
    await withServer(async (server) => {
      using relay = damagingRelay(server.port, 1);
      const sent = await send(relay, folder);
      expectCode(sent, 0);
      expect(relay.done).toBe(1);
      expect(summaryOf(sent)).toMatchObject({ frames, retries: 1, lost: 0, refused: 0 });
      expect(sent.stderr).toMatch(/CRC-32.*; trying again/);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
      expectNoneAgain(sent.stderr);
      const failed = jsonLines(server.stdout()).filter(({ type }) => type === "failed");
      expect(failed).toMatchObject([{ error: "damaged" }]);
    });
  });

  test("a frame that is damaged each time is reported after three attempts, and the others arrive: exit 23", async () => {
    await withServer(async (server) => {
      using relay = damagingRelay(server.port, Infinity);
      const sent = await send(relay, folder);
      expectCode(sent, 23);
      expect(relay.done).toBe(3);
      const counts = { frames: frames - 1, lost: 1, refused: 0, reasons: { garbled: 1 } };
      expect(summaryOf(sent)).toMatchObject(counts);
      const named = jsonLines(sent.stdout).filter(({ type }) => type === "undelivered");
      expect(named).toMatchObject([{ source: "visible", what: "16.png", error: "garbled" }]);
      const differences = sameTree(folder, join(server.dir, "run7"));
      expect(differences).toEqual([`visible/16.png: only in ${folder}`]);
      expectNoneAgain(sent.stderr);
      const losses = journal(server.dir, "SELECT source, first, last, reason FROM losses");
      expect(losses).toEqual([{ source: "visible", first: 16, last: 16, reason: "garbled" }]);
    });
  });
});
