// The executable gives encoded video to common programs: a player at a pipe, a file, OpenCV.

import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pictureKind } from "../../src/video/nal-units.ts";
import { expectCode } from "../helper/delivery.ts";
import {
  type Clip,
  groupLength,
  makeClip,
  pictureHashes,
  unitsOf,
} from "../helper/encoded-video.ts";
import { needs } from "../helper/ffmpeg.ts";
import { needsOpenCv, readHundredFrames } from "../helper/opencv.ts";
import { run, startServer, temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { Camera } from "../helper/viewing.ts";

const missing = needs || needsOpenCv;

/** Makes a folder with one access unit a file. */
function makeFolder({ codec, units }: Pick<Clip, "codec" | "units">): string {
  const folder = temporaryFolder();
  for (const [index, unit] of units.entries()) {
    writeFileSync(join(folder, `${index + 1}.${codec}`), unit);
  }
  return folder;
}

for (const codec of ["h264", "h265"] as const) {
  test.skipIf(needs !== "")(
    `${needs}a folder of ${codec} access units comes out of a pipe, and as files, with the same pictures`,
    async () => {
      const server = await startServer({ dir: temporaryFolder() });
      const from = ["--from", `127.0.0.1:${server.port}`];
      const clip = await makeClip(codec, 2 * groupLength + 5);
      const sent = ["send", makeFolder(clip), "--stream", "run", "--source", "cam"];
      expect(await run([...sent, "--to", `127.0.0.1:${server.port}`])).toMatchObject({ code: 0 });
      const piped = await run(["receive", "run", "--quiet", ...from, "-"]);
      expect(piped.code).toBe(0);
      expect(Buffer.from(piped.output).equals(clip.bytes)).toBe(true);
      for (const name of ["out.mp4", "out.mkv"]) {
        const path = join(temporaryFolder(), name);
        const { code, stderr } = await run(["receive", "run", ...from, path]);
        expect([code, stderr]).toEqual([0, expect.stringContaining(`Written to ${path}\n`)]);
        expect(await pictureHashes(path)).toEqual(await pictureHashes(clip.path));
        const again = await run(["receive", "run", ...from, path]);
        expect(again.code).toBe(1);
        expect(again.stderr).toContain(`Cannot write ${path}: it exists`);
        const segment = ["--segment", "1GB"];
        const limited = await run(["receive", "run", ...from, ...segment, `${path}.mkv`]);
        expect(limited.code).toBe(1);
        expect(limited.stderr).toContain("without an MCAP file");
      }
      await server.stop();
    },
  );
}

test.skipIf(needs !== "")(
  `${needs}a pipe begins with a key frame, and the frames left out are counted`,
  async () => {
    const server = await startServer({ dir: temporaryFolder(), http: "127.0.0.1:0" });
    const address = `127.0.0.1:${server.port}`;
    const clip = await makeClip("h264", 2 * groupLength);
    const camera = new Camera({ address, http: server.http }, "run", "cam");
    for (const unit of clip.units.slice(4)) camera.give(unit, `${camera.count + 1}.h264`);
    await camera.end();
    const piped = await run(["receive", "run", "--from", address, "-"]);
    expect(piped.code).toBe(0);
    const expected = Buffer.concat(clip.units.slice(groupLength));
    expect(Buffer.from(piped.output).equals(expected)).toBe(true);
    expect(piped.stderr).toContain("6 frames left out: no key frame came before them\n");
    const parts = await run(["receive", "run", "--from", address, "--multipart", "-"]);
    const all = clip.units.slice(4).reduce((sum, { length }) => sum + length, 0);
    expect(parts.output.length).toBeGreaterThan(all);
    await server.stop();
  },
);

test.skipIf(needs !== "")(
  `${needs}a pipe of a stream without key frames begins with a recovery point, and what may be damaged is counted`,
  async () => {
    const server = await startServer({ dir: temporaryFolder() });
    const address = `127.0.0.1:${server.port}`;
    const units = (await unitsOf(temporaryFolder(), "intra refresh", 75)).slice(3);
    const counts = units.map((unit) => pictureKind(unit, "h264")!.recoveryCount);
    const start = counts.findIndex((count) => count !== undefined);
    const folder = makeFolder({ codec: "h264", units });
    const sent = ["send", folder, "--stream", "run", "--source", "cam", "--to", address];
    expectCode(await run(sent), 0);
    const piped = await run(["receive", "run", "--from", address, "-"]);
    expectCode(piped, 0);
    expect(Buffer.from(piped.output).equals(Buffer.concat(units.slice(start)))).toBe(true);
    expect(piped.stderr).toContain(
      `\n${start} frames left out: no key frame came before them\n${counts[start]} frames possibly damaged: only a recovery point came before\n`,
    );
    await server.stop();
  },
);

for (const name of ["latest.mjpeg", "latest.h264"]) {
  test.skipIf(missing !== "")(
    `${missing}OpenCV reads a hundred frames of ${name} of a video`,
    async () => {
      const server = await startServer({ dir: temporaryFolder(), http: "127.0.0.1:0" });
      const address = `127.0.0.1:${server.port}`;
      const clip = await makeClip("h264", 6 * groupLength);
      const camera = new Camera({ address, http: server.http }, "site", "gate");
      const timer = setInterval(() => {
        camera.give(clip.units[camera.count % clip.units.length]!, `${camera.count + 1}.h264`);
      }, 1000 / 60);
      try {
        await until("a frame", () => camera.count > 2);
        const url = `http://${server.http}/streams/site/sources/gate/${name}`;
        expect(await readHundredFrames(url)).toEqual(["{(120, 160, 3)}\n", ""]);
      } finally {
        clearInterval(timer);
        await camera.end();
        await server.stop();
      }
    },
  );
}
