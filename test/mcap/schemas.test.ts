// Covers: mcap/protobuf.ts

import { expect, test } from "bun:test";
import { ProtobufWriter } from "../../src/mcap/protobuf.ts";
import { ExtraField, schemaData, schemaNames } from "../../src/mcap/schemas.ts";
import { bringPackages, mcapPackages } from "../helper/npm-packages.ts";

const { load, needs } = bringPackages(mcapPackages);

/** Options of timestamp.proto, which its publisher has and no reader of messages needs. */
const timestampOptions = new ProtobufWriter()
  .string(1, "com.google.protobuf")
  .string(8, "TimestampProto")
  .integer(10, 1)
  .string(11, "google.golang.org/protobuf/types/known/timestamppb")
  .integer(31, 1)
  .string(36, "GPB")
  .string(37, "Google.Protobuf.WellKnownTypes")
  .finish();

/** Adds the options to the first file of a FileDescriptorSet, before its last field. */
function withOptions(set: Uint8Array): Uint8Array {
  const length = set[1]!;
  const file = set.subarray(2, 2 + length);
  const syntax = file.length - "\x62\x06proto3".length;
  const extended = new ProtobufWriter().bytes(8, timestampOptions).finish();
  const whole = [...file.subarray(0, syntax), ...extended, ...file.subarray(syntax)];
  const first = new ProtobufWriter().bytes(1, new Uint8Array(whole)).finish();
  return new Uint8Array([...first, ...set.subarray(2 + length)]);
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

test("Foxglove's schemas without the extra fields are byte for byte those that Foxglove publishes", () => {
  const published = {
    "foxglove.CompressedImage": [493, "2c5aabcb"],
    "foxglove.RawImage": [549, "d0af4837"],
    "foxglove.CompressedVideo": [493, "67448b25"],
  } as const;
  for (const [name, [length, start]] of Object.entries(published)) {
    const bytes = withOptions(schemaData(name as keyof typeof published, false));
    expect([name, bytes.length, sha256(bytes).slice(0, 8)]).toEqual([name, length, start]);
  }
});

test(`${needs}protobufjs reads every schema with the extra fields, and each field once`, () => {
  if (load === undefined) return;
  const { Root } = load("protobufjs");
  const { FileDescriptorSet } = load("protobufjs/ext/descriptor");
  for (const name of schemaNames) {
    const root = Root.fromDescriptor(FileDescriptorSet.decode(schemaData(name)));
    root.resolveAll();
    const { fields } = root.lookupType(name);
    const numbers = Object.values<{ id: number }>(fields).map(({ id }) => id);
    expect(new Set(numbers).size).toBe(numbers.length);
    expect(numbers).toEqual(expect.arrayContaining(Object.values(ExtraField)));
    expect(fields.data.type).toBe("bytes");
    expect(fields.timestamp.resolvedType.fullName).toBe(".google.protobuf.Timestamp");
    expect(fields.crc32.type).toBe("fixed32");
    expect(fields.captured.type).toBe("sint64");
  }
});

test("a protobuf integer takes as many bytes as its value needs, and a negative one ten", () => {
  const encoded = (value: bigint) => new ProtobufWriter().integer(1, value).finish().toHex();
  expect(encoded(0n)).toBe("");
  expect(encoded(1n)).toBe("0801");
  expect(encoded(127n)).toBe("087f");
  expect(encoded(300n)).toBe("08ac02");
  expect(encoded(2n ** 31n)).toBe("088080808008");
  expect(encoded(2n ** 64n - 1n)).toBe("08ffffffffffffffffff01");
  expect(encoded(-1n)).toBe("08ffffffffffffffffff01");
  const zigzag = (value: bigint) => new ProtobufWriter().sint64(1, value).finish().toHex();
  expect(zigzag(-1n)).toBe("0801");
  expect(zigzag(1n)).toBe("0802");
  expect(zigzag(-(2n ** 63n))).toBe("08ffffffffffffffffff01");
});

test("a protobuf message grows beyond its first buffer without losing a byte", () => {
  const bytes = new Uint8Array(100_000).map((_, index) => index);
  const writer = new ProtobufWriter().string(1, "a").bytes(2, bytes).fixed32(3, 0);
  const message = writer.finish();
  expect(message.length).toBe(3 + 4 + 100_000 + 5);
  expect(message.subarray(7, 100_007)).toEqual(bytes);
  expect(message.subarray(100_007).toHex()).toBe("1d00000000");
});
