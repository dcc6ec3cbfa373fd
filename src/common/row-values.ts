/**
 * Checks values that come from a database or a log, as if a peer had sent them: the disk may have
 * damaged them, or another program has written them. Integers are bigints.
 */
import { parseObject } from "./json-object.ts";

const maxNumber = BigInt(Number.MAX_SAFE_INTEGER);
/** Limit of the metadata of a frame in bytes (SPEC section 12). */
const maxMetadataBytes = 4096;
const maxReasonLength = 40;

export function isText(value: unknown): value is string {
  return typeof value === "string";
}

/** Returns whether a value is a 64-bit number, such as a time. */
export function isTime(value: unknown): value is bigint {
  return typeof value === "bigint" && BigInt.asIntN(64, value) === value;
}

/** Returns whether a value is a number from `least` to 2^53 - 1. */
export function isNumber(value: unknown, least: unknown): value is bigint {
  return typeof value === "bigint" && value >= (least as bigint) && value <= maxNumber;
}

/** Returns whether a value is the id of a session. */
export function isSession(value: unknown): value is string {
  return isText(value) && /^[0-9a-f]{32}$/.test(value);
}

/** Returns whether a value looks like the name of an error. */
export function isReason(value: unknown): value is string {
  return isText(value) && value.length <= maxReasonLength && /^[a-z-]+$/.test(value);
}

/** Returns whether a value is the metadata of a frame: an object as JSON. */
export function isMetadata(value: unknown): value is string {
  if (!isText(value) || Buffer.byteLength(value) > maxMetadataBytes) return false;
  return parseObject(value) !== undefined;
}
