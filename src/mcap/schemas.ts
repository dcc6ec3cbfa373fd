/**
 * The protobuf schemas of frames in MCAP: three of Foxglove's, which viewers know by name, and one
 * of ours for what fits none of them. Each has our extra fields behind its own.
 */
import { ProtobufWriter } from "./protobuf.ts";

/** Types of a FieldDescriptorProto. */
const FieldType = {
  int64: 3,
  uint64: 4,
  int32: 5,
  fixed32: 7,
  bool: 8,
  string: 9,
  message: 11,
  bytes: 12,
  sint64: 18,
} as const;

type FieldTypeName = keyof typeof FieldType;

/** A field: number, name and type. A `message` is a Timestamp, the only one that is used. */
type SchemaField = readonly [number: number, name: string, type: FieldTypeName];

const timestampFields: readonly SchemaField[] = [
  [1, "seconds", "int64"],
  [2, "nanos", "int32"],
];

/** Numbers of our own fields, the same in all schemas. */
export const ExtraField = {
  name: 100,
  crc32: 101,
  number: 102,
  metadata: 103,
  session: 104,
  mediaType: 105,
  received: 106,
  captured: 107,
  rawShape: 108,
  isKeyFrame: 109,
} as const;

const extraFields: readonly SchemaField[] = [
  [ExtraField.name, "name", "string"],
  [ExtraField.crc32, "crc32", "fixed32"],
  [ExtraField.number, "number", "uint64"],
  [ExtraField.metadata, "metadata", "string"],
  [ExtraField.session, "session", "bytes"],
  [ExtraField.mediaType, "media_type", "string"],
  [ExtraField.received, "received", "int64"],
  [ExtraField.captured, "captured", "sint64"],
  [ExtraField.rawShape, "raw_shape", "string"],
  [ExtraField.isKeyFrame, "is_key_frame", "bool"],
];

/** The fields of each schema that its own publisher defines. */
const publishedFields = {
  "foxglove.CompressedImage": [
    [1, "timestamp", "message"],
    [4, "frame_id", "string"],
    [2, "data", "bytes"],
    [3, "format", "string"],
  ],
  "foxglove.RawImage": [
    [1, "timestamp", "message"],
    [7, "frame_id", "string"],
    [2, "width", "fixed32"],
    [3, "height", "fixed32"],
    [4, "encoding", "string"],
    [5, "step", "fixed32"],
    [6, "data", "bytes"],
  ],
  "foxglove.CompressedVideo": [
    [1, "timestamp", "message"],
    [2, "frame_id", "string"],
    [3, "data", "bytes"],
    [4, "format", "string"],
  ],
  "frames.Frame": [
    [1, "timestamp", "message"],
    [2, "frame_id", "string"],
    [3, "data", "bytes"],
  ],
} as const satisfies Record<string, readonly SchemaField[]>;

export type SchemaName = keyof typeof publishedFields;

export const schemaNames = Object.keys(publishedFields) as SchemaName[];

/** Returns the numbers of a schema's published fields by name. */
export function fieldNumbers(schema: SchemaName): ReadonlyMap<string, number> {
  return new Map(publishedFields[schema].map(([number, name]) => [name, number]));
}

/**
 * Returns the `data` of a Schema record: a FileDescriptorSet with its import.
 *
 * @param isExtended whether it has our extra fields; without them it is the published schema
 */
export function schemaData(schema: SchemaName, isExtended = true): Uint8Array {
  const [packageName, messageName] = schema.split(".") as [string, string];
  const fields = [...publishedFields[schema], ...(isExtended ? extraFields : [])];
  const timestamp = fileDescriptor(timestampFile, "google.protobuf", "Timestamp", timestampFields);
  const message = fileDescriptor(
    `${packageName}/${messageName}.proto`,
    packageName,
    messageName,
    fields,
    timestampFile,
  );
  return new ProtobufWriter().message(1, timestamp).message(1, message).finish();
}

const timestampFile = "google/protobuf/timestamp.proto";

function fileDescriptor(
  file: string,
  packageName: string,
  messageName: string,
  fields: readonly SchemaField[],
  dependency = "",
): ProtobufWriter {
  const message = new ProtobufWriter().string(1, messageName);
  for (const field of fields) message.message(2, fieldDescriptor(field));
  return new ProtobufWriter()
    .string(1, file)
    .string(2, packageName)
    .string(3, dependency)
    .message(4, message)
    .string(12, "proto3");
}

const optionalLabel = 1;

function fieldDescriptor([number, name, type]: SchemaField): ProtobufWriter {
  const jsonName = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return new ProtobufWriter()
    .string(1, name)
    .integer(3, number)
    .integer(4, optionalLabel)
    .integer(5, FieldType[type])
    .string(6, type === "message" ? ".google.protobuf.Timestamp" : "")
    .string(10, jsonName);
}
