/**
 * How the text of a key looks. Every command looks for keys in its arguments, so this file loads no
 * cryptography.
 */

/** Prefix of every key's text, by which people and secret scanners recognize a key. */
export const keyPrefix = "frames_key_";

/** Returns whether text contains a key, or most of one, and must not be shown. */
export function containsKey(text: string): boolean {
  return /frames_key_[\w-]{24}/.test(text);
}
