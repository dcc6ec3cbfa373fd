/**
 * Encoded video as frames: finds the NAL units of an access unit in Annex B, and tells key frames
 * (ITU-T H.264 annex B and table 7-1; ITU-T H.265 annex B and table 7-1).
 */

import { readRecoveryCount } from "./recovery-point.ts";

/** Codecs whose access units are frames. */
export type VideoCodec = "h264" | "h265";

/** Media types of SOURCE and of recordings, by codec. */
export const videoTypes = { h264: "video/h264", h265: "video/h265" } as const;

/** Returns the codec of a media type, `undefined` if frames of this type are no encoded video. */
export function codecOfType(type: string | undefined): VideoCodec | undefined {
  if (type === videoTypes.h264) return "h264";
  return type === videoTypes.h265 ? "h265" : undefined;
}

/** A NAL unit. Offsets count from the start of the access unit. */
export interface NalUnit {
  /** Offset of its start code, which has 3 or 4 bytes. */
  readonly start: number;
  /** Offset of its first byte after the start code. */
  readonly header: number;
  /** Offset after its last byte. */
  readonly end: number;
  /** Type, as in table 7-1 of its codec. */
  readonly type: number;
}

/** Type of the sequence parameter set, which has the size and the coding of the pictures. */
export const sequenceTypes = { h264: 7, h265: 33 } as const;

/** Type of supplemental information that precedes a picture. */
const informationTypes = { h264: 6, h265: 39 } as const;

/** Length of the header of a NAL unit. */
const headerBytes = { h264: 1, h265: 2 } as const;

/** Bytes of a start code: 0, 0, 1. One of four bytes has a zero before it. */
const startCodeBytes = 3;

/** Returns the offset of the next start code of three bytes, or -1. Browsers run this code, too. */
export function findStartCode(bytes: Uint8Array, from: number): number {
  for (let at = from + 1; (at = bytes.indexOf(1, at + 1)) >= 0;) {
    if (bytes[at - 1] === 0 && bytes[at - 2] === 0) return at - 2;
  }
  return -1;
}

/** Yields the NAL units of an access unit. Yields nothing if it does not begin with a start code. */
export function* nalUnits(bytes: Uint8Array, codec: VideoCodec): Generator<NalUnit, undefined> {
  let at = findStartCode(bytes, 0);
  // Only zeros may precede the first start code.
  if (at < 0 || bytes.subarray(0, at).some((byte) => byte !== 0)) return undefined;
  let start = Math.max(0, at - 1);
  while (at >= 0) {
    const header = at + startCodeBytes;
    const next = findStartCode(bytes, header);
    const end = next < 0 ? bytes.length : bytes[next - 1] === 0 ? next - 1 : next;
    if (header < bytes.length) yield { start, header, end, type: typeOf(bytes[header]!, codec) };
    start = end;
    at = next;
  }
  return undefined;
}

/** Returns the type of a NAL unit by the first byte of its header. */
export function typeOf(firstByte: number, codec: VideoCodec): number {
  return codec === "h264" ? firstByte & 0x1f : (firstByte >> 1) & 0x3f;
}

/** Whether a NAL unit of this type holds a slice of a picture. */
export function isSlice(type: number, codec: VideoCodec): boolean {
  return codec === "h264" ? type >= 1 && type <= 5 : type <= 31;
}

/** Whether a NAL unit of this type is a parameter set, without which slices cannot be decoded. */
export function isParameterSet(type: number, codec: VideoCodec): boolean {
  return codec === "h264" ? type === 7 || type === 8 : type >= 32 && type <= 34;
}

/** Whether a decoder can begin with a picture of this type: IDR in H.264, IRAP in H.265. */
export function isKeyPicture(type: number, codec: VideoCodec): boolean {
  return codec === "h264" ? type === 5 : type >= 16 && type <= 23;
}

/** Kind of a picture, as far as dropping frames depends on it. */
export interface PictureKind {
  /** Whether a decoder can begin with it. */
  readonly isKey: boolean;
  /**
   * Whether it precedes its key frame in time and needs pictures before that, so that a decoder that
   * began with the key frame must leave it out (RASL, H.265 section 3.124).
   */
  readonly isSkippedLeading: boolean;
  /**
   * Pictures from this one on that may be damaged if a decoder begins with it: 0 for a key frame.
   * `undefined` if a decoder cannot begin with it.
   */
  readonly recoveryCount: number | undefined;
}

/** Returns the kind of an access unit, `undefined` if it holds no picture. */
export function pictureKind(bytes: Uint8Array, codec: VideoCodec): PictureKind | undefined {
  let recoveryCount: number | undefined;
  for (const { type, header, end } of nalUnits(bytes, codec)) {
    if (isSlice(type, codec)) {
      const isKey = isKeyPicture(type, codec);
      const isSkippedLeading = codec === "h265" && (type === 8 || type === 9);
      return { isKey, isSkippedLeading, recoveryCount: isKey ? 0 : recoveryCount };
    }
    if (type !== informationTypes[codec]) continue;
    const message = bytes.subarray(header + headerBytes[codec], end);
    recoveryCount ??= readRecoveryCount(message, codec === "h265");
  }
  return undefined;
}

/** Whether an access unit is a key frame. Access units that are damaged are none. */
export function isKeyFrame(bytes: Uint8Array, codec: VideoCodec): boolean {
  return pictureKind(bytes, codec)?.isKey === true;
}
