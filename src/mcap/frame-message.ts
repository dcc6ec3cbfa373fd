/**
 * Encodes a frame as a protobuf message, in the same way for files and for live viewers. The picture
 * is the last field, so that its bytes are one range behind the `head`.
 */
import { parseObject } from "../common/json-object.ts";
import { mediaTypeOf } from "../common/media-types.ts";
import type { RawShape } from "../frame.ts";
import { ProtobufWriter } from "./protobuf.ts";
import { ExtraField, fieldNumbers, type SchemaName, schemaNames } from "./schemas.ts";

/** A frame with all that is known of it, except for its bytes. */
export interface RecordedFrame {
  readonly source: string;
  readonly name: string;
  readonly sequence: number;
  /** Session that sent the frame: 32 hexadecimal digits. */
  readonly session: string;
  /** Capture time in nanoseconds since 1970. */
  readonly captured: bigint;
  /** Size in bytes. */
  readonly size: number;
  /** JSON object as text, or empty. */
  readonly metadata: string;
  /** Undefined while the frame is still arriving. */
  readonly crc32?: number | undefined;
  /** Time of arrival in nanoseconds since 1970. */
  readonly received?: bigint | undefined;
  readonly raw?: RawShape | undefined;
  /** Default: by the extension of the name. */
  readonly mediaType?: string | undefined;
  /** Whether a decoder can begin with it, if it is a picture of encoded video. */
  readonly isKey?: boolean | undefined;
}

/** A message without the bytes of its picture. */
export interface FrameMessage {
  readonly schema: SchemaName;
  /** All of the message before the picture. */
  readonly head: Uint8Array;
  /** Position in `head` of the 4 bytes of the CRC-32, little-endian. */
  readonly crcPosition: number;
}

/** Protobuf libraries read messages of less than 2 GiB. */
const maxMessageBytes = 2 ** 31 - 1;

/** Foxglove's `format` of CompressedImage and CompressedVideo, by media type. */
const imageFormats: Readonly<Record<string, string>> = {
  "image/jpeg": "jpeg",
  "image/png": "png",
  "image/webp": "webp",
  "image/avif": "avif",
};
const videoFormats: Readonly<Record<string, string>> = {
  "video/h264": "h264",
  "video/h265": "h265",
  "video/vp9": "vp9",
  "video/av1": "av1",
};

/** A pixel format that RawImage can express. */
export interface RawEncoding {
  /** Foxglove's name of it. */
  readonly encoding: string;
  /** Bytes of a row for each pixel. */
  readonly pixelBytes: number;
  /** Rows of the frame for each line of pixels; more than 1 where colour has rows of its own. */
  readonly rowsPerLine: number;
}

/** By ffmpeg's name of the pixel format. */
export const rawEncodings: Readonly<Record<string, RawEncoding>> = {
  gray: { encoding: "mono8", pixelBytes: 1, rowsPerLine: 1 },
  gray16le: { encoding: "mono16", pixelBytes: 2, rowsPerLine: 1 },
  grayf32le: { encoding: "32FC1", pixelBytes: 4, rowsPerLine: 1 },
  rgb24: { encoding: "rgb8", pixelBytes: 3, rowsPerLine: 1 },
  bgr24: { encoding: "bgr8", pixelBytes: 3, rowsPerLine: 1 },
  rgba: { encoding: "rgba8", pixelBytes: 4, rowsPerLine: 1 },
  bgra: { encoding: "bgra8", pixelBytes: 4, rowsPerLine: 1 },
  bayer_rggb8: { encoding: "bayer_rggb8", pixelBytes: 1, rowsPerLine: 1 },
  bayer_bggr8: { encoding: "bayer_bggr8", pixelBytes: 1, rowsPerLine: 1 },
  bayer_gbrg8: { encoding: "bayer_gbrg8", pixelBytes: 1, rowsPerLine: 1 },
  bayer_grbg8: { encoding: "bayer_grbg8", pixelBytes: 1, rowsPerLine: 1 },
  uyvy422: { encoding: "yuv422", pixelBytes: 2, rowsPerLine: 1 },
  yuyv422: { encoding: "yuv422_yuy2", pixelBytes: 2, rowsPerLine: 1 },
  nv12: { encoding: "nv12", pixelBytes: 1, rowsPerLine: 1.5 },
};

const numbers = Object.fromEntries(
  schemaNames.map((schema) => [schema, fieldNumbers(schema)]),
) as Record<SchemaName, ReadonlyMap<string, number>>;

/** Returns the message of a frame, or undefined if the frame is too large for a message. */
export function encodeFrame(frame: RecordedFrame): FrameMessage | undefined {
  const { raw, size, captured } = frame;
  const mediaType = frame.mediaType ?? mediaTypeOf(frame.name);
  const { schema, fields } = publishedFieldsOf(raw, size, mediaType);
  const number = numbers[schema];
  const writer = new ProtobufWriter()
    .message(number.get("timestamp")!, timestamp(captured))
    .string(number.get("frame_id")!, frameId(frame));
  for (const [name, value] of fields) {
    if (typeof value === "string") writer.string(number.get(name)!, value);
    else writer.fixed32(number.get(name)!, value);
  }
  writer.string(ExtraField.name, frame.name).fixed32(ExtraField.crc32, frame.crc32 ?? 0);
  const crcPosition = writer.length - 4;
  writer
    .integer(ExtraField.number, frame.sequence)
    .string(ExtraField.metadata, frame.metadata)
    .bytes(ExtraField.session, Uint8Array.fromHex(frame.session))
    .string(ExtraField.mediaType, mediaType)
    .integer(ExtraField.received, frame.received ?? 0)
    .sint64(ExtraField.captured, captured)
    .string(ExtraField.rawShape, raw === undefined ? "" : formatShape(raw))
    .bool(ExtraField.isKeyFrame, frame.isKey ?? false);
  if (size > 0) writer.lengthPrefix(number.get("data")!, size);
  if (writer.length + size > maxMessageBytes) return undefined;
  return { schema, head: writer.finish(), crcPosition };
}

/** Returns the schema of a frame's message. */
export function schemaOf(
  frame: Pick<RecordedFrame, "name" | "size" | "raw" | "mediaType">,
): SchemaName {
  const mediaType = frame.mediaType ?? mediaTypeOf(frame.name);
  return publishedFieldsOf(frame.raw, frame.size, mediaType).schema;
}

/** Chooses the schema that fits, and returns the values of its own fields. */
function publishedFieldsOf(
  raw: RawShape | undefined,
  size: number,
  mediaType: string,
): { schema: SchemaName; fields: readonly (readonly [string, string | number])[] } {
  if (raw !== undefined) {
    const { width, height } = raw;
    const layout = rawEncodings[raw.format];
    const step = layout === undefined ? 0 : rowBytes(layout, width);
    if (layout === undefined || step * height * layout.rowsPerLine !== size) {
      return { schema: "frames.Frame", fields: [] };
    }
    const { encoding } = layout;
    return {
      schema: "foxglove.RawImage",
      fields: Object.entries({ width, height, encoding, step }),
    };
  }
  const image = imageFormats[mediaType];
  if (image !== undefined) {
    return { schema: "foxglove.CompressedImage", fields: [["format", image]] };
  }
  const video = videoFormats[mediaType];
  if (video !== undefined) {
    return { schema: "foxglove.CompressedVideo", fields: [["format", video]] };
  }
  return { schema: "frames.Frame", fields: [] };
}

/** Returns the bytes of a row without padding. */
export function rowBytes({ encoding, pixelBytes }: RawEncoding, width: number): number {
  // Two neighbours share their colour, so that a row has whole pairs.
  const isPaired = encoding.startsWith("yuv422");
  return pixelBytes * (isPaired ? width + (width % 2) : width);
}

/** Returns a google.protobuf.Timestamp. Its nanoseconds count forward, also before 1970. */
function timestamp(nanoseconds: bigint): ProtobufWriter {
  const nanos = ((nanoseconds % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return new ProtobufWriter().integer(1, (nanoseconds - nanos) / 1_000_000_000n).integer(2, nanos);
}

/** Returns `frame_id` from the frame's metadata, or else the source. */
function frameId({ source, metadata }: RecordedFrame): string {
  if (!metadata.includes('"frame_id"')) return source;
  // A journal from a damaged disk may hold anything.
  const id = parseObject(metadata)?.["frame_id"];
  return typeof id === "string" ? id : source;
}

/** Formats a shape as `--raw` has it, such as `640x512:gray16le`. */
export function formatShape({ width, height, format }: RawShape): string {
  return `${width}x${height}:${format}`;
}
