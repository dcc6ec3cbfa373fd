// A video that was sent picture by picture comes out as a file that decodes to the same pictures.
//
// Covers: client/new-file.ts

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { receive, type ReceiveEvent, send } from "frames";
import type { FramesError } from "../../src/errors.ts";
import { pictureKind } from "../../src/video/nal-units.ts";
import {
  type Clip,
  groupLength,
  makeClip,
  pictureHashes,
  unitsOf,
} from "../helper/encoded-video.ts";
import { children, needs, packetsOf } from "../helper/ffmpeg.ts";
import { fieldUnits } from "../helper/field-video.ts";
import { temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { startViewed } from "../helper/viewing.ts";

/** Capture time of a picture: they come irregularly, 20 or 60 ms apart. */
function capturedAt(index: number): bigint {
  const milliseconds = index * 40 + (index % 2) * 20;
  return 1_700_000_000_000_000_000n + BigInt(milliseconds) * 1_000_000n;
}

/** Sends the access units of a clip from `first` on, each as a frame. */
async function sendClip(clip: Clip, to: string, stream: string, first = 0): Promise<void> {
  const frames = clip.units.slice(first).map((bytes, index) => ({
    ...{ bytes, name: `${first + index + 1}.${clip.codec}`, captured: capturedAt(first + index) },
  }));
  await send(frames, { to, stream, source: "cam" });
}

/** Looks for programs only in a folder. */
async function withPath(folder: string, use: () => Promise<void>): Promise<void> {
  const path = process.env["PATH"];
  process.env["PATH"] = folder;
  try {
    await use();
  } finally {
    process.env["PATH"] = path;
  }
}

/** Returns the error with which a session fails. */
async function failureOf(work: Promise<unknown>, code: string): Promise<FramesError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toMatchObject({ code });
  return error as FramesError;
}

describe("a video file", () => {
  for (const codec of ["h264", "h265"] as const) {
    for (const extension of ["mp4", "mkv"]) {
      test.skipIf(needs !== "")(
        `${needs}${codec} in ${extension} has the pictures of its source at their times`,
        async () => {
          await using viewed = await startViewed();
          const clip = await makeClip(codec, 35);
          await sendClip(clip, viewed.server.address, "run");
          const file = join(temporaryFolder(), `out.${extension}`);
          const events: ReceiveEvent[] = [];
          const onEvent = (event: ReceiveEvent) => void events.push(event);
          const summary = await receive("run", { from: viewed.server.address, file, onEvent });
          expect(summary).toMatchObject({ frames: 35, interrupted: false, reasons: {} });
          expect(events).toContainEqual({ type: "file", path: file });
          expect(await pictureHashes(file)).toEqual(await pictureHashes(clip.path));
          const times = (await packetsOf(file)).map(({ seconds }) => Math.round(seconds * 1000));
          const expected = clip.units.map((_, index) =>
            Number((capturedAt(index) - capturedAt(0)) / 1_000_000n),
          );
          expect(times).toEqual(expected);
          expect(readdirSync(join(file, ".."))).toEqual([`out.${extension}`]);
        },
      );
    }
  }

  for (const extension of ["mp4", "mkv"]) {
    test.skipIf(needs !== "")(
      `${needs}pictures whose times repeat and jump back are all in an ${extension}`,
      async () => {
        await using viewed = await startViewed();
        const clip = await makeClip("h264", 12);
        const times = [9, 9, 9, 10, 9, 9, 11, 2, 2, 1, 12, 5];
        const frames = clip.units.map((bytes, index) => ({
          ...{ bytes, name: `${index}.h264`, captured: BigInt(times[index]!) * 1_000_000_000n },
        }));
        await send(frames, { to: viewed.server.address, stream: "run", source: "cam" });
        const file = join(temporaryFolder(), `out.${extension}`);
        await receive("run", { from: viewed.server.address, file });
        expect(await pictureHashes(file)).toEqual(await pictureHashes(clip.path));
      },
    );
  }

  test.skipIf(needs !== "")(
    `${needs}a video that begins between key frames is written from the first key frame on, and that is reported`,
    async () => {
      await using viewed = await startViewed();
      const clip = await makeClip("h264", groupLength + 5);
      await sendClip(clip, viewed.server.address, "run", 3);
      const file = join(temporaryFolder(), "out.mp4");
      const events: ReceiveEvent[] = [];
      const onEvent = (event: ReceiveEvent) => void events.push(event);
      await receive("run", { from: viewed.server.address, file, onEvent });
      const undecodable = { type: "undecodable", frames: groupLength - 3 } as const;
      expect(events).toContainEqual(undecodable);
      expect(await pictureHashes(file)).toEqual(
        (await pictureHashes(clip.path)).slice(groupLength),
      );

      const beginning = { ...clip, units: clip.units.slice(0, 9) };
      await sendClip(beginning, viewed.server.address, "none", 3);
      const none = join(temporaryFolder(), "none.mp4");
      await receive("none", { from: viewed.server.address, file: none, onEvent });
      expect(events).toContainEqual({ type: "undecodable", frames: 6 });
      expect(existsSync(none)).toBe(false);
    },
  );

  test.skipIf(needs !== "")(
    `${needs}field-coded video is written with the same pictures`,
    async () => {
      await using viewed = await startViewed();
      const folder = temporaryFolder();
      const fields = fieldUnits(12, 4);
      const source = join(folder, "source.h264");
      await Bun.write(source, Buffer.concat(fields));
      const frames = fields.map((bytes, index) => ({
        ...{ bytes, extension: "h264", captured: capturedAt(index) },
      }));
      await send(frames, { to: viewed.server.address, stream: "run", source: "cam" });
      for (const name of ["out.mp4", "out.mkv"]) {
        const file = join(folder, name);
        await receive("run", { from: viewed.server.address, file });
        expect(await pictureHashes(file)).toEqual(await pictureHashes(source));
      }
    },
  );

  test.skipIf(needs !== "")(
    `${needs}a video without key frames is written from a recovery point on, and what may be damaged is counted`,
    async () => {
      await using viewed = await startViewed();
      const folder = temporaryFolder();
      const units = await unitsOf(folder, "intra refresh", 75);
      const counts = units.map((unit) => pictureKind(unit, "h264")!.recoveryCount);
      const start = counts.findIndex((count, index) => index > 0 && count !== undefined);
      const frames = units.slice(3).map((bytes, index) => ({
        ...{ bytes, extension: "h264", captured: capturedAt(index) },
      }));
      await send(frames, { to: viewed.server.address, stream: "run", source: "cam" });
      const whole = join(folder, "whole.h264");
      await Bun.write(whole, Buffer.concat(units));
      const right = (await pictureHashes(whole)).slice(start + counts[start]!);
      expect(right.length).toBeGreaterThan(10);
      for (const name of ["out.mp4", "out.mkv"]) {
        const events: ReceiveEvent[] = [];
        const onEvent = (event: ReceiveEvent) => void events.push(event);
        const file = join(folder, name);
        await receive("run", { from: viewed.server.address, file, onEvent });
        expect(await packetsOf(file)).toHaveLength(units.length - start);
        // ffmpeg shows none of the pictures that may be damaged.
        expect(await pictureHashes(file)).toEqual(right);
        expect(events).toContainEqual({ type: "undecodable", frames: start - 3 });
        expect(events).toContainEqual({ type: "maybe-damaged", frames: counts[start]! });
      }
    },
  );

  test.skipIf(needs !== "")(
    `${needs}pictures, two sources and a taken name are refused, and leave no file`,
    async () => {
      await using viewed = await startViewed();
      const to = viewed.server.address;
      const clip = await makeClip("h264", 3);
      await sendClip(clip, to, "two");
      await send([{ bytes: clip.units[0]!, name: "1.h264" }], { to, stream: "two", source: "b" });
      await send([{ bytes: new Uint8Array(9), name: "1.jpg" }], { to, stream: "jpg", source: "a" });
      const folder = temporaryFolder();
      const file = join(folder, "out.mkv");
      const both = await failureOf(receive("two", { from: to, file }), "usage");
      expect(both.message).toMatch(/to one video: choose one with --source NAME$/);
      const picture = await failureOf(receive("jpg", { from: to, file }), "usage");
      expect(picture.message).toMatch(/"1\.jpg" of a is no H\.264 or H\.265/);
      await failureOf(receive("none", { from: to, file }), "missing");
      expect(existsSync(file)).toBe(false);
      writeFileSync(file, "taken");
      await failureOf(receive("two", { from: to, file, sources: ["cam"] }), "usage");
      expect(await Bun.file(file).text()).toBe("taken");
    },
  );

  test.skipIf(process.platform === "win32")(
    "an ffmpeg that fails ends with its message, without a file of the name or a process",
    async () => {
      await using viewed = await startViewed();
      const to = viewed.server.address;
      const bytes = new Uint8Array([0, 0, 0, 1, 0x65, 0x88, 0x80, 1, 2, 3]);
      const frames = [1, 2, 3].map((number) => ({ bytes, name: `${number}.h264` }));
      await send(frames, { to, stream: "s", source: "a" });
      const program = join(temporaryFolder(), "ffmpeg");
      writeFileSync(program, "#!/bin/sh\necho '[fatal] the disk is full' >&2; exit 5", {
        mode: 0o755,
      });
      const file = join(temporaryFolder(), "out.mp4");
      await withPath(join(program, ".."), async () => {
        const refused = await failureOf(receive("s", { from: to, file }), "store");
        expect(refused.message).toBe(
          `Cannot write ${file}: ffmpeg failed with exit code 5: the disk is full`,
        );
      });
      expect(existsSync(file)).toBe(false);
      const isLeft = async () => (await children()).some(({ name }) => name === "ffmpeg");
      await until("the end of ffmpeg", async () => !(await isLeft()));
    },
  );

  test("without ffmpeg the error says what to install, before anything is received", () =>
    withPath(temporaryFolder(), async () => {
      const file = join(temporaryFolder(), "out.mp4");
      const refused = await failureOf(receive("s", { from: "127.0.0.1:1", file }), "missing");
      expect(refused.message).toMatch(/ffmpeg is not installed; install ffmpeg 4\.4 or later$/);
    }));

  test.skipIf(needs !== "")(
    `${needs}a video that is followed is complete when it is stopped`,
    async () => {
      await using viewed = await startViewed();
      const clip = await makeClip("h264", 12);
      await sendClip(clip, viewed.server.address, "run");
      const file = join(temporaryFolder(), "out.mp4");
      const stopping = new AbortController();
      const onEvent = (event: ReceiveEvent) => {
        if (event.type !== "progress") return;
        if (event.sources.some(({ settled }) => settled === 12)) stopping.abort();
      };
      const { signal } = stopping;
      await receive("run", { from: viewed.server.address, file, follow: true, signal, onEvent });
      expect((await pictureHashes(file)).length).toBe(12);
    },
  );
});
