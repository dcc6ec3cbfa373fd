/** Computes the CRC-32 of two byte sequences one behind the other from the CRC-32 of each. */

/** The polynomial of CRC-32, with its bits reversed. */
const polynomial = 0xedb8_8320;

/**
 * Returns the CRC-32 of `first` followed by `second`, without reading them. Used where a checksum
 * comes before bytes that are too many to hold.
 *
 * @param secondLength length of the second sequence in bytes
 */
export function combineCrc32(first: number, second: number, secondLength: number): number {
  // Appending a zero byte multiplies by x^8, so `secondLength` of them multiply by x^(8 * length).
  let result = first >>> 0;
  let power = 0x0080_0000;
  for (let rest = secondLength; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result = multiply(power, result);
    power = multiply(power, power);
  }
  return (result ^ second) >>> 0;
}

/** Multiplies two polynomials over GF(2), modulo the polynomial of CRC-32. */
function multiply(a: number, b: number): number {
  let product = 0;
  let shifted = b;
  for (let bit = 0x8000_0000; bit !== 0; bit >>>= 1) {
    if ((a & bit) !== 0) product ^= shifted;
    shifted = (shifted & 1) !== 0 ? (shifted >>> 1) ^ polynomial : shifted >>> 1;
  }
  return product >>> 0;
}
