// H.264 and H.265 of files and cameras arrive as they are, compared with what ffmpeg copies.
// Covers: source/media/completeness.ts, source/media/describe.ts

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { FramesError } from "../../../src/errors.ts";
import type { CapturedFrame } from "../../../src/source/live/iterable-source.ts";
import { type MediaOptions, openMedia } from "../../../src/source/media/media.ts";
import type { SourceEvent } from "../../../src/source/source-event.ts";
import {
  isKeyFrame,
  isParameterSet,
  nalUnits,
  pictureKind,
  type VideoCodec,
} from "../../../src/video/nal-units.ts";
import {
  encode,
  encodings,
  md5,
  pictureHashes,
  unitHashes,
  unitsOf,
} from "../../helper/encoded-video.ts";
import { fieldUnits } from "../../helper/field-video.ts";
import { ffmpeg, framesOf, inFolder, inTime, needs, packetsOf } from "../../helper/ffmpeg.ts";
import { type RtspVideo, startRtspCamera } from "../../helper/rtsp-camera.ts";
import { until } from "../../helper/time.ts";

const test_ = test.skipIf(needs !== "");

function open(path: string, options: Partial<MediaOptions> = {}) {
  return inTime(openMedia(path, { maxFrameBytes: 64 << 20, ...options }), `opening ${path}`);
}

const typesOf = ({ bytes }: CapturedFrame, codec: "h264" | "h265" = "h264") =>
  [...nalUnits(bytes, codec)].map(({ type }) => type);

/** Whether a decoder can begin with a picture: a key frame or a recovery point. */
function isStart(bytes: Uint8Array, codec: VideoCodec): boolean {
  return pictureKind(bytes, codec)?.recoveryCount !== undefined;
}

/** Recovery points get parameter sets. Those of the clips have none of their own. */
function withoutAddedSets(bytes: Uint8Array, codec: VideoCodec): Uint8Array {
  if (isKeyFrame(bytes, codec) || !isStart(bytes, codec)) return bytes;
  const units = [...nalUnits(bytes, codec)].filter(({ type }) => !isParameterSet(type, codec));
  return Buffer.concat(units.map(({ start, end }) => bytes.subarray(start, end)));
}

describe("files", () => {
  for (const [kind, [codec]] of Object.entries(encodings)) {
    test_(
      `${needs}${kind}: every access unit of a file arrives byte for byte, and decodes as the source`,
      () =>
        inFolder(async (folder) => {
          const containers = ["mp4", "mkv", "ts", codec];
          const [coded, ...others] = containers.map((name) => join(folder, `clip.${name}`));
          await encode(coded!, kind);
          await ffmpeg("-i", coded!, ...others.flatMap((file) => ["-c", "copy", file]));
          const shown = await pictureHashes(coded!);
          for (const container of containers) {
            const file = join(folder, `clip.${container}`);
            const media = await open(file, { copies: true });
            expect(media).toMatchObject({ isLive: false, codec, type: `video/${codec}` });
            expect(media.description).toContain(", copied as it is");
            expect(media.description.includes("B-frames")).toBe(/B-frames|open/.test(kind));
            const { frames, losses, error } = await framesOf(media);
            expect([losses, error]).toEqual([[], undefined]);
            const arrived = frames.map(({ bytes }) => md5(withoutAddedSets(bytes, codec)));
            expect(arrived).toEqual(await unitHashes(file, codec));
            expect(new Set(frames.map(({ extension }) => extension))).toEqual(new Set([codec]));
            const keys = frames.filter(({ bytes }) => isStart(bytes, codec));
            const sets = codec === "h264" ? [7, 8] : [32, 33, 34];
            for (const key of keys)
              expect(typesOf(key, codec)).toEqual(expect.arrayContaining(sets));
            expect(isKeyFrame(frames[0]!.bytes, codec)).toBe(true);
            const copy = join(folder, `copy.${codec}`);
            await Bun.write(copy, Buffer.concat(frames.map(({ bytes }) => bytes)));
            expect(await pictureHashes(copy)).toEqual(shown);
          }
        }),
    );
  }

  test_(
    `${needs}field-coded video arrives byte for byte, each field as ffmpeg splits them, and decodes as the source`,
    () =>
      inFolder(async (folder) => {
        const fields = fieldUnits(12, 4);
        const source = join(folder, "clip.h264");
        await Bun.write(source, Buffer.concat(fields));
        const shown = await pictureHashes(source);
        expect(shown.length).toBe(12);
        for (const container of ["h264", "ts"]) {
          const file = join(folder, `clip.${container}`);
          if (file !== source) await ffmpeg("-i", source, "-c", "copy", file);
          const { frames, losses, error } = await framesOf(await open(file, { copies: true }));
          expect([losses, error]).toEqual([[], undefined]);
          expect(frames.map(({ bytes }) => md5(bytes))).toEqual(await unitHashes(file, "h264"));
          // Two fields make a picture, and only the first of a key picture is a key frame.
          const keys = frames.map(({ bytes }) => isKeyFrame(bytes, "h264"));
          expect(keys).toEqual(fields.map((_, index) => index % 8 === 0));
          const copy = join(folder, "copy.h264");
          await Bun.write(copy, Buffer.concat(frames.map(({ bytes }) => bytes)));
          expect(await pictureHashes(copy)).toEqual(shown);
        }
      }),
  );

  test_(
    `${needs}the capture times of copied pictures are those of the file, also with B-frames`,
    () =>
      inFolder(async (folder) => {
        for (const kind of ["high", "B-frames"]) {
          const file = join(folder, `${kind}.mp4`);
          await encode(file, kind);
          const { frames } = await framesOf(await open(file, { copies: true }));
          const packets = await packetsOf(file);
          const first = packets[0]!.seconds;
          for (const [index, { captured }] of frames.entries()) {
            const offset = Number(captured! - frames[0]!.captured!) / 1e9;
            expect(offset).toBeCloseTo(packets[index]!.seconds - first, 5);
          }
        }
      }),
  );

  test_(
    `${needs}a slow video is complete although its last picture is not the last one coded`,
    () =>
      inFolder(async (folder) => {
        const file = join(folder, "clip.mp4");
        await encode(file, "B-frames", 20, ["-f", "lavfi", "-i", "testsrc2=size=176x144:rate=1"]);
        const { frames, error } = await framesOf(await open(file, { copies: true }));
        expect([frames.length, error]).toEqual([20, undefined]);
      }),
  );

  test_(
    `${needs}a file is converted unless it is to be copied, and its description says what both cost`,
    () =>
      inFolder(async (folder) => {
        const file = join(folder, "clip.mp4");
        await encode(file, "high");
        const pictures = await open(file);
        expect(pictures.type).toBe("image/jpeg");
        expect(pictures.description).toMatch(
          /^176x144 h264 at 30 fps, becomes JPEG of quality 2, about \S+ [kM]B\/s \(--copy-video: about \S+ [kM]B\/s\)$/,
        );
        expect((await open(file, { copies: true })).description).toMatch(
          /^176x144 h264 at 30 fps, copied as it is, about \S+ [kM]B\/s \(without --copy-video: about \S+ [kM]B\/s\)$/,
        );
      }),
  );

  test_(`${needs}other video cannot be copied, which is said with its codec`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mkv");
      await ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:duration=1", "-c:v", "mpeg4", file);
      const error = (await open(file, { copies: true }).catch((thrown) => thrown)) as FramesError;
      expect(error).toMatchObject({
        code: "usage",
        message:
          "Cannot copy the video: it is mpeg4, and only H.264 and H.265 are copied; leave --copy-video out",
      });
      expect((await open(file)).type).toBe("image/jpeg");
    }),
  );

  test_(
    `${needs}a file that begins between key frames, and one whose size changes, arrive whole`,
    () =>
      inFolder(async (folder) => {
        const small = await unitsOf(folder, "high");
        const large = await unitsOf(folder, "main", 40, [
          ...["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30"],
        ]);
        const file = join(folder, "both.h264");
        const units = [...small.slice(11), ...large];
        await Bun.write(file, Buffer.concat(units));
        const { frames, error } = await framesOf(await open(file, { copies: true }));
        expect(error).toBeUndefined();
        expect(frames.map(({ bytes }) => md5(bytes))).toEqual(units.map(md5));
      }),
  );

  test_(`${needs}a damaged file is told, and what can be read arrives`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.ts");
      await encode(file, "high");
      const bytes = Buffer.from(await Bun.file(file).bytes());
      // Transport packets without their content.
      for (let at = 188 * 400; at < 188 * 420; at += 188) bytes.fill(0xff, at + 4, at + 188);
      bytes[188 * 500 + 1]! |= 0x80;
      await Bun.write(
        file,
        Buffer.concat([bytes.subarray(0, 188 * 600), bytes.subarray(188 * 640)]),
      );
      const notices: string[] = [];
      const onEvent = (event: SourceEvent) => {
        if (event.type === "notice") notices.push(event.message);
      };
      const { frames } = await framesOf(await open(file, { copies: true, onEvent }));
      expect(frames.length).toBeGreaterThan(60);
      expect(new Set(notices)).toEqual(
        new Set(["parts of it cannot be read: pictures are damaged until the next key frame"]),
      );
    }),
  );

  test_(`${needs}a picture whose NAL units have a wrong length is told`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mp4");
      await encode(file, "high");
      const bytes = Buffer.from(await Bun.file(file).bytes());
      bytes.writeUInt32BE(2 ** 31 - 1, bytes.indexOf("mdat") + 4);
      await Bun.write(file, bytes);
      const notices: string[] = [];
      const onEvent = (event: SourceEvent) => {
        if (event.type === "notice") notices.push(event.message);
      };
      const { frames } = await framesOf(await open(file, { copies: true, onEvent }));
      expect([frames.length, notices]).toEqual([
        74,
        ["parts of it cannot be read: pictures are damaged until the next key frame"],
      ]);
    }),
  );

  test_(`${needs}a file that claims H.264 and is not is refused with a sentence`, () =>
    inFolder(async (folder) => {
      const file = join(folder, "clip.mp4");
      await encode(file, "high");
      const bytes = Buffer.from(await Bun.file(file).bytes());
      const [from, to] = [bytes.indexOf("mdat") + 4, bytes.lastIndexOf("moov") - 4];
      for (let at = from; at < to; at++) bytes[at] = (at * 7919) >> 3;
      await Bun.write(file, bytes);
      const error = (await open(file, { copies: true }).catch((thrown) => thrown)) as FramesError;
      expect(error.code).toBe("unreadable");
      expect(error.message).toStartWith(`Cannot read ${file}: `);
    }),
  );
});

/** Runs `use` with a camera of this video, and returns what was said meanwhile. */
async function withCamera(
  video: RtspVideo,
  use: (url: string, options: Partial<MediaOptions>) => Promise<void>,
): Promise<{ notices: string[]; retries: string[] }> {
  const camera = startRtspCamera(video);
  const [notices, retries]: [string[], string[]] = [[], []];
  try {
    await use(`rtsp://127.0.0.1:${camera.port}/1`, {
      onEvent(event) {
        if (event.type === "notice") notices.push(event.message);
        if (event.type === "retry") retries.push(event.error.message);
      },
    });
  } finally {
    camera.stop();
  }
  return { notices, retries };
}

/** Returns the NAL units of pictures without start codes and zeros around them, which RTP lacks. */
function contents(units: readonly Uint8Array[], codec: "h264" | "h265"): string[][] {
  return units.map((unit) =>
    [...nalUnits(unit, codec)].map(({ header, end }) => {
      const last = unit.subarray(0, end).findLastIndex((byte) => byte !== 0);
      return md5(unit.subarray(header, last + 1));
    }),
  );
}

/** Returns the access units without parameter sets, and a session description that has them. */
function withoutSets(units: readonly Uint8Array[]) {
  const isSet = ({ type }: { type: number }) => type === 7 || type === 8;
  const [first] = units;
  const sets = [...nalUnits(first!, "h264")].filter(isSet);
  const texts = sets.map(({ header, end }) =>
    Buffer.from(first!.subarray(header, end)).toString("base64"),
  );
  const pictures = units.map((unit) => {
    const rest = [...nalUnits(unit, "h264")].filter((part) => !isSet(part));
    return Buffer.concat(rest.map(({ start, end }) => unit.subarray(start, end)));
  });
  return { pictures, parameters: `packetization-mode=1;sprop-parameter-sets=${texts.join(",")}` };
}

describe("RTSP cameras", () => {
  for (const kind of ["baseline", "high", "H.265 main"]) {
    test_(`${needs}${kind}: the pictures of a camera arrive as they are, in their order`, () =>
      inFolder(async (folder) => {
        const [codec] = encodings[kind]!;
        const units = await unitsOf(folder, kind);
        const { notices } = await withCamera(
          { codec, units: () => units },
          async (url, options) => {
            const media = await open(url, options);
            expect(media).toMatchObject({ isLive: true, codec, type: `video/${codec}` });
            expect(media.description).toMatch(
              /^176x144 \w+ at 30 fps, copied as it is \(--convert jpeg: about \S+ [kM]B\/s\)$/,
            );
            const { frames } = await framesOf(media, units.length);
            const bytes = frames.map((frame) => frame.bytes);
            expect(contents(bytes, codec)).toEqual(contents(units, codec));
            const times = frames.map(({ captured }) => captured!);
            expect(times).toEqual(times.toSorted((a, b) => Number(a - b)));
            expect(times.at(-1)).toBeLessThanOrEqual(BigInt(Date.now()) * 1_000_000n);
          },
        );
        expect(notices).toEqual([]);
      }),
    );
  }

  for (const kind of ["B-frames", "H.265 with B-frames and open GOP"]) {
    test_(`${needs}${kind}: the pictures of a camera keep their times in decoding order`, () =>
      inFolder(async (folder) => {
        const [codec] = encodings[kind]!;
        const file = join(folder, "clip.mp4");
        await encode(file, kind);
        const times = (await packetsOf(file)).map(({ seconds }) => seconds);
        const units = await unitsOf(folder, kind);
        const timeOf = (index: number) => Math.round((times[index]! + 1) * 90_000);
        await withCamera({ codec, units: () => units, timeOf }, async (url, options) => {
          const media = await open(url, options);
          expect(media.description).toContain("because of B-frames: set them to 0 at the camera");
          const { frames } = await framesOf(media, units.length);
          const bytes = frames.map((frame) => frame.bytes);
          expect(contents(bytes, codec)).toEqual(contents(units, codec));
          // ffmpeg gives no time for the first pictures.
          for (let at = 5; at < frames.length; at++) {
            const isLater = frames[at]!.captured! >= frames[at - 1]!.captured!;
            expect([at, isLater]).toEqual([at, times[at]! > times[at - 1]!]);
          }
        });
      }),
    );
  }

  test_(`${needs}a camera is converted to pictures if that is asked for`, () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "high");
      await withCamera({ codec: "h264", units: () => units }, async (url, options) => {
        const media = await open(url, { ...options, copies: false });
        expect(media.description).toMatch(/^176x144 h264 at 30 fps, becomes JPEG of quality 2/);
        expect((await framesOf(media, 3)).frames[0]!.bytes.subarray(0, 2).toHex()).toBe("ffd8");
      });
    }),
  );

  test_(`${needs}parameter sets that only the session describes are in each key frame`, () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "high");
      const { pictures, parameters } = withoutSets(units);
      await withCamera(
        { codec: "h264", units: () => pictures, parameters },
        async (url, options) => {
          const { frames } = await framesOf(await open(url, options), units.length);
          const keys = frames.filter(({ bytes }) => isKeyFrame(bytes, "h264"));
          expect(keys.length).toBe(3);
          for (const key of keys) expect(typesOf(key)).toEqual(expect.arrayContaining([7, 8]));
          const copy = join(folder, "copy.h264");
          const original = join(folder, "original.h264");
          await Bun.write(copy, Buffer.concat(frames.map(({ bytes }) => bytes)));
          await Bun.write(original, Buffer.concat(units));
          expect(await pictureHashes(copy)).toEqual(await pictureHashes(original));
        },
      );
    }),
  );

  test_(`${needs}pictures before the first key frame are left out and counted`, () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "high", 90);
      // The first connection only finds out what the camera sends.
      const from = (play: number) => (play === 0 ? units : units.slice(11));
      const { notices } = await withCamera({ codec: "h264", units: from }, async (url, options) => {
        const { frames } = await framesOf(await open(url, options), 60);
        const bytes = frames.map((frame) => frame.bytes);
        expect(contents(bytes, "h264")).toEqual(contents(units.slice(30), "h264"));
      });
      expect(notices).toEqual([
        "19 pictures are left out: they came before a key frame and cannot be decoded",
      ]);
    }),
  );

  test_(`${needs}a stream without key frames is delivered after a while`, () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "intra refresh", 450);
      const { pictures, parameters } = withoutSets(units);
      // Without the messages that mark recovery points.
      const bare = pictures.slice(1).map((unit) => {
        const slice = [...nalUnits(unit, "h264")].find(({ type }) => type === 1)!;
        return unit.subarray(slice.start);
      });
      const video = { codec: "h264", units: () => bare, parameters } as const;
      const { notices } = await withCamera(video, async (url, options) => {
        const { frames } = await framesOf(await open(url, options), 100);
        expect(frames.length).toBe(100);
      });
      expect(notices).toEqual([
        "no key frame came in its first 100 pictures: set a key frame interval of 1 or 2 seconds at the camera",
        "300 pictures are left out: no key frame came",
      ]);
    }),
  );

  test_(`${needs}lost packets are told, and the pictures around them arrive`, () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "high");
      const isLost = (packet: number) => packet % 50 === 49;
      const { notices } = await withCamera(
        { codec: "h264", units: () => units, isLost },
        async (url, options) => {
          const { frames, losses } = await framesOf(await open(url, options), 60);
          expect([frames.length, losses.length]).toEqual([60, 0]);
          const found = new Set(
            contents(
              frames.map(({ bytes }) => bytes),
              "h264",
            ).map(String),
          );
          const whole = contents(units, "h264").filter((unit) => found.has(String(unit)));
          expect(whole.length).toBeGreaterThan(40);
        },
      );
      // ffmpeg guesses the times of some pictures around a loss, so these may jump too.
      expect(new Set(notices.filter((notice) => notice !== "its timestamps jump"))).toEqual(
        new Set([
          "data was lost on its way: pictures are damaged until the next key frame; use RTSP over TCP, or check the link",
        ]),
      );
    }),
  );

  test_(`${needs}timestamps that jump or repeat are told, and every picture arrives`, () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "high");
      // Two jumps forward, a repeated time, and a jump back. The first jump of a stream is usual.
      const timeOf = (index: number) => {
        if (index < 20) return index * 3000;
        if (index < 25) return 60_000;
        return (index < 40 ? 9e6 : index < 60 ? 18e6 : 0) + index * 3000;
      };
      const { notices } = await withCamera(
        { codec: "h264", units: () => units, timeOf },
        async (url, options) => {
          const before = BigInt(Date.now()) * 1_000_000n;
          const { frames } = await framesOf(await open(url, options), units.length);
          const bytes = frames.map((frame) => frame.bytes);
          expect(contents(bytes, "h264")).toEqual(contents(units, "h264"));
          const now = BigInt(Date.now()) * 1_000_000n;
          for (const { captured } of frames) {
            expect(captured! > before - 60_000_000_000n && captured! <= now).toBe(true);
          }
        },
      );
      expect(new Set(notices)).toEqual(new Set(["its timestamps jump"]));
    }),
  );

  test_(
    `${needs}timestamps that stand still or run backwards are told, and every picture arrives`,
    () =>
      inFolder(async (folder) => {
        const units = await unitsOf(folder, "high");
        for (const timeOf of [() => 90_000, (index: number) => 9e6 - index * 3000]) {
          const { notices } = await withCamera(
            { codec: "h264", units: () => units, timeOf },
            async (url, options) => {
              const { frames } = await framesOf(await open(url, options), units.length);
              const bytes = frames.map((frame) => frame.bytes);
              expect(contents(bytes, "h264")).toEqual(contents(units, "h264"));
            },
          );
          expect(notices).toEqual(["its timestamps do not advance"]);
        }
      }),
  );

  test_(`${needs}a camera that restarts with another size goes on, from a key frame`, () =>
    inFolder(async (folder) => {
      const small = await unitsOf(folder, "high");
      const large = await unitsOf(folder, "main", 60, [
        ...["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30"],
      ]);
      // Connections in order: probe and pictures, probe and pictures.
      const from = (play: number) => (play < 2 ? small : large);
      const { retries } = await withCamera({ codec: "h264", units: from }, async (url, options) => {
        const { frames } = await framesOf(await open(url, options), small.length + large.length);
        const bytes = frames.map((frame) => frame.bytes);
        expect(contents(bytes, "h264")).toEqual(contents([...small, ...large], "h264"));
      });
      expect(retries).toEqual([expect.stringContaining("; starting it again in 1 s")]);
    }),
  );

  test_(
    `${needs}both fields of a camera's picture arrive in their order, although they have one time`,
    async () => {
      const fields = fieldUnits(75, 25);
      const timeOf = (index: number) => Math.floor(index / 2) * 3600;
      const video = { codec: "h264", units: () => fields, timeOf } as const;
      const { notices } = await withCamera(video, async (url, options) => {
        const { frames, error } = await framesOf(await open(url, options), 120);
        expect(error).toBeUndefined();
        const arrived = contents(
          frames.map(({ bytes }) => bytes),
          "h264",
        );
        expect(arrived).toEqual(contents(fields.slice(0, 120), "h264"));
      });
      expect(notices).toEqual([]);
    },
  );

  test_(`${needs}a camera that restarts with another codec ends the source with a sentence`, () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "high");
      const other = await unitsOf(folder, "H.265 main");
      const camera = startRtspCamera({ codec: "h264", units: () => units });
      const { port } = camera;
      let again: ReturnType<typeof startRtspCamera> | undefined;
      try {
        const url = `rtsp://127.0.0.1:${port}/1`;
        const retries: string[] = [];
        const onEvent = (event: SourceEvent) => {
          if (event.type === "retry") retries.push(event.error.message);
        };
        const media = await open(url, { onEvent });
        const frames = framesOf(media, 1000);
        await until("the end of the first stream", () => {
          if (retries.length === 0 || again !== undefined) return again !== undefined;
          camera.stop();
          again = startRtspCamera({ codec: "h265", units: () => other }, undefined, port);
          return true;
        });
        const { error } = await frames;
        expect(error).toMatchObject({
          code: "changed",
          message: `Cannot read ${url} any further: it sends hevc since it was restarted; start frames again`,
        });
      } finally {
        camera.stop();
        again?.stop();
      }
    }),
  );

  test_(`${needs}a picture over the limit is lost with its size, and the others arrive`, () =>
    inFolder(async (folder) => {
      const units = await unitsOf(folder, "high");
      const sizes = units.map(({ length }) => length);
      const largest = Math.max(...sizes);
      await withCamera({ codec: "h264", units: () => units }, async (url, options) => {
        const limits = { ...options, maxFrameBytes: largest - 20 };
        const { frames, losses } = await framesOf(await open(url, limits), units.length - 1);
        expect(frames.length).toBe(units.length - 1);
        expect(losses.map(({ error }) => error.code)).toEqual(["too-large"]);
      });
    }),
  );
});
