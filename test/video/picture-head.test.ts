import { describe, expect, test } from "bun:test";
import { codecOf, isKeyHead, maxHeadBytes, PictureHead } from "../../src/video/picture-head.ts";

/** Parameter sets, supplemental information, and the first bytes of a slice. */
const heads = {
  h264: {
    sets: "00000001 67 42c01e 000001 68 ce 000001 06 0501ff",
    key: "000001 65 88",
    other: "000001 41 9a",
  },
  h265: {
    sets: "00000001 4001 0c 000001 4201 01 000001 4401 c0",
    key: "000001 2601 af",
    other: "000001 0201 d0",
  },
} as const;

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.fromHex(hex.replaceAll(" ", ""));
}

describe("isKeyHead", () => {
  for (const codec of ["h264", "h265"] as const) {
    const { sets, key, other } = heads[codec];

    test(`${codec}: the first slice decides, behind parameter sets or without them`, () => {
      expect(isKeyHead(bytesOf(sets + key), codec)).toBe(true);
      expect(isKeyHead(bytesOf(key), codec)).toBe(true);
      expect(isKeyHead(bytesOf(other), codec)).toBe(false);
      expect(isKeyHead(bytesOf(sets + other + key), codec)).toBe(false);
    });

    test(`${codec}: parameter sets alone do not tell, unless more than the limit precede the slice`, () => {
      expect(isKeyHead(bytesOf(sets), codec)).toBeUndefined();
      expect(isKeyHead(new Uint8Array(0), codec)).toBeUndefined();
      const filler = "ff".repeat(maxHeadBytes);
      expect(isKeyHead(bytesOf(sets + filler + key), codec)).toBe(false);
    });
  }

  test("bytes that are no access unit are no key frame", () => {
    expect(isKeyHead(new Uint8Array(maxHeadBytes).fill(0x65), "h264")).toBe(false);
  });
});

describe("PictureHead", () => {
  test("the answer does not depend on where the bytes are cut", () => {
    for (const codec of ["h264", "h265"] as const) {
      for (const [slice, expected] of [
        [heads[codec].key, true],
        [heads[codec].other, false],
      ] as const) {
        const bytes = bytesOf(heads[codec].sets + slice);
        const head = new PictureHead(codec);
        let isKey: boolean | undefined;
        let count = 0;
        while (isKey === undefined) isKey = head.push(bytes.subarray(count, ++count));
        expect(isKey).toBe(expected);
        // The byte that tells is not kept.
        expect(head.bytes).toEqual(bytes.subarray(0, count - 1));
      }
    }
  });

  test("at most the limit is kept of a frame without a slice", () => {
    const head = new PictureHead("h264");
    let isKey: boolean | undefined;
    for (let pushed = 0; isKey === undefined; pushed++) {
      expect(pushed * 1000).toBeLessThan(maxHeadBytes + 1000);
      isKey = head.push(new Uint8Array(1000));
      expect(head.bytes.length).toBeLessThan(maxHeadBytes);
    }
    expect(isKey).toBe(false);
  });
});

test("the type of a source decides whether a frame is encoded video, and else its name", () => {
  expect(codecOf("video/h265", "a.png")).toBe("h265");
  expect(codecOf("image/png", "a.h264")).toBeUndefined();
  expect(codecOf(undefined, "a.h264")).toBe("h264");
  expect(codecOf(undefined, "a.h265")).toBe("h265");
  expect(codecOf(undefined, "a.png")).toBeUndefined();
});
