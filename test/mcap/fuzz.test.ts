import { expect, test } from "bun:test";
import { FramesError } from "../../src/errors.ts";
import { memoryInput } from "../../src/mcap/cursor.ts";
import { largeFrameFacts, pictureBytes, pictureDecoder } from "../../src/mcap/picture.ts";
import { McapReader } from "../../src/mcap/reader.ts";
import { Opcode, RecordWriter } from "../../src/mcap/records.ts";
import { readSummary } from "../../src/mcap/summary.ts";
import { Random } from "../wire/fuzz.ts";
import { noise, testFrame, writeFrames } from "./files.ts";

/** Number of inputs; a million in the long form. */
const inputs = Number(process.env["FRAMES_FUZZ_INPUTS"] ?? 5000);
const seed = Number(process.env["FRAMES_FUZZ_SEED"] ?? 20261130);

/** Largest picture that is read whole, so that the fuzzer stays fast. */
const maxReadBytes = 1 << 20;

/** Records of the channels and messages of others, with a chunk for each compression. */
function foreignFile(): Uint8Array {
  const inner = new RecordWriter();
  const schemas = ["foxglove.CompressedImage", "sensor_msgs/msg/Image", "foxglove.RawImage"];
  const encodings = ["protobuf", "cdr", "json"];
  const messages = [
    Buffer.from("0a060880e2cfaa061203ffd8ff1a046a706567", "hex"),
    Buffer.from(
      `00010000${"01000000".repeat(2)}020000006100000001000000020000000600${"00".repeat(2)}6d6f6e6f380000000200000002000000aabb`,
      "hex",
    ),
    Buffer.from(
      '{"timestamp":{"sec":1,"nsec":2},"width":2,"height":1,"encoding":"mono8","data":"AAA="}',
    ),
  ];
  for (const [index, name] of schemas.entries()) {
    const id = index + 1;
    inner.record(Opcode.schema, () => inner.u16(id).text(name).text("e").u32(0));
    inner.record(Opcode.channel, () =>
      inner.u16(id).u16(id).text(`/t${id}`).text(encodings[index]!).map({}),
    );
    inner.record(Opcode.message, () => inner.u16(id).u32(1).u64(1).u64(1).raw(messages[index]!));
  }
  const file = new RecordWriter();
  file.raw(writeFrames([]).subarray(0, 8));
  for (const compression of ["", "zstd"]) {
    const body = compression === "" ? inner.bytes : Bun.zstdCompressSync(inner.bytes.slice());
    file.record(Opcode.chunk, () =>
      file.u64(1).u64(1).u64(inner.length).u32(0).text(compression).u64(body.length).raw(body),
    );
  }
  file.record(Opcode.metadata, () => file.text("frames.frame").map({ name: "a", captured: "1" }));
  return file.bytes.slice();
}

const corpus: readonly Uint8Array[] = [
  writeFrames([1, 2, 3].map((number) => testFrame(number, noise(number, 50)))),
  writeFrames([testFrame(1, noise(1, 12), { raw: { width: 3, height: 2, format: "gray16le" } })]),
  foreignFile(),
];

/** Numbers that lengths and times are replaced by. */
const hostileNumbers = [0n, 1n, 0xffn, 0xffff_ffffn, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];

function mutate(original: Uint8Array, random: Random): Uint8Array {
  let bytes = original.slice();
  for (let changes = 1 + random.below(4); changes > 0; changes--) {
    const at = random.below(bytes.length);
    const kind = random.below(5);
    if (kind === 0) bytes[at] = random.below(256);
    else if (kind === 1) bytes[at]! ^= 1 << random.below(8);
    else if (kind === 2 && bytes.length - at >= 8) {
      new DataView(bytes.buffer).setBigUint64(at, random.pick(hostileNumbers), true);
    } else if (kind === 3 && bytes.length > 20) {
      bytes = bytes.slice(0, 8 + random.below(bytes.length - 8));
    } else {
      const other = random.pick(corpus);
      const from = random.below(other.length);
      const part = other.subarray(from, from + random.below(200));
      bytes = new Uint8Array(Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at)]));
    }
  }
  return bytes;
}

/** Reads everything that an import reads. Only `unreadable` is an error of a file. */
function readAll(bytes: Uint8Array): number {
  const input = memoryInput(bytes);
  let found = 0;
  try {
    readSummary(input);
    const reader = new McapReader(input);
    for (const event of reader.read()) {
      found++;
      if (event.type === "metadata") largeFrameFacts(event.entries);
      if (event.type !== "message") continue;
      const { channel, data, position, chunk } = event.message;
      try {
        reader.messageAt(data.input, position, chunk);
        const picture = pictureDecoder(channel)?.(data);
        if (picture !== undefined && picture.data.length <= maxReadBytes) pictureBytes(picture);
      } catch (error) {
        if (!(error instanceof FramesError) || error.code !== "unreadable") throw error;
      }
    }
  } catch (error) {
    if (!(error instanceof FramesError) || error.code !== "unreadable") throw error;
  }
  return found;
}

test(`${inputs} mutated files end with an error of the file or without one, and take little memory`, () => {
  const random = new Random(seed);
  const before = process.memoryUsage.rss();
  let found = 0;
  for (let index = 0; index < inputs; index++) {
    const bytes = mutate(random.pick(corpus), random);
    try {
      found += readAll(bytes);
    } catch (error) {
      throw new Error(`FRAMES_FUZZ_SEED=${seed}, input ${index}: ${bytes.toHex()}`, {
        cause: error,
      });
    }
  }
  // Most inputs still have something to read, so that the fuzzer goes beyond the first bytes.
  expect(found).toBeGreaterThan(inputs);
  expect(process.memoryUsage.rss() - before).toBeLessThan(300 << 20);
});
