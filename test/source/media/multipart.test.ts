import { describe, expect, test } from "bun:test";
import { MultipartSplitter } from "../../../src/source/media/multipart.ts";
import { refusal } from "../../helper/refusal.ts";
import { Random } from "../../wire/fuzz.ts";
import { baseline, join, pieces, progressive, segment } from "../image/images.ts";

const jpegs = [progressive, baseline, progressive];
const without = (jpeg: Uint8Array) => jpeg.subarray(0, -2);

/** Splits the stream in pieces of several sizes, which must not matter. */
function splitAnyhow(stream: Uint8Array, maxFrameBytes = 10_000): (string | { lost: string })[] {
  const ways = [stream.length, 1, 5, 100].map((size) => {
    const splitter = new MultipartSplitter(maxFrameBytes);
    return [...pieces(stream, size)].flatMap((piece) =>
      [...splitter.push(new Uint8Array(piece))].map((item) =>
        item instanceof Uint8Array ? item.toHex() : { lost: item.error.code },
      ),
    );
  });
  for (const way of ways) expect(way).toEqual(ways[0]!);
  return ways[0]!;
}

function hexes(images: readonly Uint8Array[]): string[] {
  return images.map((image) => image.toHex());
}

/** Makes a stream: `part` for each image, and what cameras send after the last one. */
function stream(part: (jpeg: Uint8Array) => Uint8Array, images = jpegs): Uint8Array {
  return join(...images.map(part), "--frame--\r\n\r\n");
}

describe("MultipartSplitter", () => {
  const type = "Content-Type: image/jpeg\r\n";
  const length = (jpeg: Uint8Array, more = 0) => `Content-Length: ${jpeg.length + more}\r\n`;
  const dialects: [string, (jpeg: Uint8Array) => Uint8Array][] = [
    ["as the standard says", (jpeg) => join(`--frame\r\n${type}${length(jpeg)}\r\n`, jpeg, "\r\n")],
    [
      "with the boundary last",
      (jpeg) => join(`${type}${length(jpeg)}\r\n`, jpeg, "\r\n--frame\r\n"),
    ],
    ["without boundaries", (jpeg) => join(`${type}${length(jpeg)}\r\n`, jpeg, "\r\n")],
    ["without lengths", (jpeg) => join(`--frame\r\n${type}\r\n`, jpeg, "\r\n")],
    ["without types", (jpeg) => join(`--frame\r\n${length(jpeg)}\r\n`, jpeg, "\r\n")],
    ["without headers", (jpeg) => join("--frame\r\n\r\n", jpeg, "\r\n")],
    ["without anything", (jpeg) => jpeg],
    [
      "with bare line feeds",
      (jpeg) => join(`--frame\n${type.trim()}\n${length(jpeg).trim()}\n\n`, jpeg, "\n"),
    ],
    [
      "with a blank line more",
      (jpeg) => join(`\r\n--frame\r\n${type}${length(jpeg)}\r\n\r\n`, jpeg),
    ],
    [
      "with a boundary of many dashes",
      (jpeg) => join(`----frame--\r\n${type}${length(jpeg)}\r\n`, jpeg),
    ],
    [
      "with other headers",
      (jpeg) =>
        join(
          `--frame\r\nX-Timestamp: 1.5\r\n${type}content-length:${jpeg.length}\r\n\r\n`,
          jpeg,
          "\r\n",
        ),
    ],
    [
      "with a length of zero",
      (jpeg) => join(`--frame\r\n${type}Content-Length: 0\r\n\r\n`, jpeg, "\r\n"),
    ],
    [
      "with too small lengths",
      (jpeg) => join(`--frame\r\n${type}${length(jpeg, -7)}\r\n`, jpeg, "\r\n"),
    ],
    [
      "with too large lengths",
      (jpeg) => join(`--frame\r\n${type}${length(jpeg, 9)}\r\n`, jpeg, "\r\n"),
    ],
    [
      "with endless lengths",
      (jpeg) => join(`--frame\r\n${type}Content-Length: 999999999999\r\n\r\n`, jpeg, "\r\n"),
    ],
    [
      "with other parts",
      (jpeg) =>
        join(
          `--frame\r\n${type}${length(jpeg)}\r\n`,
          jpeg,
          "\r\n--frame\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nevent\r\n",
        ),
    ],
  ];
  for (const [how, part] of dialects) {
    test(`JPEGs of a multipart stream ${how} are found, wherever it is cut`, () => {
      expect(splitAnyhow(join("to be ignored\r\n", stream(part)))).toEqual(hexes(jpegs));
    });
  }

  test("a JPEG that is not as it should be is kept as its length says", () => {
    const odd = [
      without(progressive),
      join(progressive, new Uint8Array(30)),
      join(progressive.subarray(0, -2), [0xff, 0x12, 0xff, 0xd9]),
    ];
    const input = stream(
      (jpeg) => join(`--frame\r\n${type}${length(jpeg)}\r\n`, jpeg, "\r\n"),
      odd,
    );
    expect(splitAnyhow(input)).toEqual(hexes(odd));
  });

  test("a JPEG that is cut off is one loss, and the next one is whole", () => {
    for (const header of ["", length(progressive)]) {
      const cut = join(`--frame\r\n${type}${header}\r\n`, progressive.subarray(0, -12), "\r\n");
      const next = join(`--frame\r\n${type}${length(baseline)}\r\n`, baseline, "\r\n");
      expect(splitAnyhow(join(next, cut, next, next, "--frame"))).toEqual([
        baseline.toHex(),
        { lost: "unreadable" },
        ...hexes([baseline, baseline]),
      ]);
    }
  });

  test("a JPEG over the size limit is one loss, and the next one is whole", () => {
    const large = join(
      [0xff, 0xd8],
      segment(0xda, [1, 1, 0, 0, 0x3f, 0]),
      new Uint8Array(3000),
      [0xff, 0xd9],
    );
    const input = stream(
      (jpeg) => join(`--frame\r\n${type}\r\n`, jpeg, "\r\n"),
      [progressive, large, progressive],
    );
    expect(splitAnyhow(input, 1000)).toEqual([
      progressive.toHex(),
      { lost: "too-large" },
      progressive.toHex(),
    ]);
  });

  test("a stream without a JPEG is given up after 64 MiB", () => {
    const splitter = new MultipartSplitter(10_000);
    const error = refusal(() => {
      for (let count = 0; count < 65; count++) [...splitter.push(new Uint8Array(1 << 20))];
    });
    expect(error).toMatchObject({ code: "unreadable" });
    expect(error.message).toEndWith("bytes arrived without a JPEG");
  });

  test("the multipart splitter withstands streams with damage anywhere", () => {
    const random = new Random(9);
    for (let round = 0; round < 2000; round++) {
      const [, part] = random.pick(dialects);
      const input = new Uint8Array(stream(part));
      for (let time = random.below(4); time >= 0; time--) {
        input[random.below(input.length)] = random.below(256);
      }
      const splitter = new MultipartSplitter(10_000);
      for (const item of splitter.push(input)) {
        if (item instanceof Uint8Array) expect(item.length).toBeLessThanOrEqual(input.length);
        else expect(item.error.code).toBe("unreadable");
      }
    }
  });
});

test("a last JPEG without an end marker is whole at its length, and cut off before it", () => {
  const jpeg = without(baseline);
  const part = join(`--frame\r\nContent-Length: ${jpeg.length}\r\n\r\n`, jpeg);
  for (const cut of [0, 1, 20]) {
    const splitter = new MultipartSplitter(10_000);
    expect([...splitter.push(new Uint8Array(part.subarray(0, part.length - cut)))]).toEqual([]);
    expect(splitter.end()?.toHex()).toBe(cut === 0 ? jpeg.toHex() : undefined);
  }
});
