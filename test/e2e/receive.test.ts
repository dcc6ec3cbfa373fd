// Receiving frames with the compiled executable: the result is the same tree, whatever fails on the
// way.
//
// Covers: cli/receive.ts, client/receive-connection.ts, client/receive-options.ts,
//   client/receive-session.ts, client/receive.ts, client/transfer.ts,
//   server/playback-role.ts

import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import {
  expectCode,
  journal,
  type Json,
  relayTo,
  summaryOf,
  withServer,
} from "../helper/delivery.ts";
import {
  type Finished,
  type Launched,
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

const stored = {
  ...manyFrames(300, 3000),
  ...manyFrames(40, 200_000, "infrared/deep"),
  "top.png": 0,
};

function send(server: Server, path: string, ...more: string[]): Promise<Finished> {
  return run(["send", path, "--to", `127.0.0.1:${server.port}`, "--json", ...more]);
}

/** Returns the arguments for receiving from a server or a relay. */
function from({ port }: { port: number }): string[] {
  return ["--from", `127.0.0.1:${port}`];
}

function receive(server: { port: number }, ...more: string[]): Promise<Finished> {
  return run(["receive", "run7", ...more, ...from(server)]);
}

async function receiveInto(server: { port: number }, ...more: string[]): Promise<Json> {
  const received = await receive(server, ...more, "--json");
  expectCode(received, 0);
  return summaryOf(received);
}

/** Counts the files below a folder that are not hidden. */
function countFiles(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { recursive: true, withFileTypes: true }).filter(
    (entry) => entry.isFile() && !join(entry.parentPath, entry.name).includes("/."),
  ).length;
}

/** Parses the output of `--multipart`. */
function partsOf(output: Uint8Array): { facts: Record<string, string>; bytes: Buffer }[] {
  const all = Buffer.from(output);
  const parts: { facts: Record<string, string>; bytes: Buffer }[] = [];
  for (let at = 0; at < all.length;) {
    const end = all.indexOf("\r\n\r\n", at);
    const [boundary, ...lines] = all.subarray(at, end).toString().split("\r\n");
    expect(boundary).toBe("--frame");
    const facts = Object.fromEntries(lines.map((line) => line.split(/: (.*)/, 2)));
    const from = end + 4;
    const to = from + Number(facts["Content-Length"]);
    parts.push({ facts, bytes: all.subarray(from, to) });
    expect(all.subarray(to, to + 2).toString()).toBe("\r\n");
    at = to + 2;
  }
  return parts;
}

describe("Copy of a stream", () => {
  test("a copy equals the sent tree byte for byte, with its times and journal rows", async () => {
    await withServer(async (server) => {
      const tree = makeTree({ ...stored, "infrared/deep/large.raw": 3_000_000 });
      expectCode(await send(server, tree), 0);
      const copy = join(temporaryFolder(), "copy");
      expect(await receiveInto(server, copy)).toMatchObject({ frames: 342, present: 0, lost: 0 });
      expect(sameTree(tree, copy)).toEqual([]);
      expect(sameTree(join(server.dir, "run7"), copy)).toEqual([]);
      for (const name of ["top.png", "visible/7.png", "infrared/deep/large.raw"]) {
        const time = (folder: string) => statSync(join(folder, name), { bigint: true }).mtimeNs;
        expect(time(copy)).toBe(time(join(server.dir, "run7")));
      }
      const rows = `SELECT stream, source, name, session, seq, bytes, crc32, captured, meta, format
        FROM frames ORDER BY id`;
      expect(journal(copy, rows)).toEqual(journal(server.dir, rows));
      expect(readdirSync(join(copy, ".frames/partial"))).toEqual([]);

      const verified = await run(["verify", copy]);
      expectCode(verified, 0);
      const listed = await run(["ls", "run7", "--dir", copy, "--json"]);
      expect(jsonLines(listed.stdout).map(({ source, frames }) => [source, frames])).toEqual([
        ["infrared/deep", 41],
        ["run7", 1],
        ["visible", 300],
      ]);
      // Although the copy has another name, the origin of its frames is recorded.
      const back = await send(server, copy, "--stream", "run7");
      expectCode(back, 0);
      expect(summaryOf(back)).toMatchObject({ frames: 342, present: 342, bytes: 0 });
    });
  });

  test("a repeated copy gets new and replaced frames, but not the ones moved away from it", async () => {
    await withServer(async (server) => {
      const tree = makeTree(manyFrames(50, 1000));
      expectCode(await send(server, tree), 0);
      const copy = join(temporaryFolder(), "run7");
      await receiveInto(server, copy);
      rmSync(join(copy, "visible/3.png"));
      writeFileSync(join(tree, "visible/2.png"), "other bytes");
      writeFileSync(join(tree, "visible/51.png"), "new");
      expectCode(await send(server, tree, "--on-conflict", "replace"), 0);
      expect(await receiveInto(server, copy)).toMatchObject({ frames: 2, present: 0 });
      rmSync(join(tree, "visible/3.png"));
      expect(sameTree(tree, copy)).toEqual([]);
      expect(await receiveInto(server, copy)).toMatchObject({ frames: 0, present: 0 });
    });
  });

  test("a copy that has lost its cursor finds all its frames present", async () => {
    await withServer(async (server) => {
      const tree = makeTree(manyFrames(50, 1000));
      expectCode(await send(server, tree), 0);
      const copy = join(temporaryFolder(), "run7");
      await receiveInto(server, copy);
      rmSync(join(copy, ".frames"), { recursive: true });
      expect(await receiveInto(server, copy)).toMatchObject({ frames: 50, present: 50, bytes: 0 });
      expect(sameTree(tree, copy)).toEqual([]);
      expectCode(await run(["verify", copy]), 0);
    });
  });

  test("a copy does not overwrite a file that it did not receive: exit 23", async () => {
    await withServer(async (server) => {
      expectCode(await send(server, makeTree(manyFrames(5, 1000))), 0);
      const copy = temporaryFolder();
      mkdirSync(join(copy, "visible"));
      writeFileSync(join(copy, "visible/2.png"), "somebody's own");
      const received = await receive(server, copy, "--json");
      expectCode(received, 23);
      expect(summaryOf(received)).toMatchObject({
        frames: 4,
        refused: 1,
        reasons: { conflict: 1 },
      });
      expect(readFileSync(join(copy, "visible/2.png"), "utf8")).toBe("somebody's own");
    });
  });

  test("a copy accepts frames only of the stream and store that it was made from", async () => {
    await withServer(async (server) => {
      const tree = makeTree(manyFrames(3, 100));
      expectCode(await send(server, tree), 0);
      expectCode(await send(server, tree, "--stream", "run8"), 0);
      const copy = temporaryFolder();
      await receiveInto(server, copy);
      const other = await run(["receive", "run8", copy, ...from(server)]);
      expectCode(other, 1);
      expect(other.stderr).toContain("it is a copy of the stream run7");
      await withServer(async (second) => {
        expectCode(await send(second, tree), 0);
        const foreign = await receive(second, copy);
        expectCode(foreign, 1);
        expect(foreign.stderr).toContain("another store");
        const store = await receive(server, second.dir);
        expect(store.code).not.toBe(0);
      });
      const served = await run(["serve", copy, "--listen", "127.0.0.1:0"]);
      expectCode(served, 1);
      expect(served.stderr).toContain("it is a copy of the stream run7");
      expect(sameTree(tree, copy)).toEqual([]);
    });
  });

  test("a copy of some sources gets the other sources when they are asked for later", async () => {
    await withServer(async (server) => {
      const tree = makeTree({ ...manyFrames(9, 100), ...manyFrames(8, 100, "infrared") });
      expectCode(await send(server, tree), 0);
      const copy = temporaryFolder();
      const some = await receiveInto(server, copy, "--source", "visible");
      expect(some).toMatchObject({ frames: 9 });
      expect(await receiveInto(server, copy)).toMatchObject({ frames: 17, present: 9 });
      expect(sameTree(tree, copy)).toEqual([]);
      const again = await receiveInto(server, copy, "--source", "visible");
      expect(again).toMatchObject({ frames: 0 });
    });
  });
});

describe("Interrupted receivers", () => {
  /** Returns what is wrong with a copy and its rows. */
  function faults(tree: string, copy: string): string[] {
    const rows = journal<{ path: string }>(
      copy,
      "SELECT source || '/' || name AS path FROM frames",
    );
    const names = rows.map(({ path }) => path).toSorted();
    const doubles = names.filter((name, index) => name === names[index - 1]);
    return [...sameTree(tree, copy), ...doubles];
  }

  const large = { ...manyFrames(1500, 20_000), ...manyFrames(20, 2_000_000, "infrared") };

  test("a receiver that is killed at any moment resumes its copy without a fault", async () => {
    await withServer(async (server) => {
      const tree = makeTree(large);
      expectCode(await send(server, tree), 0);
      const copy = join(temporaryFolder(), "run7");
      let kills = 0;
      for (const share of [0.02, 0.3, 0.5, 0.8, 0.95]) {
        const until = Math.floor(share * 1520);
        using receiver = launch(["receive", "run7", copy, "-q", ...from(server)]);
        for (let ended = false; !ended && countFiles(copy) < until;) {
          ended = receiver.child.exitCode !== null;
          await Bun.sleep(1);
        }
        if (receiver.child.exitCode === null) kills++;
        receiver.child.kill("SIGKILL");
        await receiver.child.exited;
      }
      expect(kills).toBeGreaterThan(1);
      const last = await receiveInto(server, copy);
      expect(faults(tree, copy)).toEqual([]);
      expect(last["lost"]).toBe(0);
      expect(await receiveInto(server, copy)).toMatchObject({ frames: 0 });
      expectCode(await run(["verify", copy]), 0);
    });
  });

  test("a receiver resumes after its server is killed, without missing or repeated frames", async () => {
    const dir = temporaryFolder();
    const first = await startServer({ dir });
    const tree = makeTree(large);
    expectCode(await send(first, tree), 0);
    const copy = join(temporaryFolder(), "run7");
    using relay = await relayTo(first, { rate: 60e6 });
    using receiver = launch(["receive", "run7", copy, "--json", "--from", relay.to]);
    await until("frames", () => countFiles(copy) > 100);
    first.process.kill("SIGKILL");
    await first.process.exited;
    const args = ["--listen", `127.0.0.1:${first.port}`];
    const second = await startServer({ dir, args });
    const { code, stdout, stderr } = await receiver.ended();
    expectCode({ code, stderr }, 0);
    const summary = summaryOf({ stdout });
    expect(Number(summary["retries"])).toBeGreaterThan(0);
    expect(summary).toMatchObject({ frames: 1520, present: 0, lost: 0 });
    expect(faults(tree, copy)).toEqual([]);
    await second.stop();
  });

  /**
   * Returns the result of receiving to a pipe when the server restarts with another store or
   * another order.
   */
  async function afterwards(
    dirOf: (first: Server) => string,
  ): Promise<[Awaited<ReturnType<Launched["ended"]>>, string]> {
    const first = await startServer({ dir: temporaryFolder() });
    expectCode(await send(first, makeTree(manyFrames(300, 1000))), 0);
    using link = await relayTo(first);
    const args = ["receive", "run7", "-", "--follow", "-v", "--from", link.to];
    using receiver = launch(args);
    // A CURSOR that came is not in force before stdout took the frames before it. One that is goes with HELLO.
    const cursors = () => receiver.stderr().split("<- CURSOR").length - 1;
    let seen = 0;
    await until("a cursor in force", () => {
      if (/-> HELLO .*"cursor":/.test(receiver.stderr())) return true;
      if (cursors() > seen) link.relay.cut();
      seen = cursors();
      return false;
    });
    await until("all frames", () => receiver.stdout().length === 300_000);
    first.process.kill("SIGKILL");
    await first.process.exited;
    const address = `127.0.0.1:${first.port}`;
    const second = await startServer({ dir: dirOf(first), args: ["--listen", address] });
    const ended = await receiver.ended();
    await second.stop();
    return [ended, link.to];
  }

  /** Has a store's journal say that its frames have another order than before. */
  function reorder(dir: string): void {
    const journal = new Database(join(dir, ".frames/journal.sqlite"));
    journal.run("UPDATE properties SET value = 'other' WHERE name = 'numbering'");
    journal.close();
  }

  test("a receiver to a pipe ends when the server returns with another store: exit 11", async () => {
    const [{ code, stderr, stdout }] = await afterwards(() => temporaryFolder());
    expectCode({ code, stderr }, 11);
    expect(stderr).toContain("Cannot continue: the frames so far came from another store than ");
    expect(stdout).toHaveLength(300_000);
  });

  test("a receiver to a pipe ends when the server's journal has another numbering: exit 11", async () => {
    const [{ code, stderr, stdout }, address] = await afterwards(({ dir }) => {
      reorder(dir);
      return dir;
    });
    expectCode({ code, stderr }, 11);
    expect(stderr).toContain(`frames: ${address} cannot resume this stream: its journal has`);
    expect(stdout).toHaveLength(300_000);
  });

  test("a pipe without a cursor gets each frame once, also from a journal of another order", async () => {
    const first = await startServer({ dir: temporaryFolder() });
    expectCode(await send(first, makeTree(manyFrames(200, 20_000))), 0);
    // The first CURSOR would come behind all frames, after 8 s.
    using link = await relayTo(first, { rate: 500_000 });
    using receiver = launch(["receive", "run7", "-", "--multipart", "-v", "--from", link.to]);
    await until("some frames", () => receiver.stderr().includes("<- FRAME visible 3 "));
    link.relay.freeze();
    first.process.kill("SIGKILL");
    await first.process.exited;
    reorder(first.dir);
    const listen = ["--listen", `127.0.0.1:${first.port}`];
    const second = await startServer({ dir: first.dir, args: listen });
    link.relay.cut();
    link.relay.limit(1e9);
    link.relay.thaw();
    const received = await receiver.ended();
    expectCode(received, 0);
    const [, before, after] = received.stderr.split("-> HELLO");
    expect(before).not.toContain("<- CURSOR");
    expect(after).toContain("<- FRAME visible 1 ");
    const parts = partsOf(Buffer.from(received.stdout));
    const numbers = parts.map(({ facts }) => Number(facts["X-Sequence"]));
    expect(numbers).toEqual(Array.from({ length: 200 }, (_, index) => index + 1));
    await second.stop();
  });

  test("a receiver to a pipe writes each frame once over a link that breaks", async () => {
    await withServer(async (server) => {
      const tree = makeTree(manyFrames(2000, 20_000));
      expectCode(await send(server, tree), 0);
      using link = await relayTo(server, { rate: 40e6 });
      const receiving = run(["receive", "run7", "-", "--multipart", "--from", link.to]);
      for (const bytes of [5e6, 12e6, 21e6]) {
        await until("bytes", () => link.relay.bytes > bytes);
        link.relay.cut();
      }
      const received = await receiving;
      expectCode(received, 0);
      expect(received.stderr).toContain("2000 frames received: ");
      const numbers = partsOf(received.output).map(({ facts }) => Number(facts["X-Sequence"]));
      expect(numbers).toEqual(Array.from({ length: 2000 }, (_, index) => index + 1));
    });
  });

  test("SIGINT leaves whole frames in a copy and reports the copy as interrupted: exit 20", async () => {
    await withServer(async (server) => {
      const tree = makeTree(manyFrames(200, 200_000));
      expectCode(await send(server, tree), 0);
      using link = await relayTo(server, { rate: 10e6 });
      const copy = temporaryFolder();
      using receiver = launch(["receive", "run7", copy, "--json", "--from", link.to]);
      await until("frames", () => countFiles(copy) > 5);
      receiver.child.kill("SIGINT");
      const ended = await receiver.ended();
      expectCode(ended, 20);
      const { frames, interrupted } = summaryOf(ended);
      expect(interrupted).toBe(true);
      expect(countFiles(copy)).toBe(Number(frames));
      expect(sameTree(tree, copy).every((line) => line.includes("only in"))).toBe(true);
      await receiveInto(server, copy);
      expect(sameTree(tree, copy)).toEqual([]);
    });
  });
});

describe("frames receive --follow", () => {
  test("frames receive --follow misses no frame between stored and arriving ones", async () => {
    await withServer(async (server) => {
      const tree = makeTree(manyFrames(500, 5000));
      expectCode(await send(server, tree), 0);
      const copy = join(temporaryFolder(), "run7");
      // More frames arrive from two senders during the catch-up.
      const more = makeTree(manyFrames(1500, 5000, "a"));
      const others = makeTree(manyFrames(1500, 5000, "b"));
      using receiver = launch(["receive", "run7", copy, "--follow", "--json", ...from(server)]);
      const sent = await Promise.all([send(server, more), send(server, others)]);
      for (const one of sent) expectCode(one, 0);
      await until("all frames", () => countFiles(copy) === 3500);
      receiver.child.kill("SIGINT");
      const ended = await receiver.ended();
      expectCode(ended, 0);
      expect(summaryOf(ended)).toMatchObject({ frames: 3500, present: 0, interrupted: false });
      expect(sameTree(join(server.dir, "run7"), copy)).toEqual([]);
      const order = "SELECT source, seq FROM frames ORDER BY id";
      expect(journal(copy, order)).toEqual(journal(server.dir, order));
    });
  });

  test("frames receive --follow waits for a stream that does not exist yet", async () => {
    await withServer(async (server) => {
      const args = ["receive", "run7", "-", "--follow", "--first", "2"];
      using receiver = launch([...args, ...from(server)]);
      await until("the receiver", () => server.stdout().includes('"receiving"'));
      expectCode(
        await send(server, makeTree({ "visible/1.txt": "one", "visible/2.txt": "two" })),
        0,
      );
      const ended = await receiver.ended();
      expectCode(ended, 0);
      expect(ended.stdout).toBe("onetwo");
    });
  });

  test("eight receivers with --follow get the same frames", async () => {
    await withServer(async (server) => {
      const copies = Array.from({ length: 8 }, () => join(temporaryFolder(), "run7"));
      const receivers = copies.map((copy) =>
        launch(["receive", "run7", copy, "--follow", "-q", ...from(server)]),
      );
      const tree = makeTree(manyFrames(400, 10_000));
      const sent = await send(server, tree);
      expectCode(sent, 0);
      expect(summaryOf(sent)["retries"]).toBe(0);
      await until("all frames", () => copies.every((copy) => countFiles(copy) === 400));
      for (const { child } of receivers) child.kill("SIGINT");
      for (const receiver of receivers) expectCode(await receiver.ended(), 0);
      for (const copy of copies) expect(sameTree(tree, copy)).toEqual([]);
    });
  });

  test("frames receive --latest drops frames for a slow reader and does not slow the sender", async () => {
    await withServer(async (server) => {
      const args = ["receive", "run7", "-", "--follow", "--latest", "--multipart"];
      const child = Bun.spawn([process.execPath, "-e", slowReader, ...commandOf(args, server)], {
        stdout: "pipe",
        stderr: "inherit",
      });
      await until("the receiver", () => server.stdout().includes('"receiving"'));
      const tree = makeTree(manyFrames(600, 200_000));
      const sent = await send(server, tree);
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 600, retries: 0, lost: 0 });
      const { numbers, stdout } = (await new Response(child.stdout).json()) as {
        numbers: number[];
        stdout: string;
      };
      // In order, including the last one, with many dropped.
      expect(numbers.toSorted((a, b) => a - b)).toEqual(numbers);
      expect(numbers.at(-1)).toBe(600);
      expect(numbers.length).toBeLessThan(600);
      expect(stdout).toContain(`${600 - numbers.length} frames dropped because of --latest`);
    });
  });
});

/** Runs a command and reads its output slowly until frame 600 has arrived, then ends it. */
const slowReader = `
  const child = Bun.spawn(process.argv.slice(1), { stdout: "pipe", stderr: "pipe" });
  const errors = new Response(child.stderr).text();
  let text = "";
  let stopped = false;
  for await (const chunk of child.stdout) {
    text += Buffer.from(chunk).toString("latin1");
    if (!stopped) await Bun.sleep(5);
    if (!stopped && text.includes("X-Sequence: 600\\r")) child.kill("SIGINT"), stopped = true;
  }
  const numbers = [...text.matchAll(/X-Sequence: (\\d+)/g)].map(([, number]) => Number(number));
  console.log(JSON.stringify({ numbers, stdout: await errors }));
`;

function commandOf(args: string[], server: Server): string[] {
  return [join(import.meta.dir, "../../dist/frames"), ...args, ...from(server)];
}

describe("frames receive", () => {
  test("frames receive selects frames by --first, --source, --since and --latest", async () => {
    await withServer(async (server) => {
      const tree = makeTree({ ...manyFrames(9, 100), ...manyFrames(8, 100, "infrared") });
      expectCode(await send(server, tree), 0);
      const numbersOf = async (...more: string[]): Promise<string[]> => {
        const received = await receive(server, "-", "--multipart", ...more);
        expectCode(received, 0);
        return partsOf(received.output).map(
          ({ facts }) => `${facts["X-Source"]} ${facts["X-Sequence"]}`,
        );
      };
      expect(await numbersOf()).toHaveLength(17);
      expect(await numbersOf("--first", "3")).toHaveLength(3);
      const infrared = await numbersOf("--source", "infrared");
      expect(infrared).toEqual(Array.from({ length: 8 }, (_, index) => `infrared ${index + 1}`));
      expect(await numbersOf("--source", "infrared", "--source", "visible")).toHaveLength(17);
      expect(await numbersOf("--since", "1h")).toHaveLength(17);
      expect(await numbersOf("--since", "now")).toHaveLength(0);
      expect(await numbersOf("--latest")).toEqual(["infrared 8", "visible 9"]);
    });
  });

  test("frames receive reports frames that are missing or damaged at the server: exit 24 or 23", async () => {
    await withServer(async (server) => {
      const tree = makeTree({ ...manyFrames(9, 1000), ...manyFrames(2, 3_000_000, "large") });
      expectCode(await send(server, tree), 0);
      const inStore = (name: string) => join(server.dir, "run7", name);
      renameSync(inStore("visible/2.png"), join(temporaryFolder(), "moved.png"));
      renameSync(inStore("large/1.png"), join(temporaryFolder(), "moved.png"));
      const gone = await receive(server, temporaryFolder(), "--json");
      expectCode(gone, 24);
      expect(summaryOf(gone)).toMatchObject({ frames: 9, lost: 2, reasons: { vanished: 2 } });
      writeFileSync(inStore("visible/3.png"), Buffer.alloc(1000, "x"));
      const bytes = readFileSync(inStore("large/2.png"));
      bytes[2_999_999]! ^= 1;
      writeFileSync(inStore("large/2.png"), bytes);
      const copy = temporaryFolder();
      const damaged = await receive(server, copy, "--json");
      expectCode(damaged, 23);
      expect(summaryOf(damaged)).toMatchObject({ reasons: { vanished: 2, unreadable: 2 } });
      expect(countFiles(copy)).toBe(7);
    });
  });

  test("frames receive of an unknown stream is an error: exit 1", async () => {
    await withServer(async (server) => {
      const received = await receive(server, "-");
      expectCode(received, 1);
      expect(received.stderr).toContain("has no frames of it");
    });
  });

  test("frames receive of an unknown source is an error that names it: exit 1", async () => {
    await withServer(async (server) => {
      expectCode(await send(server, makeTree({ "a/1.png": "1", "b/1.png": "2" })), 0);
      for (const where of ["-", join(temporaryFolder(), "copy")]) {
        const received = await receive(server, where, "--source", "a", "--source", "visibel");
        expectCode(received, 1);
        expect(received.stderr).toContain("a and visibel: ");
      }
    });
  });

  test("frames receive writes the images of one source to a pipe, and requires --multipart for several", async () => {
    await withServer(async (server) => {
      const tree = makeTree({ "a/1.txt": "one,", "a/2.txt": "two", "b/1.txt": "three" });
      expectCode(await send(server, tree), 0);
      const one = await receive(server, "-", "--source", "a");
      expectCode(one, 0);
      expect(one.stdout).toBe("one,two");
      const two = await receive(server, "-");
      expectCode(two, 1);
      expect(two.stderr).toContain("or add --multipart");
    });
  });

  test("frames receive ends without an error when the reader of its pipe stops", async () => {
    await withServer(async (server) => {
      expectCode(await send(server, makeTree(manyFrames(200, 200_000))), 0);
      const [program, ...args] = commandOf(["receive", "run7", "-"], server);
      const script = `set -o pipefail; "$0" "$@" | head -c 1000 | wc -c`;
      const piped = await run(["-c", script, program!, ...args], { command: ["bash"] });
      expectCode(piped, 0);
      expect(piped.stdout.trim()).toBe("1000");
      expect(piped.stderr).not.toContain("frames:");
    });
  });

  test.skipIf(peerMissing("python3"))(
    "a Python program of ten lines reads the output of --multipart",
    async () => {
      await withServer(async (server) => {
        const tree = makeTree({ "a/1.txt": "one", "b/ä ö.txt": "three\r\n", "c/empty.txt": "" });
        expectCode(await send(server, tree), 0);
        // The loop of the page "programs", for frames of any kind.
        const script = `
import subprocess, sys
pipe = subprocess.Popen(sys.argv[1:] + ["--multipart", "-"], stdout=subprocess.PIPE).stdout
while pipe.readline():
    lines = iter(pipe.readline, b"\\r\\n")
    facts = dict(line.decode()[:-2].split(": ", 1) for line in lines)
    data = pipe.read(int(facts["Content-Length"]))
    pipe.readline()
    print(facts["X-Source"], facts["X-Sequence"], len(data))`;
        const [program, ...args] = commandOf(["receive", "run7"], server);
        const read = await run(["-c", script, program!, ...args], { command: ["python3"] });
        expect([read.code, read.stderr.replace(/^(?!Traceback|\s|\w+Error).*\n/gm, "")]).toEqual([
          0,
          "",
        ]);
        expect(read.stdout.split("\n").map((line) => line.split(" ").slice(0, 2))).toEqual([
          ["a", "1"],
          ["b", "1"],
          ["c", "1"],
          [""],
        ]);
      });
    },
  );

  test.skipIf(peerMissing("ffmpeg"))("ffmpeg reads JPEG frames from frames receive", async () => {
    await withServer(async (server) => {
      const folder = join(temporaryFolder(), "run7");
      mkdirSync(folder);
      const input = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2"];
      const made = await run([...input, join(folder, "%d.jpg")], {
        command: ["ffmpeg", "-v", "error"],
      });
      expectCode(made, 0);
      expectCode(await send(server, folder), 0);
      const received = await receive(server, "-", "-q");
      expectCode(received, 0);
      const args = ["-f", "mjpeg", "-i", "-", "-f", "framemd5", "-"];
      const stdin = received.output;
      const read = await run(args, { command: ["ffmpeg", "-v", "error"], stdin });
      expectCode(read, 0);
      expect(read.stdout.split("\n").filter((line) => /^\d/.test(line))).toHaveLength(20);
    });
  });
});

describe("Receivers that do not read", () => {
  test("a receiver that does not read stays connected and uses little memory at both ends", async () => {
    // The two ends have this long for the handshake and between two turns on a busy machine.
    const timeout = "10";
    await withServer(
      async (server) => {
        const tree = makeTree(manyFrames(1500, 100_000));
        expectCode(await send(server, tree), 0);
        const before = server.peakMemory();
        const pipe = join(temporaryFolder(), "pipe");
        const reading = run(
          [
            "-c",
            `mkfifo ${pipe}; exec 3<> ${pipe}; exec 4< ${pipe}; touch ${pipe}.made; while [ ! -e ${pipe}.read ]; do sleep 0.1; done; exec 3>&-; wc -c <&4`,
          ],
          { command: ["sh"] },
        );
        await until("the pipe", () => existsSync(`${pipe}.made`));
        const args = commandOf(["receive", "run7", "-", "--timeout", timeout], server);
        const child = Bun.spawn(["sh", "-c", `exec "$@" > ${pipe}`, "sh", ...args], {
          stdout: "ignore",
          stderr: "ignore",
        });
        try {
          await until("bytes on their way", () => server.stdout().includes('"receiving"'));
          let written = "";
          let writtenAt = Infinity;
          await until("a silence beyond the timeout, and the tick after it", () => {
            const counters = readFileSync(`/proc/${child.pid}/io`, "latin1");
            const now = /^wchar: .*$/m.exec(counters)![0];
            if (now !== written) writtenAt = performance.now();
            written = now;
            return performance.now() - writtenAt > (Number(timeout) + 2) * 1000;
          });
          const status = readFileSync(`/proc/${child.pid}/status`, "latin1");
          const held = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)![1]) * 1024;
          expect(held).toBeLessThan(150e6);
          const other = makeTree(manyFrames(50, 100_000, "later"));
          expect(summaryOf(await send(server, other))).toMatchObject({ frames: 50, retries: 0 });
          expect(server.peakMemory() - before).toBeLessThan(40e6);
          writeFileSync(`${pipe}.read`, "");
          expect((await reading).stdout.trim()).toBe("150000000");
          expect(await child.exited).toBe(0);
        } finally {
          child.kill("SIGKILL");
        }
        expect(server.stdout()).not.toContain('"failed"');
      },
      "--timeout",
      timeout,
    );
  });

  test("frames serve --keep does not remove frames that a receiver has yet to get", async () => {
    await withServer(
      async (server) => {
        using link = await relayTo(server, { rate: 300_000 });
        const tree = makeTree(manyFrames(50, 20_000));
        const copy = join(temporaryFolder(), "run7");
        const args = ["receive", "run7", copy, "--follow", "--json", "--from", link.to];
        using receiver = launch(args);
        await until("the receiver", () => server.stdout().includes('"receiving"'));
        expectCode(await send(server, tree), 0);
        await until("all frames", () => countFiles(copy) === 50);
        receiver.child.kill("SIGINT");
        const ended = await receiver.ended();
        expectCode(ended, 0);
        expect(summaryOf(ended)).toMatchObject({ frames: 50, lost: 0 });
        expect(sameTree(tree, copy)).toEqual([]);
        // A receiver that is up to date does not prevent deletion.
        using idle = launch(["receive", "run7", copy, "--follow", ...from(server)]);
        await until("another", () => server.stdout().split('"receiving"').length === 3);
        // No receiver waits for these frames, so they are deleted at once.
        expectCode(await send(server, tree, "--stream", "run8"), 0);
        await until("removal", () => countFiles(join(server.dir, "run8")) < 20);
        idle.child.kill("SIGKILL");
      },
      "--keep",
      "100K",
    );
  });
});

describe("Keys for receiving", () => {
  async function keyed(role: string, streams: string, ...args: string[]): Promise<Finished> {
    const folder = temporaryFolder();
    const file = join(folder, "Keys for receiving");
    const all = join(folder, "all");
    for (const [path, more] of [
      [file, ["--role", "both"]],
      [all, []],
    ] as const) {
      expectCode(await run(["key", "new", "all", "--key-file", path, ...more]), 0);
    }
    const made = await run([
      "key",
      "new",
      "some",
      "--key-file",
      file,
      "--role",
      role,
      "--streams",
      streams,
    ]);
    expectCode(made, 0);
    const server = await startServer({ dir: temporaryFolder(), args: ["--key-file", file] });
    try {
      const line = readFileSync(file, "utf8")
        .split("\n")
        .find((text) => text.startsWith("all "))!;
      const env = { FRAMES_KEY: line.split(" ")[1]! };
      const to = ["--to", `127.0.0.1:${server.port}`];
      expectCode(await run(["send", makeTree({ "a/1.txt": "one" }), ...to], { env }), 0);
      const env2 = { FRAMES_KEY: made.stdout.trim() };
      return await run(["receive", "run7", "-", ...args, ...from(server)], { env: env2 });
    } finally {
      await server.stop();
    }
  }

  test("a key for receiving the stream is enough for frames receive", async () => {
    const received = await keyed("receive", "run*");
    expectCode(received, 0);
    expect(received.stdout).toBe("one");
  });

  test("frames receive is refused with a key for sending or for other streams: exit 5", async () => {
    expectCode(await keyed("send", "*"), 5);
    expectCode(await keyed("both", "site-*"), 5);
  });

  test("frames receive ends when its key is removed: exit 5", async () => {
    const file = join(temporaryFolder(), "Keys for receiving");
    expectCode(await run(["key", "new", "all", "--key-file", file]), 0);
    expectCode(await run(["key", "new", "spare", "--key-file", file]), 0);
    const server = await startServer({ dir: temporaryFolder(), args: ["--key-file", file] });
    const key = readFileSync(file, "utf8")
      .split("\n")
      .find((text) => text.startsWith("all "))!;
    const env = { FRAMES_KEY: key.split(" ")[1]! };
    using receiver = launch(["receive", "run7", "-", "--follow", ...from(server)], env);
    await until("the receiver", () => server.stdout().includes('"receiving"'));
    expectCode(await run(["key", "remove", "all", "--key-file", file]), 0);
    expectCode(await receiver.ended(), 5);
    await server.stop();
  });
});
