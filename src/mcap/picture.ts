/** Finds the pictures in the messages of an MCAP file: frames of ours, and images of others. */
import { isMetadata } from "../common/row-values.ts";
import type { RawShape } from "../frame.ts";
import { readRegion, type Region, unreadable } from "./cursor.ts";
import { rawEncodings, rowBytes } from "./frame-message.ts";
import {
  decodeCdr,
  decodeJson,
  decodeProtobuf,
  type ExtraFields,
  type ImageFields,
  rosFields,
  rosImages,
} from "./image-fields.ts";
import type { McapChannel } from "./reader.ts";
import { type SchemaName, schemaNames } from "./schemas.ts";

/** What a message of ours says of its frame. */
export interface FrameFacts {
  readonly name: string;
  /** Undefined if it is not known. */
  readonly crc32: number | undefined;
  readonly sequence: number;
  /** 32 hexadecimal digits. */
  readonly session: string;
  /** Nanoseconds since 1970. */
  readonly captured: bigint;
  readonly metadata: string;
}

/** A picture in a message. */
export interface MessagePicture {
  /** Undefined for an image of another program. */
  readonly facts: FrameFacts | undefined;
  /** Time of the image in nanoseconds since 1970; undefined if the message does not tell it. */
  readonly time: bigint | undefined;
  readonly raw: RawShape | undefined;
  /** File name extension that fits its bytes, without a dot. */
  readonly extension: string;
  /** Its bytes, with padding between rows if `padding` is set. */
  readonly data: Region;
  readonly padding: RowPadding | undefined;
}

/** Rows of a raw image with unused bytes behind each. */
export interface RowPadding {
  readonly rows: number;
  /** Bytes of a row without the unused ones. */
  readonly rowBytes: number;
  /** Bytes from one row to the next. */
  readonly step: number;
}

/** Returns the picture of a message. Throws `unreadable` if it has none that is understood. */
export type PictureDecoder = (message: Region) => MessagePicture;

/**
 * Returns the decoder of a channel's messages, or undefined if they are no pictures.
 */
export function pictureDecoder({
  messageEncoding,
  schema,
}: McapChannel): PictureDecoder | undefined {
  if (schema === undefined) return undefined;
  // ROS 2 has the part msg in its names, and ROS 1 and Foxglove's JSON have not.
  const name = schema.name.replace(/^(sensor_msgs|foxglove_msgs)\/(?!msg\/)/, "$1/msg/");
  if (messageEncoding === "protobuf" && schemaNames.includes(name as SchemaName)) {
    return (message) => pictureOf(decodeProtobuf(name as SchemaName, message));
  }
  if (messageEncoding === "cdr" && rosImages.includes(name)) {
    const text = schema.encoding === "ros2msg" ? new TextDecoder().decode(schema.data) : "";
    const definition = rosFields(name, text);
    return (message) => pictureOf(decodeCdr(definition, message));
  }
  if (messageEncoding === "json" && [...schemaNames, ...rosImages].includes(name)) {
    return (message) => pictureOf(decodeJson(message));
  }
  return undefined;
}

/** Returns the facts that a Metadata record has of the message before it. */
export function largeFrameFacts(entries: ReadonlyMap<string, string>): FrameFacts | undefined {
  const captured = entries.get("captured") ?? "";
  if (!/^-?\d{1,19}$/.test(captured)) return undefined;
  return factsOf({
    name: entries.get("name") ?? "",
    crc32: Number.parseInt(entries.get("crc32") ?? "", 16),
    number: Number(entries.get("number")),
    session: entries.get("session") ?? "",
    captured: BigInt.asIntN(64, BigInt(captured)),
    metadata: entries.get("metadata") ?? "",
  });
}

/** Returns the facts of a frame of ours; undefined if a part is missing or impossible. */
function factsOf(extra: ExtraFields): FrameFacts | undefined {
  const { name = "", crc32 = 0, number = 0, session = "", captured = 0n, metadata = "" } = extra;
  const nameBytes = Buffer.byteLength(name);
  const isValid =
    nameBytes >= 1 &&
    nameBytes <= 255 &&
    Number.isSafeInteger(number) &&
    number >= 1 &&
    /^[0-9a-f]{32}$/.test(session) &&
    crc32 >= 0 &&
    (metadata === "" || isMetadata(metadata));
  return isValid ? { name, crc32, sequence: number, session, captured, metadata } : undefined;
}

const unknownMessage = "it has no picture that frames understands";

function pictureOf(fields: ImageFields): MessagePicture {
  const { data, extra, encoding } = fields;
  const facts = factsOf(extra);
  const common = { facts, time: fields.time };
  if (facts !== undefined) {
    const bytes = data ?? emptyRegion;
    return {
      ...common,
      raw: parseShape(extra.rawShape),
      extension: "",
      data: bytes,
      padding: undefined,
    };
  }
  if (data === undefined || data.length === 0) throw unreadable(unknownMessage);
  if (encoding !== undefined) return { ...common, extension: "raw", ...rawPicture(fields, data) };
  const extension = detectExtension(data, fields.format ?? "");
  return { ...common, raw: undefined, extension, data, padding: undefined };
}

const emptyRegion: Region = { input: { size: 0, read: () => 0 }, position: 0, length: 0 };

/** Parses a shape such as `640x512:gray16le`, as the writer of a file formats it. */
function parseShape(text: string | undefined): RawShape | undefined {
  const [, width, height, format] =
    /^([1-9]\d{0,8})x([1-9]\d{0,8}):(\w{1,50})$/.exec(text ?? "") ?? [];
  if (format === undefined) return undefined;
  return { width: Number(width), height: Number(height), format };
}

/** ffmpeg's pixel format by the names of Foxglove and ROS, in little-endian byte order. */
const formats = new Map<string, string>([
  ...Object.entries(rawEncodings).map(([format, { encoding }]): [string, string] => [
    encoding,
    format,
  ]),
  ["8UC1", "gray"],
  ["16UC1", "gray16le"],
  ["8UC3", "bgr24"],
  ["8UC4", "bgra"],
  ["uyvy", "uyvy422"],
  ["yuyv", "yuyv422"],
]);

function rawPicture(
  { encoding = "", width = 0, height = 0, step = 0, isBigEndian = false }: ImageFields,
  data: Region,
): Pick<MessagePicture, "raw" | "data" | "padding"> {
  const format = formats.get(encoding);
  if (format === undefined) {
    throw unreadable(
      `its pixels are encoded as ${JSON.stringify(encoding.slice(0, 50))}, which is unknown`,
    );
  }
  const layout = rawEncodings[format]!;
  const used = rowBytes(layout, width);
  const rows = height * layout.rowsPerLine;
  const stride = step === 0 ? used : step;
  const needed = stride * (rows - 1) + used;
  if (
    used === 0 ||
    rows === 0 ||
    !Number.isInteger(rows) ||
    stride < used ||
    needed > data.length
  ) {
    throw unreadable(`its ${data.length} bytes are no ${width}x${height} pixels of ${encoding}`);
  }
  const raw = { width, height, format: isBigEndian ? format.replace(/le$/, "be") : format };
  if (stride === used) return { raw, data: { ...data, length: needed }, padding: undefined };
  return {
    raw,
    data: { ...data, length: needed },
    padding: { rows, rowBytes: used, step: stride },
  };
}

/** Returns the bytes of a picture. Its size must fit into memory. */
export function pictureBytes({
  data,
  padding,
}: Pick<MessagePicture, "data" | "padding">): Uint8Array {
  const bytes = readRegion(data);
  if (padding === undefined) return bytes;
  const { rows, rowBytes: used, step } = padding;
  const packed = new Uint8Array(rows * used);
  for (let row = 0; row < rows; row++) {
    packed.set(bytes.subarray(row * step, row * step + used), row * used);
  }
  return packed;
}

/** First bytes of compressed images, as hexadecimal digits; a dot stands for any digit. */
const signatures: readonly (readonly [signature: RegExp, extension: string])[] = [
  [/^ffd8ff/, "jpg"],
  [/^89504e470d0a1a0a/, "png"],
  [/^52494646.{8}57454250/, "webp"],
  [/^.{8}6674797061766966/, "avif"],
  [/^00000001|^000001/, "h264"],
];

function detectExtension(data: Region, format: string): string {
  const named = extensionOf(format);
  const start = readRegion({ ...data, length: Math.min(12, data.length) }).toHex();
  const found = signatures.find(([signature]) => signature.test(start))?.[1];
  // H.265 begins like H.264, so that only the format tells them apart.
  return found === undefined || (found === "h264" && named === "h265") ? named : found;
}

/** Returns an extension from a format such as `jpeg` or ROS' `rgb8; jpeg compressed bgr8`. */
function extensionOf(format: string): string {
  const word = /(?:^|; ?)(jpeg|png|webp|avif|h264|h265|vp9|av1)\b/.exec(format)?.[1];
  return word === "jpeg" ? "jpg" : (word ?? "bin");
}
