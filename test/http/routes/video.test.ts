// Encoded video over HTTP: as it is from a key frame on, in groups, and decoded for programs that know
// pictures only.
//
// Covers: http/routes/decoded-video.ts, http/picture/video-decoder.ts, http/picture/video-follower.ts

import { describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pictureKind } from "../../../src/video/nal-units.ts";
import {
  type Clip,
  groupLength,
  makeClip,
  padded,
  pictureHashes,
  unitsOf,
} from "../../helper/encoded-video.ts";
import { children, needs } from "../../helper/ffmpeg.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { until } from "../../helper/time.ts";
import { Camera, jpeg, parts, startViewed } from "../../helper/viewing.ts";

const path = "/streams/site/sources/gate";

/** Stores pictures `from` to `to` of a clip, counted from 1. */
async function store(camera: Camera, clip: Clip, from: number, to: number): Promise<void> {
  for (let number = from; number <= to; number++) {
    camera.give(clip.units[number - 1]!, `${number}.${clip.codec}`);
  }
  await camera.arrived();
}

/** Reads at least `count` bytes of a body, and leaves the rest. */
async function readBytes(reader: ReadableStreamDefaultReader<Uint8Array>, count: number) {
  const chunks: Uint8Array[] = [];
  let length = 0;
  while (length < count) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    length += value.length;
  }
  return Buffer.concat(chunks);
}

function bytesOf(clip: Clip, from: number, to: number): Buffer {
  return Buffer.concat(clip.units.slice(from - 1, to));
}

async function ffmpegCount(): Promise<number> {
  return (await children()).filter(({ name }) => name === "ffmpeg").length;
}

const ffmpegTest = test.skipIf(needs !== "");

describe("latest.h264", () => {
  for (const codec of ["h264", "h265"] as const) {
    ffmpegTest(
      `${needs}latest.${codec} begins at the key frame before the newest, and goes on`,
      async () => {
        await using viewed = await startViewed();
        const clip = await makeClip(codec, 3 * groupLength);
        const camera = new Camera(viewed.server, "site", "gate");
        await store(camera, clip, 1, groupLength + 4);
        const answer = await viewed.get(`${path}/latest.${codec}`);
        expect(answer.headers.get("Content-Type")).toBe(`video/${codec}`);
        const reader = answer.body!.getReader();
        const first = bytesOf(clip, groupLength + 1, groupLength + 4);
        expect((await readBytes(reader, first.length)).equals(first)).toBe(true);
        await store(camera, clip, groupLength + 5, 3 * groupLength);
        const rest = bytesOf(clip, groupLength + 5, 3 * groupLength);
        expect((await readBytes(reader, rest.length)).equals(rest)).toBe(true);
        await reader.cancel();
        const other = codec === "h264" ? "h265" : "h264";
        const wrong = await viewed.get(`${path}/latest.${other}`);
        expect([wrong.status, (await wrong.json()).message]).toEqual([
          415,
          `Cannot send gate of site as ${other}: its frames are no ${other}; read latest.${codec}`,
        ]);
        await camera.end();
      },
    );
  }

  ffmpegTest(
    `${needs}a source that is not live is streamed from its last key frame on; another is not there`,
    async () => {
      const clip = await makeClip("h264", groupLength + 3);
      const folder = join(temporaryFolder(), "store");
      {
        await using viewed = await startViewed({}, folder);
        const camera = new Camera(viewed.server, "site", "gate");
        await store(camera, clip, 1, groupLength + 3);
        await camera.end();
      }
      await using viewed = await startViewed({}, folder);
      const reader = (await viewed.get(`${path}/latest.h264`)).body!.getReader();
      const last = bytesOf(clip, groupLength + 1, groupLength + 3);
      expect((await readBytes(reader, last.length)).equals(last)).toBe(true);
      await reader.cancel();
      const none = await viewed.get("/streams/site/sources/other/latest.h264");
      expect(none.status).toBe(404);
    },
  );

  ffmpegTest(
    `${needs}a source without key frames is streamed and shown from its newest recovery point on`,
    async () => {
      const units = await unitsOf(temporaryFolder(), "intra refresh", 75);
      const counts = units.map((unit) => pictureKind(unit, "h264")!.recoveryCount);
      const start = counts.findLastIndex((count) => count !== undefined);
      await using viewed = await startViewed();
      const camera = new Camera(viewed.server, "site", "gate");
      for (const [index, unit] of units.entries()) {
        if (index >= 3) camera.give(unit, `${index}.h264`);
      }
      await camera.arrived();
      const reader = (await viewed.get(`${path}/latest.h264`)).body!.getReader();
      const expected = Buffer.concat(units.slice(start));
      expect((await readBytes(reader, expected.length)).equals(expected)).toBe(true);
      await reader.cancel();
      const shown = await viewed.get(`${path}/latest.jpg`);
      expect([shown.status, shown.headers.get("Content-Type")]).toEqual([200, "image/jpeg"]);
      await camera.end();
    },
  );

  ffmpegTest(
    `${needs}a slow client goes on at a key frame, and what it gets decodes without a message`,
    async () => {
      await using viewed = await startViewed();
      // A group is larger than what sockets hold, so that a client that does not read is behind.
      const clip = await makeClip("h264", 2 * groupLength, "1280x720");
      const large = padded(clip, 1_000_000);
      const camera = new Camera(viewed.server, "site", "gate");
      await store(camera, large, 1, 2);
      const reader = (await viewed.get(`${path}/latest.h264`)).body!.getReader();
      const first = await readBytes(reader, large.units[0]!.length);
      await store(camera, large, 3, 2 * groupLength - 1);
      // The client is late when it has not caught up for a second.
      const start = performance.now();
      await until("a second", () => performance.now() - start > 1100);
      const marker = Buffer.from([0, 0, 0, 1, 0x0c, ...Buffer.alloc(20, 0xab)]);
      camera.give(Buffer.concat([clip.units.at(-1)!, marker]), "last.h264");
      const got = [first];
      while (!Buffer.concat(got.slice(-2)).includes(marker)) {
        got.push(Buffer.from((await reader.read()).value!));
      }
      await reader.cancel();
      const file = join(temporaryFolder(), "got.h264");
      writeFileSync(file, Buffer.concat(got));
      const shown = await pictureHashes(file);
      const all = await pictureHashes(clip.path);
      expect(shown.length).toBeLessThan(all.length);
      // Pictures after the gap are those from the second key frame on.
      expect(shown.slice(-groupLength)).toEqual(all.slice(groupLength));
      expect(all).toEqual(expect.arrayContaining(shown));
      const metrics = await (await viewed.get("/metrics")).text();
      const dropped = /^frames_viewer_dropped_total (\d+)/m.exec(metrics)?.[1];
      expect(Number(dropped)).toBe(all.length - shown.length);
      await camera.end();
    },
  );
});

describe("?gop=1", () => {
  ffmpegTest(`${needs}the group of a picture is what a decoder needs for it`, async () => {
    await using viewed = await startViewed();
    const clip = await makeClip("h265", 2 * groupLength);
    const camera = new Camera(viewed.server, "site", "gate");
    await store(camera, clip, 1, 2 * groupLength);
    await camera.end();
    const wanted = groupLength + 5;
    for (const address of [`numbers/${wanted}`, `frames/${wanted}.h265`]) {
      const answer = await viewed.get(`${path}/${address}?gop=1`);
      expect(answer.headers.get("Content-Type")).toBe("video/h265");
      expect(answer.headers.get("X-Key-Sequence")).toBe(String(groupLength + 1));
      expect(answer.headers.get("X-Sequence")).toBe(String(wanted));
      const bytes = Buffer.from(await answer.bytes());
      expect(bytes.equals(bytesOf(clip, groupLength + 1, wanted))).toBe(true);
    }
    const alone = await viewed.get(`${path}/numbers/${groupLength + 1}`);
    expect(alone.headers.get("X-Key")).toBe("true");
    expect(alone.headers.get("Content-Type")).toBe("video/h265");
    expect((await viewed.get(`${path}/numbers/${wanted}`)).headers.get("X-Key")).toBe("false");
  });

  ffmpegTest(
    `${needs}a group that is not whole is answered with 404 and what is missing`,
    async () => {
      await using viewed = await startViewed();
      const clip = await makeClip("h264", groupLength + 5);
      const camera = new Camera(viewed.server, "site", "gate");
      for (const number of [2, 3]) camera.give(clip.units[number - 1]!, `${number}.h264`);
      await store(camera, clip, groupLength + 1, groupLength + 1);
      await store(camera, clip, groupLength + 3, groupLength + 3);
      camera.give(await jpeg(), "5.jpg");
      await camera.arrived();
      await camera.end();
      const message = async (number: number) => {
        const answer = await viewed.get(`${path}/numbers/${number}?gop=1`);
        return [answer.status, ((await answer.json()) as { message: string }).message];
      };
      expect(await message(2)).toEqual([
        ...[404, "Cannot decode frame 2 of gate in site: no key frame before it is stored"],
      ]);
      expect(await message(5)).toEqual([
        ...[404, "Cannot decode frame 5 of gate in site: it is no encoded video"],
      ]);
      rmSync(join(viewed.server.directory, "site/gate", `${groupLength + 1}.h264`));
      const bytes = viewed.get(`${path}/numbers/4?gop=1`).then((answer) => answer.bytes());
      expect(await bytes.catch(() => "broken off")).toBe("broken off");
    },
  );

  ffmpegTest(
    `${needs}all viewers of latest.mjpeg share one ffmpeg, which ends after the last of them`,
    async () => {
      await using viewed = await startViewed();
      const clip = await makeClip("h265", 3 * groupLength);
      const camera = new Camera(viewed.server, "site", "gate");
      await store(camera, clip, 1, groupLength);
      const views = await Promise.all(
        [1, 2, 3].map(async () => parts(await viewed.get(`${path}/latest.mjpeg`))),
      );
      const first = await Promise.all(views.map((view) => view.next()));
      for (const { value } of first) {
        expect(Number(value!.headers.get("X-Sequence"))).toBeGreaterThan(0);
      }
      expect(await ffmpegCount()).toBe(1);
      await store(camera, clip, groupLength + 1, 3 * groupLength);
      for (const view of views) {
        for await (const { headers, body } of { [Symbol.asyncIterator]: () => view }) {
          expect((await new Bun.Image(body).metadata()).width).toBe(160);
          // On a busy machine ffmpeg gets no more than the key frames of the groups that follow.
          if (Number(headers.get("X-Sequence")) > groupLength) break;
        }
      }
      await camera.end();
      await until("the end of ffmpeg", async () => (await ffmpegCount()) === 0);
    },
  );

  ffmpegTest(
    `${needs}a fifth video has to wait until one of four is no longer watched, and all end with the server`,
    async () => {
      const viewed = await startViewed();
      const clip = await makeClip("h264", 1);
      const sources = [1, 2, 3, 4, 5].map((number) => `cam${number}`);
      for (const source of sources) {
        const camera = new Camera(viewed.server, "site", source);
        await store(camera, clip, 1, 1);
        await camera.end();
      }
      const watch = (source: string) => viewed.get(`/streams/site/sources/${source}/latest.mjpeg`);
      const views = await Promise.all(sources.slice(0, 4).map(watch));
      expect(views.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
      const full = await watch("cam5");
      expect([full.status, full.headers.get("Retry-After")]).toEqual([503, "1"]);
      const { message } = (await full.json()) as { message: string };
      expect(message).toMatch(/^Cannot show another video as JPEG: 4 are decoded/);
      await views[0]!.body!.cancel();
      let shown: Response | undefined;
      await until("room", async () => (shown = await watch("cam5")).status === 200);
      expect(await ffmpegCount()).toBe(4);
      await viewed.server.stop();
      await until("the end of all", async () => (await ffmpegCount()) === 0);
      expect(shown).toBeDefined();
    },
  );

  ffmpegTest(`${needs}pictures whose times repeat and jump back are shown too`, async () => {
    await using viewed = await startViewed();
    const clip = await makeClip("h264", 20);
    const camera = new Camera(viewed.server, "site", "gate");
    const second = 1_000_000_000n;
    const times = [9, 9, 9, 10, 9, 9, 11, 2, 2, 1, 12, 12, 5].map((time) => BigInt(time) * second);
    const give = (captured: bigint) => {
      camera.give(clip.units[camera.count]!, `${camera.count + 1}.h264`, captured);
    };
    give(times[0]!);
    await camera.arrived();
    const view = parts(await viewed.get(`${path}/latest.mjpeg`));
    expect((await view.next()).done).toBe(false);
    for (const captured of times.slice(1)) {
      give(captured);
      const { value } = await view.next();
      expect(value!.headers.get("X-Sequence")).toBe(String(camera.count));
    }
    await view.return(undefined);
    await camera.end();
  });

  test("without ffmpeg a video is answered with 415 and what to install or read", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    await camera.store(new Uint8Array([0, 0, 0, 1, 0x65, 0x88]), "1.h264");
    const searched = process.env["PATH"];
    process.env["PATH"] = temporaryFolder();
    try {
      for (const name of ["latest.jpg", "latest.mjpeg"]) {
        const answer = await viewed.get(`${path}/${name}`);
        const { error, message } = (await answer.json()) as { error: string; message: string };
        expect([answer.status, error]).toEqual([415, "missing"]);
        expect(message).toMatch(
          /ffmpeg is not installed; install ffmpeg 4\.4 or later; or read latest\.h264$/,
        );
      }
    } finally {
      process.env["PATH"] = searched;
    }
    await camera.end();
  });

  for (const [what, script, reason] of [
    ["fails", "echo '[fatal] no decoder' >&2; exit 3", "no decoder"],
    ["hangs", "exec sleep 1000", "ffmpeg returned no picture for 10 s"],
  ] as const) {
    test.skipIf(process.platform === "win32")(
      `an ffmpeg that ${what} ends the request with 415, and is gone`,
      async () => {
        await using viewed = await startViewed();
        const camera = new Camera(viewed.server, "site", "gate");
        await camera.store(new Uint8Array([0, 0, 0, 1, 0x65, 0x88]), "1.h264");
        const searched = process.env["PATH"];
        const folder = temporaryFolder();
        const version = `[ "$1" = -version ] && echo 'ffmpeg version 5.1' && exit 0`;
        const program = `#!/bin/sh\nPATH=${searched}\n${version}\n${script}\n`;
        writeFileSync(join(folder, "ffmpeg"), program, { mode: 0o755 });
        process.env["PATH"] = folder;
        try {
          const answer = await viewed.get(`${path}/latest.jpg`);
          const { message } = (await answer.json()) as { message: string };
          expect([answer.status, message]).toEqual([
            415,
            `Cannot show gate of site as JPEG: ${reason}; latest.h264 sends the stored bytes`,
          ]);
        } finally {
          process.env["PATH"] = searched;
        }
        const isLeft = ({ name }: { name: string }) => ["ffmpeg", "sleep"].includes(name);
        await until("its end", async () => !(await children()).some(isLeft));
        await camera.end();
      },
    );
  }

  test("latest.jpg of pictures is the newest one, converted if it is no JPEG", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    const bytes = await jpeg(90);
    await camera.store(bytes);
    const answer = await viewed.get(`${path}/latest.jpg`);
    expect(answer.headers.get("X-Sequence")).toBe("1");
    expect(Buffer.from(await answer.bytes()).equals(bytes)).toBe(true);
    await camera.store(Buffer.from("P5 8 8 255\n" + "x".repeat(64)), "2.pgm");
    const converted = await (await viewed.get(`${path}/latest.jpg`)).bytes();
    expect((await new Bun.Image(converted).metadata()).format).toBe("jpeg");
    await camera.store(Buffer.from("a,b"), "3.csv");
    expect((await viewed.get(`${path}/latest.jpg`)).status).toBe(415);
    await camera.end();
  });
});
