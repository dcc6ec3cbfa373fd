// Wrong uses of every command: the exit status, and what the message says to type next.
//
// Each row gives the words after `frames`, and parts of the message, of which one is the next step.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, closeSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { expectCode } from "../helper/delivery.ts";
import {
  executable,
  type Finished,
  jsonLines,
  launch,
  peerMissing,
  run,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { error as errorMessage, json, preface, welcome } from "../helper/scripted-server.ts";
import { until } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

/** Parts of a message, in order. */
type Says = readonly string[];
/** The words after `frames`, and what the message says. */
type Row = readonly [words: string, ...says: Says];

const linux = process.platform === "linux";
const skipped = (isNeeded: boolean, what: string): string =>
  isNeeded ? `skipped: needs ${what}: ` : "";

/** The folder in which the commands run. */
const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);

/** Addresses of servers: HOST:PORT by name. */
const servers: Record<string, string> = {};
const stops: (() => unknown)[] = [];

beforeAll(async () => {
  for (const [path, content] of Object.entries({
    "run7/1.png": "one",
    "run7/2.png": "two",
    "big/1.png": "x".repeat(2000),
    "file.txt": "text",
    "damaged/.frames/journal.sqlite": "no database",
    "no-journal/.frames/partial/x": "",
    "no-journal/run7/1.png": "one",
    "bad.pem": "no certificate",
    "open.pem": "no certificate",
    "bad-keys": "cam not-a-key\n",
    "open-keys": "",
  })) {
    mkdirSync(at(path, ".."), { recursive: true });
    writeFileSync(at(path), content);
  }
  mkdirSync(at("empty"));
  chmodSync(at("bad.pem"), 0o600);
  chmodSync(at("bad-keys"), 0o600);
  chmodSync(at("open-keys"), 0o644);
  mkdirSync(at("names"));
  writeFileSync(at("names", "a\\b.png"), "one");
});

afterAll(async () => {
  for (const stop of stops) await stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Starts a server that answers each connection with `bytes`, and says nothing more. */
function startPeer(name: string, bytes: Uint8Array, ends = false): void {
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        if (bytes.length > 0) socket.write(bytes);
      },
      // A close with unread bytes would be a reset.
      data(socket) {
        if (ends) socket.end();
      },
      error() {},
    },
  });
  stops.push(() => listener.stop(true));
  servers[name] = `127.0.0.1:${listener.port}`;
}

/** Starts a server of the executable, under this name in `servers`. */
async function startReal(name: string, dir: string, args: string[] = []): Promise<Server> {
  const server = await startServer({ dir, args });
  stops.push(() => server.stop());
  servers[name] = `127.0.0.1:${server.port}`;
  return server;
}

/** Replaces `<name>` by the address of that server, and splits at spaces. */
function wordsOf(text: string): string[] {
  const address = (_: string, name: string): string => servers[name]!;
  return text.split(" ").map((word) => word.replace("_", " ").replace(/<(\w+)>/, address));
}

function runWords(text: string, options: Parameters<typeof run>[1] = {}): Promise<Finished> {
  const words = wordsOf(text);
  return run(words, { cwd: folder, ...options });
}

/** Expects the exit status, and a message of one line with all parts. */
function expectMessage(
  { code, stderr }: { code: number; stderr: string },
  exit: number,
  says: Says,
) {
  expectCode({ code, stderr }, exit);
  const lines = stderr.split("\n").filter((line) => line.startsWith("frames: "));
  expect(lines).toHaveLength(1);
  for (const part of says) expect(lines[0]).toContain(part);
}

/** @param env for all rows, such as another HOME */
function eachRow(exit: number, rows: readonly Row[], env: Record<string, string> = {}): void {
  for (const [words, ...says] of rows) {
    test(`frames ${words} says what to type next: exit ${exit}`, async () => {
      expectMessage(await runWords(words, { env }), exit, says);
    });
  }
}

describe("flags, arguments and formats", () => {
  eachRow(1, [
    // serve
    ["serve a b", "Cannot serve b too", "start another frames serve for it"],
    ["serve --listne :1", "Unknown flag --listne", "did you mean --listen?"],
    ["serve --listen 9726", "a port alone is written :9726"],
    ["serve --keep 90m", "for minutes write hours", "for bytes write 90M"],
    ["serve --max-frame big", "expected a size such as 64M"],
    ["serve --log xml", "expected text or json"],
    ["serve --tls-cert bad.pem", "add --tls-key FILE"],
    ["serve --tls-cert bad.pem --tls-key bad.pem --listen :0", "not a PEM certificate"],
    ["serve --tls-cert bad.pem --tls-key open.pem --listen :0", "run chmod 600 open.pem"],
    ["serve --article-insecure", "add --article HOST:PORT"],
    ["serve --article 0.0.0.0:0", "add --article-insecure to allow that"],
    ["serve --key-file open-keys", "other users can read it", "run chmod 600 open-keys"],
    ["serve --key-file bad-keys --insecure", "leave one out"],
    ["serve s3://x", '"x" is not a valid bucket name'],
    ["serve s3://bucket", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"],
    // send
    ["send", "no directory given", "write frames send DIR"],
    ["send nowhere", "no such file or directory", "check the path"],
    ["send run7/1.png/x", "not a directory", "check the path"],
    ["send run7 gpu1:9726", "no such directory", "write --to gpu1:9726"],
    ["send run7 big", "add --stream NAME"],
    ["send run7 run7 --stream s", "rename one with --source NAME=PATH"],
    ["send run7 --to", "it takes a value; write --to HOST[:PORT]"],
    ["send run7 --watch=yes", "it takes no value; write --watch alone"],
    ["send run7 --on-conflict merge", "expected fail, skip or replace"],
    ["send run7 --bwlimit 0", "write a rate such as 5M, or leave it out"],
    ["send run7 --since 2h", "add --watch, or leave it out"],
    [
      "send run7 --spool spool",
      "Cannot use --spool with run7: it is a directory",
      "leave --spool out",
    ],
    ["send run7 --stream a/b", "it contains a slash", "choose another with --stream"],
    ["send run7 --stream s-%Q", "write %% for a percent sign"],
    ["send run7 --policy newest", "expected block, latest or latest:N"],
    ["send -", "write frames send - --stream NAME --source NAME"],
    ["send - --stream s --source a --raw H264", "640x512:gray16le, h264 or h265"],
    ["send rtsp://camera/1", "write frames send rtsp://camera/1 --stream NAME --source NAME"],
    ["send run7 --article", "add --to HOST:PORT"],
    ["send run7 --article --to 127.0.0.1:9 --move", "leave it out"],
    // receive
    ["receive", "no stream given", "write frames receive STREAM [DIR]"],
    ["receive run7 a b", "write one directory, as in frames receive STREAM DIR"],
    ["receive run7 --multipart", "write frames receive STREAM --multipart -"],
    ["receive run7 - --json", "leave one out"],
    ["receive run7 out.mov", "written as .mp4 or .mkv", "frames receive STREAM - > FILE"],
    ["receive run7 --first 0", "expected --first 1 or more"],
    ["receive run7 --source a=b", "as in --source a"],
    ["receive run7 --since yesterday", "how long ago, such as 2h"],
    // ls, verify
    ["ls", "no such directory", "name the store with --dir DIR"],
    ["ls --dir run7", "it is not a store of frames", "name the store with --dir DIR"],
    ["ls a b", "write frames ls a"],
    ["ls --gaps", "write frames ls STREAM --gaps"],
    ["verify", "no such directory", "name the store, as in frames verify DIR"],
    ["verify run7", "it is not a store of frames", "as in frames verify DIR"],
    ["verify a b", "write one directory, as in frames verify a"],
    ["verify --repiar", "did you mean --repair?"],
    // bench, key
    ["bench a b", "write one server, as in frames bench a"],
    ["bench 70000", "expected HOST or HOST:PORT"],
    ["bench --dir nowhere", "choose a writable folder with --dir"],
    ["bench --size 1", "Unknown flag --size"],
    ["key show", "write frames key new, save, list or remove"],
    ["key new", "write frames key new NAME"],
    ["key new a_b", "use up to 64 letters"],
    ["key new a --role view", "expected send, receive or both"],
    ["key remove a", "frames key list shows all"],
    ["key list --role send", "write them after frames key new NAME"],
    // help, version, completions, and no command
    ["sned run7", "did you mean frames send?"],
    ["--to gpu1", "flags follow the command, see frames help"],
    ["help sned", "did you mean send?"],
    ["help nothing-like-it", "see frames help"],
    ["completions", "as in frames completions bash"],
    ["completions powershell", "as in frames completions bash"],
    ["version --long", "see frames help version"],
  ]);

  test("frames alone prints the overview, with the two first commands: exit 1", async () => {
    const { code, stderr } = await run([]);
    expect(code).toBe(1);
    expect(stderr).toContain("frames serve");
    expect(stderr).toContain("frames send DIR");
  });

  test("a key as an argument is refused, and not shown: exit 1", async () => {
    const key = `frames_key_${"a".repeat(48)}`;
    const saved = await run(["key", "save", key]);
    expectMessage(saved, 1, ["which ps shows", "run frames key save"]);
    expect(saved.stderr).not.toContain(key);
  });

  test("a key that lost its end says where to copy it: exit 1", async () => {
    const saved = await run(["key", "save"], { stdin: "frames_key_abc\n" });
    expectMessage(saved, 1, ["copy the whole line that frames key prints"]);
  });

  test("a switch in the environment that is neither 1 nor 0 is named: exit 1", async () => {
    const sent = await run(["send", at("run7")], { env: { FRAMES_WATCH: "maybe" } });
    expectMessage(sent, 1, ["Cannot read FRAMES_WATCH: expected 1 or 0"]);
  });

  test("a pipe without a picture says what to add for raw frames: exit 23", async () => {
    await startReal("forPipes", at("pipes"));
    const words = wordsOf("send - --stream s --source a --to <forPipes>");
    const options = { cwd: folder };
    const raw = await run(words, { ...options, stdin: "no picture" });
    expectCode(raw, 23);
    expect(raw.stderr).toContain("expected a JPEG, PNG, PNM or BMP image");
    expect(raw.stderr).toContain("for raw frames add --raw WxH:FORMAT");
    const empty = await run(words, { ...options, stdin: "" });
    expectMessage(empty, 23, ["ended without a byte", "check the program that writes to it"]);
  });
});

describe("the other end breaks the rules: exit 2", () => {
  beforeAll(() => {
    startPeer("web", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"));
    startPeer("newer", Buffer.from("FRAMES/2"));
    startPeer("strict", welcome({ limits: { frame: 1 << 20, sources: 1, unfinished: 1 } }));
  });

  eachRow(2, [
    ["send run7 --to <web>", "is not a frames server", "check the address"],
    ["receive run7 copy --from <web>", "is not a frames server", "check the address"],
    ["bench <web>", "is not a frames server", "check the address"],
    ["send run7 --to <newer>", "it speaks FRAMES/2, this is FRAMES/1"],
    ["send run7 big --stream s --to <strict>", "the server accepts 1", "send fewer at a time"],
  ]);
});

describe("keys: exit 5", () => {
  beforeAll(async () => {
    // The alert of a server that requires TLS.
    startPeer("locked", Uint8Array.of(21, 3, 3, 0, 2, 2, 70), true);
    await run(["key", "new", "cam", "--role", "receive", "--key-file", at("keys")]);
    await run(["key", "new", "cam", "--key-file", at("other-keys")]);
    await startReal("keyed", at("keyed"), ["--key-file", at("keys")]);
    await startReal("open", at("open"), ["--insecure"]);
  });

  eachRow(
    5,
    [
      ["send run7 --to 192.0.2.1", "no key in", "on the server run frames key", "frames key save"],
      [
        "receive run7 --from 192.0.2.1",
        "no key in",
        "on the server run frames key",
        "frames key save",
      ],
      ["bench 192.0.2.1", "no key in", "on the server run frames key", "frames key save"],
      ["send run7 --to 192.0.2.1 --key-file none", "into frames key save --key-file none"],
      ["send run7 --to <locked>", "requires a key", "into frames key save"],
      ["serve --key-file none", "run frames key new NAME --key-file none"],
      ["send run7 --to <keyed> --key-file other-keys", "refused the key", "into frames key save"],
      ["send run7 --to <keyed> --key-file keys", "run frames key new NAME --role send"],
      ["send run7 --to <open> --key-file keys", "add --insecure here too"],
    ],
    // A home without keys.
    { HOME: at("home") },
  );
});

describe("hosts: exit 10", () => {
  beforeAll(async () => {
    const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    servers["closed"] = `127.0.0.1:${listener.port}`;
    listener.stop(true);
    await startReal("busy", at("busy"));
    startPeer("gone", new Uint8Array(0), true);
  });

  eachRow(10, [
    ["send run7 --to <closed>", "connection refused", "run frames serve --listen 127.0.0.1:"],
    ["receive run7 --from <closed>", "connection refused", "run frames serve --listen 127.0.0.1:"],
    ["bench <closed>", "connection refused", "run frames serve --listen 127.0.0.1:"],
    ["bench camera.invalid --insecure", "Cannot connect to camera.invalid:9726"],
    ["serve new --listen <busy>", "the address is in use", "choose another port with --listen"],
    ["serve new --listen 127.0.0.1:0 --http <busy>", "in use", "choose another port with --http"],
    ["serve new --listen 192.0.2.1:9726 --insecure", "or --listen :PORT for all of them"],
    ["bench <gone>", "closed the connection at once", "check the address"],
  ]);
});

describe("folders and disks: exit 11", () => {
  let server: Server;
  beforeAll(async () => {
    server = await startReal("locking", at("locking"));
  });

  eachRow(11, [
    [
      "serve locking --listen 127.0.0.1:0",
      "another process uses it",
      "or choose another directory",
    ],
    ["verify locking --repair", "another process uses it (process ", "stop it first"],
    ["serve file.txt --listen 127.0.0.1:0", "choose a folder that this user can write"],
    ["serve no-journal --listen 127.0.0.1:0", "run frames verify ", " --repair"],
    ["verify damaged", "run frames verify damaged --repair"],
    ["serve damaged --listen 127.0.0.1:0", "run frames verify DIR --repair"],
  ]);

  test.skipIf(!linux)(
    `${skipped(!linux, "Linux")}output that cannot be written names the disk: exit 11`,
    async () => {
      await runWords("send run7 --to <locking>");
      const full = openSync("/dev/full", "w");
      const command = Bun.spawn([executable, "ls", "--dir", server.dir], {
        stdio: ["ignore", full, "pipe"],
      });
      closeSync(full);
      const stderr = await new Response(command.stderr).text();
      expectMessage({ code: await command.exited, stderr }, 11, [
        "Cannot write the output: no space left on the disk",
      ]);
    },
  );
});

describe("faults of the other end: exit 12", () => {
  beforeAll(() => startPeer("faulty", Buffer.concat([preface, errorMessage(12, "a bug")])));

  eachRow(12, [
    ["send run7 --to <faulty>", "The server says: a bug"],
    ["send run7 --to <faulty> --json", "The server says: a bug"],
    ["receive run7 copy --from <faulty>", "The server says: a bug"],
    ["bench <faulty>", "The server says: a bug"],
  ]);
});

describe("Ctrl-C: exit 20", () => {
  const rows: Row[] = [
    [`send ${at("run7")} --to <silent>`, "Interrupted before 127.0.0.1:"],
    [`receive run7 ${at("copy")} --from <silent>`, "Interrupted before 127.0.0.1:"],
    ["bench <silent>", "Interrupted: the temporary files are deleted"],
    [`send ${at("run7")} --watch --to <silent>`, "Interrupted before 127.0.0.1:"],
  ];
  for (const [words, ...says] of rows) {
    test(`frames ${words.replace(folder, "")} says what it left: exit 20`, async () => {
      let isConnected = false;
      const listener = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: { open: () => void (isConnected = true), data() {}, error() {} },
      });
      servers["silent"] = `127.0.0.1:${listener.port}`;
      using command = launch(wordsOf(words));
      await until("the connection", () => isConnected);
      command.child.kill("SIGINT");
      expectMessage(await command.ended(), 20, says);
      listener.stop(true);
    });
  }
});

describe("frames that are not delivered", () => {
  let store: Server;
  beforeAll(async () => {
    store = await startReal("small", at("small"), ["--max-frame", "1k", "--portable-names"]);
    await runWords("send run7 --to <small>");
    writeFileSync(at("run7/1.png"), "1st");
  });

  /** Runs a command, and expects these parts on stderr, which lists each frame. */
  async function expectListed(words: string, exit: number, ...says: string[]): Promise<void> {
    const finished = await runWords(words);
    expectCode(finished, exit);
    for (const part of says) expect(finished.stderr).toContain(part);
  }

  test("frames over the server's limit name the flag that raises it: exit 23", async () => {
    await expectListed("send big --to <small>", 23, "the server accepts 1024", "raise --max-frame");
  });

  test("names that cannot be stored are quoted: exit 23", async () => {
    await expectListed("send names --to <small>", 23, "it contains a backslash");
  });

  test("other bytes under a name list the flags that solve it: exit 23", async () => {
    const flags = ["add --stream NAME", "add --on-conflict replace", "--on-conflict skip"];
    await expectListed("send run7 --to <small> --checksum", 23, ...flags);
  });

  test("a store with damaged and missing frames says which flags help: exit 23", async () => {
    await runWords("send run7 --stream broken --to <small>");
    writeFileSync(join(store.dir, "broken/run7/1.png"), "x");
    rmSync(join(store.dir, "broken/run7/2.png"));
    const flags = ["add --repair", "add --ignore-missing"];
    await expectListed(`verify ${store.dir}`, 23, ...flags);
  });

  test("frames whose files were deleted from the store are listed: exit 24", async () => {
    await runWords("send run7 --stream gone --to <small>");
    rmSync(join(store.dir, "gone/run7/2.png"));
    const why = "its file was deleted from the store";
    await expectListed("receive gone copy-1 --from <small>", 24, "run7/2.png", why);
    await expectListed("receive gone - --from <small>", 24, why);
    const asJson = await runWords("receive gone copy-2 --from <small> --json");
    expectCode(asJson, 24);
    expect(jsonLines(asJson.stdout)).toContainEqual(
      expect.objectContaining({ type: "undelivered", error: "vanished", message: why }),
    );
  });

  test("a stream that the server does not have says how to list them: exit 1", async () => {
    const received = await runWords("receive none copy-3 --from <small>");
    expectMessage(received, 1, ["has no frames of it", "on the server run frames ls"]);
  });
});

describe("waiting is given up: exit 30", () => {
  beforeAll(async () => {
    startPeer("mute", new Uint8Array(0));
    startPeer("idle", welcome());
    startPeer("slow", Buffer.concat([preface, json(type.WELCOME, {}).subarray(0, 5)]));
    await startReal("full", at("full"), ["--reserve", "1000T"]);
  });

  eachRow(30, [
    ["send run7 --to <mute> --timeout 0.2", "WELCOME", "give more time with --timeout"],
    [
      "send run7 --to <idle> --give-up-after 0.3",
      "Gave up after 0.3 s",
      "the same command again completes it",
    ],
    ["receive run7 copy --from <mute> --timeout 0.2", "give more time with --timeout"],
    ["send run7 --to <slow> --timeout 0.2", "give more time with --timeout"],
    ["send run7 --to <full> --give-up-after 0.3", "--reserve is", "frames serve with --keep"],
  ]);
});

const pythonMissing = skipped(!linux || peerMissing("python3"), "python3 on Linux");
describe.skipIf(pythonMissing !== "")(
  `${pythonMissing}a host that does not answer: exit 35`,
  () => {
    beforeAll(async () => {
      // A listener with a full backlog that never accepts.
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
      const hole = Bun.spawn(["python3", "-c", program], { stdin: "ignore", stdout: "pipe" });
      stops.push(() => hole.kill("SIGKILL"));
      const { value } = await hole.stdout.getReader().read();
      servers["hole"] = `127.0.0.1:${Number(new TextDecoder().decode(value))}`;
    });

    const hint = "check that the machine is on, and that its firewall opens port";
    eachRow(35, [
      ["send run7 --to <hole> --give-up-after 0.3", "no answer within 0.", hint],
      ["send run7 --to <hole> --give-up-after 0.3 --json", "no answer within 0.", hint],
      ["receive run7 copy --from <hole> --give-up-after 0.3", "no answer within 0.", hint],
      ["send run7 --watch --to <hole> --give-up-after 0.3", "no answer within 0.", hint],
    ]);
  },
);
