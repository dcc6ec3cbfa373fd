// Errors of users and machines: each has an exit status and one line with what was expected and
// received. Everything else is still delivered.
//
// Covers: cli/output/exit-code.ts, client/plan/options.ts, client/plan/paths.ts,
//   client/plan/plan.ts, client/undelivered.ts, main.ts

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";

import { type Json, relayTo, summaryOf, withServer } from "../helper/delivery.ts";
import {
  environment,
  executable,
  type Finished,
  jsonLines,
  launch,
  type Launched,
  makeTree,
  manyFrames,
  peerMissing,
  run,
  sameTree,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { hangMs, until, within } from "../helper/time.ts";

/** Returns the only line for people on stderr. */
function theLine({ stderr }: Pick<Finished, "stderr">): string {
  const lines = stderr.split("\n").filter((line) => line !== "");
  expect(lines).toHaveLength(1);
  expect(lines[0]).toStartWith("frames: ");
  return lines[0]!;
}

function undelivered(finished: Finished): Json[] {
  return jsonLines(finished.stdout).filter(({ type }) => type === "undelivered");
}

/** Starts `frames serve` with output for people on stderr. */
async function serveForPeople(...args: string[]) {
  const dir = temporaryFolder();
  const server = launch(["serve", dir, "--listen", "127.0.0.1:0", ...args]);
  const greeting = /^Listening at 127\.0\.0\.1:(\d+)/m;
  await until("the greeting", () => greeting.test(server.stderr()));
  return { ...server, dir, port: Number(greeting.exec(server.stderr())![1]) };
}

/** Starts a fake server. */
function fakeServer(begin: (socket: Bun.Socket) => void) {
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { open: begin, data() {}, error() {} },
  });
  return { port: listener.port, [Symbol.dispose]: () => listener.stop(true) };
}

/** Returns a port that was just closed. */
function closedPort(): number {
  using server = fakeServer(() => {});
  return server.port;
}

function send(server: { port: number }, path: string, ...more: string[]): Promise<Finished> {
  return run(["send", path, "--to", `127.0.0.1:${server.port}`, "--json", ...more]);
}

/** Command that runs the program without root's file permissions. */
const denied =
  process.getuid?.() === 0 ? ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] : [];
const denialMissing =
  process.platform === "win32" || (denied.length > 0 && peerMissing("setpriv"))
    ? "skipped: needs setpriv, or a user who is not root: "
    : "";
const linux = process.platform === "linux" ? "" : "skipped: needs Linux: ";
const posix = process.platform === "win32" ? "skipped: needs a POSIX system: " : "";

// Servers at the other end.

describe("frames send at a wrong address", () => {
  const folder = makeTree({ "visible/1.png": 1_000 });

  test("frames send reports a port without a server: exit 10", async () => {
    const port = closedPort();
    const sent = await send({ port }, folder);
    expect(theLine(sent)).toMatch(/connect.*connection refused.*frames serve/);
    expect(theLine(sent)).toContain(`127.0.0.1:${port}`);
    expect(sent.code).toBe(10);
  });

  test("frames send reports a host that does not exist: exit 10", async () => {
    const sent = await run(["send", folder, "--to", "camera-host.invalid:9726", "--insecure"]);
    expect(theLine(sent)).toMatch(/Cannot connect.*camera-host\.invalid/);
    expect(sent.code).toBe(10);
  });

  test("frames send reports that a web server does not speak FRAMES/1: exit 2", async () => {
    const web = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("hello") });
    try {
      const sent = await send({ port: web.port! }, folder);
      expect(sent.code).toBe(2);
      expect(theLine(sent)).toContain("expected FRAMES/1");
      expect(theLine(sent)).toContain("HTTP");
    } finally {
      await web.stop(true);
    }
  });

  for (const { what, begins, code, says, lineCount = 1, args = [] } of [
    {
      what: "a server of another protocol",
      begins: (socket: Bun.Socket) => void socket.write("SSH-2.0-OpenSSH_9.6\r\n"),
      code: 2,
      says: [/expected FRAMES\/1/, /SSH-2\.0/],
    },
    {
      what: "random bytes",
      begins: (socket: Bun.Socket) =>
        void socket.write(new Uint8Array(500).map((_, i) => (i * 89 + 200) % 256)),
      code: 2,
      says: [/expected FRAMES\/1/],
    },
    {
      what: "an answer of terminal escapes",
      begins: (socket: Bun.Socket) => void socket.write("\x1b[2J\x1b]0;title\x07 and more\n"),
      code: 2,
      says: [/expected FRAMES\/1/],
    },
    {
      what: "a server of a later version",
      begins: (socket: Bun.Socket) => void socket.write("FRAMES/2"),
      code: 2,
      says: [/FRAMES\/2/, /FRAMES\/1/],
    },
    {
      // Tried three times, because the link may be at fault. The reason is printed once, and again
      // at the end.
      what: "damage in every message",
      begins: (socket: Bun.Socket) => void socket.write("FRAMES/1\x02\0\0\0\0\0\0\x02\0\0\0\0{}"),
      code: 12,
      lineCount: 2,
      says: [/WELCOME|CRC|checksum/i],
    },
    {
      what: "a server that accepts and sends nothing",
      begins: () => {},
      args: ["--timeout", "1"],
      code: 30,
      says: [/WELCOME/, /\b1 s/],
    },
    {
      what: "a server that stops within its first message",
      begins: (socket: Bun.Socket) => void socket.write("FRAMES/1\x02\0\0"),
      args: ["--timeout", "1"],
      code: 30,
      says: [/WELCOME/, /\b1 s/],
    },
    {
      what: "a server that closes at once",
      begins: (socket: Bun.Socket) => void socket.end(),
      code: 10,
      // Closing with unread input turns FIN into a reset.
      says: [/closed|reset the connection/],
    },
    {
      what: "a server that resets the connection at once",
      begins: (socket: Bun.Socket) => void socket.terminate(),
      code: 10,
      says: [/closed|reset/],
    },
  ]) {
    test(`frames send reports ${what}: exit ${code}`, async () => {
      using server = fakeServer(begins);
      const sent = await send(server, folder, ...args);
      const lines = sent.stderr.trimEnd().split("\n");
      expect(lines).toHaveLength(lineCount);
      const line = lines.at(-1)!;
      for (const words of says) expect(line).toMatch(words);
      expect(line).not.toMatch(/[\p{Cc}]/u);
      expect(sent.code).toBe(code);
    });
  }
});

const pythonMissing =
  peerMissing("python3") || linux !== "" ? "skipped: needs python3 on Linux: " : "";

let hole: Bun.Subprocess<"ignore", "pipe", "inherit">;
let toHole: string;
/** It waits 10 s while other tests run. */
let unanswered: Launched;

if (pythonMissing === "") {
  beforeAll(async () => {
    // A listener with a full backlog that never accepts: new connections get no answer.
    const program = `
import socket, time
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(0)
others = [socket.socket() for _ in range(4)]
for other in others:
    other.setblocking(False)
    other.connect_ex(listener.getsockname())
print(listener.getsockname()[1], flush=True)
time.sleep(600)
`;
    hole = Bun.spawn(["python3", "-c", program], { stdin: "ignore", stdout: "pipe" });
    const reader = hole.stdout.getReader();
    const { value } = await reader.read();
    toHole = `127.0.0.1:${Number(new TextDecoder().decode(value))}`;
    unanswered = launch(["send", makeTree({ "visible/1.png": 1_000 }), "--to", toHole]);
  });
  afterAll(() => {
    unanswered.child.kill("SIGKILL");
    hole.kill("SIGKILL");
  });
}

describe("frames serve and foreign clients", () => {
  let server: Server;
  const folder = makeTree({ "visible/1.png": 1_000 });
  beforeAll(async () => {
    server = await startServer({ dir: temporaryFolder(), args: ["--timeout", "1"] });
  });
  afterAll(async () => {
    expect(await server.stop()).toBe(0);
  });

  /** Returns the reply to `bytes`, until the server closes. */
  async function answerTo(bytes: string | Uint8Array): Promise<Buffer> {
    const socket: Socket = connect(server.port, "127.0.0.1");
    socket.write(bytes);
    const parts: Buffer[] = [];
    socket.on("data", (part: Buffer) => parts.push(part));
    // A reset counts as closing too.
    socket.on("error", () => {});
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    await within(closed, () => "the server did not close");
    return Buffer.concat(parts);
  }

  async function expectLogged(words: RegExp): Promise<void> {
    await until(`a line of the log like ${words}`, () => words.test(server.stdout()));
    const sent = await send(server, folder);
    expect(sent.code).toBe(0);
  }

  /**
   * Expects that the reply is a single ERROR of FRAMES/1 (SPEC sections 3 and 11). Returns its
   * text.
   */
  function expectError(answer: Buffer, number: number): string {
    expect(answer.toString("latin1", 0, 8)).toBe("FRAMES/1");
    expect(answer[8]).toBe(14);
    const body = JSON.parse(answer.toString("utf8", 20)) as { error: number; message: string };
    expect(body.error).toBe(number);
    return body.message;
  }

  test("a server answers a browser with 400 and the right address, and continues to serve", async () => {
    const response = await fetch(`http://127.0.0.1:${server.port}/index.html`);
    expect(response.status).toBe(400);
    const text = await response.text();
    expect(text).toContain(`127.0.0.1:${server.port}`);
    expect(text).toContain("frames send");
    await expectLogged(/HTTP/);
  });

  test("a server answers a client of a later version with ERROR version, and continues to serve", async () => {
    const message = expectError(await answerTo("FRAMES/2\x01\0\0\0"), 2);
    expect(message).toMatch(/FRAMES\/2.*FRAMES\/1/);
    await expectLogged(/FRAMES\/2/);
  });

  test("a server does not answer random bytes, and continues to serve", async () => {
    const bytes = new Uint8Array(5_000).map((_, index) => (index * 89 + 200) % 256);
    expect(await answerTo(bytes)).toHaveLength(0);
    await expectLogged(/expected FRAMES\/1/);
  });

  test("a server without keys refuses a TLS client, and continues to serve", async () => {
    const socket = connectTls({ host: "127.0.0.1", port: server.port, rejectUnauthorized: false });
    const refused = new Promise<void>((resolve) => {
      socket.once("error", () => resolve());
      socket.once("close", () => resolve());
    });
    await within(refused, () => "the TLS handshake did not end");
    socket.destroy();
    await expectLogged(/expected FRAMES\/1/);
  });

  test("a server answers a silent client with an ERROR about the missing HELLO, and continues to serve", async () => {
    expect(expectError(await answerTo(""), 5)).toMatch(/HELLO.*\b1 s/);
    await expectLogged(/HELLO/);
  });

  test("a server rejects a message over the longest length without waiting for it, and continues to serve", async () => {
    const hello = "FRAMES/1\x01\0\0\0";
    expectError(await answerTo(Buffer.from(`${hello}\xff\xff\xff\xff\0\0\0\0`, "latin1")), 1);
    await expectLogged(/"error":"protocol"/);
  });
});

// Input files.

describe("Input that cannot be sent", () => {
  const port = closedPort();

  for (const { what, make, says } of [
    {
      what: "is missing",
      make: () => "/nonexistent/run7",
      says: /run7.*no such file or directory/,
    },
  ]) {
    test(`frames send does not connect if its directory ${what}: exit 1`, async () => {
      const sent = await send({ port }, make());
      expect(theLine(sent)).toMatch(says);
      expect(sent.code).toBe(1);
    });
  }

  const noFfmpeg = peerMissing("ffprobe") ? "skipped: needs ffmpeg: " : "";
  test.skipIf(noFfmpeg !== "")(`${noFfmpeg}frames send rejects a text file: exit 23`, async () => {
    const sent = await send({ port }, join(makeTree({ "notes.txt": "hello" }), "notes.txt"));
    expect(theLine(sent)).toMatch(/Cannot read .*notes\.txt/);
    expect(sent.code).toBe(23);
  });

  test.skipIf(denialMissing !== "")(`${denialMissing}send needs read access: exit 1`, async () => {
    const folder = makeTree({ "1.png": 3 });
    chmodSync(folder, 0);
    const args = ["send", folder, "--to", `127.0.0.1:${port}`];
    const sent = await run(args, { command: [...denied, executable] });
    expect(theLine(sent)).toMatch(/run7.*permission denied/);
    expect(sent.code).toBe(1);
  });

  test("frames send of an empty directory reports no frames: exit 0", async () => {
    const sent = await send({ port }, makeTree({}));
    expect(sent.stderr).toMatch(/^No frames found.*\n$/);
    expect(summaryOf(sent)).toMatchObject({ frames: 0, bytes: 0 });
    expect(sent.code).toBe(0);
  });
});

test.skipIf(denialMissing !== "")(
  `${denialMissing}files and folders without read access are reported, and the others arrive: exit 23`,
  async () => {
    const folder = makeTree({
      "a/1.png": 10,
      "a/2.png": 20,
      "a/3.png": 30,
      "b/1.png": 1,
      "c/1.png": 4,
    });
    chmodSync(join(folder, "a/2.png"), 0);
    chmodSync(join(folder, "b"), 0);
    await withServer(async (server) => {
      const args = ["send", folder, "--to", `127.0.0.1:${server.port}`, "--json"];
      const sent = await run(args, { command: [...denied, executable] });
      expect(undelivered(sent).map(({ error }) => error)).toEqual(["unreadable", "unreadable"]);
      expect(sent.stderr).toMatch(/a\/2\.png.*permission denied/);
      expect(sent.stderr).toMatch(/run7\/b:.*permission denied/);
      expect(summaryOf(sent)).toMatchObject({ frames: 3, lost: 1 });
      expect(sent.code).toBe(23);
      expect(readdirSync(join(server.dir, "run7/a")).sort()).toEqual(["1.png", "3.png"]);
      expect(readdirSync(join(server.dir, "run7/c"))).toEqual(["1.png"]);
    });
    chmodSync(join(folder, "b"), 0o755);
  },
);

test.skipIf(linux !== "")(
  `${linux}a file whose name is not UTF-8 is reported, and the others arrive: exit 23`,
  async () => {
    const folder = makeTree({ "visible/1.png": 10, "visible/9.png": 10 });
    const odd = Buffer.concat([Buffer.from(`${folder}/visible/caf`), Buffer.from([0xe9, 0x2e])]);
    writeFileSync(odd, "latin1");
    await withServer(async (server) => {
      const sent = await send(server, folder);
      expect(sent.stderr).toMatch(/caf.*not UTF-8/);
      expect(undelivered(sent)).toMatchObject([{ source: "visible", error: "unreadable" }]);
      expect(summaryOf(sent)).toMatchObject({ frames: 2, lost: 1, refused: 0 });
      expect(sent.code).toBe(23);
    });
  },
);

test("files that vanish before they are read are reported, and the others arrive: exit 24", async () => {
  const folder = makeTree({
    ...manyFrames(20, 5_000),
    "infrared/large.png": 3_000_000,
    "gone/1.png": 5,
  });
  await withServer(async (server) => {
    using link = await relayTo(server);
    // The directory is read before connecting, and nothing is sent before WELCOME.
    link.relay.freeze();
    const sending = run(["send", folder, "--to", link.to, "--json"]);
    await until("the connection", () => link.relay.connections === 1);
    for (const name of ["visible/7.png", "visible/20.png", "infrared/large.png"]) {
      unlinkSync(join(folder, name));
    }
    rmSync(join(folder, "gone"), { recursive: true });
    link.relay.thaw();
    const sent = await sending;
    expect(
      undelivered(sent)
        .map(({ source, first, error }) => [source, first, error])
        .sort(),
    ).toEqual([
      ["gone", 1, "vanished"],
      ["infrared", 1, "vanished"],
      ["visible", 20, "vanished"],
      ["visible", 7, "vanished"],
    ]);
    expect(sent.stderr).toMatch(/7\.png.*deleted/);
    expect(summaryOf(sent)).toMatchObject({ frames: 18, lost: 4 });
    expect(sent.code).toBe(24);
    expect(sameTree(join(folder, "visible"), join(server.dir, "run7/visible"))).toEqual([]);
    // Losses are in the journal too.
    const listed = await run(["ls", "run7", "--dir", server.dir, "--json"]);
    const lost = jsonLines(listed.stdout).map((row) => [row["source"], row["lost"]]);
    expect(lost).toEqual([
      ["gone", 1],
      ["infrared", 1],
      ["visible", 2],
    ]);
  });
});

test.skipIf(posix !== "")(
  `${posix}links, pipes, sockets and devices are reported and not sent: exit 0`,
  async () => {
    const folder = makeTree({ "visible/1.png": 10, "outside.png": 5 });
    const at = (name: string) => join(folder, "visible", name);
    symlinkSync(join(folder, "outside.png"), at("link.png"));
    symlinkSync("/etc", at("folder-link"));
    symlinkSync("/nonexistent", at("dangling.png"));
    expect(spawnSync("mkfifo", [at("pipe.png")]).status).toBe(0);
    const listener = Bun.listen({ unix: at("socket.png"), socket: { data() {} } });
    const odd = ["link.png", "folder-link", "dangling.png", "pipe.png", "socket.png"];
    // Only root can create a device.
    if (spawnSync("mknod", [at("zero.png"), "c", "1", "5"]).status === 0) odd.push("zero.png");
    await withServer(async (server) => {
      const sent = await send(server, folder);
      listener.stop();
      expect(sent.code).toBe(0);
      for (const name of odd) expect(sent.stderr).toMatch(new RegExp(`Not sent:.*${name} is a`));
      const reported = jsonLines(sent.stdout).filter(({ type }) => type === "skipped");
      expect(reported.map(({ path }) => path).sort()).toEqual(odd.map(at).sort());
      expect(summaryOf(sent)).toMatchObject({ frames: 2, present: 0, refused: 0, lost: 0 });
      expect(readdirSync(join(server.dir, "run7")).sort()).toEqual(["outside.png", "visible"]);
      expect(readdirSync(join(server.dir, "run7/visible"))).toEqual(["1.png"]);
    });
  },
);

test("hidden files and files that are still being written are ignored without a message", async () => {
  const folder = makeTree({
    "1.png": 1,
    ".hidden.png": 1,
    ".git/2.png": 1,
    "3.png.part": 1,
    "4.tmp": 1,
  });
  await withServer(async (server) => {
    const sent = await send(server, folder);
    expect(sent.code).toBe(0);
    expect(summaryOf(sent)).toMatchObject({ frames: 1, lost: 0 });
    expect(readdirSync(join(server.dir, "run7"))).toEqual(["1.png"]);
  });
});

// Frames refused by the server.

test.skipIf(linux !== "")(
  `${linux}serve --portable-names refuses names that Windows or macOS cannot store, and accepts the others: exit 23`,
  async () => {
    const files = ["Frame.png", "frame.PNG", "größe.png", "größe.png".normalize("NFD")];
    files.push("a:b.png", "CON.png", "dot.", "good.png");
    const folder = makeTree(Object.fromEntries(files.map((name) => [`visible/${name}`, name])));
    await withServer(async (server) => {
      const sent = await send(server, folder);
      const refused = undelivered(sent);
      expect(new Set(refused.map(({ error }) => error))).toEqual(new Set(["unportable-name"]));
      const stored = readdirSync(join(server.dir, "run7/visible"));
      expect(refused.map(({ what }) => what).sort()).toEqual(
        files.filter((name) => !stored.includes(name)).sort(),
      );
      expect(refused).toHaveLength(5);
      expect(stored).toContain("good.png");
      // Either name may be stored first; the refusal of the other contains it.
      const [first, second] = stored.includes("Frame.png") ? files : [files[1], files[0]];
      const why = refused.find(({ what }) => what === second)?.["message"];
      expect(why).toContain(first);
      expect(summaryOf(sent)).toMatchObject({ frames: 3, refused: 5 });
      expect(sent.code).toBe(23);
    }, "--portable-names");
    await withServer(async (server) => {
      expect((await send(server, folder)).code).toBe(0);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
    });
  },
);

test("a frame over --max-frame is refused before it is sent, and the others arrive: exit 23", async () => {
  const folder = makeTree({
    "a/1.png": 100_000,
    "a/2.png": 100_001,
    "a/3.png": 20_000_000,
    "a/4.png": 5,
  });
  await withServer(
    async (server) => {
      using link = await relayTo(server);
      const sent = await run(["send", folder, "--to", link.to, "--json"]);
      expect(undelivered(sent)).toMatchObject([
        { first: 2, error: "too-large" },
        { first: 3, error: "too-large" },
      ]);
      expect(sent.stderr).toMatch(/2\.png.*100001.*100000.*--max-frame/);
      expect(summaryOf(sent)).toMatchObject({ frames: 2 });
      expect(sent.code).toBe(23);
      expect(link.relay.bytes).toBeLessThan(110_000);
      expect(readdirSync(join(server.dir, "run7/a")).sort()).toEqual(["1.png", "4.png"]);
    },
    "--max-frame",
    "100000",
  );
});

describe("frames serve at its start", () => {
  const serve = (directory: string, ...more: string[]) =>
    run(["serve", directory, "--listen", "127.0.0.1:0", ...more]);

  test("frames serve reports a store that is a file or lies below one: exit 11", async () => {
    const folder = makeTree({ file: 1 });
    for (const path of [join(folder, "file"), join(folder, "file/store")]) {
      const served = await serve(path);
      expect(theLine(served)).toMatch(/Cannot write the store.*file.*not a directory/);
      expect(served.code).toBe(11);
    }
  });

  test.skipIf(denialMissing !== "")(
    `${denialMissing}frames serve reports a store without write access: exit 11`,
    async () => {
      const folder = makeTree({});
      chmodSync(folder, 0o555);
      const args = ["serve", folder, "--listen", "127.0.0.1:0"];
      const served = await run(args, { command: [...denied, executable] });
      expect(theLine(served)).toMatch(/Cannot write the store.*run7.*permission denied/);
      expect(served.code).toBe(11);
    },
  );

  test("frames serve reports which process serves the store already: exit 11", async () => {
    await withServer(async (server) => {
      const second = await serve(server.dir);
      expect(theLine(second)).toMatch(new RegExp(`store.*process ${server.process.pid}\\b`));
      expect(second.code).toBe(11);
    });
  });

  test("frames serve reports a port that is in use and does not lock the store: exit 10", async () => {
    await withServer(async (server) => {
      const store = temporaryFolder();
      const second = await serve(store, "--listen", `127.0.0.1:${server.port}`);
      expect(theLine(second)).toMatch(/in use/);
      expect(theLine(second)).toContain(`127.0.0.1:${server.port}`);
      expect(second.code).toBe(10);
      const third = await startServer({ dir: store });
      expect(await third.stop()).toBe(0);
    });
  });
});

// The command line.

describe("Usage errors", () => {
  const folder = makeTree({ "1.png": 1 });
  const cases: { args: string[]; env?: Record<string, string>; says: RegExp[] }[] = [
    { args: ["snd", folder], says: [/snd/, /frames send/] },
    { args: ["frobnicate"], says: [/frobnicate/, /frames help/] },
    { args: ["help", "exit-code"], says: [/exit-code/, /exit-codes/] },
    { args: ["send", folder, "--sorce", "a"], says: [/--sorce/, /--source/] },
    { args: ["send", folder, "--tot=x"], says: [/--tot/, /--to\?/] },
    { args: ["send", folder, "-x"], says: [/-x/] },
    { args: ["serve", "--stream", "x"], says: [/--stream/] },
    { args: ["send", folder, "gpu1:9726"], says: [/gpu1:9726/, /--to gpu1:9726/] },
    { args: ["send"], says: [/directory|DIR/] },
    { args: ["send", folder, "--to"], says: [/--to/, /HOST/] },
    { args: ["send", folder, "--to", ""], says: [/--to/, /HOST/] },
    { args: ["send", folder, "--to", "host:port"], says: [/--to/, /HOST:PORT/, /"host:port"/] },
    { args: ["send", folder, "--to", "h:70000"], says: [/--to/, /HOST:PORT/, /"h:70000"/] },
    { args: ["send", folder, "--timeout", "soon"], says: [/--timeout/, /seconds/, /"soon"/] },
    { args: ["send", folder, "--timeout", "0"], says: [/--timeout/, /seconds/, /"0"/] },
    { args: ["send", folder, "--json=yes"], says: [/--json/, /no value/] },
    { args: ["send", folder, "--stream", "../up"], says: [/\.\.\/up/, /--stream/] },
    { args: ["send", folder, folder], says: [/--stream/] },
    {
      args: ["send", folder, "--stream", "s", "--source", "a=", "--source", "b"],
      says: [/--source/],
    },
    { args: ["serve", folder, "--max-frame", "big"], says: [/--max-frame/, /64M/, /"big"/] },
    { args: ["serve", folder, "--listen", "nowhere:"], says: [/--listen/, /HOST:PORT/] },
    { args: ["serve", folder, "other"], says: [/other/] },
    { args: ["ls", "--dir", "/nonexistent"], says: [/nonexistent/, /no such directory/, /--dir/] },
    { args: ["completions", "tcsh"], says: [/bash, zsh or fish/, /"tcsh"/] },
    { args: ["completions"], says: [/bash, zsh or fish/] },
    // The message must name the variable, because the user has to find it.
    { args: ["send", folder], env: { FRAMES_TO: "h:x" }, says: [/FRAMES_TO/, /HOST:PORT/] },
    { args: ["send", folder], env: { FRAMES_TIMEOUT: "1s" }, says: [/FRAMES_TIMEOUT/, /"1s"/] },
    { args: ["serve", folder], env: { FRAMES_MAX_FRAME: "x" }, says: [/FRAMES_MAX_FRAME/, /"x"/] },
    { args: ["send", folder], env: { FRAMES_QUIET: "maybe" }, says: [/FRAMES_QUIET/, /"maybe"/] },
  ];
  for (const { args, env = {}, says } of cases) {
    const settings = Object.entries(env).map(([name, value]) => `${name}=${value} `);
    const words = args.map((word) => (word === folder ? "DIR" : word === "" ? "''" : word));
    test(`${settings.join("")}frames ${words.join(" ")} ends with a hint: exit 1`, async () => {
      const ran = await run(args, { env, cwd: temporaryFolder() });
      for (const pattern of says) expect(theLine(ran)).toMatch(pattern);
      expect(ran.stdout).toBe("");
      expect(ran.code).toBe(1);
    });
  }

  test("frames without arguments lists its commands: exit 1", async () => {
    const ran = await run([]);
    expect(ran.stderr).toContain("frames serve");
    expect(ran.stderr).toContain("frames send");
    expect([ran.code, ran.stdout]).toEqual([1, ""]);
  });
});

test("frames help exit-codes lists every exit status that these tests use", async () => {
  const { code, stdout } = await run(["help", "exit-codes"]);
  expect(code).toBe(0);
  const listed = [...stdout.matchAll(/^(\d+) /gm)].map(([, status]) => Number(status));
  expect(listed).toEqual(expect.arrayContaining([0, 1, 2, 10, 11, 12, 20, 23, 24, 30, 35]));
});

describe("Output", () => {
  let server: Server;
  const folder = makeTree({ "visible/1.png": 11, "visible/2.png": 0, "infrared/1.png": 1_500_000 });
  writeFileSync(join(folder, "bad\\name.png"), "refused everywhere");
  beforeAll(async () => {
    server = await startServer({ dir: temporaryFolder(), args: ["--max-frame", "2M"] });
  });
  afterAll(async () => {
    await server.stop();
  });
  const to = () => ["--to", `127.0.0.1:${server.port}`];

  test("frames send --json prints only JSON on standard output, with the summary last", async () => {
    const sent = await run(["send", folder, ...to(), "--json"]);
    const lines = jsonLines(sent.stdout);
    expect(lines.map(({ type }) => type)).toEqual(["undelivered", "summary"]);
    expect(summaryOf(sent)).toMatchObject({ stream: "run7", frames: 3, refused: 1, retries: 0 });
    expect(sent.code).toBe(23);
    // Also wait for the server's log, because it may end later than the sender.
    await until("the server's word", () => server.stdout().includes('"type":"delivered"'));
    const said = jsonLines(server.stdout()).map(({ type }) => type);
    expect(said).toEqual(["listening", "session", "refused", "delivered"]);
  });

  test("frames send -q prints only errors", async () => {
    const good = await run(["send", join(folder, "visible"), ...to(), "-q"]);
    expect([good.code, good.stdout, good.stderr]).toEqual([0, "", ""]);
    const bad = await run(["send", folder, ...to(), "-q"]);
    expect(bad.stderr).toMatch(/^[^\n]*bad\\name\.png[^\n]*\n$/);
    expect([bad.code, bad.stdout]).toEqual([23, ""]);
    const nobody = await run(["send", folder, "--to", `127.0.0.1:${closedPort()}`, "-q"]);
    expect(theLine(nobody)).toContain("refused");
  });

  test("frames send -v prints each message, with source, number, name and length of each frame", async () => {
    const sent = await run(["send", folder, ...to(), "-v", "--stream", "verbose"]);
    expect(sent.stdout).toBe("");
    const shown = sent.stderr.split("\n");
    const at = (pattern: RegExp) => {
      const index = shown.findIndex((line) => pattern.test(line));
      if (index < 0) throw new Error(`no line like ${pattern} in:\n${sent.stderr}`);
      return index;
    };
    const order = [
      at(/^-> HELLO .*"stream":"verbose"/),
      at(/^<- WELCOME /),
      at(/^-> SOURCE .*visible/),
      at(/^-> FRAME visible 1 1\.png 11\b/),
      at(/^-> FRAME visible 2 2\.png 0\b/),
      at(/^-> END /),
      at(/^<- DONE /),
    ];
    expect(order).toEqual(order.toSorted((a, b) => a - b));
    expect(at(/^-> FRAME infrared 1 1\.png 1500000\b/)).toBeGreaterThan(
      at(/^-> SOURCE .*infrared/),
    );
    expect(at(/^<- RECEIPT \d/)).toBeLessThan(at(/^<- DONE /));
    expect(at(/^<- REFUSED .*bad/)).toBeLessThan(at(/^<- DONE /));
  });

  test("frames serve prints who sends what and the outcome, and with -v every frame", async () => {
    for (const more of [[], ["-v"]]) {
      using people = await serveForPeople(...more);
      const sent = await send(people, folder);
      expect(sent.code).toBe(23);
      await until("the end", () => people.stderr().includes("delivered"));
      people.child.kill("SIGTERM");
      const { code, stdout, stderr } = await people.ended();
      expect([code, stdout]).toEqual([0, ""]);
      expect(stderr).toContain(people.dir);
      expect(stderr).toMatch(/sends run7/);
      expect(stderr).toMatch(/Refused from .*: run7, .*\(number 1\): .*bad/);
      expect(stderr).toMatch(/delivered run7: 3 stored, 0 there already, 1 refused/);
      const named = /FRAME run7 visible 1 1\.png 11\b/.test(stderr);
      expect(named).toBe(more.length > 0);
    }
  });

  test("frames send --dry-run lists the frames that would be sent and does not connect", async () => {
    let connections = 0;
    using nobody = fakeServer(() => connections++);
    const args = ["send", folder, "--to", `127.0.0.1:${nobody.port}`, "--exclude", "bad*"];
    const plain = await run([...args, "--dry-run"]);
    expect(plain.stdout).toBe("infrared/1.png\nvisible/1.png\nvisible/2.png\n");
    expect(plain.stderr).toMatch(/3 frames.*2 sources.*run7/);
    expect(plain.code).toBe(0);
    const json = await run([...args, "-n", "--json"]);
    expect(jsonLines(json.stdout)).toMatchObject([
      { type: "frame", source: "infrared", name: "1.png", bytes: 1_500_000 },
      { type: "frame", source: "visible", name: "1.png", bytes: 11 },
      { type: "frame", source: "visible", name: "2.png", bytes: 0 },
      { type: "summary", stream: "run7", frames: 3, bytes: 1_500_011 },
    ]);
    expect(connections).toBe(0);
  });

  test.skipIf(posix !== "")(
    `${posix}messages have colours only on a terminal and without NO_COLOR`,
    async () => {
      const onTerminal = async (env: Record<string, string>) => {
        let shown = "";
        const decoder = new TextDecoder();
        const child = Bun.spawn([executable, "send", "/nonexistent"], {
          env: environment({ TERM: "xterm", ...env }),
          terminal: {
            cols: 80,
            rows: 24,
            data: (_, bytes) => void (shown += decoder.decode(bytes, { stream: true })),
          },
        });
        expect(await child.exited).toBe(1);
        await until("the message", () => shown.includes("no such file"));
        return shown;
      };
      expect(await onTerminal({})).toContain("\x1b[");
      expect(await onTerminal({ NO_COLOR: "1" })).not.toContain("\x1b[");
      expect((await run(["send", "/nonexistent"])).stderr).not.toContain("\x1b[");
    },
  );
});

describe.skipIf(linux !== "")(`${linux}Terminal escapes`, () => {
  const tricks = {
    colour: "\x1b[31mred\x1b[0m",
    title: "\x1b]0;owned\x07",
    "C1 control": "\u009b2J",
    "new line": "line\nframes: all is well",
    "right to left": "\u202egnp.exe",
  };
  const obeyed = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/;
  let folder: string;
  let server: Awaited<ReturnType<typeof serveForPeople>>;
  beforeAll(async () => {
    const files = Object.values(tricks).map((name) => `visible/${name}.png`);
    folder = makeTree(Object.fromEntries([...files, "good.png"].map((name) => [name, "x"])));
    symlinkSync("good.png", join(folder, `link ${tricks.colour}`));
    server = await serveForPeople("-v");
  });
  afterAll(async () => {
    server.child.kill("SIGTERM");
    const { stderr } = await server.ended();
    expect(stderr).toMatch(/Refused.*u001b/);
    expect(stderr).not.toMatch(obeyed);
    server[Symbol.dispose]();
  });

  for (const more of [[], ["-v"], ["-q"], ["--dry-run"]]) {
    test(`${["frames send", ...more].join(" ")} escapes control characters of file names`, async () => {
      const args = ["send", folder, "--to", `127.0.0.1:${server.port}`, "--stream", "s", ...more];
      const ran = await run(args);
      expect(ran.code).toBe(23);
      expect(ran.stdout + ran.stderr).toMatch(/\\x1b/);
      expect(ran.stdout).not.toMatch(obeyed);
      expect(ran.stderr).not.toMatch(obeyed);
      // No name may look like a message of the program.
      expect(ran.stderr).not.toMatch(/^frames: all is well/m);
    });
  }

  test("frames send --json escapes control characters of file names as JSON does", async () => {
    const ran = await send(server, folder, "--stream", "s");
    expect(jsonLines(ran.stdout).some(({ what }) => String(what).includes("\x1b"))).toBe(true);
    expect(ran.stdout).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
    expect(ran.stderr).not.toMatch(obeyed);
  });

  for (const [name, trick] of Object.entries(tricks)) {
    test(`frames escapes control characters of folder and stream names (${name})`, async () => {
      const odd = makeTree({ [`${trick}/1.png`]: 1 });
      for (const path of [odd, join(odd, trick)]) {
        const ran = await run(["send", path, "--to", `127.0.0.1:${server.port}`]);
        expect(ran.stderr).not.toBe("");
        expect(ran.stdout + ran.stderr).not.toMatch(obeyed);
      }
      const listed = await run(["ls", "--dir", server.dir]);
      expect(listed.stdout + listed.stderr).not.toMatch(obeyed);
    });
  }

  for (const [name, trick] of Object.entries(tricks)) {
    test(`frames escapes control characters of arguments (${name})`, async () => {
      for (const args of [
        [trick],
        ["send", `/nonexistent/${trick}`],
        ["send", folder, `--${trick}`],
        ["send", folder, "--to", trick],
        ["send", folder, "--stream", `../${trick}`],
        ["ls", `no ${trick}`, "--dir", server.dir],
        ["help", trick],
        ["completions", trick],
      ]) {
        const ran = await run(args);
        expect(ran.stdout + ran.stderr).not.toMatch(obeyed);
        expect(ran.code).not.toBe(0);
      }
    });
  }
});

describe("frames completions", () => {
  test.skipIf(peerMissing("bash"))(
    `${peerMissing("bash") ? "skipped: needs bash: " : ""}the completions for bash complete commands and flags`,
    async () => {
      const { stdout, code } = await run(["completions", "bash"]);
      expect(code).toBe(0);
      const complete = (...words: string[]) => {
        const line = words.map((word) => `'${word}'`).join(" ");
        const script = `${stdout}\nCOMP_WORDS=(${line}); COMP_CWORD=${words.length - 1}; _frames; printf '%s\\n' "\${COMPREPLY[@]}"`;
        const ran = spawnSync("bash", ["-c", script], { encoding: "utf8" });
        expect(ran.stderr).toBe("");
        return ran.stdout.trim().split("\n").sort();
      };
      expect(complete("frames", "se")).toEqual(["send", "serve"]);
      expect(complete("frames", "send", "--so")).toEqual(["--source"]);
      expect(complete("frames", "serve", "--max")).toEqual(["--max-frame"]);
      expect(complete("frames", "completions", "")).toEqual(["bash", "fish", "zsh"]);
    },
  );

  for (const [shell, check] of [
    ["zsh", "-n"],
    ["fish", "--no-execute"],
  ] as const) {
    const missing = peerMissing(shell);
    test.skipIf(missing)(
      `${missing ? `skipped: needs ${shell}: ` : ""}the completions for ${shell} are valid ${shell}`,
      async () => {
        const { stdout } = await run(["completions", shell]);
        const file = join(temporaryFolder(), "frames");
        writeFileSync(file, stdout);
        const ran = spawnSync(shell, [check, file], { encoding: "utf8" });
        expect([ran.status, ran.stderr]).toEqual([0, ""]);
      },
    );
  }

  test("the completions for every shell name commands and flags", async () => {
    for (const shell of ["bash", "zsh", "fish"]) {
      const { stdout, stderr, code } = await run(["completions", shell]);
      expect([code, stderr]).toEqual([0, ""]);
      for (const word of ["serve", "send", "ls", "max-frame", "dry-run", "stream", "listen"]) {
        expect(stdout).toContain(word);
      }
    }
  });
});

describe.skipIf(peerMissing("bash"))(
  `${peerMissing("bash") ? "skipped: needs bash: " : ""}Readers of the output`,
  () => {
    const streams = 20_000;
    let store: string;
    let folder: string;
    beforeAll(async () => {
      store = temporaryFolder();
      await (await startServer({ dir: store })).stop();
      const database = new Database(join(store, ".frames/journal.sqlite"));
      const insert = database.query(
        `INSERT INTO frames (stream, source, name, session, seq, bytes, crc32, captured, received)
          VALUES (?, 'visible', '1.png', 'session', 1, 1, 1, 1, 1)`,
      );
      database.transaction(() => {
        for (let number = 0; number < streams; number++) insert.run(`stream-${number}`);
      })();
      database.close();
      folder = makeTree(manyFrames(50, 200_000));
      for (let number = 0; number < 500; number++) {
        symlinkSync("1.png", join(folder, `visible/link-${number}`));
      }
    });

    /** Runs a pipeline. `status` is that of its first command. */
    function pipeline(
      first: string[],
      rest: string,
    ): { status: number; stdout: string; stderr: string } {
      const script = `"$@" ${rest}; exit "\${PIPESTATUS[0]}"`;
      const ran = spawnSync("bash", ["-c", script, "bash", executable, ...first], {
        encoding: "utf8",
        env: environment(),
        timeout: hangMs,
      });
      return { status: ran.status ?? -1, stdout: ran.stdout, stderr: ran.stderr };
    }

    for (const more of [[], ["--json"]]) {
      const words = ["ls", ...more];
      test(`frames ${words.join(" ")} ends without an error when its reader stops after a line`, () => {
        const ran = pipeline([...words, "--dir", store], "| head -n 1");
        expect(ran.stdout.split("\n")).toHaveLength(2);
        expect(ran.stderr).toBe("");
        expect(ran.status).toBe(0);
      });

      test(`frames ${words.join(" ")} prints everything to a slow reader`, () => {
        const ran = pipeline([...words, "--dir", store], "| (sleep 0.5; wc -l)");
        expect(Number(ran.stdout)).toBe(streams + (more.length === 0 ? 1 : 0));
        expect(ran.status).toBe(0);
      });
    }

    // Scripts rely on the exit status: 0 promises that everything was delivered.
    for (const [what, rest] of [
      ["a reader that stops on standard output", "--json 2>/dev/null | head -n 1"],
      ["a reader that stops on standard error", "2>&1 >/dev/null | head -n 1"],
      ["a closed standard output", "--json >&-"],
      ["a closed standard error", "2>&-"],
      ["a full disk for standard output", "--json >/dev/full"],
      ["a full disk for standard error", "2>/dev/full"],
    ] as const) {
      test(`frames send with ${what} ends with exit 0 only if every frame is stored`, async () => {
        await withServer(async (server) => {
          const args = ["send", folder, "--to", `127.0.0.1:${server.port}`];
          const ran = pipeline(args, rest);
          const arrived = join(server.dir, "run7/visible");
          const stored = existsSync(arrived) ? readdirSync(arrived).length : 0;
          expect(ran.status === 0 ? stored : 50).toBe(50);
        });
      });
    }
  },
);

test.skipIf(linux !== "")(
  `${linux}a log that is not read delays neither the frames nor the end of frames serve`,
  async () => {
    const folder = makeTree(manyFrames(3_000, 10));
    const dir = temporaryFolder();
    const log = join(dir, ".log");
    expect(spawnSync("mkfifo", [log]).status).toBe(0);
    const reader = openSync(log, constants.O_RDWR | constants.O_NONBLOCK);
    const writer = openSync(log, "r+");
    const child = Bun.spawn([executable, "serve", dir, "--listen", "127.0.0.1:0", "-v"], {
      env: environment(),
      stdio: ["ignore", "ignore", writer],
    });
    try {
      // Read the first line only. The pipe holds 64 KiB and then blocks.
      let said = "";
      await until("the greeting", () => (said += readNow(reader)).includes("only this machine"));
      const port = Number(/127\.0\.0\.1:(\d+)/.exec(said)![1]);
      const sent = await send({ port }, folder, "--timeout", "3");
      expect([sent.code, sent.code === 0 ? "" : sent.stderr]).toEqual([0, ""]);
      child.kill("SIGTERM");
      const late = () => "frames serve did not end";
      expect(await within(child.exited, late)).toBe(0);
    } finally {
      child.kill("SIGKILL");
      closeSync(reader);
      closeSync(writer);
    }
  },
);

/** Returns what is in a pipe now. */
function readNow(file: number): string {
  const buffer = Buffer.alloc(4096);
  try {
    return buffer.toString("utf8", 0, readSync(file, buffer));
  } catch {
    return "";
  }
}

// Signals and sudden ends.

describe("Interrupted deliveries", () => {
  const count = 60;
  const size = 500_000;
  const folder = makeTree(manyFrames(count, size));

  function expectWhole(server: Server): number {
    const stored = join(server.dir, "run7/visible");
    const names = existsSync(stored) ? readdirSync(stored) : [];
    for (const name of names) {
      const same = readFileSync(join(stored, name)).equals(
        readFileSync(join(folder, "visible", name)),
      );
      expect([name, same]).toEqual([name, true]);
    }
    return names.length;
  }

  async function expectRestGoes(server: Server): Promise<void> {
    const again = await send(server, folder);
    expect(again.code).toBe(0);
    expect(summaryOf(again)).toMatchObject({ frames: count, interrupted: false });
    expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
  }

  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    test(`frames send completes the frames under way after ${signal} and reports them: exit 20`, async () => {
      await withServer(async (server) => {
        using link = await relayTo(server, { rate: 10_000_000 });
        using sender = launch(["send", folder, "--to", link.to, "--json"]);
        await until("the first frames", () => link.relay.bytes > 2 * size);
        sender.child.kill(signal);
        const sent = await sender.ended();
        expect(sent.stderr).toMatch(/Ctrl-C again/);
        expect(sent.stderr).toMatch(/the same command/);
        const { frames, interrupted } = summaryOf(sent);
        expect(interrupted).toBe(true);
        expect(frames).toBeGreaterThan(0);
        expect(frames).toBeLessThan(count);
        expect(expectWhole(server)).toBe(Number(frames));
        expect(sent.code).toBe(20);
        await expectRestGoes(server);
      });
    });
  }

  test("frames send ends at once after a second SIGINT: exit 20", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server, { rate: 10_000_000 });
      using sender = launch(["send", folder, "--to", link.to]);
      await until("the first frames", () => link.relay.bytes > 2 * size);
      // It cannot finish now. After one signal it would wait 10 s.
      link.relay.freeze();
      sender.child.kill("SIGINT");
      await until("its word", () => sender.stderr().includes("Ctrl-C again"));
      sender.child.kill("SIGINT");
      const sent = await sender.ended();
      expect(sent.code).toBe(20);
      link.relay.thaw();
      link.relay.cut();
      await until("the server's notice", () => server.stdout().includes('"failed"'));
      expectWhole(server);
      await expectRestGoes(server);
    });
  });

  test("frames send ends at once after SIGINT if the server has not answered yet: exit 20", async () => {
    let connected = false;
    using silent = fakeServer(() => (connected = true));
    using sender = launch(["send", folder, "--to", `127.0.0.1:${silent.port}`]);
    await until("the connection", () => connected);
    sender.child.kill("SIGINT");
    // Long before any timeout.
    expect((await sender.ended()).code).toBe(20);
  });

  test("a server tells its senders about SIGTERM, and a sender with --give-up-after reports the confirmed frames: exit 30", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server, { rate: 10_000_000 });
      using sender = launch(["send", folder, "--to", link.to, "--give-up-after", "3"]);
      await until("the first frames", () => link.relay.bytes > 2 * size);
      const stopping = server.stop();
      const sent = await sender.ended();
      expect(sent.stderr).toMatch(/is stopping.*; trying again in \d+ s/);
      expect(sent.stderr).toMatch(/^frames: Gave up after 3 s: .*the same command/m);
      expect(sent.code).toBe(30);
      expect(await stopping).toBe(0);
      const stored = expectWhole(server);
      expect(stored).toBeLessThan(count);
      // Frames that the sender counts as confirmed are stored.
      const confirmed = Number(/(\d+) of \d+ frames? confirmed/.exec(sent.stderr)?.[1]);
      expect(stored).toBeGreaterThanOrEqual(confirmed);
      const again = await startServer({ dir: server.dir });
      await expectRestGoes(again);
      await again.stop();
    });
  });

  test("a server killed at any moment leaves whole frames and a right journal, and the same command sends the rest", async () => {
    const dir = temporaryFolder();
    const mixed = makeTree({
      ...manyFrames(3_000, 8_000),
      "infrared/1.raw": 9_000_000,
      "infrared/2.raw": 9_000_000,
    });
    const rows = () => {
      const database = new Database(join(dir, ".frames/journal.sqlite"), { readonly: true });
      const query = "SELECT source || '/' || name AS path, bytes, crc32 FROM frames ORDER BY path";
      const found = database.query<{ path: string; bytes: number; crc32: number }, []>(query).all();
      database.close();
      return found;
    };
    let before = 0;
    for (const bytes of [1_000_000, 5_000_000, 10_000_000]) {
      const server = await startServer({ dir });
      using link = await relayTo(server, { rate: 60_000_000 });
      const words = ["--stream", "run7", "--to", link.to, "--give-up-after", "0.5"];
      using sender = launch(["send", mixed, ...words]);
      await until("enough bytes", () => link.relay.bytes > bytes);
      server.process.kill("SIGKILL");
      const sent = await sender.ended();
      expect(sent.code).toBe(30);
      expect(sent.stderr).toMatch(/^frames: Gave up after 0\.5 s: /m);
      await server.process.exited;

      // Files: only whole frames.
      const stored = join(dir, "run7");
      const differences = existsSync(stored) ? sameTree(mixed, stored) : [];
      expect(differences.filter((line) => !line.endsWith(`only in ${mixed}`))).toEqual([]);
      // Journal: every row has its whole file, and every confirmed frame has its row.
      const journalled = rows();
      for (const { path, bytes: length, crc32 } of journalled) {
        expect([path, statSync(join(stored, path)).size]).toEqual([path, length]);
        expect([path, Bun.hash.crc32(readFileSync(join(stored, path)))]).toEqual([path, crc32]);
      }
      const confirmed = Number(/(\d+) of \d+ frames? confirmed/.exec(sent.stderr)?.[1]);
      expect(journalled.length).toBeGreaterThanOrEqual(confirmed);
      expect(journalled.length).toBeGreaterThanOrEqual(before);
      before = journalled.length;
    }
    const server = await startServer({ dir });
    // The next server of the store removes partial files.
    expect(readdirSync(join(dir, ".frames/partial"))).toEqual([]);
    const sent = await send(server, mixed, "--stream", "run7");
    expect(sent.code).toBe(0);
    expect(summaryOf(sent)).toMatchObject({ frames: 3_002, refused: 0, lost: 0 });
    expect(sameTree(mixed, join(dir, "run7"))).toEqual([]);
    expect(rows()).toHaveLength(3_002);
    expect(await server.stop()).toBe(0);
    rmSync(dir, { recursive: true, force: true });
  });
});

describe.skipIf(pythonMissing !== "")(`${pythonMissing}Address that does not answer`, () => {
  test("frames send reports within 10 s that no connection was answered: exit 35", async () => {
    const sent = await unanswered.ended();
    expect(theLine(sent)).toContain(toHole);
    expect(theLine(sent)).toMatch(/no answer within 10 s/);
    expect(sent.code).toBe(35);
  });

  test("SIGINT ends frames send at once while it connects: exit 20", async () => {
    using sender = launch(["send", makeTree({ "visible/1.png": 1_000 }), "--to", toHole]);
    await until("the attempt", () => isConnecting(sender.child.pid, toHole));
    sender.child.kill("SIGINT");
    expect((await sender.ended()).code).toBe(20);
  });

  /** Whether a process has a socket of its own on the way to an address (proc(5), net/tcp). */
  function isConnecting(pid: number, address: string): boolean {
    const port = Number(address.split(":")[1]).toString(16).toUpperCase().padStart(4, "0");
    const attempts = readFileSync("/proc/net/tcp", "latin1").matchAll(
      new RegExp(`:${port} 02 (?:\\S+ +){5}(\\d+)`, "g"),
    );
    const inodes = new Set([...attempts].map(([, inode]) => `socket:[${inode}]`));
    return readdirSync(`/proc/${pid}/fd`).some((name) => {
      try {
        return inodes.has(readlinkSync(`/proc/${pid}/fd/${name}`));
      } catch {
        return false;
      }
    });
  }
});
