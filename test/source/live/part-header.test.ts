// The headers of --multipart, with names and metadata of a hostile server.

import { expect, test } from "bun:test";
import { formatPartHeader } from "../../../src/source/live/part-header.ts";

const hostile = [
  "1.jpg\r\nContent-Length: 0\r\nX-Source: other",
  "a\n\nb",
  "a\rX-Sequence: 9",
  "\x1b[2J\0\u202e\u2028\u2029\x85\x0b\x0c\x1c",
];

const frame = {
  bytes: new Uint8Array(3),
  source: "gate",
  sequence: 7,
  session: "0".repeat(32),
  captured: -1_500_000_000n,
  name: "7.png",
  metadata: "",
  crc32: 0,
};

test("a part has its usual headers, with all digits of the metadata", () => {
  const metadata = '{"exposure": 12345678901234567890,\n "lens": "größe"}';
  const raw = { width: 4, height: 2, format: "gray16le" };
  expect(formatPartHeader({ ...frame, name: 'a "b" 50%.png', metadata, raw })).toBe(
    [
      ...["--frame", "Content-Length: 3", "X-Source: gate", "X-Sequence: 7"],
      ...["X-Captured: -1500000000", "X-Timestamp: -1.500000000", 'X-Name: a "b" 50%25.png'],
      ...[`X-Session: ${frame.session}`, "X-Raw: 4x2:gray16le"],
      ...['X-Metadata: {"exposure": 12345678901234567890,  "lens": "größe"}', "", ""],
    ].join("\r\n"),
  );
});

for (const text of hostile) {
  test(`text of a server begins no header and no line: ${JSON.stringify(text)}`, () => {
    const raw = { width: 1, height: 1, format: text };
    const metadata = JSON.stringify({ [text]: text });
    const header = formatPartHeader({
      ...frame,
      source: text,
      name: text,
      session: text,
      raw,
      metadata,
    });
    const lines = header.split("\r\n");
    expect(lines.map((line) => line.split(":")[0])).toEqual([
      ...["--frame", "Content-Length", "X-Source", "X-Sequence", "X-Captured", "X-Timestamp"],
      ...["X-Name", "X-Session", "X-Raw", "X-Metadata", "", ""],
    ]);
    // Readers of other languages end lines at more characters than CR LF.
    expect(lines.join("")).not.toMatch(/[\p{Cc}\u2028\u2029\u202a-\u202e]/u);
    expect(JSON.parse(lines.at(-3)!.slice("X-Metadata: ".length))).toEqual({ [text]: text });
  });
}

test("the header of encoded video says whether the part is a key frame, and others do not", () => {
  const isKeyLine = (isKey: boolean | undefined) =>
    formatPartHeader({ ...frame, isKey })
      .match(/X-Key.*/)?.[0]
      .trimEnd();
  expect([true, false, undefined].map(isKeyLine)).toEqual(["X-Key: 1", "X-Key: 0", undefined]);
});
