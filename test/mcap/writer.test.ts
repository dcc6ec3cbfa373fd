// Covers: mcap/crc32-combine.ts, mcap/records.ts, mcap/summary-writer.ts, mcap/summary.ts

import { expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { memoryInput, readRegion } from "../../src/mcap/cursor.ts";
import { combineCrc32 } from "../../src/mcap/crc32-combine.ts";
import { largeFrameFacts, pictureBytes, pictureDecoder } from "../../src/mcap/picture.ts";
import { McapReader } from "../../src/mcap/reader.ts";
import { readSummary } from "../../src/mcap/summary.ts";
import { McapWriter } from "../../src/mcap/writer.ts";
import { bringPackages, mcapPackages } from "../helper/npm-packages.ts";
import { refusal } from "../helper/refusal.ts";
import {
  MemoryOutput,
  noise,
  readable,
  readEvents,
  session,
  testFrame,
  type TestFrame,
  writeFrames,
} from "./files.ts";

const { load, needs } = bringPackages(mcapPackages);

/** Frames of several sources, sizes and kinds, in the order of arrival. */
function mixedFrames(): TestFrame[] {
  const frames = [
    testFrame(1, noise(1, 20_000)),
    testFrame(1, noise(2, 7), { source: "site/ir", name: "1.pgm", metadata: '{"a":1}' }),
    testFrame(2, new Uint8Array(0), { captured: -5n }),
    testFrame(3, noise(3, 3_000_000), { captured: -(2n ** 63n) }),
    testFrame(2, noise(4, 12), {
      ...{ source: "site/ir", name: "2.raw", captured: 2n ** 63n - 1n },
      raw: { width: 3, height: 2, format: "gray16le" },
    }),
    testFrame(2 ** 53 - 1, noise(5, 1_048_576), { name: "ä…漢.png", captured: 7n }),
  ];
  for (let number = 10; number < 300; number++) frames.push(testFrame(number, noise(number, 9000)));
  return frames;
}

function framesIn(file: Uint8Array): TestFrame[] {
  return readEvents(file).messages.map(({ channel, data }) => {
    const picture = pictureDecoder(channel)!(data);
    const { crc32: checksum, ...facts } = picture.facts!;
    const bytes = pictureBytes(picture);
    expect(checksum).toBe(crc32(bytes));
    const raw = picture.raw === undefined ? {} : { raw: picture.raw };
    return { source: channel.topic.slice(1), ...facts, ...raw, bytes };
  });
}

/** Describes a frame in one line, since a difference of millions of bytes is of no help. */
function line({ bytes, captured, ...facts }: TestFrame): string {
  const entries = Object.entries(facts).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `${JSON.stringify(entries)} ${captured} ${bytes.length} ${crc32(bytes)}`;
}

test("every frame of a written file is read back as it was, in the order of arrival", () => {
  const frames = mixedFrames();
  const file = writeFrames(frames);
  expect(framesIn(file).map(line)).toEqual(frames.map(line));
  expect(readEvents(file).problems).toEqual([]);
  expect(readSummary(memoryInput(file))?.messages).toBe(frames.length);
});

test("a file is the same whether the checksums are known before the frames or not", () => {
  const frames = mixedFrames();
  expect(crc32(writeFrames(frames, true))).toBe(crc32(writeFrames(frames, false)));
});

test("frames that arrive in pieces of any size are written as if they arrived whole", () => {
  const frames = [testFrame(1, noise(1, 300)), testFrame(2, noise(2, 1_200_000))];
  const expected = writeFrames(frames);
  for (const size of [1, 7, 64, 299, 65_536, 1_199_999]) {
    const output = new MemoryOutput();
    const writer = new McapWriter(output, { library: "test", stream: "run" });
    for (const { bytes, ...facts } of frames) {
      writer.begin({ ...facts, size: bytes.length });
      for (let at = 0; at < bytes.length; at += size) writer.write(bytes.subarray(at, at + size));
      writer.finish(crc32(bytes));
    }
    writer.end();
    expect(output.bytes.length).toBe(expected.length);
    expect(crc32(output.bytes)).toBe(crc32(expected));
  }
});

test("a frame that is discarded leaves nothing behind, whether small or large", () => {
  const frames = [testFrame(1, noise(1, 100)), testFrame(4, noise(4, 2_000_000))];
  const output = new MemoryOutput();
  const writer = new McapWriter(output, { library: "test", stream: "run" });
  for (const { bytes, ...facts } of frames) {
    for (const size of [500, 3_000_000]) {
      writer.begin({ ...testFrame(9, bytes), size });
      writer.write(noise(8, 400));
      writer.discard();
    }
    writer.begin({ ...facts, size: bytes.length });
    writer.write(bytes);
    writer.finish(crc32(bytes));
  }
  writer.end();
  expect(framesIn(output.bytes).map(line)).toEqual(frames.map(line));
  expect(writer.frames).toBe(2);
  expect(readEvents(output.bytes).problems).toEqual([]);
});

test("a frame with another checksum than announced, or another size, cannot be finished", () => {
  const writer = new McapWriter(new MemoryOutput(), { library: "test", stream: "run" });
  const { bytes, ...facts } = testFrame(1, noise(1, 10));
  writer.begin({ ...facts, size: 10, crc32: 7 });
  writer.write(bytes);
  expect(refusal(() => writer.finish(8))).toMatchObject({ code: "damaged" });
  writer.discard();
  writer.begin({ ...facts, size: 11 });
  writer.write(bytes);
  expect(refusal(() => writer.finish(7))).toMatchObject({ code: "internal" });
  expect(refusal(() => writer.write(bytes))).toMatchObject({ code: "internal" });
});

test("chunks grow with their index, so that the index of a long file stays small", () => {
  let largest = 0;
  // An output that keeps nothing, as if the file were on a disk.
  const output = {
    append: (bytes: Uint8Array) => void (largest = Math.max(largest, bytes.length)),
    patch() {},
    cut() {},
  };
  const writer = new McapWriter(output, { library: "test", stream: "run" });
  const bytes = new Uint8Array(1 << 20);
  const checksum = crc32(bytes);
  const { bytes: _, ...facts } = testFrame(1, bytes);
  // At first each of these frames is a chunk of its own.
  for (let number = 1; number <= 140_000; number++) {
    writer.begin({ ...facts, size: bytes.length, crc32: checksum });
    writer.write(bytes);
    writer.finish(checksum);
    if (number === 90_000) expect(largest).toBe(bytes.length);
  }
  expect(largest).toBeGreaterThan(bytes.length);
  expect(largest).toBeLessThan(2 * bytes.length);
});

test("a frame of more than 2 GiB has its facts behind it, and its bytes in one piece", () => {
  const size = 2 ** 31 + 5;
  const zeros = new Uint8Array(64 << 20);
  // Keeps the parts that are not frame bytes; the others are zeros.
  const parts: { position: number; bytes: Uint8Array }[] = [];
  let length = 0;
  const writer = new McapWriter(
    {
      append(bytes) {
        if (bytes.buffer !== zeros.buffer) parts.push({ position: length, bytes: bytes.slice() });
        length += bytes.length;
      },
      patch(position, bytes) {
        const part = parts.find((one) => position - one.position < one.bytes.length)!;
        part.bytes.set(bytes, position - part.position);
      },
      cut() {},
    },
    { library: "test", stream: "run" },
  );
  const { bytes: _, ...facts } = testFrame(7, zeros, { captured: -7n, metadata: '{"a":2}' });
  writer.begin({ ...facts, size });
  let checksum = 0;
  for (let left = size; left > 0; left -= zeros.length) {
    const piece = zeros.subarray(0, Math.min(left, zeros.length));
    checksum = crc32(piece, checksum);
    writer.write(piece);
  }
  writer.finish(checksum);
  writer.end();
  const input = {
    size: length,
    read(position: number, into: Uint8Array) {
      into.fill(0);
      for (const part of parts) {
        const from = Math.max(position, part.position);
        const to = Math.min(position + into.length, part.position + part.bytes.length);
        if (from < to)
          into.set(part.bytes.subarray(from - part.position, to - part.position), from - position);
      }
      return Math.min(into.length, length - position);
    },
  };
  const events = [...new McapReader(input).read()];
  expect(events.map(({ type }) => type)).toEqual(["metadata", "message", "metadata"]);
  const [, message, metadata] = events as any[];
  expect(message.message.channel).toMatchObject({ topic: "/visible", schema: undefined });
  expect(message.message.data.length).toBe(size);
  expect(largeFrameFacts(metadata.entries)).toEqual({
    ...{ name: "7.jpg", crc32: checksum, sequence: 7, session, captured: -7n, metadata: '{"a":2}' },
  });
  expect(readSummary(input)?.messages).toBe(1);
  const { position, length: chunkLength } = readSummary(input)!.chunks[0]!;
  const recordsAt = position + 49;
  let recordsCrc = 0;
  for (let at = recordsAt; at < position + chunkLength; at += zeros.length) {
    const part = Math.min(zeros.length, position + chunkLength - at);
    recordsCrc = crc32(readRegion({ input, position: at, length: part }), recordsCrc);
  }
  const stored = readRegion({ input, position: position + 33, length: 4 });
  expect(new DataView(stored.buffer).getUint32(0, true)).toBe(recordsCrc);
});

test("the checksum of two parts follows from the checksums of each", () => {
  for (const [first, second] of [
    [0, 0],
    [5, 0],
    [0, 5],
    [1, 1],
    [1000, 3],
    [3, 100_001],
  ] as const) {
    const [a, b] = [noise(first + 1, first), noise(second + 7, second)];
    const whole = crc32(new Uint8Array([...a, ...b]));
    expect(combineCrc32(crc32(a), crc32(b), second)).toBe(whole);
  }
});

test(`${needs}the indexed reader of @mcap/core finds all messages in order of time, with right checksums`, async () => {
  if (load === undefined) return;
  const { McapIndexedReader } = load("@mcap/core");
  const { Root } = load("protobufjs");
  const { FileDescriptorSet } = load("protobufjs/ext/descriptor");
  const frames = mixedFrames();
  for (const file of [writeFrames(frames), writeFrames(frames, true), writeFrames([])]) {
    const reader = await McapIndexedReader.Initialize({ readable: readable(file) });
    const found: TestFrame[] = [];
    const times: bigint[] = [];
    for await (const message of reader.readMessages({ validateCrcs: true })) {
      const channel = reader.channelsById.get(message.channelId);
      const schema = reader.schemasById.get(channel.schemaId);
      const root = Root.fromDescriptor(FileDescriptorSet.decode(schema.data)).resolveAll();
      const type = root.lookupType(schema.name);
      const decoded = type.toObject(type.decode(message.data), { defaults: true, longs: String });
      const [, width, height, format] = /^(\d+)x(\d+):(.*)$/.exec(decoded.raw_shape) ?? [];
      times.push(message.logTime);
      found.push({
        source: channel.topic.slice(1),
        name: decoded.name,
        sequence: Number(decoded.number),
        session: Buffer.from(decoded.session).toString("hex"),
        captured: BigInt(decoded.captured),
        metadata: decoded.metadata,
        ...(format === undefined
          ? {}
          : { raw: { width: Number(width), height: Number(height), format } }),
        bytes: new Uint8Array(decoded.data),
      });
      expect(decoded.crc32).toBe(crc32(decoded.data));
    }
    expect(times).toEqual(times.toSorted((a, b) => Number(a - b)));
    if (found.length === 0) continue;
    const lines = (list: TestFrame[]) => list.map(line).sort();
    expect(lines(found)).toEqual(lines(frames));
    expect(reader.statistics.messageCount).toBe(BigInt(frames.length));
    expect(reader.metadataIndexes.map(({ name }: { name: string }) => name)).toEqual(["frames"]);
  }
});
