// MCAP out of a server and in again: what comes back is what went out, and files of others come in.
//
// Covers: client/plan/recording.ts, source/recording/chunk-verifier.ts,
//   source/recording/recording-faults.ts, source/recording/recording-index.ts,
//   source/recording/recording-input.ts, source/recording/recording-source.ts,
//   source/recording/recording.ts

import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  receive,
  type ReceiveEvent,
  send,
  type SendEvent,
  type SendSummary,
  serve,
  type Server,
} from "frames";
import { memoryInput } from "../../src/mcap/cursor.ts";
import { magic, Opcode, RecordWriter } from "../../src/mcap/records.ts";
import { readSummary } from "../../src/mcap/summary.ts";
import { JournalReader } from "../../src/store/journal/journal-reader.ts";
import { expectCode, journal, type Json } from "../helper/delivery.ts";
import { AccessUnitSplitter } from "../../src/video/access-units.ts";
import { isParameterSet, isSlice, nalUnits } from "../../src/video/nal-units.ts";
import { groupLength, makeClip } from "../helper/encoded-video.ts";
import { needs as needsFfmpeg } from "../helper/ffmpeg.ts";
import { bringPackages, mcapPackages } from "../helper/npm-packages.ts";
import { jsonLines, run, temporaryFolder } from "../helper/program.ts";
import { startRelay } from "../helper/relay.ts";
import { until } from "../helper/time.ts";
import { CoreOutput, noise, readable, testFrame, writeFrames } from "../mcap/files.ts";

const { load, needs } = bringPackages(mcapPackages);

interface Started extends AsyncDisposable {
  readonly server: Server;
  readonly folder: string;
  /** Sends a path, and returns what the user sees. */
  send(path: string, options?: object): Promise<{ summary: SendSummary; events: SendEvent[] }>;
  /** Rows of a stream, without what differs between two deliveries. */
  rows(stream: string): Json[];
}

async function start(): Promise<Started> {
  const folder = temporaryFolder();
  const server = await serve(join(folder, "store"), {
    ...{ listen: "127.0.0.1:0", http: "127.0.0.1:0", reserve: 0, maxFrame: 2 ** 32 },
  });
  return {
    server,
    folder,
    async send(path, options = {}) {
      const events: SendEvent[] = [];
      const onEvent = (event: SendEvent) => void events.push(event);
      const summary = await send(path, { to: server.address, onEvent, ...options });
      return { summary, events };
    },
    rows(stream) {
      const reader = new JournalReader(join(folder, "store/.frames/journal.sqlite"));
      const found = reader.allAfter(0, 1e6).filter((row) => row.stream === stream);
      reader.close();
      return found
        .map(({ source, name, sequence, captured, size, crc32, metadata, raw, isKey }) => {
          return { source, name, seq: sequence, captured, size, crc32, metadata, raw, isKey };
        })
        .toSorted((a, b) => (a.source < b.source ? -1 : a.source > b.source ? 1 : a.seq - b.seq));
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

/** Makes a folder of frames of many kinds and times. */
function makeFrames(folder: string): void {
  const files: Record<string, Uint8Array> = {
    "visible/1.jpg": noise(1, 20_000),
    "visible/2.jpg": noise(2, 20_001),
    "visible/large.png": noise(3, 3_000_000),
    "visible/empty.jpg": new Uint8Array(0),
    "ir/deep/1.pgm": noise(4, 700),
    "ir/deep/ä 漢.txt": noise(5, 1),
    "ir/deep/x.mcap": writeFrames([testFrame(1, noise(6, 10))]),
  };
  for (let number = 10; number < 100; number++) {
    files[`visible/${number}.webp`] = noise(number, 5000);
  }
  for (const [name, bytes] of Object.entries(files)) {
    mkdirSync(join(folder, name, ".."), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
  // Bun takes a negative number for now.
  utimesSync(join(folder, "visible/1.jpg"), "-1000", "-1000");
  utimesSync(join(folder, "visible/2.jpg"), "-1000000000", "-1000000000");
}

/** Frames of a program: with metadata, raw shapes of which the last differs, and exact times. */
const programFrames = [1, 2, 3].map((number) => ({
  bytes: noise(number, 12),
  captured: -(2n ** 63n) + BigInt(number) * 1_000_000_007n,
  metadata: { exposure: number, frame_id: "thermal_optical" },
  name: `t${number}.raw`,
  ...(number === 3 ? { raw: { width: 2, height: 3, format: "gray16le" } } : {}),
}));

function exported(events: readonly SendEvent[]): string[] {
  return events.flatMap((event) =>
    event.type === "media" ? [`${event.source}: ${event.description}`] : [],
  );
}

describe("a stream out and in again", () => {
  test("a stream that was exported and imported has equal bytes, names, numbers, times and metadata", async () => {
    await using at = await start();
    const { folder, server } = at;
    makeFrames(join(folder, "run"));
    await at.send(join(folder, "run"));
    await send(programFrames, {
      ...{ to: server.address, stream: "run", source: "thermal", raw: ["3x2:gray16le"] },
    });
    const file = join(folder, "run.mcap");
    await receive("run", { from: server.address, file });
    expect(existsSync(`${file}.part`)).toBe(false);
    const { summary, events } = await at.send(file, { stream: "again" });
    const rows = at.rows("run");
    expect(rows.length).toBe(100);
    expect(at.rows("again")).toEqual(rows);
    expect(summary).toMatchObject({ frames: 100, present: 0, reasons: {} });
    expect(exported(events).toSorted()).toEqual([
      "ir/deep: 3 frames, with names and numbers of the file",
      "thermal: 3 frames, with names and numbers of the file",
      "visible: 94 frames, with names and numbers of the file",
    ]);
    for (const name of ["visible/large.png", "ir/deep/x.mcap", "visible/empty.jpg"]) {
      const path = join(folder, "store/again", name);
      expect(Buffer.compare(readFileSync(path), readFileSync(join(folder, "run", name)))).toBe(0);
    }
    expect(statSync(join(folder, "store/again/visible/1.jpg")).mtimeMs).toBe(-1_000_000);
    const second = await at.send(file, { stream: "again" });
    expect(second.summary).toMatchObject({ frames: 100, present: 100, bytes: 0 });
    // Without a name, the frames belong to the stream that they came from.
    const same = await at.send(file);
    expect(same.summary).toMatchObject({ stream: "run", frames: 100, present: 100, bytes: 0 });
  });

  test("the session of an import follows from the file and the stream, also at another server", async () => {
    await using one = await start();
    await using two = await start();
    const file = join(one.folder, "in.mcap");
    writeFileSync(file, writeFrames([testFrame(1, noise(1, 9))]));
    for (const at of [one, two]) for (const stream of ["s", "t"]) await at.send(file, { stream });
    const sessions = [one, two].map(({ folder }) =>
      journal<Json>(join(folder, "store"), "SELECT stream, session FROM frames ORDER BY stream"),
    );
    expect(sessions[0]).toEqual(sessions[1]);
    expect(sessions[0]![0]!["session"]).not.toBe(sessions[0]![1]!["session"]);
  });

  test(`${needs}the indexed reader of @mcap/core reads what receive and HTTP export`, async () => {
    if (load === undefined) return;
    await using at = await start();
    makeFrames(join(at.folder, "run"));
    await at.send(join(at.folder, "run"));
    const file = join(at.folder, "run.mcap");
    await receive("run", { from: at.server.address, file });
    const address = `http://${at.server.http}/api/streams/run/export.mcap`;
    const { McapIndexedReader } = load("@mcap/core");
    for (const bytes of [readFileSync(file), await (await fetch(address)).bytes()]) {
      const reader = await McapIndexedReader.Initialize({ readable: readable(bytes) });
      let last = 0n;
      let count = 0;
      for await (const message of reader.readMessages({ validateCrcs: true })) {
        expect(message.logTime >= last).toBe(true);
        last = message.logTime;
        count++;
      }
      expect(count).toBe(97);
    }
  });

  for (const codec of ["h264", "h265"] as const) {
    test(`${needs || needsFfmpeg}${codec} is exported as CompressedVideo, one picture a message, and comes back with equal bytes`, async () => {
      if (load === undefined || needsFfmpeg !== "") return;
      await using at = await start();
      const clip = await makeClip(codec, 2 * groupLength + 1);
      const folder = join(at.folder, "run/cam");
      mkdirSync(folder, { recursive: true });
      for (const [index, unit] of clip.units.entries()) {
        writeFileSync(join(folder, `${index + 1}.${codec}`), unit);
      }
      await at.send(join(at.folder, "run"));
      const file = join(at.folder, "run.mcap");
      await receive("run", { from: at.server.address, file });
      const address = `http://${at.server.http}/api/streams/run/export.mcap`;
      const { McapIndexedReader } = load("@mcap/core");
      const { Root } = load("protobufjs");
      const { FileDescriptorSet } = load("protobufjs/ext/descriptor");
      for (const bytes of [readFileSync(file), await (await fetch(address)).bytes()]) {
        const reader = await McapIndexedReader.Initialize({ readable: readable(bytes) });
        const [schema] = [...reader.schemasById.values()];
        expect(schema.name).toBe("foxglove.CompressedVideo");
        const root = Root.fromDescriptor(FileDescriptorSet.decode(schema.data)).resolveAll();
        const type = root.lookupType(schema.name);
        const messages: any[] = [];
        for await (const { data } of reader.readMessages({ validateCrcs: true })) {
          messages.push(type.decode(data));
        }
        expect(messages.length).toBe(clip.units.length);
        for (const [index, { data, format, is_key_frame, isKeyFrame }] of messages.entries()) {
          expect(format).toBe(codec);
          expect(Buffer.compare(data, clip.units[index]!)).toBe(0);
          const isKey = index % groupLength === 0;
          expect([index, is_key_frame ?? isKeyFrame]).toEqual([index, isKey]);
          // Each message has one picture, and key frames have their parameter sets.
          const types = [...nalUnits(data, codec)].map((unit) => unit.type);
          expect(types.some((one) => isSlice(one, codec))).toBe(true);
          expect(types.some((one) => isParameterSet(one, codec))).toBe(isKey);
          const splitter = new AccessUnitSplitter(codec, data.length);
          expect([...splitter.push(data), ...splitter.end()].length).toBe(1);
        }
      }
      await at.send(file, { stream: "again" });
      expect(at.rows("again")).toEqual(at.rows("run"));
      expect(at.rows("again").filter(({ isKey }) => isKey === true).length).toBe(3);
    });
  }

  test("frames of several sessions are numbered again in the order of the file, and that is said", async () => {
    await using at = await start();
    const { folder, server } = at;
    for (const round of [1, 2]) {
      const frames = [1, 2].map((number) => ({
        bytes: noise(number * round, 50),
        name: `${round}-${number}.jpg`,
      }));
      await send(frames, { to: server.address, stream: "live", source: "gate" });
    }
    const file = join(folder, "live.mcap");
    await receive("live", { from: server.address, file });
    const { events } = await at.send(file, { stream: "copy" });
    expect(exported(events)).toEqual([
      "gate: 4 frames of several sessions: numbered again in the order of the file",
    ]);
    const numbers = at.rows("copy").map(({ seq, name }) => `${seq} ${name}`);
    expect(numbers).toEqual(["1 1-1.jpg", "2 1-2.jpg", "3 2-1.jpg", "4 2-2.jpg"]);
    const again = await at.send(file, { stream: "copy" });
    expect(again.summary).toMatchObject({ frames: 4, present: 4, bytes: 0 });
  });

  test("numbers that are missing in a file stay missing, and are not given to other frames", async () => {
    await using at = await start();
    const file = join(at.folder, "gaps.mcap");
    writeFileSync(
      file,
      writeFrames([2, 5, 9].map((number) => testFrame(number, noise(number, 9)))),
    );
    await at.send(file);
    expect(at.rows("run").map(({ seq }) => seq)).toEqual([2, 5, 9]);
  });

  test("an export over a link that breaks has every frame once, small and large", async () => {
    await using at = await start();
    const frames = Array.from({ length: 60 }, (_, index) => ({
      ...{ bytes: noise(index, index % 7 === 0 ? 2_500_000 : 30_000), name: `${index}.jpg` },
    }));
    await send(frames, { to: at.server.address, stream: "s", source: "a" });
    const port = Number(at.server.address.split(":").at(-1));
    const relay = await startRelay({ to: { host: "127.0.0.1", port }, rate: 40e6 });
    try {
      const file = join(at.folder, "s.mcap");
      let breaks = 0;
      const onEvent = (event: ReceiveEvent) => {
        if (event.type !== "connected" || ++breaks > 3) return;
        const broken = relay.bytes + 4_000_000;
        void until("the next break", () => relay.bytes > broken || existsSync(file)).then(() =>
          relay.cut(),
        );
      };
      const from = `127.0.0.1:${relay.port}`;
      const summary = await receive("s", { from, file, onEvent });
      expect(summary.retries).toBe(3);
      expect(summary.frames).toBe(60);
      await at.send(file, { stream: "copy" });
      expect(at.rows("copy")).toEqual(at.rows("s"));
      expect(readSummary(memoryInput(readFileSync(file)))?.messages).toBe(60);
    } finally {
      relay.stop();
    }
  });

  test("a source and a span of time can be exported", async () => {
    await using at = await start();
    const { folder, server } = at;
    const frames = (from: number) =>
      [0, 1, 2, 3].map((number) => ({
        ...{ bytes: noise(from + number, 20), name: `${number}.jpg` },
        captured: BigInt(number * 1000),
      }));
    await send({ a: frames(0), b: frames(10) }, { to: server.address, stream: "s" });
    let files = 0;
    const count = async (options: object) => {
      const file = join(folder, `${++files}.mcap`);
      await receive("s", { from: server.address, file, ...options });
      return readSummary(memoryInput(readFileSync(file)))?.messages;
    };
    expect(await count({ sources: ["a"] })).toBe(4);
    expect(await count({ since: 1000n })).toBe(6);
    expect(await count({ until: 1000n })).toBe(2);
    expect(await count({ since: 1000n, until: 3000n })).toBe(4);
    expect(await count({ latest: true, until: 2000n })).toBe(2);
    const none = join(folder, "none.mcap");
    await receive("s", { from: server.address, file: none, since: 10n ** 18n });
    expect(existsSync(none)).toBe(false);
  });

  test("a directory with recordings is sent as files, and a recording with its ending in capitals as frames", async () => {
    await using at = await start();
    const recordings = join(at.folder, "recordings");
    mkdirSync(recordings);
    const bytes = writeFrames([testFrame(1, noise(1, 10)), testFrame(2, noise(2, 10))]);
    writeFileSync(join(recordings, "a.mcap"), bytes);
    writeFileSync(join(recordings, "B.MCAP"), bytes);
    await at.send(recordings);
    expect(new Set(at.rows("recordings").map(({ name }) => name))).toEqual(
      new Set(["a.mcap", "B.MCAP"]),
    );
    const { summary } = await at.send(join(recordings, "B.MCAP"), { source: "gate" });
    expect(summary).toMatchObject({ stream: "run", frames: 2 });
    expect(at.rows("run").map(({ source }) => source)).toEqual(["gate", "gate"]);
  });
});

describe("files", () => {
  test("an export replaces no file, and takes the place of an interrupted one", async () => {
    await using at = await start();
    await send([{ bytes: noise(1, 10) }], { to: at.server.address, stream: "s", source: "a" });
    const file = join(at.folder, "s.mcap");
    writeFileSync(`${file}.part`, noise(1, 100_000));
    await receive("s", { from: at.server.address, file });
    expect(statSync(file).size).toBeLessThan(10_000);
    const before = readFileSync(file);
    const failure = await receive("s", { from: at.server.address, file }).catch((error) => error);
    expect(failure).toMatchObject({ code: "usage" });
    expect(failure.message).toContain("it exists; choose another name, or remove it");
    expect(readFileSync(file)).toEqual(before);
  });

  test("the command names the file that it wrote, exits with 0, and refuses flags without a file", async () => {
    await using at = await start();
    await send([{ bytes: noise(1, 10) }], { to: at.server.address, stream: "s", source: "a" });
    const from = ["--from", at.server.address];
    const path = join(at.folder, "s.mcap");
    const wrote = await run(["receive", "s", path, ...from, "--json"]);
    expectCode(wrote, 0);
    expect(jsonLines(wrote.stdout)).toContainEqual({ type: "file", path });
    expect(wrote.stderr).toContain(`Written to ${path}`);
    const again = await run(["receive", "s", path, ...from]);
    expectCode(again, 1);
    for (const destination of [join(at.folder, "copy"), "-"]) {
      const refused = await run(["receive", "s", destination, ...from, "--segment", "10m"]);
      expectCode(refused, 1);
      expect(refused.stderr).toContain("Cannot use --segment without an MCAP file");
    }
    expect(existsSync(join(at.folder, "copy"))).toBe(false);
    const early = ["--until", "1970-01-02"];
    expectCode(await run(["receive", "s", join(at.folder, "old"), ...from, ...early]), 0);
    expect(readdirSync(join(at.folder, "old"))).toEqual([".frames"]);
    // What `--until` left out comes with the next copy.
    const rest = await run(["receive", "s", join(at.folder, "old"), ...from]);
    expect(rest.stderr).toContain("1 frame received");
  });

  test("an export that is stopped leaves the partial file, and says so", async () => {
    await using at = await start();
    const frames = [1, 2, 3].map((number) => ({ bytes: noise(number, 2_000_000) }));
    await send(frames, { to: at.server.address, stream: "s", source: "a" });
    const stopped = new AbortController();
    const file = join(at.folder, "s.mcap");
    const port = Number(at.server.address.split(":").at(-1));
    const relay = await startRelay({ to: { host: "127.0.0.1", port }, rate: 4e6 });
    const from = `127.0.0.1:${relay.port}`;
    const receiving = receive("s", { from, file, signal: stopped.signal });
    await until("the partial file", () => existsSync(`${file}.part`));
    stopped.abort();
    expect(await receiving).toMatchObject({ interrupted: true });
    relay.stop();
    expect(existsSync(file)).toBe(false);
    expect(existsSync(`${file}.part`)).toBe(true);
    await receive("s", { from: at.server.address, file });
    expect(readSummary(memoryInput(readFileSync(file)))?.messages).toBe(3);
    expect(existsSync(`${file}.part`)).toBe(false);
  });

  test("with follow, each segment becomes a complete file, and the last one at the end", async () => {
    await using at = await start();
    const { folder, server } = at;
    const put = (number: number) =>
      send([{ bytes: noise(number, 60_000), name: `${number}.jpg` }], {
        ...{ to: server.address, stream: "s", source: "a" },
      });
    await put(1);
    const stopped = new AbortController();
    const files: string[] = [];
    const receiving = receive("s", {
      ...{ from: server.address, file: join(folder, "s.mcap"), follow: true },
      ...{ segment: { bytes: 100_000 }, signal: stopped.signal },
      onEvent: (event) => void (event.type === "file" && files.push(event.path)),
    });
    await until("no file", () => readdirSync(folder).some((name) => name.endsWith(".part")));
    expect(files).toEqual([]);
    await put(2);
    await until("no segment is complete", () => files.length === 1);
    await put(3);
    await until("no second segment is complete", () => files.length === 2);
    stopped.abort();
    await receiving;
    expect(files.length).toBe(3);
    const names = readdirSync(folder).filter((name) => name.includes(".mcap"));
    expect(names.length).toBe(3);
    for (const [index, file] of files.entries()) {
      expect(file).toMatch(/\/s-\d{8}T\d{6}\.\d{3}Z\.mcap$/);
      const { summary } = await at.send(file, { stream: `copy${index}` });
      expect(summary.frames).toBe(1);
    }
  });

  test("with follow, a segment ends after its time even if no more frames arrive", async () => {
    await using at = await start();
    const { folder, server } = at;
    await send([{ bytes: noise(1, 10) }], { to: server.address, stream: "s", source: "a" });
    const stopped = new AbortController();
    const files: string[] = [];
    const receiving = receive("s", {
      ...{ from: server.address, file: join(folder, "s.mcap"), follow: true },
      ...{ segment: { milliseconds: 50 }, signal: stopped.signal },
      onEvent: (event) => void (event.type === "file" && files.push(event.path)),
    });
    await until("the segment does not end", () => files.length === 1);
    stopped.abort();
    await receiving;
    expect(files.length).toBe(1);
  });
});

/** Builds a file of another program with a few images. */
class ForeignFile {
  readonly #writer = new RecordWriter();
  #channels = 0;

  constructor() {
    this.#writer.raw(magic).record(Opcode.header, () => this.#writer.text("").text("other"));
  }

  record(opcode: number, write: (writer: RecordWriter) => void): this {
    this.#writer.record(opcode, () => write(this.#writer));
    return this;
  }

  channel(topic: string, encoding = "json", schema = "foxglove.CompressedImage"): this {
    const id = ++this.#channels;
    if (schema !== "") {
      this.record(Opcode.schema, (writer) => writer.u16(id).text(schema).text("jsonschema").u32(0));
    }
    return this.record(Opcode.channel, (writer) =>
      writer
        .u16(id)
        .u16(schema === "" ? 0 : id)
        .text(topic)
        .text(encoding)
        .map({}),
    );
  }

  message(channel: number, value: unknown, logTime: bigint): this {
    return this.record(Opcode.message, (writer) =>
      writer
        .u16(channel)
        .u32(1)
        .u64(logTime)
        .u64(logTime)
        .raw(Buffer.from(JSON.stringify(value))),
    );
  }

  image(logTime: bigint, channel = 1): this {
    const data = new Uint8Array([0xff, 0xd8, 0xff, Number(logTime % 256n)]).toBase64();
    return this.message(channel, { data, format: "jpeg" }, logTime);
  }

  raw(bytes: Uint8Array): this {
    this.#writer.raw(bytes);
    return this;
  }

  get bytes(): Buffer {
    return Buffer.from(this.#writer.bytes);
  }

  /** Ends the data section, without a summary. */
  end(): Buffer {
    this.record(Opcode.dataEnd, (writer) => writer.u32(0));
    this.record(Opcode.footer, (writer) => writer.u64(0).u64(0).u32(0));
    return Buffer.from(this.#writer.raw(magic).bytes);
  }
}

describe("files of other programs", () => {
  test(`${needs}images of ROS 2 in a file of @mcap/core become frames named by topic and time`, async () => {
    if (load === undefined) return;
    const { McapWriter } = load("@mcap/core");
    const { MessageWriter } = load("@foxglove/rosmsg2-serialization");
    const definition = "std_msgs/Header header\nstring format\nuint8[] data\n";
    const serializer = new MessageWriter([
      {
        definitions: [
          { type: "std_msgs/Header", name: "header", isComplex: true, isArray: false },
          { type: "string", name: "format", isComplex: false, isArray: false },
          { type: "uint8", name: "data", isComplex: false, isArray: true },
        ],
      },
      {
        name: "std_msgs/Header",
        definitions: [
          { type: "builtin_interfaces/Time", name: "stamp", isComplex: true, isArray: false },
          { type: "string", name: "frame_id", isComplex: false, isArray: false },
        ],
      },
      {
        name: "builtin_interfaces/Time",
        definitions: [
          { type: "int32", name: "sec", isComplex: false, isArray: false },
          { type: "uint32", name: "nanosec", isComplex: false, isArray: false },
        ],
      },
    ]);
    await using at = await start();
    for (const compression of ["", "zstd"]) {
      const output = new CoreOutput();
      const compressed = (data: Uint8Array) => ({
        ...{ compression, compressedData: Bun.zstdCompressSync(data) },
      });
      const writer = new McapWriter({
        writable: output,
        chunkSize: 5000,
        ...(compression === "" ? {} : { compressChunk: compressed }),
      });
      await writer.start({ profile: "ros2", library: "rosbag2" });
      const schemaId = await writer.registerSchema({
        ...{ name: "sensor_msgs/msg/CompressedImage", encoding: "ros2msg" },
        data: new TextEncoder().encode(definition),
      });
      const channelIds: number[] = [];
      for (const topic of ["/left/image", "/right/image"]) {
        const channel = { topic, messageEncoding: "cdr", schemaId, metadata: new Map() };
        channelIds.push(await writer.registerChannel(channel));
      }
      for (let sequence = 0; sequence < 40; sequence++) {
        const data = new Uint8Array([0xff, 0xd8, 0xff, ...noise(sequence, 900)]);
        const stamp = { sec: 1_700_000_000, nanosec: sequence };
        const message = { header: { stamp, frame_id: "left" }, format: "jpeg", data };
        await writer.addMessage({
          ...{ channelId: channelIds[sequence % 2], sequence, logTime: 5n, publishTime: 5n },
          data: serializer.writeMessage(message),
        });
      }
      await writer.end();
      const file = join(at.folder, `bag${compression}.mcap`);
      writeFileSync(file, output.bytes);
      const { summary, events } = await at.send(file);
      expect(summary).toMatchObject({ frames: 40, reasons: {} });
      const stream = `bag${compression}`;
      const rows = at.rows(stream);
      expect(new Set(rows.map(({ source }) => source))).toEqual(
        new Set(["left/image", "right/image"]),
      );
      expect(rows[1]).toMatchObject({
        ...{ source: "left/image", seq: 2, captured: 1_700_000_000_000_000_002n },
        name: "20231114T221320.000000002Z-00000002.jpg",
      });
      expect(exported(events)[0]).toContain("20 frames of another program: named by time");
      const path = join(at.folder, "store", stream, "left/image", String(rows[0]!["name"]));
      expect([...readFileSync(path)]).toEqual([0xff, 0xd8, 0xff, ...noise(0, 900)]);
      const again = await at.send(file);
      expect(again.summary).toMatchObject({ frames: 40, present: 40, bytes: 0 });
    }
  });

  test("log times that are 0 or 2^64-1, or that jump, become the nearest capture times", async () => {
    await using at = await start();
    const file = join(at.folder, "times.mcap");
    const times = [5n, 0n, 2n ** 64n - 1n, 5n, 1n];
    const built = new ForeignFile().channel("/camera");
    for (const time of times) built.image(time);
    writeFileSync(file, built.end());
    const { summary } = await at.send(file);
    expect(summary).toMatchObject({ frames: 5, reasons: {} });
    const rows = at.rows("times");
    expect(rows.map(({ captured }) => captured)).toEqual([...[5n, 0n, 2n ** 63n - 1n, 5n, 1n]]);
    expect(rows[2]!["name"]).toBe("22620411T234716.854775807Z-00000003.jpg");
  });

  /** Files with a fault, the lines about it, and the frames that can still be used. */
  const faults: Record<
    string,
    [build: () => Buffer, lines: RegExp[], frames: number, exit: number]
  > = {
    "is cut off": [
      () => new ForeignFile().channel("/a").image(1n).image(2n).bytes.subarray(0, -3),
      [/a record has \d+ bytes, more than the file; the rest is left out/],
      1,
      23,
    ],
    "has no index": [() => new ForeignFile().channel("/a").image(1n).end(), [], 1, 0],
    "has unknown records": [
      () =>
        new ForeignFile()
          .record(0x60, (writer) => writer.u64(1))
          .record(0x99, (writer) => writer.u64(1))
          .channel("/a")
          .image(1n)
          .end(),
      [],
      1,
      0,
    ],
    "has a record with a lying length": [
      () =>
        new ForeignFile()
          .channel("/a")
          .image(1n)
          .raw(new Uint8Array([5, 255, 255, 255, 255, 255, 255, 255, 255]))
          .image(2n)
          .end(),
      [/more than the file; the rest is left out/],
      1,
      23,
    ],
    "has a chunk of 10 GB": [
      () => {
        const small = Bun.zstdCompressSync(new Uint8Array(100));
        return new ForeignFile()
          .channel("/a")
          .image(1n)
          .record(Opcode.chunk, (writer) =>
            writer.u64(0).u64(0).u64(1e10).u32(0).text("zstd").u64(small.length).raw(small),
          )
          .end();
      },
      [/left out at byte \d+: it has 10000000000 bytes decompressed/],
      1,
      23,
    ],
    "has a zstd bomb": [
      () => {
        const bomb = Bun.zstdCompressSync(new Uint8Array(300 << 20));
        return new ForeignFile()
          .channel("/a")
          .image(1n)
          .record(Opcode.chunk, (writer) =>
            writer.u64(0).u64(0).u64(100).u32(0).text("zstd").u64(bomb.length).raw(bomb),
          )
          .end();
      },
      [/left out at byte \d+: it has \d+ bytes decompressed, the limit is 67108864/],
      1,
      23,
    ],
    "has a chunk of lz4": [
      () =>
        new ForeignFile()
          .channel("/a")
          .image(1n)
          .record(Opcode.chunk, (writer) =>
            writer.u64(0).u64(0).u64(1).u32(0).text("lz4").u64(4).u32(0),
          )
          .end(),
      [/compressed with lz4; convert the file with mcap decompress/],
      1,
      23,
    ],
    "has a channel without a schema": [
      () => new ForeignFile().channel("/a").channel("/b", "x", "").image(1n).image(2n, 2).end(),
      [/\/b: left out at byte \d+: its channel has no schema, and the encoding x/],
      1,
      23,
    ],
    "has a channel of other messages": [
      () =>
        new ForeignFile()
          .channel("/a")
          .channel("/b", "json", "foxglove.PointCloud")
          .image(1n)
          .image(2n, 2)
          .end(),
      [/\/b is a channel of foxglove.PointCloud, not of pictures/],
      1,
      0,
    ],
    "defines a channel twice": [
      () => {
        const file = new ForeignFile().channel("/a").image(1n);
        return file
          .record(Opcode.channel, (writer) => writer.u16(1).u16(1).text("/b").text("json").map({}))
          .image(2n)
          .end();
      },
      [/defines channel 1 again with other contents/, /message of channel 1, which is not defined/],
      1,
      23,
    ],
    "has messages that are no images": [
      () => {
        const file = new ForeignFile().channel("/a").image(1n);
        for (let count = 0; count < 50; count++) file.message(1, { data: "?" }, 2n);
        return file.end();
      },
      [/\/a: left out at byte \d+ and 49 more places: its data is no base64/],
      1,
      23,
    ],
    "changes the shape of its pixels": [
      () => {
        const raw = (width: number) => {
          const data = Buffer.alloc(width, width).toString("base64");
          return { width, height: 1, encoding: "mono8", step: width, data };
        };
        return new ForeignFile()
          .channel("/a", "json", "foxglove.RawImage")
          .message(1, raw(3), 1n)
          .message(1, raw(2), 2n)
          .end();
      },
      [],
      2,
      0,
    ],
    "is no MCAP file": [() => Buffer.from("hello"), [/Cannot send .*: it is no MCAP file/], 0, 23],
  };

  for (const [what, [build, lines, frames, exit]] of Object.entries(faults)) {
    test(`a file that ${what} gives ${frames} frames and exit code ${exit}, with ${lines.length} lines`, async () => {
      await using at = await start();
      const file = join(at.folder, "in.mcap");
      writeFileSync(file, build());
      const { code, stderr } = await run(["send", file, "--to", at.server.address]);
      expect([code, stderr]).toEqual([exit, stderr]);
      const said = stderr.split("\n").filter((line) => /^Not |^frames: /.test(line));
      const summary = said.filter((line) => !/^Not delivered: \d+ \w+$/.test(line));
      expect([summary, summary.length]).toEqual([summary, lines.length]);
      for (const [index, line] of lines.entries()) expect(summary[index]).toMatch(line);
      expect(at.rows("in").length).toBe(frames);
    });
  }

  test("a damaged picture is left out alone, and a damaged head with the rest of its chunk", async () => {
    await using at = await start();
    const frames = [1, 2, 3].map((number) => testFrame(number, noise(number, 5000)));
    const whole = Buffer.from(writeFrames(frames));
    const inPicture = Buffer.from(whole);
    inPicture[whole.indexOf(frames[1]!.bytes.subarray(0, 50)) + 2500]! ^= 1;
    writeFileSync(join(at.folder, "picture.mcap"), inPicture);
    const one = await at.send(join(at.folder, "picture.mcap"), { stream: "one" });
    expect(at.rows("one").map(({ seq }) => seq)).toEqual([1, 3]);
    expect(one.summary.undelivered).toMatchObject([
      { first: 2, last: 2, error: { code: "unreadable" } },
    ]);
    const inHead = Buffer.from(whole);
    inHead[whole.indexOf("2.jpg")]! ^= 1;
    writeFileSync(join(at.folder, "head.mcap"), inHead);
    const all = await at.send(join(at.folder, "head.mcap"), { stream: "all" });
    expect(at.rows("all")).toEqual([]);
    expect(all.summary.reasons).toEqual({ unreadable: 3 });
  });

  test("a recording that changes while it is sent loses frames with a reason, and none silently", async () => {
    await using at = await start();
    const file = join(at.folder, "in.mcap");
    writeFileSync(
      file,
      writeFrames([1, 2, 3].map((number) => testFrame(number, noise(number, 900)))),
    );
    const { summary } = await at.send(file, {
      onEvent: (event: SendEvent) => void (event.type === "connected" && appendFileSync(file, "x")),
    });
    expect(summary.reasons).toEqual({ changed: 3 });
  });

  test("flags that a recording cannot honour are refused, and so is a second path", async () => {
    const folder = temporaryFolder();
    const file = join(folder, "in.mcap");
    writeFileSync(file, writeFrames([testFrame(1, noise(1, 10))]));
    const refused = async (...args: string[]) => {
      const { code, stderr } = await run(["send", ...args, "--to", "127.0.0.1:1"]);
      return [code, stderr.split("\n")[0]!];
    };
    for (const flags of [["--watch"], ["--move"], ["--policy", "latest"], ["--include", "*"]]) {
      const [code, line] = await refused(file, ...flags);
      expect([code, line]).toEqual([1, expect.stringContaining("it is a recording")]);
    }
    expect((await refused(file, folder, "--stream", "s"))[1]).toContain(
      "with other paths: run frames send for each of them",
    );
    expect(await refused(join(folder, "none.mcap"))).toEqual([
      ...[1, expect.stringContaining("no such file or directory")],
    ]);
  });
});
