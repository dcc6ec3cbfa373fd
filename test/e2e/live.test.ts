// Pipes and queue policies from a user's view: the executable, frames from a pipe, and the journal.

import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Camera, numberOf, pgm } from "../helper/camera.ts";
import {
  expectCode,
  journal,
  type Json,
  relayTo,
  summaryOf,
  withServer,
} from "../helper/delivery.ts";
import { encodePng } from "../helper/png.ts";
import {
  jsonLines,
  launch,
  peerMissing,
  run,
  type Server,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

interface Row {
  readonly source: string;
  readonly name: string;
  readonly session: string;
  readonly seq: number;
  readonly bytes: number;
  readonly captured: number;
  readonly received: number;
}

function rowsOf({ dir }: Server): Row[] {
  return journal<Row>(dir, "SELECT * FROM frames ORDER BY id");
}

function lossesOf({ dir }: Server): [string, number, number, string][] {
  type Loss = { source: string; first: number; last: number; reason: string };
  return journal<Loss>(dir, "SELECT * FROM losses ORDER BY first").map(
    ({ source, first, last, reason }) => [source, first, last, reason],
  );
}

/**
 * How old frames of a source were when they came: the most bytes that came after one was captured, and before
 * it came. On a link of a given rate they stand for a time that no busy machine lengthens.
 */
function oldest(server: Server, source: string): number {
  const rows = rowsOf(server);
  const ages = rows
    .filter((row) => row.source === source)
    .map(({ captured, received }) => {
      const between = rows.filter((row) => row.received > captured && row.received < received);
      return between.reduce((sum, { bytes }) => sum + bytes, 0);
    });
  return Math.max(...ages);
}

function bytesOf({ dir }: Server, { source, name }: Row): Buffer {
  return readFileSync(join(dir, "run7", source, name));
}

/** Sends the content of a pipe to its end. */
function pipe(server: Pick<Server, "port">, input: Uint8Array | string, ...more: string[]) {
  const args = ["--to", `127.0.0.1:${server.port}`, "--stream", "run7", "--source", "visible"];
  return run(["send", "-", ...args, "--json", ...more], { stdin: input });
}

function source(summary: Json, name: string): Json {
  const found = (summary["sources"] as Json[]).find((one) => one["name"] === name);
  if (found === undefined) throw new Error(`there is no ${name} in ${JSON.stringify(summary)}`);
  return found;
}

/** Returns all numbers in ranges. */
function numbersIn(ranges: readonly (readonly [number, number, ...unknown[]])[]): number[] {
  return ranges.flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, index) => first + index),
  );
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);
const picture = (width: number) =>
  encodePng({ width, height: 1, colour: "rgb8", pixels: new Uint8Array(width * 3).fill(width) });
const bmp = Buffer.concat([
  Buffer.from("424d3a000000000000003600000028000000010000000100000001001800000000000400", "hex"),
  Buffer.alloc(58 - 36),
]);

describe("frames send -", () => {
  const kinds: [what: string, frames: Uint8Array[], ending: string, args: string[]][] = [
    ["concatenated PNG", [1, 2, 30].map(picture), "png", []],
    ["concatenated PGM", [1, 2, 3].map((number) => pgm(number)), "pgm", []],
    ["concatenated BMP", [bmp, bmp], "bmp", []],
    [
      "raw video",
      [1, 2, 3].map((number) => new Uint8Array(32).fill(number)),
      "4x4.gray16le",
      ["--raw", "4x4:gray16le"],
    ],
    ["frames larger than one message", [1, 2].map((number) => pgm(number, 3e6)), "pgm", []],
  ];
  for (const [what, frames, ending, args] of kinds) {
    test(`frames send splits a pipe of ${what} into its frames, byte for byte`, async () => {
      await withServer(async (server) => {
        const sent = await pipe(server, Buffer.concat(frames), ...args);
        expectCode(sent, 0);
        expect(summaryOf(sent)).toMatchObject({ frames: frames.length, lost: 0, dropped: 0 });
        const rows = rowsOf(server);
        expect(rows.map(({ seq }) => seq)).toEqual(upTo(frames.length));
        for (const [index, row] of rows.entries()) {
          expect(bytesOf(server, row).equals(frames[index]!)).toBe(true);
          const number = String(index + 1).padStart(8, "0");
          expect(row.name).toMatch(new RegExp(`^\\d{8}T\\d{6}\\.\\d{3}Z-${number}\\.${ending}$`));
        }
      });
    });
  }

  test.skipIf(peerMissing("ffmpeg"))(
    `${peerMissing("ffmpeg") ? "skipped: needs ffmpeg: " : ""}frames send splits a pipe of MJPEG into its frames`,
    async () => {
      await withServer(async (server) => {
        const film = "testsrc=size=64x48:rate=25:duration=2";
        const args = ["-v", "error", "-f", "lavfi", "-i", film, "-f", "mjpeg", "-"];
        const { stdout } = Bun.spawnSync(["ffmpeg", ...args]);
        expectCode(await pipe(server, new Uint8Array(stdout)), 0);
        const rows = rowsOf(server);
        expect(rows.length).toBe(50);
        expect(Buffer.concat(rows.map((row) => bytesOf(server, row))).equals(stdout)).toBe(true);
      });
    },
  );

  test("frames send delivers each frame of a pipe at its last byte, not when the next frame begins", async () => {
    await withServer(async (server) => {
      using camera = new Camera(["--to", `127.0.0.1:${server.port}`]);
      for (const count of [1, 2, 3]) {
        await camera.shoot(1);
        await until(`frame ${count}`, () => rowsOf(server).length === count);
      }
      camera.signal("SIGINT");
      const sent = await camera.ended();
      expectCode(sent, 0);
      expect(summaryOf(sent)).toMatchObject({ frames: 3, interrupted: false });
    });
  });

  test("frames send delivers all frames before a cut frame in a pipe, and reports the cut: exit 23", async () => {
    await withServer(async (server) => {
      const input = Buffer.concat([pgm(1), pgm(2), pgm(3).subarray(0, 50)]);
      const sent = await pipe(server, input);
      expectCode(sent, 23);
      expect(sent.stderr).toContain("frame 3");
      expect(sent.stderr).toContain("2 frames delivered");
      expect(lossesOf(server)).toEqual([["visible", 3, 3, "unreadable"]]);
      expect(rowsOf(server).map((row) => numberOf(bytesOf(server, row)))).toEqual([1, 2]);
    });
  });

  test("frames send delivers the frames around a damaged one in a pipe as they come, and reports one loss: exit 23", async () => {
    await withServer(async (server) => {
      using camera = new Camera(["--to", `127.0.0.1:${server.port}`]);
      await camera.shoot(1);
      await camera.write(picture(3).subarray(0, 60));
      await camera.write(Buffer.from("garbage of a broken cable"));
      for (const count of [2, 3]) {
        await camera.shoot(1);
        await until(`frame ${count}`, () => rowsOf(server).length === count);
      }
      expect(rowsOf(server).map(({ seq }) => seq)).toEqual([1, 3, 4]);
      expect(lossesOf(server)).toEqual([["visible", 2, 2, "unreadable"]]);
      camera.signal("SIGINT");
      expectCode(await camera.ended(), 23);
    });
  });

  test("frames send ends after SIGINT when its pipe stays open with half a frame", async () => {
    await withServer(async (server) => {
      using camera = new Camera(["--to", `127.0.0.1:${server.port}`]);
      await camera.shoot(1);
      await camera.write(pgm(2).subarray(0, 40));
      await until("a frame", () => rowsOf(server).length === 1);
      camera.signal("SIGINT");
      expectCode(await camera.ended(), 0);
    });
  });

  const lying = Buffer.from(picture(3));
  lying.writeUInt32BE(0x7fffffff, 33);
  const noise = Buffer.from(upTo(5000).map((number) => (number * 7919) % 251));
  const bad: [what: string, input: Uint8Array | string, says: RegExp][] = [
    ["random bytes", noise, /frame 1 at byte 0 of the input: expected a JPEG, PNG, PNM or BMP/],
    ["text", "hello, world\n", /expected a JPEG.*received "hello, world/],
    ["a JPEG without an end", Buffer.from("ffd8ffe000104a464946", "hex"), /ended inside a JPEG/i],
    ["a PNG with a lying length", lying, /PNG.*(longer than|too large)/i],
    ["no bytes", "", /ended without a byte/],
    ["zeros", new Uint8Array(1000), /1000 bytes, all of them zero/],
  ];
  for (const [what, input, says] of bad) {
    test(`frames send reports a pipe of ${what}: exit 23`, async () => {
      await withServer(async (server) => {
        const sent = await pipe(server, input);
        expectCode(sent, 23);
        expect(sent.stderr).toMatch(says);
        expect(sent.stderr).not.toContain("fault in frames");
        expect(rowsOf(server)).toEqual([]);
      });
    });
  }

  test("frames send rejects an endless frame in a pipe with bounded memory: exit 23", async () => {
    await withServer(async (server) => {
      // A JPEG whose scan data never ends.
      const input = Buffer.alloc(90e6, 0x55);
      input.set(Buffer.from("ffd8ffda000c03010002110311003f00", "hex"));
      const sent = await pipe(server, input);
      expectCode(sent, 23);
      expect(sent.stderr).toMatch(/longer than the limit of 67108864 bytes/);
      expect(sent.peakMemory).toBeLessThan(300e6);
    });
  });

  const wrong: [args: string[], says: RegExp][] = [
    [["-"], /--stream NAME --source NAME/],
    [["-", "--stream", "a", "--source", "b", "--policy", "newest"], /expected block, latest/],
    [
      ["-", "--stream", "a", "--source", "b", "--policy", "c=latest"],
      /no source is named c; choose from b/,
    ],
    [["-", "--stream", "a", "--source", "b", "--raw", "640:gray"], /640:gray/],
    [
      ["-", "--stream", "a", "--source", "b", "--watch"],
      /--watch is for directories; leave --watch out/,
    ],
    [["-", "-", "--stream", "a"], /standard input|two pipes|one pipe/],
    [[".", "--spool", "/nowhere"], /--spool is for pipes/],
    [[".", "--since", "now"], /without --watch/],
    [[".", "--watch", "--realtime"], /--realtime/],
  ];
  for (const [args, says] of wrong) {
    test(`frames send ${args.join(" ")} is a usage error: exit 1`, async () => {
      const sent = await run(["send", ...args]);
      expectCode(sent, 1);
      expect(sent.stderr).toMatch(says);
    });
  }
});

describe.concurrent("Slow link", () => {
  test("policy block makes a source wait for a slow link and loses no frame", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server, { rate: 1_000_000 });
      const frames = upTo(40).map((number) => pgm(number, 40_000));
      const sent = await pipe({ port: link.relay.port }, Buffer.concat(frames));
      expectCode(sent, 0);
      expect(rowsOf(server).map(({ seq }) => seq)).toEqual(upTo(40));
      expect(lossesOf(server)).toEqual([]);
    });
  });

  test("policy latest delivers fresh frames over a slow link and reports every gap, beside policy block", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server, { rate: 2_000_000 });
      const folder = join(temporaryFolder(), "infrared");
      mkdirSync(folder);
      const policies = ["--policy", "visible=latest", "--policy", "infrared=block"];
      const inputs = ["--source", "visible=-", "--source", `infrared=${folder}`, "--watch"];
      using camera = new Camera(["--to", link.to, ...policies], inputs);
      // About 4 MB and half a MB per second, over a link of 2 MB per second.
      for (let shot = 1; shot <= 50; shot++) {
        writeFileSync(join(folder, `${shot}.part`), pgm(shot, 40_000));
        renameSync(join(folder, `${shot}.part`), join(folder, `${shot}.pgm`));
        for (let each = 0; each < 5; each++) await camera.shoot(1, 60_000, 14);
      }
      await until(
        "all of infrared",
        () => rowsOf(server).filter(({ source }) => source === "infrared").length === 50,
      );
      camera.signal("SIGINT");
      const sent = await camera.ended();
      expectCode(sent, 0);
      const summary = summaryOf(sent);
      const visible = rowsOf(server).filter((row) => row.source === "visible");
      expect(oldest(server, "visible")).toBeLessThan(2_000_000);
      for (const row of visible) expect(bytesOf(server, row).length).toBe(pgm(1, 60_000).length);
      const gaps = source(summary, "visible")["gaps"] as [number, number, string][];
      expect(gaps.length).toBeGreaterThan(0);
      expect(new Set(gaps.map(([, , reason]) => reason))).toEqual(new Set(["dropped"]));
      const captured = Number(source(summary, "visible")["captured"]);
      const stored = visible.map(({ seq }) => seq);
      expect([...stored, ...numbersIn(gaps)].sort((a, b) => a - b)).toEqual(upTo(captured));
      const journalled = lossesOf(server).filter(([name]) => name === "visible");
      const ranges = journalled.map(([, first, last]): [number, number] => [first, last]);
      expect(numbersIn(ranges)).toEqual(numbersIn(gaps));
      expect(new Set(journalled.map(([, , , reason]) => reason))).toEqual(new Set(["dropped"]));
      expect(summary["dropped"]).toBe(numbersIn(gaps).length);
      expect(source(summary, "infrared")).toMatchObject({ captured: 50, frames: 50, gaps: [] });
    });
  });

  test("policy latest keeps frames fresh beside a large folder with policy block", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server, { rate: 2_000_000 });
      const folder = join(temporaryFolder(), "infrared");
      mkdirSync(folder);
      for (let shot = 1; shot <= 80; shot++) {
        writeFileSync(join(folder, `${shot}.pgm`), pgm(shot, 60_000));
      }
      const policies = ["--policy", "visible=latest", "--policy", "infrared=block"];
      const inputs = ["--source", "visible=-", "--source", `infrared=${folder}`, "--watch"];
      using camera = new Camera(["--to", link.to, ...policies], inputs);
      await camera.shoot(80, 60_000, 25);
      const infrared = () => rowsOf(server).filter((row) => row.source === "infrared").length;
      await until("all of infrared", () => infrared() === 80);
      camera.signal("SIGINT");
      expectCode(await camera.ended(), 0);
      expect(oldest(server, "visible")).toBeLessThan(2_000_000);
    });
  });

  test("policy latest:5 keeps the newest five frames, and --fail-on-gap ends with exit 23", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server);
      const args = ["--to", link.to, "--policy", "latest:5", "--fail-on-gap"];
      using camera = new Camera(args);
      await camera.shoot(1);
      await until("the first frame", () => rowsOf(server).length === 1);
      link.relay.freeze();
      await camera.shoot(200);
      // The report shows when all frames are captured.
      const captured = () => {
        camera.signal("SIGUSR1");
        return reportsOf(camera.stdout).at(-1)?.["captured"];
      };
      await until("all frames", () => captured() === 201);
      link.relay.thaw();
      await until("the newest", () => rowsOf(server).at(-1)?.seq === 201);
      camera.signal("SIGINT");
      const sent = await camera.ended();
      expectCode(sent, 23);
      const stored = rowsOf(server).map(({ seq }) => seq);
      expect(stored.slice(-5)).toEqual([197, 198, 199, 200, 201]);
      const gaps = source(summaryOf(sent), "visible")["gaps"] as [number, number, string][];
      expect([...stored, ...numbersIn(gaps)].sort((a, b) => a - b)).toEqual(upTo(201));
    });
  });
});

/** Returns the reports printed on SIGUSR1. */
function reportsOf(stdout: string): Json[] {
  const whole = stdout.slice(0, stdout.lastIndexOf("\n") + 1);
  return jsonLines(whole).filter(({ type }) => type === "report");
}

describe("Report", () => {
  test("SIGUSR1 makes frames send print a report for each source, as does the summary", async () => {
    await withServer(async (server) => {
      using camera = new Camera(["--to", `127.0.0.1:${server.port}`, "--policy", "latest:100"]);
      await camera.shoot(20);
      await until("a frame", () => rowsOf(server).length > 0);
      await until("the report on all of them", () => {
        camera.signal("SIGUSR1");
        return reportsOf(camera.stdout).at(-1)?.["frames"] === 20;
      });
      await camera.close();
      const sent = await camera.ended();
      expectCode(sent, 0);
      const report = reportsOf(sent.stdout).at(-1);
      for (const told of [report!, source(summaryOf(sent), "visible")]) {
        expect(told).toMatchObject({ name: "visible", captured: 20, sent: 20, frames: 20 });
        expect(told).toMatchObject({ dropped: 0, gaps: [], late: 0, retried: 0 });
        const { median, p99 } = told["delay"] as Record<string, number>;
        expect(median!).toBeLessThanOrEqual(p99!);
        expect(told["rate"]).toBeGreaterThan(0);
      }
    });
  });

  test("SIGUSR1 makes frames send print a readable report without --json, also for watched folders", async () => {
    await withServer(async (server) => {
      const folder = join(temporaryFolder(), "run7");
      mkdirSync(join(folder, "visible"), { recursive: true });
      mkdirSync(join(folder, "infrared"));
      writeFileSync(join(folder, "visible/1"), "one");
      writeFileSync(join(folder, "infrared/1"), "two");
      using sender = launch(["send", folder, "--watch", "--to", `127.0.0.1:${server.port}`]);
      await until("both frames", () => rowsOf(server).length === 2);
      // The journal has a frame before the sender has its receipt, so one report may come too soon.
      await until("a report with both receipts", () => {
        sender.child.kill("SIGUSR1");
        return ["infrared", "visible"].every((name) =>
          sender.stderr().includes(`${name}: 1 captured, 1 delivered`),
        );
      });
      sender.child.kill("SIGINT");
      expectCode(await sender.ended(), 0);
    });
  });
});
