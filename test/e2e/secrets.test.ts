// A key never leaks: not to the process list, a child process, the output or a store.

import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { formatKey, type Key, type KeyEntry } from "../../src/auth/key.ts";
import { commands } from "../../src/cli/args/commands.ts";
import { environmentName, flagsOf } from "../../src/cli/args/flags.ts";
import { generateKey } from "../../src/keys/key-file.ts";
import { expectCode, relayTo } from "../helper/delivery.ts";
import {
  launch,
  makeTree,
  manyFrames,
  run,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

const linux = process.platform === "linux" ? "" : "skipped: needs Linux: ";

const folders: string[] = [];
function folder(): string {
  const made = temporaryFolder();
  folders.push(made);
  return made;
}
afterAll(() => folders.forEach((path) => rmSync(path, { recursive: true, force: true })));

function keyFile(...lines: string[]): string {
  const path = join(folder(), "keys");
  writeFileSync(path, lines.join(""), { mode: 0o600 });
  return path;
}

function entry(key: Key, name = "cam"): KeyEntry {
  return { name, key, role: "both", streams: "*" };
}

/** Returns all forms in which a key could appear: text and bytes in common notations. */
function shapesOf({ text, bytes }: Key): Buffer[] {
  const raw = Buffer.from(bytes);
  const body = text.slice("frames_key_".length);
  // Without the CRC-32 at the end of the text. Half a key must not leak either.
  const texts = [
    body,
    body.slice(0, 24),
    body.slice(16, 40),
    raw.toString("hex"),
    raw.toString("base64"),
  ];
  return [...texts.map((shape) => Buffer.from(shape)), raw, raw.subarray(0, 16), raw.subarray(16)];
}

/** Expects that no form of a key occurs in these outputs. */
function expectUntold(key: Key, ...said: (string | Uint8Array)[]): void {
  for (const one of said) {
    const bytes = Buffer.from(one as Uint8Array);
    expect(
      shapesOf(key)
        .filter((shape) => bytes.includes(shape))
        .map(String),
    ).toEqual([]);
  }
}

/** Returns every file below a folder, including hidden ones. */
function filesBelow(path: string): string[] {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile())
    .map((file) => join(file.parentPath, file.name));
}

/** Returns the child processes of a process. */
function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((child) => {
      try {
        // A process name may contain spaces and parentheses; the parent's id follows it.
        const stat = readFileSync(`/proc/${child}/stat`, "latin1");
        return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === pid;
      } catch {
        return false;
      }
    });
}

describe.skipIf(linux !== "")(`${linux}A key in use`, () => {
  for (const [how, isFile] of [
    ["from a file", true],
    ["from FRAMES_KEY", false],
  ] as const) {
    test(`a key ${how} appears in no process list, child process, output or store`, async () => {
      const key = generateKey();
      const keys = keyFile(formatKey(entry(key)));
      const words = isFile ? ["--key-file", keys] : [];
      const env: Record<string, string> = isFile ? {} : { FRAMES_KEY: key.text };
      const server = await startServer({ dir: folder(), args: [...words, "-v"], env });
      using link = await relayTo(server, { rate: 1e6 });
      const run7 = makeTree(manyFrames(400, 20_000));
      folders.push(join(run7, ".."));
      using sending = launch(["send", run7, "--to", link.to, "--json", "-v", ...words], env);
      await until("frames arrive", () => existsSync(join(server.dir, "run7", "visible", "9.png")));

      const pids = [server.process.pid, sending.child.pid];
      for (const pid of pids) {
        expectUntold(key, readFileSync(`/proc/${pid}/cmdline`));
        // A key from the environment stays there. A key from a file must not appear there.
        if (isFile) expectUntold(key, readFileSync(`/proc/${pid}/environ`));
      }
      // There is no child process that could inherit anything.
      expect(pids.flatMap(childrenOf)).toEqual([]);
      expect(childrenOf(process.pid)).toEqual(expect.arrayContaining(pids));
      // The database's write-ahead log exists while the server runs.
      const stored = filesBelow(server.dir);
      expect(stored.filter((path) => path.endsWith("-wal"))).toHaveLength(1);
      expectUntold(key, ...stored.map((path) => readFileSync(path)));

      link.relay.limit(1e9);
      const { code, stdout, stderr } = await sending.ended();
      expectCode({ code, stderr }, 0);
      expect(pids.flatMap(childrenOf)).toEqual([]);
      expect(await server.stop()).toBe(0);
      expectUntold(key, stdout, stderr, server.stdout(), server.stderr());
      expect(server.stdout()).toContain('"stored"');
      expect(stderr).toContain("-> HELLO");
      expectUntold(key, ...filesBelow(server.dir).map((path) => readFileSync(path)));
      expectUntold(key, ...filesBelow(run7).map((path) => readFileSync(path)));
    });
  }
});

test("the search for a key finds it in every form in which it could leak", () => {
  const key = generateKey();
  for (const said of [key.text, formatKey(entry(key)), key.bytes, `x${key.text.slice(11, 40)}`]) {
    expect(() => expectUntold(key, said)).toThrow();
  }
});

describe("A key that is not accepted", () => {
  const key = generateKey();
  const run7 = makeTree({ "visible/1.png": 1000 });
  folders.push(join(run7, ".."));
  const flipped = key.text.slice(0, 20) + (key.text[20] === "A" ? "B" : "A") + key.text.slice(21);

  test("neither end prints a key that the server does not accept, even with -v and --json", async () => {
    const theirs = generateKey();
    const server = await startServer({
      dir: folder(),
      args: ["--key-file", keyFile(formatKey(entry(theirs))), "-v"],
    });
    const to = ["--to", `127.0.0.1:${server.port}`, "-v"];
    const sent = [
      await run(["send", run7, ...to, "--json", "--key-file", keyFile(formatKey(entry(key)))]),
      await run(["send", run7, ...to], { env: { FRAMES_KEY: key.text } }),
    ];
    await until("the server said so", () => server.stdout().split('"failed"').length === 3);
    expect(sent.map(({ code }) => code)).toEqual([5, 5]);
    expect(await server.stop()).toBe(0);
    for (const one of [key, theirs]) {
      expectUntold(one, server.stdout(), server.stderr());
      for (const { stdout, stderr } of sent) expectUntold(one, stdout, stderr);
      expectUntold(one, ...filesBelow(server.dir).map((path) => readFileSync(path)));
    }
  });

  const spoilt: [string, string][] = [
    ["one character wrong", flipped],
    ["its last character missing", key.text.slice(0, -1)],
    ["a character too many", `${key.text}A`],
    ["a space in it", `${key.text.slice(0, 40)} ${key.text.slice(40)}`],
    ["a line break in it", `${key.text.slice(0, 40)}\n${key.text.slice(40)}`],
    ["its beginning missing", key.text.slice("frames_key_".length)],
    ["quotes around it", `"${key.text}"`],
  ];
  for (const [what, text] of spoilt) {
    test(`frames send and serve do not print a FRAMES_KEY with ${what}: exit 1`, async () => {
      const env = { FRAMES_KEY: text };
      for (const words of [
        ["send", run7, "--to", "127.0.0.1:1"],
        ["serve", folder(), "--listen", "127.0.0.1:0"],
      ]) {
        const { code, stdout, stderr } = await run([...words, "-v", "--json"], { env });
        expect([code, stderr]).toEqual([1, expect.stringContaining("FRAMES_KEY")]);
        expectUntold(key, stdout, stderr);
      }
    });
  }

  const lines: [string, string][] = [
    ...spoilt.map(([what, text]): [string, string] => [`with ${what}`, `cam ${text}\n`]),
    ["before its name", `${key.text} cam\n`],
    ["without a name", `${key.text}\n`],
    ["with an unknown role", `cam ${key.text} write\n`],
    ["with an invalid name", `-cam ${key.text}\n`],
    ["with a word too many", `cam ${key.text} both * more\n`],
    ["twice under one name", formatKey(entry(key)).repeat(2)],
    ["as its own name", `${key.text} ${key.text}\n`],
  ];
  for (const [what, text] of lines) {
    test(`frames does not print a key that its key file has ${what}: exit 1`, async () => {
      const path = keyFile("# a remark\n", text);
      for (const words of [
        ["send", run7, "--to", "127.0.0.1:1"],
        ["serve", folder(), "--listen", "127.0.0.1:0"],
        ["key", "list"],
        ["key", "new", "other"],
      ]) {
        const { code, stdout, stderr } = await run([...words, "--json", "--key-file", path]);
        expect([code, stderr]).toEqual([1, expect.stringMatching(/line [23] of/)]);
        expectUntold(key, stdout, stderr);
      }
    });
  }

  test("a server prints no key when its key file becomes invalid while it runs", async () => {
    const path = keyFile(formatKey(entry(key)));
    const server = await startServer({ dir: folder(), args: ["--key-file", path] });
    writeFileSync(path, `cam ${flipped}\n`);
    await until("it was said", () => server.stdout().includes('"keys"'));
    expect(await server.stop()).toBe(0);
    expectUntold(key, server.stdout(), server.stderr());
  });

  test("frames key prints the key only without an action, not with list, remove or save", async () => {
    const path = keyFile(formatKey(entry(key)));
    const said = async (words: string[], stdin = "") => {
      const { code, stdout, stderr } = await run(["key", ...words, "--key-file", path], { stdin });
      expectUntold(key, stderr);
      return { code, stdout };
    };
    for (const words of [["list"], ["list", "--json"], ["remove", "other"]]) {
      expectUntold(key, (await said(words)).stdout);
    }
    for (const stdin of [key.text, flipped, `"${key.text}"`]) {
      expectUntold(key, (await said(["save", "again"], stdin)).stdout);
    }
    expect((await said([])).stdout).toBe(`${key.text}\n`);
  });

  // Users paste a key where a name is expected. As a name it would appear in lists, logs and
  // journals.
  for (const action of ["save", "new"]) {
    test(`frames key ${action} does not print a key that is given as a name: exit 1`, async () => {
      const path = keyFile(formatKey(entry(generateKey(), "other")));
      const words = ["key", action, key.text, "--key-file", path];
      const { code, stdout, stderr } = await run(words, { stdin: generateKey().text });
      expect(code).toBe(1);
      expectUntold(key, stdout, stderr, readFileSync(path));
    });
  }
});

describe("Passwords, tokens and keys in arguments and variables", () => {
  const secret = "S3cretW0rd";
  const values = [
    `rtsp://admin:Pa@${secret}@127.0.0.1:9/user=admin&password=${secret}?token=${secret}`,
    `http://${secret}@127.0.0.1:9/x?access_token=${secret}#${secret}`,
    `x=srt://127.0.0.1:9?passphrase=${secret}`,
    `s3://AKIAIOSFODNN7EXAMPLE:${secret}/a+b@bucket/prefix`,
    `admin:Pa@${secret}@127.0.0.1:9`,
    `frames_key_${secret}${"A".repeat(30)}`,
    `frames_key_${secret}`,
  ];
  const run7 = makeTree({ "visible/1.png": 10 });
  folders.push(join(run7, ".."));
  const quick = ["--to", "127.0.0.1:1", "--give-up-after", "0.05"];
  /** Arguments with which a command ends soon. */
  const usual: Record<string, string[]> = {
    serve: [join(folder(), "no", "folder"), "--listen", "nowhere:1"],
    send: [run7, ...quick, "--json"],
    receive: ["run7", folder(), "--from", "127.0.0.1:1", "--give-up-after", "0.05", "--json"],
    ls: [folder()],
    verify: [folder()],
    bench: ["--dir", join(folder(), "none")],
    key: ["list"],
  };

  async function expectHidden(words: string[], env: Record<string, string> = {}): Promise<void> {
    const { stdout, stderr } = await run(words, { env: { HOME: folder(), ...env } });
    expect([words.join(" "), `${stdout}${stderr}`]).toEqual([
      words.join(" "),
      expect.not.stringContaining(secret),
    ]);
    expect(stderr).not.toContain("bug in frames");
  }

  for (const { name: command } of commands) {
    const args = usual[command];
    if (args === undefined) continue;
    const flags = flagsOf(command).filter((flag) => flag.value !== undefined);
    test(`frames ${command} shows no secret that is given to a flag, as a variable or as a path`, async () => {
      for (const value of values) {
        const positional = command === "key" ? ["save", value] : [value, ...args.slice(1)];
        const runs: [string[], Record<string, string>?][] = [
          [[command, ...positional]],
          [[command, ...args, value]],
          [[command, `--${value}`]],
          [[value]],
        ];
        for (const flag of value === values[0] || value === values[5] ? flags : []) {
          runs.push([[command, ...args, `--${flag.name}`, value]]);
          runs.push([[command, ...args], { [environmentName(flag)]: value }]);
        }
        for (let at = 0; at < runs.length; at += 4) {
          await Promise.all(runs.slice(at, at + 4).map(([words, env]) => expectHidden(words, env)));
        }
      }
    });
  }

  test("a camera's URL shows no secret in messages, events and reports", async () => {
    for (const value of values.slice(0, 3)) {
      const url = value.replace(/^x=/, "");
      for (const source of [
        [url, "--source", "a"],
        ["--source", `a=${url}`],
      ]) {
        const variants = [["--json", "-v"], ["--camera", "1x1"], ["--dry-run"], ["--move"], []];
        const words = ["send", ...source, "--stream", "s", ...quick];
        await Promise.all(variants.map((more) => expectHidden([...words, ...more])));
      }
    }
  });

  test("a camera's URL in a file shows nothing of it", async () => {
    const path = join(folder(), "gate.url");
    writeFileSync(path, `rtsp://${secret}:9/${secret}?${secret}\n`, { mode: 0o600 });
    for (const more of [
      ["--json", "-v"],
      ["--camera", "1x1"],
      ["--dry-run"],
      ["--raw", "1x1:gray"],
    ]) {
      await expectHidden(["send", "--source", `gate=@${path}`, "--stream", "s", ...quick, ...more]);
    }
  });
});
