// A server that sends stored frames and a client that receives them, in memory, with chunks of any
// size.
//
// Covers: protocol/handshake.ts, protocol/playback/cursor-reports.ts,
//   protocol/playback/playback.ts, protocol/playback/source-ids.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import type { Frame } from "../../../src/frame.ts";
import { ClientHandshake } from "../../../src/protocol/handshake.ts";
import { PlaybackSender } from "../../../src/protocol/playback/playback-sender.ts";
import type { ReceiverEvent } from "../../../src/protocol/receive/receiver-events.ts";
import { Receiver } from "../../../src/protocol/receive/receiver.ts";
import { ServerEnd } from "../server-end.ts";
import { SourceIds } from "../../../src/protocol/playback/source-ids.ts";
import type {
  PlaybackSource,
  PlaybackItem,
  PlaybackFrame,
  Playback,
} from "../../../src/protocol/playback/playback.ts";
import { outgoingBufferBytes, WriteBatch } from "../../../src/protocol/send/write-batch.ts";
import type { Hello } from "../../../src/wire/messages.ts";
import { decodeAll } from "../../wire/oracle.ts";
import { type DecodedMessage, type } from "../../wire/vectors.ts";
import {
  type Chunker,
  everyByte,
  grants,
  hello,
  MemoryFrame,
  MemoryStore,
  randomly,
  whole,
} from "../memory.ts";

/** A key frame of H.264. */
const key = Uint8Array.fromHex("0000000165881122");

const origin = (source: string, session = "a".repeat(32)): PlaybackSource => ({
  name: source,
  session,
  raw: undefined,
});

/** Plays back a list of frames in order, with positions from 1. */
class ListSupply implements Playback {
  readonly items: PlaybackItem[];
  isBusy = false;
  position = 0;
  isOpen: boolean;

  constructor(items: PlaybackItem[], isOpen = false) {
    this.items = items;
    this.isOpen = isOpen;
  }

  get isEnded(): boolean {
    return !this.isOpen && this.items.length === 0;
  }

  next(): PlaybackItem | undefined {
    return this.items.shift();
  }

  onReadError(
    { source: origin, position, cursor, frame }: PlaybackFrame,
    error: FramesError,
  ): PlaybackItem {
    const { sequence, name } = frame;
    if (error.code === "vanished")
      return { type: "gone", source: origin, position, cursor, sequence, name };
    return {
      type: "lost",
      source: origin,
      position,
      cursor,
      first: sequence,
      last: sequence,
      error,
    };
  }
}

function item(position: number, frame: Frame, whose = origin("a")): PlaybackFrame {
  return { type: "frame", source: whose, position, cursor: `c${position}`, frame };
}

/** A frame that cannot be read. */
class LostFrame extends MemoryFrame {
  readonly #code: "vanished" | "unreadable";

  constructor(sequence: number, size: number, code: "vanished" | "unreadable") {
    super(sequence, size);
    this.#code = code;
  }

  override read(): void {
    throw new FramesError(this.#code);
  }

  // oxlint-disable-next-line require-yield
  override async *pieces(): AsyncGenerator<Uint8Array, undefined> {
    throw new FramesError(this.#code);
  }
}

/**
 * A server that sends, as `AdmissionRole` and `PlaybackRole` do, and a client that
 * receives.
 */
class Pair {
  readonly store = new MemoryStore();
  readonly server: ServerEnd;
  readonly client: Receiver;
  provider: PlaybackSender | undefined;
  readonly told: string[] = [];
  readonly said: Uint8Array[] = [];
  error: FramesError | undefined;
  now = 1_700_000_000_000;
  readonly #chunker: Chunker;
  readonly #buffer = new Uint8Array(outgoingBufferBytes);

  constructor(supply: Playback, fields: Partial<Hello> = {}, chunker: Chunker = whole) {
    this.#chunker = chunker;
    const wished: Hello = { ...hello, role: "receive", ...fields };
    this.server = new ServerEnd(new MemoryStore(), grants, 30_000, this.now, {
      onHello: () => ({ fresh: false, identity: "i" }),
      onReceiver: (client) => {
        this.provider = new PlaybackSender(client, supply, 30_000, this.now, () => {});
        this.provider.start();
      },
    });
    const events = {
      onEvent: (event: ReceiverEvent) => {
        if (event.type === "gone") this.told.push(`gone ${event.source} ${event.sequence}`);
        if (event.type === "lost")
          this.told.push(`${event.error.code} ${event.source} ${event.ranges.join(" ")}`);
        if (event.type === "cursor") this.told.push(`${event.cursor} after ${event.endedFrames}`);
      },
    };
    const greeting = new ClientHandshake(wished, undefined);
    this.client = new Receiver({
      ...events,
      store: this.store,
      grants,
      timeoutMs: 30_000,
      now: this.now,
      peer: greeting,
    });
    this.client.onConnected(this.now, undefined);
  }

  /** Passes bytes of the client to whichever server machine is active. */
  #up(): boolean {
    const bytes = Buffer.concat(this.client.drain(this.now));
    for (const chunk of this.#chunker(bytes)) {
      if (this.provider === undefined) this.server.receive(chunk, this.now);
      else this.provider.receive(chunk, this.now);
    }
    return bytes.length > 0;
  }

  #down(): boolean {
    let bytes: Uint8Array = Buffer.concat(this.server.drain(this.now));
    if (bytes.length === 0 && this.provider !== undefined) {
      const out = new WriteBatch(this.#buffer);
      this.provider.transmit(out, this.now);
      bytes = Buffer.concat([out.bytes, out.piece ?? new Uint8Array(0)]);
    }
    if (bytes.length > 0) this.said.push(bytes);
    for (const chunk of this.#chunker(bytes)) this.client.receive(chunk, this.now);
    return bytes.length > 0;
  }

  /** Runs until neither side has anything to send. */
  async run(): Promise<this> {
    try {
      for (let idle = 0; idle < 5;) {
        const isBusy = [this.#up(), this.#down()].includes(true);
        // Pieces are read in the meantime.
        await new Promise((resolve) => setImmediate(resolve));
        this.client.ack(this.now);
        idle = isBusy ? 0 : idle + 1;
      }
    } catch (error) {
      if (!(error instanceof FramesError)) throw error;
      this.error = error;
    }
    return this;
  }

  get received(): string[] {
    return this.store.frames.map(({ origin: { source, session }, description: { sequence } }) => {
      return `${source} ${session[0]} ${sequence}`;
    });
  }

  /** Messages sent by the server. */
  get messages(): DecodedMessage[] {
    const decoded = decodeAll(Buffer.concat(this.said).subarray(8), true);
    if (decoded.error !== undefined) throw new Error(`the oracle refuses it: ${decoded.error}`);
    return decoded.messages;
  }
}

function mixed(): PlaybackItem[] {
  const other = origin("b", "b".repeat(32));
  return [
    item(1, new MemoryFrame(1, 100)),
    item(2, new MemoryFrame(1, 3_000_000), other),
    item(3, new MemoryFrame(2, 0)),
    item(4, new LostFrame(3, 50, "vanished")),
    item(5, new LostFrame(2, 2_000_000, "unreadable"), other),
    item(6, new MemoryFrame(3, 2_500_000), other),
    item(7, new LostFrame(4, 2_500_000, "vanished"), other),
    item(8, new MemoryFrame(5, 1_500_000), other),
    item(
      9,
      new MemoryFrame(1, 70, { name: "g1", metadata: '{"a":1}' }),
      origin("a", "c".repeat(32)),
    ),
  ];
}

describe("a receiving client", () => {
  const chunkers: [string, Chunker][] = [
    ["in one piece", whole],
    ["in pieces of any length", randomly((end) => (end * 7919) % end || end >> 1, 50_000)],
  ];
  for (const [what, chunker] of chunkers) {
    test(`a client receives every frame, GONE and LOST in order when bytes come ${what}`, async () => {
      const pair = await new Pair(new ListSupply(mixed()), {}, chunker).run();
      expect(pair.error).toBeUndefined();
      expect(pair.received).toEqual(["a a 1", "b b 1", "a a 2", "b b 3", "b b 5", "a c 1"]);
      expect(pair.told.filter((line) => !line.startsWith("c"))).toEqual([
        "gone a 3",
        "unreadable b 2,2",
        "gone b 4",
      ]);
      // The last position is past all frames and is sent before END.
      expect(pair.told.at(-1)).toMatch(/^c9 after \d+$/);
      expect(pair.client.isDone).toBe(true);
      expect(pair.provider!.isDone).toBe(true);
      expect(pair.provider!.counts).toMatchObject({ frames: 6, gone: 2, unread: 1, dropped: 0 });
      expect(pair.provider!.position).toBe(9);
      expect(pair.messages.at(-1)!.type).toBe(type.END);
    });
  }

  test("a client receives every frame in order when bytes come one at a time", async () => {
    const items = () => [1, 2, 3].map((number) => item(number, new MemoryFrame(number, 50)));
    const pair = await new Pair(new ListSupply(items()), {}, everyByte).run();
    expect(pair.received).toEqual(["a a 1", "a a 2", "a a 3"]);
    expect(pair.provider!.isDone).toBe(true);
    expect(pair.told).toEqual(["c3 after 3"]);
  });

  test("a client receives only as many frames as its HELLO asks for with `first`", async () => {
    const items = Array.from({ length: 9 }, (_, at) => item(at + 1, new MemoryFrame(at + 1, 9)));
    const pair = await new Pair(new ListSupply(items, true), { first: 4, follow: true }).run();
    expect(pair.received).toHaveLength(4);
    expect(pair.told).toEqual(["c4 after 4"]);
    expect(pair.provider!.isDone).toBe(true);
  });

  test("a client receives no frame over its limit, and no more at a time than its window", async () => {
    const items = Array.from({ length: 9 }, (_, at) => item(at + 1, new MemoryFrame(at + 1, 9)));
    items.splice(4, 0, item(10, new MemoryFrame(10, 11)));
    const fields = { limits: { frame: 10 }, window: { bytes: 1e6, frames: 2 } };
    const pair = await new Pair(new ListSupply(items), fields).run();
    expect(pair.received).toHaveLength(9);
    expect(pair.told).toContain("too-large a 10,10");
    let frames = 0;
    for (const part of pair.said.slice(1)) {
      const { messages } = decodeAll(part);
      const some = messages.filter((message) => message.type === type.FRAME).length;
      expect(some).toBeLessThanOrEqual(2);
      frames += some;
    }
    expect(frames).toBe(9);
  });

  test("a client receives a CURSOR every 256 frames, and no END while more frames may come", async () => {
    const count = 1000;
    const items = Array.from({ length: count }, (_, at) =>
      item(at + 1, new MemoryFrame(at + 1, 1)),
    );
    const pair = new Pair(new ListSupply(items, true), { follow: true });
    await pair.run();
    expect(pair.received).toHaveLength(count);
    expect(pair.told).toEqual(["c256 after 256", "c512 after 512", "c768 after 768"]);
    pair.now += 1000;
    pair.provider!.tick(pair.now);
    await pair.run();
    expect(pair.told.at(-1)).toBe("c1000 after 1000");
    expect(pair.client.isDone).toBe(false);
  });

  for (const features of [["video"], []]) {
    test(`encoded video has its type, and the flag KEY with the features [${features.join()}]`, async () => {
      const video = { ...origin("v"), type: "video/h264" };
      const items = [
        item(1, new MemoryFrame(1, key, { name: "1.h264", isKey: true }), video),
        item(2, new MemoryFrame(2, 5, { name: "2.h264", isKey: false }), video),
        item(3, new MemoryFrame(3, 5), origin("v")),
      ];
      // WELCOME lists it always, as that of a server does.
      const pair = await new Pair(new ListSupply(items), { features }).run();
      expect(pair.error).toBeUndefined();
      const frames = pair.messages.filter((message) => message.type === type.FRAME);
      expect(frames.map(({ flags }) => flags)).toEqual(
        features.length === 0 ? [0, 0, 0] : [2, 0, 0],
      );
      const sources = pair.messages.filter((message) => message.type === type.SOURCE);
      expect(sources.map((source) => "json" in source && source.json)).toMatchObject([
        { name: "v", type: "video/h264" },
        { name: "v" },
      ]);
      const isKeys = pair.store.frames.map(({ description }) => description.isKey);
      expect(isKeys).toEqual([true, false, undefined]);
    });
  }

  test("frames that a client refuses count as refused at both ends", async () => {
    const items = [1, 2, 3].map((number) => item(number, new MemoryFrame(number, 50)));
    items.push(item(4, new MemoryFrame(4, 3_000_000)));
    const supply = new ListSupply(items);
    const pair = new Pair(supply);
    pair.store.options.refuse = ({ sequence }) =>
      sequence % 2 === 0 ? new FramesError("conflict") : undefined;
    await pair.run();
    expect(pair.error).toBeUndefined();
    expect(pair.received).toEqual(["a a 1", "a a 3"]);
    expect(pair.provider!.isDone).toBe(true);
    expect(pair.provider!.counts).toMatchObject({ frames: 2, refused: 2 });
  });

  test("a client that shuts down receives only the frame that has begun", async () => {
    const items = [item(1, new MemoryFrame(1, 3_000_000)), item(2, new MemoryFrame(2, 50))];
    const pair = new Pair(new ListSupply(items), {}, (bytes) => {
      // The client shuts down in the middle of the first frame.
      if (bytes.length > 100_000) pair.client.shutDown();
      return [bytes];
    });
    await pair.run();
    expect(pair.received).toEqual(["a a 1"]);
    expect(pair.client.isShutDown).toBe(true);
    expect(pair.client.unreceipted).toBe(0);
  });

  test("a client with `latest` receives one frame at a time until receipts come", () => {
    const items = Array.from({ length: 9 }, (_, at) => item(at + 1, new MemoryFrame(at + 1, 9)));
    const pair = new Pair(new ListSupply(items, true), { latest: true, follow: true });
    void pair.run();
    const sent = () => pair.provider!.counts.frames;
    expect(pair.provider).toBeDefined();
    expect(sent()).toBeLessThanOrEqual(1);
    expect(items.length).toBeGreaterThanOrEqual(8);
  });
});

test("source ids are reused, least recently used first, when there are more than 1,000 sources", () => {
  const ids = new SourceIds();
  for (let number = 1; number <= 1000; number++) {
    expect(ids.idFor(origin(`s${number}`))).toEqual({ id: number, isNew: true });
  }
  expect(ids.idFor(origin("s1"))).toEqual({ id: 1, isNew: false });
  // Replaces the least recently used id.
  expect(ids.idFor(origin("other"))).toEqual({ id: 2, isNew: true });
  expect(ids.idFor(origin("s2"))).toEqual({ id: 3, isNew: true });
  expect(ids.idFor(origin("s1", "b".repeat(32)))).toEqual({ id: 1, isNew: true });
});
