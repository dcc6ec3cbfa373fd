// Independent Python implementations of the article's dialect, client and server, against ours.
//
// Covers: client/article/connection.ts, client/article/send.ts, server/article-role.ts

import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { addKey, generateKey } from "../../src/keys/key-file.ts";
import { expectCode, journal, summaryOf, withServer } from "../helper/delivery.ts";
import { type Cut, startCutter } from "../helper/cutter.ts";
import {
  environment,
  jsonLines,
  launch,
  makeTree,
  peerMissing,
  run,
  sameTree,
  type Server,
  temporaryFolder,
} from "../helper/program.ts";
import { until, within } from "../helper/time.ts";

const missing = peerMissing("python3") ? "skipped: needs python3: " : "";
/** Most of what takes long is waiting. */
const withPython = test.concurrent.skipIf(missing !== "");

/** Sizes of pictures: mostly small ones, odd and even, and some large ones. */
function manySizes(
  count: number,
  large: readonly number[],
  more: readonly number[] = [],
): number[] {
  const sizes = [0, 2, 3, 4, 5, 7, ...large, ...more];
  for (let index = sizes.length; index < count; index++) {
    const size = [1001, 1400, 20_000, 2801, 65_483, 130_001, 64, 9000][index % 8]!;
    sizes.push(index % 3 === 0 ? size : Math.ceil(size / 7));
  }
  return sizes;
}

const upTo5MB = [5_000_000, 4_999_999, 1_000_001, 400_000, 300_001];

/** Creates a folder `name` with pictures 1.jpg, 2.png … of these sizes. */
function pictures(name: string, sizes: readonly number[]): string {
  const folder = join(temporaryFolder(), name);
  mkdirSync(folder);
  for (const [index, size] of sizes.entries()) {
    const ending = ["jpg", "png", "bmp"][index % 3]!;
    writeFileSync(join(folder, `${index + 1}.${ending}`), randomBytes(size));
  }
  return folder;
}

function python(script: string, ...args: string[]) {
  const path = join(import.meta.dir, "article", script);
  return Bun.spawn(["python3", path, ...args], {
    env: environment(),
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Runs a client. Returns its exit status and its errors. */
async function client(port: number, ...args: string[]): Promise<[number, string]> {
  const child = python("client.py", String(port), ...args);
  try {
    const ended = Promise.all([child.exited, new Response(child.stderr).text()]);
    return await within(ended, () => `client.py ${args.join(" ")} did not end`);
  } finally {
    child.kill("SIGKILL");
  }
}

/**
 * The published server lost its place. The dialect has no lengths where it needs them, so a system that
 * holds the server up gives it two texts as one. This can happen on any busy machine.
 */
class OutOfStep extends Error {}

/** @throws {OutOfStep} if the delivery broke off */
function inStep<T extends { code: number; stderr: string }>(sent: T): T {
  if (sent.code === 10) throw new OutOfStep(sent.stderr);
  return sent;
}

/**
 * Expects that the published server had no connection that broke. A sender of another test may have
 * tried its port, if the server of that test had it before.
 *
 * @throws {OutOfStep}
 */
function expectNoComplaint(complaints: string): void {
  if (complaints !== "") throw new OutOfStep(complaints);
}

/** Runs a server while `use` runs. Starts again, with a new server, if the server lost its place. */
async function withPublished(
  use: (port: number, folder: string, complaints: () => string) => Promise<void>,
  ...args: string[]
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await withPublishedOnce(use, ...args);
    } catch (error) {
      if (!(error instanceof OutOfStep) || attempt === 10) throw error;
    }
  }
}

async function withPublishedOnce(
  use: (port: number, folder: string, complaints: () => string) => Promise<void>,
  ...args: string[]
): Promise<void> {
  const folder = temporaryFolder();
  const child = python("server.py", folder, ...args);
  let complaints = "";
  const { promise: listening, resolve, reject } = Promise.withResolvers<number>();
  const listen = async (): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stdout) resolve(Number(decoder.decode(chunk)));
    reject(new Error(`server.py did not listen: ${complaints}`));
  };
  const collect = async (): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) complaints += decoder.decode(chunk, { stream: true });
  };
  const collected = Promise.all([listen(), collect()]);
  try {
    const port = await within(listening, () => "server.py did not listen");
    await use(port, folder, () => complaints);
  } finally {
    child.kill("SIGKILL");
    await collected;
  }
}

/** Returns the port for the article's clients. */
function articlePort(server: Server): number {
  const listening = jsonLines(server.stdout()).find(({ type }) => type === "listening");
  return Number(String(listening!["article"]).split(":").at(-1));
}

const article = ["--article", "127.0.0.1:0"];

/** Returns the server's log lines of this type. */
function told(server: Server, type: string) {
  return jsonLines(server.stdout()).filter((line) => line["type"] === type);
}

function send(folder: string, port: number, ...more: string[]) {
  const source = ["--article", "--source", "visible", "--json"];
  return run(["send", folder, ...source, "--to", `127.0.0.1:${port}`, ...more]);
}

describe("Article clients", () => {
  const variations: Record<string, string[]> = {
    "as published": [],
    "with pieces that arrive together": ["--pieces", "merged", "--answers", "counted", "--tiny"],
    "with continue and the next name in one": ["--steps", "together", "--answers", "counted"],
    "that go on at the first of several answers": ["--pieces", "merged", "--answers", "eager"],
  };

  withPython(
    `${missing}the published article client and its variants deliver 200 pictures byte for byte at the same time`,
    async () => {
      const folder = pictures("run7", manySizes(200, upTo5MB));
      const withTiny = pictures("run7", manySizes(200, upTo5MB, [1, 1, 3]));
      await withServer(
        async (server) => {
          const port = articlePort(server);
          const runs = Object.values(variations).map(async (flags, index) => {
            const sent = flags.includes("--tiny") ? withTiny : folder;
            expect(await client(port, "visible", `run${index}`, sent, ...flags)).toEqual([0, ""]);
            await until("delivered", () =>
              told(server, "delivered").some(({ stream }) => stream === `run${index}`),
            );
            expect(sameTree(sent, join(server.dir, `run${index}`, "visible"))).toEqual([]);
          });
          await Promise.all(runs);
          expect(told(server, "failed")).toEqual([]);
          const rows = journal<{ seq: number; name: string; bytes: number; crc32: number }>(
            server.dir,
            "SELECT seq, name, bytes, crc32 FROM frames WHERE stream = 'run0' ORDER BY id",
          );
          expect(rows.map(({ seq }) => seq)).toEqual(
            Array.from({ length: 200 }, (_, at) => at + 1),
          );
          for (const { name, bytes, crc32: sum, seq } of rows) {
            expect(name).toStartWith(`${seq}.`);
            const picture = await Bun.file(join(folder, name)).bytes();
            expect([bytes, sum]).toEqual([picture.length, crc32(picture)]);
          }
        },
        ...article,
      );
    },
  );
});

describe("clients of the article deliver 80 pictures, byte for byte,", () => {
  const cuts: Record<string, { toServer: Cut; toClient: Cut }> = {
    "byte by byte at first, and answers held back": {
      toServer: { most: 100_000, pause: 1 },
      toClient: { most: 2, hold: 1 },
    },
    "anywhere, and answers cut in two": {
      toServer: { most: 3000 },
      toClient: { most: 1 },
    },
  };

  withPython(
    `${missing}article clients deliver 200 pictures byte for byte through a network that splits and joins their bytes`,
    async () => {
      const folder = pictures("run7", manySizes(80, upTo5MB));
      await withServer(
        async (server) => {
          const port = articlePort(server);
          const ways = Object.values(cuts).flatMap((cut, seed) =>
            [[], ["--answers", "counted", "--steps", "together"]].map((flags) => ({
              ...{ cut, seed, flags },
            })),
          );
          const runs = ways.map(async ({ cut, seed, flags }, index) => {
            using cutter = await startCutter({ to: port, seed: seed + 1, ...cut });
            const sent = client(cutter.port, "infrared", `cut${index}`, folder, ...flags);
            expect(await sent).toEqual([0, ""]);
            await until("delivered", () =>
              told(server, "delivered").some(({ stream }) => stream === `cut${index}`),
            );
            expect(sameTree(folder, join(server.dir, `cut${index}`, "infrared"))).toEqual([]);
            expect(await cutter.cuts()).toBeGreaterThan(200);
          });
          await Promise.all(runs);
          expect(told(server, "failed")).toEqual([]);
        },
        ...article,
      );
    },
  );
});

describe("frames send --article with 200 pictures", () => {
  const servers: Record<string, string[]> = {
    "as published": [],
    "that reads eight bytes for continue": ["--word", "eight"],
    "that takes continue and the next name together": ["--word", "any", "--tiny"],
  };

  withPython(
    `${missing}frames send --article delivers 200 pictures byte for byte to the published server and its variants`,
    async () => {
      const folder = pictures("run7", manySizes(200, upTo5MB));
      const withTiny = pictures("run7", manySizes(200, upTo5MB, [1, 1, 3]));
      const runs = Object.values(servers).map((flags) =>
        withPublished(
          async (port, kept, complaints) => {
            const sent = flags.includes("--tiny") ? withTiny : folder;
            const result = inStep(await send(sent, port, "--stream", "night"));
            expectCode(result, 0);
            expect(summaryOf(result)).toMatchObject({ frames: 200, lost: 0, stream: "night" });
            expect(result.stderr).toContain("no checksum, no key, no resuming");
            await until("the last picture", () => readdirSync(join(kept, "night")).length === 200);
            expect(sameTree(sent, join(kept, "night"))).toEqual([]);
            expectNoComplaint(complaints());
          },
          ...flags,
        ),
      );
      await Promise.all(runs);
    },
  );
});

describe("frames send --article delivers 80 pictures, byte for byte,", () => {
  withPython(
    `${missing}frames send --article delivers 200 pictures byte for byte through a network that splits pictures and joins answers`,
    async () => {
      const folder = pictures("run7", manySizes(80, [300_001]));
      // Texts stay whole, because no server of the article accepts a split text.
      const cuts: { toServer: Cut; toClient: Cut }[] = [
        { toServer: { most: 1000, whole: 60 }, toClient: { most: 2 } },
        { toServer: { most: 40_000, whole: 60, pause: 1 }, toClient: { most: 100, hold: 3 } },
        { toServer: { most: 5000, whole: 60 }, toClient: { most: 1, pause: 1 } },
      ];
      // This tests pictures only. If a stalled network joins two texts, only the server could
      // handle that.
      const words = ["eight", "any", "any"];
      const runs = cuts.map((cut, index) =>
        withPublished(
          async (port, kept, complaints) => {
            using cutter = await startCutter({ to: port, seed: index + 1, ...cut });
            const result = inStep(await send(folder, cutter.port, "--stream", "night"));
            expectNoComplaint(complaints());
            expect(result.code).toBe(0);
            await until("the last picture", () => readdirSync(join(kept, "night")).length === 80);
            expect(sameTree(folder, join(kept, "night"))).toEqual([]);
            expect(await cutter.cuts()).toBeGreaterThan(20);
          },
          "--word",
          words[index]!,
        ),
      );
      await Promise.all(runs);
    },
  );
});

/** A client that sends exactly the bytes of the test. */
async function speak(port: number) {
  let heard = "";
  let closed = false;
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    allowHalfOpen: true,
    socket: {
      data: (_, bytes) => void (heard += Buffer.from(bytes).toString("latin1")),
      end: (own) => void own.shutdown(),
      close: () => void (closed = true),
    },
  });
  return {
    say: (text: string | Uint8Array) => void socket.write(text),
    hears: (text: string) => until(`the answer ${text}`, () => heard === text),
    isCutOff: () => until("the end of the connection", () => closed),
    heard: () => heard,
    finish: () => void socket.shutdown(),
    close: () => void socket.end(),
  };
}

describe("Violations of the article dialect", () => {
  const headers: [what: string, bytes: string | Uint8Array, said: RegExp][] = [
    ["a word alone", "hello", /header KIND\|FOLDER, received "hello"/],
    ["three parts", "a|b|c", /header KIND\|FOLDER, received "a\|b\|c?"/],
    ["no kind", "|run7", /header KIND\|FOLDER/],
    ["no folder", "visible|", /header KIND\|FOLDER/],
    ["binary", randomBytes(700), /header KIND\|FOLDER/],
    ["bytes that are no text", Buffer.from("visible|r\xff\xfe", "latin1"), /are not text/],
    ["2,000 bytes without a |", "x".repeat(2000), /longer than 1024 bytes/],
    ["HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", /header KIND\|FOLDER/],
    ["FRAMES/1", "FRAMES/1\x01\0\0\0\0\0\0\x10", /header KIND\|FOLDER/],
    ["a folder that leads elsewhere", "visible|../../x", /The name cannot be used.*dot/],
    ["a kind that leads elsewhere", "../..|run7", /The name cannot be used/],
    ["a hidden folder", "visible|.frames", /The name cannot be used.*dot/],
  ];
  test.concurrent(
    "the article port disconnects a client with a wrong header and logs the reason",
    async () => {
      await withServer(
        async (server) => {
          for (const [what, bytes, said] of headers) {
            const before = told(server, "failed").length;
            const peer = await speak(articlePort(server));
            peer.say(bytes);
            await peer.isCutOff();
            await until(`the line of ${what}`, () => told(server, "failed").length > before);
            const line = told(server, "failed").at(-1)!;
            expect([what, line["message"]]).toEqual([what, expect.stringMatching(said)]);
            expect([what, peer.heard()]).toEqual([what, ""]);
          }
          expect(readdirSync(server.dir)).toEqual([".frames"]);
        },
        ...article,
      );
    },
  );

  test.concurrent(
    "the article port logs error foreign when a client closes after half a header",
    async () => {
      await withServer(
        async (server) => {
          const peer = await speak(articlePort(server));
          peer.say("hello");
          peer.finish();
          await peer.isCutOff();
          await until("its line", () => told(server, "failed").length > 0);
          expect(told(server, "failed")[0]).toMatchObject({ error: "foreign" });
        },
        ...article,
      );
    },
  );

  test.concurrent(
    "the article port disconnects a client that sends no header within the timeout",
    async () => {
      await withServer(
        async (server) => {
          const peer = await speak(articlePort(server));
          await peer.isCutOff();
          await until("its line", () => told(server, "failed").length > 0);
          expect(told(server, "failed")[0]).toMatchObject({
            error: "timeout",
            message: "No header KIND|FOLDER arrived within 1 s",
          });
        },
        ...article,
        "--timeout",
        "1",
      );
    },
  );

  const titles: [what: string, bytes: string, said: RegExp][] = [
    ["a name that leads out", "3|../../x", /"\.\.\/\.\.\/x": it begins with a dot/],
    ["an absolute name", "3|/etc/passwd", /it contains a slash/],
    ["a hidden name", "3|.jpg", /it begins with a dot/],
    ["an empty name", "3|", /: expected |The rest of a message/],
    ["a length that is none", "-3|1.jpg", /LENGTH\|NAME of a frame, received "-"/],
    ["a length of twenty digits", "1".repeat(20), /LENGTH\|NAME/],
    [
      "a picture that is too large",
      "1048577|1.jpg",
      /has 1048577 bytes, the server accepts 1048576/,
    ],
    ["no name within 1,024 bytes", `3|${"x".repeat(1100)}`, /longer than 1024 bytes/],
  ];
  test.concurrent(
    "the article port disconnects a client with an unsafe name or a wrong length and writes nothing",
    async () => {
      await withServer(
        async (server) => {
          for (const [index, [what, bytes, said]] of titles.entries()) {
            const before = told(server, "failed").length;
            const peer = await speak(articlePort(server));
            peer.say(`visible|run${index}`);
            await peer.hears("ok");
            peer.say(bytes);
            await peer.isCutOff();
            await until(`the line of ${what}`, () => told(server, "failed").length > before);
            const line = told(server, "failed").at(-1)!;
            expect([what, line["message"]]).toEqual([what, expect.stringMatching(said)]);
            expect([what, peer.heard()]).toEqual([what, "ok"]);
          }
          expect(readdirSync(server.dir)).toEqual([".frames"]);
          expect(readdirSync(join(server.dir, ".frames/partial"))).toEqual([]);
        },
        ...article,
        "--max-frame",
        "1M",
        "--timeout",
        "5",
      );
    },
  );

  test.concurrent(
    "the article port disconnects a client that sends neither continue nor over, and keeps the picture before",
    async () => {
      await withServer(
        async (server) => {
          const peer = await speak(articlePort(server));
          peer.say("visible|data/run 7/");
          await peer.hears("ok");
          peer.say("2|1.jpg");
          await peer.hears("okok");
          peer.say("a");
          await peer.hears("okokok");
          peer.say("b");
          await peer.hears("okokokok");
          peer.say("contact");
          await peer.isCutOff();
          await until("its line", () => told(server, "failed").length > 0);
          expect(told(server, "failed")[0]).toMatchObject({
            stream: "data-run 7",
            error: "protocol",
            counts: { stored: 1 },
          });
          expect(await Bun.file(join(server.dir, "data-run 7/visible/1.jpg")).text()).toBe("ab");
        },
        ...article,
      );
    },
  );
});

describe("frames serve --article", () => {
  /** Sends one picture and waits for all answers. */
  async function deliver(port: number, folder: string, title: string, bytes: string) {
    const peer = await speak(port);
    peer.say(`visible|${folder}`);
    await peer.hears("ok");
    peer.say(title);
    await peer.hears("okok");
    peer.say(bytes);
    return peer;
  }

  test.concurrent(
    "the article port sends the last ok for a picture only when the picture is in the journal",
    async () => {
      await withServer(
        async (server) => {
          const peer = await deliver(articlePort(server), "run7", "5|7.jpg", "hello");
          await peer.hears("okokokokok");
          expect(journal(server.dir, "SELECT name, source, seq FROM frames")).toEqual([
            { name: "7.jpg", source: "visible", seq: 1 },
          ]);
          peer.say("over");
          await peer.isCutOff();
          await until("delivered", () => told(server, "delivered").length === 1);
        },
        ...article,
      );
    },
  );

  test.concurrent(
    "the article port accepts a stored picture again, but disconnects a client that sends other bytes under its name",
    async () => {
      await withServer(
        async (server) => {
          const port = articlePort(server);
          for (const bytes of ["hello", "hello", "HELLO"]) {
            const peer = await deliver(port, "run7", "5|7.jpg", bytes);
            if (bytes === "hello") {
              await peer.hears("okokokokok");
              peer.say("over");
            }
            await peer.isCutOff();
            if (bytes === "HELLO") expect(peer.heard()).not.toContain("okokokokok");
          }
          await until("its line", () => told(server, "failed").length > 0);
          expect(told(server, "failed")[0]).toMatchObject({ error: "conflict", stream: "run7" });
          expect(told(server, "refused")[0]).toMatchObject({ name: "7.jpg", error: "conflict" });
          const present = told(server, "delivered").map((line) => line["counts"]);
          expect(present).toMatchObject([{ stored: 1 }, { present: 1 }]);
          expect(await Bun.file(join(server.dir, "run7/visible/7.jpg")).text()).toBe("hello");
        },
        ...article,
      );
    },
  );

  test.concurrent(
    "the article port finds the end of any name by a pause, and discards a picture that is cut short",
    async () => {
      await withServer(
        async (server) => {
          const port = articlePort(server);
          const peer = await deliver(port, "run7", "2|Straße 12.jpeg", "ab");
          await peer.hears("okokokok");
          peer.say("continue9|a.tiff");
          await peer.hears("okokokokok");
          peer.say("abcdefgh");
          peer.close();
          await until("its line", () => told(server, "failed").length > 0);
          expect(told(server, "failed")[0]).toMatchObject({
            error: "network",
            counts: { stored: 1 },
          });
          expect(readdirSync(join(server.dir, "run7/visible"))).toEqual(["Straße 12.jpeg"]);
          expect(readdirSync(join(server.dir, ".frames/partial"))).toEqual([]);
        },
        ...article,
      );
    },
  );

  test.concurrent(
    "a server refuses a FRAMES/1 sender a source that an article client is sending",
    async () => {
      const folder = pictures("run7", [10, 20]);
      await withServer(
        async (server) => {
          const peer = await deliver(articlePort(server), "run7", "900|7.jpg", "begun");
          // It shows that it is there.
          const drip = setInterval(() => peer.say("."), 200);
          try {
            const [to, name] = [
              `127.0.0.1:${server.port}`,
              ["--stream", "run7", "--source", "visible"],
            ];
            const framesSender = await run(["send", folder, "--to", to, ...name]);
            expect(framesSender.stderr).toContain("has been sending it since");
            expect(framesSender.code).toBe(23);
          } finally {
            clearInterval(drip);
            peer.close();
          }
        },
        ...article,
      );
    },
  );

  withPython(
    `${missing}the article port keeps the pictures before a one-byte picture, which the published client never finishes`,
    async () => {
      const folder = pictures("run7", [10, 11, 1]);
      await withServer(
        async (server) => {
          const [code, complaint] = await client(articlePort(server), "visible", "run7", folder);
          expect([code, complaint]).toEqual([1, "the server closed the connection\n"]);
          await until("its line", () => told(server, "failed").length > 0);
          expect(told(server, "failed")[0]).toMatchObject({
            error: "timeout",
            message: "The peer was silent for 5 s: expected 1 byte of a frame",
            counts: { stored: 2 },
          });
          expect(sameTree(folder, join(server.dir, "run7/visible"))).toEqual([
            `3.bmp: only in ${folder}`,
          ]);
        },
        ...article,
        "--timeout",
        "5",
      );
    },
  );

  withPython(
    `${missing}a server receives from a FRAMES/1 sender and two article clients at the same time`,
    async () => {
      const sizes = manySizes(60, [400_000]);
      const [a, b, c] = ["a", "b", "c"].map((name) => pictures(name, sizes));
      await withServer(
        async (server) => {
          const port = articlePort(server);
          const [first, second, third] = await Promise.all([
            client(port, "visible", "run7", a!),
            client(port, "infrared", "run7", b!),
            run(["send", c!, "--stream", "run7", "--to", `127.0.0.1:${server.port}`]),
          ]);
          expect([first, second]).toEqual([
            [0, ""],
            [0, ""],
          ]);
          expectCode(third, 0);
          await until("three deliveries", () => told(server, "delivered").length === 3);
          expect(sameTree(a!, join(server.dir, "run7/visible"))).toEqual([]);
          expect(sameTree(b!, join(server.dir, "run7/infrared"))).toEqual([]);
          expect(sameTree(c!, join(server.dir, "run7/c"))).toEqual([]);
        },
        ...article,
      );
    },
  );

  test.concurrent(
    "the article port listens beyond loopback only with --article-insecure, and the FRAMES/1 port still requires a key",
    async () => {
      const dir = temporaryFolder();
      const refusals: [args: string[], said: string][] = [
        [["--article", "0.0.0.0:0"], "add --article-insecure to allow that"],
        [["--article", "192.0.2.1:8000"], "add --article-insecure to allow that"],
        [["--article", "localhost"], "expected HOST:PORT"],
        [["--article-insecure"], "add --article HOST:PORT"],
      ];
      for (const [args, said] of refusals) {
        const { code, stderr } = await run(["serve", dir, "--listen", "127.0.0.1:0", ...args]);
        expect([code, stderr]).toEqual([1, expect.stringContaining(said)]);
      }
      const open = ["--article", "0.0.0.0:0", "--article-insecure"];
      await withServer(
        async (server) => {
          const peer = await speak(articlePort(server));
          peer.say("visible|run7");
          await peer.hears("ok");
          peer.close();
          const folder = pictures("run8", [10]);
          const to = ["--to", `127.0.0.1:${server.port}`];
          const sent = await run(["send", folder, ...to, "--insecure"]);
          expect([sent.code, sent.stderr]).toEqual([5, expect.stringContaining("key")]);
        },
        ...open,
        "--key-file",
        newKeyFile(),
      );
    },
  );
});

describe("Both ends of frames", () => {
  test.concurrent(
    "frames send --article delivers pictures of every size to frames serve --article",
    async () => {
      const folder = makeTree({ "visible/über-1.jpg": 3000, "visible/2.tiff": 50_000 });
      for (const size of [0, 1, 2, 3, 1199, 1200, 2400, 2401, 3000, 65_537, 1_000_001]) {
        writeFileSync(join(folder, "visible", `${size}.jpg`), randomBytes(size));
      }
      await withServer(
        async (server) => {
          const to = ["--to", `127.0.0.1:${articlePort(server)}`, "--stream", "run7"];
          const sent = await run(["send", folder, "--article", ...to, "--json"]);
          expectCode(sent, 0);
          expect(summaryOf(sent)).toMatchObject({ frames: 13, lost: 0 });
          expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
          expect(told(server, "failed")).toEqual([]);
        },
        ...article,
      );
    },
  );
});

/** Creates a key file with one key. */
function newKeyFile(): string {
  const path = join(temporaryFolder(), "keys");
  addKey(path, { name: "one", key: generateKey(), role: "both", streams: "*" }, false);
  return path;
}

describe("frames send --article", () => {
  withPython(
    `${missing}frames send --article delivers all pictures but those of one byte to the published server, and lists these`,
    async () => {
      const folder = pictures("run7", [10, 1, 11, 1, 12]);
      await withPublished(async (port, kept) => {
        const result = inStep(await send(folder, port));
        expectCode(result, 23);
        expect(result.stderr).toContain(
          "Not delivered: visible/2.png (number 2): the article's server never finishes a frame of one byte",
        );
        expect(summaryOf(result)).toMatchObject({
          frames: 3,
          lost: 2,
          reasons: { "not-stored": 2 },
        });
        expect(readdirSync(join(kept, "run7")).toSorted()).toEqual(["1.jpg", "3.bmp", "5.png"]);
      });
    },
  );

  withPython(`${missing}frames send --article waits for a server that stores slowly`, async () => {
    const folder = pictures("run7", [10, 3000, 12]);
    await withPublished(
      async (port, kept, complaints) => {
        const result = inStep(await send(folder, port));
        expectNoComplaint(complaints());
        expect(result.code).toBe(0);
        // That server answers before it stores.
        await until("the last picture", () => sameTree(folder, join(kept, "run7")).length === 0);
      },
      "--slow",
      "0.3",
      "--word",
      "any",
    );
  });

  withPython(`${missing}frames send --article opens a connection for each source`, async () => {
    const folder = makeTree({ "visible/1.jpg": 10, "visible/2.jpg": 3000, "infrared/1.jpg": 20 });
    await withPublished(async (port, kept, complaints) => {
      const to = ["--to", `127.0.0.1:${port}`, "--stream", "night"];
      const result = inStep(
        await run(["send", folder, "--article", "--exclude", "2.*", "--json", ...to]),
      );
      expectNoComplaint(complaints());
      expect(result.code).toBe(0);
      expect(summaryOf(result)).toMatchObject({
        frames: 2,
        sources: [
          { name: "infrared", frames: 1 },
          { name: "visible", frames: 1 },
        ],
      });
      // That server keeps all sources in one folder.
      expect(readdirSync(join(kept, "night"))).toEqual(["1.jpg"]);
    });
  });

  withPython(`${missing}send --article finishes its picture when it is stopped`, async () => {
    const folder = pictures("run7", manySizes(200, []));
    await withPublished(async (port, kept, complaints) => {
      const source = ["--article", "--source", "visible", "--json", "-v"];
      using sender = launch(["send", folder, ...source, "--to", `127.0.0.1:${port}`]);
      // A sender ends without it if the server lost its place.
      const hasEnded = () => sender.child.exitCode !== null;
      await until("the fifth picture", () => hasEnded() || sender.stderr().includes("|5.png"));
      sender.child.kill("SIGTERM");
      const result = inStep(await sender.ended());
      expectNoComplaint(complaints());
      expect(result.code).toBe(20);
      const { frames, interrupted } = summaryOf(result);
      expect(interrupted).toBe(true);
      expect(result.stderr).toContain("-> over");
      expect(readdirSync(join(kept, "run7"))).toHaveLength(Number(frames));
      expect(Number(frames)).toBeLessThan(200);
    });
  });

  withPython(`${missing}frames send --article reports a kind that the server rejects`, async () => {
    const folder = pictures("run7", [10]);
    await withPublished(async (port) => {
      const address = `127.0.0.1:${port}`;
      const result = await run(["send", folder, "--article", "--source", "depth", "--to", address]);
      expect([result.code, result.stderr]).toEqual([
        2,
        expect.stringContaining("closed the connection instead of answering depth|run7"),
      ]);
    });
  });

  test.concurrent(
    "frames send --article reports a frames server as a server of another protocol",
    async () => {
      const folder = pictures("run7", [10]);
      await withServer(async (server) => {
        const result = await send(folder, server.port);
        expect([result.code, result.stderr]).toEqual([2, expect.stringContaining("the article's")]);
      });
    },
  );

  test.concurrent(
    "frames send --article reports what was delivered when the connection breaks, and does not reconnect",
    async () => {
      const folder = pictures("run7", [10, 20, 30]);
      let connections = 0;
      let bytes = 0;
      const listener = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: {
          open: () => void connections++,
          data(socket, chunk) {
            bytes += chunk.length;
            // Accepts the header and the first picture with its title, then disconnects.
            if (bytes <= "visible|run7".length + "10|1.jpg".length + 10) socket.write("ok");
            else socket.terminate();
          },
        },
      });
      try {
        const result = await send(folder, listener.port);
        expect([result.code, result.stderr]).toEqual([
          10,
          expect.stringContaining(
            "1 of 3 frames confirmed; the same command again sends all of them",
          ),
        ]);
        expect(connections).toBe(1);
      } finally {
        listener.stop(true);
      }
    },
  );

  test.concurrent(
    "frames send --article times out when a server does not answer, and names the missing answer",
    async () => {
      const folder = pictures("run7", [10]);
      const listener = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: { data() {} },
      });
      try {
        const result = await send(folder, listener.port, "--timeout", "1");
        expect([result.code, result.stderr]).toEqual([
          30,
          expect.stringContaining("No answer to the header arrived within 1 s"),
        ]);
      } finally {
        listener.stop(true);
      }
    },
  );

  const wrong: [args: string[], said: string][] = [
    [["--to", "127.0.0.1:9", "--move"], "Cannot use --move with --article"],
    [["--to", "127.0.0.1:9", "--watch"], "Cannot use --watch with --article"],
    [["--to", "127.0.0.1:9", "--checksum"], "Cannot use --checksum with --article"],
    [["--to", "127.0.0.1:9", "--on-conflict", "skip"], "Cannot use --on-conflict with --article"],
    [["--to", "127.0.0.1:9", "--stream", "a|b"], "the name contains |"],
    [[], "no server given; add --to HOST:PORT"],
  ];
  test.concurrent(
    "frames send --article rejects flags that the dialect does not support",
    async () => {
      const folder = pictures("run7", [10]);
      for (const [args, said] of wrong) {
        const { code, stderr } = await run(["send", folder, "--article", ...args]);
        expect([args, code, stderr]).toEqual([args, 1, expect.stringContaining(said)]);
      }
    },
  );
});
