// Frames that the server stored once and that were moved away since: every way of sending them
// gets the same answer.

import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { send } from "../../src/client/send.ts";
import { expectCode, journal, summaryOf, withServer } from "../helper/delivery.ts";
import { ffmpeg, needs } from "../helper/ffmpeg.ts";
import { launch, run, type Server, temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";

/** Frames of every delivery here. */
const frames = 3;

function makeShots(): string {
  const folder = join(temporaryFolder(), "shots");
  mkdirSync(folder);
  for (let shot = 1; shot <= frames; shot++) writeFileSync(join(folder, `${shot}.pgm`), `${shot}`);
  return folder;
}

function pictures(folder: string): string[] {
  return readdirSync(folder).map((name) => join(folder, name));
}

function to({ port }: Server): string[] {
  return ["--to", `127.0.0.1:${port}`];
}

/** Removes every stored frame from the server's store, as its consumers may. */
function moveAway({ dir }: Server): void {
  for (const stream of readdirSync(dir).filter((name) => name !== ".frames")) {
    rmSync(join(dir, stream), { recursive: true });
  }
}

function storedFiles({ dir }: Server): string[] {
  const all = readdirSync(dir, { recursive: true, encoding: "utf8" });
  return all.filter((path) => !path.startsWith(".frames") && /\.\w+$/.test(path));
}

/** Ways to send a folder of frames, as arguments of `frames send`. */
const ways: Readonly<Record<string, (folder: string) => string[]>> = {
  "a directory": (folder) => [folder],
  "a directory with --checksum": (folder) => [folder, "--checksum"],
  "a directory with --fps": (folder) => [folder, "--fps", "1000"],
  "a directory with --realtime": (folder) => [folder, "--realtime"],
  "a directory with --on-conflict replace": (folder) => [folder, "--on-conflict", "replace"],
  "a directory with --fps and --on-conflict replace": (folder) => {
    return [folder, "--fps", "1000", "--on-conflict", "replace"];
  },
  "several pictures": (folder) => pictures(folder),
  "several pictures with --fps": (folder) => [...pictures(folder), "--fps", "1000"],
};

async function expectMovedAway(server: Server, words: string[], count: number): Promise<void> {
  const again = await run(["send", ...words, ...to(server)]);
  expectCode(again, 0);
  expect(again.stderr).toContain(`Nothing new: ${count} frame`);
  expect(again.stderr).toContain("moved away since");
  expect(again.stderr).not.toMatch(/there already|Stored in|delivered:/);
  const told = summaryOf(await run(["send", ...words, "--json", ...to(server)]));
  const counts = { frames: 0, present: 0, removedAtServer: count, refused: 0, lost: 0 };
  expect(told).toMatchObject(counts);
  expect(storedFiles(server)).toEqual([]);
}

describe("frames that were moved away from the server", () => {
  for (const [way, wordsFor] of Object.entries(ways)) {
    test(`are told as moved away, and stay where they are: ${way}`, async () => {
      const folder = makeShots();
      await withServer(async (server) => {
        const words = wordsFor(folder);
        expectCode(await run(["send", ...words, ...to(server)]), 0);
        expect(storedFiles(server)).toHaveLength(frames);
        moveAway(server);
        await expectMovedAway(server, words, frames);
        await expectMovedAway(server, [...words, "--move"], frames);
        expect(readdirSync(folder)).toHaveLength(frames);
        // The server reports no refused frame.
        expect(server.stdout()).not.toContain('"refused","time"');
        expect(journal(server.dir, "SELECT * FROM losses")).toEqual([]);

        const anew = await run(["send", ...words, "--again", "--move", ...to(server), "--json"]);
        expectCode(anew, 0);
        expect(summaryOf(anew)).toMatchObject({ frames, removed: frames, removedAtServer: 0 });
        expect(storedFiles(server)).toHaveLength(frames);
        expect(readdirSync(folder)).toEqual([]);
      });
    });
  }

  test("are told as moved away when a single picture is sent", async () => {
    const [path] = pictures(makeShots());
    await withServer(async (server) => {
      expectCode(await run(["send", path!, ...to(server)]), 0);
      moveAway(server);
      await expectMovedAway(server, [path!], 1);
      await expectMovedAway(server, [path!, "--move"], 1);
      expect(existsSync(path!)).toBe(true);
    });
  });

  test.skipIf(needs !== "")(`${needs}are told as moved away when a video is sent`, async () => {
    const clip = join(temporaryFolder(), "clip.mp4");
    const input = ["-f", "lavfi", "-i", `testsrc=size=64x48:rate=10:duration=${frames / 10}`];
    await ffmpeg(...input, "-pix_fmt", "yuv420p", clip);
    await withServer(async (server) => {
      for (const words of [[clip], [clip, "--policy", "block", "--stream", "queued"]]) {
        expectCode(await run(["send", ...words, ...to(server)]), 0);
        moveAway(server);
        await expectMovedAway(server, words, frames);
      }
    });
  });

  test("are told as moved away when a program sends them", async () => {
    const shots = [1, 2, 3].map((shot) => {
      return { name: `${shot}.pgm`, bytes: new TextEncoder().encode(`shot ${shot}`) };
    });
    await withServer(async (server) => {
      const options = { to: `127.0.0.1:${server.port}`, stream: "S", source: "cam" };
      expect(await send(shots, options)).toMatchObject({ frames, removedAtServer: 0 });
      moveAway(server);
      const counts = { frames: 0, present: 0, removedAtServer: frames, refused: 0 };
      expect(await send(shots, options)).toMatchObject(counts);
      expect(storedFiles(server)).toEqual([]);
    });
  });

  for (const more of [[], ["--move"]]) {
    const how = ["--watch", ...more].join(" ");
    test(`are told as moved away when they appear in a folder with ${how}`, async () => {
      const folder = makeShots();
      await withServer(async (server) => {
        expectCode(await run(["send", folder, ...to(server)]), 0);
        moveAway(server);
        const watched = join(temporaryFolder(), "shots");
        mkdirSync(watched);
        using sender = launch(["send", watched, "--watch", "-v", ...more, ...to(server)]);
        await until("the connection", () => sender.stderr().includes("WELCOME"));
        for (const name of readdirSync(folder)) {
          await Bun.write(join(watched, name), Bun.file(join(folder, name)));
        }
        const refusals = () => sender.stderr().split("<- REFUSED").length - 1;
        await until("the answers", () => refusals() === frames);
        sender.child.kill("SIGINT");
        const ended = await sender.ended();
        expectCode(ended, 0);
        expect(ended.stderr).toContain(`Nothing new: ${frames} frames moved away since`);
        expect(readdirSync(watched)).toHaveLength(frames);
        expect(storedFiles(server)).toEqual([]);
      });
    });
  }

  test("are told as moved away if --keep removed them, however they are sent", async () => {
    const folder = makeShots();
    await withServer(
      async (server) => {
        expectCode(await run(["send", folder, ...to(server)]), 0);
        // The newest frame of the journal is never removed.
        const other = makeShots();
        expectCode(await run(["send", other, "--stream", "later", ...to(server)]), 0);
        await until("the removal", () => !storedFiles(server).some((path) => /^shots/.test(path)));
        for (const words of [[folder], [folder, "--fps", "1000"], pictures(folder)]) {
          const again = await run(["send", ...words, "--json", ...to(server)]);
          expectCode(again, 0);
          expect(summaryOf(again)).toMatchObject({ frames: 0, removedAtServer: frames });
        }
      },
      "--keep",
      "1s",
    );
  });
});
