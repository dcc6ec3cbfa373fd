import { expect, test } from "bun:test";
import { DecodableFilter } from "../../src/video/decodable.ts";
import type { VideoCodec } from "../../src/video/nal-units.ts";

/**
 * Access units of one slice: a key frame, another picture, a recovery point after which two pictures
 * may be damaged, and in H.265 a skipped leading one.
 */
const units = {
  h264: {
    K: [0, 0, 1, 0x65, 0x88],
    d: [0, 0, 1, 0x41, 0x9a],
    "-": [1, 2, 3],
    r: [0, 0, 1, 6, 6, 1, 0x64, 0x80, 0, 0, 1, 0x41, 0x9a],
  },
  h265: {
    K: [0, 0, 1, 21 << 1, 1, 0x80],
    d: [0, 0, 1, 1 << 1, 1, 0x80],
    l: [0, 0, 1, 8 << 1, 1, 0x80],
  },
} as const;

/** Passes pictures, each with its number from 1. A blank is a number that never comes. */
function accepted(codec: VideoCodec, pictures: string, maybeDamaged = 0): string {
  const filter = new DecodableFilter(codec);
  const known = units[codec] as Record<string, readonly number[]>;
  const taken = [...pictures].map((picture, index) => {
    if (picture === " ") return " ";
    return filter.accepts(index + 1, new Uint8Array(known[picture]!)) ? picture : ".";
  });
  expect(filter.skipped).toBe(taken.filter((picture) => picture === ".").length);
  expect(filter.maybeDamaged).toBe(maybeDamaged);
  return taken.join("");
}

test("decoding begins with a key frame and goes on without a hole", () => {
  expect(accepted("h264", "ddKddKd")).toBe("..KddKd");
  expect(accepted("h265", "dKd")).toBe(".Kd");
});

test("after a hole nothing is taken before the next key frame", () => {
  expect(accepted("h264", "Kd ddKd")).toBe("Kd ..Kd");
  expect(accepted("h264", "Kd KdKd")).toBe("Kd KdKd");
});

test("a stream without key frames begins and goes on at a recovery point, and what may be damaged is counted", () => {
  expect(accepted("h264", "ddrddd", 2)).toBe("..rddd");
  expect(accepted("h264", "Kdrd dddrd", 2)).toBe("Kdrd ...rd");
  expect(accepted("h264", "drKd", 1)).toBe(".rKd");
});

test("leading pictures are left out only where decoding begins", () => {
  expect(accepted("h265", "KlldKlld")).toBe("K..dKlld");
  expect(accepted("h265", "KdlKd Kld")).toBe("KdlKd K.d");
});

test("an access unit without a picture is left out, and what follows needs no key frame", () => {
  expect(accepted("h264", "Kd-dd")).toBe("Kd.dd");
});

test("a number that was passed already is no next one", () => {
  const filter = new DecodableFilter("h264");
  const [key, delta] = [new Uint8Array(units.h264.K), new Uint8Array(units.h264.d)];
  expect([filter.accepts(7, key), filter.accepts(8, delta), filter.accepts(8, delta)]).toEqual([
    ...[true, true, false],
  ]);
  filter.restart();
  expect([filter.accepts(9, delta), filter.accepts(10, key)]).toEqual([false, true]);
});
