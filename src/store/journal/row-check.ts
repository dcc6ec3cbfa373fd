/**
 * Checks the rows of a journal as if a peer had sent them. A damaged disk can change a row so that
 * SQLite still reads it, and a store may have been made by another user. Numbers are read as
 * bigints. All code that reads rows uses these checks.
 */
import { parseObject } from "../../common/json-object.ts";
import {
  isMetadata,
  isNumber,
  isReason,
  isSession,
  isText,
  isTime,
} from "../../common/row-values.ts";
import { sourceFolderPath, checkPathPart } from "../name-rules.ts";

/** A row as SQLite returns it, with any type in any column. */
export type UncheckedRow = Readonly<Partial<Record<ColumnName, unknown>>>;

type ColumnName =
  | ("id" | "stream" | "source" | "name" | "session" | "seq" | "bytes" | "crc32" | "captured")
  | ("received" | "key" | "key_id" | "meta" | "format" | "is_key" | "partial" | "path" | "value")
  | ("first" | "last" | "reason" | "at" | "state");

const maxKeyNameLength = 255;

/** On Windows a name such as `a:b` leads to another file, and no store there has one. */
const isWindows = process.platform === "win32";

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
  replacements: (row: UncheckedRow) => isPathPart(row.partial) && isFrameRow(row),
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

/** SQL for the bytes of a frame in a sum: those of a damaged row count as 0. */
export const countedBytes = `CASE WHEN typeof(bytes) = 'integer'
  AND bytes BETWEEN 0 AND ${Number.MAX_SAFE_INTEGER} THEN bytes ELSE 0 END`;

/** SQL for the lost numbers of a report in a sum: those of a damaged row count as 0. */
export const countedLosses = `CASE WHEN typeof(first) = 'integer' AND typeof(last) = 'integer'
  THEN max(last - first + 1, 0) ELSE 0 END`;

/** A column that was not read is not checked. */
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
    ((row.meta ?? null) === null || isMetadata(row.meta)) &&
    ((row.format ?? null) === null || isRawShape(row.format)) &&
    [undefined, null, 0n, 1n].includes(row.is_key as bigint)
  );
}

function isKeyName({ key }: UncheckedRow): boolean {
  return (key ?? null) === null || (isText(key) && key.length <= maxKeyNameLength);
}

/** Returns whether a row has a key without an id, or one with the id of a key (SPEC section 10). */
function isKeyId({ key, key_id: id }: UncheckedRow): boolean {
  return id === null || (isText(key) && isText(id) && /^[0-9a-f]{16}$/.test(id));
}

function isCrc(value: unknown): boolean {
  return isNumber(value, 0n) && value <= 0xffff_ffffn;
}

export function isPathPart(value: unknown): boolean {
  return isText(value) && succeeds(() => checkPathPart(value, isWindows));
}

export function isSource({ stream, source }: UncheckedRow): boolean {
  if (!isText(stream) || !isText(source)) return false;
  return succeeds(() => sourceFolderPath(stream, source, isWindows));
}

function isSourceSession(row: UncheckedRow): boolean {
  return isSource(row) && (row.session === "" || isSession(row.session));
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
      return isCopyOf(parseObject(value));
    case "cursor":
      return isCopyProgress(parseObject(value));
    default:
      return true;
  }
}

/** Returns whether an object is a `CopyOf`. */
function isCopyOf(value: ReturnType<typeof parseObject>): boolean {
  return isPathPart(value?.["stream"]);
}

/** Returns whether an object is the progress of a copy, as `StreamCopy` saves it. */
function isCopyProgress(value: ReturnType<typeof parseObject>): boolean {
  const { cursor, sources = null, since = null } = value ?? {};
  const hasSources = sources === null || (Array.isArray(sources) && sources.every(isText));
  const hasTime = since === null || (isText(since) && /^-?\d{1,19}$/.test(since));
  return isText(cursor) && hasSources && hasTime;
}

function succeeds(act: () => unknown): boolean {
  try {
    act();
    return true;
  } catch {
    return false;
  }
}
