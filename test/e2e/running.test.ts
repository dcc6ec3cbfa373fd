// Unattended operation of server and sender: logs, signals, systemd, no home directory.
//
// Covers: cli/serve.ts, cli/transfer.ts, net/systemd.ts, server/admission-role.ts,
//   server/ingest-role.ts, server/peer-connection.ts, server/connection-role.ts, server/serve-event.ts,
//   server/serve.ts, server/server-options.ts

import { afterAll, describe, expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { expectCode, type Json, relayTo } from "../helper/delivery.ts";
import {
  environment,
  executable,
  freePort,
  jsonLines,
  launch,
  type Launched,
  makeTree,
  manyFrames,
  run,
  sameTree,
  temporaryFolder,
} from "../helper/program.ts";
import { hangMs, until } from "../helper/time.ts";

const folders: string[] = [];
function folder(): string {
  const made = temporaryFolder();
  folders.push(made);
  return made;
}
afterAll(() => folders.forEach((path) => rmSync(path, { recursive: true, force: true })));

const python = "/usr/bin/python3";
const posix = process.platform === "win32" ? "skipped: needs a POSIX system: " : "";
const linux = process.platform === "linux" ? "" : "skipped: needs Linux: ";
const withPython = linux || (existsSync(python) ? "" : "skipped: needs python3: ");
const withOpenssl = posix || (Bun.which("openssl") === null ? "skipped: needs openssl: " : "");
const asRoot =
  linux ||
  (process.getuid?.() === 0 && Bun.which("setpriv") !== null ? "" : "skipped: needs root: ");

function entry(name = "cam"): KeyEntry {
  return { name, key: generateKey(), role: "both", streams: "*" };
}

function keyFile(...entries: KeyEntry[]): string {
  const path = join(folder(), "keys");
  writeFileSync(path, entries.map(formatKey).join(""), { mode: 0o600 });
  return path;
}

interface Serving extends Launched {
  readonly dir: string;
  readonly port: number;
  /** Returns the log so far. Checks that no secrets are in it. */
  log(): Json[];
  /** Waits for the next line of a type not returned before. */
  next(type: string): Promise<Json>;
  stop(): Promise<void>;
}

/** Levels allowed in a log. */
const levels = ["debug", "info", "warning", "error"];

/** Starts a server with a JSON log on stderr. */
async function serve(
  words: string[] = [],
  env: Record<string, string> = {},
  dir = folder(),
): Promise<Serving> {
  const listen = words.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
  const server = launch(["serve", dir, ...listen, "--log", "json", ...words], env);
  const lines = () => server.stderr().slice(0, server.stderr().lastIndexOf("\n") + 1);
  const log = () => jsonLines(lines()) as Json[];
  let seen = 0;
  const next = async (type: string): Promise<Json> => {
    const find = () => log().findIndex((line, index) => index >= seen && line["type"] === type);
    await until(`the line ${type}`, () => {
      if (find() >= 0) return true;
      if (server.child.exitCode === null) return false;
      throw new Error(`frames serve ended without the line ${type}: ${server.stderr()}`);
    });
    const at = find();
    seen = at + 1;
    return log()[at]!;
  };
  const listening = await next("listening");
  return {
    ...server,
    dir,
    port: Number(listening["port"]),
    log,
    next,
    async stop() {
      server.child.kill("SIGTERM");
      const ended = await server.ended();
      expectCode(ended, 0);
      expect(ended.stderr + ended.stdout).not.toContain("frames_key_");
      checkLines(log());
    },
    [Symbol.dispose]: () => server.child.kill("SIGKILL"),
  };
}

/** Checks the properties common to all lines. */
function checkLines(lines: readonly Json[]): void {
  for (const { time, level, type, message } of lines) {
    expect(new Date(time as string).toISOString()).toBe(time as string);
    expect(levels).toContain(String(level));
    expect(type).toMatch(/^[a-z-]+$/);
    expect(String(message)).not.toBe("");
  }
}

function send(server: { port: number }, ...words: string[]) {
  return run(["send", ...words, "--to", `127.0.0.1:${server.port}`]);
}

describe("frames serve --log json", () => {
  test.skipIf(posix !== "")(
    `${posix}frames serve --log json prints each event on its own line, with time, level and type`,
    async () => {
      const run7 = makeTree(manyFrames(2, 1000));
      const other = makeTree({ "visible/1.png": "taken" });
      const server = await serve(["-v", "--keep", "1K", "--portable-names"]);
      expectCode(await send(server, run7), 0);
      expect(await server.next("session")).toMatchObject({
        level: "info",
        stream: "run7",
        peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
        software: expect.stringMatching(/^frames /),
      });
      expect(await server.next("stored")).toMatchObject({
        level: "debug",
        source: "visible",
        sequence: 1,
        name: "1.png",
        bytes: 1000,
      });
      expect(await server.next("delivered")).toMatchObject({
        level: "info",
        stream: "run7",
        counts: { stored: 2, refused: 0 },
      });
      expect(await server.next("removed")).toMatchObject({ level: "info", frames: 1, bytes: 1000 });
      const second = makeTree({ "visible/a:b.png": "no name on Windows" });
      expect((await send(server, second, "--stream", "run7")).code).toBe(23);
      expect(await server.next("refused")).toMatchObject({
        level: "warning",
        error: "unportable-name",
        stream: "run7",
        message: expect.stringMatching(/./),
      });
      expect((await send(server, other, "--timeout", "5", "--stream", "a")).code).toBe(0);
      await stranger(server.port, "GET / HTTP/1.0\r\n\r\n");
      expect(await server.next("failed")).toMatchObject({
        level: "warning",
        error: expect.stringMatching(/^[a-z-]+$/),
      });
      for (let count = 0; count < 40; count++) await stranger(server.port, "nothing that it knows");
      await server.stop();
      expect(await server.next("peers-rejected")).toMatchObject({
        level: "warning",
        host: "127.0.0.1",
      });
      expect(await server.next("stopped")).toMatchObject({
        level: "info",
        refused: { "unportable-name": 1 },
      });
      expect(server.stdout()).toBe("");
    },
  );

  test("frames serve --log json reports lost frames and what a killed server left behind", async () => {
    const server = await serve();
    const run7 = makeTree(manyFrames(50, 1000));
    const to = ["--to", `127.0.0.1:${server.port}`];
    const vanishing = launch(["send", run7, ...to, "--fps", "100"]);
    await server.next("session");
    rmSync(join(run7, "visible", "50.png"));
    await vanishing.ended();
    expect(await server.next("lost")).toMatchObject({
      level: "warning",
      stream: "run7",
      source: "visible",
      frames: 1,
      error: expect.stringMatching(/^(?:vanished|unreadable)$/),
    });
    server.child.kill("SIGKILL");
    await server.ended();
    writeFileSync(join(server.dir, ".frames", "partial", "0000"), "half a frame");
    // Recovery is reported before the server listens.
    const again = launch(["serve", server.dir, "--listen", "127.0.0.1:0", "--log", "json"]);
    await until("the greeting", () => again.stderr().includes('"listening"'));
    again.child.kill("SIGTERM");
    const lines = jsonLines((await again.ended()).stderr);
    expect(lines[0]).toMatchObject({ level: "warning", type: "recovered", unfinished: 1 });
    checkLines(lines);
  });

  test("frames serve --log json prints errors before it serves as JSON too, even for wrong flags", async () => {
    for (const [words, env, error] of [
      [["--log", "json", "--nosuch"], {}, "usage"],
      [["--log=json", "--listen", "x y"], {}, "usage"],
      [["--listen", "127.0.0.1:0", "--key-file", "/nonexistent"], { FRAMES_LOG: "json" }, "no-key"],
    ] as [string[], Record<string, string>, string][]) {
      const { stderr } = await run(["serve", folder(), ...words], { env });
      const [line, ...rest] = jsonLines(stderr);
      expect(rest).toEqual([]);
      expect(line).toMatchObject({ level: "error", type: "error", error });
      checkLines([line!]);
    }
    const wrong = await run(["serve", folder(), "--log", "xml"]);
    expect([wrong.code, wrong.stderr]).toEqual([1, expect.stringContaining("text or json")]);
  });

  test("frames serve --log json leaves events to standard output with --json", async () => {
    const server = await serve(["--json"]);
    expectCode(await send(server, makeTree({ "1.png": "one" })), 0);
    await server.stop();
    const types = (lines: Record<string, unknown>[]) => lines.map(({ type }) => type);
    expect(types(server.log())).toEqual(["listening", "stopped"]);
    const out = types(jsonLines(server.stdout()));
    expect(out).toEqual(["listening", "session", "delivered", "stopped"]);
  });
});

/** Sends invalid data to a server and waits until it closes. */
function stranger(port: number, text: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = connect(port, "127.0.0.1", () => socket.write(text));
  socket.on("data", () => {});
  socket.on("error", () => {});
  socket.on("close", () => resolve());
  return promise;
}

test.skipIf(linux !== "")(
  `${linux}log lines for systemd's journal have a priority and no time, others a time and no priority`,
  async () => {
    for (const isJournal of [true, false]) {
      const path = join(folder(), "log");
      const file = openSync(path, "w");
      const { dev, ino } = statSync(path);
      const stream = isJournal ? `${dev}:${ino}` : `${dev}:${ino + 1}`;
      const dir = folder();
      const words = [executable, "serve", dir, "--listen", "127.0.0.1:0", "--json"];
      const child = Bun.spawn(words, {
        env: environment({ JOURNAL_STREAM: stream, FRAMES_JSON: "0" }),
        stdio: ["ignore", "pipe", file],
      });
      try {
        const said = () => readFileSync(path, "utf8");
        await until("the greeting", () => /Listening at \S+:\d+/.test(said()));
        child.kill("SIGTERM");
        expect(await child.exited).toBe(0);
        const lines = said().trimEnd().split("\n");
        const priority = isJournal ? "<6>" : "";
        const time = isJournal ? "" : String.raw`\d{4}-\d\d-\d\dT\S+Z `;
        expect(lines[0]).toStartWith(`${priority}frames `);
        expect(lines.at(-1)).toMatch(new RegExp(`^${priority}${time}Stopped$`));
        const failed = Bun.spawn([...words, "--log", "json", "--log", "text", "--nosuch"], {
          env: environment({ JOURNAL_STREAM: stream }),
          stdio: ["ignore", "ignore", file],
        });
        expect(await failed.exited).toBe(1);
        const last = said().trimEnd().split("\n").at(-1)!;
        expect(last).toStartWith(isJournal ? "<3>Unknown flag" : "frames: Unknown flag");
      } finally {
        child.kill("SIGKILL");
      }
    }
  },
);

/** Writes a certificate for `name` and its key to the paths used by a server. */
function certify(at: string, name: string): void {
  const [key, cert] = [join(at, "tls.key"), join(at, "tls.crt")];
  const words = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=${name}`;
  const made = Bun.spawnSync(["openssl", ...words.split(" "), "-keyout", key, "-out", cert]);
  if (made.exitCode !== 0) throw new Error(made.stderr.toString());
}

/** Returns the name in the certificate that a server presents. */
async function shownBy(port: number): Promise<string | undefined> {
  const child = Bun.spawn(["openssl", "s_client", "-connect", `127.0.0.1:${port}`], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const said = await new Response(child.stdout).text();
  return /subject=.*CN ?= ?(\w+)/.exec(said)?.[1];
}

describe("SIGHUP", () => {
  test.skipIf(posix !== "")(
    `${posix}SIGHUP makes a server read its keys again without disconnecting a sender whose key remains`,
    async () => {
      const [one, two] = [entry("one"), entry("two")];
      const keys = keyFile(one);
      const server = await serve(["--key-file", keys]);
      const to = ["--to", `127.0.0.1:${server.port}`];
      const run7 = makeTree(manyFrames(2000, 20_000));
      const sending = launch(["send", run7, ...to, "--key-file", keyFile(one), "--bwlimit", "20M"]);
      await server.next("session");
      writeFileSync(keys, formatKey(two) + formatKey(one));
      server.child.kill("SIGHUP");
      await server.next("reloaded");
      // The signal reloaded the keys, not the check every second.
      const told = server.log().map(({ type }) => type);
      expect(told.indexOf("keys")).toBeLessThan(told.indexOf("reloaded"));
      expect(told.indexOf("keys")).toBeGreaterThan(0);
      const small = makeTree({ "1.png": "one" });
      expectCode(await run(["send", small, "--stream", "b", ...to, "--key-file", keyFile(two)]), 0);
      expectCode(await sending.ended(), 0);
      expect(sending.stderr()).not.toContain("again");
      expect(sameTree(run7, join(server.dir, "run7"))).toEqual([]);
      await server.stop();
    },
  );

  test.skipIf(withOpenssl !== "")(
    `${withOpenssl}SIGHUP makes a server use a new certificate, or keep the old one if the new one is invalid`,
    async () => {
      const [at, keys] = [folder(), keyFile(entry())];
      certify(at, "before");
      const tls = ["--tls-cert", join(at, "tls.crt"), "--tls-key", join(at, "tls.key")];
      const server = await serve(["--key-file", keys, ...tls]);
      expect(await shownBy(server.port)).toBe("before");
      const reload = async (): Promise<Json> => {
        server.child.kill("SIGHUP");
        return await server.next("reloaded");
      };
      using link = await relayTo({ port: server.port } as never, { rate: 20e6 });
      const run7 = makeTree(manyFrames(1000, 20_000));
      const sending = launch(["send", run7, "--to", link.to, "--key-file", keys]);
      await server.next("session");
      certify(at, "after");
      expect(await reload()).toMatchObject({ level: "info" });
      expect(await shownBy(server.port)).toBe("after");
      copyFileSync(join(at, "tls.key"), join(at, "kept.key"));
      certify(at, "third");
      // A key that does not match the certificate.
      copyFileSync(join(at, "kept.key"), join(at, "tls.key"));
      expect(await reload()).toMatchObject({ level: "error", error: "usage" });
      expect(await shownBy(server.port)).toBe("after");
      rmSync(join(at, "tls.crt"));
      expect(await reload()).toMatchObject({ level: "error", error: "missing" });
      expect(await shownBy(server.port)).toBe("after");
      expectCode(await sending.ended(), 0);
      expect(sending.stderr()).not.toContain("again");
      expect(sameTree(run7, join(server.dir, "run7"))).toEqual([]);
      await server.stop();
    },
  );

  test.skipIf(withOpenssl !== "")(
    `${withOpenssl}SIGHUP refuses no sender that connects while certificates are read again`,
    async () => {
      const [at, keys] = [folder(), keyFile(entry())];
      certify(at, "one");
      const tls = ["--tls-cert", join(at, "tls.crt"), "--tls-key", join(at, "tls.key")];
      const server = await serve(["--key-file", keys, ...tls]);
      let isOver = false;
      const signals = (async () => {
        let count = 0;
        for (; !isOver; count++) {
          server.child.kill("SIGHUP");
          await Bun.sleep(1);
        }
        return count;
      })();
      const small = makeTree({ "1.png": "one" });
      for (let count = 0; count < 10; count++) {
        expectCode(await send(server, small, "--stream", `s${count}`, "--key-file", keys), 0);
      }
      isOver = true;
      expect(await signals).toBeGreaterThan(50);
      await server.stop();
      expect(server.log().filter(({ type }) => type === "failed")).toEqual([]);
    },
  );

  test.skipIf(withPython !== "")(
    `${withPython}SIGHUP reloads a server in a terminal, but stops it when the terminal is gone`,
    async () => {
      const script = `
import os, pty, signal, sys, time
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
said = b""
def wait(text):
    global said
    while text not in said:
        said += os.read(terminal, 4096)
wait(b"Listening")
os.kill(child, signal.SIGHUP)
wait(b"Read keys")
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
`;
      const words = [executable, "serve", folder(), "--listen", "127.0.0.1:0"];
      const child = Bun.spawn([python, "-c", script, ...words], {
        env: environment(),
        stdio: ["ignore", "pipe", "pipe"],
        timeout: hangMs,
        killSignal: "SIGKILL",
      });
      expect(await new Response(child.stdout).text()).toBe("0\n");
    },
  );

  test.skipIf(linux !== "")(
    `${linux}SIGHUP stops a sender gently, but not one that was started with nohup`,
    async () => {
      const server = await serve();
      for (const isIgnored of [false, true]) {
        const run7 = makeTree({ "1.png": "one" });
        const stream = isIgnored ? "ignored" : "heeded";
        const words = ["send", run7, "--watch", "--stream", stream, "--to"];
        const trap = isIgnored ? 'trap "" HUP; ' : "";
        const child = Bun.spawn(
          ["sh", "-c", `${trap}exec "$0" "$@"`, executable, ...words, `127.0.0.1:${server.port}`],
          { env: environment(), stdio: ["ignore", "ignore", "pipe"] },
        );
        try {
          const stored = (name: string) => existsSync(join(server.dir, stream, "run7", name));
          await until("the first frame", () => stored("1.png"));
          child.kill("SIGHUP");
          if (isIgnored) {
            writeFileSync(join(run7, "2.png"), "two");
            await until("the second frame", () => stored("2.png"));
            child.kill("SIGTERM");
          }
          expect(await child.exited).toBe(0);
        } finally {
          child.kill("SIGKILL");
        }
      }
      await server.stop();
    },
  );
});

describe("SIGTERM", () => {
  test.skipIf(posix !== "")(
    `${posix}SIGTERM makes a server tell its senders, which resume at the next server without a loss`,
    async () => {
      const port = freePort();
      const listen = ["--listen", `127.0.0.1:${port}`];
      const first = await serve(listen);
      const run7 = makeTree(manyFrames(1000, 20_000));
      const to = `127.0.0.1:${port}`;
      const sending = launch(["send", run7, "--to", to, "--bwlimit", "10M", "--json"]);
      const stored = () => journalCount(first.dir);
      await until("frames arrive", () => stored() > 50);
      await first.stop();
      const before = stored();
      expect(before).toBeLessThan(1000);
      expect(await first.next("stopping")).toMatchObject({ level: "info", senders: 1 });
      expect(await first.next("stopped")).toMatchObject({ refused: { stopping: 1 } });
      await until("the sender was told", () => sending.stdout().includes('"stopping"'));
      const second = await serve(listen, {}, first.dir);
      const { code, stdout } = await sending.ended();
      expect(code).toBe(0);
      // Frames with a receipt are not sent again.
      expect(jsonLines(stdout).at(-1)).toMatchObject({ frames: 1000, retries: 1 });
      expect(sameTree(run7, join(first.dir, "run7"))).toEqual([]);
      expect(stored()).toBe(1000);
      await second.stop();
    },
  );

  test.skipIf(posix !== "")(
    `${posix}SIGTERM twice ends a server at once, even if a sender does not answer`,
    async () => {
      const server = await serve();
      const run7 = makeTree(manyFrames(1000, 20_000));
      const to = `127.0.0.1:${server.port}`;
      using sending = launch(["send", run7, "--to", to, "--bwlimit", "5M"]);
      await server.next("session");
      sending.child.kill("SIGSTOP");
      server.child.kill("SIGTERM");
      await server.next("stopping");
      server.child.kill("SIGTERM");
      expect((await server.ended()).code).toBe(20);
    },
  );
});

function journalCount(dir: string): number {
  const path = join(dir, ".frames/journal.sqlite");
  if (!existsSync(path)) return 0;
  const database = new Database(path, { readonly: true });
  try {
    return database.query<{ n: number }, []>("SELECT count(*) AS n FROM frames").get()!.n;
  } finally {
    database.close();
  }
}

describe("systemd", () => {
  for (const where of ["a path", "an abstract name"]) {
    test.skipIf(withPython !== "")(
      `${withPython}a server notifies systemd at ${where} that it is ready, reloads, is alive, and stops`,
      async () => {
        const own = folder();
        const address = where === "a path" ? join(own, "notify") : `@${own}`;
        const script = join(import.meta.dir, "../helper/supervisor.py");
        const supervisor = Bun.spawn([python, script, address], {
          stdio: ["ignore", "pipe", "inherit"],
        });
        let said = "";
        void (async () => {
          const decoder = new TextDecoder();
          for await (const chunk of supervisor.stdout) said += decoder.decode(chunk);
        })();
        const lines = () => jsonLines(said.slice(0, said.lastIndexOf("\n") + 1));
        const count = (field: string) => lines().filter((line) => field in line).length;
        try {
          await until("the supervisor", () => lines().length > 0);
          const server = await serve([], { NOTIFY_SOCKET: address, WATCHDOG_USEC: "100000" });
          await until("READY", () => count("READY") === 1);
          await until("WATCHDOG", () => count("WATCHDOG") >= 3);
          server.child.kill("SIGHUP");
          await until("READY again", () => count("READY") === 2);
          await server.stop();
          await until("STOPPING", () => count("STOPPING") === 1);
          const [first, ...told] = lines().filter((line) => !("WATCHDOG" in line));
          const status = `Listening at 127.0.0.1:${server.port}`;
          expect(told).toMatchObject([
            { READY: "1", STATUS: status, connected: true },
            { RELOADING: "1" },
            { READY: "1", STATUS: status },
            { STOPPING: "1", STATUS: expect.stringMatching(/^Stopping/) },
          ]);
          // From the same clock as systemd's, and not earlier than the signal.
          const [ready, reloading] = told as Record<string, number>[];
          const time = Number(reloading!["MONOTONIC_USEC"]);
          expect(time).toBeGreaterThan(ready!["at"]!);
          expect(time).toBeLessThanOrEqual(reloading!["at"]!);
          expect(ready!["at"]!).toBeGreaterThan(Number(first!["listening"]));
        } finally {
          supervisor.kill("SIGKILL");
        }
      },
    );
  }

  test.skipIf(linux !== "")(
    `${linux}a server warns once and serves if systemd's notify socket does not listen`,
    async () => {
      for (const address of [join(folder(), "nobody"), "neither", `/${"x".repeat(200)}`]) {
        const server = await serve([], { NOTIFY_SOCKET: address, WATCHDOG_USEC: "20000" });
        expectCode(await send(server, makeTree({ "1.png": "one" })), 0);
        await server.stop();
        const said = server.log().filter(({ type }) => type === "supervisor");
        expect(said).toMatchObject([{ level: "warning" }]);
      }
    },
  );

  /** Starts a server that inherits a socket of this kind as descriptor 3. */
  function given(kind: string, words: string[], env: Record<string, string> = {}) {
    const script = join(import.meta.dir, "../helper/supervisor.py");
    const command = [python, script, "--give", kind, executable, "serve", folder(), ...words];
    return Bun.spawn(command, {
      env: environment(env),
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  test.skipIf(withPython !== "")(
    `${withPython}a server listens on a socket from systemd and requires keys unless it is on loopback`,
    async () => {
      const keys = keyFile(entry());
      for (const [kind, secure] of [
        ["127.0.0.1", false],
        ["0.0.0.0", true],
        ["::", true],
        ["::1", false],
      ] as const) {
        const words = ["--json", ...(secure ? ["--key-file", keys] : [])];
        const server = given(kind, words);
        try {
          const [line] = jsonLines(await saidUntil(server.stdout, "\n"));
          const port = Number(line!["port"]);
          expect(port).toBeGreaterThan(0);
          const host = kind.includes(":") ? "[::1]" : "127.0.0.1";
          const to = ["--to", `${host}:${port}`];
          const run7 = makeTree({ "1.png": "one" });
          const key = secure ? ["--key-file", keys] : [];
          expectCode(await run(["send", run7, ...to, ...key]), 0);
          if (secure) expectCode(await run(["send", run7, ...to, "--insecure"]), 5);
          server.kill("SIGTERM");
          expect(await server.exited).toBe(0);
        } finally {
          server.kill("SIGKILL");
        }
      }
      // A server reachable from other machines requires keys even without a flag.
      const open = given("0.0.0.0", ["--json"], { HOME: folder() });
      try {
        expect(await saidUntil(open.stderr, "frames key save")).toContain("A key was made in");
      } finally {
        open.kill("SIGKILL");
      }
    },
  );

  test.skipIf(withPython !== "")(
    `${withPython}a server refuses an unsuitable socket from systemd and names the remedy: exit 1`,
    async () => {
      const cases: [string, string[], Record<string, string>, string][] = [
        ["unix", [], {}, "ListenStream=PORT"],
        ["file", [], {}, "ListenStream=PORT"],
        ["127.0.0.1", [], { LISTEN_FDS: "2" }, "2 sockets"],
        ["127.0.0.1", ["--listen", "127.0.0.1:0"], {}, "--listen"],
      ];
      for (const [kind, words, env, said] of cases) {
        const server = given(kind, words, env);
        const stderr = await new Response(server.stderr).text();
        expect([await server.exited, stderr]).toEqual([1, expect.stringContaining(said)]);
      }
    },
  );
});

/** Reads a program's output until it contains `text`. */
async function saidUntil(stream: ReadableStream<Uint8Array>, text: string): Promise<string> {
  const decoder = new TextDecoder();
  let said = "";
  for await (const chunk of stream) {
    said += decoder.decode(chunk, { stream: true });
    if (said.includes(text)) break;
  }
  return said;
}

describe("Without HOME", () => {
  const bare = { HOME: "", PATH: "" };

  test("a server and a sender with a key file need neither HOME nor PATH, and print no warning", async () => {
    const keys = keyFile(entry());
    const state = folder();
    const server = await serve(["--key-file", keys], { ...bare, STATE_DIRECTORY: state });
    const sent = await run(
      ["send", makeTree({ "1.png": "one" }), "--to", `127.0.0.1:${server.port}`],
      { env: { ...bare, FRAMES_KEY_FILE: keys } },
    );
    expectCode(sent, 0);
    await server.stop();
    expect(server.log().filter(({ level }) => level !== "info")).toEqual([]);
    // The certificate lies in the service's state, not where a stream could be stored.
    expect(readdirSync(state)).toEqual([".config"]);
    expect(readdirSync(join(state, ".config/frames"))).toEqual(["server.pem", "server.pem.lock"]);
  });

  test.skipIf(linux !== "")(
    `${linux}a server that cannot save its certificate serves with a temporary one and logs a warning`,
    async () => {
      const keys = keyFile(entry());
      const server = await serve(["--key-file", keys], { HOME: "/proc/nowhere" });
      expectCode(await send(server, makeTree({ "1.png": "one" }), "--key-file", keys), 0);
      await server.stop();
      expect(server.log()[0]).toMatchObject({ type: "certificate-not-saved", level: "warning" });
    },
  );

  test.skipIf(linux !== "")(
    `${linux}a server that cannot save a new key names the remedy: exit 1`,
    async () => {
      const env = { HOME: "/proc/nowhere" };
      const { code, stderr } = await run(["serve", folder(), "--listen", ":0"], { env });
      expect([code, stderr]).toEqual([1, expect.stringContaining("--key-file")]);
    },
  );

  test("a server without HOME makes its key in STATE_DIRECTORY and does not log it", async () => {
    const state = folder();
    const server = await serve(["--listen", ":0"], {
      HOME: "",
      STATE_DIRECTORY: `${state}:/other`,
    });
    const keys = join(state, ".config/frames/keys");
    const key = /frames_key_\S+/.exec(readFileSync(keys, "utf8"))![0];
    await server.stop();
    expect(server.stderr()).not.toContain(key);
    expect(server.stderr()).toContain(keys);
  });

  test.skipIf(asRoot !== "")(
    `${asRoot}a user without an account can serve and send on this machine`,
    async () => {
      const dir = folder();
      const words = ["--reuid", "54321", "--regid", "54321", "--clear-groups"];
      const start = ["env", "-i", Bun.which("setpriv")!, ...words, executable];
      chmodSync(join(dir, ".."), 0o755);
      chmodSync(dir, 0o777);
      const child = Bun.spawn(
        [...start, "serve", join(dir, "a"), "--listen", "127.0.0.1:0", "--http", "off", "--json"],
        {
          stdio: ["ignore", "pipe", "pipe"],
        },
      );
      try {
        const [line] = jsonLines(await saidUntil(child.stdout, "\n"));
        const run7 = join(dir, "run7");
        mkdirSync(run7);
        writeFileSync(join(run7, "1.png"), "one");
        const to = `127.0.0.1:${String(line!["port"])}`;
        const sent = Bun.spawn([...start, "send", run7, "--to", to], {
          stdio: ["ignore", "pipe", "pipe"],
        });
        const stderr = await new Response(sent.stderr).text();
        expectCode({ code: await sent.exited, stderr }, 0);
        const served = Bun.spawn(
          [...start, "serve", join(dir, "b"), "--listen", ":0", "--http", "off"],
          {
            stdio: ["ignore", "pipe", "pipe"],
          },
        );
        const why = await new Response(served.stderr).text();
        expect([await served.exited, why]).toEqual([1, expect.stringContaining("--key-file")]);
      } finally {
        child.kill("SIGKILL");
      }
    },
  );
});

test("a server at every interface prints only addresses that clients can connect to", async () => {
  const env = { FRAMES_KEY_FILE: keyFile(entry()) };
  const any = ["", "0.0.0.0", "[::]", "[::0]"];
  for (const host of any) {
    const ports = ["--listen", `${host}:0`, "--http", `${host}:0`];
    const article = ["--article", `${host}:0`, "--article-insecure"];
    using server = launch(["serve", folder(), ...ports, ...article], env);
    await until("the addresses", () => /See it at .*\n/.test(server.stderr()));
    expect([
      host,
      server.stderr().match(/--to \S+|Listening at \S+:\S+|https:\S+/g)?.length,
    ]).toEqual([host, 4]);
    expect(server.stderr()).not.toMatch(/(?:\b0\.0\.0\.0|\[::0?\]):/);
    server.child.kill("SIGTERM");
    await server.ended();
  }
});

const withStrace = linux || (Bun.which("strace") === null ? "skipped: needs strace: " : "");

test.skipIf(withStrace !== "")(
  `${withStrace}a server serves in a sandbox that forbids all sockets except TCP`,
  async () => {
    // Listing network addresses needs a socket of another family (RestrictAddressFamilies).
    const dir = folder();
    const inject = ["-D", "-f", "-qq", "-o", join(dir, "trace"), "-e", "trace=socket"];
    const forbid = ["-e", "inject=socket:error=EAFNOSUPPORT:when=2+"];
    const words = [executable, "serve", join(dir, "a"), "--listen", ":0"];
    const child = Bun.spawn(["strace", ...inject, ...forbid, ...words], {
      env: environment({ FRAMES_KEY_FILE: keyFile(entry()) }),
      stdio: ["ignore", "ignore", "pipe"],
    });
    try {
      expect(await saidUntil(child.stderr, "--to")).toContain("--to THIS-MACHINE");
      child.kill("SIGTERM");
      await child.exited;
    } finally {
      child.kill("SIGKILL");
    }
  },
);

describe("Keys from systemd's LoadCredential", () => {
  test.skipIf(linux !== "")(
    `${linux}a server accepts a key file that its group can read only in systemd's credentials folder`,
    async () => {
      const keys = keyFile(entry());
      const credentials = join(keys, "..");
      for (const [mode, env, code] of [
        [0o400, {}, 0],
        [0o440, {}, 1],
        [0o440, { CREDENTIALS_DIRECTORY: credentials }, 0],
        [0o440, { CREDENTIALS_DIRECTORY: `${credentials}-other` }, 1],
        [0o444, { CREDENTIALS_DIRECTORY: credentials }, 1],
      ] as [number, Record<string, string>, number][]) {
        chmodSync(keys, mode);
        const started = launch(
          ["serve", folder(), "--listen", "127.0.0.1:0", "--key-file", keys],
          env,
        );
        await until("it serves or ends", () => {
          return started.child.exitCode !== null || started.stderr().includes("Listening");
        });
        started.child.kill("SIGTERM");
        expect([mode, env, (await started.ended()).code]).toEqual([mode, env, code]);
      }
    },
  );
});

describe("Units and container of the manual", () => {
  const pages = ["service", "edge", "container"].map((name) =>
    readFileSync(join(import.meta.dir, `../../src/cli/help/${name}.md`), "utf8"),
  );
  const manual = pages.join("\n");
  const units = [...manual.matchAll(/```ini\n# \S+\/(\S+)\n([^]*?)```/g)].map(([, name, text]) => ({
    name: name!,
    text: text!,
  }));

  const withAnalyze =
    linux || (Bun.which("systemd-analyze") === null ? "skipped: needs systemd: " : "");
  test.skipIf(withAnalyze !== "")(`${withAnalyze}systemd accepts the units of the manual`, () => {
    const at = folder();
    const expected = ["frames.service", "frames.socket", "frames-send.service"];
    expect(units.map(({ name }) => name)).toEqual(expected);
    for (const { name, text } of units) {
      writeFileSync(join(at, name), text.replaceAll("/usr/local/bin/frames", executable));
    }
    for (const { name } of units) {
      const words = ["systemd-analyze", "verify", "--man=no", join(at, name)];
      const { exitCode, stdout, stderr } = Bun.spawnSync(words);
      // systemd only prints a warning for unknown settings.
      expect([name, exitCode, `${stdout}${stderr}`]).toEqual([name, 0, ""]);
    }
  });

  test("frames accepts the start commands of the units and the container in the manual", async () => {
    const commands = units
      .map(({ text }) => text.replace(/\\\n */g, ""))
      .flatMap((text) => [...text.matchAll(/^ExecStart=\S+ (.*)$/gm)])
      .map(([, words]) => words!.replaceAll("%%", "%").replaceAll("%d", "/nonexistent").split(" "));
    const [, listed] = /^CMD (\[.*\])$/m.exec(manual)!;
    const all = [...commands, JSON.parse(listed!) as string[]];
    expect(all.length).toBe(3);
    for (const words of all) {
      // The arguments are valid, except for paths missing on this machine.
      const known = words.map((word) => word.replace(/^\/(?:var|data)/, `${folder()}/`));
      const env = { HOME: "/proc/nowhere" };
      const { code, stderr } = await run([...known, "--key-file", "/nonexistent"], { env });
      expect(stderr).not.toContain("Unknown");
      expect([1, 5, 11]).toContain(code);
    }
  });
});
