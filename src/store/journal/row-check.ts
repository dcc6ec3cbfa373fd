/**
 * Checks the rows of a journal as if a peer had sent them. A damaged disk can change a row so that
 * SQLite still reads it. Numbers are read as bigints.
 */
import { sourceFolderPath, checkPathPart } from "../name-rules.ts";

/** A row as SQLite returns it, with any type in any column. */
export type UncheckedRow = Readonly<Partial<Record<ColumnName, unknown>>>;

type ColumnName =
  | ("id" | "stream" | "source" | "name" | "session" | "seq" | "bytes" | "crc32" | "captured")
  | ("received" | "key" | "key_id" | "meta" | "format" | "partial" | "path" | "value")
  | ("first" | "last" | "reason" | "at" | "state");

const maxNumber = BigInt(Number.MAX_SAFE_INTEGER);
/** Limit of the metadata of a frame in bytes (SPEC section 12). */
const maxMetadataBytes = 4096;
const maxKeyNameLength = 255;
const maxReasonLength = 40;

/** Checks of each table, by name. Tables and properties of later versions are not checked. */
export const rowChecks = {
  frames: isFrameRow,
  losses: (row: UncheckedRow) =>
    isSourceSession(row) &&
    isNumber(row.first, 1n) &&
    isNumber(row.last, row.first) &&
    isReason(row.reason) &&
    isTime(row.at) &&
    ((row.name ?? null) === null || isText(row.name)) &&
    [undefined, null, "came", "accepted"].includes(row.state as string),
  accounted: (row: UncheckedRow) =>
    isSourceSession(row) &&
    isNumber(row.first, 0n) &&
    isNumber(row.last, row.first) &&
    isTime(row.at),
  sessions: (row: UncheckedRow) => isSession(row.session) && isKeyName(row) && isKeyId(row),
  removed: (row: UncheckedRow) =>
    isTime(row.path) && isNumber(row.bytes, 0n) && isCrc(row.crc32) && isTime(row.captured),
  removing: (row: UncheckedRow) => isNumber(row.id, 1n),
  replacements: (row: UncheckedRow) => isText(row.partial) && isFrameRow(row),
  properties: isProperty,
} as const;

/** Columns of each table that every version of the journal has, as `rowChecks` reads them. */
export const checkedColumns: Readonly<Record<keyof typeof rowChecks, string>> = {
  frames:
    "id, stream, source, name, session, seq, bytes, crc32, captured, received, key, meta, format",
  losses: "stream, source, session, first, last, reason, at",
  accounted: "stream, source, session, first, last, at",
  sessions: "session, key, key_id",
  removed: "path, bytes, crc32, captured",
  removing: "id",
  replacements:
    "partial, stream, source, name, session, seq, bytes, crc32, captured, received, meta, format",
  properties: "name, value",
};

function isFrameRow(row: UncheckedRow): boolean {
  return (
    isSource(row) &&
    isPathPart(row.name) &&
    isSession(row.session) &&
    isNumber(row.seq, 1n) &&
    isNumber(row.bytes, 0n) &&
    isCrc(row.crc32) &&
    isTime(row.captured) &&
    isTime(row.received) &&
    isKeyName(row) &&
    (row.meta === null || isMetadata(row.meta)) &&
    (row.format === null || isRawShape(row.format))
  );
}

function isKeyName({ key }: UncheckedRow): boolean {
  return (key ?? null) === null || (isText(key) && key.length <= maxKeyNameLength);
}

/** Returns whether a row has a key without an id, or one with the id of a key (SPEC section 10). */
function isKeyId({ key, key_id: id }: UncheckedRow): boolean {
  return id === null || (isText(key) && isText(id) && /^[0-9a-f]{16}$/.test(id));
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

/** Returns whether a value is a 64-bit number, such as a time. */
function isTime(value: unknown): value is bigint {
  return typeof value === "bigint";
}

function isNumber(value: unknown, least: unknown): value is bigint {
  return isTime(value) && value >= (least as bigint) && value <= maxNumber;
}

function isCrc(value: unknown): boolean {
  return isNumber(value, 0n) && value <= 0xffff_ffffn;
}

function isSession(value: unknown): boolean {
  return isText(value) && /^[0-9a-f]{32}$/.test(value);
}

function isReason(value: unknown): boolean {
  return isText(value) && value.length <= maxReasonLength && /^[a-z-]+$/.test(value);
}

export function isPathPart(value: unknown): boolean {
  return isText(value) && succeeds(() => checkPathPart(value, false));
}

export function isSource({ stream, source }: UncheckedRow): boolean {
  if (!isText(stream) || !isText(source)) return false;
  return succeeds(() => sourceFolderPath(stream, source, false));
}

function isSourceSession(row: UncheckedRow): boolean {
  return isSource(row) && (row.session === "" || isSession(row.session));
}

function isMetadata(value: unknown): boolean {
  if (!isText(value) || Buffer.byteLength(value) > maxMetadataBytes) return false;
  return isObject(parseJson(value));
}

function isRawShape(value: unknown): boolean {
  return isText(value) && /^[1-9]\d{0,15}x[1-9]\d{0,15}\.[^]+$/.test(value);
}

function isProperty({ name, value }: UncheckedRow): boolean {
  if (!isText(name) || !isText(value)) return false;
  switch (name) {
    case "identity":
    case "numbering":
      return isSession(value);
    case "copy":
      return isPathPart((parseJson(value) as { stream?: unknown } | undefined)?.stream);
    case "cursor":
      return isText((parseJson(value) as { cursor?: unknown } | undefined)?.cursor);
    default:
      return true;
  }
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Returns the object in a JSON text, or undefined. */
function parseJson(text: string): object | undefined {
  try {
    const value = JSON.parse(text) as unknown;
    return isObject(value) ? (value as object) : undefined;
  } catch {
    return undefined;
  }
}

function succeeds(act: () => unknown): boolean {
  try {
    act();
    return true;
  } catch {
    return false;
  }
}
