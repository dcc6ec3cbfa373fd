// Covers: mcap/cursor.ts, mcap/zstd.ts

import { describe, expect, test } from "bun:test";
import { crc32 } from "node:zlib";
import { memoryInput } from "../../src/mcap/cursor.ts";
import { McapReader, type McapMessage } from "../../src/mcap/reader.ts";
import { magic, Opcode, RecordWriter } from "../../src/mcap/records.ts";
import { readSummary } from "../../src/mcap/summary.ts";
import { decompressZstd } from "../../src/mcap/zstd.ts";
import { bringPackages, mcapPackages } from "../helper/npm-packages.ts";
import { refusal } from "../helper/refusal.ts";
import { CoreOutput, noise, readEvents, testFrame, writeFrames } from "./files.ts";

const { load, needs } = bringPackages(mcapPackages);

/** Returns the texts of messages, by reading their bytes where they are. */
function textsOf(messages: readonly McapMessage[]): string[] {
  return messages.map(({ data: { input, position, length } }) => {
    const bytes = new Uint8Array(length);
    input.read(position, bytes);
    return new TextDecoder().decode(bytes);
  });
}

/** Writes a file by hand. */
class FileBuilder {
  readonly #writer = new RecordWriter();

  constructor() {
    this.#writer.raw(magic).record(Opcode.header, () => this.#writer.text("").text("hand"));
  }

  record(opcode: number, write: (writer: RecordWriter) => void): this {
    this.#writer.record(opcode, () => write(this.#writer));
    return this;
  }

  schema(id: number, name = "s"): this {
    return this.record(Opcode.schema, (writer) => writer.u16(id).text(name).text("e").u32(0));
  }

  channel(id: number, schema = 0, topic = `/t${id}`): this {
    return this.record(Opcode.channel, (writer) =>
      writer.u16(id).u16(schema).text(topic).text("m").map({}),
    );
  }

  message(channel: number, text: string, time: bigint | number = 1): this {
    return this.record(Opcode.message, (writer) =>
      writer.u16(channel).u32(1).u64(time).u64(time).raw(new TextEncoder().encode(text)),
    );
  }

  /** Adds a chunk whose parts can be wrong. */
  chunk(
    inner: Uint8Array,
    wrong: { size?: number; crc?: number; compression?: string; length?: bigint } = {},
  ): this {
    const { size = inner.length, crc = crc32(inner), compression = "" } = wrong;
    return this.record(Opcode.chunk, (writer) =>
      writer
        .u64(0)
        .u64(0)
        .u64(size)
        .u32(crc)
        .text(compression)
        .u64(wrong.length ?? inner.length)
        .raw(inner),
    );
  }

  raw(bytes: Uint8Array): this {
    this.#writer.raw(bytes);
    return this;
  }

  /** Ends the data section, without a summary. */
  end(): Uint8Array<ArrayBuffer> {
    this.record(Opcode.dataEnd, (writer) => writer.u32(0));
    this.record(Opcode.footer, (writer) => writer.u64(0).u64(0).u32(0));
    return this.#writer.raw(magic).bytes.slice();
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#writer.bytes.slice();
  }
}

/** Records for a chunk. */
function records(build: (file: FileBuilder) => FileBuilder): Uint8Array<ArrayBuffer> {
  return build(new FileBuilder()).bytes.slice(new FileBuilder().bytes.length);
}

const twoMessages = () => records((file) => file.channel(1).message(1, "a").message(1, "b"));

describe("files of other writers", () => {
  const compressions = { none: undefined, zstd: Bun.zstdCompressSync } as const;
  for (const [compression, compress] of Object.entries(compressions)) {
    for (const useChunks of [true, false]) {
      for (const hasIndex of [true, false]) {
        const how = `${useChunks ? "chunked" : "unchunked"}, ${compression}, ${hasIndex ? "with" : "without"} index`;
        test(`${needs}a file of @mcap/core is read whole: ${how}`, async () => {
          if (load === undefined) return;
          const { McapWriter } = load("@mcap/core");
          const output = new CoreOutput();
          const writer = new McapWriter({
            ...{ writable: output, useChunks, chunkSize: 2000 },
            ...(hasIndex
              ? {}
              : { useStatistics: false, useSummaryOffsets: false, repeatSchemas: false }),
            ...(hasIndex
              ? {}
              : { repeatChannels: false, useChunkIndex: false, useMessageIndex: false }),
            ...(compress === undefined
              ? {}
              : {
                  compressChunk: (data: Uint8Array) => ({
                    compression,
                    compressedData: compress(data),
                  }),
                }),
          });
          await writer.start({ profile: "", library: "other" });
          const data = new TextEncoder().encode("definition");
          const schemaId = await writer.registerSchema({ name: "s", encoding: "e", data });
          const channel = { topic: "/a", messageEncoding: "x", schemaId, metadata: new Map() };
          const channelId = await writer.registerChannel(channel);
          const expected: string[] = [];
          for (let sequence = 0; sequence < 200; sequence++) {
            const logTime = sequence % 50 === 0 ? 2n ** 64n - 1n : BigInt(sequence);
            expected.push(`message ${sequence} ${"x".repeat(sequence)}`);
            const text = new TextEncoder().encode(expected.at(-1)!);
            const message = { channelId, sequence, logTime, publishTime: 0n, data: text };
            await writer.addMessage(message);
          }
          await writer.addAttachment({
            ...{ name: "a", mediaType: "b", data: new Uint8Array(10), logTime: 1n, createTime: 1n },
          });
          await writer.addMetadata({ name: "site", metadata: new Map([["a", "b"]]) });
          await writer.end();
          const { messages, problems, events } = readEvents(output.bytes);
          expect(problems).toEqual([]);
          expect(textsOf(messages)).toEqual(expected);
          expect(messages[50]).toMatchObject({
            ...{ sequence: 50, logTime: 2n ** 64n - 1n },
            channel: { topic: "/a", messageEncoding: "x", schema: { name: "s", encoding: "e" } },
          });
          const metadata = events.filter(({ type }) => type === "metadata");
          expect(metadata).toEqual([
            { type: "metadata", name: "site", entries: new Map([["a", "b"]]) },
          ]);
        });
      }
    }
  }
});

describe("files that are cut off", () => {
  test("a file cut off anywhere gives the messages before the cut, and says so once", () => {
    const frames = [1, 2, 3].map((number) => testFrame(number, noise(number, 200)));
    const whole = writeFrames(frames);
    const dataEnd = readSummary(memoryInput(whole))!.chunks.at(-1)!;
    let found = 0;
    for (let length = 8; length < whole.length; length++) {
      const { messages, problems } = readEvents(whole.slice(0, length));
      expect(messages.length).toBeGreaterThanOrEqual(found);
      found = messages.length;
      if (length < dataEnd.position + dataEnd.length) {
        expect(problems.length).toBeGreaterThanOrEqual(1);
        expect(problems.length).toBeLessThanOrEqual(2);
      }
    }
    expect(found).toBe(3);
  });

  test("a compressed chunk that is cut off is left out", () => {
    const inner = Bun.zstdCompressSync(twoMessages());
    const file = new FileBuilder()
      .chunk(twoMessages())
      .chunk(inner, { size: twoMessages().length, compression: "zstd" }).bytes;
    const { messages, problems } = readEvents(file.slice(0, -5));
    expect(textsOf(messages)).toEqual(["a", "b"]);
    expect(problems[0]).toContain("the chunk is cut off and compressed");
  });

  test("a file without magic is refused", () => {
    for (const bytes of [new Uint8Array(0), magic.slice(0, 7), new Uint8Array(100)]) {
      expect(refusal(() => new McapReader(memoryInput(bytes)))).toMatchObject({
        ...{ code: "unreadable", message: "it is no MCAP file" },
      });
    }
  });
});

describe("files with errors", () => {
  test("unknown records are skipped, in the data section and in a chunk", () => {
    const unknown = (file: FileBuilder) =>
      file.record(0x7f, (writer) => writer.u64(1)).record(0xff, (writer) => writer.u64(2));
    const inner = records((file) => unknown(file.channel(1)).message(1, "a"));
    const file = unknown(new FileBuilder()).chunk(inner).channel(2).message(2, "b").end();
    expect(readEvents(file).problems).toEqual([]);
    expect(textsOf(readEvents(file).messages)).toEqual(["a", "b"]);
  });

  test("a chunk that claims 10 GB gives what is there, and takes no memory for the rest", () => {
    const inner = twoMessages();
    const file = new FileBuilder().chunk(inner, { length: 10_000_000_000n, size: 1e10 }).end();
    const { messages, problems } = readEvents(file);
    expect(textsOf(messages)).toEqual(["a", "b"]);
    expect(problems).toEqual([]);
    const zstd = Bun.zstdCompressSync(inner);
    const compressed = new FileBuilder()
      .chunk(zstd, { size: 1e10, compression: "zstd" })
      .chunk(inner)
      .end();
    expect(textsOf(readEvents(compressed).messages)).toEqual(["a", "b"]);
    expect(readEvents(compressed).problems[0]).toContain("it has 10000000000 bytes decompressed");
  });

  test("a record that claims more than the file is reported, and the index leads to the rest", () => {
    const whole = writeFrames(
      [1, 2, 3].map((number) => testFrame(number, noise(number, 1_100_000))),
    );
    const { chunks } = readSummary(memoryInput(whole))!;
    expect(chunks.length).toBe(3);
    const view = new DataView(whole.buffer);
    view.setBigUint64(chunks[1]!.position + 1, 2n ** 60n, true);
    // The records of the second chunk are whole, and behind them is no record of a chunk.
    const { messages, problems } = readEvents(whole);
    expect(messages.map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
    expect(problems.length).toBe(1);
    expect(problems[0]).toContain(`what lies before byte ${chunks[2]!.position} is left out`);
  });

  test("a channel that is defined again with other contents is not used from then on", () => {
    const file = new FileBuilder()
      .schema(1)
      .channel(1, 1)
      .channel(1, 1)
      .message(1, "a")
      .channel(1, 1, "/other")
      .message(1, "b")
      .schema(1, "other")
      .channel(2, 1)
      .message(2, "c")
      .end();
    const { messages, problems } = readEvents(file);
    expect(textsOf(messages)).toEqual(["a", "c"]);
    expect(problems.map((text) => text.replace(/^.*?: /, ""))).toEqual([
      "it defines channel 1 again with other contents",
      "it is a message of channel 1, which is not defined or defined twice",
      "it defines schema 1 again with other contents",
    ]);
  });

  test("messages of undefined channels, and channels of undefined schemas, are reported", () => {
    const file = new FileBuilder()
      .message(7, "a")
      .channel(1, 9)
      .message(1, "b")
      .channel(2)
      .message(2, "c")
      .end();
    const { messages, problems } = readEvents(file);
    expect(textsOf(messages)).toEqual(["c"]);
    expect(problems.length).toBe(3);
    expect(problems[1]).toContain("channel 1 has the schema 9, which is not defined");
  });

  test("compressions other than zstd are reported with the program that converts them", () => {
    for (const compression of ["lz4", "brotli"]) {
      const file = new FileBuilder()
        .chunk(twoMessages(), { compression })
        .chunk(twoMessages())
        .end();
      const { messages, problems } = readEvents(file);
      expect(textsOf(messages)).toEqual(["a", "b"]);
      expect(problems.length).toBe(1);
      expect(problems[0]).toContain(`compressed with ${compression}`);
      expect(problems[0]).toContain("mcap decompress");
    }
  });

  test("a compressed chunk with another size or checksum than announced is left out", () => {
    const inner = twoMessages();
    const zstd = Bun.zstdCompressSync(inner);
    const size = inner.length;
    const wrong = [{ size: size + 1 }, { size: size - 1 }, { size, crc: 1 }] as const;
    for (const fields of wrong) {
      const file = new FileBuilder().chunk(zstd, { ...fields, compression: "zstd" }).end();
      expect(readEvents(file).messages).toEqual([]);
      expect(readEvents(file).problems.length).toBe(1);
    }
    const right = { size, crc: crc32(inner), compression: "zstd" };
    expect(textsOf(readEvents(new FileBuilder().chunk(zstd, right).end()).messages)).toEqual([
      "a",
      "b",
    ]);
  });

  test("definitions that would fill the memory end with an error", () => {
    const file = new FileBuilder();
    const topic = `/${"x".repeat(100_000)}`;
    for (let id = 1; id <= 300; id++) file.channel(id, 0, topic).message(id, "a");
    const { messages, problems } = readEvents(file.end());
    expect(messages.length).toBeLessThan(170);
    expect(problems[0]).toContain("the definitions of channels have more than 16777216 bytes");
  });
});

describe("zstd", () => {
  test("bytes are decompressed whether or not their frame tells the size", async () => {
    const bytes = new Uint8Array([...noise(1, 300_000), ...new Uint8Array(300_000)]);
    const known = Bun.zstdCompressSync(bytes);
    expect(crc32(decompressZstd(known, bytes.length))).toBe(crc32(bytes));
    const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("zstd" as "gzip"));
    const unknown = await new Response(stream).bytes();
    expect(crc32(decompressZstd(unknown, bytes.length))).toBe(crc32(bytes));
  });

  test("a bomb is refused before it is decompressed", () => {
    const bomb = new Uint8Array(Bun.zstdCompressSync(new Uint8Array(300 << 20)));
    expect(bomb.length).toBeLessThan(100_000);
    const before = process.memoryUsage.rss();
    for (const size of [100, 300 << 20]) {
      expect(refusal(() => decompressZstd(bomb, size)).message).toContain("the limit is 67108864");
    }
    // A frame that tells a small size, with blocks that hold more.
    const lying = bomb.slice();
    new DataView(lying.buffer).setUint32(5, 1000, true);
    expect(refusal(() => decompressZstd(lying, 1000)).message).toContain("the limit is 67108864");
    expect(process.memoryUsage.rss() - before).toBeLessThan(100 << 20);
  });

  test("what is no zstd is refused, whatever its first bytes are", () => {
    const valid = new Uint8Array(Bun.zstdCompressSync(noise(1, 1000)));
    for (let length = 0; length < valid.length; length++) {
      expect(refusal(() => decompressZstd(valid.slice(0, length), 1000)).code).toBe("unreadable");
    }
    for (let seed = 0; seed < 500; seed++) {
      const changed = valid.slice();
      changed[noise(seed, 3)[1]! % 20] = noise(seed, 9)[7]!;
      try {
        decompressZstd(changed, 1000);
      } catch (error) {
        expect(error).toMatchObject({ code: "unreadable" });
      }
    }
  });
});
