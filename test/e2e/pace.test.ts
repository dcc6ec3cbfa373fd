// Frames and bytes sent at a limited rate, with the executables. The checks do not depend on a busy
// machine's timing.

import { describe, expect, test } from "bun:test";
import { utimesSync } from "node:fs";
import { join } from "node:path";

import { expectCode, journal, relayTo, summaryOf, withServer } from "../helper/delivery.ts";
import {
  launch,
  makeTree,
  manyFrames,
  run,
  sameTree,
  type Server,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

interface Arrival {
  readonly source: string;
  readonly name: string;
  readonly seq: number;
}

/** Returns the frames of a server in the order of arrival. */
function arrivals(server: Server): Arrival[] {
  return journal<Arrival>(server.dir, "SELECT source, name, seq FROM frames ORDER BY id");
}

function to(server: Server): string[] {
  return ["--to", `127.0.0.1:${server.port}`];
}

/** Creates a tree of small frames, captured these many milliseconds after the first. */
function recording(frames: Record<string, number>): string {
  const folder = makeTree(Object.fromEntries(Object.keys(frames).map((path) => [path, 100])));
  for (const [path, after] of Object.entries(frames)) {
    const time = 1_700_000_000 + after / 1000;
    utimesSync(join(folder, path), time, time);
  }
  return folder;
}

describe("--fps", () => {
  test("--fps sends all frames in order and no more of them a second", async () => {
    const folder = makeTree(manyFrames(30, 100));
    await withServer(async (server) => {
      const began = performance.now();
      const sent = await run(["send", folder, "--fps", "20", ...to(server), "--json"]);
      const took = performance.now() - began;
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 30, lost: 0, dropped: 0 });
      const came = arrivals(server);
      expect(came.map(({ seq }) => seq)).toEqual(came.map((_, index) => index + 1));
      // 29 intervals of 50 ms; a busy machine takes longer.
      expect(took).toBeGreaterThan(1400);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
    });
  });

  test("--fps for one source does not slow the other sources", async () => {
    const folder = makeTree({ ...manyFrames(8, 100, "slow"), ...manyFrames(200, 100, "fast") });
    await withServer(async (server) => {
      const began = performance.now();
      const sent = await run(["send", folder, "--fps", "slow=4", ...to(server), "--json"]);
      const took = performance.now() - began;
      expectCode(sent, 0);
      const came = arrivals(server);
      expect(came).toHaveLength(208);
      const last = (name: string) => came.findLastIndex(({ source }) => source === name);
      expect(last("fast")).toBeLessThan(last("slow"));
      expect(took).toBeGreaterThan(1700);
    });
  });

  for (const value of ["0", "-1", "fast", "1e3", "slow=", "200000"]) {
    test(`--fps rejects the value ${value}`, async () => {
      const sent = await run(["send", makeTree(manyFrames(1, 10)), `--fps=${value}`]);
      expectCode(sent, 1);
      expect(sent.stderr).toContain("--fps");
    });
  }

  test("--fps and --realtime together are refused", async () => {
    const folder = makeTree(manyFrames(1, 10));
    const sent = await run(["send", folder, "--fps", "1", "--realtime"]);
    expectCode(sent, 1);
    expect(sent.stderr).toContain("leave one out");
  });

  test("frames send --fps ends at once when it is stopped, with all sent frames confirmed", async () => {
    const folder = makeTree(manyFrames(100, 100));
    await withServer(async (server) => {
      using sender = launch(["send", folder, "--fps", "0.5", ...to(server), "--json"]);
      await until("the first frame", () => arrivals(server).length > 0);
      sender.child.kill("SIGTERM");
      const ended = await sender.ended();
      expect(ended.code).toBe(20);
      const { frames } = summaryOf(ended) as { frames: number };
      expect(frames).toBe(arrivals(server).length);
      expect(frames).toBeLessThan(100);
    });
  });
});

describe("--realtime", () => {
  test("--realtime sends the frames of all sources in the order and at the pace of their capture", async () => {
    const folder = recording({
      ...{ "a/1.png": 0, "a/2.png": 1000, "a/3.png": 2000 },
      ...{ "b/1.png": 500, "b/2.png": 1500, "b/3.png": 2500 },
    });
    await withServer(async (server) => {
      const began = performance.now();
      const sent = await run(["send", folder, "--realtime", ...to(server), "--json"]);
      const took = performance.now() - began;
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 6 });
      const came = arrivals(server);
      const order = (name: string) =>
        came.filter(({ source }) => source === name).map((frame) => frame.name);
      expect(order("a")).toEqual(["1.png", "2.png", "3.png"]);
      expect(order("b")).toEqual(["1.png", "2.png", "3.png"]);
      expect(came.map(({ source, name }) => `${source}/${name}`)).toEqual([
        ...["a/1.png", "b/1.png", "a/2.png", "b/2.png", "a/3.png", "b/3.png"],
      ]);
      expect(took).toBeGreaterThan(2400);
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
    });
  });
});

describe("--bwlimit", () => {
  test("--bwlimit limits the bytes per second for small and for large frames", async () => {
    const limit = 256 << 10;
    const through = async (count: number, size: number) => {
      const folder = makeTree(manyFrames(count, size));
      await withServer(async (server) => {
        using link = await relayTo(server);
        const began = performance.now();
        using sender = launch(["send", folder, "--to", link.to, "--bwlimit", "256K", "--json"]);
        // The clock is read after the bytes, so a delay of this process only lowers the measured rate.
        const looks: { bytes: number; most: number }[] = [];
        const look = () => {
          const { bytes } = link.relay;
          const seconds = (performance.now() - began) / 1000;
          looks.push({ bytes, most: limit * seconds * 1.15 + 40_000 });
        };
        const looking = setInterval(look, 20);
        const ended = await sender.ended();
        clearInterval(looking);
        look();
        expectCode(ended, 0);
        expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
        expect(looks.filter(({ bytes, most }) => bytes > most)).toEqual([]);
        expect(looks.at(-1)!.bytes).toBeGreaterThan(count * size);
      });
    };
    await Promise.all([through(200, 2500), through(2, 250_000), through(1, 500_000)]);
  });

  for (const value of ["0", "fast", "-5M"]) {
    test(`--bwlimit rejects the value ${value}`, async () => {
      const sent = await run(["send", temporaryFolder(), `--bwlimit=${value}`, "--stream", "run7"]);
      expectCode(sent, 1);
      expect(sent.stderr).toContain("--bwlimit");
    });
  }
});
