// Covers: mcap/image-fields.ts

import { describe, expect, test } from "bun:test";
import { memoryInput, type Region } from "../../src/mcap/cursor.ts";
import { encodeFrame } from "../../src/mcap/frame-message.ts";
import { pictureBytes, pictureDecoder } from "../../src/mcap/picture.ts";
import type { McapChannel } from "../../src/mcap/reader.ts";
import { schemaData, type SchemaName } from "../../src/mcap/schemas.ts";
import { bringPackages, mcapPackages } from "../helper/npm-packages.ts";
import { refusal } from "../helper/refusal.ts";
import { testFrame } from "./files.ts";

const { load, needs } = bringPackages(mcapPackages);

function region(bytes: Uint8Array): Region {
  return { input: memoryInput(bytes), position: 0, length: bytes.length };
}

function channel(messageEncoding: string, name: string, encoding = "", data = ""): McapChannel {
  const schema = { name, encoding, data: new TextEncoder().encode(data) };
  return { id: 1, topic: "/camera", messageEncoding, schema };
}

/** Decodes a message, and reads the bytes of its picture. */
function decode(of: McapChannel, message: Uint8Array) {
  const picture = pictureDecoder(of)!(region(message));
  const { data: _, padding: __, ...rest } = picture;
  return { ...rest, bytes: [...pictureBytes(picture)] };
}

const jpeg = [0xff, 0xd8, 0xff, 0xe0, 1, 2, 3];
const time = 1_700_000_000_123_456_789n;
const seconds = 1_700_000_000;
const nanoseconds = 123_456_789;
const image = { facts: undefined, time, raw: undefined, extension: "jpg", bytes: jpeg };

/** Text of a ROS 2 definition, with its parts. */
const header = `${"=".repeat(80)}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n${"=".repeat(80)}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n`;
const compressedImage = `std_msgs/Header header # time\n\n# jpeg or png\nstring format\nuint8[] data\n${header}`;
const rawImage = `std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data\n${header}`;

/** Encodes a message as ROS 2 does. */
function ros(definition: string, message: object): Uint8Array {
  const { MessageWriter } = load!("@foxglove/rosmsg2-serialization");
  const parts = definition.split(/^=+\n/m).map((text) => {
    const name = /^MSG: (.*)\n/.exec(text)?.[1];
    const fields = text.replace(/^MSG: .*\n/, "").split("\n");
    const definitions = fields.flatMap((line) => {
      const [, type, array, field] = /^([\w/]+)(\[\])? (\w+)/.exec(line) ?? [];
      const isComplex = type?.includes("/") === true;
      return type === undefined
        ? []
        : [{ type, name: field, isComplex, isArray: array !== undefined }];
    });
    return { ...(name === undefined ? {} : { name }), definitions };
  });
  return new MessageWriter(parts).writeMessage(message);
}

const stamp = { sec: seconds, nanosec: nanoseconds };

describe("images of ROS 2", () => {
  test(`${needs}a CompressedImage in CDR is found by its definition, or by its name`, () => {
    if (load === undefined) return;
    for (const frame_id of ["", "a", "camera_optical_frame"]) {
      const message = ros(compressedImage, {
        ...{ header: { stamp, frame_id }, format: "jpeg", data: new Uint8Array(jpeg) },
      });
      for (const [encoding, text] of [
        ["ros2msg", compressedImage],
        ["ros2msg", ""],
        ["ros2idl", "module sensor_msgs {};"],
      ] as const) {
        const of = channel("cdr", "sensor_msgs/msg/CompressedImage", encoding, text);
        expect(decode(of, message)).toEqual(image);
      }
    }
  });

  test(`${needs}an Image in CDR becomes a raw frame, without the padding of its rows`, () => {
    if (load === undefined) return;
    const of = channel("cdr", "sensor_msgs/msg/Image", "ros2msg", rawImage);
    const send = (fields: object) =>
      decode(of, ros(rawImage, { header: { stamp, frame_id: "c" }, is_bigendian: 0, ...fields }));
    const rows = { height: 2, width: 3, data: new Uint8Array([1, 2, 3, 9, 4, 5, 6, 9]) };
    expect(send({ ...rows, encoding: "mono8", step: 4 })).toEqual({
      ...{ facts: undefined, time, extension: "raw", bytes: [1, 2, 3, 4, 5, 6] },
      raw: { width: 3, height: 2, format: "gray" },
    });
    const wide = { height: 1, width: 2, step: 4, data: new Uint8Array([1, 2, 3, 4]) };
    const formats = {
      ...{ mono16: "gray16le", "16UC1": "gray16le", yuv422: "uyvy422", yuv422_yuy2: "yuyv422" },
    };
    for (const [encoding, format] of Object.entries(formats)) {
      expect(send({ ...wide, encoding }).raw).toEqual({ width: 2, height: 1, format });
    }
    expect(send({ ...wide, encoding: "mono16", is_bigendian: 1 }).raw?.format).toBe("gray16be");
    expect(refusal(() => send({ ...wide, encoding: "rvl" })).message).toContain('"rvl"');
    expect(refusal(() => send({ ...wide, encoding: "rgb8" })).message).toContain("no 2x1 pixels");
    expect(refusal(() => send({ ...wide, height: 0, encoding: "mono8" })).code).toBe("unreadable");
  });

  test("CDR in the other byte order is read, and one of another layout is refused", () => {
    const of = channel("cdr", "sensor_msgs/msg/CompressedImage", "ros2msg", compressedImage);
    const body = "0000000900000007 00000002 6100 0000 00000001 00 000000 00000007".replaceAll(
      " ",
      "",
    );
    const message = (head: string) => new Uint8Array([...Buffer.from(head + body, "hex"), ...jpeg]);
    expect(decode(of, message("00000000"))).toEqual({ ...image, time: 9_000_000_007n });
    expect(decode(of, message("00060000"))).toEqual({ ...image, time: 9_000_000_007n });
    expect(refusal(() => decode(of, message("00030000"))).message).toContain("representation 3");
  });

  test("a definition of Foxglove's package with or without frame_id is followed", () => {
    const older = "builtin_interfaces/Time timestamp\nuint8[] data\nstring format\n";
    const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");
    const message = new Uint8Array([
      ...hex("00010000 09000000 07000000 07000000"),
      ...jpeg,
      ...hex("00 05000000 6a706567 00"),
    ]);
    const name = "foxglove_msgs/msg/CompressedImage";
    const found = decode(channel("cdr", name, "ros2msg", older), message);
    expect(found).toEqual({ ...image, time: 9_000_000_007n });
  });
});

describe("images of Foxglove", () => {
  /** Encodes a message with Foxglove's own fields, in the order of their numbers. */
  function protobuf(schema: SchemaName, message: object): Uint8Array {
    const { Root } = load!("protobufjs");
    const { FileDescriptorSet } = load!("protobufjs/ext/descriptor");
    const root = Root.fromDescriptor(FileDescriptorSet.decode(schemaData(schema, false)));
    const type = root.resolveAll().lookupType(schema);
    return type.encode(type.fromObject(message)).finish();
  }

  test(`${needs}a CompressedImage, RawImage and CompressedVideo in protobuf are found`, () => {
    if (load === undefined) return;
    const timestamp = { seconds, nanos: nanoseconds };
    const compressed = { timestamp, frameId: "c", data: new Uint8Array(jpeg), format: "jpeg" };
    const of = (name: string) => channel("protobuf", name, "protobuf");
    expect(
      decode(of("foxglove.CompressedImage"), protobuf("foxglove.CompressedImage", compressed)),
    ).toEqual(image);
    const pixels = { timestamp, width: 3, height: 1, encoding: "rgb8", data: new Uint8Array(9) };
    const raw = decode(of("foxglove.RawImage"), protobuf("foxglove.RawImage", pixels));
    expect(raw.raw).toEqual({ width: 3, height: 1, format: "rgb24" });
    const video = { timestamp, data: new Uint8Array([9, 9]), format: "h265" };
    const picture = decode(
      of("foxglove.CompressedVideo"),
      protobuf("foxglove.CompressedVideo", video),
    );
    expect(picture).toMatchObject({ extension: "h265", bytes: [9, 9] });
    const withoutTime = protobuf("foxglove.CompressedImage", { data: new Uint8Array(jpeg) });
    expect(decode(of("foxglove.CompressedImage"), withoutTime).time).toBeUndefined();
    const empty = protobuf("foxglove.CompressedImage", { timestamp });
    expect(refusal(() => decode(of("foxglove.CompressedImage"), empty)).code).toBe("unreadable");
  });

  test("images in JSON are found, with times as Foxglove and as ROS have them", () => {
    const json = (name: string, value: unknown) =>
      decode(channel("json", name, "jsonschema"), new TextEncoder().encode(JSON.stringify(value)));
    const data = new Uint8Array(jpeg).toBase64();
    const timestamp = { sec: seconds, nsec: nanoseconds };
    expect(json("foxglove.CompressedImage", { timestamp, data, format: "jpeg" })).toEqual(image);
    for (const name of ["sensor_msgs/msg/CompressedImage", "sensor_msgs/CompressedImage"]) {
      expect(json(name, { header: { stamp }, data: jpeg, format: "jpeg" })).toEqual(image);
    }
    const raw = { timestamp, width: 7, height: 1, encoding: "mono8", step: 7, data };
    expect(json("foxglove.RawImage", raw).raw).toEqual({ width: 7, height: 1, format: "gray" });
    expect(refusal(() => json("foxglove.RawImage", { ...raw, data: "?" })).code).toBe("unreadable");
    expect(refusal(() => json("foxglove.RawImage", null)).code).toBe("unreadable");
    const of = channel("json", "foxglove.RawImage", "jsonschema");
    expect(refusal(() => decode(of, new Uint8Array([0xff]))).message).toContain("no JSON");
  });
});

test("the extension follows from the first bytes, and only then from the format", () => {
  const of = channel("json", "foxglove.CompressedImage", "jsonschema");
  const extension = (start: string, format: string) => {
    const data = Buffer.from(start.padEnd(40, "0"), "hex").toString("base64");
    return decode(of, new TextEncoder().encode(JSON.stringify({ data, format }))).extension;
  };
  expect(extension("ffd8ffe0", "png")).toBe("jpg");
  expect(extension("89504e470d0a1a0a", "")).toBe("png");
  expect(extension("524946460000000057454250", "")).toBe("webp");
  expect(extension("0000001c6674797061766966", "")).toBe("avif");
  expect(extension("0000000165", "")).toBe("h264");
  expect(extension("0000000165", "h264")).toBe("h264");
  // H.265 has the same start code.
  expect(extension("0000000126", "h265")).toBe("h265");
  expect(extension("aa", "rgb8; jpeg compressed bgr8")).toBe("jpg");
  expect(extension("aa", "16UC1; compressedDepth png")).toBe("bin");
  expect(extension("aa", "../../etc")).toBe("bin");
});

test("channels of other messages are no pictures", () => {
  for (const [encoding, name] of [
    ["protobuf", "foxglove.PointCloud"],
    ["cdr", "sensor_msgs/msg/PointCloud2"],
    ["cdr", "foxglove.CompressedImage"],
    ["ros1", "sensor_msgs/Image"],
  ] as const) {
    expect(pictureDecoder(channel(encoding, name))).toBeUndefined();
  }
  const bare = { id: 1, topic: "/t", schema: undefined };
  expect(pictureDecoder({ ...bare, messageEncoding: "json" })).toBeUndefined();
});

test("a message with impossible facts of a frame is an image like any other", () => {
  const { bytes, ...frame } = testFrame(1, new Uint8Array(jpeg), { name: "a.jpg" });
  const of = channel("protobuf", "foxglove.CompressedImage", "protobuf");
  const message = ({ head }: { head: Uint8Array }) => new Uint8Array([...head, ...bytes]);
  const size = bytes.length;
  expect(decode(of, message(encodeFrame({ ...frame, size })!)).facts).toMatchObject({
    ...{ name: "a.jpg", sequence: 1 },
  });
  for (const wrong of [{ name: "" }, { sequence: 0 }, { session: "00" }]) {
    const encoded = encodeFrame({ ...frame, size, mediaType: "image/jpeg", ...wrong })!;
    expect(decode(of, message(encoded)).facts).toBeUndefined();
  }
});
