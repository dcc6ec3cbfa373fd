/**
 * The second opinion on FRAMES/1: a decoder written from `src/wire/SPEC.md` alone, slow and obvious.
 * It sees one direction as a whole, so it holds the rules that the bytes of one direction decide.
 * Rules that need the other direction, or the order of the conversation, are not its business.
 *
 * The order in which it looks decides which error a message with several faults gets: the header, the
 * fixed part of FRAME, the CRC-32 of what is covered, the meaning of it, the CRC-32 of the payload.
 * Each is looked at as soon as its bytes are there, even where the rest of the message is missing.
 */
import {
  type DecodedMessage,
  type FrameMessage,
  type Heading,
  type JsonMessage,
  type ReceiptMessage,
  type,
} from "./vectors.ts";

type Check = (value: unknown) => boolean;

/** The unfinished frame of a source id. */
interface Unfinished {
  sequence: number;
  size: number;
  received: number;
  /** State of the CRC-32 over the payload so far. */
  remainder: number;
}

const MORE = 0x01;
const OPTIONAL = 0x80;
const HEADER = 12;
const START = 0xffffffff;

const isText: Check = (value) => typeof value === "string";
const isCount: Check = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
const isSequence: Check = (value) => isCount(value) && value !== 0;
const isTime: Check = (value) => typeof value === "string" && /^-?[0-9]+$/.test(value);
const isCrc: Check = (value) => isCount(value) && Number(value) <= 0xffffffff;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasFields(required: Record<string, Check>): Check {
  return (value) =>
    isObject(value) &&
    Object.entries(required).every(
      ([key, check]) => Object.hasOwn(value, key) && check(value[key]),
    );
}

function isListOf(check: Check): Check {
  return (value) => Array.isArray(value) && value.every(check);
}

const isRange: Check = (value) =>
  isListOf(isSequence)(value) &&
  (value as number[]).length === 2 &&
  Number((value as number[])[0]) <= Number((value as number[])[1]);

const isOffer: Check = (value) =>
  Array.isArray(value) &&
  (value.length === 4 || value.length === 5) &&
  [isText, isCount, isTime, isSequence, isCrc].slice(0, value.length).every((check, index) => {
    return check(value[index]);
  });

function isStream(value: unknown): boolean {
  const length = typeof value === "string" ? Buffer.byteLength(value) : 0;
  return length >= 1 && length <= 255;
}

const addsUp: Check = (value) => {
  const done = value as Record<"frames" | "stored" | "present" | "refused" | "aborted", number>;
  return done.frames === done.stored + done.present + done.refused + done.aborted;
};

/** What section 4 requires of each JSON body. */
const bodies: Record<number, Check> = {
  [type.HELLO]: hasFields({
    role: (value) => value === "send" || value === "receive",
    session: (value) => typeof value === "string" && /^[0-9a-f]{32}$/.test(value),
    stream: isStream,
  }),
  [type.WELCOME]: hasFields({
    window: hasFields({ bytes: isCount, frames: isCount }),
    limits: hasFields({ frame: isCount, sources: isCount, unfinished: isCount }),
  }),
  [type.SOURCE]: hasFields({ name: isText }),
  [type.ABORT]: hasFields({ sequence: isSequence }),
  [type.REFUSED]: hasFields({ sequence: isSequence, error: isCount, message: isText }),
  [type.LOST]: hasFields({ ranges: isListOf(isRange), error: isCount }),
  [type.OFFER]: hasFields({ frames: isListOf(isOffer) }),
  [type.ANSWER]: hasFields({ answers: isText }),
  [type.END]: hasFields({ frames: isCount }),
  [type.DONE]: (value) =>
    hasFields({
      frames: isCount,
      stored: isCount,
      present: isCount,
      refused: isCount,
      aborted: isCount,
    })(value) && addsUp(value),
  [type.ERROR]: hasFields({ error: isCount, message: isText }),
  [type.PING]: hasFields({ time: isTime }),
  [type.PONG]: hasFields({ time: isTime, clock: isTime }),
  [type.GONE]: hasFields({ sequence: isSequence, name: isText }),
  [type.CURSOR]: hasFields({ cursor: isText }),
};

const binary: number[] = [type.FRAME, type.DATA, type.RECEIPT, type.PROOF];

const withSource: number[] = [
  type.FRAME,
  type.DATA,
  type.ABORT,
  type.SOURCE,
  type.LOST,
  type.OFFER,
  type.ANSWER,
  type.REFUSED,
  type.GONE,
];

/** Continues a CRC-32, one bit at a time. */
function crc(remainder: number, bytes: Uint8Array): number {
  for (const byte of bytes) {
    remainder ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      remainder = (remainder >>> 1) ^ (0xedb88320 & -(remainder & 1));
    }
  }
  return remainder;
}

function finished(remainder: number): number {
  return ~remainder >>> 0;
}

function readText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function readObject(bytes: Uint8Array): Record<string, unknown> | undefined {
  const text = readText(bytes);
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Whether everything that the header alone tells is allowed. */
function isAllowed({ type: number, flags, source }: Heading, length: number): boolean {
  if (length > 1_048_576) return false;
  if ((flags & ~(MORE | OPTIONAL)) !== 0) return false;
  if (flags & MORE && number !== type.FRAME && number !== type.DATA) return false;
  const isJson = bodies[number] !== undefined;
  if (!isJson && !binary.includes(number)) return (flags & OPTIONAL) !== 0;
  if (withSource.includes(number) !== source > 0) return false;
  if (number === type.FRAME) return length >= 33;
  if (number === type.DATA) return length >= 5;
  if (number === type.RECEIPT) return length === 8;
  if (number === type.PROOF) return length === 32;
  return length <= 65_536;
}

/** One message and its length, the name of an error, or nothing where bytes are missing. */
type Step = { message: DecodedMessage; length: number } | string | undefined;

function decodeOne(rest: Uint8Array, unfinished: Map<number, Unfinished>): Step {
  if (rest.length < HEADER) return undefined;
  const view = new DataView(rest.buffer, rest.byteOffset, rest.byteLength);
  const heading = { type: view.getUint8(0), flags: view.getUint8(1), source: view.getUint16(2) };
  const bodyLength = view.getUint32(4);
  const length = HEADER + bodyLength;
  if (!isAllowed(heading, bodyLength)) return "protocol";

  let covered = bodyLength;
  if (heading.type === type.DATA) covered = 4;
  if (heading.type === type.FRAME) {
    if (rest.length < HEADER + 32) return undefined;
    const sequence = view.getBigUint64(HEADER);
    const size = view.getBigUint64(HEADER + 16);
    const nameLength = view.getUint16(HEADER + 28);
    const metadataLength = view.getUint16(HEADER + 30);
    if (sequence < 1n || sequence >= 2n ** 53n || size >= 2n ** 53n) return "protocol";
    if (nameLength < 1 || nameLength > 255 || metadataLength > 4096) return "protocol";
    covered = 32 + nameLength + metadataLength;
    if (covered > bodyLength) return "protocol";
  }
  if (rest.length < HEADER + covered) return undefined;
  const body = rest.subarray(HEADER, HEADER + covered);
  if (finished(crc(crc(START, rest.subarray(0, 8)), body)) !== view.getUint32(8)) return "damaged";

  if (heading.type === type.FRAME || heading.type === type.DATA) {
    return decodePiece(heading, body, rest, length, unfinished);
  }
  const message = decodeWhole(heading, body, unfinished);
  return typeof message === "string" ? message : { message, length };
}

function decodeWhole(
  heading: Heading,
  body: Uint8Array,
  unfinished: Map<number, Unfinished>,
): DecodedMessage | string {
  if (heading.type === type.PROOF) return { ...heading, proof: hex(body) };
  if (heading.type === type.RECEIPT) {
    const frames = Number(new DataView(body.buffer, body.byteOffset, 8).getBigUint64(0));
    return Number.isSafeInteger(frames) ? { ...heading, frames } : "protocol";
  }
  const check = bodies[heading.type];
  if (!check) return { ...heading, skipped: true };
  const json = readObject(body);
  if (!json || !check(json)) return "protocol";
  if (heading.type === type.ABORT) {
    if (unfinished.get(heading.source)?.sequence !== json["sequence"]) return "protocol";
    unfinished.delete(heading.source);
  }
  if (heading.type === type.SOURCE && unfinished.has(heading.source)) return "protocol";
  if (heading.type === type.END && unfinished.size > 0) return "protocol";
  return { ...heading, json };
}

/** FRAME and DATA, whose description is there and intact. */
function decodePiece(
  heading: Heading,
  description: Uint8Array,
  rest: Uint8Array,
  length: number,
  unfinished: Map<number, Unfinished>,
): Step {
  const view = new DataView(description.buffer, description.byteOffset, description.byteLength);
  let frame = unfinished.get(heading.source);
  let decoded: Omit<FrameMessage, "payload"> | undefined;
  if (heading.type === type.FRAME) {
    if (frame) return "protocol";
    const nameEnd = 32 + view.getUint16(28);
    const name = readText(description.subarray(32, nameEnd));
    const metadata = readText(description.subarray(nameEnd));
    if (name === undefined || metadata === undefined) return "protocol";
    if (metadata !== "" && !readObject(description.subarray(nameEnd))) return "protocol";
    const sequence = Number(view.getBigUint64(0));
    const captured = view.getBigInt64(8);
    const size = Number(view.getBigUint64(16));
    frame = { sequence, size, received: 0, remainder: START };
    decoded = {
      ...heading,
      sequence,
      captured,
      size,
      payloadCrc: view.getUint32(24),
      name,
      metadata,
    };
  }
  if (!frame) return "protocol";

  const payloadLength = length - HEADER - description.length;
  const left = frame.size - frame.received - payloadLength;
  if (left < 0 || left > 0 !== (heading.flags & MORE) > 0) return "protocol";

  if (rest.length < length) return undefined;
  const payload = rest.subarray(HEADER + description.length, length);
  const payloadCrc = view.getUint32(heading.type === type.FRAME ? 24 : 0);
  frame.remainder = crc(frame.remainder, payload);
  frame.received += payloadLength;
  if (finished(frame.remainder) !== payloadCrc) return "damaged";
  if (heading.flags & MORE) unfinished.set(heading.source, frame);
  else unfinished.delete(heading.source);
  const piece = { payloadCrc, payload: hex(payload) };
  return { message: { ...(decoded ?? heading), ...piece }, length };
}

/**
 * Decodes everything one end has sent after its preface. An incomplete message at the end is no error
 * unless what is there of it breaks a rule already. `consumed` is the length of the messages returned.
 */
export function decodeAll(bytes: Uint8Array): {
  messages: DecodedMessage[];
  error?: string;
  consumed: number;
} {
  const messages: DecodedMessage[] = [];
  const unfinished = new Map<number, Unfinished>();
  let consumed = 0;
  while (true) {
    const step = decodeOne(bytes.subarray(consumed), unfinished);
    if (step === undefined) return { messages, consumed };
    if (typeof step === "string") return { messages, error: step, consumed };
    messages.push(step.message);
    consumed += step.length;
  }
}

/**
 * Holds what messages count against each other, which is above decoding: END is the number of frames
 * ended, RECEIPT does not fall. Gives the name of the error, or nothing. Expects messages that
 * `decodeAll` accepted.
 */
export function miscount(messages: DecodedMessage[]): string | undefined {
  let ended = 0;
  let settled = 0;
  for (const message of messages) {
    const isPiece = message.type === type.FRAME || message.type === type.DATA;
    if (message.type === type.ABORT || (isPiece && !(message.flags & MORE))) ended++;
    if (message.type === type.END) {
      const { frames } = (message as JsonMessage).json as { frames: number };
      if (frames !== ended) return "protocol";
    }
    if (message.type === type.RECEIPT) {
      const { frames } = message as ReceiptMessage;
      if (frames < settled) return "protocol";
      settled = frames;
    }
  }
  return undefined;
}
