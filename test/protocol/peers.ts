/** Peers that build raw messages, so that a test can send anything, valid or not. */
import { expect } from "bun:test";
import { FramesError } from "../../src/errors.ts";
import type { ReceiverLimits } from "../../src/protocol/receive/receiver-events.ts";
import { encodeControl } from "../../src/wire/encode.ts";
import {
  type Hello,
  MessageType,
  type SourceDeclaration,
  type Welcome,
} from "../../src/wire/messages.ts";
import { decodeAll } from "../wire/oracle.ts";
import { type DecodedMessage, type JsonMessage, message, type } from "../wire/vectors.ts";
import { grants, hello, Link, MemoryStore, type Said } from "./memory.ts";
import { ServerEnd, type ServerEndEvents } from "./server-end.ts";

/** Returns the default limits of a receiver with some fields replaced. */
export function grant(
  window: Partial<ReceiverLimits["window"]>,
  limits: Partial<ReceiverLimits["limits"]> = {},
) {
  return { window: { ...grants.window, ...window }, limits: { ...grants.limits, ...limits } };
}

/** Returns the JSON of a message. */
export function json(said: Said | DecodedMessage): Record<string, unknown> {
  return (("at" in said ? said.message : said) as JsonMessage).json as Record<string, unknown>;
}

/** Returns the messages of these types. */
export function of(said: Said[], ...types: number[]): Said[] {
  return said.filter(({ message }) => types.includes(message.type));
}

/** Runs a whole delivery, which must succeed. */
export async function deliver(options: ConstructorParameters<typeof Link>[0]): Promise<Link> {
  const link = await new Link(options).run();
  if (link.senderError !== undefined) throw link.senderError;
  if (link.receiverError !== undefined) throw link.receiverError;
  expect(link.sender.done).toBeDefined();
  expect(link.store.writers).toBe(0);
  link.check();
  return link;
}

/** Builds messages that may break any rule. */
export class Peer {
  json(number: number, source: number, object: object): Buffer {
    const body = Buffer.from(JSON.stringify(object)).toString("hex");
    return Buffer.from(message({ type: number, flags: 0, source }, body), "hex");
  }

  source(id: number, name = "a", fields: Partial<SourceDeclaration> = {}): Buffer {
    return this.json(type.SOURCE, id, { name, ...fields });
  }

  frame(
    source: number,
    fields: {
      sequence?: number;
      name?: string;
      payload?: Buffer;
      size?: number;
      more?: boolean;
      isKey?: boolean;
    } = {},
  ): Buffer {
    const { sequence = 1, name = "f", payload = Buffer.alloc(0), more = false } = fields;
    const flags = Number(more) | (fields.isKey === true ? 0x02 : 0);
    const { size = payload.length } = fields;
    const fixed = Buffer.alloc(32);
    fixed.writeBigUInt64BE(BigInt(sequence), 0);
    fixed.writeBigUInt64BE(BigInt(size), 16);
    fixed.writeUInt32BE(Bun.hash.crc32(payload), 24);
    fixed.writeUInt16BE(Buffer.byteLength(name), 28);
    const covered = Buffer.concat([fixed, Buffer.from(name)]).toString("hex");
    const heading = { type: type.FRAME, flags, source };
    const length = covered.length / 2 + payload.length;
    return Buffer.concat([Buffer.from(message(heading, covered, "", length), "hex"), payload]);
  }

  data(source: number, before: Uint8Array, payload: Uint8Array, more: boolean): Buffer {
    const covered = Bun.hash
      .crc32(Buffer.concat([before, payload]))
      .toString(16)
      .padStart(8, "0");
    const heading = { type: type.DATA, flags: Number(more), source };
    return Buffer.concat([
      Buffer.from(message(heading, covered, "", 4 + payload.length), "hex"),
      payload,
    ]);
  }
}

/** A raw client connected to a receiver. */
export class Client extends Peer {
  readonly store: MemoryStore;
  readonly receiver: ServerEnd;
  now = 0;

  constructor(
    granted: ReceiverLimits = grants,
    store = new MemoryStore(),
    events: Partial<ServerEndEvents> = {},
    timeout = 30_000,
  ) {
    super();
    this.store = store;
    this.receiver = new ServerEnd(store, granted, timeout, this.now, {
      onHello: () => ({ fresh: true }),
      onError: () => {},
      ...events,
    });
  }

  hello(fields: Partial<Hello> = {}): Buffer {
    return Buffer.concat([
      Buffer.from("FRAMES/1"),
      this.json(type.HELLO, 0, { ...hello, ...fields }),
    ]);
  }

  /** Sends HELLO and expects WELCOME. */
  greet(fields: Partial<Hello> = {}): void {
    this.says(this.hello(fields));
    expect(this.heard().map((heard) => heard.type)).toEqual([type.WELCOME]);
  }

  /**
   * Passes bytes to the receiver. Returns the code of the error they cause, which is also reported
   * back to the receiver.
   */
  says(...parts: Uint8Array[]): string | undefined {
    try {
      for (const part of parts) this.receiver.receive(part, this.now);
      return undefined;
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      this.receiver.fail(error);
      return error.code;
    }
  }

  /** Passes bytes to the receiver, and waits until it has processed them. */
  async saysAll(...parts: Uint8Array[]): Promise<string | undefined> {
    for (const part of parts) {
      const code = this.says(part);
      if (code !== undefined) return code;
      while (this.receiver.isPaused) await Promise.resolve();
    }
    return undefined;
  }

  /** Returns the messages received since the last call. */
  heard(): DecodedMessage[] {
    let bytes: Uint8Array = Buffer.concat(this.receiver.drain(this.now));
    if (Buffer.from(bytes.subarray(0, 8)).toString() === "FRAMES/1") bytes = bytes.subarray(8);
    const decoded = decodeAll(bytes);
    if (decoded.error !== undefined) throw new Error(`the oracle refuses it: ${decoded.error}`);
    expect(decoded.consumed).toBe(bytes.length);
    return decoded.messages;
  }
}

/** A raw server connected to a sender. */
export class Server extends Peer {
  welcome(granted: Welcome = grants): Uint8Array {
    return Buffer.concat([Buffer.from("FRAMES/1"), encodeControl(MessageType.welcome, 0, granted)]);
  }

  receipt(frames: number): Buffer {
    const body = frames.toString(16).padStart(16, "0");
    return Buffer.from(message({ type: type.RECEIPT, flags: 0, source: 0 }, body), "hex");
  }
}
