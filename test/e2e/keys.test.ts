// Keys and TLS from a user's view: the executables, and the bytes between them.
//
// Covers: cli/key.ts, client/client-keys.ts, keys/certificate-file.ts, keys/key-file.ts,
//   keys/secret-file.ts

import { afterAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createServer } from "node:tls";

import { makeCertificate } from "../../src/auth/certificate.ts";
import { channelBinding, ClientProof } from "../../src/auth/key-proof.ts";
import { formatKey, type KeyEntry } from "../../src/auth/key.ts";
import { errors } from "../../src/errors.ts";
import { encodeControl, encodeProof } from "../../src/wire/encode.ts";
import { type Hello, MessageType } from "../../src/wire/messages.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { expectCode, journal, relayTo, summaryOf } from "../helper/delivery.ts";
import {
  environment,
  executable,
  jsonLines,
  launch,
  run,
  sameTree,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { decodeAll } from "../wire/oracle.ts";

const folders: string[] = [];
function folder(): string {
  const made = temporaryFolder();
  folders.push(made);
  return made;
}
afterAll(() => folders.forEach((path) => rmSync(path, { recursive: true, force: true })));

/** A name and the start of a frame that an eavesdropper must not see. */
const name = "a-name-that-nobody-may-read.png";
const content = "what-the-camera-saw-".repeat(1000);

function frames(count = 3): string {
  const run7 = join(folder(), "run7");
  mkdirSync(run7);
  writeFileSync(join(run7, name), content);
  for (let number = 2; number <= count; number++) writeFileSync(join(run7, `${number}`), content);
  return run7;
}

function entry(fields: Partial<KeyEntry> = {}): KeyEntry {
  return { name: "cam", key: generateKey(), role: "both", streams: "*", ...fields };
}

function keyFile(...entries: KeyEntry[]): string {
  const path = join(folder(), "keys");
  writeFileSync(path, entries.map(formatKey).join(""), { mode: 0o600 });
  return path;
}

/** Runs a server that requires the keys in a file, on loopback, while `use` runs. */
async function withKeys(keys: string, use: (server: Server) => Promise<void>): Promise<void> {
  const server = await startServer({ dir: folder(), args: ["--key-file", keys] });
  try {
    await use(server);
  } finally {
    expect(await server.stop()).toBe(0);
  }
}

function sendWith(keys: string, server: Pick<Server, "port">, ...more: string[]) {
  return run(["send", ...more, "--to", `127.0.0.1:${server.port}`, "--key-file", keys]);
}

const occurrences = (bytes: Uint8Array, text: string): number =>
  Buffer.from(bytes).toString("latin1").split(text).length - 1;

describe("Connection with a key", () => {
  test("a connection with a key reveals no frame, name or key to an eavesdropper", async () => {
    const one = entry();
    const keys = keyFile(one);
    const run7 = frames();
    await withKeys(keys, async (server) => {
      using link = await relayTo(server, { record: true });
      const sent = await run(["send", run7, "--to", link.to, "--key-file", keys]);
      expectCode(sent, 0);
      const record = [...link.relay.record.toServer, ...link.relay.record.toClient];
      const passed = Buffer.concat(record);
      expect(passed.length).toBeGreaterThan(3 * content.length);
      const secrets = [content.slice(0, 20), name, "run7", "FRAMES/1", one.key.text, one.key.id];
      expect(secrets.map((secret) => occurrences(passed, secret))).toEqual([0, 0, 0, 0, 0, 0]);
      expect(occurrences(passed, Buffer.from(one.key.bytes).toString("latin1"))).toBe(0);
      sameTree(run7, join(server.dir, "run7"));
    });
  });

  test("a connection without a key reveals names and frames to an eavesdropper", async () => {
    const server = await startServer({ dir: folder() });
    using link = await relayTo(server, { record: true });
    expectCode(await run(["send", frames(), "--to", link.to]), 0);
    const passed = Buffer.concat(link.relay.record.toServer);
    expect(occurrences(passed, content)).toBe(3);
    expect(occurrences(passed, name)).toBe(1);
    expect(await server.stop()).toBe(0);
  });

  test("a sender with a key reconnects after the link breaks and delivers every frame", async () => {
    const keys = keyFile(entry());
    const run7 = frames(2000);
    await withKeys(keys, async (server) => {
      using link = await relayTo(server, { rate: 20e6 });
      const sending = run(["send", run7, "--to", link.to, "--key-file", keys, "--json"]);
      await until("frames passed", () => link.relay.bytes > 10e6);
      link.relay.cut();
      const sent = await sending;
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 2000, retries: 1 });
      sameTree(run7, join(server.dir, "run7"));
    });
  });
});

describe("Refused senders", () => {
  const cam = entry({ name: "cam" });

  const cases: [string, KeyEntry, KeyEntry, string, string][] = [
    ["has another key", cam, entry(), "not-let-in", "refused the key"],
    [
      "has a key for receiving",
      { ...cam, role: "receive" },
      cam,
      "wrong-role",
      "allows receive, not send",
    ],
    ["has a key for other streams", { ...cam, streams: "night-*" }, cam, "wrong-stream", "night-*"],
  ];
  for (const [who, there, here, code, words] of cases) {
    test(`a sender that ${who} gets ${code} and exit 5, and the server stores nothing`, async () => {
      await withKeys(keyFile(there), async (server) => {
        const sent = await sendWith(keyFile(here), server, frames(), "--json");
        expect([sent.code, jsonLines(sent.stdout).at(-1)]).toMatchObject([5, { error: code }]);
        expect(sent.stderr).toContain(words);
        await until("the server said so", () => server.stdout().includes('"failed"'));
        expect(jsonLines(server.stdout()).find((line) => line["type"] === "failed")).toMatchObject({
          error: code,
        });
        expect(readdirSync(server.dir)).toEqual([".frames"]);
      });
    });
  }

  test("a sender without a key gets exit 5 and the command to save one", async () => {
    await withKeys(keyFile(cam), async (server) => {
      const sent = await run(["send", frames(), "--to", `127.0.0.1:${server.port}`]);
      expect(sent.code).toBe(5);
      expect(sent.stderr).toContain("frames key save");
      expect(readdirSync(server.dir)).toEqual([".frames"]);
    });
  });

  test("a sender with a key sends nothing to a server without TLS: exit 5", async () => {
    const server = await startServer({ dir: folder() });
    using link = await relayTo(server, { record: true });
    const sent = await run(["send", frames(), "--to", link.to, "--key-file", keyFile(cam)]);
    expect(sent.code).toBe(5);
    expect(sent.stderr).toContain("does not use TLS 1.3");
    expect(occurrences(Buffer.concat(link.relay.record.toServer), "FRAMES/1")).toBe(0);
    expect(await server.stop()).toBe(0);
  });

  test("a sender whose key is removed is disconnected and refused afterwards: exit 5", async () => {
    const other = entry({ name: "other" });
    const keys = keyFile(cam, other);
    await withKeys(keys, async (server) => {
      using link = await relayTo(server, { rate: 2e6 });
      const own = keyFile(cam);
      using sending = launch(["send", frames(2000), "--to", link.to, "--key-file", own]);
      await until("frames arrive", () => existsSync(join(server.dir, "run7", "9")));
      writeFileSync(keys, formatKey(other));
      const { code, stderr } = await sending.ended();
      expect([code, stderr]).toEqual([
        5,
        expect.stringContaining("removed from the server's key file"),
      ]);
      expectCode(await sendWith(own, server, frames(), "--stream", "b"), 5);
      expectCode(await sendWith(keyFile(other), server, frames(), "--stream", "b"), 0);
    });
  });
});

/** Sends HELLO with a key by hand and returns the server's reply. The connection stays open. */
async function greet(port: number, { key }: KeyEntry, fields: Partial<Hello> = {}) {
  const client = new ClientProof(key);
  const body = {
    role: "send",
    session: "a1".repeat(16),
    stream: "s",
    key: client.keyId,
    ...fields,
  };
  const said = Buffer.concat([
    Buffer.from("FRAMES/1"),
    encodeControl(MessageType.hello, 0, body as Hello),
  ]);
  let heard: Uint8Array = Buffer.alloc(0);
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    tls: { rejectUnauthorized: false },
    socket: {
      handshake(socket) {
        const exporter = socket.exportKeyingMaterial(
          channelBinding.bytes,
          channelBinding.label,
        ) as unknown as Uint8Array;
        socket.write(Buffer.concat([said, encodeProof(client.create(exporter, said))]));
      },
      data(_, chunk) {
        heard = Buffer.concat([heard, chunk]);
      },
    },
  });
  const messages = () => decodeAll(heard.subarray(8)).messages;
  return { messages, [Symbol.dispose]: () => void socket.terminate() };
}

test("a connection takes over a session only with the key that began it", async () => {
  const [one, other] = [entry({ name: "one" }), entry({ name: "other" })];
  await withKeys(keyFile(one, other), async ({ port }) => {
    const welcome = ({ messages }: Awaited<ReturnType<typeof greet>>) =>
      messages().some((message) => message.type === MessageType.welcome);
    const errorOf = ({ messages }: Awaited<ReturnType<typeof greet>>) =>
      messages().find((message) => message.type === MessageType.error);
    using first = await greet(port, one);
    await until("the first is let in", () => welcome(first));
    using thief = await greet(port, other);
    await until("the thief is answered", () => errorOf(thief) !== undefined);
    expect(errorOf(thief)).toMatchObject({ json: { error: errors["stolen-session"].wireCode } });
    expect(errorOf(first)).toBeUndefined();
    using second = await greet(port, one);
    await until("the second is let in", () => welcome(second));
    await until("the first is told", () => errorOf(first) !== undefined);
    expect(errorOf(first)).toMatchObject({ json: { error: errors.superseded.wireCode } });
  });
});

test("the journal names the key of each frame, and only that key may replace the frame", async () => {
  const [one, other] = [entry({ name: "cam-1" }), entry({ name: "cam-2" })];
  const [first, second] = [frames(2), frames(2)];
  writeFileSync(join(second, name), "what another camera saw");
  await withKeys(keyFile(one, other), async (server) => {
    expectCode(await sendWith(keyFile(one), server, first), 0);
    const stolen = await sendWith(keyFile(other), server, second, "--on-conflict", "replace");
    expect([stolen.code, stolen.stderr]).toEqual([23, expect.stringContaining("1 conflict")]);
    sameTree(first, join(server.dir, "run7"));
    const keys = () => journal(server.dir, "SELECT name, key FROM frames ORDER BY name");
    const rows = ["2", name].map((frame) => ({ name: frame, key: "cam-1" }));
    expect(keys()).toEqual(rows);
    // A key may replace its own frames.
    expectCode(await sendWith(keyFile(one), server, second, "--on-conflict", "replace"), 0);
    sameTree(second, join(server.dir, "run7"));
    expect(keys()).toEqual(rows);
  });
});

describe("Key files", () => {
  test("a sender tries the keys of its file in order, so that keys can be changed one end at a time", async () => {
    const [old, young] = [entry({ name: "old" }), entry({ name: "young" })];
    const keys = keyFile(old);
    await withKeys(keys, async (server) => {
      const both = keyFile(young, old);
      expectCode(await sendWith(both, server, frames(), "--stream", "a"), 0);
      writeFileSync(keys, formatKey(young));
      await until("the keys were read again", () => server.stdout().includes('"keys"'));
      expectCode(await sendWith(both, server, frames(), "--stream", "b"), 0);
      expectCode(await sendWith(keyFile(old), server, frames(), "--stream", "c"), 5);
    });
  });

  test("a sender skips the keys of its file that do not allow the stream", async () => {
    const [day, night] = [entry({ name: "day" }), entry({ name: "night" })];
    const keys = keyFile({ ...day, streams: "day-*" }, { ...night, streams: "night-*" });
    await withKeys(keys, async (server) => {
      const both = keyFile(day, night);
      expectCode(await sendWith(both, server, frames(), "--stream", "night-1"), 0);
      expectCode(await sendWith(both, server, frames(), "--stream", "day-1"), 0);
      expectCode(await sendWith(both, server, frames(), "--stream", "other"), 5);
      expect(readdirSync(server.dir).toSorted()).toEqual([".frames", "day-1", "night-1"]);
    });
  });

  test("a server keeps its keys and logs an error when its key file becomes invalid", async () => {
    const cam = entry();
    const keys = keyFile(cam);
    await withKeys(keys, async (server) => {
      appendFileSync(keys, "this is no key\n");
      await until("it was said", () => server.stdout().includes('"keys"'));
      expect(jsonLines(server.stdout()).at(-1)).toMatchObject({ type: "keys", error: "usage" });
      expectCode(await sendWith(keyFile(cam), server, frames()), 0);
    });
  });

  test.skipIf(process.platform === "win32")(
    "both ends refuse a key file that other users can read: exit 1",
    async () => {
      const keys = keyFile(entry());
      chmodSync(keys, 0o640);
      const served = await run(["serve", folder(), "--listen", "127.0.0.1:0", "--key-file", keys]);
      const sent = await run(["send", frames(), "--to", "127.0.0.1:1", "--key-file", keys]);
      for (const { code, stderr } of [served, sent]) {
        expect([code, stderr]).toEqual([1, expect.stringContaining(`chmod 600 ${keys}`)]);
      }
    },
  );

  test("frames serve refuses a key file that does not exist: exit 5", async () => {
    const keys = join(folder(), "keys");
    const served = await run(["serve", folder(), "--listen", "127.0.0.1:0", "--key-file", keys]);
    expect([served.code, served.stderr]).toEqual([5, expect.stringContaining("frames key new")]);
  });
});

describe("frames key", () => {
  /** A separate home directory gives a new key file. */
  const atHome = (home: string, words: string[], stdin = "") =>
    run(["key", ...words], { env: { HOME: home }, stdin });

  test("frames key makes a key once, prints it on standard output only, and makes its file private", async () => {
    const home = folder();
    const made = await atHome(home, []);
    const shown = await atHome(home, []);
    expectCode(made, 0);
    expect(made.stdout).toMatch(/^frames_key_[\w-]{48}\n$/);
    expect(shown.stdout).toBe(made.stdout);
    expect(made.stderr + shown.stderr).not.toContain("frames_key_");
    const path = join(home, ".config", "frames", "keys");
    if (process.platform !== "win32") expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("frames key save reads a key from standard input, puts it first, and does not print it", async () => {
    const [home, other] = [folder(), folder()];
    const { stdout: key } = await atHome(home, []);
    for (const words of [["save"], ["save", "again"]]) {
      const saved = await atHome(other, words, `\n  ${key}\nmore\n`);
      expectCode(saved, 0);
      expect(saved.stdout + saved.stderr).not.toContain(key.trim());
    }
    expectCode(await atHome(other, ["save", "newer"], generateKey().text), 0);
    const { stdout } = await atHome(other, ["list", "--json"]);
    expect(jsonLines(stdout).map((line) => line["name"])).toEqual(["newer", "saved"]);
    expect(stdout).not.toContain("frames_key_");
  });

  test.skipIf(process.platform === "win32")(
    "frames key save reads a key pasted into a terminal, and does not echo it",
    async () => {
      const [home, other] = [folder(), folder()];
      const { stdout: key } = await atHome(home, []);
      let screen = "";
      const terminal = {
        cols: 120,
        rows: 30,
        data: (_: unknown, bytes: Uint8Array) => void (screen += Buffer.from(bytes).toString()),
      };
      const env = environment({ HOME: other });
      const child = Bun.spawn([executable, "key", "save"], { env, terminal });
      await until("the question", () => screen.includes("Paste the key"));
      child.terminal!.write(key.replace("\n", "\r"));
      expect(await child.exited).toBe(0);
      await until("the answer", () => screen.includes("Saved as saved"));
      expect(screen).not.toContain(key.slice(0, 30));
      expect((await atHome(other, [])).stdout).toBe(key);
    },
  );

  test("the list of keys is aligned also with wide names, and prints no control character", async () => {
    const home = folder();
    await atHome(home, ["new", "門"]);
    await atHome(home, ["new", "gate", "--streams", "a\u202eb*"]);
    const { stdout } = await atHome(home, ["list"]);
    const [title, ...rows] = stdout.trimEnd().split("\n");
    const column = title!.indexOf("ROLE");
    const widths = rows.map((row) => Bun.stringWidth(row.slice(0, row.indexOf("both"))));
    expect(widths).toEqual([column, column]);
    expect(stdout).toContain("a\\u202eb*");
    expect(stdout).not.toContain("\u202e");
  });

  test("frames key makes, lists and removes the key of one camera, and leaves the other keys", async () => {
    const home = folder();
    const path = join(home, ".config", "frames", "keys");
    for (const words of [
      ["new", "cam-3", "--role", "send", "--streams", "site-a-*"],
      ["new", "viewer", "--role=receive"],
    ]) {
      expectCode(await atHome(home, words), 0);
    }
    writeFileSync(path, `${readFileSync(path, "utf8")}# a remark\n`, { mode: 0o600 });
    const { stdout } = await atHome(home, ["list"]);
    const rows = stdout.split("\n").map((line) => line.split(/\s+/).slice(0, 3));
    expect(rows).toEqual([
      ...[
        ["NAME", "ROLE", "STREAMS"],
        ["cam-3", "send", "site-a-*"],
        ["viewer", "receive", "*"],
      ],
      [""],
    ]);
    expectCode(await atHome(home, ["remove", "cam-3"]), 0);
    const text = readFileSync(path, "utf8");
    expect(text).not.toContain("cam-3");
    expect(text).toContain("viewer");
    expect(text).toContain("# a remark");
  });

  const wrong: [string, string[], string][] = [
    ["an unknown action", ["show"], "write frames key new, save, list or remove"],
    [
      "a new key without a name",
      ["new"],
      "Cannot make a key without a name: write frames key new NAME",
    ],
    ["a name of two words", ["new", "a b"], "Cannot name a key"],
    ["an unknown role", ["new", "a", "--role", "write"], "send, receive or both"],
    ["a pattern with a space", ["new", "a", "--streams", "a b"], "without spaces"],
    ["an unknown name to remove", ["remove", "a"], "Cannot remove the key a: "],
    ["a role for list", ["list", "--role", "send"], "frames key new"],
    ["a word too many", ["list", "all"], "frames help key"],
    ["a standard input without a key", ["save"], "begins with frames_key_"],
  ];
  for (const [what, words, said] of wrong) {
    test(`frames key refuses ${what}: exit 1`, async () => {
      const { code, stderr } = await atHome(folder(), words, "hunter2");
      expect([code, stderr]).toEqual([1, expect.stringContaining(said)]);
      expect(stderr).not.toContain("hunter2");
    });
  }
});

describe("Keys on one machine", () => {
  test("a server on loopback ignores the key file in the home folder", async () => {
    const home = folder();
    await run(["key"], { env: { HOME: home } });
    const server = await startServer({ dir: folder(), env: { HOME: home } });
    const to = ["--to", `127.0.0.1:${server.port}`];
    expectCode(await run(["send", frames(), ...to], { env: { HOME: home } }), 0);
    expect(await server.stop()).toBe(0);
  });

  test("a sender finds the key of a server of the same user in the home folder", async () => {
    const home = folder();
    await run(["key"], { env: { HOME: home } });
    const keys = join(home, ".config", "frames", "keys");
    await withKeys(keys, async (server) => {
      const to = ["--to", `127.0.0.1:${server.port}`];
      expectCode(await run(["send", frames(), ...to], { env: { HOME: home } }), 0);
    });
  });

  test.skipIf(process.platform === "win32")(
    "a key file that cannot be used matters only to a sender that is asked for a key",
    async () => {
      const home = folder();
      await run(["key"], { env: { HOME: home } });
      chmodSync(join(home, ".config", "frames", "keys"), 0o644);
      const open = await startServer({ dir: folder() });
      const sendTo = ({ port }: Server) =>
        run(["send", frames(), "--to", `127.0.0.1:${port}`], { env: { HOME: home } });
      expectCode(await sendTo(open), 0);
      expect(await open.stop()).toBe(0);
      await withKeys(keyFile(entry()), async (server) => {
        const { code, stderr } = await sendTo(server);
        expect([code, stderr]).toEqual([1, expect.stringContaining("chmod 600")]);
      });
    },
  );

  test("FRAMES_KEY works at both ends like a key file and appears in no output", async () => {
    const key = generateKey().text;
    const server = await startServer({ dir: folder(), env: { FRAMES_KEY: key } });
    const words = ["send", frames(), "--to", `127.0.0.1:${server.port}`];
    const sent = await run([...words, "--json", "-v"], { env: { FRAMES_KEY: key } });
    const without = await run(words);
    expect([sent.code, without.code]).toEqual([0, 5]);
    expect(await server.stop()).toBe(0);
    const said = [sent.stdout, sent.stderr, without.stderr, server.stdout(), server.stderr()];
    for (const text of said) expect(text).not.toContain(key.slice(11));
  });
});

describe("Failed TLS handshake", () => {
  /** Runs a sender with a key against a raw server. */
  async function sendTo(answer: (socket: Bun.Socket) => void, ...more: string[]) {
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: (socket) => answer(socket) },
    });
    const words = ["send", frames(), "--to", `127.0.0.1:${server.port}`, ...more];
    const sent = await run([...words, "--key-file", keyFile(entry())]);
    server.stop(true);
    return sent;
  }

  test("a server that closes during the TLS handshake is a network error: exit 10", async () => {
    for (const end of ["end", "terminate"] as const) {
      const { code, stderr } = await sendTo((socket) => void socket[end]());
      expect([code, stderr]).toEqual([10, expect.stringContaining("during the TLS handshake")]);
    }
  });

  test("a sender with a key refuses a server that does not answer in TLS: exit 5", async () => {
    for (const text of ["FRAMES/1", "HTTP/1.1 400 Bad Request\r\n\r\n", "\0".repeat(50)]) {
      const { code, stderr } = await sendTo((socket) => void socket.write(text));
      expect([code, stderr]).toEqual([5, expect.stringContaining("does not use TLS 1.3")]);
    }
  });

  test("a sender with a key refuses a server that offers TLS 1.2 only: exit 5", async () => {
    const made = makeCertificate(
      generateKeyPairSync("ec", { namedCurve: "P-256" }),
      randomBytes(16),
      new Date(),
    );
    const old = createServer({ key: made.key, cert: made.certificate, maxVersion: "TLSv1.2" });
    await new Promise<void>((resolve) => old.listen(0, "127.0.0.1", resolve));
    const { port } = old.address() as AddressInfo;
    const { code, stderr } = await sendWith(keyFile(entry()), { port }, frames());
    old.close();
    expect([code, stderr]).toEqual([5, expect.stringContaining("does not use TLS 1.3")]);
  });

  test("a TLS handshake with a silent server times out with no-connection", async () => {
    const home = folder();
    const script = `
      import { send } from ${JSON.stringify(join(import.meta.dir, "../../src/mod.ts"))};
      const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      const to = "127.0.0.1:" + server.port;
      const options = { to, stream: "s", source: "a", key: process.argv[1], connectTimeout: 200 };
      const error = await send([{ bytes: new Uint8Array(1) }], options).catch((error) => error);
      console.log(error.code);
      process.exit(0);`;
    const child = Bun.spawn([process.execPath, "-e", script, generateKey().text], {
      env: { PATH: process.env["PATH"] ?? "", HOME: home },
      ...{ stdin: "ignore", stdout: "pipe", stderr: "inherit" },
    });
    expect(await new Response(child.stdout).text()).toBe("no-connection\n");
  });
});

for (const [what, words] of [
  ["requires a key", ["--key-file"]],
  ["requires no key", []],
] as const) {
  test.skipIf(process.platform !== "linux")(
    `300 silent connections keep no sender out of a server that ${what}`,
    async () => {
      const keys = keyFile(entry());
      const secured = words.length > 0 ? ["--key-file", keys] : [];
      // With 200 open files the server accepts 100 connections.
      const command = ["sh", "-c", 'ulimit -n 200 && exec "$0" "$@"', executable];
      const server = await startServer({ dir: folder(), args: secured, command });
      let closed = 0;
      const silent: Bun.Socket[] = [];
      const knock = async () => {
        const handlers = { data: () => {}, close: () => void closed++ };
        silent.push(
          await Bun.connect({ hostname: "127.0.0.1", port: server.port, socket: handlers }),
        );
      };
      for (let number = 0; number < 300; number++) await knock();
      const to = ["--to", `127.0.0.1:${server.port}`, ...secured];
      const sending = run(["send", frames(200), ...to, "--json"]);
      for (let number = 0; number < 50; number++) await knock();
      const sent = await sending;
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 200, retries: 0 });
      await until("the oldest went", () => closed >= 250);
      for (const socket of silent) socket.terminate();
      expect(await server.stop()).toBe(0);
    },
  );
}

test("--insecure and a key exclude each other at both ends: exit 1", async () => {
  const keys = keyFile(entry());
  for (const words of [
    ["serve", folder(), "--listen", "127.0.0.1:0"],
    ["send", frames()],
  ]) {
    const { code, stderr } = await run([...words, "--insecure", "--key-file", keys]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("leave one out")]);
  }
});

const open = [":0", "0.0.0.0:0", "[::]:0"];
test.each(open)("a server at %s makes a key, requires it and does not log it", async (address) => {
  const home = folder();
  const dir = folder();
  const child = Bun.spawn([executable, "serve", dir, "--listen", address, "--json"], {
    env: { PATH: process.env["PATH"] ?? "", HOME: home, FRAMES_HTTP: "off" },
    ...{ stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  });
  const reader = child.stdout.getReader();
  const first = new TextDecoder().decode((await reader.read()).value);
  const port = Number(jsonLines(first)[0]!["port"]);
  const to = ["--to", `127.0.0.1:${port}`];
  expect((await run(["send", frames(), ...to])).code).toBe(5);
  expectCode(await run(["send", frames(), ...to], { env: { HOME: home } }), 0);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  const key = readFileSync(join(home, ".config", "frames", "keys"), "utf8");
  const stderr = await new Response(child.stderr).text();
  expect(stderr).toContain("frames key save");
  expect(stderr).not.toContain("frames_key_");
  expect(key).toContain("frames_key_");
});
