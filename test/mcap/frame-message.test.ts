import { expect, test } from "bun:test";
import { encodeFrame, type RecordedFrame } from "../../src/mcap/frame-message.ts";
import { schemaData } from "../../src/mcap/schemas.ts";
import { bringPackages, mcapPackages } from "../helper/npm-packages.ts";

const { load, needs } = bringPackages(mcapPackages);

const frame: RecordedFrame = {
  source: "visible",
  name: "1.jpg",
  sequence: 42,
  session: "00112233445566778899aabbccddeeff",
  captured: 1_764_486_723_123_456_789n,
  size: 3,
  metadata: "",
  crc32: 0xdeadbeef,
  received: 1_764_486_724_000_000_000n,
};

/** Decodes a frame's message by the reflection of its own schema, as viewers do. */
function decoded(facts: RecordedFrame, picture: Uint8Array): any {
  const { schema, head } = encodeFrame(facts)!;
  const { Root } = load!("protobufjs");
  const { FileDescriptorSet } = load!("protobufjs/ext/descriptor");
  const root = Root.fromDescriptor(FileDescriptorSet.decode(schemaData(schema)));
  const type = root.resolveAll().lookupType(schema);
  const message = new Uint8Array([...head, ...picture]);
  return { schema, ...type.toObject(type.decode(message), { defaults: true, longs: String }) };
}

test(`${needs}a JPEG becomes a CompressedImage from which everything about the frame can be read`, () => {
  if (load === undefined) return;
  const { session, data, ...rest } = decoded(frame, new Uint8Array([1, 2, 3]));
  expect(rest).toEqual({
    schema: "foxglove.CompressedImage",
    timestamp: { seconds: "1764486723", nanos: 123456789 },
    frame_id: "visible",
    format: "jpeg",
    name: "1.jpg",
    crc32: 0xdeadbeef,
    number: "42",
    metadata: "",
    media_type: "image/jpeg",
    received: "1764486724000000000",
    captured: "1764486723123456789",
    raw_shape: "",
    is_key_frame: false,
  });
  expect(Buffer.from(session).toString("hex")).toBe(frame.session);
  expect([...data]).toEqual([1, 2, 3]);
});

test(`${needs}a capture time before 1970 is exact in each of its fields`, () => {
  if (load === undefined) return;
  const before = decoded({ ...frame, captured: -1n }, new Uint8Array(3));
  expect(before.timestamp).toEqual({ seconds: "-1", nanos: 999_999_999 });
  expect(before.captured).toBe("-1");
  const earliest = decoded({ ...frame, captured: -(2n ** 63n) }, new Uint8Array(3));
  expect(earliest.timestamp).toEqual({ seconds: "-9223372037", nanos: 145_224_192 });
  expect(earliest.captured).toBe("-9223372036854775808");
});

test(`${needs}raw grey becomes a RawImage, with its shape twice: for viewers and exactly`, () => {
  if (load === undefined) return;
  const raw = { width: 3, height: 2, format: "gray16le" };
  const message = decoded({ ...frame, name: "1.raw", size: 12, raw }, new Uint8Array(12));
  expect(message).toMatchObject({
    schema: "foxglove.RawImage",
    ...{ width: 3, height: 2, encoding: "mono16", step: 6 },
    raw_shape: "3x2:gray16le",
  });
});

test("the schema is Foxglove's where the bytes fit one, and otherwise ours", () => {
  const schemaOf = (facts: Partial<RecordedFrame>) => encodeFrame({ ...frame, ...facts })!.schema;
  for (const name of ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.avif"]) {
    expect([name, schemaOf({ name })]).toEqual([name, "foxglove.CompressedImage"]);
  }
  // These have a header or a byte order that no viewer expects.
  for (const name of ["a.pgm", "a.bmp", "a.tiff", "a.txt", "a", "a.mp4"]) {
    expect([name, schemaOf({ name })]).toEqual([name, "frames.Frame"]);
  }
  for (const name of ["a.h264", "a.h265"]) {
    expect([name, schemaOf({ name })]).toEqual([name, "foxglove.CompressedVideo"]);
  }
  expect(schemaOf({ mediaType: "video/h264", isKey: true })).toBe("foxglove.CompressedVideo");
  const raw = (format: string, size: number) =>
    schemaOf({ size, raw: { width: 3, height: 2, format } });
  expect(raw("gray16le", 12)).toBe("foxglove.RawImage");
  expect(raw("gray16be", 12)).toBe("frames.Frame");
  expect(raw("gray16le", 11)).toBe("frames.Frame");
  expect(raw("uyvy422", 16)).toBe("foxglove.RawImage");
  expect(raw("rgb24", 18)).toBe("foxglove.RawImage");
  expect(raw("nv12", 9)).toBe("foxglove.RawImage");
  expect(raw("yuv420p", 9)).toBe("frames.Frame");
});

test("frame_id is the one of the frame's metadata, if that has text under this name", () => {
  const textOf = (metadata: string) =>
    new TextDecoder().decode(encodeFrame({ ...frame, metadata })!.head);
  expect(textOf('{"frame_id":"front_left"}')).toContain("front_left");
  expect(textOf('{"frame_id":7}')).toContain("visible");
  expect(textOf('{"frame_id":')).toContain("visible");
});

test("the picture's length ends the head, and a frame of no bytes has no such field", () => {
  const { head, crcPosition } = encodeFrame(frame)!;
  expect(head.subarray(-2).toHex()).toBe("1203");
  expect(head.subarray(crcPosition, crcPosition + 4).toHex()).toBe("efbeadde");
  expect(encodeFrame({ ...frame, size: 0 })!.head).toEqual(head.subarray(0, -2));
});

test("a message has less than 2 GiB, so that a larger frame has none", () => {
  const { head } = encodeFrame({ ...frame, size: 2 ** 31 - 1000 })!;
  expect(head.length).toBeLessThan(1000);
  expect(encodeFrame({ ...frame, size: 2 ** 31 - 1 })).toBeUndefined();
  expect(encodeFrame({ ...frame, size: 2 ** 32 })).toBeUndefined();
});
