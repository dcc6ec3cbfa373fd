import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame, Loss } from "../../../src/frame.ts";
import { type CapturedFrame, IterableSource } from "../../../src/source/live/iterable-source.ts";
import { checkPathPart } from "../../../src/store/name-rules.ts";

const started = Date.UTC(2026, 10, 22, 7, 12, 3, 123);

function sourceOf(
  frames: Iterable<CapturedFrame> | AsyncIterable<CapturedFrame>,
  clock: () => number = () => started,
): IterableSource {
  return new IterableSource("visible", frames, { started, clock });
}

function isFrame(item: Frame | Loss | undefined): item is Frame {
  return item !== undefined && !("error" in item);
}

async function all(source: IterableSource): Promise<(Frame | Loss)[]> {
  const found: (Frame | Loss)[] = [];
  for (;;) {
    const item = await source.next();
    if (item === undefined) return found;
    found.push(item);
  }
}

async function namesOf(source: IterableSource): Promise<string[]> {
  return (await all(source)).map((item) => (isFrame(item) ? item.name : `lost ${item.what}`));
}

function bytes(hex: string): Uint8Array {
  return Uint8Array.fromHex(hex);
}

describe("frames of a program", () => {
  test("a frame of a program is sent with its own name, time, metadata and bytes", async () => {
    const picture = new Uint8Array([1, 2, 3]);
    const captured = 1_795_331_523_123_456_789n;
    const metadata = { gain: 1.5, "lens °": "50 mm" };
    const [frame] = await all(sourceOf([{ name: "a.png", bytes: picture, captured, metadata }]));
    if (!isFrame(frame)) throw new Error("it was lost");
    expect(frame).toMatchObject({ name: "a.png", sequence: 1, captured, size: 3 });
    expect(JSON.parse(frame.metadata)).toEqual(metadata);
    const into = new Uint8Array(3);
    frame.read(into);
    expect(into).toEqual(picture);
    const pieces: Uint8Array[] = [];
    for await (const piece of { [Symbol.asyncIterator]: () => frame.pieces() }) pieces.push(piece);
    expect(Buffer.concat(pieces)).toEqual(Buffer.from(picture));
  });

  test("a frame of a program can be read again after a reconnect", async () => {
    const source = sourceOf([{ bytes: bytes("010203") }, { bytes: bytes("040506") }]);
    const frames = (await all(source)) as Frame[];
    for (const index of [0, 1, 0]) {
      const into = new Uint8Array(3);
      frames[index]!.read(into);
      expect(into.toHex()).toBe(index === 0 ? "010203" : "040506");
      const first = await frames[index]!.pieces().next();
      expect(Buffer.from(first.value as Uint8Array).equals(into)).toBe(true);
    }
  });

  test("a frame of a program may be empty", async () => {
    const [frame] = await all(sourceOf([{ name: "a", bytes: new Uint8Array() }]));
    expect(frame).toMatchObject({ name: "a", size: 0, metadata: "" });
    (frame as Frame).read(new Uint8Array());
  });

  test("a frame without a time gets the time at which the program yields it", async () => {
    const times = [started + 0.25, started + 40.5];
    const source = sourceOf([{ bytes: bytes("00") }, { bytes: bytes("00") }], () => times.shift()!);
    const captured = (await all(source)).map((item) => (item as Frame).captured);
    expect(captured).toEqual([1_795_331_523_123_250_000n, 1_795_331_523_163_500_000n]);
  });

  test("an async iterable is asked for one frame at a time", async () => {
    let made = 0;
    async function* camera(): AsyncGenerator<CapturedFrame> {
      for (;;) yield { bytes: new Uint8Array([++made]) };
    }
    const source = sourceOf(camera());
    expect(made).toBe(0);
    expect(await source.next()).toMatchObject({ sequence: 1 });
    expect(await source.next()).toMatchObject({ sequence: 2 });
    expect(made).toBe(2);
    source.close();
    expect(await source.next()).toBeUndefined();
  });

  test("a frame of a program is lost, not read again, if reading it failed", async () => {
    const source = sourceOf([{ name: "a.png", bytes: bytes("00") }]);
    const frame = (await source.next()) as Frame;
    const error = new FramesError("changed");
    expect(source.retry(frame, error)).toEqual({ first: 1, last: 1, what: "a.png", error });
  });
});

describe("frames without a name", () => {
  test("a frame without a name is named after its session's start and its number", async () => {
    const frames = Array.from({ length: 3 }, () => ({ bytes: bytes("ffd8ffe0") }));
    expect(await namesOf(sourceOf(frames))).toEqual([
      "20261122T071203.123Z-00000001.jpg",
      "20261122T071203.123Z-00000002.jpg",
      "20261122T071203.123Z-00000003.jpg",
    ]);
  });

  test("a frame without a name has its number in the source, with named frames counted", async () => {
    const frames = [{ bytes: bytes("00") }, { bytes: bytes("00"), name: "own.png" }];
    expect(await namesOf(sourceOf([...frames, frames[0]!]))).toEqual([
      "20261122T071203.123Z-00000001.bin",
      "own.png",
      "20261122T071203.123Z-00000003.bin",
    ]);
  });

  test("a frame without a name has the extension that the program gives", async () => {
    const raw = { bytes: bytes("00"), extension: "640x512.gray16le" };
    expect(await namesOf(sourceOf([raw, { ...raw, name: "own" }]))).toEqual([
      "20261122T071203.123Z-00000001.640x512.gray16le",
      "own",
    ]);
  });

  const endings: [what: string, ending: string, start: string][] = [
    ["JPEG", "jpg", "ffd8ffe000104a46"],
    ["JPEG with Exif", "jpg", "ffd8ffe1"],
    ["PNG", "png", "89504e470d0a1a0a0000000d"],
    ["PNG damaged by a text transfer", "bin", "89504e470a1a0a00"],
    ["BMP", "bmp", "424d3604"],
    ["PBM", "pbm", "50340a31"],
    ["PGM", "pgm", "50350a31"],
    ["PPM", "ppm", "50360a31"],
    ["unknown data", "bin", "0123456789abcdef"],
    ["text", "bin", Buffer.from("hello").toString("hex")],
    ["no bytes", "bin", ""],
    ["the first two bytes of a JPEG", "bin", "ffd8"],
  ];
  for (const [what, ending, start] of endings) {
    test(`a frame without a name ends in .${ending} if it contains ${what}`, async () => {
      const [name] = await namesOf(sourceOf([{ bytes: bytes(start) }]));
      expect(name).toBe(`20261122T071203.123Z-00000001.${ending}`);
    });
  }

  test("a generated name is portable and sorts by number", async () => {
    const frames = Array.from({ length: 1200 }, () => ({ bytes: bytes("00") }));
    const found = await namesOf(sourceOf(frames));
    expect(found.toSorted()).toEqual(found);
    for (const name of found) checkPathPart(name, true);
  });
});

describe("invalid frames of a program", () => {
  const good = bytes("00");
  const bad: [what: string, frame: unknown, called: string, why: string][] = [
    ["text as bytes", { name: "a", bytes: "hello" }, "a", "bytes is not a Uint8Array"],
    ["no bytes", { name: "a" }, "a", "bytes is not a Uint8Array"],
    ["an array as bytes", { bytes: [1, 2, 3] }, "frame 1", "bytes is not a Uint8Array"],
    ["an ArrayBuffer as bytes", { bytes: good.buffer }, "frame 1", "bytes is not a Uint8Array"],
    [
      "a Uint16Array as bytes",
      { bytes: new Uint16Array(2) },
      "frame 1",
      "bytes is not a Uint8Array",
    ],
    ["an empty name", { name: "", bytes: good }, "", 'the name "" is not valid'],
    ["a lone surrogate as name", { name: "\ud800", bytes: good }, "\ud800", "is not valid"],
    [
      "a name of 256 bytes in 128 characters",
      { name: "é".repeat(128), bytes: good },
      "é".repeat(128),
      "is not valid",
    ],
    ["an extension with a folder", { extension: "/../x", bytes: good }, "frame 1", "is not valid"],
    [
      "an empty extension",
      { extension: "", bytes: good },
      "frame 1",
      'the extension "" is not valid',
    ],
    ["a number as name", { name: 7, bytes: good }, "frame 1", "the name 7 is not valid"],
    ["null as name", { name: null, bytes: good }, "frame 1", "the name null is not valid"],
    [
      "a number as time",
      { name: "a", bytes: good, captured: 1_795_331_523_123 },
      "a",
      "captured is 1795331523123, expected nanoseconds as a bigint of 64 bits",
    ],
    ["a date as time", { name: "a", bytes: good, captured: new Date(0) }, "a", "captured is "],
    [
      "a time of 2^63",
      { name: "a", bytes: good, captured: 2n ** 63n },
      "a",
      "captured is 9223372036854775808, expected nanoseconds as a bigint of 64 bits",
    ],
    [
      "a time below -2^63",
      { name: "a", bytes: good, captured: -(2n ** 63n) - 1n },
      "a",
      "captured is -9223372036854775809, expected",
    ],
    ["undefined in place of the object", undefined, "frame 1", ""],
    ["null in place of the object", null, "frame 1", ""],
  ];
  for (const [what, frame, called, why] of bad) {
    test(`a program's frame with ${what} is lost, and the next frame is not`, async () => {
      const [first, second, ...rest] = await all(
        sourceOf([frame as CapturedFrame, { bytes: good, name: "good" }]),
      );
      expect(first).toMatchObject({ first: 1, last: 1, what: called });
      const { error } = first as Loss;
      expect(error).toBeInstanceOf(FramesError);
      expect(error.code).toBe("unreadable");
      expect(error.message).toContain(why);
      expect(second).toMatchObject({ sequence: 2, name: "good" });
      expect(rest).toEqual([]);
    });
  }

  test("a frame with the largest valid name and times is sent", async () => {
    const frames: CapturedFrame[] = [
      { name: "é".repeat(127), bytes: good, captured: 2n ** 63n - 1n },
      { name: "x".repeat(255), bytes: Buffer.from("a"), captured: -(2n ** 63n) },
      { name: "🔥", bytes: new Uint8Array(4).subarray(1), captured: 0n },
    ];
    const sent = await all(sourceOf(frames));
    expect(sent.map((item) => [isFrame(item) && item.name, (item as Frame).captured])).toEqual(
      frames.map(({ name, captured }) => [name!, captured!]),
    );
  });
});

describe("metadata", () => {
  /** Returns metadata of exactly `size` bytes of JSON. */
  const sized = (size: number, character = "x") => {
    const empty = Buffer.byteLength('{"a":""}');
    return { a: character.repeat((size - empty) / Buffer.byteLength(character)) };
  };

  test("metadata of 4,096 bytes is sent", async () => {
    const [frame] = await all(sourceOf([{ bytes: bytes("00"), metadata: sized(4096) }]));
    expect(Buffer.byteLength((frame as Frame).metadata)).toBe(4096);
  });

  test("metadata of an empty object is sent as {}", async () => {
    const [frame] = await all(sourceOf([{ bytes: bytes("00"), metadata: {} }]));
    expect((frame as Frame).metadata).toBe("{}");
  });

  const circular: Record<string, unknown> = {};
  circular["self"] = circular;
  const bad: [string, Record<string, unknown>][] = [
    ["of 4,097 bytes", sized(4097)],
    ["of 4,098 bytes in 2,053 characters", sized(4098, "é")],
    ["with a circular reference", circular],
    ["with a bigint", { at: 1n }],
  ];
  for (const [what, metadata] of bad) {
    test(`a frame with metadata ${what} is lost, and the next frame is not`, async () => {
      const [first, second, third] = await all(
        sourceOf([
          { bytes: bytes("00"), metadata },
          { bytes: bytes("00"), name: "named", metadata },
          { bytes: bytes("00"), name: "good" },
        ]),
      );
      expect(first).toMatchObject({ first: 1, last: 1, what: "frame 1" });
      expect((first as Loss).error).toMatchObject({ code: "unreadable" });
      expect(second).toMatchObject({ first: 2, last: 2, what: "named" });
      expect(third).toMatchObject({ sequence: 3, name: "good" });
    });
  }
});

describe("iterators", () => {
  test("an error of a program's iterator is the error of the source", async () => {
    const failure = new Error("the camera is gone");
    function* frames(): Generator<CapturedFrame> {
      yield { bytes: bytes("00") };
      throw failure;
    }
    const source = sourceOf(frames());
    expect(await source.next()).toMatchObject({ sequence: 1 });
    await expect(source.next()).rejects.toBe(failure);
    source.close();
  });

  test("an error of a program's async iterator is the error of the source", async () => {
    const failure = new Error("the camera is gone");
    async function* frames(): AsyncGenerator<CapturedFrame> {
      yield { bytes: bytes("00") };
      throw failure;
    }
    const source = sourceOf(frames());
    expect(await source.next()).toMatchObject({ sequence: 1 });
    await expect(source.next()).rejects.toBe(failure);
  });

  test("closing a source calls the return method of its iterator", async () => {
    let ended = false;
    function* frames(): Generator<CapturedFrame> {
      try {
        for (;;) yield { bytes: bytes("00") };
      } finally {
        ended = true;
      }
    }
    const source = sourceOf(frames());
    await source.next();
    source.close();
    expect(ended).toBe(true);
  });

  test("closing a source accepts an iterator without a return method", () => {
    const frames = {
      [Symbol.iterator]: () => ({ next: () => ({ done: true, value: undefined }) }),
    };
    expect(() => sourceOf(frames as Iterable<CapturedFrame>).close()).not.toThrow();
  });

  test("closing a source ignores an error of its iterator's return method", async () => {
    async function* late(): AsyncGenerator<CapturedFrame> {
      try {
        for (;;) yield { bytes: bytes("00") };
      } finally {
        throw new Error("cannot close");
      }
    }
    function* now(): Generator<CapturedFrame> {
      try {
        for (;;) yield { bytes: bytes("00") };
      } finally {
        throw new Error("cannot close");
      }
    }
    for (const frames of [late(), now()]) {
      const source = sourceOf(frames);
      await source.next();
      expect(() => source.close()).not.toThrow();
    }
  });
});

test("frames with the names of encoded video are key frames by their bytes", async () => {
  const source = sourceOf([
    { bytes: bytes("0000000165"), name: "1.h264" },
    { bytes: bytes("0000000141"), extension: "h264" },
    { bytes: bytes("00"), name: "3.h265" },
    { bytes: bytes("0000000165"), name: "4.png" },
  ]);
  const isKeys = (await all(source)).map((item) => isFrame(item) && item.isKey);
  expect(isKeys).toEqual([true, false, false, undefined]);
});
