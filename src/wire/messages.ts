/** The messages of FRAMES/1 (SPEC sections 3, 4 and 12): types, limits and JSON bodies. */
import { isObject } from "../common/json-object.ts";
import { FramesError } from "../errors.ts";
import type { ConflictPolicy, RawShape, OfferStatus } from "../frame.ts";

/** First bytes that each end sends. */
export const preface = "FRAMES/1";

/** Message types (SPEC section 4). */
export const MessageType = {
  hello: 1,
  welcome: 2,
  source: 3,
  frame: 4,
  data: 5,
  abort: 6,
  receipt: 7,
  refused: 8,
  lost: 9,
  offer: 10,
  answer: 11,
  end: 12,
  done: 13,
  error: 14,
  ping: 15,
  pong: 16,
  proof: 17,
  gone: 18,
  cursor: 19,
} as const;

/** Flags (SPEC section 3). */
export const MessageFlag = { more: 0x01, key: 0x02, optional: 0x80 } as const;

/** Feature of both ends with which FRAMEs have the flag KEY (SPEC section 4). */
export const videoFeature = "video";

/** Sizes in bytes (SPEC sections 3, 5 and 12). `body`, `json`, `name` and `metadata` are maxima. */
export const Size = {
  header: 12,
  body: 1 << 20,
  json: 1 << 16,
  /** Fixed part of a FRAME body, before the name. */
  frame: 32,
  /** Fixed part of a DATA body, before the payload. */
  data: 4,
  receipt: 8,
  proof: 32,
  name: 255,
  metadata: 4096,
} as const;

/** Body of HELLO (SPEC section 4). */
export interface Hello {
  role: "send" | "receive";
  session: string;
  stream: string;
  started?: string;
  software?: string;
  features?: string[];
  limits?: { frame: number };
  conflict?: ConflictPolicy;
  again?: boolean;
  revises?: boolean;
  durable?: boolean;
  key?: string;
  /** The fields below belong to the role `receive` (SPEC section 9). */
  cursor?: string;
  follow?: boolean;
  sources?: string[];
  since?: string;
  until?: string;
  first?: number;
  latest?: boolean;
  window?: { bytes: number; frames: number };
}

/** Body of WELCOME (SPEC section 4). */
export interface Welcome {
  window: { bytes: number; frames: number };
  limits: { frame: number; sources: number; unfinished: number };
  fresh?: boolean;
  durable?: boolean;
  features?: string[];
  software?: string;
  store?: string;
  /** Longest time in ms that the receiver may delay receipts (SPEC section 6). */
  receipts?: number;
  /** Text that identifies the server's store (SPEC section 9). */
  identity?: string;
  /** Whether playback resumes at HELLO's cursor (SPEC section 9). */
  resumed?: boolean;
  /** The first two sources from which frames are sent (SPEC section 9). */
  sources?: string[];
}

/** Body of SOURCE (SPEC section 4). */
export interface SourceDeclaration {
  name: string;
  stream?: string;
  type?: string;
  raw?: RawShape;
  /** Value of HELLO's field of this name for the frames of this source. */
  revises?: boolean;
  /** Session of the original sender; only with the role `receive` (SPEC section 9). */
  session?: string;
}

/** Body of DONE (SPEC section 4): how the frames of the connection were settled. */
export interface Done {
  frames: number;
  stored: number;
  present: number;
  refused: number;
  aborted: number;
}

/**
 * Entry of OFFER (SPEC section 8): name, size in bytes, capture time in ns, sequence number, and
 * CRC-32 if known.
 */
export type OfferEntry = [string, number, string, number, number?];

/** Meaning of each letter of ANSWER (SPEC section 8). */
export const offerStatusByLetter: ReadonlyMap<string, OfferStatus> = new Map([
  ["w", "wanted"],
  ["s", "stored"],
  ["m", "removed"],
  ["c", "needsChecksum"],
  ["x", "conflict"],
]);

/** Limit of the characters of a cursor or identity (SPEC section 12). */
export const maxCursorLength = 1024;

/** Limit of the sources that one HELLO requests (SPEC section 12). */
export const maxRequestedSources = 1000;

/** Limit of the frames in unanswered OFFERs (SPEC section 8). */
export const maxOfferedFrames = 8192;

/** Body of each control message. */
export interface ControlBodies {
  [MessageType.hello]: Hello;
  [MessageType.welcome]: Welcome;
  [MessageType.source]: SourceDeclaration;
  [MessageType.abort]: { sequence: number; error?: number; message?: string };
  [MessageType.refused]: { sequence: number; error: number; message: string };
  [MessageType.lost]: {
    ranges: [number, number][];
    error: number;
    message?: string;
    name?: string;
  };
  [MessageType.offer]: { frames: OfferEntry[] };
  [MessageType.answer]: { answers: string };
  [MessageType.end]: { frames: number };
  [MessageType.done]: Done;
  [MessageType.error]: { error: number; message: string; source?: number; sequence?: number };
  [MessageType.ping]: { time: string; stopping?: boolean };
  [MessageType.pong]: { time: string; clock: string };
  [MessageType.gone]: { sequence: number; name: string };
  [MessageType.cursor]: { cursor: string };
}

/** Message type with a JSON body. */
export type ControlType = keyof ControlBodies;

/** A decoded control message whose fields were checked. */
export type ControlMessage = {
  [T in ControlType]: { type: T; source: number; body: ControlBodies[T] };
}[ControlType];

type Check = (value: unknown) => boolean;

const text: Check = (value) => typeof value === "string";
const streamName: Check = (value) => {
  const length = typeof value === "string" ? Buffer.byteLength(value) : 0;
  return length >= 1 && length <= Size.name;
};
const cursorText: Check = (value) =>
  typeof value === "string" && value.length >= 1 && value.length <= maxCursorLength;
const sourceNames: Check = (value) =>
  Array.isArray(value) && value.length <= maxRequestedSources && value.every(text);
const boolean: Check = (value) => typeof value === "boolean";
const count: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const positive: Check = (value) => count(value) && (value as number) >= 1;
const sourceId: Check = (value) => positive(value) && (value as number) <= 0xffff;
const decimal: Check = (value) => typeof value === "string" && /^-?\d{1,19}$/.test(value);
const session: Check = (value) => typeof value === "string" && /^[0-9a-f]{32}$/.test(value);
const oneOf =
  (...values: unknown[]): Check =>
  (value) =>
    values.includes(value);
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);
const range: Check = (value) =>
  Array.isArray(value) &&
  value.length === 2 &&
  positive(value[0]) &&
  positive(value[1]) &&
  value[0] <= value[1];
const offerEntry: Check = (value) =>
  Array.isArray(value) &&
  (value.length === 4 || value.length === 5) &&
  text(value[0]) &&
  count(value[1]) &&
  decimal(value[2]) &&
  positive(value[3]) &&
  (value.length === 4 || (count(value[4]) && (value[4] as number) <= 0xffff_ffff));

type Shape = { [field: string]: Check | [Shape] };

function objectOf(required: Shape, optional: Shape = {}): [Shape, Shape] {
  return [required, optional];
}

/**
 * Returns the first field of `value` that is missing or of the wrong kind, or `undefined` if all
 * are valid.
 */
function findInvalidField(value: unknown, required: Shape, optional: Shape): string | undefined {
  if (!isObject(value)) return "the body";
  for (const shape of [required, optional]) {
    for (const [field, check] of Object.entries(shape)) {
      const fieldValue = value[field];
      if (fieldValue === undefined && shape === optional) continue;
      if (typeof check === "function") {
        if (!check(fieldValue)) return field;
      } else {
        const inner = findInvalidField(fieldValue, check[0], {});
        if (inner !== undefined) return inner === "the body" ? field : `${field}.${inner}`;
      }
    }
  }
  return undefined;
}

const frameError = { error: count, message: text };
const controlShapes: Record<ControlType, [Shape, Shape]> = {
  [MessageType.hello]: objectOf(
    { role: oneOf("send", "receive"), session, stream: streamName },
    {
      started: decimal,
      software: text,
      features: listOf(text),
      limits: [{ frame: count }],
      conflict: oneOf("fail", "skip", "replace"),
      again: boolean,
      revises: boolean,
      durable: boolean,
      key: text,
      cursor: cursorText,
      follow: boolean,
      sources: sourceNames,
      since: decimal,
      until: decimal,
      first: positive,
      latest: boolean,
      window: [{ bytes: positive, frames: positive }],
    },
  ),
  [MessageType.welcome]: objectOf(
    {
      window: [{ bytes: positive, frames: positive }],
      limits: [{ frame: positive, sources: positive, unfinished: positive }],
    },
    {
      fresh: boolean,
      durable: boolean,
      features: listOf(text),
      software: text,
      store: text,
      receipts: count,
      identity: cursorText,
      resumed: boolean,
      sources: listOf(text),
    },
  ),
  [MessageType.source]: objectOf(
    { name: text },
    {
      stream: text,
      type: text,
      raw: [{ width: positive, height: positive, format: text }],
      revises: boolean,
      session,
    },
  ),
  [MessageType.abort]: objectOf({ sequence: positive }, frameError),
  [MessageType.refused]: objectOf({ sequence: positive, ...frameError }),
  [MessageType.lost]: objectOf(
    { ranges: listOf(range), error: count },
    { message: text, name: text },
  ),
  [MessageType.offer]: objectOf({ frames: listOf(offerEntry) }),
  [MessageType.answer]: objectOf({ answers: text }),
  [MessageType.end]: objectOf({ frames: count }),
  [MessageType.done]: objectOf({
    frames: count,
    stored: count,
    present: count,
    refused: count,
    aborted: count,
  }),
  [MessageType.error]: objectOf(frameError, { source: sourceId, sequence: positive }),
  [MessageType.ping]: objectOf({ time: decimal }, { stopping: boolean }),
  [MessageType.pong]: objectOf({ time: decimal, clock: decimal }),
  [MessageType.gone]: objectOf({ sequence: positive, name: text }),
  [MessageType.cursor]: objectOf({ cursor: cursorText }),
};

const typesWithSource: ReadonlySet<number> = new Set([
  MessageType.source,
  MessageType.frame,
  MessageType.data,
  MessageType.abort,
  MessageType.refused,
  MessageType.lost,
  MessageType.offer,
  MessageType.answer,
  MessageType.gone,
]);
const typeNames = new Map<number, string>(
  Object.entries(MessageType).map(([name, type]) => [type, name.toUpperCase()]),
);

/** Returns the name of a message type, for errors and traces. */
export function typeName(type: number): string {
  return typeNames.get(type) ?? `message type ${type}`;
}

/** Returns the error for a message that its sender must not send now. */
export function unexpectedMessage(type: number): FramesError {
  return new FramesError("protocol", `Cannot accept ${typeName(type)} now`);
}

/** Returns whether FRAMES/1 defines the type. */
export function isKnownType(type: number): boolean {
  return typeNames.has(type);
}

/** Returns whether messages of the type carry a source id. */
export function hasSourceId(type: number): boolean {
  return typesWithSource.has(type);
}

/** Returns whether messages of the type have a JSON body. */
export function isControlType(type: number): type is ControlType {
  return type in controlShapes;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Decodes UTF-8.
 *
 * @param what name of the text, for the error
 * @throws {FramesError} `protocol` if the bytes are not UTF-8
 */
export function decodeText(bytes: Uint8Array, what: string): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new FramesError("protocol", `Cannot read ${what}: it is not UTF-8`);
  }
}

/**
 * Parses and checks the JSON body of a control message.
 *
 * @throws {FramesError} `protocol` if it is not JSON, or a field is missing or of the wrong kind
 */
export function parseControl(type: ControlType, source: number, bytes: Uint8Array): ControlMessage {
  let body: unknown;
  try {
    body = JSON.parse(decodeText(bytes, typeName(type)));
  } catch (error) {
    if (error instanceof FramesError) throw error;
    throw new FramesError("protocol", `Cannot read ${typeName(type)}: its body is not JSON`);
  }
  const invalidField = findInvalidField(body, ...controlShapes[type]);
  if (invalidField !== undefined) {
    throw new FramesError(
      "protocol",
      `Cannot read ${typeName(type)}: ${invalidField} is missing or has the wrong type`,
    );
  }
  return { type, source, body } as ControlMessage;
}
