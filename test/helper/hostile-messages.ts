// Messages of a hostile peer: some break one rule of SPEC.md each, others are unusual but valid.

import type { ErrorName } from "../../src/errors.ts";
import { type } from "../wire/vectors.ts";
import { data, end, frame, json, message, MORE, OPTIONAL, source } from "./hostile.ts";

/** Messages of a peer after HELLO, and the expected result. */
export interface Case {
  what: string;
  /** Fields of HELLO that differ from the default. */
  hello?: object;
  says: Buffer[];
  expects: ErrorName | "done";
  /** Errors with which frames are refused. */
  refused?: ErrorName[];
  /** Expected files in the folder of the stream. */
  keeps?: Record<string, string>;
}

/** The source of most frames here. */
export const a = source("a");
/** The frame as stored. */
export const kept = { "a/1.png": "bytes" };
/** The first four bytes of a frame of eight. */
export const begun = frame({ flags: MORE, size: 8, payload: "half" });
/** Larger than the integers that a double represents exactly. */
const beyond = 2n ** 53n;
const most = 2n ** 64n - 1n;
const ping = (body: object | string = { time: "0" }) => json(type.PING, body);
/** A PING of exactly `size` bytes. */
const padded = (size: number) => ping(`{"time":"0","x":"${"y".repeat(size - 19)}"}`);
const never = (kind: number, source = 0) =>
  message(kind, "", { source, length: 2 ** 32 - 1, flags: kind > 19 ? OPTIONAL : 0 });
const loss = (ranges: number[][]) => json(type.LOST, { ranges, error: 51 }, 1);
const offer = (count: number) =>
  json(type.OFFER, { frames: Array.from({ length: count }, () => ["a", 0, "0", 1]) }, 1);

/** Messages with fatal lengths, flags, numbers or checksums. */
// prettier-ignore
const framing: [what: string, expects: ErrorName, ...says: Buffer[]][] = [
  ["a SOURCE of length 0", "protocol", message(type.SOURCE, "", { source: 1 })],
  ["a PING of length 0", "protocol", message(type.PING, "")],
  ["an END of length 1", "protocol", json(type.END, "{")],
  ["a FRAME of length 0", "protocol", a, message(type.FRAME, "", { source: 1 })],
  ["a FRAME that ends before its name", "protocol", a, message(type.FRAME, Buffer.alloc(32, 1), { source: 1 })],
  ["a DATA of length 0", "protocol", a, begun, message(type.DATA, "", { source: 1 })],
  ["a DATA without payload", "protocol", a, begun, data("", "half", { flags: MORE })],
  ["a RECEIPT of length 0", "protocol", message(type.RECEIPT, "")],
  ["a PROOF of 31 bytes", "protocol", message(type.PROOF, Buffer.alloc(31))],
  ["a SOURCE of length 2^32-1", "protocol", never(type.SOURCE, 1)],
  ["a FRAME of length 2^32-1", "protocol", a, never(type.FRAME, 1)],
  ["a DATA of length 2^32-1", "protocol", a, begun, never(type.DATA, 1)],
  ["a message that may be skipped, of length 2^32-1", "protocol", never(200)],
  ["a FRAME one byte over the longest", "protocol", a, message(type.FRAME, "", { source: 1, length: 1_048_577 })],
  ["a PING one byte over the longest JSON", "protocol", padded(65_537)],
  ["a frame of 2^53 bytes", "protocol", a, frame({ flags: MORE, size: beyond })],
  ["a frame of 2^64-1 bytes", "protocol", a, frame({ flags: MORE, size: most })],
  ["a frame of number 0", "protocol", a, frame({ sequence: 0 })],
  ["a frame of number 2^53", "protocol", a, frame({ sequence: beyond })],
  ["a frame of number 2^64-1", "protocol", a, frame({ sequence: most })],
  ["a frame that is longer than its size", "protocol", a, frame({ size: 4 })],
  ["a frame that is shorter than its size", "protocol", a, frame({ size: 6 })],
  ["a whole frame with MORE", "protocol", a, frame({ flags: MORE })],
  ["a DATA that goes beyond the size", "protocol", a, begun, data("other", "half")],
  ["a DATA that lacks MORE", "protocol", a, begun, data("hal", "half")],
  ["a last DATA with MORE", "protocol", a, begun, data("half", "half", { flags: MORE })],
  ["a DATA without a FRAME", "protocol", a, data("half", "half")],
  ["a FRAME while one is unfinished", "protocol", a, begun, frame({ sequence: 2, name: "2.png" })],
  ["a message of unknown type", "protocol", message(200, "x")],
  ["a message of type 0", "protocol", message(0, "{}")],
  ["a damaged message that may be skipped", "damaged", message(200, "x", { flags: OPTIONAL, crc: 1 })],
  ["MORE on a message that may be skipped", "protocol", message(200, "x", { flags: OPTIONAL | MORE })],
  ["a flag that does not exist", "protocol", json(type.PING, { time: "0" }, 0, { flags: 0x40 })],
  ["MORE on a PING", "protocol", json(type.PING, { time: "0" }, 0, { flags: MORE })],
  ["a PING with another CRC-32", "damaged", json(type.PING, { time: "0" }, 0, { crc: 0 })],
  ["a FRAME with another CRC-32 of its description", "damaged", a, frame({ crc: 0 })],
  ["a FRAME with another CRC-32 of its payload", "damaged", a, frame({ payloadCrc: 0 })],
  ["a DATA with another CRC-32 of its payload", "damaged", a, begun, data("half", "half", { payloadCrc: 0 })],
  ["a name of no bytes", "protocol", a, frame({ name: "" })],
  ["a name of 256 bytes", "protocol", a, frame({ name: "n".repeat(256) })],
  ["a name that is not UTF-8", "protocol", a, frame({ name: Buffer.from("ff2e2e2f", "hex") })],
  ["a name in overlong UTF-8", "protocol", a, frame({ name: Buffer.from("c0aec0aec0af78", "hex") })],
  ["a name that goes beyond its message", "protocol", a, frame({ nameLength: 100 })],
  ["metadata that goes beyond its message", "protocol", a, frame({ metadataLength: 4000 })],
  ["metadata of 4,097 bytes", "protocol", a, frame({ metadata: `{"x":"${"y".repeat(4089)}"}` })],
  ["metadata that is not JSON", "protocol", a, frame({ metadata: "x" })],
  ["metadata that is no object", "protocol", a, frame({ metadata: "[{}]" })],
  ["metadata that is not UTF-8", "protocol", a, frame({ metadata: Buffer.from('{"\xff":1}', "latin1") })],
  ["metadata of 4,000 brackets", "protocol", a, frame({ metadata: "[".repeat(4000) })],
  ["a SOURCE of id 0", "protocol", source("a", 0)],
  ["a FRAME of id 0", "protocol", frame({ source: 0 })],
  ["a PING of an id", "protocol", json(type.PING, { time: "0" }, 1)],
];

/** Messages sent at the wrong time. */
// prettier-ignore
const states: [what: string, expects: ErrorName, ...says: Buffer[]][] = [
  ["a FRAME of an id that has no SOURCE", "protocol", frame()],
  ["a LOST of an id that has no SOURCE", "protocol", loss([[1, 1]])],
  ["an OFFER of an id that has no SOURCE", "protocol", offer(1)],
  ["a SOURCE of an id whose frame is unfinished", "protocol", a, begun, source("b")],
  ["an ABORT of another number", "protocol", a, begun, json(type.ABORT, { sequence: 2 }, 1)],
  ["an ABORT without a frame", "protocol", a, json(type.ABORT, { sequence: 1 }, 1)],
  ["an END while a frame is unfinished", "protocol", a, begun, end(1)],
  ["an END while an OFFER is unanswered", "protocol", a, offer(1), end(0)],
  ["an END that counts too many frames", "protocol", end(2 ** 53 - 1)],
  ["a WELCOME", "protocol", json(type.WELCOME, { window: { bytes: 1, frames: 1 }, limits: { frame: 1, sources: 1, unfinished: 1 } })],
  ["a DONE", "protocol", json(type.DONE, { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 })],
  ["a RECEIPT", "protocol", message(type.RECEIPT, Buffer.alloc(8))],
  ["a REFUSED", "protocol", json(type.REFUSED, { sequence: 1, error: 33, message: "" }, 1)],
  ["an ANSWER", "protocol", a, json(type.ANSWER, { answers: "w" }, 1)],
  ["a GONE", "protocol", a, json(type.GONE, { sequence: 1, name: "1.png" }, 1)],
  ["a CURSOR", "protocol", json(type.CURSOR, { cursor: "1" })],
  ["a PROOF when sources are declared", "protocol", a, message(type.PROOF, Buffer.alloc(32))],
  ["an ERROR store", "store", json(type.ERROR, { error: 8, message: "\x1b[2J" })],
  ["an ERROR with an unknown number", "protocol", json(type.ERROR, { error: 31, message: "" })],
  ["17 unfinished frames", "limit", ...Array.from({ length: 17 }, (_, id) => [source(`${id}`, id + 1), frame({ source: id + 1, flags: MORE, size: 8, payload: "half" })]).flat()],
  ["10,001 ids", "limit", ...Array.from({ length: 10_001 }, (_, id) => source(`${id}`, id + 1))],
  // An OFFER is answered after all available input is read, so these accumulate.
  ["36,800 offered frames at once", "limit", a, ...Array.from({ length: 8 }, () => offer(4600))],
];

/** After END only PING and PONG are allowed. */
const afterEnd: [what: string, expects: ErrorName, ...says: Buffer[]][] = [
  ["a second END", "protocol", end(0), end(0)],
  ["a FRAME after END", "protocol", a, end(0), frame()],
  ["a SOURCE after END", "protocol", end(0), a],
  ["a LOST after END", "protocol", a, end(0), loss([[1, 1]])],
  ["an OFFER after END", "protocol", a, end(0), offer(1)],
];

/** Invalid JSON, and JSON without the required fields. */
// prettier-ignore
const bodies: [what: string, expects: ErrorName, ...says: Buffer[]][] = [
  ["a body that is no JSON", "protocol", ping("{'time':'0'}")],
  ["a body that is an array", "protocol", ping("[]")],
  ["a body that is null", "protocol", ping("null")],
  ["a body that is not UTF-8", "protocol", json(type.PING, Buffer.from('{"time":"0","x":"\xff"}', "latin1"))],
  ["a body with a byte order mark", "protocol", ping('\ufeff{"time":"0"}')],
  ["a body of 65,536 brackets", "protocol", ping("[".repeat(65_536))],
  ["a body of 13,000 objects within each other", "protocol", ping(`${'{"a":'.repeat(13_000)}`)],
  ["a field that is a number where text is meant", "protocol", ping('{"time":0}')],
  ["a number of 400 digits", "protocol", json(type.END, `{"frames":${"9".repeat(400)}}`)],
  ["a number that is infinite", "protocol", json(type.END, '{"frames":1e999}')],
  ["a count below 0", "protocol", json(type.END, '{"frames":-1}')],
  ["a field that only a prototype has", "protocol", json(type.SOURCE, '{"__proto__":{"name":"a"}}', 1)],
  ["a time of 20 digits", "protocol", ping({ time: "1".repeat(20) })],
  ["a range of lost numbers that ends before it begins", "protocol", a, loss([[2, 1]])],
  ["a range of lost numbers beyond 2^53", "protocol", a, json(type.LOST, '{"ranges":[[1,9007199254740993]],"error":51}', 1)],
  ["an offered frame of a size below 0", "protocol", a, json(type.OFFER, { frames: [["a", -1, "0", 1]] }, 1)],
];

/** Cases that end the connection. */
export const fatal: Case[] = [
  ...[...framing, ...states, ...afterEnd, ...bodies].map(([what, expects, ...says]) => {
    return { what, expects, says };
  }),
  {
    what: "an END that counts too few frames",
    says: [a, frame({ name: ".." }), end(0)],
    expects: "protocol",
    refused: ["bad-name"],
  },
];

/** Messages that a receiving client must not send. */
// prettier-ignore
const receiving: [what: string, ...says: Buffer[]][] = [
  ["a SOURCE", a],
  ["a FRAME", frame()],
  ["a DATA", data("half", "half")],
  ["an END", end(0)],
  ["an OFFER", offer(1)],
  ["a LOST", loss([[1, 1]])],
  ["a GONE", json(type.GONE, { sequence: 1, name: "1.png" }, 1)],
  ["a CURSOR", json(type.CURSOR, { cursor: "1" })],
  ["a second HELLO", json(type.HELLO, { role: "receive", session: "0".repeat(32), stream: "s" })],
  ["a RECEIPT of a frame that was not sent", message(type.RECEIPT, Buffer.from("0000000000000001", "hex"))],
  ["a REFUSED of a frame that was not sent", json(type.REFUSED, { sequence: 1, error: 33, message: "" }, 1)],
  ["a DONE without END", json(type.DONE, { frames: 0, stored: 0, present: 0, refused: 0, aborted: 0 })],
  ["a PING with another CRC-32", json(type.PING, { time: "0" }, 0, { crc: 0 })],
];
for (const [what, ...says] of receiving) {
  const hello = { role: "receive", follow: true, cursor: "'; DROP TABLE frames; --" };
  const expects = what.includes("CRC-32") ? "damaged" : "protocol";
  fatal.push({ what: `${what} of a receiving client`, hello, says, expects });
}

const nested = `{"x":${"[".repeat(1900)}${"]".repeat(1900)}}`;
const session = "00112233445566778899aabbccddeeff";
const sixteen = Array.from({ length: 16 }, (_, index) => index + 1);

/** Unusual but valid messages. */
export const right: Case[] = [
  { what: "an END without frames", says: [end(0)], expects: "done" },
  {
    what: "a PING of the longest JSON",
    says: [padded(65_536), end(0)],
    expects: "done",
  },
  {
    what: "an unknown message that may be skipped, and a PONG to no PING",
    says: [
      message(200, Buffer.alloc(100_000), { flags: OPTIONAL, source: 7 }),
      json(type.PONG, { time: "0", clock: "0" }),
      end(0),
    ],
    expects: "done",
  },
  {
    what: "a frame of 2^53-1 bytes that is aborted",
    says: [
      a,
      frame({ flags: MORE, size: beyond - 1n }),
      json(type.ABORT, { sequence: 1 }, 1),
      end(1),
    ],
    expects: "done",
    refused: ["too-large"],
  },
  {
    what: "a frame over the limit that comes in pieces",
    says: [
      a,
      frame({ flags: MORE, size: 2 ** 40, payload: Buffer.alloc(1_000_000) }),
      data(Buffer.alloc(1_000_000), Buffer.alloc(1_000_000), { flags: MORE }),
      json(type.ABORT, { sequence: 1 }, 1),
      frame({ sequence: 2 }),
      end(2),
    ],
    expects: "done",
    refused: ["too-large"],
    keeps: kept,
  },
  {
    what: "16 unfinished frames, whose pieces come in turn",
    says: [
      ...sixteen.map((id) => source(`${id}`, id)),
      ...sixteen.map((id) => frame({ source: id, flags: MORE, size: 8, payload: "half" })),
      ...sixteen.map((id) => data("half", "half", { source: id })),
      end(16),
    ],
    expects: "done",
    keeps: Object.fromEntries(sixteen.map((id) => [`${id}/1.png`, "halfhalf"])),
  },
  {
    what: "a frame that is aborted and sent again",
    says: [a, begun, json(type.ABORT, { sequence: 1 }, 1), frame(), end(1 + 1)],
    expects: "done",
    keeps: kept,
  },
  {
    what: "a repeated field, of which the last counts,",
    says: [json(type.SOURCE, '{"name":"..","name":"a"}', 1), frame(), end(1)],
    expects: "done",
    keeps: kept,
  },
  {
    what: "fields named like those of every object",
    says: [
      json(
        type.SOURCE,
        '{"name":"a","__proto__":{"stream":".."},"constructor":{"prototype":{"stream":".."}}}',
        1,
      ),
      frame({ metadata: '{"__proto__":{"stream":".."}}' }),
      end(1),
    ],
    expects: "done",
    keeps: kept,
  },
  {
    what: "metadata of 1,900 arrays within each other",
    says: [a, frame({ metadata: nested }), end(1)],
    expects: "done",
    keeps: kept,
  },
  {
    what: "20,000 ranges of lost numbers",
    says: [
      a,
      ...[0, 1, 2, 3].map((part) =>
        loss(Array.from({ length: 5000 }, (_, index) => [1 + index, part + index + 1])),
      ),
      loss([[1, 2 ** 53 - 1]]),
      end(0),
    ],
    expects: "done",
  },
  {
    what: "the same frame 3,000 times",
    says: [a, ...Array.from({ length: 3000 }, () => frame()), end(3000)],
    expects: "done",
    keeps: kept,
  },
  {
    what: "an ERROR number of a later version as the reason of a loss",
    says: [a, json(type.LOST, { ranges: [[1, 1]], error: 2 ** 53 - 1, message: "\n" }, 1), end(0)],
    expects: "done",
  },
];

/** Cases with a single fault in HELLO: session, stream or requested features. */
// prettier-ignore
export const greetings: [what: string, fields: object | Buffer, expects: ErrorName][] = [
  ["HELLO with no role", { role: undefined }, "protocol"],
  ["HELLO with an unknown role", { role: "both" }, "protocol"],
  ["HELLO with an empty cursor", { role: "receive", cursor: "" }, "protocol"],
  ["HELLO with 1,001 wanted sources", { role: "receive", sources: Array(1001).fill("a") }, "protocol"],
  ["HELLO with a first number of 0", { role: "receive", first: 0 }, "protocol"],
  ["HELLO with a session of 31 digits", { session: session.slice(1) }, "protocol"],
  ["HELLO with a session in capitals", { session: session.toUpperCase() }, "protocol"],
  ["HELLO with a session with a line feed", { session: `${session}\n` }, "protocol"],
  ["HELLO with an empty stream", { stream: "" }, "protocol"],
  ["HELLO with a stream of 256 bytes", { stream: "ä".repeat(128) }, "protocol"],
  ["HELLO with an unknown conflict mode", { conflict: "toString" }, "protocol"],
  ["HELLO with features that are no list", { features: { length: 1 } }, "protocol"],
  ["a FRAME in place of HELLO", frame(), "protocol"],
  ["a SOURCE in place of HELLO", a, "protocol"],
  ["an END in place of HELLO", end(0), "protocol"],
  ["a PING in place of HELLO", ping(), "protocol"],
];
