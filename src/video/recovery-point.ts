/**
 * Reads recovery points, which streams without key frames have instead: a decoder may begin there,
 * and its pictures are right after some time (H.264 and H.265, annex D).
 */

/** Payload type of the message. */
const recoveryPayload = 6;

/** Bytes of a message that are read. A camera may send long ones, and other messages come first. */
const maxMessageBytes = 4096;

/** Leading zeros of a number at most. H.264 tells 2 ** 16 pictures apart, and H.265 as many. */
const maxLeadingZeros = 17;

/**
 * Returns how many pictures after a recovery point may be damaged, itself included; `undefined` if
 * the message marks none. B-frames do not count in H.264, so they may be more.
 *
 * @param message supplemental information, without the header of its NAL unit
 * @param isSigned whether the number of pictures has a sign, as in H.265
 */
export function readRecoveryCount(message: Uint8Array, isSigned: boolean): number | undefined {
  const bytes = withoutEmulation(message.subarray(0, maxMessageBytes));
  let at = 0;
  const readLength = (): number => {
    let length = 0;
    for (; bytes[at] === 0xff; at++) length += 255;
    return length + (bytes[at++] ?? 0);
  };
  while (at + 2 < bytes.length) {
    const payload = readLength();
    const size = readLength();
    if (payload === recoveryPayload) {
      const value = readNumber(bytes.subarray(at, at + size));
      // Odd numbers stand for positive ones, even ones for the others.
      return isSigned ? (value % 2 === 1 ? (value + 1) / 2 : 0) : value;
    }
    at += size;
  }
  return undefined;
}

/** Returns the bytes without those that keep start codes from appearing in a NAL unit. */
export function withoutEmulation(bytes: Uint8Array): Uint8Array {
  return bytes.filter((byte, at) => byte !== 3 || bytes[at - 1] !== 0 || bytes[at - 2] !== 0);
}

/** Reads a number in Exp-Golomb code (H.264 section 9.1). */
function readNumber(bytes: Uint8Array): number {
  const bitAt = (index: number) => ((bytes[index >> 3] ?? 0) >> (7 - (index & 7))) & 1;
  let zeros = 0;
  while (zeros < maxLeadingZeros && bitAt(zeros) === 0) zeros++;
  let value = 0;
  for (let index = zeros; index <= 2 * zeros; index++) value = 2 * value + bitAt(index);
  return Math.max(0, value - 1);
}
