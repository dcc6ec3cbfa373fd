// A server with retention, and the gaps it can report.

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
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

function to(server: Server): string[] {
  return ["--to", `127.0.0.1:${server.port}`];
}

function framesIn(dir: string): number {
  return journal<{ count: number }>(dir, "SELECT count(*) AS count FROM frames")[0]!.count;
}

/** Sums up the server's reports of removed frames. */
function removedBy(server: Server): { frames: number; bytes: number } {
  const told = jsonLines(server.stdout()).filter(({ type }) => type === "removed");
  const sum = (name: string) => told.reduce((total, event) => total + Number(event[name]), 0);
  return { frames: sum("frames"), bytes: sum("bytes") };
}

async function expectSound(dir: string): Promise<void> {
  const verified = await run(["verify", dir]);
  expectCode(verified, 0);
  expect(verified.stdout + verified.stderr).not.toMatch(/missing:|not in the journal|unknown:/);
}

async function gapsOf(server: Server, stream = "run7"): Promise<Json[]> {
  const listed = await run(["ls", stream, "--gaps", "--json", "--dir", server.dir]);
  expectCode(listed, 0);
  return jsonLines(listed.stdout);
}

describe("frames serve --keep", () => {
  test("frames serve --keep SIZE removes the oldest frames, reports it, and does not accept them again", async () => {
    const folder = makeTree(manyFrames(300, 1024));
    await withServer(
      async (server) => {
        const sent = await run(["send", folder, ...to(server), "--json"]);
        expectCode(sent, 0);
        expect(summaryOf(sent)).toMatchObject({ frames: 300, present: 0 });
        await until("100 KiB", () => framesIn(server.dir) === 100);
        const left = readdirSync(join(server.dir, "run7/visible"));
        expect(left).toHaveLength(100);
        await expectSound(server.dir);

        const again = await run(["send", folder, ...to(server), "--json"]);
        expectCode(again, 0);
        expect(summaryOf(again)).toMatchObject({
          frames: 100,
          present: 100,
          removedAtServer: 200,
          bytes: 0,
        });
        expect(await gapsOf(server)).toEqual([]);

        const wanted = await run(["send", folder, ...to(server), "--again", "--json"]);
        expectCode(wanted, 0);
        expect(summaryOf(wanted)).toMatchObject({ frames: 300, present: 100, removedAtServer: 0 });
        await until("100 KiB again", () => framesIn(server.dir) === 100);
        expect(await server.stop()).toBe(0);
        expect(removedBy(server)).toEqual({ frames: 400, bytes: 400 * 1024 });
        await expectSound(server.dir);
      },
      "--keep",
      "100K",
    );
  });

  test("frames serve --keep TIME removes older frames and empty folders while other senders deliver", async () => {
    await withServer(
      async (server) => {
        expectCode(await run(["send", makeTree(manyFrames(50, 100)), ...to(server)]), 0);
        const other = makeTree(manyFrames(1, 100, "infrared"));
        await until("the end of the first frames", () => {
          return readdirSync(join(server.dir, "run7/visible")).length === 1;
        });
        // The newest frame stays until there is a newer one.
        expectCode(await run(["send", other, "--stream", "run8", ...to(server)]), 0);
        await until("the end of their folders", () => !existsSync(join(server.dir, "run7")));
        expect(existsSync(join(server.dir, "run8"))).toBe(true);
        expect(await gapsOf(server, "run8")).toEqual([]);
        // The folder is created again for the next delivery.
        expectCode(await run(["send", other, "--stream", "run7", ...to(server)]), 0);
        await expectSound(server.dir);
      },
      "--keep",
      "1s",
    );
  });

  test("frames serve --keep --durable removes frames beside three senders without harm to them", async () => {
    const trees = ["a", "b", "c"].map((source) => makeTree(manyFrames(400, 2048, source)));
    await withServer(
      async (server) => {
        const sent = await Promise.all(
          trees.map((tree) => run(["send", tree, "--json", "--stream", "run7", ...to(server)])),
        );
        for (const one of sent) {
          expectCode(one, 0);
          expect(summaryOf(one)).toMatchObject({ frames: 400, refused: 0, lost: 0 });
        }
        await until("64 KiB", () => framesIn(server.dir) === 32);
        expect(await server.stop()).toBe(0);
        expect(removedBy(server).frames).toBe(1200 - 32);
        await expectSound(server.dir);
      },
      "--keep",
      "64K",
      "--durable",
    );
  });

  test("frames serve completes the removals that a killed server with --keep began", async () => {
    const folder = makeTree(manyFrames(3000, 100));
    const dir = temporaryFolder();
    const first = await startServer({ dir });
    expectCode(await run(["send", folder, ...to(first)]), 0);
    expect(await first.stop()).toBe(0);
    for (const left of [2900, 2000, 700]) {
      const server = await startServer({ dir, args: ["--keep", "1K"] });
      await until(`no more than ${left} frames`, () => framesIn(dir) <= left);
      server.process.kill("SIGKILL");
      await server.process.exited;
      // A deletion interrupted by the kill leaves no inconsistency.
      await expectSound(dir);
    }
    const last = await startServer({ dir });
    const files = readdirSync(join(dir, "run7/visible"));
    expect(files).toHaveLength(framesIn(dir));
    // Without --keep nothing is removed. Frames removed before are not sent again.
    const again = await run(["send", folder, ...to(last), "--json"]);
    expect(summaryOf(again)).toMatchObject({ frames: files.length, bytes: 0 });
    expect(await last.stop()).toBe(0);
    await expectSound(dir);
    rmSync(dir, { recursive: true });
  });

  const wrong: [value: string, hint: string][] = [
    ["7", "with the unit"],
    ["500", "with the unit"],
    ["90m", "for bytes write 90M"],
    ["0d", "a time such as 7d or 12h, or a size such as 500G"],
    ["soon", "a time such as 7d or 12h, or a size such as 500G"],
  ];
  for (const [value, hint] of wrong) {
    test(`frames serve --keep rejects the value ${value} and creates no store`, async () => {
      const dir = join(temporaryFolder(), "store");
      const served = await run(["serve", dir, "--listen", "127.0.0.1:0", "--keep", value]);
      expectCode(served, 1);
      expect(served.stderr).toContain("Cannot read --keep");
      expect(served.stderr).toContain(hint);
      expect(existsSync(dir)).toBe(false);
    });
  }
});

describe("frames ls STREAM --gaps", () => {
  /** Returns this many frames as the content of a pipe. */
  function piped(count: number): Uint8Array {
    return Buffer.concat(
      Array.from({ length: count }, (_, index) => {
        return Buffer.concat([Buffer.from("P5 1 1 255\n"), Buffer.from([index % 256])]);
      }),
    );
  }

  test("frames ls --gaps lists the numbers that a sender dropped, with the reason", async () => {
    await withServer(async (server) => {
      const policy = ["--policy", "latest:2", "--fps", "20", "--stream", "run7", "--source", "cam"];
      const sent = await run(["send", "-", ...policy, ...to(server), "--json"], {
        stdin: piped(500),
      });
      expectCode(sent, 0);
      const { dropped, frames } = summaryOf(sent) as { dropped: number; frames: number };
      expect(dropped).toBeGreaterThan(0);
      expect(frames + dropped).toBe(500);
      const gaps = await gapsOf(server);
      expect(gaps.reduce((sum, gap) => sum + Number(gap["frames"]), 0)).toBe(dropped);
      for (const gap of gaps) {
        expect(gap).toMatchObject({
          type: "gap",
          stream: "run7",
          source: "cam",
          reason: "dropped",
        });
      }
      const shown = await run(["ls", "run7", "--gaps", "--dir", server.dir]);
      expectCode(shown, 0);
      const [header, ...lines] = shown.stdout.trimEnd().split("\n");
      expect(header).toMatch(/^SOURCE +SESSION +NUMBERS +FRAMES +TIME +REASON$/);
      expect(lines).toHaveLength(gaps.length);
      for (const line of lines) {
        expect(line).toMatch(
          /^cam +[0-9a-f]{8} +\d+(-\d+)? +\d+ +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +dropped: The queue was full$/,
        );
      }
    });
  });

  test("frames ls --gaps lists nothing after the same command completed a killed delivery", async () => {
    // More than the buffers of the connection hold.
    const folder = makeTree(manyFrames(40, 600_000));
    await withServer(async (server) => {
      using link = await relayTo(server, { rate: 10_000_000 });
      using sender = launch(["send", folder, "--to", link.to]);
      await until("some frames", () => framesIn(server.dir) > 3);
      sender.child.kill("SIGKILL");
      await until("the server's notice", () => server.stdout().includes('"failed"'));
      // The frames received have no gaps, although the total is unknown.
      expect(await gapsOf(server)).toEqual([]);
      expectCode(await run(["send", folder, ...to(server)]), 0);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
      expect(await gapsOf(server)).toEqual([]);
      const shown = await run(["ls", "run7", "--gaps", "--dir", server.dir]);
      expectCode(shown, 0);
      expect(shown).toMatchObject({ stdout: "" });
      expect(shown.stderr).toContain("run7 has no gaps");
    });
  });

  test("frames ls --gaps lists nothing for watched files that were written again", async () => {
    const folder = makeTree({ "visible/latest.png": "first", "visible/other.png": "other" });
    await withServer(async (server) => {
      using sender = launch(["send", folder, "--watch", "--settle", "20", ...to(server)]);
      const latest = () =>
        journal<{ bytes: number; seq: number }>(
          server.dir,
          "SELECT bytes, seq FROM frames WHERE name = 'latest.png'",
        )[0];
      await until("the first", () => latest()?.bytes === 5);
      for (const size of [10, 20, 30]) {
        writeFileSync(join(folder, "visible/latest.png"), Buffer.alloc(size, size));
        await until(`the one of ${size} bytes`, () => latest()?.bytes === size);
      }
      sender.child.kill("SIGTERM");
      expect((await sender.ended()).code).toBe(0);
      expect(latest()!.seq).toBeGreaterThan(3);
      expect(await gapsOf(server)).toEqual([]);
    });
  });

  test("frames ls --gaps requires a stream that exists", async () => {
    await withServer(async (server) => {
      const none = await run(["ls", "--gaps", "--dir", server.dir]);
      expectCode(none, 1);
      expect(none.stderr).toContain("write frames ls STREAM --gaps");
      const unknown = await run(["ls", "run7", "--gaps", "--dir", server.dir]);
      expectCode(unknown, 1);
      expect(unknown.stderr).toContain("has no such stream");
    });
  });
});
