/**
 * Writes access units as a Matroska stream (RFC 9559), the simplest input in which ffmpeg gets encoded
 * pictures with their times. A cluster holds one picture, so that times have no limit.
 */
import type { VideoCodec } from "./nal-units.ts";

/** Ids of elements, with the marker bits of their length. */
const Id = {
  ebml: 0x1a45dfa3,
  docType: 0x4282,
  segment: 0x18538067,
  info: 0x1549a966,
  timestampScale: 0x2ad7b1,
  tracks: 0x1654ae6b,
  trackEntry: 0xae,
  trackNumber: 0xd7,
  trackUid: 0x73c5,
  trackType: 0x83,
  codecId: 0x86,
  defaultDuration: 0x23e383,
  video: 0xe0,
  pixelWidth: 0xb0,
  pixelHeight: 0xba,
  cluster: 0x1f43b675,
  timestamp: 0xe7,
  simpleBlock: 0xa3,
} as const;

const codecIds = { h264: "V_MPEG4/ISO/AVC", h265: "V_MPEGH/ISO/HEVC" } as const;

/** Unit of times: a microsecond. */
export const matroskaTickNs = 1000;

/** Length that means: until the end of the stream. */
const unknownLength = Buffer.from("01ffffffffffffff", "hex");

/**
 * Returns the head of a stream with one video track.
 *
 * @param pictureNs duration of a picture after which no other one comes, in nanoseconds
 */
export function matroskaHead(codec: VideoCodec, pictureNs?: number): Uint8Array {
  // ffmpeg reads the size of the pictures from the parameter sets.
  const size = Buffer.concat([integer(Id.pixelWidth, 16), integer(Id.pixelHeight, 16)]);
  const track = Buffer.concat([
    integer(Id.trackNumber, 1),
    integer(Id.trackUid, 1),
    integer(Id.trackType, 1),
    element(Id.codecId, Buffer.from(codecIds[codec])),
    ...(pictureNs === undefined ? [] : [integer(Id.defaultDuration, pictureNs)]),
    element(Id.video, size),
  ]);
  return Buffer.concat([
    element(Id.ebml, element(Id.docType, Buffer.from("matroska"))),
    idBytes(Id.segment),
    unknownLength,
    element(Id.info, integer(Id.timestampScale, matroskaTickNs)),
    element(Id.tracks, element(Id.trackEntry, track)),
  ]);
}

/**
 * Returns what precedes the bytes of an access unit in the stream.
 *
 * @param ticks its time in units of `matroskaTickNs`, 0 or more
 * @param size its length in bytes
 */
export function matroskaPictureHead(ticks: number, size: number, isKey: boolean): Uint8Array {
  const timestamp = integer(Id.timestamp, ticks);
  // Track 1, no difference to the time of the cluster, flags.
  const blockHead = Buffer.from([0x81, 0, 0, isKey ? 0x80 : 0]);
  const block = [idBytes(Id.simpleBlock), lengthBytes(blockHead.length + size), blockHead];
  const length = timestamp.length + totalLength(block) + size;
  return Buffer.concat([idBytes(Id.cluster), lengthBytes(length), timestamp, ...block]);
}

function element(id: number, content: Uint8Array): Buffer {
  return Buffer.concat([idBytes(id), lengthBytes(content.length), content]);
}

function integer(id: number, value: number): Buffer {
  const content = Buffer.alloc(8);
  content.writeBigUInt64BE(BigInt(value));
  return element(id, content);
}

function idBytes(id: number): Buffer {
  const digits = id.toString(16);
  return Buffer.from(digits, "hex");
}

/** Returns a length in 8 bytes, which may hold any length. */
function lengthBytes(length: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(length));
  bytes[0] = 0x01;
  return bytes;
}

function totalLength(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, { length }) => sum + length, 0);
}
