/**
 * Byte vectors of FRAMES/1 with their meaning, written from `src/wire/SPEC.md` alone. This table
 * drives the tests of encoder, decoder and fuzzer. The first vectors are literal, with CRC-32s from
 * Python's zlib. The others come from the plain builder below, which shares nothing with `src/`.
 */

/** The three fields at the start of every message. */
export interface Heading {
  type: number;
  flags: number;
  source: number;
}

/** A message with a JSON body. Unknown fields stay in `json`. */
export interface JsonMessage extends Heading {
  json: object;
}

/** A frame, or its first piece. `size` is that of the whole frame, `payload` is hexadecimal. */
export interface FrameMessage extends Heading {
  sequence: number;
  captured: bigint;
  size: number;
  payloadCrc: number;
  name: string;
  metadata: string;
  payload: string;
}

/** A later piece of a frame. */
export interface DataMessage extends Heading {
  payloadCrc: number;
  payload: string;
}

/** Reports the number of settled frames. */
export interface ReceiptMessage extends Heading {
  frames: number;
}

/** Proof of a key, in hexadecimal. */
export interface ProofMessage extends Heading {
  proof: string;
}

/** A message of unknown type with the flag OPTIONAL. */
export interface SkippedMessage extends Heading {
  skipped: true;
}

/** A decoded message. */
export type DecodedMessage =
  JsonMessage | FrameMessage | DataMessage | ReceiptMessage | ProofMessage | SkippedMessage;

/** Bytes of one direction after the preface, and their messages. */
export interface Vector {
  /** Test name. */
  name: string;
  /** Section of SPEC.md. */
  section: string;
  /** Bytes in hexadecimal. Spaces only help the reader. */
  hex: string;
  messages: DecodedMessage[];
  /** Whether our encoder writes other bytes for the same meaning, or never writes this message. */
  decodeOnly?: true;
}

/** Fatal bytes of one direction after the preface. */
export interface BadVector {
  name: string;
  section: string;
  hex: string;
  /** Error name in section 11. */
  error: string;
}

/** Message type numbers of section 4. */
export const type = {
  HELLO: 1,
  WELCOME: 2,
  SOURCE: 3,
  FRAME: 4,
  DATA: 5,
  ABORT: 6,
  RECEIPT: 7,
  REFUSED: 8,
  LOST: 9,
  OFFER: 10,
  ANSWER: 11,
  END: 12,
  DONE: 13,
  ERROR: 14,
  PING: 15,
  PONG: 16,
  PROOF: 17,
  GONE: 18,
  CURSOR: 19,
} as const;

const MORE = 0x01;
const KEY = 0x02;
const OPTIONAL = 0x80;
const LIMIT = 1_048_576;
const HIGHEST = Number.MAX_SAFE_INTEGER;

interface Part {
  hex: string;
  message: DecodedMessage;
}

function integer(value: number | bigint, bytes: number): string {
  return BigInt.asUintN(bytes * 8, BigInt(value))
    .toString(16)
    .padStart(bytes * 2, "0");
}

function text(value: string): string {
  return Buffer.from(value, "utf8").toString("hex");
}

/** CRC-32 of section 3, one bit at a time. */
function checksum(hex: string): number {
  let remainder = 0xffffffff;
  for (const byte of Buffer.from(hex, "hex")) {
    remainder ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      remainder = (remainder >>> 1) ^ (remainder & 1 ? 0xedb88320 : 0);
    }
  }
  return ~remainder >>> 0;
}

/** Builds one message. The arguments may break every rule except the header's CRC-32. */
export function message(
  heading: Heading,
  covered: string,
  payload = "",
  length = (covered.length + payload.length) / 2,
): string {
  const first =
    integer(heading.type, 1) +
    integer(heading.flags, 1) +
    integer(heading.source, 2) +
    integer(length, 4);
  return first + integer(checksum(first + covered), 4) + covered + payload;
}

function json(number: number, source: number, object: object, flags = 0): Part {
  const heading = { type: number, flags, source };
  return {
    hex: message(heading, text(JSON.stringify(object))),
    message: { ...heading, json: object },
  };
}

/**
 * Builds a FRAME with default fields. `nameBytes` replaces the name by bytes that may be invalid
 * text.
 */
function frame(fields: Partial<FrameMessage> = {}, nameBytes?: string, lengths?: string): Part {
  const payload = fields.payload ?? "";
  const all: FrameMessage = {
    type: type.FRAME,
    flags: 0,
    source: 1,
    sequence: 1,
    captured: 0n,
    size: payload.length / 2,
    payloadCrc: checksum(payload),
    name: "a",
    metadata: "",
    payload,
    ...fields,
  };
  const name = nameBytes ?? text(all.name);
  const metadata = text(all.metadata);
  const description =
    integer(all.sequence, 8) +
    integer(all.captured, 8) +
    integer(all.size, 8) +
    integer(all.payloadCrc, 4) +
    (lengths ?? integer(name.length / 2, 2) + integer(metadata.length / 2, 2));
  return { hex: message(all, description + name + metadata, payload), message: all };
}

/** Builds a DATA. `before` is the payload of the previous pieces. */
function data(before: string, payload: string, fields: Partial<DataMessage> = {}): Part {
  const payloadCrc = checksum(before + payload);
  const all = { type: type.DATA, flags: 0, source: 1, payloadCrc, payload, ...fields };
  return { hex: message(all, integer(all.payloadCrc, 4), payload), message: all };
}

function valid(section: string, name: string, ...parts: Part[]): Vector {
  const hex = parts.map((part) => part.hex).join(" ");
  return { name, section, hex, messages: parts.map((part) => part.message) };
}

/**
 * A complete body of each JSON type. `required` and `optional` are paths joined by dots. An
 * optional field may be missing but must not have another type.
 */
// prettier-ignore
const samples: { type: number; source: number; object: object; required: string[]; optional?: string[] }[] = [
  { type: type.HELLO, source: 0, object: { role: "receive", session: "0123456789abcdef0123456789abcdef", stream: "line 1", started: "1700000000000000000", software: "x", features: [], limits: { frame: 1e9 }, conflict: "skip", again: true, durable: true, key: "k", cursor: "c", follow: true, sources: ["a/b"], since: "-1", first: 1, latest: false, window: { bytes: 1, frames: 1 } }, required: ["role", "session", "stream"],
    optional: ["started", "software", "features", "limits", "limits.frame", "conflict", "again", "durable", "key", "cursor", "follow", "sources", "since", "first", "latest", "window", "window.bytes", "window.frames"] },
  { type: type.WELCOME, source: 0, object: { window: { bytes: 67108864, frames: 4096 }, limits: { frame: HIGHEST, sources: 64, unfinished: 8 }, fresh: true, durable: false, features: ["x"], software: "x", store: "/y", receipts: 1, identity: "z", resumed: true, sources: ["a", "b"] }, required: ["window", "window.bytes", "window.frames", "limits", "limits.frame", "limits.sources", "limits.unfinished"],
    optional: ["fresh", "durable", "features", "software", "store", "receipts", "identity", "resumed", "sources"] },
  { type: type.SOURCE, source: 65535, object: { name: "hall/camera 1", stream: "s", type: "image/x-raw", raw: { width: 640, height: 480, format: "gray8" }, revises: false, session: "0123456789abcdef0123456789abcdef" }, required: ["name"],
    optional: ["stream", "type", "raw", "raw.width", "raw.height", "raw.format", "revises", "session"] },
  { type: type.ABORT, source: 1, object: { sequence: 1, error: 48, message: "gone" }, required: ["sequence"], optional: ["error", "message"] },
  { type: type.REFUSED, source: 1, object: { sequence: HIGHEST, error: 35, message: "taken" }, required: ["sequence", "error", "message"] },
  { type: type.LOST, source: 1, object: { ranges: [[1, 1], [3, HIGHEST]], error: 51, message: "queue full", name: "1.png" }, required: ["ranges", "error"], optional: ["message", "name"] },
  { type: type.OFFER, source: 1, object: { frames: [["a.png", 0, "-1", 1], ["ä.png", 9, "1700000000123456789", 2, 0xcbf43926]] }, required: ["frames"] },
  { type: type.ANSWER, source: 1, object: { answers: "wsmcx" }, required: ["answers"] },
  { type: type.END, source: 0, object: { frames: 0 }, required: ["frames"] },
  { type: type.DONE, source: 0, object: { frames: 10, stored: 1, present: 2, refused: 3, aborted: 4 }, required: ["frames", "stored", "present", "refused", "aborted"] },
  { type: type.ERROR, source: 0, object: { error: 31, message: "of a later version", source: 65535, sequence: HIGHEST }, required: ["error", "message"],
    optional: ["source", "sequence"] },
  { type: type.PING, source: 0, object: { time: "-9223372036854775808" }, required: ["time"] },
  { type: type.PONG, source: 0, object: { time: "0", clock: "1" }, required: ["time", "clock"] },
  { type: type.GONE, source: 1, object: { sequence: 7, name: "a.png" }, required: ["sequence", "name"] },
  { type: type.CURSOR, source: 0, object: { cursor: "c.1" }, required: ["cursor"] },
];

/** Returns the messages that must precede this one: an ABORT needs a frame. */
function opening(number: number): Part[] {
  return number === type.ABORT ? [frame({ flags: MORE, size: 2, payload: "00" })] : [];
}

/** Returns a copy of the object with the field at the path replaced or removed. */
function changed(object: object, path: string, value?: unknown): object {
  const copy: Record<string, unknown> = { ...object };
  const [first = "", ...rest] = path.split(".");
  copy[first] = rest.length > 0 ? changed(copy[first] as object, rest.join("."), value) : value;
  return copy;
}

/** Returns a value of another type. */
function otherKind(value: unknown): unknown {
  if (typeof value === "string") return 1;
  if (typeof value === "number") return String(value);
  if (typeof value === "boolean") return Number(value);
  return Array.isArray(value) ? {} : [];
}

function valueAt(object: object, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], object);
}

function raw(number: number, source: number, body: string, flags = 0): string {
  return message({ type: number, flags, source }, body);
}

const hello = { role: "send", session: "00112233445566778899aabbccddeeff", stream: "s" };
const window = { bytes: 1, frames: 1 };
const least = { frame: 1, sources: 1, unfinished: 1 };
const nine = text("123456789");
const full = "5a".repeat(LIMIT - 33);
const fullData = "a5".repeat(LIMIT - 4);
/** Returns the body of a PING with exactly `size` bytes. */
const ping = (size: number) => ({ time: "0", x: "y".repeat(size - '{"time":"0","x":""}'.length) });

/** Written by hand, with CRC-32s from Python's zlib. */
// prettier-ignore
const literal: Vector[] = [
  { name: "A PING carries the clock of its sender", section: "4",
    hex: "0f 00 0000 0000000c f9794810 7b2274696d65223a2230227d",
    messages: [{ type: 15, flags: 0, source: 0, json: { time: "0" } }] },
  { name: "A RECEIPT is one number of eight bytes", section: "4",
    hex: "07 00 0000 00000008 33934082 0000000000000003",
    messages: [{ type: 7, flags: 0, source: 0, frames: 3 }] },
  { name: "A PROOF is 32 bytes", section: "4", decodeOnly: true,
    hex: "11 00 0000 00000020 5284860a 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    messages: [{ type: 17, flags: 0, source: 0, proof: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" }] },
  { name: "The smallest HELLO has role, session and stream", section: "4",
    hex: "01 00 0000 00000049 3eafa7df 7b22726f6c65223a2273656e64222c2273657373696f6e223a22" +
      "3030313132323333343435353636373738383939616162626363646465656666222c2273747265616d223a2273227d",
    messages: [{ type: 1, flags: 0, source: 0, json: hello }] },
  { name: "A frame of one byte has a CRC-32 for its description and one for its payload", section: "5",
    hex: "04 00 0001 00000022 3448552d 0000000000000001 0000000000000000 0000000000000001 ff000000 0001 0000 61 ff",
    messages: [{ type: 4, flags: 0, source: 1, sequence: 1, captured: 0n, size: 1, payloadCrc: 0xff000000, name: "a", metadata: "", payload: "ff" }] },
  { name: "An empty frame is one FRAME without payload, and its capture time may be negative", section: "5",
    hex: "04 00 ffff 00000027 026c3e79 0000000000000001 ffffffffffffffff 0000000000000000 00000000 0005 0002 612e706e67 7b7d",
    messages: [{ type: 4, flags: 0, source: 65535, sequence: 1, captured: -1n, size: 0, payloadCrc: 0, name: "a.png", metadata: "{}", payload: "" }] },
  { name: "The last piece carries the CRC-32 of the whole frame", section: "5",
    hex: "04 01 0001 00000025 62e8fdba 0000000000000002 17979cfe3d85cd15 0000000000000009 9be3e0a3 0001 0000 62 31323334 " +
      "05 00 0001 00000009 36157d01 cbf43926 3536373839",
    messages: [{ type: 4, flags: 1, source: 1, sequence: 2, captured: 1700000000123456789n, size: 9, payloadCrc: 0x9be3e0a3, name: "b", metadata: "", payload: "31323334" },
      { type: 5, flags: 0, source: 1, payloadCrc: 0xcbf43926, payload: "3536373839" }] },
  { name: "A message of unknown type is skipped where it is OPTIONAL", section: "3", decodeOnly: true,
    hex: "c8 80 0000 00000002 1a26a26f 0102",
    messages: [{ type: 200, flags: 0x80, source: 0, skipped: true }] },
];

/** A JSON body that is valid although our encoder never writes it. */
function written(section: string, name: string, number: number, body: string): Vector {
  const heading = { type: number, flags: 0, source: 0 };
  const messages = [{ ...heading, json: JSON.parse(body) as object }];
  return { name, section, hex: message(heading, text(body)), messages, decodeOnly: true };
}

const interleaved = [
  frame({ source: 1, flags: MORE, size: 4, payload: "0102" }),
  frame({ source: 2, flags: MORE, size: 3, payload: "" }),
  json(type.PING, 0, { time: "5" }),
  data("", "aabb", { source: 2, flags: MORE }),
  data("0102", "03", { source: 1, flags: MORE }),
  data("aabb", "cc", { source: 2 }),
  frame({ source: 2, sequence: 2, payload: "dd" }),
  data("010203", "04", { source: 1 }),
  json(type.END, 0, { frames: 3 }),
];

/** Marks a vector for which our encoder writes other bytes. */
const decodeOnly = (vector: Vector): Vector => ({ ...vector, decodeOnly: true });

/** Every valid message of one direction. */
// prettier-ignore
export const vectors: Vector[] = [
  ...literal,
  ...samples.map((sample) =>
    valid("4", `A message of type ${sample.type} carries all its fields`, ...opening(sample.type), json(sample.type, sample.source, sample.object))),
  decodeOnly(valid("3", "OPTIONAL on a known type changes nothing", json(type.PING, 0, { time: "1" }, OPTIONAL))),
  decodeOnly(valid("3", "OPTIONAL goes together with MORE", frame({ flags: MORE | OPTIONAL, size: 1 }), data("", "00", { flags: OPTIONAL }))),
  decodeOnly(valid("3", "An unknown OPTIONAL message may be empty, and what follows it is read",
    { hex: raw(255, 0, "", OPTIONAL), message: { type: 255, flags: OPTIONAL, source: 0, skipped: true } }, json(type.END, 0, { frames: 0 }))),
  valid("3", "No bytes are no messages."),
  valid("4", "An unknown field is ignored", json(type.CURSOR, 0, { cursor: "x", later: [1] })),
  valid("12", "A JSON body may have 65,536 bytes", json(type.PING, 0, ping(65_536))),
  written("3", "White space around JSON means nothing", type.END, ' {\n"frames" :\t0}\r\n'),
  written("3", "Escapes in JSON are read", type.CURSOR, '{"curs\\u006fr":"\\ud83d\\ude00\\/"}'),
  valid("4", "A WELCOME needs window and limits only", json(type.WELCOME, 0, { window, limits: least })),
  valid("4", "A time may have 19 digits", ...["9".repeat(19), `-${"9".repeat(19)}`, "0".repeat(19)].map((time) => json(type.PING, 0, { time }))),
  valid("4", "A size may be 0 where WELCOME does not grant it", json(type.HELLO, 0, { ...hello, limits: { frame: 0 } })),
  valid("4", "An ERROR needs number and message only", json(type.ERROR, 0, { error: 4, message: "" })),
  valid("4", "An ERROR may have an unknown number", json(type.ERROR, 0, { error: HIGHEST, message: "" })),
  valid("12", "A source or stream of any length is not fatal in SOURCE",
    json(type.SOURCE, 1, { name: "" }), json(type.SOURCE, 1, { name: "n".repeat(1025), stream: "s".repeat(256) }), json(type.SOURCE, 1, { name: "/", stream: "" })),
  decodeOnly(valid("3", "The source id of an unknown type may be anything",
    { hex: raw(77, 65_535, "00", OPTIONAL), message: { type: 77, flags: OPTIONAL, source: 65_535, skipped: true } })),
  valid("4", "A source needs a name only", json(type.SOURCE, 1, { name: "a" })),
  valid("4", "A source id may be declared again between frames",
    json(type.SOURCE, 1, { name: "a" }), frame(), json(type.SOURCE, 1, { name: "b" }), frame()),
  valid("12", "The name of a source may have 1,024 bytes and 32 parts",
    json(type.SOURCE, 1, { name: `${`${"d".repeat(255)}/`.repeat(3)}${"e".repeat(252)}/eee` }),
    json(type.SOURCE, 1, { name: `${"a/".repeat(31)}a` })),
  valid("4", "A source whose name could leave the store is not fatal", json(type.SOURCE, 1, { name: "../a" })),
  valid("12", "The name of a stream may have 255 bytes", json(type.HELLO, 0, { ...hello, stream: "s".repeat(255) })),
  valid("8", "An OFFER and its ANSWER may be empty", json(type.OFFER, 1, { frames: [] }), json(type.ANSWER, 1, { answers: "" })),
  valid("8", "An unknown field in an OFFER is ignored", json(type.OFFER, 1, { frames: [], again: 1 })),
  valid("8", "An OFFER may describe frames that no store accepts",
    json(type.OFFER, 1, { frames: [["", HIGHEST, "9".repeat(19), HIGHEST, 0xffffffff], ["../a", 0, `-${"9".repeat(19)}`, 1, 0], ["n".repeat(300), 0, "0", 1]] })),
  valid("8", "Unknown letters in an ANSWER are not fatal to the decoder", json(type.ANSWER, 1, { answers: "zä" })),
  valid("4", "An ABORT needs the sequence number only", ...opening(type.ABORT), json(type.ABORT, 1, { sequence: 1 })),
  valid("4", "A LOST needs ranges and error only", json(type.LOST, 1, { ranges: [], error: 35 })),
  valid("4", "A RECEIPT may repeat the last one", ...[0, 0, HIGHEST].map((frames) =>
    ({ hex: raw(type.RECEIPT, 0, integer(frames, 8)), message: { type: type.RECEIPT, flags: 0, source: 0, frames } }))),
  valid("5", "Frames of different sources interleave", ...interleaved),
  valid("5", "A frame is sent again after ABORT, and END counts both",
    frame({ sequence: 7, flags: MORE, size: 3, payload: "01" }), data("01", "02", { flags: MORE }), json(type.ABORT, 1, { sequence: 7 }),
    frame({ sequence: 8 }), frame({ sequence: 7, payload: "040506" }), json(type.END, 0, { frames: 3 })),
  valid("5", "Sequence numbers of a source need not rise", frame({ sequence: 9 }), frame({ sequence: 3 }), frame({ sequence: 12 })),
  valid("5", "The highest sequence number, size and capture time fit",
    frame({ flags: MORE, sequence: HIGHEST, size: HIGHEST, captured: 2n ** 63n - 1n, payload: "00" }), frame({ source: 2, captured: -(2n ** 63n) })),
  valid("5", "A name may have 255 bytes", frame({ name: "n".repeat(255) })),
  valid("5", "A name is UTF-8", frame({ name: "Aufnahme äöü 写真 😀.png", payload: "00" })),
  valid("5", "A name may begin with U+FEFF", frame({ name: "\ufeffa" })),
  valid("12", "An odd name is not fatal", frame({ name: "../\\\u0000\u0001" })),
  valid("5", "Metadata may have 4,096 bytes", frame({ metadata: `{"x":"${"m".repeat(4088)}"}` })),
  valid("5", "Metadata may be any JSON object", frame({ metadata: ' { "ü" : null } ' })),
  valid("3", "A body of FRAME may have 1,048,576 bytes", frame({ payload: full })),
  valid("3", "A body of DATA may have 1,048,576 bytes", frame({ flags: MORE, size: LIMIT - 4 }), data("", fullData)),
];

const unfinished = frame({ flags: MORE, size: 4, payload: "0102" });

/** Messages with a fatal header. The body is missing. */
// prettier-ignore
const headers: [section: string, name: string, heading: Heading, length: number][] = [
  ["3", "A FRAME of 1,048,577 bytes is fatal", { type: 4, flags: 0, source: 1 }, LIMIT + 1],
  ["3", "A DATA of 1,048,577 bytes is fatal", { type: 5, flags: 0, source: 1 }, LIMIT + 1],
  ["3", "The highest length is fatal", { type: 4, flags: 0, source: 1 }, 0xffffffff],
  ["3", "A body that is too long is fatal in an unknown OPTIONAL message too", { type: 200, flags: OPTIONAL, source: 0 }, LIMIT + 1],
  ["12", "A JSON body of 65,537 bytes is fatal", { type: 15, flags: 0, source: 0 }, 65_537],
  ["12", "A RECEIPT of 7 bytes is fatal", { type: 7, flags: 0, source: 0 }, 7],
  ["12", "A RECEIPT of 9 bytes is fatal", { type: 7, flags: 0, source: 0 }, 9],
  ["12", "A PROOF of 31 bytes is fatal", { type: 17, flags: 0, source: 0 }, 31],
  ["12", "A PROOF of 33 bytes is fatal", { type: 17, flags: 0, source: 0 }, 33],
  ["12", "A FRAME of 32 bytes is fatal", { type: 4, flags: 0, source: 1 }, 32],
];

type Row = [section: string, name: string, ...parts: (Part | string)[]];

/** Replaces some bytes of a message but keeps the CRC-32s. */
const damage = (part: Part | string, from: string, to: string) =>
  (typeof part === "string" ? part : part.hex).replace(from, to);

/** Truncates a message after its header, and after the fixed part of FRAME. */
const headerOf = (part: Part) => part.hex.slice(0, 24);
const fixedOf = (part: Part) => part.hex.slice(0, 88);

// prettier-ignore
const damaged: Row[] = [
  ["3", "A damaged CRC-32 is noticed", "0f000000 0000000c f9794811 7b2274696d65223a2230227d"],
  ["3", "A damaged type is noticed where the header alone is in order", "10000000 0000000c f9794810 7b2274696d65223a2230227d"],
  ["3", "A damaged JSON body is noticed", "0f000000 0000000c f9794810 7b2274696d65223a2231227d"],
  ["3", "A damaged JSON body is damaged rather than no JSON", "0f000000 0000000c f9794810 7a2274696d65223a2230227d"],
  ["3", "A damaged RECEIPT is noticed", "07000000 00000008 33934082 0000000000000002"],
  ["3", "A damaged PROOF is noticed", `11000000 00000020 5284860a ${"00".repeat(32)}`],
  ["3", "A damaged message that would be skipped is noticed", "c8800000 00000002 1a26a26f 0103"],
  ["3", "A damaged source id is noticed", damage(frame(), "04000001", "04000002")],
  ["5", "A damaged name is noticed", damage(frame({ name: "abc" }), "616263", "616264")],
  ["5", "A name damaged out of UTF-8 is damaged", damage(frame({ name: "abc" }), "616263", "6162ff")],
  ["5", "Damaged metadata are noticed", damage(frame({ metadata: '{"a":1}' }), "3a31", "3a32")],
  ["5", "A damaged payload is noticed", damage(frame({ payload: nine }), "3839", "3838")],
  ["5", "A payload that fails its CRC-32 is noticed", frame({ payload: nine, payloadCrc: 0xcbf43927 })],
  ["5", "An empty payload has the CRC-32 0", frame({ payloadCrc: 1 })],
  ["5", "The CRC-32 of DATA covers the pieces before it too", unfinished, data("", "0304")],
  ["5", "A wrong CRC-32 in a middle piece is noticed", unfinished, data("01", "03", { flags: MORE })],
  ["5", "A wrong CRC-32 in a first piece is noticed", frame({ flags: MORE, size: 2, payload: "01", payloadCrc: 0 })],
];

// prettier-ignore
const broken: Row[] = [
  ["4", "FRAME with source id 0 is fatal", frame({ source: 0 })],
  ["4", "DATA with source id 0 is fatal", unfinished, data("0102", "0304", { source: 0 })],
  ["4", "RECEIPT with a source id is fatal", raw(type.RECEIPT, 1, "00".repeat(8))],
  ["4", "PROOF with a source id is fatal", raw(type.PROOF, 1, "00".repeat(32))],
  ["3", "RECEIPT with MORE is fatal", raw(type.RECEIPT, 0, "00".repeat(8), MORE)],
  ["3", "PROOF with MORE is fatal", raw(type.PROOF, 0, "00".repeat(32), MORE)],
  ["3", "MORE on an unknown OPTIONAL type is fatal", raw(200, 0, "", MORE | OPTIONAL)],
  ["4", "An empty JSON body is fatal", raw(type.PING, 0, "")],
  ["4", "A body that is not JSON is fatal", raw(type.PING, 0, text("{time:0}"))],
  ["4", "JSON with something behind it is fatal", raw(type.END, 0, text('{"frames":0}x'))],
  ["4", "A byte order mark is fatal", raw(type.PING, 0, `efbbbf${text('{"time":"0"}')}`)],
  ["4", "A role that is neither send nor receive is fatal", json(1, 0, { ...hello, role: "both" })],
  ["12", "A stream without a name is fatal", json(1, 0, { ...hello, stream: "" })],
  ["12", "A stream's name of 256 bytes is fatal", json(1, 0, { ...hello, stream: "ä".repeat(128) })],
  ["4", "A count is not negative", json(type.END, 0, { frames: -1 })],
  ["4", "A count is a whole number", json(type.END, 0, { frames: 0.5 })],
  ...["window.bytes", "window.frames", "limits.frame", "limits.sources", "limits.unfinished"].map((path): Row =>
    ["4", `A WELCOME that grants 0 as ${path} is fatal`, json(type.WELCOME, 0, changed({ window, limits: least }, path, 0))]),
  ["4", "A feature that is not a string is fatal", json(1, 0, { ...hello, features: ["x", 1] })],
  ["9", "A requested source that is not a string is fatal", json(1, 0, { ...hello, role: "receive", sources: [1] })],
  ["4", "A conflict that is not one of three words is fatal", json(1, 0, { ...hello, conflict: "ask" })],
  ["4", "The sequence number 0 is fatal in ERROR", json(14, 0, { error: 4, message: "", source: 1, sequence: 0 })],
  ["8", "An OFFER that is no list is fatal", json(type.OFFER, 1, { frames: {} })],
  ["9", "The session of a source has 32 digits", json(3, 1, { name: "a", session: "0" })],
  ["4", "The error of ABORT is a count", unfinished, json(6, 1, { sequence: 1, error: -1 })],
  ["4", "The sequence number 0 is fatal in REFUSED", json(8, 1, { sequence: 0, error: 35, message: "" })],
  ["4", "The sequence number 0 is fatal in LOST", json(9, 1, { ranges: [[0, 1]], error: 48 })],
  ["9", "The sequence number 0 is fatal in GONE", json(18, 1, { sequence: 0, name: "a" })],
  ["12", "A CURSOR of no characters is fatal", json(type.CURSOR, 0, { cursor: "" })],
  ["12", "A CURSOR of 1,025 characters is fatal", json(type.CURSOR, 0, { cursor: "c".repeat(1025) })],
  ["12", "A HELLO with a cursor of 1,025 characters is fatal", json(1, 0, { ...hello, role: "receive", cursor: "c".repeat(1025) })],
  ["12", "A HELLO that asks for 1,001 sources is fatal", json(1, 0, { ...hello, role: "receive", sources: Array.from({ length: 1001 }, () => "a") })],
  ["12", "An identity of no characters is fatal", json(type.WELCOME, 0, { window, limits: least, identity: "" })],
  ["9", "A HELLO that asks for no frame is fatal", json(1, 0, { ...hello, role: "receive", first: 0 })],
  ["4", "A RECEIPT of 2^53 frames is fatal", raw(type.RECEIPT, 0, integer(2 ** 53, 8))],
  ["5", "The sequence number 0 is fatal", frame({ sequence: 0 })],
  ["5", "The sequence number 2^53 is fatal", frame({ sequence: 2 ** 53 })],
  ["5", "The size 2^53 is fatal", frame({ size: 2 ** 53, flags: MORE })],
  ["5", "A name of no bytes is fatal", frame({ name: "", payload: "00" })],
  ["5", "A name of 256 bytes is fatal", frame({ name: "n".repeat(256) })],
  ["12", "A name that is too long is fatal before its bytes arrive", frame({ name: "n".repeat(256) }).hex.slice(0, 88)],
  ["5", "Metadata of 4,097 bytes are fatal", frame({ metadata: `{"x":"${"m".repeat(4089)}"}` })],
  ["12", "Metadata that are too long are fatal before their bytes arrive", frame({ metadata: " ".repeat(4097) }).hex.slice(0, 88)],
  ["5", "A name longer than the body is fatal", frame({}, undefined, "00020000")],
  ["5", "Metadata longer than the body are fatal", frame({ payload: "00" }, undefined, "00010002")],
  ["5", "A payload over the size is fatal", frame({ size: 1, payload: "0102" })],
  ["5", "A further piece over the size is fatal", unfinished, data("0102", "030405")],
  ["5", "A piece over the size is fatal with MORE too", unfinished, data("0102", "030405", { flags: MORE })],
  ["5", "A frame that lacks MORE before its size is reached is fatal", frame({ size: 2, payload: "01" })],
  ["5", "A piece that lacks MORE before the size is reached is fatal", unfinished, data("0102", "03")],
  ["5", "MORE on a complete frame is fatal", frame({ flags: MORE, payload: "01" })],
  ["5", "MORE on an empty frame is fatal", frame({ flags: MORE })],
  ["5", "MORE on the last piece is fatal", unfinished, data("0102", "0304", { flags: MORE })],
  ["12", "DATA of 4 bytes is fatal", unfinished, data("0102", "", { flags: MORE })],
  ["5", "DATA without a frame is fatal", data("", "00")],
  ["5", "DATA after the last piece is fatal", frame({ payload: "00" }), data("00", "01")],
  ["5", "DATA of another source does not continue a frame", unfinished, data("0102", "0304", { source: 2 })],
  ["5", "FRAME while the frame of its source is unfinished is fatal", unfinished, frame({ sequence: 2 })],
  ["5", "ABORT without a frame is fatal", frame(), json(type.ABORT, 1, { sequence: 1 })],
  ["5", "ABORT of another source does not end a frame", unfinished, json(type.ABORT, 2, { sequence: 1 })],
  ["5", "DATA after ABORT is fatal", unfinished, json(6, 1, { sequence: 1 }), data("0102", "0304")],
  ...["[]", "null", "0", '"x"', "true"].map((body): Row =>
    ["4", `The JSON ${body} is no object and fatal`, raw(type.PING, 0, text(body))]),
  // An overlong form, a surrogate, a stray continuation byte and a truncated character.
  ...["c0af", "eda080", "80", "e282"].flatMap((bytes): Row[] => [
    ["4", `JSON with the bytes ${bytes} is not UTF-8`, raw(19, 0, `${text('{"cursor":"')}${bytes}${text('"}')}`)],
    ["5", `A name with the bytes ${bytes} is not UTF-8`, frame({ name: "" }, bytes)]]),
  ...["x", "[]", "null", " ", "{}{}", "\ufeff{}"].map((metadata): Row =>
    ["5", `The metadata ${JSON.stringify(metadata)} are fatal`, frame({ metadata })]),
  ...[1, "", "-", "1.5", "1e3", "+1", " 1", "0x1", "1".repeat(20), `-${"1".repeat(20)}`].map((time): Row =>
    ["4", `The time ${JSON.stringify(time)} is fatal`, json(type.PING, 0, { time })]),
  ...["", "0".repeat(31), "0".repeat(33), "A".repeat(32), "g".repeat(32)].map((session): Row =>
    ["4", `The session "${session}" is fatal`, json(type.HELLO, 0, { ...hello, session })]),
  ...[[2, 1], [1], [1, 2, 3], ["1", 2], 1].map((range): Row =>
    ["4", `The range ${JSON.stringify(range)} is fatal`, json(type.LOST, 1, { ranges: [range], error: 48 })]),
  ...[["a", 0, "0"], ["a", 0, 0, 1], [1, 0, "0", 1], ["a", "0", "0", 1], ["a", 0, "0", "1"], ["a", 0, "0", 1, "0"], ["a", 0, "0", 1, 2 ** 32],
    ["a", 0, "0", 0], ["a", 0, "1".repeat(20), 1], ["a", 0, "0", 1, 0, 0], "a"].map((entry): Row =>
    ["8", `The offer ${JSON.stringify(entry)} is fatal`, json(type.OFFER, 1, { frames: [entry] })]),
  ...[0, 20, 127, 200, 255].map((number): Row => ["3", `Unknown type ${number} is fatal`, raw(number, 0, "")]),
  ...[0x02, 0x04, 0x08, 0x10, 0x20, 0x40].flatMap((flag): Row[] => [
    ["3", `Flag ${flag} is fatal`, json(type.PING, 0, { time: "0" }, flag)],
    ["3", `Flag ${flag} on FRAME is fatal`, frame({ flags: flag })],
    ["3", `Flag ${flag} with OPTIONAL is fatal`, raw(200, 0, "", OPTIONAL | flag)]]),
  ...headers.map(([section, name, heading, length]): Row => [section, name, message(heading, "", "", length)]),
];

/** Fatal before the message is complete, and before its CRC-32 can be known (section 12). */
// prettier-ignore
const early: Row[] = [
  ["12", "FRAME while the frame of its source is unfinished is fatal with its header", unfinished, headerOf(frame({ sequence: 2 }))],
  ["12", "DATA without a frame is fatal with its header", headerOf(data("", "00"))],
  ["12", "DATA after ABORT is fatal with its header", unfinished, json(6, 1, { sequence: 1 }), headerOf(data("0102", "0304"))],
  ["12", "A piece over the size is fatal with its header", unfinished, headerOf(data("0102", "030405"))],
  ["12", "A piece with MORE that reaches the size is fatal with its header", unfinished, headerOf(data("0102", "0304", { flags: MORE }))],
  ["12", "A piece that lacks MORE is fatal with its header", unfinished, headerOf(data("0102", "03"))],
  ["12", "A flag is fatal with its header", headerOf(json(type.PING, 0, { time: "0" }, 0x40))],
  ["12", "An unknown type is fatal with its header", raw(200, 0, "00").slice(0, 24)],
  ["12", "A source id is fatal with its header", headerOf(json(type.PING, 1, { time: "0" }))],
  ["12", "The header is checked before its CRC-32 can be", damage(headerOf(data("", "00")), "05000001", "05000002")],
  ["12", "The sequence number 0 is fatal with the fixed part", fixedOf(frame({ sequence: 0 }))],
  ["12", "A size over 2^53 - 1 is fatal with the fixed part", fixedOf(frame({ size: 2 ** 53, flags: MORE }))],
  ["12", "A name longer than the body is fatal with the fixed part", fixedOf(frame({}, undefined, "00020000"))],
  ["12", "A payload over the size is fatal with the fixed part", fixedOf(frame({ size: 1, payload: "0102" }))],
  ["12", "A frame that lacks MORE is fatal with the fixed part", fixedOf(frame({ size: 2, payload: "01" }))],
  ["12", "MORE on a complete frame is fatal with the fixed part", fixedOf(frame({ flags: MORE, payload: "01" }))],
];

/** For every type: each field missing or of another type, another source id, and MORE. */
// prettier-ignore
const sampled: Row[] = samples.flatMap(({ type: number, source, object, required, optional = [] }): Row[] => [
  ...required.flatMap((path) => [undefined, null, true].map((value): Row =>
    ["4", `Type ${number} with ${path} ${value === undefined ? "missing" : `being ${value}`} is fatal`,
      ...opening(number), json(number, source, changed(object, path, value))])),
  ...optional.flatMap((path) => [null, otherKind(valueAt(object, path))].map((value): Row =>
    ["4", `Type ${number} with ${path} being ${JSON.stringify(value)} is fatal`,
      ...opening(number), json(number, source, changed(object, path, value))])),
  ["4", `Type ${number} with source id ${source ? 0 : 1} is fatal`, ...opening(number), json(number, source ? 0 : 1, object)],
  ["3", `Type ${number} with MORE is fatal`, ...opening(number), json(number, source, object, MORE)],
]);

function fatal(error: string) {
  return ([section, name, ...parts]: Row): BadVector => ({
    name,
    section,
    hex: parts.map((part) => (typeof part === "string" ? part : part.hex)).join(" "),
    error,
  });
}

const receipt = (frames: number) => raw(type.RECEIPT, 0, integer(frames, 8));

/** Bytes of one direction where both ends list the feature `video` (section 4). */
// prettier-ignore
export const videoVectors: Vector[] = [
  valid("5", "KEY marks a key frame where both ends list the feature video", json(type.SOURCE, 1, { name: "a", type: "video/h264" }),
    frame({ flags: KEY, name: "1.h264", payload: "0000016588" }), frame({ sequence: 2, name: "2.h264", payload: "0000014188" })),
  valid("5", "KEY and MORE go together, and DATA has MORE only", frame({ flags: KEY | MORE, size: 5, payload: "000001" }), data("000001", "6588")),
];

/** Byte sequences that are fatal where both ends list the feature `video`, too. */
// prettier-ignore
export const badVideoVectors: BadVector[] = ([
  ["3", "KEY on DATA is fatal", unfinished, data("0102", "0304", { flags: KEY })],
  ["3", "KEY on SOURCE is fatal", json(type.SOURCE, 1, { name: "a" }, KEY)],
  ["3", "KEY on an unknown type is fatal", raw(200, 0, "", OPTIONAL | KEY)],
  ["3", "Flag 4 beside KEY is fatal", frame({ flags: KEY | 0x04 })],
] satisfies Row[]).map(fatal("protocol"));

/** Byte sequences that are fatal regardless of the other direction. */
export const badVectors: BadVector[] = [
  ...damaged.map(fatal("damaged")),
  ...[...broken, ...early, ...sampled].map(fatal("protocol")),
];

const done = { frames: 2, stored: 1, present: 1, refused: 0, aborted: 0 };

/**
 * Messages that are valid alone, but the last one is in the wrong place. A layer above the decoder
 * detects that. `from` is the side that sends them.
 */
// prettier-ignore
export const misplaced: (BadVector & { from: "sender" | "receiver" })[] = [
  ...([
    ["4", "END counts the frames that ended", frame(), json(type.END, 0, { frames: 2 })],
    ["4", "END counts a frame that was aborted", unfinished, json(6, 1, { sequence: 1 }), json(type.END, 0, { frames: 0 })],
    ["4", "END while a frame is unfinished is fatal", unfinished, json(type.END, 0, { frames: 0 })],
    ["4", "A source id is not declared again while its frame is unfinished", unfinished, json(3, 1, { name: "b" })],
    ["5", "ABORT of another number than the unfinished frame's is fatal", unfinished, json(6, 1, { sequence: 2 })],
    ["4", "FRAME after END is fatal", json(type.END, 0, { frames: 0 }), frame()],
    ["4", "SOURCE after END is fatal", json(type.END, 0, { frames: 0 }), json(3, 2, { name: "b" })],
    ["4", "LOST after END is fatal", json(type.END, 0, { frames: 0 }), json(9, 1, { ranges: [[1, 1]], error: 51 })],
    ["4", "OFFER after END is fatal", json(type.END, 0, { frames: 0 }), json(type.OFFER, 1, { frames: [] })],
    ["4", "A second END is fatal", json(type.END, 0, { frames: 0 }), json(type.END, 0, { frames: 0 })],
    ["4", "A second HELLO is fatal", json(type.HELLO, 0, hello), json(type.HELLO, 0, hello)],
    ["4", "Nothing follows ERROR", json(type.ERROR, 0, { error: 12, message: "x" }), frame()],
  ] satisfies Row[]).map((row) => ({ ...fatal("protocol")(row), from: "sender" as const })),
  ...([
    ["4", "The number in RECEIPT does not fall", receipt(2), receipt(1)],
    ["4", "A DONE that does not add up is fatal", json(type.DONE, 0, { ...done, frames: 3 })],
    ["4", "A DONE of fewer frames than the last RECEIPT is fatal", receipt(3), json(type.DONE, 0, done)],
    ["4", "Nothing follows DONE", json(type.DONE, 0, done), json(type.PONG, 0, { time: "0", clock: "0" })],
    ["4", "ANSWER after DONE is fatal", json(type.DONE, 0, { ...done, frames: 2 }), json(type.ANSWER, 1, { answers: "" })],
    ["4", "A second WELCOME is fatal", json(type.WELCOME, 0, { window, limits: least }), json(type.WELCOME, 0, { window, limits: least })],
  ] satisfies Row[]).map((row) => ({ ...fatal("protocol")(row), from: "receiver" as const })),
];

/** A complete conversation: the bytes of each direction after its preface. */
export interface Conversation {
  name: string;
  client: Vector;
  server: Vector;
}

const grants = {
  window: { bytes: 1 << 20, frames: 16 },
  limits: { frame: 1 << 16, sources: 4, unfinished: 2 },
};

/** Valid conversations with both directions. */
export const conversations: Conversation[] = [
  {
    name: "pieces, ABORT, LOST and a refusal",
    client: valid(
      "4",
      "A sender sends every type of message",
      json(type.HELLO, 0, { ...hello, software: "x", limits: { frame: 1e6 } }),
      json(type.SOURCE, 1, { name: "a", type: "image/png" }),
      frame({ payload: nine, metadata: '{"a":1}', captured: 5n }),
      json(type.SOURCE, 2, { name: "b/c", raw: { width: 1, height: 2, format: "gray8" } }),
      frame({ source: 2, flags: MORE, size: 6, payload: "0102", name: "b1" }),
      frame({ sequence: 2, name: "a2", payload: "ff" }),
      json(type.LOST, 1, {
        ranges: [
          [3, 4],
          [7, 7],
        ],
        error: 51,
        message: "queue full",
      }),
      data("0102", "0304", { source: 2, flags: MORE }),
      frame({ sequence: 5, name: "a5", flags: MORE, size: 3, payload: "" }),
      json(type.PING, 0, { time: "1700000000000000000" }),
      data("01020304", "0506", { source: 2 }),
      data("", "0a0b", { flags: MORE }),
      json(type.ABORT, 1, { sequence: 5, error: 49, message: "changed" }),
      frame({ sequence: 5, name: "a5", payload: "0a" }),
      {
        hex: raw(200, 9, "0102", OPTIONAL),
        message: { type: 200, flags: OPTIONAL, source: 9, skipped: true },
      },
      frame({ source: 2, sequence: 2, name: "b2" }),
      json(type.END, 0, { frames: 6 }),
    ),
    server: valid(
      "4",
      "A receiver sends every type of message",
      json(type.WELCOME, 0, {
        ...grants,
        fresh: true,
        durable: false,
        features: [],
        software: "y",
        store: "/s",
      }),
      { hex: receipt(1), message: { type: type.RECEIPT, flags: 0, source: 0, frames: 1 } },
      json(type.PING, 0, { time: "-1" }),
      json(type.REFUSED, 1, { sequence: 2, error: 35, message: "taken" }),
      json(type.PONG, 0, { time: "1700000000000000000", clock: "1" }),
      { hex: receipt(5), message: { type: type.RECEIPT, flags: 0, source: 0, frames: 5 } },
      json(type.DONE, 0, { frames: 6, stored: 3, present: 1, refused: 1, aborted: 1 }),
    ),
  },
  {
    name: "three frames of one source",
    client: valid(
      "4",
      "A sender sends three frames",
      json(type.HELLO, 0, hello),
      json(type.SOURCE, 1, { name: "a" }),
      ...[1, 2, 3].map((sequence) =>
        frame({ sequence, name: `f${sequence}`, payload: `0${sequence}` }),
      ),
      json(type.END, 0, { frames: 3 }),
    ),
    server: valid(
      "4",
      "A receiver answers three frames",
      json(type.WELCOME, 0, { ...grants, fresh: false }),
      json(type.REFUSED, 1, { sequence: 3, error: 33, message: "a name" }),
      { hex: receipt(2), message: { type: type.RECEIPT, flags: 0, source: 0, frames: 2 } },
      { hex: receipt(3), message: { type: type.RECEIPT, flags: 0, source: 0, frames: 3 } },
      json(type.DONE, 0, { frames: 3, stored: 2, present: 0, refused: 1, aborted: 0 }),
    ),
  },
  {
    name: "two folders that the server has in part",
    client: valid(
      "8",
      "A sender offers frames that may be stored already",
      json(type.HELLO, 0, {
        ...hello,
        features: ["offer", "replace"],
        conflict: "fail",
        again: false,
      }),
      json(type.SOURCE, 1, { name: "a" }),
      json(type.OFFER, 1, {
        frames: [1, 2, 3, 4].map((sequence) => [`f${sequence}`, 10, String(sequence), sequence]),
      }),
      json(type.SOURCE, 2, { name: "b" }),
      json(type.OFFER, 2, {
        frames: [1, 2].map((sequence) => [`f${sequence}`, 10, String(sequence), sequence]),
      }),
      frame({ sequence: 2, name: "f2", payload: "02".repeat(10), captured: 2n }),
      json(type.OFFER, 1, { frames: [["f4", 10, "4", 4, 0xcbf43926]] }),
      frame({ source: 2, sequence: 1, name: "f1", payload: "01".repeat(10), captured: 1n }),
      json(type.END, 0, { frames: 2 }),
    ),
    server: valid(
      "8",
      "A receiver has stored a part of the offered frames",
      json(type.WELCOME, 0, { ...grants, fresh: false, features: ["replace", "offer"] }),
      json(type.ANSWER, 1, { answers: "swmc" }),
      json(type.ANSWER, 2, { answers: "wx" }),
      json(type.ANSWER, 1, { answers: "s" }),
      { hex: receipt(2), message: { type: type.RECEIPT, flags: 0, source: 0, frames: 2 } },
      json(type.DONE, 0, { frames: 2, stored: 2, present: 0, refused: 0, aborted: 0 }),
    ),
  },
];

/** The bytes of a vector. */
export function bytesOf(hex: string): Uint8Array {
  const plain = hex.replaceAll(" ", "");
  const bytes = Uint8Array.from(Buffer.from(plain, "hex"));
  // Buffer stops quietly at what is not hexadecimal, and a vector cut short would prove nothing.
  if (bytes.length * 2 !== plain.length) throw new Error(`not hexadecimal: ${hex.slice(0, 80)}`);
  return bytes;
}
