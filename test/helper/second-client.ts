/**
 * A second client, written from `src/wire/SPEC.md` alone, with node:net and nothing from `src/`. If
 * it can talk to the server, the specification is complete enough for an independent
 * implementation.
 *
 *     bun test/helper/second-client.ts HOST PORT STREAM FILE...
 */
import { randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { connect } from "node:net";
import { basename } from "node:path";
import { crc32 } from "node:zlib";

/** Arguments of `deliver`. */
export interface Delivery {
  host: string;
  port: number;
  stream: string;
  source: string;
  frames: { name: string; bytes: Uint8Array; captured: bigint }[];
}

/** Counts of frames by outcome, from DONE. */
export interface Outcome {
  frames: number;
  stored: number;
  present: number;
  refused: number;
  aborted: number;
}

interface Frame {
  sequence: number;
  cost: number;
}

type Json = Record<string, unknown>;

const PREFACE = Buffer.from("FRAMES/1");
const LIMIT = 1_048_576;
const HEADER = 12;
const MORE = 0x01;
const OPTIONAL = 0x80;
const SOURCE_ID = 1;
const HELLO = 1;
const WELCOME = 2;
const SOURCE = 3;
const FRAME = 4;
const DATA = 5;
const RECEIPT = 7;
const REFUSED = 8;
const END = 12;
const DONE = 13;
const ERROR = 14;
const PING = 15;
const PONG = 16;
const LAST_KNOWN = 19;

/** Timeouts of section 7, in milliseconds. */
const WELCOME_WITHIN = 10_000;
const QUIET = 10_000;
const GONE_AFTER = 30_000;
/**
 * Not in the specification: limits the wait for a server that answers every PING but settles no
 * frame.
 */
const PROGRESS_WITHIN = 60_000;

/** An error that is reported to the server before closing, with its number in section 11. */
class Broken extends Error {
  constructor(
    readonly number: number,
    message: string,
  ) {
    super(message);
  }
}

function nanoseconds(): string {
  return String(BigInt(Date.now()) * 1_000_000n);
}

function heading(type: number, flags: number, source: number, covered: Buffer, length: number) {
  const header = Buffer.alloc(HEADER);
  header.writeUInt8(type, 0);
  header.writeUInt8(flags, 1);
  header.writeUInt16BE(source, 2);
  header.writeUInt32BE(length, 4);
  header.writeUInt32BE(crc32(covered, crc32(header.subarray(0, 8))), 8);
  return Buffer.concat([header, covered]);
}

function jsonMessage(type: number, source: number, value: Json): Buffer {
  const body = Buffer.from(JSON.stringify(value));
  if (body.length > 65_536) throw new Error("a JSON body may have 65,536 bytes at most");
  return heading(type, 0, source, body, body.length);
}

function numberIn(value: Json, key: string): number {
  const field = value[key];
  if (!Number.isSafeInteger(field) || Number(field) < 0) {
    throw new Broken(1, `the server sent no number for "${key}"`);
  }
  return Number(field);
}

function objectIn(value: Json, key: string): Json {
  const field = value[key];
  if (typeof field !== "object" || field === null || Array.isArray(field)) {
    throw new Broken(1, `the server sent no object for "${key}"`);
  }
  return field as Json;
}

function parse(body: Buffer): Json {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
    return objectIn({ body: JSON.parse(text) as unknown }, "body");
  } catch {
    throw new Broken(1, "the server sent a body that is not a JSON object");
  }
}

/**
 * Delivers the frames in one connection and returns the counts of DONE, checked against the frames
 * sent. Throws on ERROR, on a protocol violation, and on a timeout.
 */
export async function deliver(delivery: Delivery): Promise<Outcome> {
  const socket = connect({ host: delivery.host, port: delivery.port, allowHalfOpen: true });
  socket.setNoDelay(true);

  let received: Buffer = Buffer.alloc(0);
  let isPrefaceRead = false;
  let isConnected = false;
  let welcome: { bytes: number; frames: number } | undefined;
  let outcome: Outcome | undefined;
  let trouble: Error | undefined;
  let ended = 0;
  let settled = 0;
  let isEndSent = false;
  let refusals = 0;
  /** Frames in the window, oldest first. */
  const open: Frame[] = [];
  let openCost = 0;
  let lastSent = performance.now();
  let lastHeard = lastSent;
  let wake = () => {};

  const fail = (error: Error) => {
    trouble ??= error;
    wake();
  };

  const send = (...parts: Uint8Array[]) => {
    lastSent = performance.now();
    for (const part of parts) socket.write(part);
  };

  const until = async (what: string, within: number, isDone: () => boolean) => {
    const deadline = performance.now() + within;
    while (true) {
      if (trouble) throw trouble;
      if (isDone()) return;
      const left = deadline - performance.now();
      if (left <= 0) throw new Broken(5, `${what} did not come within ${within / 1000} s`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  };

  const onWelcome = (json: Json) => {
    if (welcome) throw new Broken(1, "the server sent a second WELCOME");
    const window = objectIn(json, "window");
    const limits = objectIn(json, "limits");
    for (const key of ["frame", "sources", "unfinished"]) numberIn(limits, key);
    welcome = { bytes: numberIn(window, "bytes"), frames: numberIn(window, "frames") };
  };

  const onReceipt = (count: bigint) => {
    if (count < BigInt(settled)) throw new Broken(1, `RECEIPT fell from ${settled} to ${count}`);
    if (count > BigInt(ended)) throw new Broken(1, `RECEIPT of ${count} of ${ended} frames`);
    for (; settled < Number(count); settled++) openCost -= open.shift()?.cost ?? 0;
  };

  const onRefused = (source: number, json: Json) => {
    const sequence = numberIn(json, "sequence");
    numberIn(json, "error");
    if (typeof json["message"] !== "string") throw new Broken(1, "REFUSED without a message");
    // REFUSED precedes the RECEIPT that counts the frame, so the frame is still in the window.
    if (source !== SOURCE_ID || !open.some((frame) => frame.sequence === sequence)) {
      throw new Broken(1, `REFUSED for frame ${sequence} of source ${source}, which is not open`);
    }
    refusals++;
  };

  const onDone = (json: Json) => {
    if (!isEndSent) throw new Broken(1, "DONE before END");
    const [frames, stored, present, refused, aborted] = [
      numberIn(json, "frames"),
      numberIn(json, "stored"),
      numberIn(json, "present"),
      numberIn(json, "refused"),
      numberIn(json, "aborted"),
    ];
    if (stored + present + refused + aborted !== frames) {
      throw new Broken(1, `DONE does not add up: ${JSON.stringify(json)}`);
    }
    if (frames !== ended || refused !== refusals || aborted !== 0) {
      const own = `${ended} frames, ${refusals} refused, none aborted`;
      throw new Broken(1, `DONE says ${JSON.stringify(json)}, our own count is ${own}`);
    }
    outcome = { frames, stored, present, refused, aborted };
  };

  const onMessage = (type: number, source: number, body: Buffer) => {
    if (outcome) throw new Broken(1, "a message after DONE");
    if (type === RECEIPT ? body.length !== 8 : body.length > 65_536) {
      throw new Broken(1, `a body of ${body.length} bytes in a message of type ${type}`);
    }
    if ((type === REFUSED) !== source > 0) {
      throw new Broken(1, `source id ${source} on a message of type ${type}`);
    }
    if (!welcome && type !== WELCOME && type !== ERROR) {
      throw new Broken(1, `a message of type ${type} before WELCOME`);
    }
    if (type === RECEIPT) return onReceipt(body.readBigUInt64BE(0));
    if (![WELCOME, REFUSED, DONE, ERROR, PING, PONG].includes(type)) {
      throw new Broken(1, `a message of type ${type}, which no receiver sends us`);
    }
    const json = parse(body);
    if (type === WELCOME) onWelcome(json);
    if (type === REFUSED) onRefused(source, json);
    if (type === DONE) onDone(json);
    if (type === PING && typeof json["time"] !== "string")
      throw new Broken(1, "a PING without time");
    if (type === PING) send(jsonMessage(PONG, 0, { time: json["time"], clock: nanoseconds() }));
    if (type === ERROR) fail(new Error(`the server: error ${json["error"]}, ${json["message"]}`));
  };

  const onBytes = () => {
    if (!isPrefaceRead) {
      const start = received.subarray(0, PREFACE.length);
      if (!start.equals(PREFACE.subarray(0, start.length))) {
        // This peer does not speak FRAMES/1, so it would not understand an ERROR.
        throw new Error(`no FRAMES/1 server: it began with ${JSON.stringify(start.toString())}`);
      }
      if (start.length < PREFACE.length) return;
      received = received.subarray(PREFACE.length);
      isPrefaceRead = true;
    }
    while (received.length >= HEADER && !trouble) {
      const type = received.readUInt8(0);
      const flags = received.readUInt8(1);
      const length = received.readUInt32BE(4);
      if (length > LIMIT) throw new Broken(1, `a body of ${length} bytes`);
      // The server sends no frames, so MORE is as invalid as an unknown flag.
      if ((flags & ~OPTIONAL) !== 0) throw new Broken(1, `flags ${flags} on type ${type}`);
      const isKnown = type >= 1 && type <= LAST_KNOWN;
      if (!isKnown && flags !== OPTIONAL) throw new Broken(1, `unknown type ${type}`);
      if (received.length < HEADER + length) return;
      const body = received.subarray(HEADER, HEADER + length);
      const crc = crc32(body, crc32(received.subarray(0, 8)));
      if (crc !== received.readUInt32BE(8)) throw new Broken(4, `a damaged message, type ${type}`);
      const source = received.readUInt16BE(2);
      received = received.subarray(HEADER + length);
      if (isKnown) onMessage(type, source, body);
    }
  };

  socket.on("connect", () => {
    isConnected = true;
    wake();
  });
  socket.on("data", (chunk: Buffer) => {
    lastHeard = performance.now();
    if (trouble) return;
    received = received.length > 0 ? Buffer.concat([received, chunk]) : chunk;
    try {
      onBytes();
    } catch (error) {
      fail(error as Error);
    }
    wake();
  });
  socket.on("drain", () => wake());
  socket.on("error", (error) => fail(error));
  for (const event of ["end", "close"]) {
    socket.on(event, () => {
      if (!outcome) fail(new Error("the server closed the connection before DONE"));
    });
  }

  const heartbeat = setInterval(() => {
    const now = performance.now();
    if (!welcome) return;
    if (now - lastHeard > GONE_AFTER) fail(new Broken(5, "the server has been silent for 30 s"));
    else if (now - lastSent > QUIET) send(jsonMessage(PING, 0, { time: nanoseconds() }));
  }, 1000);

  const sendFrame = async (frame: Delivery["frames"][number], sequence: number) => {
    const size = frame.bytes.length;
    const name = Buffer.from(frame.name);
    if (name.length < 1 || name.length > 255)
      throw new Error(`the name "${frame.name}" is no name`);
    const { bytes, frames } = welcome ?? { bytes: 0, frames: 0 };
    const cost = Math.min(size, Math.floor(bytes / 2));
    await until("room in the window", PROGRESS_WITHIN, () => {
      return open.length < frames && openCost + cost <= bytes;
    });
    open.push({ sequence, cost });
    openCost += cost;

    let crc = 0;
    let sent = 0;
    let isFirst = true;
    while (isFirst || sent < size) {
      const description = Buffer.alloc(isFirst ? 32 : 4);
      const overhead = isFirst ? description.length + name.length : description.length;
      const payload = frame.bytes.subarray(sent, sent + LIMIT - overhead);
      crc = crc32(payload, crc);
      sent += payload.length;
      description.writeUInt32BE(crc, isFirst ? 24 : 0);
      if (isFirst) {
        description.writeBigUInt64BE(BigInt(sequence), 0);
        description.writeBigInt64BE(frame.captured, 8);
        description.writeBigUInt64BE(BigInt(size), 16);
        description.writeUInt16BE(name.length, 28);
      }
      const covered = isFirst ? Buffer.concat([description, name]) : description;
      const flags = sent < size ? MORE : 0;
      const length = covered.length + payload.length;
      // Counted before the last write, because the RECEIPT may arrive during the wait below.
      if (sent === size) ended++;
      send(heading(isFirst ? FRAME : DATA, flags, SOURCE_ID, covered, length), payload);
      isFirst = false;
      await until("the server's reading", PROGRESS_WITHIN, () => !socket.writableNeedDrain);
    }
  };

  try {
    await until("the connection", WELCOME_WITHIN, () => isConnected);
    const session = randomBytes(16).toString("hex");
    const hello = { role: "send", session, stream: delivery.stream, software: "second client" };
    send(PREFACE, jsonMessage(HELLO, 0, hello));
    await until("WELCOME", WELCOME_WITHIN, () => welcome !== undefined);
    send(jsonMessage(SOURCE, SOURCE_ID, { name: delivery.source }));
    for (const [index, frame] of delivery.frames.entries()) await sendFrame(frame, index + 1);
    isEndSent = true;
    send(jsonMessage(END, 0, { frames: ended }));
    const confirmed = () => outcome;
    while (!confirmed()) {
      // DONE may take long while receipts still arrive.
      const before = settled;
      await until("DONE", PROGRESS_WITHIN, () => confirmed() !== undefined || settled > before);
    }
    return confirmed() as Outcome;
  } catch (error) {
    if (error instanceof Broken && isConnected && !socket.destroyed) {
      send(jsonMessage(ERROR, 0, { error: error.number, message: error.message }));
    }
    throw error;
  } finally {
    clearInterval(heartbeat);
    await close();
  }

  /** Ends the sending side, flushes it, and waits up to 2 s for the server to close. */
  async function close() {
    if (socket.destroyed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 2000);
      for (const event of ["end", "close"]) {
        socket.once(event, () => {
          clearTimeout(timer);
          resolve();
        });
      }
      socket.end();
      if (socket.readableEnded || !isConnected) {
        clearTimeout(timer);
        resolve();
      }
    });
    socket.destroy();
  }
}

if (import.meta.main) {
  const [host, port, stream, ...files] = process.argv.slice(2);
  if (!host || !port || !stream || files.length === 0) {
    console.error("usage: bun test/helper/second-client.ts HOST PORT STREAM FILE...");
    process.exit(2);
  }
  try {
    const frames = files.map((file) => {
      const captured = statSync(file, { bigint: true }).mtimeNs;
      return { name: basename(file), bytes: readFileSync(file), captured };
    });
    const source = "second-client";
    const outcome = await deliver({ host, port: Number(port), stream, source, frames });
    console.log(JSON.stringify(outcome));
    if (outcome.refused > 0) process.exitCode = 1;
  } catch (error) {
    console.error(`not delivered: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
