// Format of the objects in a bucket's journal, as defined in BUCKET.md.

import { describe, expect, test } from "bun:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { FramesError } from "../../../src/errors.ts";
import {
  decodeEntries,
  encodeEntries,
  type LogEntry,
  type DecodedEntry,
} from "../../../src/store/bucket/log-format.ts";
import { session } from "../contract.ts";

const header = { session, first: 3, last: 3, node: "a".repeat(32) };
const visible = { stream: "run7", source: "visible", key: null, keyId: null, format: null };
const thermal = {
  stream: "run7",
  source: "site/thermal",
  key: "cam-3",
  keyId: "0123456789abcdef",
  format: "640x512.gray16le",
};

function frame(seq: number, more: Partial<LogEntry & { kind: "frame" }> = {}): LogEntry {
  return {
    kind: "frame",
    logSource: visible,
    name: `${seq}.png`,
    seq,
    bytes: 2 ** 40,
    crc32: 0xffff_fffe,
    captured: 1_795_331_523_123_456_789n,
    received: -1n,
    etag: "d41d8cd98f00b204e9800998ecf8427e",
    meta: null,
    is_key: null,
    ...more,
  };
}

const entries: LogEntry[] = [
  frame(1),
  frame(2, { logSource: thermal, name: "ü 🔥\u2028.png", meta: '{"exposure":4}' }),
  { kind: "loss", logSource: thermal, first: 3, last: 4_000_000_000, reason: "dropped", at: 5n },
  frame(5, { name: "5.h264", is_key: 1 }),
  frame(6, { name: "6.png" }),
  frame(7, { name: "7.h264", is_key: 0 }),
  frame(8, { name: "8.h264", is_key: 0, meta: "{}" }),
  { kind: "account", logSource: visible, first: 9, last: 12, at: 6n },
];

async function decode(bytes: Uint8Array): Promise<DecodedEntry[]> {
  const all: DecodedEntry[] = [];
  for await (const told of decodeEntries(".frames/journal/x", bytes)) all.push(...told);
  return all;
}

async function failure(text: string): Promise<string> {
  try {
    await decode(gzipSync(text));
    return "nothing";
  } catch (error) {
    expect(error).toBeInstanceOf(FramesError);
    expect((error as FramesError).code).toBe("store");
    return (error as FramesError).message;
  }
}

const begin = `{"format":"frames-journal/1","session":"${session}","first":1,"last":1,"node":"n"}\n`;
const origin = '["o","run7","visible",null,null]\n';

describe("log objects", () => {
  test("a log object decodes to the entries that were encoded", async () => {
    const [first, ...rest] = await decode(encodeEntries(header, entries));
    expect(first).toEqual({ header, entry: undefined });
    expect(rest).toEqual(entries.map((entry) => ({ header, entry })));
  });

  test("a log object without entries decodes to its header", async () => {
    expect(await decode(encodeEntries(header, []))).toEqual([{ header, entry: undefined }]);
  });

  test("a log object consists of the lines described in BUCKET.md", () => {
    const lines = gunzipSync(encodeEntries(header, entries)).toString().split("\n");
    expect(lines).toEqual([
      `{"format":"frames-journal/1","session":"${session}","first":3,"last":3,"node":"${header.node}"}`,
      '["o","run7","visible",null,null]',
      '["f","1.png",1,1099511627776,4294967294,"1795331523123456789","-1","d41d8cd98f00b204e9800998ecf8427e"]',
      '["o","run7","site/thermal","cam-3","640x512.gray16le","0123456789abcdef"]',
      '["f","ü 🔥\u2028.png",2,1099511627776,4294967294,"1795331523123456789","-1","d41d8cd98f00b204e9800998ecf8427e","{\\"exposure\\":4}"]',
      '["l",3,4000000000,"dropped","5"]',
      '["o","run7","visible",null,null]',
      '["k",1]',
      '["f","5.h264",5,1099511627776,4294967294,"1795331523123456789","-1","d41d8cd98f00b204e9800998ecf8427e"]',
      '["k",null]',
      '["f","6.png",6,1099511627776,4294967294,"1795331523123456789","-1","d41d8cd98f00b204e9800998ecf8427e"]',
      '["k",0]',
      '["f","7.h264",7,1099511627776,4294967294,"1795331523123456789","-1","d41d8cd98f00b204e9800998ecf8427e"]',
      '["f","8.h264",8,1099511627776,4294967294,"1795331523123456789","-1","d41d8cd98f00b204e9800998ecf8427e","{}"]',
      '["a",9,12,"6"]',
      '["e",14]',
      "",
    ]);
  });

  test("concatenated log objects decode as a segment", async () => {
    const other = { ...header, session: "f".repeat(32), first: 1, last: 40 };
    const many = Array.from({ length: 20_000 }, (_, index) => frame(index + 1));
    const segment = Buffer.concat([encodeEntries(header, entries), encodeEntries(other, many)]);
    const told = await decode(segment);
    expect(told.filter(({ entry }) => entry === undefined).map((part) => part.header)).toEqual([
      header,
      other,
    ]);
    expect(told).toHaveLength(2 + entries.length + many.length);
    expect(told.at(-1)).toEqual({ header: other, entry: many.at(-1)! });
  });

  test("frames after a line that says neither yes nor no are no pictures of encoded video", async () => {
    const fields = '"1.h264",1,5,7,"1","2","etag"';
    const text = `${begin}["k",1]\n${origin}["f",${fields}]\n["k",[]]\n["f",${fields}]\n["e",5]\n`;
    const [, first, second] = await decode(gzipSync(text));
    expect([first, second].map((told) => told?.entry)).toMatchObject([
      { is_key: 1 },
      { is_key: null },
    ]);
  });

  test("unknown entries and fields of a later version are ignored", async () => {
    const later = `${begin}["o","run7","visible","cam",null,"0123456789abcdef","more"]\n["z",1]\n["a",1,2,"3",4]\n["e",3]\n`;
    const account = { kind: "account", first: 1, last: 2, at: 3n };
    expect((await decode(gzipSync(later)))[1]!.entry).toMatchObject(account);
  });

  for (const [what, text, why] of [
    ["is truncated after a line", `${begin}${origin}`, /cut off/],
    ["is truncated inside a line", `${begin}${origin}["e`, /cut off/],
    ["lacks a line", `${begin}${origin}["e",2]\n`, /lines are missing/],
    ["has no header", '["e",0]\n', /has no header/],
    ["has an entry without an origin", `${begin}["a",1,2,"3"]\n["e",1]\n`, /has no source/],
    [
      "is of no session",
      `${begin.replace(session, "../x")}${origin}["e",1]\n`,
      /session is not valid/,
    ],
    [
      "has a number beyond its key",
      `${begin.replace('"last":1', '"last":10000000000')}${origin}["e",1]\n`,
      /numbers are not valid/,
    ],
    ["has a later version", '{"format":"frames-journal/2"}\n', /later version/],
    ["is not JSON", "frames\n", /damaged/],
    ["has an endless line", `${"x".repeat(1 << 20)}\n`, /damaged/],
    ["has a second header before its end line", `${begin}${begin}`, /lines are missing/],
  ] as const) {
    test(`a log object that ${what} is refused, with its key in the error`, async () => {
      const said = await failure(text);
      expect(said).toMatch(why);
      expect(said).toContain(".frames/journal/x");
    });
  }

  for (const [what, line] of [
    ["text in place of a number", '["a","1",2,"3"]'],
    ["a negative number", '["a",-1,2,"3"]'],
    ["a range that ends before it begins", '["a",2,1,"3"]'],
    ["no time", '["a",1,2]'],
    ["a time of more than 64 bits", '["a",1,2,"9999999999999999999"]'],
    ["a name that leads out", '["f","../1.png",1,5,7,"1","2","etag"]'],
    ["a hidden name", '["f",".frames",1,5,7,"1","2","etag"]'],
    ["a checksum of more than 32 bits", '["f","1.png",1,5,4294967296,"1","2","etag"]'],
    ["metadata that is no object", '["f","1.png",1,5,7,"1","2","etag","[1]"]'],
    ["a reason that is no name", '["l",1,2,"see\\nbelow","3"]'],
  ] as const) {
    test(`a line with ${what} is damage at its place, and the other lines count`, async () => {
      const after = '["a",5,6,"3"]';
      const told = await decode(gzipSync(`${begin}${origin}${line}\n${after}\n["e",3]\n`));
      expect(told.map(({ entry, damagedLine }) => damagedLine ?? entry?.kind)).toEqual([
        undefined,
        3,
        "account",
      ]);
    });
  }

  for (const [what, stream, source] of [
    ["stream", "..", "visible"],
    ["source", "run7", "../../etc"],
    ["folder of the source", "run7", "a//b"],
  ]) {
    test(`every line of a ${what} that leads out is damage`, async () => {
      const lines = `${begin}${JSON.stringify(["o", stream, source, null, null])}\n["a",5,6,"3"]\n`;
      const told = await decode(gzipSync(`${lines}["f","1",1,5,7,"1","2","etag"]\n["e",3]\n`));
      expect(told.map(({ damagedLine }) => damagedLine)).toEqual([undefined, 3, 4]);
    });
  }

  test("an object with more lines than its size allows is refused before it is read to its end", async () => {
    // Seven bytes a line, and about 90 times their compressed size.
    const noise = crypto.getRandomValues(new Uint8Array(60_000)).toHex();
    const text = `${begin}${origin}["x","${noise}"]\n${'["z"]\n'.repeat(800_000)}`;
    const bomb = gzipSync(text);
    expect(text.length).toBeLessThan(bomb.length * 100);
    await expect(decode(bomb)).rejects.toThrow("expands to more than any journal");
  });

  test("an object that expands far beyond a journal's is refused before it is read to its end", async () => {
    // Few lines of a kind that a reader skips, at about 900 times their compressed size.
    const line = `["z","${"z".repeat(60_000)}"]\n`;
    const bomb = gzipSync(`${begin}${origin}${line.repeat(2000)}`);
    expect(bomb.length).toBeLessThan(1 << 20);
    await expect(decode(bomb)).rejects.toThrow("expands to more than any journal");
  });

  test("a log object that is no gzip, truncated or damaged is refused", async () => {
    const bytes = encodeEntries(header, entries);
    for (const broken of [new Uint8Array([1, 2, 3]), bytes.subarray(0, bytes.length - 9)]) {
      await expect(decode(broken)).rejects.toThrow(/damaged/);
    }
    const flipped = bytes.slice();
    flipped[bytes.length >> 1]! ^= 1;
    await expect(decode(flipped)).rejects.toThrow(FramesError);
  });
});
