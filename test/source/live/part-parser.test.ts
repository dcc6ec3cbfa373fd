// Pipes of frames with headers: what is read, what is lost, and what ends the pipe.
// Covers: common/media-types.ts

import { describe, expect, test } from "bun:test";
import type { Capture } from "../../../src/source/live/iterable-source.ts";
import { formatPartHeader } from "../../../src/source/live/part-header.ts";
import { type Part, PartParser } from "../../../src/source/live/part-parser.ts";
import { Random } from "../../wire/fuzz.ts";

/** Passes the text to a parser, in chunks of `step` bytes. */
function parse(text: string | Uint8Array, step = Infinity, maxFrameBytes = 1000): Part[] {
  const bytes = Buffer.from(text as string);
  const parser = new PartParser(maxFrameBytes);
  const parts: Part[] = [];
  for (let at = 0; at < bytes.length; at += step) {
    parts.push(...parser.push(bytes.subarray(at, at + Math.min(step, bytes.length))));
  }
  const last = parser.end();
  return last === undefined ? parts : [...parts, last];
}

/** Describes a part: its frame, or why it is lost. */
function described({ source, capture }: Part): unknown {
  if ("error" in capture) return [source, capture.name, capture.error.code, capture.error.message];
  return [source, { ...capture, bytes: Buffer.from(capture.bytes).toString() }];
}

/** Returns what a part with this header and five bytes becomes. */
function onlyPart(...lines: string[]): unknown {
  const parts = parse(`--frame\n${lines.join("\n")}\nContent-Length: 5\n\nabcde\n`);
  expect(parts.length).toBe(1);
  return described(parts[0]!);
}

describe("a part", () => {
  test("gives source, time, name, metadata and bytes, wherever the chunks are cut", () => {
    const text =
      "--frame\r\nX-Source: visible\r\nX-Captured: 1764500000123456789\r\nX-Name: a b.jpg\r\n" +
      'X-Metadata: {"exposure":4}\r\nContent-Length: 6\r\n\r\n--\r\n--\r\n' +
      "--other\nx-source:   größe/1\ncontent-length: 0\nX-Captured: -5\nX-Unknown: 1\n\n\n" +
      "--frame--\nanything";
    const expected = [
      [
        "visible",
        {
          name: "a b.jpg",
          captured: 1764500000123456789n,
          metadata: { exposure: 4 },
          bytes: "--\r\n--",
        },
      ],
      ["größe/1", { captured: -5n, bytes: "" }],
    ];
    for (const step of [1, 2, 3, 7, 50, Infinity]) {
      expect(parse(text, step).map(described)).toEqual(expected);
    }
  });

  test("is what formatPartHeader writes, whatever its names hold", () => {
    const frame = {
      bytes: Buffer.from([1, 2, 3, 4]),
      source: "50%/a\r\nX-Name: b\u0085",
      name: "%41 é\u{1f4f7}\0.raw",
      sequence: 7,
      captured: -1n,
      session: "00ff",
      metadata: '{"a":"line\\nfeed"}',
      raw: { width: 2, height: 2, format: "bgr8" },
    };
    const text = Buffer.concat([Buffer.from(formatPartHeader(frame)), frame.bytes]);
    const { source, name, captured, bytes, raw } = frame;
    expect(parse(text)).toEqual([
      {
        source,
        capture: {
          name,
          captured,
          bytes,
          raw,
          extension: "2x2.bgr8",
          metadata: { a: "line\nfeed" },
        },
      },
    ] as Part[]);
  });

  test("keeps every character and digit of what formatPartHeader writes", () => {
    const texts = [" a ", "a\u2028b\u2029", "\t", "a\rb", "50%20", "\u0085"];
    const metadata = '{ "ns": 1764500000123456789,\r\n"x": 1.0, "s": "\u2028", "e": -1e400 }';
    for (const text of texts) {
      const bytes = Buffer.from([1]);
      const facts = { bytes, source: text, name: text, sequence: 1, captured: 1n, session: "00" };
      const header = formatPartHeader({ ...facts, metadata });
      const [part] = parse(Buffer.concat([Buffer.from(header), bytes]));
      const capture = part!.capture as Extract<Capture, { bytes: unknown }>;
      expect([part!.source, capture.name]).toEqual([text, text]);
      expect(JSON.stringify(capture.metadata)).toBe(
        '{"ns":1764500000123456789,"x":1.0,"s":"\u2028","e":-1e400}',
      );
    }
  });

  test("that is lost has the name that was escaped", () => {
    const [, name] = onlyPart("X-Name: 50%25 %0a", "X-Captured: 1.5") as unknown[];
    expect(name).toBe("50% \n");
  });

  test("without a name gets the extension of its type or shape", () => {
    expect(onlyPart("Content-Type: image/JPEG; q=1")).toMatchObject([
      undefined,
      { extension: "jpg" },
    ]);
    expect(onlyPart("X-Raw: 5x1:mono8")).toMatchObject([undefined, { extension: "5x1.gray" }]);
    expect(onlyPart("Content-Type: text/html")).toEqual([undefined, { bytes: "abcde" }]);
  });

  test("is lost with an invalid line, and the next part is read", () => {
    const wrong = {
      "X-Captured: 1.5":
        'its X-Captured is invalid: expected nanoseconds since 1970 as a number of 64 bits, found "1.5"',
      "X-Captured: 9223372036854775808":
        'its X-Captured is invalid: expected nanoseconds since 1970 as a number of 64 bits, found "9223372036854775808"',
      "X-Metadata: [1]": 'its X-Metadata is invalid: expected a JSON object, found "[1]"',
      "X-Metadata: {": 'its X-Metadata is invalid: expected a JSON object, found "{"',
      "X-Raw: 5x2:gray": "it has 5 bytes, and 5x2:gray has 10",
      "X-Raw: 5x2":
        'its X-Raw is invalid: Cannot read the shape of raw frames: expected WIDTHxHEIGHT:FORMAT such as 640x512:gray16le, current value is "5x2"',
    };
    for (const [line, message] of Object.entries(wrong)) {
      const text = `--frame\nX-Source: a\nX-Name: one\n${line}\nContent-Length: 5\n\nabcde\n`;
      expect(parse(`${text}--frame\nContent-Length: 1\n\nz\n`).map(described)).toEqual([
        ["a", "one", "unreadable", message],
        [undefined, { bytes: "z" }],
      ]);
    }
  });

  test("over the limit is lost without being kept in memory, and the next part is read", () => {
    const text = `--frame\nX-Source: a\nContent-Length: 1001\n\n${"-".repeat(1001)}\n--frame\nContent-Length: 1\n\nz\n`;
    expect(parse(text, 10).map(described)).toEqual([
      ["a", undefined, "too-large", "it has 1001 bytes, the limit is 1000"],
      [undefined, { bytes: "z" }],
    ]);
  });

  test("is the last one before a line of the end, which needs no line end", () => {
    for (const end of ["--frame--", "--frame--\r\n", "--frame--\n--frame\nX-Source"]) {
      const parts = parse(`--frame\nContent-Length: 1\n\nz\n${end}`, 3);
      expect(parts.map(described)).toEqual([[undefined, { bytes: "z" }]]);
    }
  });

  test("that the pipe's end cuts off is lost", () => {
    expect(parse("--frame\nX-Source: a\nContent-Length: 9\n\nabc").map(described)).toEqual([
      ["a", undefined, "unreadable", "the pipe ended after 3 of its 9 bytes"],
    ]);
  });
});

describe("a pipe that is not in the format ends with one error:", () => {
  const cases: Record<string, [string, string]> = {
    "a wrong length that is too small": [
      "--frame\nContent-Length: 2\n\nabc\n",
      'expected a line that begins with --, found "c"',
    ],
    "no length": [
      "--frame\nX-Source: a\n\nabc\n",
      "expected a header Content-Length with the frame's bytes, found none",
    ],
    "a negative length": [
      "--frame\nContent-Length: -1\n\nabc\n",
      'expected a header Content-Length with the frame\'s bytes, found "-1"',
    ],
    "a line that is no header": [
      "--frame\nhello\n\n",
      'expected a header such as X-Source: visible, found "hello"',
    ],
    "pictures without headers": [
      "\xff\xd8\xff\n",
      'expected a line that begins with --, found "ÿØÿ"',
    ],
    "a header of 65,537 bytes": [
      `--frame\nX-A: ${"a".repeat(65_537)}`,
      'expected a header of at most 65536 bytes, found "--frame"',
    ],
    "an end in a header": [
      "--frame\nX-Source: a\n",
      "expected a frame after the header, found none",
    ],
  };
  for (const [title, [text, message]] of Object.entries(cases)) {
    test(title, () => {
      for (const step of [1, Infinity]) {
        expect(() => parse(text, step)).toThrow(
          expect.objectContaining({ code: "damaged", message }),
        );
      }
    });
  }

  test("any bytes are frames, losses or one error of the table", () => {
    const random = new Random(22);
    const valid = Buffer.from(
      '--frame\r\nX-Source: a\r\nX-Raw: 2x2:gray\r\nX-Metadata: {"a":1}\r\nContent-Length: 4\r\n\r\nabcd\r\n'.repeat(
        3,
      ),
    );
    for (let round = 0; round < 3000; round++) {
      const bytes = Buffer.from(valid);
      for (let change = random.below(6); change >= 0; change--) {
        bytes[random.below(bytes.length)] = random.below(256);
      }
      let parts: readonly { capture: Capture }[] = [];
      try {
        parts = parse(bytes.subarray(0, 1 + random.below(bytes.length)), 1 + random.below(40));
      } catch (error) {
        expect(error).toMatchObject({ code: "damaged" });
      }
      expect(parts.length).toBeLessThanOrEqual(4);
    }
  });
});
