// Durability: data must be safe on the server's disk before the sender deletes it. Also full and
// failing disks. Uses the executables, small disks, and strace(1).
//
// Covers: client/sent-file-remover.ts

import { afterAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";

import { Decoder } from "../../src/wire/decode.ts";
import { encodeControl, encodeReceipt } from "../../src/wire/encode.ts";
import { preface, MessageType } from "../../src/wire/messages.ts";
import { expectCode, summaryOf, withServer } from "../helper/delivery.ts";
import {
  executable,
  type Finished,
  jsonLines,
  launch,
  makeTree,
  manyFrames,
  peerMissing,
  run,
  sameTree,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { startRelay } from "../helper/relay.ts";

function words(server: { port: number }, path: string, ...more: string[]): string[] {
  return ["send", path, "--to", `127.0.0.1:${server.port}`, "--json", "-v", ...more];
}

function send(server: { port: number }, path: string, ...more: string[]): Promise<Finished> {
  return run(words(server, path, ...more));
}

/** Returns the names of all files below a folder. */
function filesIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => relative(folder, join(parentPath, name)))
    .sort();
}

/** Returns the content of a folder's files, which may be deleted later. */
function contents(folder: string): Map<string, Buffer> {
  return new Map(filesIn(folder).map((name) => [name, readFileSync(join(folder, name))]));
}

function expectStored(server: Server, frames: Map<string, Buffer>): void {
  for (const [name, bytes] of frames) {
    const same = readFileSync(join(server.dir, "run7", name)).equals(bytes);
    expect([name, same]).toEqual([name, true]);
  }
}

// Moving frames.

describe("frames send --move", () => {
  test("frames send --move removes every file, also large ones, and the server has every frame", async () => {
    const folder = makeTree({
      ...manyFrames(300, 2_000),
      "infrared/1.raw": 3_000_000,
      "infrared/empty.raw": 0,
    });
    const before = contents(folder);
    await withServer(async (server) => {
      const sent = await send(server, folder, "--move");
      expectCode(sent, 0);
      expect(sent.stderr).toMatch(/"durable":true.*\n(?:.*\n)*<- WELCOME .*"durable":true/);
      expect(summaryOf(sent)).toMatchObject({ frames: 302, removed: 302, present: 0, reasons: {} });
      expect(sent.stderr).toMatch(/^302 frames removed here$/m);
      expect(filesIn(folder)).toEqual([]);
      expectStored(server, before);
    });
  });

  test("frames send --move keeps a file that changed since it was sent, and reports it: exit 23", async () => {
    const folder = makeTree(manyFrames(5, 1_000));
    const at = (number: number) => join(folder, `visible/${number}.png`);
    for (let number = 1; number <= 5; number++)
      utimesSync(at(number), 1_600_000_000, 1_600_000_000);
    using fake = durableServer(true);
    using sender = launch(words(fake, folder, "--move"));
    await until("all frames", () => fake.hasEnd);
    // No file may be removed without its receipt.
    expect(filesIn(folder)).toHaveLength(5);
    writeFileSync(at(2), "longer than before".repeat(100));
    // One with the same size and another time; one with the same size and time, so that only its
    // content differs.
    writeFileSync(at(3), readFileSync(at(3)).reverse());
    writeFileSync(at(4), readFileSync(at(4)).reverse());
    utimesSync(at(4), 1_600_000_000, 1_600_000_000);
    fake.finish();
    const sent = await sender.ended();
    expectCode(sent, 23);
    expect(summaryOf(sent)).toMatchObject({ frames: 5, removed: 2, notRemoved: 3, reasons: {} });
    const kept = jsonLines(sent.stdout).filter(({ type }) => type === "not-removed");
    expect(kept.map(({ error }) => error)).toEqual(["changed", "changed", "changed"]);
    for (const number of [2, 3, 4]) {
      expect(sent.stderr).toMatch(
        new RegExp(`^Not removed: visible/${number}\\.png: .*changed`, "m"),
      );
    }
    expect(filesIn(folder)).toEqual(["visible/2.png", "visible/3.png", "visible/4.png"]);
  });

  test("frames send --move keeps files that the server refuses for conflicts or names: exit 23", async () => {
    const folder = makeTree({ ...manyFrames(5, 1_000), "visible/a:b.png": "refused" });
    await withServer(async (server) => {
      const other = makeTree({ "visible/3.png": "taken" });
      expectCode(await send(server, other), 0);
      const sent = await send(server, folder, "--move");
      expectCode(sent, 23);
      const reasons = { conflict: 1, "unportable-name": 1 };
      expect(summaryOf(sent)).toMatchObject({ frames: 4, removed: 4, refused: 2, reasons });
      expect(filesIn(folder)).toEqual(["visible/3.png", "visible/a:b.png"]);
      expect(readFileSync(join(server.dir, "run7/visible/3.png"), "utf8")).toBe("taken");
      // A frame skipped on request is not removed either.
      const skipped = await send(server, folder, "--move", "--on-conflict", "skip");
      expectCode(skipped, 23);
      expect(summaryOf(skipped)).toMatchObject({ removed: 0, conflictsSkipped: 1, refused: 1 });
      expect(filesIn(folder)).toEqual(["visible/3.png", "visible/a:b.png"]);
    }, "--portable-names");
  });

  test("frames send --move removes a file that is stored already only if its bytes are equal", async () => {
    const folder = makeTree({ ...manyFrames(6, 1_000), "infrared/1.raw": 2_000_000 });
    const before = contents(folder);
    for (const name of before.keys()) utimesSync(join(folder, name), 1_600_000_000, 1_600_000_000);
    await withServer(async (server) => {
      expectCode(await send(server, folder), 0);
      const changed = ["infrared/1.raw", "visible/4.png"];
      for (const name of changed) {
        writeFileSync(join(folder, name), Buffer.from(before.get(name)!).reverse());
        utimesSync(join(folder, name), 1_600_000_000, 1_600_000_000);
      }
      // A different time alone does not prevent removal.
      utimesSync(join(folder, "visible/5.png"), 1_500_000_000, 1_500_000_000);
      const sent = await send(server, folder, "--move");
      expectCode(sent, 23);
      const counts = { frames: 5, present: 5, removed: 5, bytes: 0, reasons: { conflict: 2 } };
      expect(summaryOf(sent)).toMatchObject(counts);
      expect(sent.stderr).not.toContain("-> FRAME");
      expect(filesIn(folder)).toEqual(changed);
      expectStored(server, before);
    });
  });

  test("frames send --move keeps files whose frames are missing or changed at the server: exit 23", async () => {
    const folder = makeTree({ ...manyFrames(6, 1_000), "infrared/1.raw": 2_000_000 });
    await withServer(async (server) => {
      expectCode(await send(server, folder), 0);
      const at = (name: string) => join(server.dir, "run7", name);
      truncateSync(at("visible/2.png"), 400);
      rmSync(at("visible/3.png"));
      for (const name of ["visible/4.png", "infrared/1.raw"]) {
        const { atime, mtime } = statSync(at(name));
        writeFileSync(at(name), readFileSync(at(name)).reverse());
        utimesSync(at(name), atime, mtime);
      }
      const broken = ["infrared/1.raw", "visible/2.png", "visible/3.png", "visible/4.png"];
      const before = contents(folder);
      const sent = await send(server, folder, "--move");
      expectCode(sent, 23);
      const counts = { removed: 3, removedAtServer: 1, refused: 3, reasons: { conflict: 3 } };
      expect(summaryOf(sent)).toMatchObject(counts);
      expect(filesIn(folder)).toEqual(broken);
      for (const name of broken)
        expect(readFileSync(join(folder, name)).equals(before.get(name)!)).toBe(true);
    });
  });

  test("frames send --move --again sends frames that the server has lost and then removes their files", async () => {
    const folder = makeTree(manyFrames(3, 1_000));
    const before = contents(folder);
    await withServer(async (server) => {
      expectCode(await send(server, folder), 0);
      truncateSync(join(server.dir, "run7/visible/2.png"), 400);
      rmSync(join(server.dir, "run7/visible/3.png"));
      const sent = await send(server, folder, "--move", "--again", "--on-conflict", "replace");
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 3, present: 1, removed: 3, reasons: {} });
      expect(filesIn(folder)).toEqual([]);
      expectStored(server, before);
    });
  });

  test("frames send --move refuses files that lie in a store, by any path to it: exit 1", async () => {
    const folder = makeTree({ ...manyFrames(2, 1_000), "infrared/1.raw": 10 });
    await withServer(async (first) => {
      expectCode(await send(first, folder), 0);
      await withServer(async (second) => {
        const stored = join(first.dir, "run7");
        const linked = join(temporaryFolder(), "run7");
        symlinkSync(stored, linked);
        const ways = [
          [first.dir],
          [linked],
          [stored],
          [join(stored, "visible")],
          [folder, join(stored, "visible")],
          [folder, "--source", `right=${join(stored, "visible")}`],
        ];
        for (const [path, ...others] of ways) {
          const sent = await send(second, path!, ...others, "--move", "--stream", "run8");
          expect([path, sent.code, sent.stderr]).toEqual([
            ...[path, 1],
            expect.stringMatching(/^frames: Cannot use --move with .*it is in the store/),
          ]);
          expect(sent.stderr).not.toContain("HELLO");
        }
        expect(filesIn(folder)).toHaveLength(3);
        expect(filesIn(join(first.dir, "run7"))).toHaveLength(3);
        // Copying them is still allowed.
        expectCode(await send(second, join(first.dir, "run7")), 0);
      });
    });
  });

  test("frames send --move loses no frame when the server is killed repeatedly", async () => {
    const folder = makeTree({
      ...manyFrames(400, 20_000),
      ...manyFrames(4, 3_000_000, "infrared"),
    });
    const before = contents(folder);
    const dir = temporaryFolder();
    let server = await startServer({ dir });
    const relay = await startRelay({
      to: { host: "127.0.0.1", port: server.port },
      rate: 8_000_000,
    });
    const args = ["--listen", `127.0.0.1:${server.port}`];
    using sender = launch(words(relay, folder, "--move"));
    for (const bytes of [2_000_000, 6_000_000, 12_000_000]) {
      await until(`${bytes} bytes`, () => relay.bytes > bytes);
      server.process.kill("SIGKILL");
      await server.process.exited;
      // Every file removed at the sender must be stored right now.
      const left = new Set(filesIn(folder));
      expectStored(server, new Map([...before].filter(([name]) => !left.has(name))));
      server = await startServer({ dir, args });
    }
    const sent = await sender.ended();
    expectCode(sent, 0);
    expect(summaryOf(sent)).toMatchObject({ frames: 404, removed: 404, reasons: {} });
    expect(filesIn(folder)).toEqual([]);
    expectStored(server, before);
    relay.stop();
    expect(await server.stop()).toBe(0);
  });

  test("frames send --move sends nothing to a server that does not flush to its disk: exit 1", async () => {
    const folder = makeTree(manyFrames(3, 100));
    using fake = durableServer(false);
    const sent = await send(fake, folder, "--move");
    expect(sent.stderr).toMatch(/^frames: .*--move.*flush/m);
    expectCode(sent, 1);
    expect(sent.stderr).not.toContain("-> FRAME");
    expect(filesIn(folder)).toHaveLength(3);
  });
});

/** A fake server that stores nothing and confirms everything on demand. */
function durableServer(durable: boolean) {
  const state = { ended: 0, hasEnd: false };
  let current: Bun.Socket<Decoder> | undefined;
  const listener = Bun.listen<Decoder>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        current = socket;
        socket.data = new Decoder({
          onControl(message) {
            if (message.type === MessageType.hello) {
              const window = { bytes: 64 << 20, frames: 8192 };
              const limits = { frame: 64 << 20, sources: 100, unfinished: 16 };
              socket.write(preface);
              const welcome = { window, limits, fresh: true, durable };
              socket.write(encodeControl(MessageType.welcome, 0, welcome));
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
    /** Whether END has arrived. */
    get hasEnd() {
      return state.hasEnd;
    },
    finish() {
      const counts = {
        frames: state.ended,
        stored: state.ended,
        present: 0,
        refused: 0,
        aborted: 0,
      };
      current!.write(encodeReceipt(state.ended));
      current!.write(encodeControl(MessageType.done, 0, counts));
    },
    [Symbol.dispose]: () => listener.stop(true),
  };
}

// Full and failing disks.

const mounts: string[] = [];
afterAll(() => {
  for (const place of mounts) spawnSync("umount", ["-l", place]);
});

function mount(place: string, ...args: string[]): string | undefined {
  mkdirSync(place, { recursive: true });
  const { status, stderr } = spawnSync("mount", [...args, place], { encoding: "utf8" });
  if (status !== 0) return stderr?.trim() || "there is no mount";
  mounts.push(place);
  return undefined;
}

function unmount(place: string): void {
  expect(spawnSync("umount", [place], { encoding: "utf8" }).stderr).toBe("");
  mounts.splice(mounts.indexOf(place), 1);
}

/** Makes a folder read-only until disposed. */
function mountReadOnly(place: string): Disposable {
  expect(mount(place, "--bind", place)).toBeUndefined();
  const dispose = (): void => {
    if (mounts.includes(place)) unmount(place);
  };
  const remount = spawnSync("mount", ["-o", "remount,ro,bind", place], { encoding: "utf8" });
  if (remount.status !== 0) {
    dispose();
    throw new Error(remount.stderr);
  }
  return { [Symbol.dispose]: dispose };
}

const tmpfs = ["-t", "tmpfs", "-o", "size=64m", "tmpfs"];
const mountMissing = ((): string => {
  if (process.platform !== "linux") return "skipped: needs Linux: ";
  const place = temporaryFolder();
  if (mount(place, ...tmpfs) !== undefined) return "skipped: may not mount: ";
  unmount(place);
  return "";
})();

test("frames serve --reserve 0 stores frames without free space in reserve", async () => {
  const folder = makeTree(manyFrames(3, 1_000));
  await withServer(
    async (server) => {
      expectCode(await send(server, folder), 0);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
    },
    ...["--reserve", "0"],
  );
});

describe.skipIf(mountMissing !== "")(`${mountMissing}Full disks`, () => {
  const size = 500_000;
  const folder = makeTree(manyFrames(60, size));

  /** Runs a server that keeps 4 MB free on a disk of 64 MB, of which `ballast` bytes are used. */
  async function withSmallDisk(
    ballast: number,
    use: (server: Server, disk: string) => Promise<void>,
  ): Promise<void> {
    const disk = temporaryFolder();
    expect(mount(disk, ...tmpfs)).toBeUndefined();
    try {
      writeFileSync(join(disk, "ballast"), Buffer.alloc(ballast));
      const dir = join(disk, "store");
      const server = await startServer({ dir, args: ["--reserve", "4M"] });
      try {
        await use(server, disk);
      } finally {
        await server.stop();
      }
    } finally {
      unmount(disk);
    }
  }

  test("a sender waits for a full disk and completes its delivery when there is room again", async () => {
    await withSmallDisk(45_000_000, async (server, disk) => {
      using sender = launch(words(server, folder));
      await until("why it waits", () => /disk of .* is full.*; trying again/.test(sender.stderr()));
      // The reserve stays free.
      const { stdout } = spawnSync("stat", ["-f", "-c", "%a %S", disk], { encoding: "utf8" });
      const [blocks, blockSize] = stdout.split(" ").map(Number);
      expect(blocks! * blockSize!).toBeGreaterThan(3 << 20);
      const stored = readdirSync(join(server.dir, "run7/visible"));
      expect(stored.length).toBeGreaterThan(0);
      expect(stored.length).toBeLessThan(60);
      for (const name of stored) {
        expect(statSync(join(server.dir, "run7/visible", name)).size).toBe(size);
      }
      rmSync(join(disk, "ballast"));
      const sent = await sender.ended();
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 60, refused: 0, lost: 0 });
      expect(Number(summaryOf(sent)["retries"])).toBeGreaterThan(0);
      const waits = jsonLines(sent.stdout).filter(({ type }) => type === "waiting");
      expect(new Set(waits.map(({ error }) => error))).toEqual(new Set(["store"]));
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
    });
  });

  test("a sender ends after --give-up-after if the disk stays full, and reports the confirmed frames: exit 30", async () => {
    await withSmallDisk(45_000_000, async (server) => {
      const sent = await send(server, folder, "--give-up-after", "4");
      expectCode(sent, 30);
      expect(sent.stderr).toMatch(
        /^frames: Gave up after 4 s: .*full.* \(\d+ of 60 frames confirmed/m,
      );
      const { confirmed } = jsonLines(sent.stdout).at(-1)!;
      const stored = readdirSync(join(server.dir, "run7/visible"));
      expect(Number(confirmed)).toBeGreaterThan(0);
      expect(stored.length).toBeGreaterThanOrEqual(Number(confirmed));
    });
  });

  test("a sender waits for a disk that is full from the start", async () => {
    await withSmallDisk(63_500_000, async (server, disk) => {
      using sender = launch(words(server, folder));
      await until("why it waits", () => /disk of .* is full.*; trying again/.test(sender.stderr()));
      expect(existsSync(join(server.dir, "run7"))).toBe(false);
      rmSync(join(disk, "ballast"));
      expectCode(await sender.ended(), 0);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
    });
  });

  test("a sender waits for a disk that is read-only for a while", async () => {
    await withSmallDisk(0, async (server) => {
      // The journal is open for writing, so the whole disk cannot be remounted read-only.
      const partial = join(server.dir, ".frames/partial");
      using readOnly = mountReadOnly(partial);
      using sender = launch(words(server, folder));
      // The message gives the reason, not only a broken connection.
      await until("why it waits", () => /read-only.*; trying again/.test(sender.stderr()));
      readOnly[Symbol.dispose]();
      const sent = await sender.ended();
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 60, refused: 0, lost: 0 });
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
    });
  });
});

const shellMissing = peerMissing("sh") || process.platform === "win32" ? "skipped: needs sh: " : "";

describe.skipIf(shellMissing !== "")(`${shellMissing}Server with few open files`, () => {
  const files = {
    ...Object.fromEntries(
      Array.from({ length: 12 }, (_, index) => manyFrames(20, 2_000, `cam-${index}`)).flatMap(
        (frames) => Object.entries(frames),
      ),
    ),
    ...manyFrames(2, 3_000_000, "large-1"),
    ...manyFrames(2, 3_000_000, "large-2"),
  };
  const folder = makeTree(files);

  for (const [what, more] of [
    ["stores all frames", []],
    ["stores and flushes all frames", ["--durable"]],
  ] as const) {
    test(`a server with few open files ${what} or makes the sender wait and report why`, async () => {
      const command = ["sh", "-c", 'ulimit -n 30; exec "$0" "$@"', executable];
      const server = await startServer({ dir: temporaryFolder(), command, args: [...more] });
      try {
        const sent = await send(server, folder, "--give-up-after", "5");
        if (sent.code === 0) return expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
        expectCode(sent, 30);
        expect(sent.stderr).toMatch(/^frames: Gave up after 5 s: .*too many open files/m);
      } finally {
        expect(await server.stop()).toBe(0);
      }
    });
  }
});

// Data on disk before a receipt.

const straceMissing = ((): string => {
  if (process.platform !== "linux" || peerMissing("strace")) return "skipped: needs strace: ";
  const { status } = spawnSync("strace", ["-o", "/dev/null", "true"]);
  return status === 0 ? "" : "skipped: may not trace: ";
})();

/** A completed system call. `began` and `ended` are positions in the order of all calls. */
interface Call {
  readonly name: string;
  readonly text: string;
  readonly began: number;
  readonly ended: number;
}

/** Parses the output of `strace -f`, where an interrupted call takes two lines. */
function callsOf(trace: string): Call[] {
  const calls: Call[] = [];
  const unfinished = new Map<string, { text: string; began: number }>();
  trace.split("\n").forEach((line, at) => {
    const [, pid, rest] = /^(\d+) +(.*)$/.exec(line) ?? [];
    if (pid === undefined || rest === undefined) return;
    const begun = /^(.*) <unfinished \.\.\.>$/.exec(rest);
    if (begun !== null) return void unfinished.set(pid, { text: begun[1]!, began: at });
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    const before = resumed === null ? undefined : unfinished.get(pid);
    const text = `${before?.text ?? ""}${resumed?.[1] ?? rest}`;
    const name = /^(\w+)\(/.exec(text)?.[1];
    // Ignore failed calls.
    if (name === undefined || / = -1 /.test(text)) return;
    calls.push({ name, text: unescape(text), began: before?.began ?? at, ended: at });
  });
  return calls;
}

/** Converts strace's `\x66` notation to one character for each byte. */
function unescape(text: string): string {
  return text.replace(/\\x([0-9a-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

describe.skipIf(straceMissing !== "")(
  `${straceMissing}Frames and journal flushed before a receipt`,
  () => {
    for (const [what, serveArgs, sendArgs] of [
      ["with frames serve --durable", ["--durable"], []],
      ["with frames send --move", [], ["--move"]],
    ] as const) {
      test(`a server flushes file, folder and journal row before a receipt ${what}`, async () => {
        const frames = 150;
        const names = Array.from({ length: frames }, (_, index) => `frame-${1000 + index}.png`);
        const folder = makeTree(
          Object.fromEntries(names.map((name) => [`visible/${name}`, 3_000])),
        );
        const trace = join(temporaryFolder(), "trace");
        const which =
          "openat,write,writev,sendto,sendmsg,fdatasync,fsync,rename,pwrite64,close,mkdir";
        const options = ["-f", "-yy", "-xx", "-s", "4200", "-o", trace, "-e", `trace=${which}`];
        const command = ["strace", ...options, executable];
        const dir = temporaryFolder();
        const server = await startServer({ dir, command, args: [...serveArgs] });
        const relay = await startRelay({
          to: { host: "127.0.0.1", port: server.port },
          rate: 20_000,
        });
        try {
          using sender = launch(words(relay, folder, ...sendArgs));
          // Some receipts come while frames do, however long a disk takes to flush.
          await until("receipts", () => sender.stderr().split("<- RECEIPT").length > 3);
          relay.limit(1e9);
          const sent = await sender.ended();
          expectCode(sent, 0);
          expect(summaryOf(sent)).toMatchObject({ frames });
        } finally {
          relay.stop();
          // strace does not forward signals.
          const { pid } = server.process;
          const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
          process.kill(Number(children.trim()), "SIGTERM");
          expect(await server.process.exited).toBe(0);
        }
        const calls = callsOf(readFileSync(trace, "latin1"));
        const receipts = receiptsIn(calls);
        expect(receipts.length).toBeGreaterThan(3);
        expect(receipts.at(-1)!.frames).toBe(frames);

        const bare = (path: string) => path.replaceAll("/", "\\/");
        const flushed = (pattern: RegExp, after: number, before: number) =>
          calls.find(
            ({ name, text, began, ended }) =>
              /^f(?:data)?sync$/.test(name) &&
              pattern.test(text) &&
              began > after &&
              ended < before,
          );
        for (const [index, name] of names.entries()) {
          const receipt = receipts.find((one) => one.frames > index)!;
          const place = `${dir}/run7/visible`;
          const renamed = calls.find(
            (call) => call.name === "rename" && call.text.includes(`"${place}/${name}"`),
          )!;
          const partial = /^rename\("([^"]+)"/.exec(renamed.text)![1]!;
          const written = calls.findLast(
            (call) => /^p?write/.test(call.name) && call.text.includes(`<${partial}>`),
          )!;
          const row = calls.find(
            ({ name: what, text, began }) =>
              /^p?write/.test(what) &&
              text.includes("journal.sqlite-wal>") &&
              text.includes(name) &&
              began > renamed.ended,
          )!;
          const steps = [
            flushed(new RegExp(`<${bare(partial)}>`), written.ended, renamed.began),
            flushed(new RegExp(`<${bare(place)}>`), renamed.ended, receipt.at),
            row,
            flushed(/journal\.sqlite-wal>/, row.ended, receipt.at),
          ];
          expect([name, steps.map((step) => step !== undefined)]).toEqual([
            name,
            steps.map(() => true),
          ]);
        }
        // The names of new folders must be durable too.
        for (const [made, above] of [
          [`${dir}/run7`, dir],
          [`${dir}/run7/visible`, `${dir}/run7`],
        ] as const) {
          const call = calls.find(
            ({ name, text }) => name === "mkdir" && text.includes(`"${made}"`),
          )!;
          const flush = flushed(new RegExp(`<${bare(above)}>`), call.ended, receipts[0]!.at);
          expect([made, flush !== undefined]).toEqual([made, true]);
        }
      });
    }
  },
);

/** Returns the receipts sent through sockets, and when each write began. */
function receiptsIn(calls: readonly Call[]): { frames: number; at: number }[] {
  const receipts: { frames: number; at: number }[] = [];
  let at = 0;
  const decoder = new Decoder({
    onControl() {},
    onReceipt: (frames) => void receipts.push({ frames, at }),
  });
  for (const { name, text, began } of calls) {
    if (!/^(?:write|sendto)$/.test(name) || !/^\w+\(\d+<TCP/.test(text)) continue;
    const [, payload] = /^[^"]*"([^]*)"(?:, |\.\.\.)/.exec(text)!;
    at = began;
    decoder.receive(Buffer.from(payload!, "latin1"));
  }
  return receipts;
}
