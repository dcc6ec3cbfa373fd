/**
 * Decodes the messages of images that viewers know: Foxglove's and those of ROS 2, in protobuf, CDR
 * and JSON. The bytes of a picture stay where they are, except in JSON.
 */
import { Cursor, memoryInput, readRegion, type Region, unreadable } from "./cursor.ts";
import { WireType } from "./protobuf.ts";
import { ExtraField, fieldNumbers, type SchemaName, schemaNames } from "./schemas.ts";

/** The fields of an image, and our own extra fields. */
export interface ImageFields {
  /** Time of the image in nanoseconds since 1970; undefined if the message has none. */
  time?: bigint;
  format?: string;
  encoding?: string;
  width?: number;
  height?: number;
  /** Bytes from one row to the next. */
  step?: number;
  isBigEndian?: boolean;
  data?: Region;
  extra: ExtraFields;
}

/** Our own fields, in a message of ours. */
export interface ExtraFields {
  name?: string;
  crc32?: number;
  number?: number;
  metadata?: string;
  session?: string;
  captured?: bigint;
  rawShape?: string;
}

/** Largest message of JSON, which is decoded in memory. */
const maxJsonBytes = 128 << 20;

const nsPerSecond = 1_000_000_000n;

/** Returns the time, or undefined for 0, which stands for no time. */
function time(seconds: bigint, nanoseconds: bigint): { time?: bigint } {
  const total = seconds * nsPerSecond + nanoseconds;
  return total === 0n ? {} : { time: total };
}

/** Names of the published fields by their numbers. */
const fieldNames = new Map(
  schemaNames.map((schema) => [
    schema,
    new Map([...fieldNumbers(schema)].map(([name, number]) => [number, name])),
  ]),
);

/** Decodes a protobuf message with one of the schemas in `schemas.ts`. */
export function decodeProtobuf(schema: SchemaName, message: Region): ImageFields {
  const names = fieldNames.get(schema)!;
  const fields: ImageFields = { extra: {} };
  const cursor = new Cursor(message);
  while (cursor.remaining > 0) {
    const tag = Number(cursor.varint());
    const number = Math.floor(tag / 8);
    const value = readValue(cursor, tag % 8);
    const name = names.get(number);
    if (typeof value === "object") setPart(fields, name, number, value);
    else setNumber(fields, name, number, value);
  }
  return fields;
}

function readValue(cursor: Cursor, wireType: number): bigint | Region {
  switch (wireType) {
    case WireType.varint:
      return cursor.varint();
    case WireType.fixed64:
      return cursor.u64();
    case WireType.fixed32:
      return BigInt(cursor.u32());
    case WireType.lengthDelimited:
      return cursor.region(Number(cursor.varint()));
    default:
      throw unreadable("its protobuf has an unknown kind of field");
  }
}

function setPart(
  fields: ImageFields,
  name: string | undefined,
  number: number,
  value: Region,
): void {
  const text = () => new Cursor(value).utf8(value.length);
  if (name === "data") fields.data = value;
  else if (name === "timestamp") Object.assign(fields, decodeTimestamp(value));
  else if (name === "format" || name === "encoding") fields[name] = text();
  else if (number === ExtraField.name) fields.extra.name = text();
  else if (number === ExtraField.metadata) fields.extra.metadata = text();
  else if (number === ExtraField.rawShape) fields.extra.rawShape = text();
  else if (number === ExtraField.session) {
    fields.extra.session = new Cursor(value).bytes(value.length).toHex();
  }
}

function setNumber(
  fields: ImageFields,
  name: string | undefined,
  number: number,
  value: bigint,
): void {
  if (name === "width" || name === "height" || name === "step") fields[name] = Number(value);
  else if (number === ExtraField.crc32) fields.extra.crc32 = Number(value);
  else if (number === ExtraField.number) fields.extra.number = Number(value);
  else if (number === ExtraField.captured) {
    fields.extra.captured = BigInt.asIntN(64, (value >> 1n) ^ -(value & 1n));
  }
}

function decodeTimestamp(message: Region): { time?: bigint } {
  const cursor = new Cursor(message);
  let [seconds, nanoseconds] = [0n, 0n];
  while (cursor.remaining > 0) {
    const tag = cursor.varint();
    const value = readValue(cursor, Number(tag % 8n));
    if (typeof value !== "bigint") continue;
    if (tag / 8n === 1n) seconds = BigInt.asIntN(64, value);
    if (tag / 8n === 2n) nanoseconds = BigInt.asIntN(32, value);
  }
  return time(seconds, nanoseconds);
}

/** The fields of ROS 2 messages, as their definitions list them. */
const rosDefinitions: Readonly<Record<string, string>> = {
  "sensor_msgs/msg/CompressedImage": "Header header\nstring format\nuint8[] data",
  "sensor_msgs/msg/Image":
    "Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data",
  "foxglove_msgs/msg/CompressedImage":
    "Time timestamp\nstring frame_id\nuint8[] data\nstring format",
  "foxglove_msgs/msg/RawImage":
    "Time timestamp\nstring frame_id\nuint32 width\nuint32 height\nstring encoding\nuint32 step\nuint8[] data",
};

export const rosImages: readonly string[] = Object.keys(rosDefinitions);

/** A field of a ROS 2 message: its type without a package, and its name. */
export type RosField = readonly [type: string, name: string];

/**
 * Returns the fields of a ROS 2 message in their order.
 *
 * @param definition text of the message, which releases of a package have changed; may be empty
 */
export function rosFields(schemaName: string, definition: string): readonly RosField[] {
  const own = definition.split(/^={3,}/m)[0]!;
  const text = own.trim() === "" ? (rosDefinitions[schemaName] ?? "") : own;
  return text.split("\n").flatMap((line): RosField[] => {
    const [, type, name] = /^\s*([\w/]+(?:\[\])?)\s+(\w+)\s*(?:#.*)?$/.exec(line) ?? [];
    return type === undefined ? [] : [[type.slice(type.lastIndexOf("/") + 1), name!]];
  });
}

/** Representations of CDR whose layout is plain: of XCDR1 and XCDR2, in both byte orders. */
const plainRepresentations = [0, 1, 6, 7];

/** Decodes a ROS 2 message in CDR. */
export function decodeCdr(definition: readonly RosField[], message: Region): ImageFields {
  const cursor = new Cursor(message);
  const representation = cursor.u8() * 256 + cursor.u8();
  if (!plainRepresentations.includes(representation)) {
    throw unreadable(`its CDR has the representation ${representation}`);
  }
  const isLittle = representation % 2 === 1;
  cursor.skip(2);
  const origin = cursor.position;
  const u32 = () => {
    cursor.skip((4 - ((cursor.position - origin) % 4)) % 4);
    return cursor.u32(isLittle);
  };
  const string = () => {
    const length = u32();
    const text = cursor.utf8(Math.max(0, length - 1));
    cursor.skip(Math.min(length, 1));
    return text;
  };
  const stamp = () => time(BigInt(u32() | 0), BigInt(u32()));
  const fields: ImageFields = { extra: {} };
  for (const [type, name] of definition) {
    if (type === "Header") {
      Object.assign(fields, stamp());
      string();
    } else if (type === "Time") Object.assign(fields, stamp());
    else if (type === "string") {
      const text = string();
      if (name === "format" || name === "encoding") fields[name] = text;
    } else if (type === "uint32") {
      const value = u32();
      if (name === "width" || name === "height" || name === "step") fields[name] = value;
    } else if (type === "uint8") fields.isBigEndian = cursor.u8() !== 0;
    else if (type === "uint8[]") fields.data = cursor.region(u32());
    else throw unreadable(`its definition has a field of the type ${type.slice(0, 50)}`);
  }
  return fields;
}

/** Decodes JSON as Foxglove's schemas and bridges of ROS have it. */
export function decodeJson(message: Region): ImageFields {
  if (message.length > maxJsonBytes) {
    throw unreadable(`its JSON has ${message.length} bytes, the limit is ${maxJsonBytes}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(readRegion(message)));
  } catch {
    throw unreadable("it is no JSON");
  }
  const image = asObject(value);
  const stamp = asObject(image["timestamp"] ?? asObject(image["header"])["stamp"]);
  const whole = (name: string) => wholeNumber(image[name]);
  const texts = (name: "format" | "encoding") =>
    typeof image[name] === "string" ? { [name]: image[name] } : {};
  return {
    ...time(
      BigInt(wholeNumber(stamp["sec"] ?? stamp["secs"])),
      BigInt(wholeNumber(stamp["nsec"] ?? stamp["nanosec"] ?? stamp["nsecs"])),
    ),
    ...texts("format"),
    ...texts("encoding"),
    ...{ width: whole("width"), height: whole("height"), step: whole("step") },
    isBigEndian: image["is_bigendian"] === true || image["is_bigendian"] === 1,
    data: bytesOf(image["data"]),
    extra: {},
  };
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function wholeNumber(value: unknown): number {
  return typeof value === "number" && Number.isSafeInteger(value) ? value : 0;
}

/** Returns bytes that are base64 text or a list of numbers. */
function bytesOf(value: unknown): Region {
  let bytes: Uint8Array | undefined;
  if (Array.isArray(value)) bytes = Uint8Array.from(value as number[]);
  else if (typeof value === "string") {
    try {
      bytes = Uint8Array.fromBase64(value);
    } catch {
      throw unreadable("its data is no base64");
    }
  }
  if (bytes === undefined) throw unreadable("it has no data");
  return { input: memoryInput(bytes), position: 0, length: bytes.length };
}
