// Foxglove's WebSocket protocol: what its own client and others see of live sources.
//
// Covers: http/picture/frame-subscription.ts, http/stream-socket.ts

import type { ServerWebSocket } from "bun";
import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { connect, type Socket } from "node:net";
import type { RawShape } from "../../../src/frame.ts";
import { runAtOnce } from "../../../src/common/work-queue.ts";
import { fullAccess } from "../../../src/http/auth/access.ts";
import type { HttpContext } from "../../../src/http/context.ts";
import { LiveSources } from "../../../src/http/live/live-sources.ts";
import { chooseSubprotocol, FoxgloveSocket } from "../../../src/http/routes/foxglove-socket.ts";
import { StreamClients } from "../../../src/http/stream-clients.ts";
import { pgm } from "../../helper/camera.ts";
import { FoxgloveViewer } from "../../helper/foxglove.ts";
import { groupLength, makeClip } from "../../helper/encoded-video.ts";
import { needs as needsFfmpeg } from "../../helper/ffmpeg.ts";
import { bringPackages, foxglovePackages } from "../../helper/npm-packages.ts";
import { until } from "../../helper/time.ts";
import { Camera, jpeg, startViewed, type Viewed } from "../../helper/viewing.ts";

const { load, needs } = bringPackages(foxglovePackages);

interface AdvertisedChannel {
  readonly id: number;
  readonly topic: string;
  readonly schemaName: string;
  readonly schema: string;
}

/** Decodes a message by the schema that its channel advertises, as viewers do. */
function decoderOf({ schema, schemaName }: AdvertisedChannel): (message: Uint8Array) => any {
  const { Root } = load!("protobufjs");
  const { FileDescriptorSet } = load!("protobufjs/ext/descriptor");
  const root = Root.fromDescriptor(FileDescriptorSet.decode(Uint8Array.fromBase64(schema)));
  const type = root.resolveAll().lookupType(schemaName);
  return (message) => type.toObject(type.decode(message), { defaults: true, longs: String });
}

test.skipIf(needsFfmpeg !== "")(
  `${needsFfmpeg}a viewer gets all pictures of a video in their order, from a key frame on`,
  async () => {
    await using viewed = await startViewed();
    const clip = await makeClip("h264", 3 * groupLength);
    const camera = new Camera(viewed.server, "run7", "gate");
    const give = (from: number, to: number) => {
      for (const unit of clip.units.slice(from, to)) {
        camera.give(unit, `${camera.count + 1}.h264`);
      }
    };
    give(0, groupLength + 2);
    await camera.arrived();
    using viewer = new FoxgloveViewer(`${viewed.server.http}/foxglove?stream=run7`);
    const channel = await viewer.subscribe("/gate", 7);
    expect(channel.schemaName).toBe("foxglove.CompressedVideo");
    give(groupLength + 2, 3 * groupLength);
    const expected = clip.units.slice(groupLength);
    await until("the pictures", () => viewer.data.length === expected.length);
    for (const [index, { message }] of viewer.data.entries()) {
      const unit = expected[index]!;
      expect([index, message.subarray(-unit.length).equals(unit)]).toEqual([index, true]);
    }
    await camera.end();
  },
);

test(`${needs}Foxglove's own client sees two live sources and decodes 100 pictures of each`, async () => {
  if (load === undefined) return;
  await using viewed = await startViewed();
  const cameras = new Map([
    ["/gate", new Camera(viewed.server, "run7", "gate")],
    ["/site/depth", new Camera(viewed.server, "run7", "site/depth")],
  ]);
  const pictures = new Map([
    ["/gate", await Promise.all(Array.from({ length: 100 }, (_, shade) => jpeg(shade * 2)))],
    ["/site/depth", Array.from({ length: 100 }, (_, number) => pgm(number))],
  ]);
  const shoot = (topic: string) => {
    const camera = cameras.get(topic)!;
    const extension = topic === "/gate" ? "jpg" : "pgm";
    const captured = BigInt(camera.count) * 1_000_000_007n - 5n;
    const bytes = pictures.get(topic)![camera.count]!;
    camera.give(bytes, `${camera.count + 1}.${extension}`, captured);
  };
  const { FoxgloveClient } = load("@foxglove/ws-protocol");
  const address = `ws://${viewed.server.http}/foxglove?stream=run7`;
  const socket = new WebSocket(address, [FoxgloveClient.SUPPORTED_SUBPROTOCOL]);
  const client = new FoxgloveClient({ ws: socket });
  const failures: unknown[] = [];
  const seen = new Map<string, any[]>();
  const subscribed = new Map<number, (message: Uint8Array) => void>();
  client.on("error", (error: unknown) => failures.push(error));
  client.on("status", (status: unknown) => failures.push(status));
  client.on("advertise", (channels: AdvertisedChannel[]) => {
    for (const channel of channels) {
      const decode = decoderOf(channel);
      const list: any[] = [];
      seen.set(channel.topic, list);
      subscribed.set(client.subscribe(channel.id), (message) => {
        list.push({ schema: channel.schemaName, ...decode(message) });
        if (list.length < 100) shoot(channel.topic);
      });
    }
  });
  client.on("message", ({ subscriptionId, timestamp, data }: any) => {
    expect(Number(timestamp / 1_000_000n)).toBeWithin(Date.now() - 600_000, Date.now() + 1);
    subscribed.get(subscriptionId)!(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  });
  for (const topic of cameras.keys()) shoot(topic);
  await until("100 pictures of each", () => {
    return seen.size === 2 && [...seen.values()].every((list) => list.length === 100);
  });
  expect(failures).toEqual([]);
  for (const [topic, list] of seen) {
    const isImage = topic === "/gate";
    list.forEach((message, index) => {
      expect(message).toMatchObject({
        schema: isImage ? "foxglove.CompressedImage" : "frames.Frame",
        frame_id: topic.slice(1),
        name: `${index + 1}.${isImage ? "jpg" : "pgm"}`,
        number: `${index + 1}`,
        captured: `${BigInt(index) * 1_000_000_007n - 5n}`,
      });
      expect(Buffer.from(message.data).equals(pictures.get(topic)![index]!)).toBe(true);
    });
  }
  client.close();
  for (const camera of cameras.values()) await camera.end();
});

test("the topics of all streams have the stream's name, and an address may name one stream", async () => {
  await using viewed = await startViewed();
  const first = new Camera(viewed.server, "run7", "site/gate");
  await first.store(await jpeg());
  using all = new FoxgloveViewer(viewed.server.http!);
  using one = new FoxgloveViewer(`${viewed.server.http}/foxglove?stream=night%201`);
  using none = new FoxgloveViewer(`${viewed.server.http}/foxglove?stream=other`);
  await all.channel("/run7/site/gate");
  expect(all.socket.protocol).toBe("foxglove.websocket.v1");
  expect(all.texts[0]).toMatchObject({ op: "serverInfo", capabilities: [] });
  const second = new Camera(viewed.server, "night 1", "x");
  await second.store(await jpeg());
  await all.channel("/night 1/x");
  await one.channel("/x");
  expect([one.topics, none.topics]).toEqual([["/x"], []]);
  await first.end();
  await second.end();
});

test("a request that names no known subprotocol is refused, and one without an upgrade too", async () => {
  await using viewed = await startViewed();
  expect((await viewed.get("/foxglove")).status).toBe(426);
  const headers = { Upgrade: "websocket", Connection: "Upgrade", "Sec-WebSocket-Version": "13" };
  const key = { "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==" };
  for (const named of [{}, { "Sec-WebSocket-Protocol": "mqtt, foxglove.websocket.v9" }]) {
    const socket = await rawRequest(viewed, { ...headers, ...key, ...named });
    await until("an answer", () => socket.text.length > 0);
    expect(socket.text).toStartWith("HTTP/1.1 400");
    socket.close();
  }
  expect(chooseSubprotocol("a, foxglove.sdk.v1 ,foxglove.websocket.v1")).toBe("foxglove.sdk.v1");
});

describe("slow and hostile clients", () => {
  test("a client that reads nothing delays neither receipts nor another client, and then gets the newest frame", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run7", "gate");
    await camera.store(pgm(1), "1.pgm");
    using viewer = new FoxgloveViewer(viewed.server.http!);
    const { id } = await viewer.subscribe("/run7/gate", 1);
    const slow = await rawRequest(viewed, {
      ...{ Upgrade: "websocket", Connection: "Upgrade", "Sec-WebSocket-Version": "13" },
      ...{ "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==" },
      "Sec-WebSocket-Protocol": "foxglove.sdk.v1",
    });
    await until("the channel", () => slow.text.includes('"op":"advertise"'));
    slow.socket.pause();
    slow.socket.write(textFrame({ op: "subscribe", subscriptions: [{ id: 7, channelId: id }] }));
    const dropped = async () => {
      const text = await (await viewed.get("/metrics")).text();
      return Number(/^frames_viewer_dropped_total (\d+)/m.exec(text)?.[1]);
    };
    const isSeen = (name: string) => viewer.data.some(({ message }) => message.includes(name));
    let count = 1;
    let last = "";
    // Much more than the buffers of the system hold. Each frame is stored and seen by the other.
    for (let round = 0; round < 60; round++) {
      last = `${++count}.pgm`;
      await camera.store(pgm(count, 1_000_000), last);
      await until(last, () => isSeen(last));
    }
    slow.socket.resume();
    await until("the newest frame", () => slow.text.includes(last));
    expect(slow.text.length).toBeLessThan(40_000_000);
    await until("dropped frames", async () => (await dropped()) > 20);
    slow.close();
    await camera.end();
  });

  test("each kind of wrong message is answered with one status, however often it comes", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run7", "gate");
    await camera.store(pgm(1), "1.pgm");
    using viewer = new FoxgloveViewer(viewed.server.http!);
    const channel = await viewer.channel("/run7/gate");
    const wrong: (string | Uint8Array<ArrayBuffer> | object)[] = [
      ...["", "{", "null", "[]", "7", '{"op":"subscribe"}', '{"op":"unsubscribe"}'],
      { op: "subscribe", subscriptions: {} },
      { op: "advertise", channels: [{ id: 1, topic: "/x" }] },
      { op: "subscribeConnectionGraph" },
      { op: "__proto__" },
      new Uint8Array([1, 0, 0, 0, 0, 9]),
      new Uint8Array(65_000),
      {
        op: "subscribe",
        subscriptions: [null, 7, "x", [], {}, { id: 1 }, { id: 1, channelId: 99 }],
      },
      { op: "subscribe", subscriptions: [{ id: 1, channelId: "1" }, { channelId: channel.id }] },
      { op: "subscribe", subscriptions: [{ id: 1, channelId: "__proto__" }] },
      ...[-1, 2 ** 32, 0.5, "1", null].map((id) => ({
        op: "subscribe",
        subscriptions: [{ id, channelId: channel.id }],
      })),
      { op: "unsubscribe", subscriptionIds: [null, {}, 12, "x", -1] },
    ];
    for (let round = 0; round < 50; round++) {
      for (const message of wrong) {
        const isReady = typeof message === "string" || message instanceof Uint8Array;
        viewer.socket.send(isReady ? message : JSON.stringify(message));
      }
    }
    await viewer.subscribe("/run7/gate", 2 ** 32 - 1);
    await until("a frame", () => viewer.data.length > 0);
    expect(viewer.data[0]!.id).toBe(2 ** 32 - 1);
    expect(viewer.of("status").map(({ message }) => message.replace(/[;,].*/, ""))).toEqual([
      "Cannot answer this message: the server understands subscribe and unsubscribe only",
      "Cannot subscribe: there is no such channel",
      "Cannot subscribe: the id or the channel is in use",
    ]);
    const { problems } = await viewed.json("/api/problems");
    expect(problems).toEqual([]);
    await camera.end();
  });

  test("a flood of subscribe and unsubscribe ends with the last state, and a sender does not wait", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run7", "gate");
    await camera.store(pgm(1, 1_000_000), "1.pgm");
    using viewer = new FoxgloveViewer(viewed.server.http!);
    const { id: channelId } = await viewer.channel("/run7/gate");
    for (let round = 1; round <= 20_000; round++) {
      viewer.send({ op: "subscribe", subscriptions: [{ id: round, channelId }] });
      viewer.send({ op: "unsubscribe", subscriptionIds: [round] });
      if (round % 5000 === 0) await camera.store(pgm(round, 1000), `${round}.pgm`);
    }
    viewer.send({ op: "subscribe", subscriptions: [{ id: 30_000, channelId }] });
    await until("the last subscription", () => viewer.data.some(({ id }) => id === 30_000));
    // 20,000 frames of 1 MB would be 20 GB. Subscriptions that ended before their turn get nothing.
    const sent = viewer.data.reduce((sum, { message }) => sum + message.length, 0);
    expect(sent).toBeLessThan(1e9);
    expect(viewer.of("status")).toEqual([]);
    await camera.end();
  });
});

const session = "1".repeat(32);
const closing: (() => void)[] = [];
afterEach(() => closing.splice(0).forEach((close) => close()));

/** Live sources on a fake clock, with a client whose buffer the test fills and drains. */
class World {
  now = 1_700_000_000_000;
  bufferedBytes = 0;
  readonly texts: any[] = [];
  readonly frames: number[] = [];
  readonly socket: FoxgloveSocket;
  readonly sources: LiveSources;
  readonly #ticks: (() => void)[] = [];
  #sequence = 0;

  constructor() {
    const intervals = spyOn(globalThis, "setInterval").mockImplementation(((tick: () => void) => {
      this.#ticks.push(tick);
      return { unref() {} };
    }) as unknown as typeof setInterval);
    this.sources = new LiveSources(() => this.now);
    intervals.mockRestore();
    closing.push(() => this.sources.close());
    const context = {
      liveSources: this.sources,
      newestFrames: {
        newest: async (stats: { newest: { frame: { size: number } }; frames: number }) => {
          const { newest, frames } = stats;
          return { newest, bytes: new Uint8Array(newest.frame.size), serial: frames };
        },
      },
    } as unknown as HttpContext;
    const client = new StreamClients().add("foxglove", fullAccess);
    this.socket = new FoxgloveSocket(client, { context, run: runAtOnce }, "s");
    const webSocket = {
      getBufferedAmount: () => this.bufferedBytes,
      sendText: (text: string) => void this.texts.push(JSON.parse(text)),
      sendBinary: (bytes: Uint8Array) => void this.frames.push(bytes[1]!),
      close: () => {},
    };
    this.socket.onOpen(webSocket as unknown as ServerWebSocket<unknown>);
  }

  store(source: string, { extension = "jpg", raw }: { extension?: string; raw?: RawShape } = {}) {
    const size = raw === undefined ? 3 : raw.width * raw.height;
    const sequence = ++this.#sequence;
    const captured = BigInt(this.now) * 1_000_000n;
    const frame = { name: `${sequence}.${extension}`, sequence, size, captured, metadata: "" };
    const info = { stream: "s", source, session, ...(raw === undefined ? {} : { raw }) };
    this.sources.recorder(info).recordStored(frame, 1);
    this.sources.onFlushed();
  }

  /** Lets a second pass, and the work that it causes. */
  async pass(): Promise<void> {
    this.now += 1000;
    for (const tick of this.#ticks) tick();
    await settle();
  }

  subscribe(id: number, channelId: number): void {
    this.socket.onMessage(JSON.stringify({ op: "subscribe", subscriptions: [{ id, channelId }] }));
  }

  /** Ops of the messages since the last call, with topics or ids. */
  changes(): unknown[] {
    return this.texts.splice(0).map(({ op, channels, channelIds }) => {
      const list = channels?.map(({ id, schemaName }: any) => [id, schemaName]);
      return [op, ...(list ?? channelIds ?? [])];
    });
  }
}

/** Waits until the promises of a client have run. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("channels", () => {
  test("a source whose schema changes gets a new channel, and another shape of raw frames does not", async () => {
    const world = new World();
    expect(world.changes()).toEqual([["serverInfo"]]);
    world.store("a", { extension: "raw", raw: { width: 4, height: 2, format: "gray" } });
    await world.pass();
    expect(world.changes()).toEqual([["advertise", [1, "foxglove.RawImage"]]]);
    world.subscribe(5, 1);
    await settle();
    world.store("a", { extension: "raw", raw: { width: 2, height: 2, format: "gray" } });
    await settle();
    await world.pass();
    expect([world.changes(), world.frames]).toEqual([[], [5, 5]]);
    world.store("a");
    await settle();
    // A message of another schema is not sent in the channel.
    expect(world.frames).toEqual([5, 5]);
    await world.pass();
    expect(world.changes()).toEqual([
      ["unadvertise", 1],
      ["advertise", [2, "foxglove.CompressedImage"]],
    ]);
    world.subscribe(5, 2);
    await settle();
    expect(world.frames).toEqual([5, 5, 5]);
  });

  test("a source that the server forgets is taken back, and its subscription with it", async () => {
    const world = new World();
    world.store("a");
    await world.pass();
    world.changes();
    for (let index = 0; index < 2000; index++) {
      world.now++;
      world.store(`other ${index}`);
    }
    await world.pass();
    await until("all channels", () => world.texts.at(-1).channels.at(-1).id === 2001);
    const [first, ...others] = world.changes();
    expect(first).toEqual(["unadvertise", 1]);
    expect(others.map((change) => (change as unknown[]).length)).toEqual(Array(20).fill(101));
    world.subscribe(1, 1);
    expect(world.texts.map(({ op }) => op)).toEqual(["status"]);
  });

  test("a client that reads nothing gets no more channels, and all that exist once it reads", async () => {
    const world = new World();
    await world.pass();
    world.changes();
    world.bufferedBytes = 1;
    for (let index = 0; index < 150; index++) world.store(`${index}`);
    for (let second = 0; second < 100; second++) await world.pass();
    expect(world.changes()).toEqual([]);
    world.bufferedBytes = 0;
    world.socket.onDrain();
    await settle();
    await settle();
    expect(world.changes().map((change) => (change as unknown[]).length)).toEqual([101, 51]);
  });

  test("64 subscriptions are the limit, and ending one makes room", async () => {
    const world = new World();
    for (let index = 1; index <= 65; index++) world.store(`${index}`);
    await world.pass();
    for (let index = 1; index <= 65; index++) world.subscribe(index, index);
    await settle();
    expect(world.frames.toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 64 }, (_, index) => index + 1),
    );
    expect(world.texts.at(-1)).toMatchObject({ op: "status", level: 1 });
    world.socket.onMessage('{"op":"unsubscribe","subscriptionIds":[3]}');
    world.subscribe(65, 65);
    world.store("3");
    await settle();
    expect([world.frames.at(-1), world.frames.length]).toEqual([65, 65]);
  });
});

/** A connection with what came over it. */
interface RawConnection {
  readonly socket: Socket;
  readonly text: string;
  close(): void;
}

/** Requests `/foxglove` over a bare connection. */
async function rawRequest(viewed: Viewed, headers: Record<string, string>): Promise<RawConnection> {
  const [host, port] = viewed.server.http!.split(":");
  const socket = connect({ host, port: Number(port) });
  const chunks: string[] = [];
  socket.setEncoding("latin1");
  socket.on("error", () => {});
  socket.on("data", (chunk: string) => chunks.push(chunk));
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET /foxglove HTTP/1.1\r\nHost: ${viewed.server.http}\r\n${lines.join("")}\r\n`);
  return {
    socket,
    get text() {
      if (chunks.length > 1) chunks.splice(0, Infinity, chunks.join(""));
      return chunks[0] ?? "";
    },
    close: () => void socket.destroy(),
  };
}

/** Encodes a short text message of a WebSocket client, with a mask of zeros. */
function textFrame(message: object): Buffer {
  const text = Buffer.from(JSON.stringify(message));
  return Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]);
}
