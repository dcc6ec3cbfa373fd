/**
 * The reference decoder of FRAMES/1, written from `src/wire/SPEC.md` alone, slow and obvious.
 * `decodeAll` decodes the bytes of one direction. `misplacement` checks the rules of one direction
 * above decoding. `WindowModel` checks the rules that involve both directions.
 *
 * The order of checks determines the error for a message with several faults: header, fixed part of
 * FRAME, CRC-32 of the covered bytes, their meaning, CRC-32 of the payload. Each is checked as soon
 * as its bytes are present (section 12), even if the rest is missing.
 */
import {
  type DataMessage,
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
  size: number;
  received: number;
  /** CRC-32 state of the payload so far. */
  remainder: number;
}

const MORE = 0x01;
const KEY = 0x02;
const OPTIONAL = 0x80;
const HEADER = 12;
const START = 0xffffffff;

const isText: Check = (value) => typeof value === "string";
const isCount: Check = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
const isSequence: Check = (value) => isCount(value) && value !== 0;
const isFlag: Check = (value) => typeof value === "boolean";
const isTime: Check = (value) => typeof value === "string" && /^-?[0-9]{1,19}$/.test(value);
const isCrc: Check = (value) => isCount(value) && Number(value) <= 0xffffffff;
const isSourceId = (value: unknown): boolean => isSequence(value) && Number(value) <= 0xffff;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Checks for an object with these fields: required ones, then optional ones. */
function hasFields(required: Record<string, Check>, optional: Record<string, Check> = {}): Check {
  return (value) =>
    isObject(value) &&
    Object.entries(required).every(
      ([key, check]) => Object.hasOwn(value, key) && check(value[key]),
    ) &&
    Object.entries(optional).every(
      ([key, check]) => !Object.hasOwn(value, key) || check(value[key]),
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

function isOneOf(...values: string[]): Check {
  return (value) => values.includes(value as string);
}

const isSession: Check = (value) => typeof value === "string" && /^[0-9a-f]{32}$/.test(value);
/** Section 12: not empty, and at most 1024 characters. */
const isMark: Check = (value) =>
  typeof value === "string" && value.length > 0 && value.length <= 1024;
const isWindow = hasFields({ bytes: isSequence, frames: isSequence });

/** Fields of each JSON body from sections 4, 8 and 9: required ones, then optional ones. */
const bodies: Record<number, Check> = {
  [type.HELLO]: hasFields(
    { role: isOneOf("send", "receive"), session: isSession, stream: isStream },
    {
      started: isTime,
      software: isText,
      features: isListOf(isText),
      limits: hasFields({ frame: isCount }, {}),
      conflict: isOneOf("fail", "skip", "replace"),
      again: isFlag,
      revises: isFlag,
      durable: isFlag,
      key: isText,
      cursor: isMark,
      follow: isFlag,
      sources: (value) => isListOf(isText)(value) && (value as unknown[]).length <= 1000,
      since: isTime,
      first: isSequence,
      latest: isFlag,
      window: isWindow,
    },
  ),
  [type.WELCOME]: hasFields(
    {
      window: isWindow,
      limits: hasFields({ frame: isSequence, sources: isSequence, unfinished: isSequence }),
    },
    {
      fresh: isFlag,
      durable: isFlag,
      features: isListOf(isText),
      software: isText,
      store: isText,
      receipts: isCount,
      identity: isMark,
      resumed: isFlag,
      sources: isListOf(isText),
    },
  ),
  [type.SOURCE]: hasFields(
    { name: isText },
    {
      stream: isText,
      type: isText,
      raw: hasFields({ width: isSequence, height: isSequence, format: isText }, {}),
      revises: isFlag,
      session: isSession,
    },
  ),
  [type.ABORT]: hasFields({ sequence: isSequence }, { error: isCount, message: isText }),
  [type.REFUSED]: hasFields({ sequence: isSequence, error: isCount, message: isText }),
  [type.LOST]: hasFields(
    { ranges: isListOf(isRange), error: isCount },
    { message: isText, name: isText },
  ),
  [type.OFFER]: hasFields({ frames: isListOf(isOffer) }),
  [type.ANSWER]: hasFields({ answers: isText }),
  [type.END]: hasFields({ frames: isCount }),
  [type.DONE]: hasFields({
    frames: isCount,
    stored: isCount,
    present: isCount,
    refused: isCount,
    aborted: isCount,
  }),
  [type.ERROR]: hasFields(
    { error: isCount, message: isText },
    { source: isSourceId, sequence: isSequence },
  ),
  [type.PING]: hasFields({ time: isTime }),
  [type.PONG]: hasFields({ time: isTime, clock: isTime }),
  [type.GONE]: hasFields({ sequence: isSequence, name: isText }),
  [type.CURSOR]: hasFields({ cursor: isMark }),
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

/** Returns whether payload and MORE agree with the rest of the frame (section 5). */
function isPiece(flags: number, payload: number, left: number): boolean {
  return flags & MORE ? payload < left : payload === left;
}

/** Returns whether the header alone is valid. */
function isAllowed(
  { type: number, flags, source }: Heading,
  length: number,
  unfinished: Map<number, Unfinished>,
  hasVideo: boolean,
): boolean {
  if (length > 1_048_576) return false;
  const key = hasVideo && number === type.FRAME ? KEY : 0;
  if ((flags & ~(MORE | OPTIONAL | key)) !== 0) return false;
  if (flags & MORE && number !== type.FRAME && number !== type.DATA) return false;
  const isJson = bodies[number] !== undefined;
  if (!isJson && !binary.includes(number)) return (flags & OPTIONAL) !== 0;
  if (withSource.includes(number) !== source > 0) return false;
  const frame = unfinished.get(source);
  if (number === type.FRAME) return length >= 33 && frame === undefined;
  if (number === type.DATA) {
    return (
      length >= 5 && frame !== undefined && isPiece(flags, length - 4, frame.size - frame.received)
    );
  }
  if (number === type.RECEIPT) return length === 8;
  if (number === type.PROOF) return length === 32;
  // The shortest object is {}, so a length of 1 can be rejected at once.
  return length >= 2 && length <= 65_536;
}

/** A message and its length, an error name, or `undefined` if bytes are missing. */
type Step = { message: DecodedMessage; length: number } | string | undefined;

/** A FRAME or DATA with a valid description, and the payload received. */
type Piece = FrameMessage | DataMessage;

class Decoding {
  readonly unfinished = new Map<number, Unfinished>();
  /** The piece whose payload is missing or damaged. */
  open: Piece | undefined;
  readonly #hasVideo: boolean;

  constructor(hasVideo: boolean) {
    this.#hasVideo = hasVideo;
  }

  next(rest: Uint8Array): Step {
    if (rest.length < HEADER) return undefined;
    const view = new DataView(rest.buffer, rest.byteOffset, rest.byteLength);
    const heading = { type: view.getUint8(0), flags: view.getUint8(1), source: view.getUint16(2) };
    const bodyLength = view.getUint32(4);
    const length = HEADER + bodyLength;
    if (!isAllowed(heading, bodyLength, this.unfinished, this.#hasVideo)) return "protocol";

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
      if (!isPiece(heading.flags, bodyLength - covered, Number(size))) return "protocol";
    }
    if (rest.length < HEADER + covered) return undefined;
    const body = rest.subarray(HEADER, HEADER + covered);
    const checksum = finished(crc(crc(START, rest.subarray(0, 8)), body));
    if (checksum !== view.getUint32(8)) return "damaged";

    if (heading.type === type.FRAME || heading.type === type.DATA) {
      return this.#piece(heading, body, rest, length);
    }
    const message = this.#whole(heading, body);
    return typeof message === "string" ? message : { message, length };
  }

  #whole(heading: Heading, body: Uint8Array): DecodedMessage | string {
    if (heading.type === type.PROOF) return { ...heading, proof: hex(body) };
    if (heading.type === type.RECEIPT) {
      const frames = Number(new DataView(body.buffer, body.byteOffset, 8).getBigUint64(0));
      return Number.isSafeInteger(frames) ? { ...heading, frames } : "protocol";
    }
    const check = bodies[heading.type];
    if (!check) return { ...heading, skipped: true };
    const json = readObject(body);
    if (!json || !check(json)) return "protocol";
    if (heading.type === type.ABORT && !this.unfinished.delete(heading.source)) return "protocol";
    return { ...heading, json };
  }

  /** Decodes FRAME or DATA, whose description is present and intact. */
  #piece(heading: Heading, description: Uint8Array, rest: Uint8Array, length: number): Step {
    const view = new DataView(description.buffer, description.byteOffset, description.byteLength);
    const payload = rest.subarray(HEADER + description.length, length);
    let frame = this.unfinished.get(heading.source);
    if (heading.type === type.FRAME) {
      const nameEnd = 32 + view.getUint16(28);
      const name = readText(description.subarray(32, nameEnd));
      const metadata = readText(description.subarray(nameEnd));
      if (name === undefined || metadata === undefined) return "protocol";
      if (metadata !== "" && !readObject(description.subarray(nameEnd))) return "protocol";
      const size = Number(view.getBigUint64(16));
      frame = { size, received: 0, remainder: START };
      this.open = {
        ...heading,
        sequence: Number(view.getBigUint64(0)),
        captured: view.getBigInt64(8),
        size,
        payloadCrc: view.getUint32(24),
        name,
        metadata,
        payload: hex(payload),
      };
    } else {
      this.open = { ...heading, payloadCrc: view.getUint32(0), payload: hex(payload) };
    }
    if (!frame || rest.length < length) return undefined;
    const remainder = crc(frame.remainder, payload);
    if (finished(remainder) !== this.open.payloadCrc) return "damaged";

    const message = this.open;
    this.open = undefined;
    const received = frame.received + payload.length;
    if (heading.flags & MORE)
      this.unfinished.set(heading.source, { ...frame, received, remainder });
    else this.unfinished.delete(heading.source);
    return { message, length };
  }
}

/** Decoded bytes of one direction. */
export interface Decoded {
  messages: DecodedMessage[];
  /** End offset of each message. */
  ends: number[];
  /** Error that ended decoding. */
  error?: string;
  /** Total length of the messages, and of the input. */
  consumed: number;
  length: number;
  /**
   * The FRAME or DATA after the messages, if its description is valid but its payload missing or
   * damaged.
   */
  open?: FrameMessage | DataMessage;
  /** Source ids with an unfinished frame. */
  unfinished: number[];
}

/**
 * Decodes everything that one side sent after its preface. An incomplete message at the end is an
 * error only if its bytes already break a rule.
 *
 * @param hasVideo whether both ends list the feature `video`
 */
export function decodeAll(bytes: Uint8Array, hasVideo = false): Decoded {
  const messages: DecodedMessage[] = [];
  const ends: number[] = [];
  const decoding = new Decoding(hasVideo);
  let consumed = 0;
  while (true) {
    const step = decoding.next(bytes.subarray(consumed));
    if (typeof step === "object") {
      messages.push(step.message);
      consumed += step.length;
      ends.push(consumed);
      continue;
    }
    const decoded: Decoded = {
      messages,
      ends,
      consumed,
      length: bytes.length,
      unfinished: [...decoding.unfinished.keys()],
    };
    if (step !== undefined) decoded.error = step;
    if (decoding.open !== undefined) decoded.open = decoding.open;
    return decoded;
  }
}

/**
 * Returns the events that a streaming decoder emits for these messages, in order. Consecutive
 * pieces of one source are joined, because message borders are not reported. Of the CRC-32s only
 * that of the whole frame is reported. `open` is included although incomplete.
 */
export function toldOf({ messages, open }: Pick<Decoded, "messages" | "open">): string[] {
  const told: string[] = [];
  let payloadOf = 0;
  const add = (line: string) => {
    told.push(line);
    payloadOf = 0;
  };
  for (const message of open === undefined ? messages : [...messages, open]) {
    if ("skipped" in message) continue;
    if ("json" in message) {
      add(`${message.type} ${message.source} ${JSON.stringify(message.json)}`);
    } else if ("frames" in message) {
      add(`receipt ${message.frames}`);
    } else if ("proof" in message) {
      add(`proof ${message.proof}`);
    } else {
      if ("name" in message) {
        const { sequence, captured, size, name, metadata } = message;
        const texts = JSON.stringify([name, metadata]);
        add(`frame ${message.source} ${sequence} ${captured} ${size} ${texts}`);
      }
      if (message.payload !== "") {
        if (payloadOf === message.source) told[told.length - 1] += message.payload;
        else add(`payload ${message.source} ${message.payload}`);
        payloadOf = message.source;
      }
      if (message !== open && !(message.flags & MORE)) {
        add(`complete ${message.source} ${message.payloadCrc}`);
      }
    }
  }
  return told;
}

/** Returns whether the message is the last of its frame. */
function endsFrame(message: DecodedMessage): boolean {
  if (message.type === type.ABORT) return true;
  const isPiece = message.type === type.FRAME || message.type === type.DATA;
  return isPiece && !(message.flags & MORE);
}

/** Messages allowed after END. */
const afterEnd: number[] = [type.PING, type.PONG, type.ERROR];
/** Messages allowed before WELCOME. */
const greetings: number[] = [type.HELLO, type.PROOF, type.ERROR];

function fieldsOf(message: DecodedMessage): Record<string, number> {
  return (message as JsonMessage).json as Record<string, number>;
}

/**
 * Checks the relations between messages of one direction: END counts the frames, RECEIPT does not
 * decrease, ABORT repeats its frame's number, and so on. Returns the first wrong message, if any.
 * Expects messages accepted by `decodeAll`.
 */
export function misplacement(messages: DecodedMessage[]): DecodedMessage | undefined {
  let ended = 0;
  let settled = 0;
  let hasEnded = false;
  const unfinished = new Map<number, number>();
  for (const [index, message] of messages.entries()) {
    const { source } = message;
    const before = messages[index - 1]?.type;
    if (before === type.ERROR || before === type.DONE) return message;
    if (hasEnded && !afterEnd.includes(message.type)) return message;
    if (message.type === type.HELLO && index > 0) return message;
    // PROOF may precede WELCOME.
    if (message.type === type.WELCOME && index > 0 && before !== type.PROOF) return message;
    if (message.type === type.SOURCE && unfinished.has(source)) return message;
    if (message.type === type.FRAME && message.flags & MORE) {
      unfinished.set(source, (message as FrameMessage).sequence);
    }
    if (message.type === type.ABORT && fieldsOf(message)["sequence"] !== unfinished.get(source)) {
      return message;
    }
    if (endsFrame(message)) {
      ended++;
      unfinished.delete(source);
    }
    if (message.type === type.END) {
      if (unfinished.size > 0 || fieldsOf(message)["frames"] !== ended) return message;
      hasEnded = true;
    }
    if (message.type === type.DONE) {
      const { frames, stored = 0, present = 0, refused = 0, aborted = 0 } = fieldsOf(message);
      if (frames !== stored + present + refused + aborted || frames < settled) return message;
    }
    if (message.type === type.RECEIPT) {
      const { frames } = message as ReceiptMessage;
      if (frames < settled) return message;
      settled = frames;
    }
  }
  return undefined;
}

/** Limit for offered frames without an answer (section 8). */
export const MOST_OFFERED = 8192;

/** Limits granted by WELCOME. */
interface Granted {
  fresh?: boolean;
  features?: string[];
  window: { bytes: number; frames: number };
  limits: { frame: number; sources: number; unfinished: number };
}

/**
 * Checks the rules that involve both directions (sections 4, 6 and 8). A sender begins with HELLO,
 * declares its sources, respects window and limits, offers where allowed, and ends when everything
 * is answered. An ANSWER matches its OFFER. Both methods throw if a rule is broken.
 */
export class WindowModel {
  frames = 0;
  bytes = 0;
  mostFrames = 0;
  mostBytes = 0;
  offered = 0;
  mostOffered = 0;
  #said = 0;
  #welcome: Granted | undefined;
  readonly #declared = new Set<number>();
  readonly #unfinished = new Map<number, number>();
  /** Bytes that each ended frame counts in the window. */
  readonly #charges: number[] = [];
  #settled = 0;
  /** Unanswered offers: their source, and whether each entry has a CRC-32. */
  readonly #offers: { source: number; hasCrc: boolean[] }[] = [];

  /** Called for each message of the sender. */
  said(message: DecodedMessage): void {
    const { type: number, source } = message;
    if ((this.#said++ === 0) !== (number === type.HELLO)) throw new Error("HELLO is not first");
    if (this.#welcome === undefined) {
      if (greetings.includes(number)) return;
      throw new Error(`type ${number} came before WELCOME`);
    }
    if ("skipped" in message) return;
    if (number === type.SOURCE) this.#declared.add(source);
    if (source > 0 && !this.#declared.has(source))
      throw new Error(`source ${source} has no SOURCE`);
    const { window, limits } = this.#welcome;
    if (this.#declared.size > limits.sources) throw new Error("too many sources");
    if (number === type.OFFER) this.#offer(message as JsonMessage);
    if (number === type.END && this.#offers.length > 0) throw new Error("END before an ANSWER");
    if (number === type.FRAME) {
      const { size } = message as FrameMessage;
      if (size > limits.frame) throw new Error(`a frame of ${size} bytes is over the limit`);
      const charge = Math.min(size, Math.floor(window.bytes / 2));
      this.#unfinished.set(source, charge);
      this.frames++;
      this.bytes += charge;
      this.mostFrames = Math.max(this.mostFrames, this.frames);
      this.mostBytes = Math.max(this.mostBytes, this.bytes);
      if (this.frames > window.frames) throw new Error(`${this.frames} frames unsettled`);
      if (this.bytes > window.bytes) throw new Error(`${this.bytes} bytes unsettled`);
    }
    if (endsFrame(message)) {
      this.#charges.push(this.#unfinished.get(source) ?? 0);
      this.#unfinished.delete(source);
    }
    if (this.#unfinished.size > limits.unfinished) throw new Error("too many unfinished");
  }

  #offer({ source, json }: JsonMessage): void {
    const { fresh, features = [] } = this.#welcome!;
    if (fresh === true || !features.includes("offer")) throw new Error("an OFFER that may not be");
    const { frames } = json as { frames: unknown[][] };
    this.#offers.push({ source, hasCrc: frames.map(({ length }) => length === 5) });
    this.offered += frames.length;
    this.mostOffered = Math.max(this.mostOffered, this.offered);
    if (this.offered > MOST_OFFERED) throw new Error(`${this.offered} frames offered`);
  }

  #answer({ source, json }: JsonMessage): void {
    const offer = this.#offers.shift();
    if (offer?.source !== source) throw new Error("an ANSWER to no OFFER");
    const { answers } = json as { answers: string };
    if (answers.length !== offer.hasCrc.length) throw new Error("an ANSWER of another length");
    for (const [index, letter] of [...answers].entries()) {
      if (!"wsmcx".includes(letter)) throw new Error(`the answer ${letter}`);
      if (letter === "c" && offer.hasCrc[index]) throw new Error("c to a CRC-32");
    }
    this.offered -= answers.length;
  }

  /** Called for each message that the sender receives. */
  heard(message: DecodedMessage): void {
    if (message.type === type.ANSWER) this.#answer(message as JsonMessage);
    if (message.type === type.WELCOME) {
      this.#welcome = (message as JsonMessage).json as unknown as Granted;
    }
    let settled = this.#settled;
    if (message.type === type.RECEIPT) settled = (message as ReceiptMessage).frames;
    if (message.type === type.DONE) settled = fieldsOf(message)["frames"] ?? 0;
    if (settled > this.#charges.length) throw new Error("more frames settled than ended");
    for (; this.#settled < settled; this.#settled++) {
      this.frames--;
      this.bytes -= this.#charges[this.#settled] ?? 0;
    }
  }
}
