/**
 * Mutates valid conversations and compares the decoder in `src/` with the oracle. The same seed
 * gives the same inputs. Also contains the recorder with which tests observe a decoder.
 */
import { crc32 } from "node:zlib";
import type { FrameDescription } from "../../src/frame.ts";
import { FramesError } from "../../src/errors.ts";
import { Decoder, type MessageHandler } from "../../src/wire/decode.ts";
import { Receiver } from "../../src/protocol/receive/receiver.ts";
import { ServerEnd } from "../protocol/server-end.ts";
import type { ReceiverLimits } from "../../src/protocol/receive/receiver-events.ts";
import { Sender } from "../../src/protocol/send/sender.ts";
import { ClientHandshake } from "../../src/protocol/handshake.ts";
import { PlaybackSender } from "../../src/protocol/playback/playback-sender.ts";
import type { Playback } from "../../src/protocol/playback/playback.ts";
import { outgoingBufferBytes, WriteBatch } from "../../src/protocol/send/write-batch.ts";
import { encodeControl } from "../../src/wire/encode.ts";
import { type ControlMessage, type Hello, MessageType } from "../../src/wire/messages.ts";
import {
  framesOf,
  hello,
  MemoryFrame,
  MemorySource,
  MemoryStore,
  outletsOf,
} from "../protocol/memory.ts";
import { type Decoded, decodeAll, misplacement, toldOf } from "./oracle.ts";
import { type DecodedMessage, type ReceiptMessage, type } from "./vectors.ts";

/** A random number generator, deterministic for a seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Returns an integer from 0 to below `end`. */
  below(end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * end);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}

/** Returns the seed of one input, so that it can be reproduced without those before it. */
export function seedOf(seed: number, index: number): number {
  return (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 0;
}

/** Records the events of a decoder in the format of `toldOf`. */
export class Recorder implements MessageHandler {
  readonly told: string[] = [];
  /** Payload views that the decoder passed, with their chunks. */
  readonly views: { payload: Uint8Array; chunk: Uint8Array }[] = [];
  #chunk: Uint8Array = new Uint8Array(0);
  #payload: string[] = [];
  #payloadOf = 0;

  /** Sets the chunk passed to the decoder next. */
  given(chunk: Uint8Array): void {
    this.#chunk = chunk;
  }

  /** Returns all events. Must be called at the end, because payload is joined only then. */
  finish(): string[] {
    this.#flush();
    return this.told;
  }

  #flush(): void {
    if (this.#payload.length === 0) return;
    this.told.push(`payload ${this.#payloadOf} ${this.#payload.join("")}`);
    this.#payload = [];
  }

  #add(line: string): void {
    this.#flush();
    this.told.push(line);
  }

  onControl({ type, source, body }: ControlMessage): void {
    this.#add(`${type} ${source} ${JSON.stringify(body)}`);
  }

  onFrame(source: number, { sequence, captured, size, name, metadata }: FrameDescription): void {
    const texts = JSON.stringify([name, metadata]);
    this.#add(`frame ${source} ${sequence} ${captured} ${size} ${texts}`);
  }

  onPayload(source: number, bytes: Uint8Array): void {
    if (this.#payloadOf !== source) this.#flush();
    this.#payloadOf = source;
    this.#payload.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex"));
    this.views.push({ payload: bytes, chunk: this.#chunk });
  }

  onFrameComplete(source: number, crc: number): void {
    this.#add(`complete ${source} ${crc}`);
  }

  onReceipt(frames: number): void {
    this.#add(`receipt ${frames}`);
  }

  onProof(bytes: Uint8Array): void {
    this.#add(`proof ${Buffer.from(bytes).toString("hex")}`);
  }
}

/** Result of passing chunks to a decoder. */
export interface Recording {
  told: string[];
  views: Recorder["views"];
  error: unknown;
  atBorder: boolean;
  unfinished: number;
}

/** Passes chunks to a new decoder until it throws. The first chunk begins with the preface. */
export function record(chunks: Iterable<Uint8Array>, hasVideo = false): Recording {
  const recorder = new Recorder();
  const decoder = new Decoder(recorder);
  if (hasVideo) decoder.acceptKeyFlag();
  let error: unknown;
  try {
    for (const chunk of chunks) {
      recorder.given(chunk);
      decoder.receive(chunk);
    }
  } catch (thrown) {
    error = thrown;
  }
  const { isBetweenMessages: atBorder, unfinishedCount: unfinished } = decoder;
  return { told: recorder.finish(), views: recorder.views, error, atBorder, unfinished };
}

/** Splits bytes into chunks: whole, byte by byte, in two, or at random. */
export function* cut(bytes: Uint8Array, random: Random): Generator<Uint8Array> {
  const way = random.below(8);
  const most = way < 2 ? bytes.length : way === 2 ? 1 : way === 3 ? 16 : way < 6 ? 64 : 500;
  for (let at = 0; at < bytes.length;) {
    const length = most < 2 ? 1 : way < 2 ? most : 1 + random.below(most);
    yield bytes.subarray(at, at + length);
    at += length;
  }
}

export const preface: Uint8Array = new TextEncoder().encode("FRAMES/1");

/**
 * Bytes of a message that a decoder may buffer: the largest body that is not passed on in parts.
 */
const mayHold = 65_536;

/** Measures the longest array allocated while `act` runs. */
export function longestArrayOf<T>(act: () => T): { longest: number; value: T } {
  const original = globalThis.Uint8Array;
  let longest = 0;
  globalThis.Uint8Array = new Proxy(original, {
    construct(target, args: [number]) {
      const made = Reflect.construct(target, args) as Uint8Array;
      longest = Math.max(longest, made.length);
      return made;
    },
  });
  try {
    return { value: act(), longest };
  } finally {
    globalThis.Uint8Array = original;
  }
}

/** Compares decoder and oracle on one input without its preface. Returns the difference, if any. */
export function compare(input: Uint8Array, random: Random): string | undefined {
  const bytes = Buffer.concat([preface, input]);
  const recording = record(cut(bytes, random));
  return difference(decodeAll(input), recording);
}

/** Returns how a recording differs from the oracle's result for the same bytes. */
export function difference(decoded: Decoded, recording: Recording): string | undefined {
  const { told, error, atBorder, unfinished, views } = recording;
  if (error !== undefined && !(error instanceof FramesError)) return `it threw ${String(error)}`;
  const expected = toldOf(decoded);
  const at = expected.findIndex((line, index) => line !== told[index]);
  if (at >= 0 || told.length > expected.length) {
    const index = at >= 0 ? at : expected.length;
    return `it told ${told[index]}, the oracle ${expected[index]}`;
  }
  if ((error === undefined) !== (decoded.error === undefined)) {
    return `its error is ${error?.message ?? "none"}, the oracle's ${decoded.error ?? "none"}`;
  }
  if (views.some(({ payload, chunk }) => payload.buffer !== chunk.buffer))
    return "it copied payload";
  if (error !== undefined) return undefined;
  const consumedAll = decoded.consumed === decoded.length;
  if (atBorder !== consumedAll) return `atBorder is ${atBorder}`;
  if (unfinished !== decoded.unfinished.length) return `${unfinished} frames are unfinished`;
  return undefined;
}

/** Runs `compare` on each input, and checks that no buffer exceeds the needs of one message. */
export function compareAll(
  inputs: number,
  seed: number,
  make: (random: Random) => Uint8Array,
): { index: number; input: Uint8Array; wrong: string } | undefined {
  const { value, longest } = longestArrayOf(() => {
    for (let index = 0; index < inputs; index++) {
      const random = new Random(seedOf(seed, index));
      const input = make(random);
      const wrong = compare(input, random);
      if (wrong !== undefined) return { index, input, wrong };
    }
    return undefined;
  });
  if (value !== undefined || longest <= mayHold) return value;
  return { index: -1, input: new Uint8Array(0), wrong: `it asked for ${longest} bytes to hold` };
}

// Mutations.

const header = 12;

function typeOf(message: Uint8Array): number {
  return message[0] ?? 0;
}

function lengthOf(message: Uint8Array): number {
  return Buffer.from(message.buffer, message.byteOffset, message.length).readUInt32BE(4);
}

function isJson(message: Uint8Array): boolean {
  const number = typeOf(message);
  return number >= 1 && number <= 19 && ![4, 5, 7, 17].includes(number);
}

/** Splits valid bytes of one side into messages. */
export function messagesOf(bytes: Uint8Array): Uint8Array[] {
  const messages: Uint8Array[] = [];
  let from = 0;
  for (const end of decodeAll(bytes).ends) {
    messages.push(bytes.slice(from, end));
    from = end;
  }
  return messages;
}

/** Corrects the CRC-32s of headers; with `deep` also those of payloads where possible. */
function repair(messages: Uint8Array[], deep: boolean): void {
  const running = new Map<number, number>();
  for (const bytes of messages) {
    const message = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    if (message.length < header) continue;
    let covered = message.length - header;
    const number = typeOf(message);
    if (number === 4 && covered >= 32) {
      covered = Math.min(
        covered,
        32 + message.readUInt16BE(header + 28) + message.readUInt16BE(header + 30),
      );
    }
    if (number === 5 && covered >= 4) covered = 4;
    if (deep && (number === 4 || number === 5) && message.length >= header + covered) {
      const source = message.readUInt16BE(2);
      const before = number === 4 ? 0 : (running.get(source) ?? 0);
      const crc = crc32(message.subarray(header + covered), before);
      const at = header + (number === 4 ? 24 : 0);
      if (message.length >= at + 4) message.writeUInt32BE(crc, at);
      running.set(source, crc);
    }
    const crc = crc32(message.subarray(header, header + covered), crc32(message.subarray(0, 8)));
    message.writeUInt32BE(crc, 8);
  }
}

/** Returns a message with another body, and correct length and CRC-32. */
function withBody(message: Uint8Array, body: Uint8Array): Uint8Array {
  const made = Buffer.concat([message.subarray(0, header), body]);
  made.writeUInt32BE(body.length, 4);
  repair([made], false);
  return made;
}

const oddValues: readonly unknown[] = [
  null, true, false, 0, 1, -1, -0, 0.5, 2, 255, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e300, "", "0", "1",
  "-1", "a", "send", "receive", "\ud800", "\u0000", "9".repeat(19), "9".repeat(20), "x".repeat(256),
  "0123456789abcdef0123456789abcdef", [], [[]], [[1, 1]], [[1, 2, 3]], ["x"], {}, { frame: 0 },
  { bytes: 1, frames: 1 }, { bytes: 0, frames: 1 }, { width: 1, height: 1, format: "x" },
]; // prettier-ignore

const fieldNames: readonly string[] = [
  "role", "session", "stream", "started", "software", "features", "limits", "conflict", "durable",
  "key", "cursor", "follow", "sources", "since", "first", "latest", "window", "fresh", "store", "name",
  "type", "raw", "sequence", "error", "message", "ranges", "frames", "again", "answers", "stored",
  "present", "refused", "aborted", "time", "clock", "unknown", "__proto__", "toString",
]; // prettier-ignore

/** Changes something in the JSON of a message. */
function mutateJson(message: Uint8Array, random: Random): Uint8Array {
  const text = Buffer.from(message.subarray(header)).toString("utf8");
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return message;
  }
  // An earlier mutation may have replaced the object.
  if (typeof value !== "object" || value === null) return message;
  let inner = value;
  const keys = Object.keys(value);
  const nested = keys.filter((key) => typeof value[key] === "object" && value[key] !== null);
  if (nested.length > 0 && random.below(2) === 0) {
    inner = value[random.pick(nested)] as Record<string, unknown>;
  }
  const innerKeys = Object.keys(inner);
  const key = innerKeys.length > 0 ? random.pick(innerKeys) : random.pick(fieldNames);
  let json: string | undefined;
  switch (random.below(8)) {
    case 0:
      delete inner[key];
      break;
    case 1:
    case 2:
      inner[key] = random.pick(oddValues);
      break;
    case 3:
      inner[random.pick(fieldNames)] = random.pick(oddValues);
      break;
    case 4:
      inner[random.pick(fieldNames)] = inner[key];
      break;
    case 5: {
      // Number formats that JSON.stringify never writes.
      const odd = ["1e999", "-0", "1.0", "1E2", "01", "9007199254740993", "+1", "0x1", "NaN"];
      json = text.replace(/-?\d+(?=[,}\]])/, random.pick(odd));
      break;
    }
    case 6:
      // The last of two fields with the same name applies.
      json = `{"${random.pick(fieldNames)}":${JSON.stringify(random.pick(oddValues))},${text.slice(1)}`;
      break;
    default: {
      const at = random.below(text.length + 1);
      json = `${text.slice(0, at)}${random.pick([" ", "\t", "\ufeff", "\\", '"', "}", ",", "\u0001"])}${text.slice(at)}`;
    }
  }
  return withBody(message, Buffer.from(json ?? JSON.stringify(value), "utf8"));
}

/** Changes the description or payload of FRAME or DATA without changing the length. */
function mutatePiece(message: Uint8Array, random: Random): Uint8Array {
  const made = Buffer.from(message);
  if (typeOf(message) === 4 && made.length >= header + 32) {
    const at = header + random.pick([0, 6, 7, 8, 16, 22, 23, 23, 23, 28, 29, 29, 30, 31, 31]);
    made[at] = random.pick([0, 1, 2, 3, 5, 9, 31, 32, 33, 127, 128, 255, (made[at]! + 1) & 255]);
    if (random.below(3) > 0) return made;
  }
  const body = made.subarray(header);
  if (random.below(2) === 0)
    return withBody(made, Buffer.concat([body, random.bytes(1 + random.below(3))]));
  return withBody(made, body.subarray(0, Math.max(0, body.length - 1 - random.below(3))));
}

/** Mutates the messages of one side once or several times, and sometimes truncates the result. */
export function mutate(original: readonly Uint8Array[], random: Random): Uint8Array {
  const messages = original.map((message) => message.slice());
  const times = random.below(20) === 0 ? 0 : 1 + random.below(random.below(3) === 0 ? 5 : 2);
  for (let time = 0; time < times && messages.length > 0; time++) mutateOnce(messages, random);
  const care = random.below(4);
  if (care > 1) repair(messages, care === 3);
  const bytes = Buffer.concat(messages);
  return random.below(4) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes;
}

function mutateOnce(messages: Uint8Array[], random: Random): void {
  const index = random.below(messages.length);
  const message = messages[index]!;
  const at = random.below(message.length);
  switch (random.below(14)) {
    case 0:
      if (message.length > 0) message[at]! ^= 1 << random.below(8);
      return;
    case 1:
      if (message.length > 0) message[at] = random.below(256);
      return;
    case 2:
      messages[index] = Buffer.concat([
        message.subarray(0, at),
        random.bytes(1 + random.below(4)),
        message.subarray(at),
      ]);
      return;
    case 3:
      messages[index] = Buffer.concat([
        message.subarray(0, at),
        message.subarray(at + 1 + random.below(4)),
      ]);
      return;
    case 4:
      messages.splice(random.below(messages.length + 1), 0, message.slice());
      return;
    case 5: {
      const other = random.below(messages.length);
      messages[index] = messages[other]!;
      messages[other] = message;
      return;
    }
    case 6:
      messages.splice(index, 1);
      return;
    case 7: {
      // Sets a wrong length, with or without a body of that length.
      if (message.length < header) return;
      const length = lengthOf(message);
      const odd = [
        0,
        1,
        2,
        4,
        5,
        8,
        32,
        33,
        length - 1,
        length + 1,
        65_536,
        65_537,
        1 << 20,
        0xffffffff,
      ];
      Buffer.from(message.buffer, message.byteOffset, message.length).writeUInt32BE(
        random.pick(odd) >>> 0,
        4,
      );
      return;
    }
    case 8:
      message[0] = random.below(4) > 0 ? random.below(21) : random.below(256);
      return;
    case 9:
      message[1] = random.pick([0, 0x01, 0x80, 0x81, 0x02, 0x40]);
      return;
    case 10:
      message[2] = 0;
      message[3] = random.below(4);
      return;
    case 11:
      if (message.length >= header && !isJson(message)) {
        messages[index] = mutatePiece(message, random);
        return;
      }
  }
  if (message.length >= header && isJson(message)) messages[index] = mutateJson(message, random);
  else if (message.length >= header) messages[index] = mutatePiece(message, random);
}

// Fuzzing of the protocol machines.

const granted: ReceiverLimits = {
  window: { bytes: 1 << 20, frames: 16 },
  limits: { frame: 1000, sources: 4, unfinished: 2 },
};

/** Decodes the output of one side with the oracle. Returns what is wrong, if anything. */
function readBack(parts: readonly Uint8Array[]): { messages: DecodedMessage[]; wrong?: string } {
  const bytes = Buffer.concat(parts);
  if (bytes.length === 0) return { messages: [] };
  if (!bytes.subarray(0, 8).equals(preface)) return { messages: [], wrong: "it has no preface" };
  const { messages, error, consumed, length } = decodeAll(bytes.subarray(8));
  if (error !== undefined) return { messages, wrong: `what it says is ${error}` };
  if (consumed !== length) return { messages, wrong: "it stops within a message" };
  const misplaced = misplacement(messages);
  if (misplaced === undefined) return { messages };
  return { messages, wrong: `type ${misplaced.type} is misplaced in what it says` };
}

/**
 * Passes bytes of a client to a receiver, with up to `pace` milliseconds between chunks. Returns
 * what is wrong, if anything.
 */
export async function withstandsClient(
  input: Uint8Array,
  random: Random,
  pace: number,
): Promise<string | undefined> {
  /** Frames being stored, and slices of work. */
  const waiting: (() => void)[] = [];
  const reason = () => new FramesError(random.pick(["bad-name", "conflict", "not-stored"]), "why");
  const isAsync = random.below(2) === 0;
  const store = new MemoryStore({
    refuse: () => (random.below(8) === 0 ? reason() : undefined),
    failWrite: () => (random.below(20) === 0 ? reason() : undefined),
    finish: () =>
      isAsync
        ? new Promise((resolve) => {
            const outcome = random.below(8) === 0 ? reason() : undefined;
            waiting.push(() => resolve(outcome));
          })
        : undefined,
  });
  let now = 0;
  let failure: unknown;
  const receiver = new ServerEnd(store, granted, 30_000, now, {
    onHello: () => ({ fresh: true }),
    // Gets what is wrong in bytes that waited for an OFFER to be answered.
    onError: (error) => fail(error),
    ...(isAsync
      ? { runSlice: (act) => new Promise((go) => waiting.push(() => go(Promise.try(act)))) }
      : {}),
  });
  const fail = (error: unknown) => {
    failure = error;
    if (error instanceof FramesError) receiver.fail(error);
  };
  const said: Uint8Array[] = [];
  const goOn = async (all: boolean) => {
    do {
      while (waiting.length > 0 && (all || random.below(3) > 0)) {
        waiting.splice(random.below(waiting.length), 1)[0]!();
      }
      // A chunk arrives in a turn of its own, when all promises before it have settled.
      await new Promise((resolve) => setImmediate(resolve));
    } while (all && waiting.length > 0);
    if (all || random.below(2) === 0) receiver.ack(now);
    said.push(...receiver.drain(now));
  };
  for (const chunk of cut(Buffer.concat([preface, input]), random)) {
    now += random.below(pace);
    try {
      receiver.receive(chunk, now);
      if (random.below(10) === 0) receiver.tick(now);
    } catch (error) {
      fail(error);
    }
    if (failure !== undefined) break;
    await goOn(false);
  }
  await goOn(true);
  receiver.close();
  await goOn(true);
  if (failure !== undefined && !(failure instanceof FramesError)) {
    return `it threw ${String(failure)}`;
  }
  const { messages, wrong } = readBack(said);
  if (wrong !== undefined) return wrong;
  let ended = 0;
  for (const { type: number, flags } of decodeAll(input).messages) {
    if (
      number === type.ABORT ||
      ((number === type.FRAME || number === type.DATA) && flags % 2 === 0)
    ) {
      ended++;
    }
  }
  const { frames, stored, present, refused, aborted } = receiver.counts;
  if (frames > ended) return `it counts ${frames} frames, ${ended} ended`;
  if (stored + present + refused + aborted !== frames) return "its counts do not add up";
  for (const message of messages) {
    if (message.type === type.RECEIPT && (message as ReceiptMessage).frames > frames) {
      return `it settled ${(message as ReceiptMessage).frames} of ${frames} frames`;
    }
  }
  if (store.writers !== 0) return `${store.writers} frames are neither stored nor discarded`;
  const last = messages.at(-1)?.type;
  const isForeign = failure instanceof FramesError && failure.code === "foreign";
  if (failure !== undefined && !isForeign && last !== type.ERROR && last !== type.DONE) {
    return "it failed and did not say so";
  }
  return undefined;
}

const buffer = new Uint8Array(outgoingBufferBytes);

/** Splits the bytes of one side into messages, followed by the invalid rest. */
function partsOf(bytes: Uint8Array): Uint8Array[] {
  const { ends, consumed } = decodeAll(bytes);
  return [
    ...ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end)),
    bytes.subarray(consumed),
  ];
}

/** Number of frames in each source of a sender, and whether they are offered. */
export interface ServedFrames {
  frames: readonly number[];
  resumes?: boolean;
  checksum?: boolean;
}

/**
 * Passes bytes of a server to a sender with these frames. Each frame must then be settled, lost, or
 * available for the next connection. Returns what is wrong, if anything.
 */
export async function withstandsServer(
  input: Uint8Array,
  { frames, resumes = false, checksum = false }: ServedFrames,
  random: Random,
  pace: number,
): Promise<{ wrong?: string; isDone: boolean }> {
  const sources = frames.map(
    (count, index) => new MemorySource("ab"[index]!, framesOf(count, 10), { resumes }),
  );
  const outlets = outletsOf(sources);
  const said: Uint8Array[] = [];
  let now = 0;
  let isPumping = false;
  const sender = new Sender({
    ...{ sources: outlets, hello, checksum, timeoutMs: 30_000, now },
    reports: { messages: random.below(4) === 0 },
    onWritable: () => pump(),
  });
  const pump = () => {
    if (isPumping) return;
    isPumping = true;
    for (let turn = 0; turn < 1000; turn++) {
      const { length } = sender.transmit(buffer, now);
      if (length === 0) {
        isPumping = false;
        return;
      }
      said.push(buffer.slice(0, length));
    }
    throw new Error("it never stops sending");
  };
  try {
    pump();
    // Reading frames for their CRC-32 between two messages takes a turn of the event loop.
    for (const part of resumes ? [preface, ...partsOf(input)] : [Buffer.concat([preface, input])]) {
      for (const chunk of cut(part, random)) {
        now += random.below(pace);
        sender.receive(chunk, now);
        if (sender.done !== undefined) break;
        if (random.below(10) === 0) sender.tick(now);
      }
      if (resumes) await new Promise((resolve) => setImmediate(resolve));
    }
  } catch (error) {
    if (!(error instanceof FramesError))
      return { wrong: `it threw ${String(error)}`, isDone: false };
  }
  const isDone = sender.done !== undefined;
  if (!isDone) sender.returnToSources();
  for (const [index, { progress, candidates }] of outlets.entries()) {
    const { settled, lost } = progress;
    const known = settled + lost + candidates.length;
    if (known !== sources[index]!.taken) {
      const wrong = `of ${sources[index]!.taken} frames ${settled} are settled, ${lost} lost, ${candidates.length} left`;
      return { wrong, isDone };
    }
  }
  const { messages, wrong } = readBack(said);
  if (wrong !== undefined) return { wrong, isDone };
  if (isDone && !messages.some((one) => one.type === type.END)) {
    return { wrong: "it is done and never said END", isDone };
  }
  return { isDone };
}

/** Playback of small and large frames, some of them missing. */
function supplyOf(random: Random): Playback {
  const origin = { name: "a", session: "0".repeat(32), raw: undefined };
  let position = 0;
  return {
    isBusy: false,
    position: 0,
    get isEnded() {
      return position === 20;
    },
    next() {
      if (position === 20) return undefined;
      position++;
      const place = { source: origin, position, cursor: `${position}` };
      if (random.below(6) === 0) return { ...place, type: "gone", sequence: position, name: "f" };
      const frame = new MemoryFrame(position, random.below(100) === 0 ? 1_100_000 : 10);
      return { ...place, type: "frame", frame };
    },
    onReadError: () => undefined,
  };
}

/**
 * Passes bytes of a receiving client, after its handshake, to a server. Returns what is wrong, if
 * anything.
 */
export async function withstandsReceiver(
  input: Uint8Array,
  random: Random,
  pace: number,
): Promise<string | undefined> {
  const supply = supplyOf(random);
  const said: Uint8Array[] = [];
  let now = 0;
  let provider: PlaybackSender | undefined;
  const greeted: Hello = { ...hello, role: "receive", follow: random.below(2) === 0 };
  const receiver = new ServerEnd(new MemoryStore(), granted, 30_000, now, {
    onHello: () => ({ fresh: false }),
    onReceiver: (client) => {
      provider = new PlaybackSender(client, supply, 30_000, now, () => {});
      provider.start();
    },
  });
  receiver.receive(Buffer.concat([preface, encodeControl(MessageType.hello, 0, greeted)]), now);
  said.push(...receiver.drain(now));
  const pump = async () => {
    for (let turn = 0; turn < 100; turn++) {
      const out = new WriteBatch(buffer);
      provider!.transmit(out, now);
      if (out.length === 0) break;
      said.push(Buffer.concat([out.bytes, out.piece ?? new Uint8Array(0)]));
    }
    if (random.below(3) === 0) await new Promise((resolve) => setImmediate(resolve));
  };
  let failure: FramesError | undefined;
  try {
    await pump();
    for (const chunk of cut(input, random)) {
      now += random.below(pace);
      provider!.receive(chunk, now);
      if (random.below(10) === 0) provider!.tick(now);
      if (random.below(2) === 0) await pump();
      if (provider!.isDone) break;
    }
  } catch (error) {
    if (!(error instanceof FramesError)) return `it threw ${String(error)}`;
    failure = error;
    provider!.fail(error);
  }
  await pump();
  provider!.close();
  const { messages, wrong } = readBack(said);
  if (wrong !== undefined) return wrong;
  const last = messages.at(-1)?.type;
  if (failure !== undefined && last !== type.ERROR && last !== type.END && !provider!.isDone) {
    return "it failed and did not say so";
  }
  const { frames, refused } = provider!.counts;
  return frames + refused > 20 ? `it counts ${frames} frames and ${refused} refused` : undefined;
}

/**
 * Passes bytes of a server, including its handshake, to a receiving client. Returns what is wrong,
 * if anything.
 */
export function withstandsProvider(
  input: Uint8Array,
  random: Random,
  pace: number,
): string | undefined {
  const store = new MemoryStore({
    refuse: () => (random.below(8) === 0 ? new FramesError("conflict") : undefined),
  });
  let now = 0;
  const greeting = new ClientHandshake({ ...hello, role: "receive" }, undefined);
  const client = new Receiver({ store, grants: granted, timeoutMs: 30_000, now, peer: greeting });
  client.onConnected(now, undefined);
  const said: Uint8Array[] = [];
  const settle = () => {
    if (random.below(2) === 0) client.ack(now);
    said.push(...client.drain(now));
  };
  let failure: FramesError | undefined;
  try {
    for (const chunk of cut(Buffer.concat([preface, input]), random)) {
      now += random.below(pace);
      client.receive(chunk, now);
      if (random.below(10) === 0) client.tick(now);
      if (random.below(200) === 0) client.shutDown();
      settle();
    }
  } catch (error) {
    if (!(error instanceof FramesError)) return `it threw ${String(error)}`;
    failure = error;
    client.fail(error);
  }
  settle();
  client.close();
  said.push(...client.drain(now));
  const { messages, wrong } = readBack(said);
  if (wrong !== undefined) return wrong;
  if (store.writers !== 0) return `${store.writers} frames are neither stored nor discarded`;
  const last = messages.at(-1)?.type;
  const isForeign = failure?.code === "foreign";
  if (failure !== undefined && !isForeign && last !== type.ERROR && last !== type.DONE) {
    return "it failed and did not say so";
  }
  return undefined;
}
