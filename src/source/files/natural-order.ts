/** Natural order: compares numbers in names by value, so `9.png` comes before `10.png`. */
import { compileCheaply } from "../../common/compilation.ts";

const zero = 0x30;
const nine = 0x39;

function isDigit(code: number): boolean {
  return code >= zero && code <= nine;
}

/**
 * Compares two names. Different names never compare equal, so the order does not depend on the
 * input. Numbers may have any number of digits.
 */
export function compareNatural(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length);
  let at = 0;
  // Find the first difference, then go back to the start of the number that contains it.
  while (at < shorter && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  let start = at;
  while (start > 0 && isDigit(a.charCodeAt(start - 1))) start--;
  const endA = numberEnd(a, at);
  const endB = numberEnd(b, at);
  // Numbers of the same length, the usual case, are ordered by their first different digit below.
  if (endA > start && endB > start && endA !== endB) {
    const value = compareNumbers(a.slice(start, endA), b.slice(start, endB));
    if (value !== 0) return value;
    // The values are equal and differ in leading zeros. The rest of the name decides first.
    const rest = compareNatural(a.slice(endA), b.slice(endB));
    return rest !== 0 ? rest : a.length - b.length;
  }
  if (at === shorter) return a.length - b.length;
  return a.charCodeAt(at) - b.charCodeAt(at);
}

function numberEnd(text: string, from: number): number {
  let end = from;
  while (end < text.length && isDigit(text.charCodeAt(end))) end++;
  return end;
}

function compareNumbers(a: string, b: string): number {
  const digitsA = a.replace(/^0+/, "");
  const digitsB = b.replace(/^0+/, "");
  if (digitsA.length !== digitsB.length) return digitsA.length - digitsB.length;
  return digitsA < digitsB ? -1 : digitsA > digitsB ? 1 : 0;
}

compileCheaply(compareNatural);
