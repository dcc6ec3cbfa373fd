// Encoded video on a pipe, and what is said about unusual streams.
// Covers: source/live/encoded-video.ts, source/live/video-start.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, Loss } from "../../../src/frame.ts";
import { EncodedVideo } from "../../../src/source/live/encoded-video.ts";
import {
  type Capture,
  type CapturedFrame,
  IterableSource,
} from "../../../src/source/live/iterable-source.ts";
import { LiveSource } from "../../../src/source/live/live-source.ts";
import { videoPipeFrames } from "../../../src/source/live/video-pipe.ts";

/** A NAL unit of H.264. */
function unit(type: number, size = 20): Buffer<ArrayBuffer> {
  return Buffer.concat([Buffer.from([0, 0, 0, 1, type, 0x80]), Buffer.alloc(size, 0x55)]);
}
const sets = Buffer.concat([unit(7), unit(8)]);
const key = Buffer.concat([sets, unit(5)]);
const delta = unit(1);

/** Reads chunks as a pipe. The clock shows a second more for each chunk. */
async function readPipe(chunks: readonly Uint8Array[], maxFrameBytes = 1 << 20) {
  let now = 0;
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  const notices: string[] = [];
  const options = {
    codec: "h264",
    maxFrameBytes,
    clock: () => 1000 * ++now,
    onNotice: (message: string) => notices.push(message),
  } as const;
  const captures: Capture[] = [];
  let error: unknown;
  try {
    for await (const capture of videoPipeFrames(stream, options)) captures.push(capture);
  } catch (thrown) {
    error = thrown;
  }
  const bytes = captures.map((capture) => ("error" in capture ? undefined : capture.bytes));
  return { captures, bytes, notices, error };
}

describe("videoPipeFrames", () => {
  test("each access unit is a frame, with the time at which its first bytes came", async () => {
    const { bytes, captures, error } = await readPipe([
      key,
      delta.subarray(0, 9),
      delta.subarray(9),
    ]);
    expect(error).toBeUndefined();
    expect(bytes.map((one) => Buffer.from(one!))).toEqual([key, delta]);
    expect(captures.map((capture) => (capture as CapturedFrame).captured)).toEqual([
      1_000_000_000n,
      2_000_000_000n,
    ]);
    expect((captures[0] as CapturedFrame).extension).toBe("h264");
  });

  test("a pipe that begins in the middle goes on at the next key frame, and says what is left out", async () => {
    const { bytes, notices } = await readPipe([
      Buffer.concat([Buffer.alloc(99, 0x47), delta, delta, key, delta]),
    ]);
    expect(bytes.map((one) => Buffer.from(one!))).toEqual([key, delta]);
    expect(notices).toEqual([
      "2 pictures are left out: they came before a key frame and cannot be decoded",
    ]);
  });

  test("a pipe without any key frame is delivered after 300 pictures", async () => {
    const { bytes, notices } = await readPipe(Array.from({ length: 305 }, () => delta));
    expect(bytes.length).toBe(5);
    expect(notices).toEqual([
      "no key frame came in its first 100 pictures: set a key frame interval of 1 or 2 seconds at the camera",
      "300 pictures are left out: no key frame came",
    ]);
  });

  test("a pipe that ends without a key frame ends with a sentence, since nothing was delivered", async () => {
    // Two pictures, parameter sets only, and the beginning of an MP4 file with a start code inside.
    for (const input of [Buffer.concat([delta, delta]), sets, Buffer.from("ftypmp42\0\0\x01\0")]) {
      const { bytes, error } = await readPipe([input]);
      expect(bytes).toEqual([]);
      expect(error).toMatchObject({
        code: "unreadable",
        message: `Cannot read the pipe as H.264: no key frame came in ${input.length} bytes; check what writes it, and its codec`,
      });
    }
    expect((await readPipe([])).error).toBeUndefined();
  });

  test("an access unit over the limit is lost with its size", async () => {
    const { bytes, captures } = await readPipe([Buffer.concat([key, unit(1, 5000), delta])], 1000);
    expect(bytes.map((one) => one?.length)).toEqual([key.length, undefined, delta.length]);
    const { error } = captures[1] as { error: FramesError };
    expect([error.code, error.message]).toEqual([
      "too-large",
      "Cannot read a frame: it is 5006 bytes long, the limit is 1000",
    ]);
  });

  test("an MPEG transport stream ends the pipe with a sentence, although it contains start codes", async () => {
    const packet = Buffer.alloc(188, 0xff);
    packet[0] = 0x47;
    const { bytes, error } = await readPipe([Buffer.concat([packet, packet, packet, key, delta])]);
    expect(bytes).toEqual([]);
    expect(error).toMatchObject({
      code: "unreadable",
      message:
        "Cannot read the pipe as H.264: it is an MPEG transport stream; with ffmpeg, write -f h264",
    });
  });

  test("bytes without a start code end the pipe with a sentence, also if they never end", async () => {
    const message =
      "Cannot read the pipe as H.264: it has no start code of Annex B; with ffmpeg, write -f h264";
    expect((await readPipe([Buffer.from("JFIF")])).error).toMatchObject({
      code: "unreadable",
      message,
    });
    let chunks = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        chunks++;
        controller.enqueue(new Uint8Array(1 << 20).fill(0xff));
      },
    });
    const options = {
      codec: "h264",
      maxFrameBytes: 1000,
      clock: Date.now,
      onNotice: () => {},
    } as const;
    const frames = videoPipeFrames(endless, options);
    const error = await frames.next().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "unreadable", message });
    expect(chunks).toBeLessThan(30);
    expect((await readPipe([])).error).toBeUndefined();
  });
});

/** Returns what a source makes of these access units, one a second, and what it says. */
async function framesFrom(units: readonly Uint8Array[], isLive: boolean) {
  const notices: string[] = [];
  const video = new EncodedVideo("h264", (message) => notices.push(message));
  const settings = { started: 0, clock: () => 0, video };
  const captures = units.map((bytes, at) => ({ bytes, captured: BigInt(at) * 1_000_000_000n }));
  const source = isLive
    ? new LiveSource("gate", captures, { policy: "block", settings })
    : new IterableSource("gate", captures, settings);
  if (source instanceof LiveSource) source.onConnected();
  const items: (Frame | Loss)[] = [];
  for (let item; (item = await source.next()) !== undefined;) items.push(item);
  return { source, items, notices };
}

describe("EncodedVideo", () => {
  for (const isLive of [true, false]) {
    const what = isLive ? "a live source" : "a source of a program";
    test(`${what} says of each frame whether it is a key frame, and names it by its codec`, async () => {
      const { source, items, notices } = await framesFrom([key, delta, key], isLive);
      expect(source.type).toBe("video/h264");
      const frames = items as Frame[];
      expect(frames.map(({ isKey }) => isKey)).toEqual([true, false, true]);
      expect(frames[1]!.name).toBe("19700101T000000.000Z-00000002.h264");
      expect(notices).toEqual([]);
    });

    test(`${what} counts bytes that are no picture as lost, with a sentence`, async () => {
      const { items } = await framesFrom([key, Buffer.from("JFIF"), sets, delta], isLive);
      const losses = items.filter((item) => "error" in item);
      expect(losses.reduce((sum, { first, last }) => sum + last - first + 1, 0)).toBe(2);
      expect(losses[0]!.error.message).toBe(
        "Cannot send the frame: it holds no picture of H.264 in Annex B; check what the source sends",
      );
    });
  }

  test("a source that begins between key frames is delivered whole, and that is told", async () => {
    const { items, notices } = await framesFrom([delta, delta, key], false);
    expect(items.length).toBe(3);
    expect(notices).toEqual(["its pictures before the first key frame cannot be decoded"]);
  });

  test("a minute without a key frame is told once, with what to set at the camera", async () => {
    const deltas = Array.from({ length: 130 }, () => delta);
    const notice =
      "no key frame came for 60 s: viewers cannot begin, and lost pictures damage the ones after them; set a key frame interval of 1 or 2 seconds at the camera";
    expect((await framesFrom([key, ...deltas], false)).notices).toEqual([notice]);
    const { notices } = await framesFrom([key, ...deltas, key, ...deltas], false);
    expect(notices).toEqual([notice, notice]);
  });

  test("a stream that has recovery points instead of key frames is told once", async () => {
    const recovery = Buffer.concat([Buffer.from("000001060601a480", "hex"), delta]);
    const group = [recovery, ...Array.from({ length: 8 }, () => delta)];
    // Recovery points between key frames that are no more than ten seconds apart are no matter.
    expect((await framesFrom([key, ...group, key, ...group], false)).notices).toEqual([]);
    const groups = Array.from({ length: 20 }, () => group).flat();
    for (const pictures of [[key, ...groups], groups, [key, ...groups, key, ...groups]]) {
      const { items, notices } = await framesFrom(pictures, false);
      expect(items.length).toBe(pictures.length);
      expect(notices).toEqual([
        "it has recovery points instead of key frames: after lost pictures it goes on at one, with pictures that may be damaged; turn off intra refresh and open GOPs, and set a key frame interval of 1 or 2 seconds at the camera",
      ]);
    }
  });

  test("other parameter sets are told", async () => {
    const other = Buffer.concat([unit(7, 30), unit(8), unit(5)]);
    const { notices } = await framesFrom([key, delta, key, other, delta], false);
    expect(notices).toEqual(["the size or the coding of its pictures changed"]);
  });
});
