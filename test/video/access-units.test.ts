// Encoded video is split into access units, each of one picture, with key frames told apart.
// Covers: video/nal-units.ts, video/parameter-sets.ts

import { describe, expect, test } from "bun:test";
import { AccessUnitSplitter } from "../../src/video/access-units.ts";
import { isKeyFrame, nalUnits, pictureKind, type VideoCodec } from "../../src/video/nal-units.ts";
import { ParameterSets } from "../../src/video/parameter-sets.ts";
import { ffmpeg, needs } from "../helper/ffmpeg.ts";
import { fieldUnits } from "../helper/field-video.ts";
import { Random } from "../wire/fuzz.ts";

/** A NAL unit of this type; a slice that begins a picture, unless `isFirst` is false. */
function unit(codec: VideoCodec, type: number, isFirst = true, size = 20, long = true): Buffer {
  const header = codec === "h264" ? [type] : [type << 1, 1];
  const body = Buffer.alloc(size, 0x55);
  body[0] = isFirst ? 0x80 : 0x40;
  return Buffer.from([...(long ? [0] : []), 0, 0, 1, ...header, ...body]);
}

function split(stream: Uint8Array, codec: VideoCodec, step = Infinity, maxBytes = 1e6) {
  const splitter = new AccessUnitSplitter(codec, maxBytes);
  const units: (Uint8Array | number)[] = [];
  for (let at = 0; at < stream.length; at += step) {
    units.push(...splitter.push(stream.subarray(at, Math.min(stream.length, at + step))));
  }
  return [...units, ...splitter.end()];
}

const typesOf = (bytes: Uint8Array, codec: VideoCodec) =>
  [...nalUnits(bytes, codec)].map(({ type }) => type);

describe("AccessUnitSplitter", () => {
  const streams: Record<VideoCodec, number[][]> = {
    // Delimiter, sets, information, slices; then pictures without and with a delimiter.
    h264: [[9, 7, 8, 6, 5, 5], [1], [6, 1], [9, 1], [7, 8, 5], [1, 1]],
    h265: [[35, 32, 33, 34, 39, 19], [1], [39, 1], [35, 0], [32, 33, 34, 21], [9], [1, 1]],
  };
  for (const codec of ["h264", "h265"] as const) {
    const pictures = streams[codec].map((types) => {
      let isFirst = true;
      return Buffer.concat(
        types.map((type) => {
          const isPicture = codec === "h264" ? type <= 5 : type < 32;
          const made = unit(codec, type, isFirst || !isPicture);
          if (isPicture) isFirst = false;
          return made;
        }),
      );
    });

    test(`${codec}: a stream is cut where pictures begin, wherever the chunks are cut`, () => {
      for (const step of [1, 2, 3, 5, 17, Infinity]) {
        const units = split(Buffer.concat(pictures), codec, step);
        expect(units.map((one) => typesOf(one as Uint8Array, codec))).toEqual(streams[codec]);
        expect(Buffer.concat(units as Uint8Array[]).equals(Buffer.concat(pictures))).toBe(true);
      }
    });

    test(`${codec}: a key frame without parameter sets gets those of the stream, after its delimiter`, () => {
      const [delimiter, key, delta] = codec === "h264" ? [9, 5, 1] : [35, 20, 1];
      const sets = codec === "h264" ? [7, 8, 8] : [32, 33, 34];
      const more = codec === "h264" ? 8 : 34;
      const stream = Buffer.concat([
        ...[...sets, key, delta].map((type) => unit(codec, type)),
        unit(codec, more, true, 21),
        ...[delta, delimiter, key].map((type) => unit(codec, type)),
      ]);
      expect(split(stream, codec).map((one) => typesOf(one as Uint8Array, codec))).toEqual([
        [...sets, key],
        [delta],
        [more, delta],
        // Equal sets are added once.
        [delimiter, ...new Set(sets), more, key],
      ]);
    });

    test(`${codec}: a picture over the limit is dropped with its size, and the next one is whole`, () => {
      const [key, delta] = codec === "h264" ? [5, 1] : [19, 1];
      const stream = Buffer.concat([
        unit(codec, key),
        unit(codec, delta, true, 5000),
        unit(codec, delta, true, 30, false),
      ]);
      for (const step of [1, 100, Infinity]) {
        const units = split(stream, codec, step, 1000);
        const [first, lost, last] = units;
        expect(units.length).toBe(3);
        expect(typesOf(first as Uint8Array, codec)).toEqual([key]);
        expect(lost).toBe(5004 + (codec === "h264" ? 1 : 2));
        expect((last as Uint8Array).length).toBe(30 + 3 + (codec === "h264" ? 1 : 2));
      }
    });
  }

  test("field-coded video is cut into fields, wherever the chunks are cut", () => {
    const fields = fieldUnits(6, 3);
    for (const step of [1, 5, 100, Infinity]) {
      const units = split(Buffer.concat(fields), "h264", step) as Uint8Array[];
      expect(units.map((one, index) => fields[index]?.equals(one))).toEqual(fields.map(() => true));
    }
  });

  test("bytes over the limit are told by their size, also if no picture ends them", () => {
    const flood = Buffer.concat([unit("h264", 5), ...Array<Buffer>(99).fill(unit("h264", 7))]);
    const sizes = split(flood, "h264", 64, 1000).map((one) =>
      typeof one === "number" ? one : one.length,
    );
    expect(sizes).toEqual([25, flood.length - 25]);
  });

  test("bytes before the first start code are dropped, wherever the chunks are cut", () => {
    const picture = Buffer.concat([unit("h264", 7), unit("h264", 8), unit("h264", 5)]);
    const stream = Buffer.concat([Buffer.alloc(100, 0x47), Buffer.from([0]), picture, picture]);
    for (const step of [1, 2, 3, 50, Infinity]) {
      const units = split(stream, "h264", step) as Uint8Array[];
      expect(units.map((one) => picture.equals(one))).toEqual([true, true]);
    }
    const splitter = new AccessUnitSplitter("h264", 1000);
    for (let count = 0; count < 10; count++) {
      expect([...splitter.push(Buffer.alloc(5000, 0xff))]).toEqual([]);
    }
    expect(splitter.isAligned).toBe(false);
    expect([...splitter.end()]).toEqual([]);
  });

  test("any bytes end, and no bytes are lost or added but parameter sets", () => {
    const random = new Random(23);
    for (let round = 0; round < 500; round++) {
      const codec = random.pick(["h264", "h265"] as const);
      const stream = Buffer.concat(
        Array.from({ length: 1 + random.below(12) }, () =>
          unit(
            codec,
            random.below(codec === "h264" ? 32 : 64),
            random.below(2) === 0,
            random.below(40) + 1,
          ),
        ),
      );
      for (let change = random.below(5); change > 0; change--) {
        stream[random.below(stream.length)] = random.below(256);
      }
      const total = split(stream, codec, 1 + random.below(30)).reduce<number>(
        (sum, one) => sum + (typeof one === "number" ? one : one.length),
        0,
      );
      expect(total).toBeGreaterThanOrEqual(0);
      if (total === 0) continue;
      expect(total).toBeLessThan(stream.length * 12);
    }
  });
});

describe("ParameterSets", () => {
  test("a key frame or recovery point gets the sets of the description, until newer ones come", () => {
    const [sequence, picture] = [unit("h264", 7), unit("h264", 8)];
    const sets = new ParameterSets("h264", Buffer.concat([sequence, picture]));
    const key = unit("h264", 5);
    expect(sets.complete(key)).toEqual(Buffer.concat([sequence, picture, key]));
    const newer = [unit("h264", 7, true, 30), unit("h264", 8, true, 31)];
    const whole = Buffer.concat([...newer, key]);
    expect(sets.complete(whole)).toBe(whole);
    expect(sets.complete(key)).toEqual(Buffer.concat([...newer, key]));
    const delta = unit("h264", 1);
    expect(sets.complete(delta)).toBe(delta);
    const recovery = Buffer.concat([Buffer.from("000001060601a480", "hex"), delta]);
    expect(sets.complete(recovery)).toEqual(Buffer.concat([...newer, recovery]));
    // Only the sequence parameter set is new.
    const half = Buffer.concat([sequence, key]);
    expect(sets.complete(half)).toEqual(Buffer.concat([...newer, sequence, key]));
    expect(sets.complete(key)).toEqual(Buffer.concat([sequence, newer[1]!, key]));
  });

  test("a flood of parameter sets is not remembered", () => {
    const sets = new ParameterSets("h265");
    const own = [32, 33, 34].map((type) => unit("h265", type));
    sets.complete(Buffer.concat([...own, unit("h265", 19)]));
    for (let count = 0; count < 400; count++) sets.complete(unit("h265", 34, true, 100 + count));
    sets.complete(unit("h265", 34, true, 70_000));
    const many = Array.from({ length: 2000 }, (_, index) => unit("h265", 32, true, 9 + index));
    sets.complete(Buffer.concat(many));
    const completed = sets.complete(unit("h265", 19));
    expect(completed.length).toBeLessThan((64 << 10) + 100);
    expect(typesOf(completed, "h265")).toEqual(
      expect.arrayContaining([32, 33, 34, 19]) as unknown as number[],
    );
  });

  test("a flood of repeated parameter sets in one access unit is not compared to its end", () => {
    const sets = new ParameterSets("h264");
    const [sequence, picture, key] = [unit("h264", 7), unit("h264", 8), unit("h264", 5)];
    const late = unit("h264", 8, true, 30);
    sets.complete(Buffer.concat([picture, ...Array<Buffer>(300).fill(sequence), late, key]));
    expect(sets.complete(key)).toEqual(Buffer.concat([sequence, picture, key]));
  });
});

describe("pictureKind", () => {
  test("IDR and IRAP are key frames, and a recovery point is none", () => {
    const recovery = (codec: VideoCodec) =>
      codec === "h264"
        ? Buffer.from([0, 0, 1, 6, 5, 1, 0, 6, 1, 0x80, 0x80])
        : Buffer.from([0, 0, 1, 78, 1, 5, 1, 0, 6, 1, 0x80, 0x80]);
    for (const [codec, key, delta] of [
      ["h264", 5, 1],
      ["h265", 19, 1],
      ["h265", 21, 0],
    ] as const) {
      expect(isKeyFrame(unit(codec, key), codec)).toBe(true);
      expect(isKeyFrame(unit(codec, delta), codec)).toBe(false);
      const kind = pictureKind(Buffer.concat([recovery(codec), unit(codec, delta)]), codec);
      expect(kind).toEqual({ isKey: false, isSkippedLeading: false, recoveryCount: 0 });
    }
    expect(pictureKind(unit("h265", 9), "h265")?.isSkippedLeading).toBe(true);
    expect(pictureKind(unit("h265", 7), "h265")?.isSkippedLeading).toBe(false);
  });

  test("bytes that are no access unit have no kind", () => {
    for (const bytes of [[], [1, 2, 3], [0, 0, 1], [5, 0, 0, 1, 0x65, 0x80], [0, 0, 1, 7, 1]]) {
      expect(pictureKind(new Uint8Array(bytes), "h264")).toBeUndefined();
    }
  });
});

describe.skipIf(needs !== "")(`${needs}streams of ffmpeg`, () => {
  const encoders: Record<string, readonly [VideoCodec, string[]]> = {
    "H.264 baseline": ["h264", ["-c:v", "libx264", "-profile:v", "baseline"]],
    "H.264 high, with B-frames and slices": [
      "h264",
      ["-c:v", "libx264", "-bf", "2", "-slices", "4"],
    ],
    "H.264 with delimiters": ["h264", ["-c:v", "libx264", "-bf", "0", "-aud", "1"]],
    "H.265 main": ["h265", ["-c:v", "libx265", "-bf", "0", "-x265-params", "log-level=none"]],
    "H.265 open GOP": ["h265", ["-c:v", "libx265", "-x265-params", "log-level=none:open-gop=1"]],
  };
  for (const [title, [codec, words]] of Object.entries(encoders)) {
    test(`${title}: has an access unit for each picture, and keys where ffmpeg put them`, async () => {
      const format = codec === "h264" ? "h264" : "hevc";
      const scene = ["-f", "lavfi", "-i", "testsrc=size=128x96:rate=10:duration=5"];
      const stream = await ffmpeg(
        ...scene,
        ...words,
        "-pix_fmt",
        "yuv420p",
        "-g",
        "15",
        "-f",
        format,
        "-",
      );
      const units = split(stream, codec, 1000) as Uint8Array[];
      expect(units.length).toBe(50);
      expect(isKeyFrame(units[0]!, codec)).toBe(true);
      const keys = units.filter((one) => isKeyFrame(one, codec));
      expect(keys.length).toBeGreaterThanOrEqual(4);
      const sequence = codec === "h264" ? 7 : 33;
      for (const key of keys) expect(typesOf(key, codec)).toContain(sequence);
    });
  }
});
