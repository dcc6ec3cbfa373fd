/** Encodes the messages of FRAMES/1 (SPEC sections 3 to 5). */
import { crc32 } from "../common/checksum.ts";
import { compileCheaply } from "../common/compilation.ts";
import { FramesError } from "../errors.ts";
import type { FrameDescription } from "../frame.ts";
import {
  type ControlBodies,
  type ControlType,
  MessageFlag,
  Size,
  MessageType,
  typeName,
} from "./messages.ts";

const utf8 = new TextEncoder();

/** Takes capture times apart, because a view of each buffer would be garbage. */
const captureTime = new DataView(new ArrayBuffer(8));

/** Returns an upper bound of the bytes that `writeFramePrefix` writes for the frame. */
export function maxFramePrefixBytes(frame: FrameDescription): number {
  return Size.header + Size.frame + 3 * (frame.name.length + frame.metadata.length);
}

/** Largest payload in bytes that fits into one FRAME with any name and metadata. */
export const maxPackedFrameBytes = Size.body - Size.frame - Size.name - Size.metadata;

/** Largest payload in bytes that fits into one DATA. */
export const maxPieceBytes = Size.body - Size.data;

function sealHeader(
  into: Uint8Array,
  at: number,
  type: number,
  flags: number,
  source: number,
  length: number,
  coveredBytes: number,
): void {
  // The CRC-32 covers the bytes before and after it. One call sums them up while they are joined.
  writeHeaderStart(into, at + 4, type, flags, source, length);
  const crc = crc32(into.subarray(at + 4, at + Size.header + coveredBytes));
  writeHeaderStart(into, at, type, flags, source, length);
  writeUint32(into, at + 8, crc);
}

function writeHeaderStart(
  into: Uint8Array,
  at: number,
  type: number,
  flags: number,
  source: number,
  length: number,
): void {
  into[at] = type;
  into[at + 1] = flags;
  into[at + 2] = source >>> 8;
  into[at + 3] = source;
  writeUint32(into, at + 4, length);
}

function writeUint32(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

function writeUint64(into: Uint8Array, at: number, value: number): void {
  writeUint32(into, at, Math.floor(value / 0x1_0000_0000));
  writeUint32(into, at + 4, value);
}

/**
 * Writes a FRAME up to its payload. `sealFrame` completes the message.
 *
 * @returns offset in `into` at which the payload begins
 * @throws {FramesError} `bad-name` if the name is empty, or name or metadata is too long
 */
export function writeFramePrefix(into: Uint8Array, at: number, frame: FrameDescription): number {
  const body = at + Size.header;
  writeUint64(into, body, frame.sequence);
  captureTime.setBigInt64(0, frame.captured);
  writeUint32(into, body + 8, captureTime.getUint32(0));
  writeUint32(into, body + 12, captureTime.getUint32(4));
  writeUint64(into, body + 16, frame.size);
  const nameAt = body + Size.frame;
  const name = utf8.encodeInto(frame.name, into.subarray(nameAt)).written;
  let metadata = 0;
  if (frame.metadata !== "") {
    metadata = utf8.encodeInto(frame.metadata, into.subarray(nameAt + name)).written;
  }
  if (name < 1 || name > Size.name || metadata > Size.metadata) {
    throw new FramesError("bad-name", "Cannot send the frame: its name or metadata is too long");
  }
  into[body + 28] = name >>> 8;
  into[body + 29] = name;
  into[body + 30] = metadata >>> 8;
  into[body + 31] = metadata;
  return nameAt + name + metadata;
}

/**
 * Completes the FRAME at offset `at`. Returns the CRC-32 of its payload.
 *
 * @param at offset given to `writeFramePrefix`
 * @param more whether more payload follows in DATA messages
 * @param payloadAt offset that `writeFramePrefix` returned
 * @param payload the payload in this message, at that offset
 * @param isKey whether to set the flag KEY, which both ends must know
 */
export function sealFrame(
  into: Uint8Array,
  at: number,
  source: number,
  more: boolean,
  payloadAt: number,
  payload: Uint8Array,
  isKey = false,
): number {
  const body = at + Size.header;
  const crc = crc32(payload);
  writeUint32(into, body + 24, crc);
  const coveredBytes = payloadAt - body;
  sealHeader(
    into,
    at,
    MessageType.frame,
    (more ? MessageFlag.more : 0) | (isKey ? MessageFlag.key : 0),
    source,
    coveredBytes + payload.length,
    coveredBytes,
  );
  return crc;
}

/** Bytes that `writeDataPrefix` writes. */
export const dataPrefixBytes = Size.header + Size.data;

/** Writes a DATA up to its payload of `length` bytes. The caller sends the payload after it. */
export function writeDataPrefix(
  into: Uint8Array,
  at: number,
  source: number,
  more: boolean,
  crcSoFar: number,
  length: number,
): void {
  writeUint32(into, at + Size.header, crcSoFar);
  sealHeader(
    into,
    at,
    MessageType.data,
    more ? MessageFlag.more : 0,
    source,
    Size.data + length,
    Size.data,
  );
}

/**
 * Encodes a control message.
 *
 * @throws {FramesError} `internal` if its JSON is over 65,536 bytes
 */
export function encodeControl<T extends ControlType>(
  type: T,
  source: number,
  body: ControlBodies[T],
): Uint8Array {
  const json = utf8.encode(JSON.stringify(body));
  if (json.length > Size.json) {
    throw new FramesError(
      "internal",
      `Cannot send ${typeName(type)}: ${json.length} bytes of JSON`,
    );
  }
  const bytes = new Uint8Array(Size.header + json.length);
  bytes.set(json, Size.header);
  sealHeader(bytes, 0, type, 0, source, json.length, json.length);
  return bytes;
}

/** Encodes PROOF with a body of 32 bytes. */
export function encodeProof(proof: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(Size.header + Size.proof);
  bytes.set(proof, Size.header);
  sealHeader(bytes, 0, MessageType.proof, 0, 0, Size.proof, Size.proof);
  return bytes;
}

/** Encodes a RECEIPT for the first `frames` frames that ended on the connection. */
export function encodeReceipt(frames: number): Uint8Array {
  const bytes = new Uint8Array(Size.header + Size.receipt);
  writeUint64(bytes, Size.header, frames);
  sealHeader(bytes, 0, MessageType.receipt, 0, 0, Size.receipt, Size.receipt);
  return bytes;
}

compileCheaply(writeFramePrefix, sealFrame, sealHeader);
